"""The note that a run stores with its batch: the options with which the batch was begun."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from maskscore.client import Client
from maskscore.errors import BatchNotFound, InvalidDocumentError
from maskscore.text import counted

__all__ = ["RUN_NOTE", "RunNote", "check_batch"]

RUN_NOTE = "run"
"""The name of the note."""


@dataclass(frozen=True, slots=True)
class RunNote:
    """The dataset and options of a batch's first run (``fingerprint``), from which a resumed run may differ.

    ``corrected``: the batch was resumed with other options than these.
    """

    fingerprint: str
    corrected: bool = False

    @classmethod
    def kept(cls, text: str | None, fingerprint: str) -> RunNote:
        """Read a stored note; where it has no fingerprint, ``fingerprint`` is taken."""
        fields = json.loads(text) if text else {}
        return cls(fields.get("made_of", fingerprint), fields.get("corrected", False))

    def changes(self, fingerprint: str) -> list[str]:
        """Return the options that differ from the first run's, each as ``name: before → now``."""
        before, now = _options(self.fingerprint), _options(fingerprint)
        names = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
        return [f"{name}: {_word(before.get(name))} → {_word(now.get(name))}" for name in names]

    def check(self, fingerprint: str, batch_id: str) -> None:
        """Raise :class:`~maskscore.errors.InvalidDocumentError` where the batch cannot be resumed so.

        A batch keeps its images; where its job ids derive from the content, it keeps all its options.
        """
        before, now = _options(self.fingerprint), _options(fingerprint)
        other_images = before.get("images") != now.get("images")
        if before == now or not (other_images or before.get("content_id") or now.get("content_id")):
            return
        why = "is of other images" if other_images else "derives job ids from their content (--content-id)"
        raise InvalidDocumentError(
            f"The batch {batch_id} was begun with other options, and {why}: {'; '.join(self.changes(fingerprint))}. "
            "Give the same ones, or another --batch-id."
        )

    def text(self) -> str:
        """Return the text to store."""
        return json.dumps({"made_of": self.fingerprint, **({"corrected": True} if self.corrected else {})})


def check_batch(client: Client, batch_id: str, fingerprint: str, *, resume: bool) -> RunNote | None:
    """Return the note of an existing batch that may be resumed; ``None`` for a new batch.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where the batch exists and ``resume`` is false, and as
    :meth:`RunNote.check` does.
    """
    batch = client.batch(batch_id)
    try:
        counts = batch.counts()
    except BatchNotFound:
        return None
    if not resume:
        raise InvalidDocumentError(
            f"The batch {batch_id} exists already: {counted(counts.total, 'job')}, {counts.ended:,} ended. Go on with "
            "--resume, or score again under another --batch-id."
        )
    note = RunNote.kept(batch.note(RUN_NOTE), fingerprint)
    note.check(fingerprint, batch_id)
    return note


def _options(fingerprint: str) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(fingerprint) if fingerprint else {}
    return options


def _word(value: object) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
