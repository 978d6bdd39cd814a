"""A finding: the outcome of one check, with advice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Cause", "Finding", "Verdict", "failed", "failed_by", "ok", "skipped", "warning"]


class Verdict(StrEnum):
    """How a thing is. A ``warning`` does not stop jobs today; ``failed`` does, or loses them."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Cause(StrEnum):
    """Where a failure is put right: a service that does not answer, what was asked for, or how a machine is set up."""

    UNAVAILABLE = "unavailable"
    SETTINGS = "settings"
    DEPLOYMENT = "deployment"


@dataclass(frozen=True, slots=True)
class Finding:
    """``name`` is what was looked at, ``sentence`` how it is, ``advice`` what to do; ``cause`` is set where failed."""

    name: str
    verdict: Verdict
    sentence: str
    advice: str | None = None
    cause: Cause | None = None


def ok(name: str, sentence: str) -> Finding:
    """Return the finding that a thing is as it should be."""
    return Finding(name, Verdict.OK, sentence)


def warning(name: str, sentence: str, advice: str) -> Finding:
    """Return the finding that a thing works, but may not for long."""
    return Finding(name, Verdict.WARNING, sentence, advice)


def failed(name: str, cause: Cause, sentence: str, advice: str) -> Finding:
    """Return the finding that a thing does not work."""
    return Finding(name, Verdict.FAILED, sentence, advice, cause)


def failed_by(name: str, cause: Cause, error: Exception, advice: str) -> Finding:
    """Return the finding that an error of maskscore's makes: it says first what is wrong, and then what to do.

    ``advice`` is for one that says the first only.
    """
    sentence, *rest = re.split(r"(?<=[.\])]) (?=[A-Z`])", str(error), maxsplit=1)
    return failed(name, cause, sentence, rest[0] if rest else advice)


def skipped(name: str, sentence: str) -> Finding:
    """Return the finding that a thing was not looked at, and why."""
    return Finding(name, Verdict.SKIPPED, sentence)
