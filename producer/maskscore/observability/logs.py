"""Logs on stderr, as text or as one JSON object per line; what is logged during a job carries its id."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TextIO

from maskscore.broker import redacted
from maskscore.settings import PREFIX, LogFormat
from maskscore.text import escaped, one_line

__all__ = ["job_id_logged", "log_json_early", "log_to_stderr"]

_job_id: ContextVar[str | None] = ContextVar("job_id", default=None)

_NOISY: Final = ("botocore", "boto3", "urllib3", "s3transfer", "PIL", "kombu", "amqp", "celery", "opentelemetry")


def log_json_early(given: str | None = None) -> None:
    """Log as JSON already before the settings are read, where their variable or ``given`` asks for it."""
    asked = os.environ.get(f"{PREFIX}LOG_FORMAT") if given is None else given
    if asked and asked.strip() == "json":
        log_to_stderr("INFO", "json")


def log_to_stderr(level: str, format: LogFormat) -> None:
    """Send everything of at least this level to stderr; of noisy libraries, only warnings.

    As JSON, whatever else is written to Python's stderr becomes objects as well, and so does an error that ends a
    thread or the process; only what C libraries print does not. JSON needs the extra ``metrics``.
    """
    stderr = sys.stderr.stream if isinstance(sys.stderr, _StderrLog) else sys.stderr
    handler = logging.StreamHandler(stderr)
    if format == "json":
        from pythonjsonlogger.json import JsonFormatter

        class Formatter(JsonFormatter):
            """JSON itself escapes what is not printable."""

            def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
                return {name: _redacted(value) for name, value in super().process_log_record(log_data).items()}

        handler.setFormatter(
            Formatter(
                ["levelname", "name", "message"],
                rename_fields={"levelname": "level", "name": "logger"},
                timestamp="time",
                exc_info_as_array=True,
            )
        )
        handler.addFilter(_with_job_id)
        logging.captureWarnings(True)
        sys.stderr = _StderrLog(stderr)
        sys.excepthook = _log_error
        threading.excepthook = _log_thread_error
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))


class _TextFormatter(logging.Formatter):
    """A line per message; a traceback is indented, so that nothing in it looks like a line of its own.

    No control character of an id, a URI or a prompt gets into the log, and no password of a URL.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = one_line(redacted(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indented(super().formatStack(stack_info))


def _redacted(value: Any) -> Any:
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    return redacted(value) if isinstance(value, str) else value


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in escaped(redacted(text)).splitlines())


@contextmanager
def job_id_logged(job_id: str) -> Iterator[None]:
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


class _StderrLog(io.TextIOBase):
    """Takes the place of stderr: each line becomes a record of the log. ``stream`` is the real stderr."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    def write(self, text: str, /) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(None, lines):
            warning = "warning:" in line.lower()
            logging.getLogger("stderr").log(logging.WARNING if warning else logging.ERROR, "%s", line)
        return len(text)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self.stream.fileno()


def _log_error(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    logging.getLogger("maskscore").critical("unexpected %s", kind.__name__, exc_info=(kind, error, traceback))


def _log_thread_error(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and arguments.exc_type is not SystemExit:
        _log_error(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
