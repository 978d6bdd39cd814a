"""The filter on the queue: only maskscore's own messages reach Celery.

Celery and kombu parse a message in many places, and an unexpected one ends the worker. So each message is checked
first, and one that is not maskscore's is dropped, logged and counted. The sweeper sends the tickets that are missing.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from pydantic import TypeAdapter, ValidationError

from maskscore.broker import TASK_NAME
from maskscore.schema import JobId

__all__ = ["filter_messages", "rejection_reason"]

log = logging.getLogger(__name__)

_JOB_ID: Final = TypeAdapter(JobId)
_SHOWN: Final = 200
# Remote control: Celery itself accepts any content there, in a valid envelope.
_CONTROL: Final = ".pidbox"


def rejection_reason(message: object) -> str | None:
    """Return why a message, as it lay in the queue and parsed as JSON, is not one that maskscore sends; else ``None``.

    The form is Celery's second protocol: https://docs.celeryq.dev/en/stable/internals/protocol.html
    """
    envelope = _envelope_fault(message)
    if envelope is not None:
        return envelope
    assert isinstance(message, dict)
    headers = message.get("headers")
    if not isinstance(headers, dict) or headers.get("task") != TASK_NAME:
        return "it is for another task"
    if not isinstance(headers.get("id"), str) or not isinstance(headers.get("retries", 0), int):
        return "its headers are damaged"
    if headers.get("eta") or headers.get("expires") or headers.get("timelimit") not in (None, [None, None]):
        return "it has a time or a limit of its own"
    if message.get("content-type") != "application/json" or message.get("content-encoding") != "utf-8":
        return "it is not JSON in UTF-8"
    try:
        arguments = json.loads(base64.b64decode(message["body"], validate=True))
    except (ValueError, RecursionError):
        return "its body is damaged"
    if not isinstance(arguments, list) or len(arguments) != 3 or not isinstance(arguments[2], dict | None):
        return "its body is damaged"
    # A ticket's argument is one word; messages of release 0 name a job there.
    positional, named, _ = arguments
    if named != {} or not isinstance(positional, list) or len(positional) != 1:
        return "it has not the one argument of a ticket"
    try:
        _JOB_ID.validate_python(positional[0], strict=True)
    except ValidationError:
        return "its argument is not that of a ticket"
    return None


def _envelope_fault(message: object) -> str | None:
    if not isinstance(message, dict):
        return "it is no message"
    properties = message.get("properties")
    if not isinstance(properties, dict) or not isinstance(message.get("body"), str):
        return "it is no message"
    if not isinstance(properties.get("delivery_tag"), str) or not isinstance(properties.get("delivery_info"), dict):
        return "its properties are damaged"
    try:
        base64.b64decode(message["body"], validate=True)
    except ValueError:
        return "its body is damaged"
    return None if properties.get("body_encoding") == "base64" else "its body is damaged"


def filter_messages(rejected: Callable[[], None]) -> None:
    """Install the filter in every connection to the queue that this process makes from now on.

    ``rejected`` is called for each such message.
    """

    def drop(why: str, message: object) -> None:
        rejected()
        log.warning("a message in the queue was dropped, since %s: %s", why, repr(message)[:_SHOWN])

    @cache
    def guarded(base: Any) -> Any:
        class Channel(base.Channel):  # type: ignore[misc]
            def _brpop_read(self, **options: Any) -> Any:
                try:
                    return super()._brpop_read(**options)
                except (ValueError, RecursionError) as error:
                    # It is off the list already, and is not JSON.
                    drop("it is no message", error)
                    return True

        class Transport(base):  # type: ignore[misc]
            def _deliver(self, message: object, queue: str) -> None:
                control = bool(queue) and queue.endswith(_CONTROL)
                why = _envelope_fault(message) if control else rejection_reason(message)
                if why is None:
                    super()._deliver(message, queue)
                else:
                    drop(why, message)

        Transport.Channel = Channel
        return Transport

    # kombu calls an alias that is not a name.
    aliases: dict[str, Any] = TRANSPORT_ALIASES
    for scheme, base in (
        ("redis", kombu_redis.Transport),
        ("rediss", kombu_redis.Transport),
        ("sentinel", kombu_redis.SentinelTransport),
    ):
        aliases[scheme] = partial(guarded, base)
