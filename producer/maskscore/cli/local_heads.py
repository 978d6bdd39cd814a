"""A head that is applied in this process: a file, or one of MASKSCORE_HEADS_DIR."""

from __future__ import annotations

from maskscore.cli.optional_dependencies import needs_extra
from maskscore.cli.shared_options import head_named
from maskscore.heads import HeadApplication, find_head
from maskscore.schema import Head
from maskscore.settings import WorkerSettings, load_settings

__all__ = ["local_head"]


def local_head(text: str) -> HeadApplication:
    """Return the head of a file's path, or of a name in MASKSCORE_HEADS_DIR.

    Raises :class:`~maskscore.errors.HeadUnknown`, :class:`~maskscore.errors.HeadInvalid`, and a usage error where the
    head is a probe and NumPy is not installed.
    """
    named = head_named(text)
    head = named if isinstance(named, Head) else find_head(named, load_settings(WorkerSettings).heads_dir)
    with needs_extra("formats"):
        return HeadApplication(head)
