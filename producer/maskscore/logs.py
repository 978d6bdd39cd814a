"""Logs on stderr, as text or as one JSON object per line; whatever is said during a job carries its id."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from maskscore.settings import LogFormat

__all__ = ["job_logged", "log_to_stderr"]

_job_id: ContextVar[str | None] = ContextVar("job_id", default=None)

_CHATTY: Final = ("botocore", "boto3", "urllib3", "s3transfer", "PIL", "kombu", "amqp", "celery", "opentelemetry")


def log_to_stderr(level: str, format: LogFormat) -> None:
    """Send everything of at least this level to stderr; of chatty libraries, only warnings.

    JSON needs the extra ``metrics``.
    """
    handler = logging.StreamHandler(sys.stderr)
    if format == "json":
        from pythonjsonlogger.json import JsonFormatter

        handler.setFormatter(
            JsonFormatter(
                ["levelname", "name", "message"],
                rename_fields={"levelname": "level", "name": "logger"},
                timestamp="time",
                exc_info_as_array=True,
            )
        )
        handler.addFilter(_with_job_id)
        logging.captureWarnings(True)
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))


@contextmanager
def job_logged(job_id: str) -> Iterator[None]:
    """Inside the ``with`` block, what this thread logs carries the job's id as a field."""
    token = _job_id.set(job_id)
    try:
        yield
    finally:
        _job_id.reset(token)


def _with_job_id(record: logging.LogRecord) -> bool:
    job_id = _job_id.get()
    if job_id is not None and not hasattr(record, "job_id"):
        record.job_id = job_id
    return True
