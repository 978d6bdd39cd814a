"""The exit codes of the commands, and the mapping from errors."""

from __future__ import annotations

from enum import IntEnum

from maskscore.errors import (
    InvalidDocumentError,
    JobConflict,
    JobError,
    JobFailed,
    JobNotFound,
    MaskscoreError,
    OutputError,
    PayloadTooLarge,
    QueueFull,
    ResultUnavailable,
    ServiceUnavailable,
    SettingsError,
    TooManyBatches,
    WaitTimeout,
)

__all__ = ["Exit", "exit_code_of"]


class Exit(IntEnum):
    """The exit status of a command; docs/reference/cli.md has the same table."""

    OK = 0
    NOT_SUCCEEDED = 1
    WRONG_INPUT = 2
    TIMEOUT = 3
    UNAVAILABLE = 4
    NOT_FOUND = 5
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """The line of the help text."""
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "success",
    Exit.NOT_SUCCEEDED: "a job has no result or no scored mask, or a check found a problem",
    Exit.WRONG_INPUT: "wrong usage, input or settings",
    Exit.TIMEOUT: "the time of --timeout is over",
    Exit.UNAVAILABLE: "Redis or the object store does not answer, or the queue is full",
    Exit.NOT_FOUND: "no such job, or its result cannot be read",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}

_CODES: list[tuple[type[MaskscoreError], Exit]] = [
    (ServiceUnavailable, Exit.UNAVAILABLE),
    (WaitTimeout, Exit.TIMEOUT),
    (JobNotFound, Exit.NOT_FOUND),
    (ResultUnavailable, Exit.NOT_FOUND),
    (QueueFull, Exit.UNAVAILABLE),
    (JobFailed, Exit.NOT_SUCCEEDED),
    (JobConflict, Exit.WRONG_INPUT),
    (TooManyBatches, Exit.WRONG_INPUT),
    (PayloadTooLarge, Exit.WRONG_INPUT),
    (InvalidDocumentError, Exit.WRONG_INPUT),
    (SettingsError, Exit.WRONG_INPUT),
    (OutputError, Exit.WRONG_INPUT),
]


def exit_code_of(error: Exception) -> Exit | None:
    """Return the exit code of one of maskscore's errors; ``None`` for an error that is not ours."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, JobError):
        return Exit.UNAVAILABLE if error.transient else Exit.WRONG_INPUT
    return Exit.NOT_SUCCEEDED if isinstance(error, MaskscoreError) else None
