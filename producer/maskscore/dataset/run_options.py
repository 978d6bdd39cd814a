"""Scoring a dataset in one call: its options, and :func:`run_dataset`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from maskscore.client import Client
from maskscore.dataset.job_maker import JobMaker
from maskscore.dataset.open_dataset import Dataset
from maskscore.dataset.run_summary import RunSummary
from maskscore.dataset.runner import Progress, Run, check_batch
from maskscore.schema import PromptSet, ScoringOptions

__all__ = ["RunOptions", "default_batch_id", "run_dataset"]


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
    images = str(json.loads(fingerprint)["images"]).rstrip("/").rsplit("/", 1)[-1]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", images).strip("-")[:40].lower() or "images"
    return f"run-{slug}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:10]}"


def run_dataset(
    client: Client,
    dataset: Dataset,
    run_options: RunOptions | None = None,
    *,
    batch_id: str | None = None,
    limit: int | None = None,
    resume: bool = False,
    retry: bool = False,
    follow: bool = True,
    stopped: Callable[[], bool] = lambda: False,
    changed: Callable[[list[str]], None] = lambda changes: None,
    seen: Callable[[int], None] | None = None,
    shown: Callable[[Progress], None] = lambda progress: None,
) -> RunSummary:
    """Score a dataset, as one batch, and return the summary.

    Parameters
    ----------
    client: the client of the service.
    dataset, run_options: what is scored, and how.
    batch_id: the batch's id; derived from ``dataset`` and ``run_options`` where it is not given.
    limit: score this many images at most.
    resume: continue the batch if it exists; with ``retry``, jobs without a result run again. Where
        ``dataset.format``, ``dataset.masks`` or ``run_options`` differ from before, what was scored stays as it is,
        and the new options apply to everything else.
    follow: wait for the results; without it, return when everything is submitted.
    stopped: called about twice per second; where it returns true, the run stops, and submitted jobs go on.
    changed: called with the options that differ from before, each as ``name: before → now``.
    seen, shown: called with the number of listed files, and with the progress after the listing.

    Memory does not grow with the number of images: the listing is a temporary file of some 200 bytes per image.
    Raises :class:`~maskscore.errors.InvalidDocumentError` where no image with masks is found, or the batch exists and
    may not be resumed; :class:`~maskscore.errors.JobError` where a store cannot be listed.
    """
    run_options = run_options or RunOptions()
    fingerprint = run_options.fingerprint(dataset.identity(client.objects))
    batch_id = batch_id or default_batch_id(fingerprint)
    # Before the listing, which may take its time.
    begun = check_batch(client, batch_id, fingerprint, resume=resume)
    if begun is not None and (changes := begun.changes(fingerprint)):
        changed(changes)
    with dataset.opened(client.objects, limit=limit, seen=seen) as opened:
        maker = JobMaker(
            images=opened.images,
            masks=opened.masks,
            objects=client.objects,
            batch_id=batch_id,
            options=run_options.options,
            fields=run_options.fields,
            format=dataset.format,
            pinned=run_options.content_id,
            upload=run_options.upload,
        )
        run = Run(
            client,
            opened.pairing,
            maker,
            content_id=run_options.content_id,
            fingerprint=fingerprint,
            resume=resume,
            retry=retry,
        )
        return run.go(follow=follow, stopped=stopped, shown=shown)


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value
