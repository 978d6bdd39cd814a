"""Checks the settings: misspelt names and invalid values."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from maskscore.doctor.finding import Cause, Finding, failed, ok
from maskscore.schema import explain
from maskscore.settings import PREFIX, WorkerSettings, unknown_variables

__all__ = ["examine_variables", "read_settings"]

NAME = "settings"


def read_settings(**given: Any) -> tuple[WorkerSettings, list[Finding]]:
    """Return the settings, with the default in place of each value that cannot be used, and a finding for each."""
    given = {name: value for name, value in given.items() if value is not None}
    try:
        return WorkerSettings(**given), []
    except ValidationError as error:
        wrong = sorted({str(problem["loc"][0]) for problem in error.errors() if problem["loc"]})
        sentence = explain(error, limit=len(error.errors()))
        defaults = {name: WorkerSettings.model_fields[name].default for name in wrong}
    finding = failed(
        NAME,
        Cause.SETTINGS,
        f"{', '.join(PREFIX + name.upper() for name in wrong)} cannot be used: {sentence}.",
        "Correct the value; `maskscore settings` explains each. The rest is examined with the default in its place.",
    )
    return WorkerSettings(**{**given, **defaults}), [finding]


def examine_variables() -> Iterator[Finding]:
    """Say which ``MASKSCORE_…`` variables are no settings; a worker does not start with one."""
    unknown = unknown_variables()
    for name, meant in unknown.items():
        yield failed(
            NAME,
            Cause.SETTINGS,
            f"{name} is set but is no setting of maskscore.",
            f"Did you mean {meant}?" if meant else "Unset it; `maskscore settings` lists those there are.",
        )
    if not unknown:
        known = [name for name in os.environ if name.startswith(PREFIX)]
        yield ok(NAME, f"{len(known)} {PREFIX} variables are set; none is misspelt." if known else "All are defaults.")
