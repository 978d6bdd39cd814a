"""A finding: the outcome of one check, with advice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Cause", "Finding", "Verdict", "failed", "failed_by", "ok", "skipped", "warning"]


class Verdict(StrEnum):
    """The outcome of a check. A ``warning`` stops no job yet; ``failed`` stops or loses jobs."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Cause(StrEnum):
    """Where a failure is corrected: a service that does not answer, the settings, or how a machine is set up."""

    UNAVAILABLE = "unavailable"
    SETTINGS = "settings"
    DEPLOYMENT = "deployment"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; ``advice`` is set where it is not ``ok``, ``cause`` where it failed."""

    name: str
    verdict: Verdict
    sentence: str
    advice: str | None = None
    cause: Cause | None = None


def ok(name: str, sentence: str) -> Finding:
    """Return the finding that a check passed."""
    return Finding(name, Verdict.OK, sentence)


def warning(name: str, sentence: str, advice: str) -> Finding:
    """Return the finding that something works, but may soon fail."""
    return Finding(name, Verdict.WARNING, sentence, advice)


def failed(name: str, cause: Cause, sentence: str, advice: str) -> Finding:
    """Return the finding that something does not work."""
    return Finding(name, Verdict.FAILED, sentence, advice, cause)


def failed_by(name: str, cause: Cause, error: Exception, advice: str) -> Finding:
    """Return the finding for one of maskscore's errors: its first sentence says what is wrong, the rest what to do.

    ``advice`` is used if the message has only one sentence.
    """
    sentence, *rest = re.split(r"(?<=[.\])]) (?=[A-Z`])", str(error), maxsplit=1)
    return failed(name, cause, sentence, rest[0] if rest else advice)


def skipped(name: str, sentence: str) -> Finding:
    """Return the finding that a check was left out, and why."""
    return Finding(name, Verdict.SKIPPED, sentence)
