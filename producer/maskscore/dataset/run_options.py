"""One call for all of it: a dataset in, a summary out."""

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
from maskscore.dataset.run_summary import Summary
from maskscore.dataset.runner import Progress, Run, check_batch
from maskscore.schema import PromptSet, ScoringOptions

__all__ = ["Order", "default_batch_id", "run_dataset"]


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of each image of a dataset.

    Parameters
    ----------
    options: how the masks are scored.
    fields: ``orientation``, ``priority``, ``expires_in`` and ``result_uri`` of each job, where they are given.
    content_id: make the ids of the content, so that the same image, masks and options are scored once over all batches.
    upload: ``s3://bucket/prefix/`` where local files are put, for workers on other machines.
    """

    options: ScoringOptions = field(default_factory=ScoringOptions)
    fields: dict[str, Any] = field(default_factory=dict)
    content_id: bool = False
    upload: str | None = None

    def made_of(self, dataset: dict[str, Any]) -> str:
        """Return the dataset and the order in words: equal words are the same work."""
        options = {name: getattr(self.options, name) for name in self.options.model_fields_set}
        options |= {
            name: f"{value.name} {value.digest}" if isinstance(value, PromptSet) else _plain(value)
            for name, value in options.items()
        }
        jobs = {name: value for name, value in self.fields.items() if name not in ("priority", "expires_in")}
        own = {"content_id": self.content_id or None, "upload": self.upload}
        given = {**dataset, **options, **jobs, **{name: value for name, value in own.items() if value}}
        return json.dumps(given, sort_keys=True)


def default_batch_id(made_of: str) -> str:
    """Return the id of the batch that this work has, if its user gives none: the same work has the same one."""
    images = str(json.loads(made_of)["images"]).rstrip("/").rsplit("/", 1)[-1]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", images).strip("-")[:40].lower() or "images"
    return f"run-{slug}-{hashlib.sha256(made_of.encode()).hexdigest()[:10]}"


def run_dataset(
    client: Client,
    dataset: Dataset,
    order: Order | None = None,
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
) -> Summary:
    """Score a dataset, as one batch, and return the summary.

    Parameters
    ----------
    client: asks the service.
    dataset, order: what is scored, and how.
    batch_id: the batch's id; made of ``dataset`` and ``order`` where it is not given.
    limit: take so many images at most.
    resume: go on with the batch, if it is there; ``retry`` with it runs jobs again that ended without a result. With
        another ``dataset.format``, ``dataset.masks`` or ``order`` than before, what was scored stays as it is, and all
        the rest is done as is asked now.
    changed: is called with those options that are others than before, each as ``name: before → now``.
    follow: wait for the results; without it, everything is submitted, and that is all.
    stopped: is asked about twice per second whether to stop; what was submitted goes on then.
    seen, shown: are called with the number of files seen while they are listed, and with the progress after that.

    Memory does not grow with the number of images: the listing lies in a file, some 200 bytes per image, in the place
    for temporary files. Raises :class:`~maskscore.errors.InvalidDocumentError` where no image with masks is found, or
    the batch is there and may not be gone on with; :class:`~maskscore.errors.JobError` where a store cannot be listed.
    """
    order = order or Order()
    made_of = order.made_of(dataset.identity(client.objects))
    batch_id = batch_id or default_batch_id(made_of)
    # Before the listing, which may take its time.
    begun = check_batch(client, batch_id, made_of, resume=resume)
    if begun is not None and (changes := begun.changes(made_of)):
        changed(changes)
    with dataset.opened(client.objects, limit=limit, seen=seen) as opened:
        maker = JobMaker(
            images=opened.images,
            masks=opened.masks,
            objects=client.objects,
            batch_id=batch_id,
            options=order.options,
            fields=order.fields,
            format=dataset.format,
            pinned=order.content_id,
            upload=order.upload,
        )
        run = Run(
            client,
            opened.pairing,
            maker,
            content_id=order.content_id,
            made_of=made_of,
            resume=resume,
            retry=retry,
        )
        return run.go(follow=follow, stopped=stopped, shown=shown)


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value
