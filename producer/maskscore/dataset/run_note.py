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
    """What a batch was begun with: kept with it, so that a run that goes on knows what is asked otherwise now.

    ``corrected``: a run has gone on with other options than the first one, which ``fingerprint`` has.
    """

    fingerprint: str
    corrected: bool = False

    @classmethod
    def kept(cls, text: str | None, fingerprint: str) -> RunNote:
        """Read a note; ``fingerprint`` stands in for one that is not there."""
        fields = json.loads(text) if text else {}
        return cls(fields.get("made_of", fingerprint), fields.get("corrected", False))

    def changes(self, fingerprint: str) -> list[str]:
        """Return which options are others now, each as ``name: before → now``."""
        before, now = _options(self.fingerprint), _options(fingerprint)
        names = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
        return [f"{name}: {_word(before.get(name))} → {_word(now.get(name))}" for name in names]

    def check(self, fingerprint: str, batch_id: str) -> None:
        """Raise :class:`~maskscore.errors.InvalidDocumentError` where it is other work.

        That is of other images, or with jobs' ids that are made of their content, where the content has changed.
        """
        before, now = _options(self.fingerprint), _options(fingerprint)
        other_images = before.get("images") != now.get("images")
        if before == now or not (other_images or before.get("content_id") or now.get("content_id")):
            return
        why = "is of other images" if other_images else "makes the jobs' ids of their content (--content-id)"
        raise InvalidDocumentError(
            f"The batch {batch_id} was begun with other options, and {why}: {'; '.join(self.changes(fingerprint))}. "
            "Give the same ones, or another --batch-id."
        )

    def text(self) -> str:
        """Return the text that is kept."""
        return json.dumps({"made_of": self.fingerprint, **({"corrected": True} if self.corrected else {})})


def check_batch(client: Client, batch_id: str, fingerprint: str, *, resume: bool) -> RunNote | None:
    """Return the note of the batch, if it is there already and may be gone on with: with which options it was begun.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where it is there and ``resume`` is not asked for, or is of
    other images than ``fingerprint``.
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
