"""Checks the folders of ``MASKSCORE_FILE_ROOTS``."""

from __future__ import annotations

import os
from collections.abc import Iterator

from maskscore.doctor.deployment import Deployment
from maskscore.doctor.finding import Cause, Finding, failed, ok, skipped

__all__ = ["examine_file_roots"]

NAME = "file roots"


def examine_file_roots(deployment: Deployment) -> Iterator[Finding]:
    """Look whether each of ``MASKSCORE_FILE_ROOTS`` is a folder that this user can read."""
    roots = deployment.settings.file_roots
    if not roots:
        yield skipped(NAME, "MASKSCORE_FILE_ROOTS is unset: jobs read no files.")
    for root in roots:
        if not root.is_dir():
            there = "is a file, not a folder" if root.exists() else "does not exist"
            yield failed(NAME, Cause.SETTINGS, f"{root} {there}.", "Correct MASKSCORE_FILE_ROOTS, or mount the folder.")
        elif not os.access(root, os.R_OK | os.X_OK):
            yield failed(
                NAME, Cause.DEPLOYMENT, f"{root} cannot be read by this user.", "Give it the rights r and x on it."
            )
        else:
            yield ok(NAME, f"{root} can be read.")
