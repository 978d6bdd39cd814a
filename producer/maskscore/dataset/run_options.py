"""The options of a run, and the batch id that derives from them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from maskscore.schema import PromptSet, ScoringOptions

__all__ = ["RunOptions", "default_batch_id", "slug_of"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a run, for every image of a dataset.

    Parameters
    ----------
    options: how the masks are scored.
    fields: ``orientation``, ``priority``, ``expires_in`` and ``result_uri`` of the jobs, as far as given.
    content_id: derive job ids from the content, so that equal work is scored once over all batches.
    upload: ``s3://bucket/prefix/`` to which local files are uploaded, for workers on other machines.
    """

    options: ScoringOptions = field(default_factory=ScoringOptions)
    fields: dict[str, Any] = field(default_factory=dict)
    content_id: bool = False
    upload: str | None = None

    def fingerprint(self, dataset: dict[str, Any]) -> str:
        """Return the dataset and the options as JSON: equal text means equal work."""
        options = {name: getattr(self.options, name) for name in self.options.model_fields_set}
        if self.options.model is None:
            options.pop("model", None)
        options |= {
            name: f"{value.name} {value.digest}" if isinstance(value, PromptSet) else _plain(value)
            for name, value in options.items()
        }
        jobs = {name: value for name, value in self.fields.items() if name not in ("priority", "expires_in")}
        own = {"content_id": self.content_id or None, "upload": self.upload}
        given = {**dataset, **options, **jobs, **{name: value for name, value in own.items() if value}}
        return json.dumps(given, sort_keys=True)


def default_batch_id(fingerprint: str) -> str:
    """Return the batch id of this work where the user gives none; equal work has equal ids."""
    slug = slug_of(str(json.loads(fingerprint)["images"]))
    return f"run-{slug}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:10]}"


def slug_of(place: str) -> str:
    """Return a short plain name of a path or URI, by its last part."""
    return re.sub(r"[^A-Za-z0-9]+", "-", place.rstrip("/").rsplit("/", 1)[-1]).strip("-")[:40].lower() or "images"


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value
