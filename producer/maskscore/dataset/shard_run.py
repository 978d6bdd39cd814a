"""Runs tar files through the service: one shard each, as one batch, followed to a summary; can be resumed."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from maskscore.client import Client
from maskscore.dataset.redis_outage import RedisOutage
from maskscore.dataset.run_note import RUN_NOTE, RunNote, check_batch
from maskscore.dataset.run_options import RunOptions, default_batch_id
from maskscore.errors import InvalidDocumentError, JobConflict, ServiceUnavailable
from maskscore.ledger import JobStatus
from maskscore.schema import Failure, MasksFormat, Shard, ShardCounts, TarSource
from maskscore.storage import Objects
from maskscore.text import counted

__all__ = ["ShardProgressCounts", "ShardRunSummary", "find_tars", "is_tar", "run_shards"]

_ENDINGS: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst")
_WILDCARD: Final = re.compile(r"[*?[]")
_LOOK_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class ShardProgressCounts:
    """How many shards there are and have ended, and what their committed parts hold."""

    shards: int
    ended: int
    images: int
    masks: int
    parts: int


@dataclass(frozen=True, slots=True)
class ShardRunSummary:
    """The outcome of a run of shards that has ended or was stopped.

    ``states`` counts shards; ``counts`` is over those that have succeeded. ``failures`` are by the tar's URI.
    """

    batch_id: str
    output_uri: str
    states: dict[str, int]
    progress: ShardProgressCounts
    counts: ShardCounts
    seconds: float
    failures: dict[str, Failure] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether all shards have succeeded, and no image of them failed, and not all masks were skipped."""
        counts = self.counts
        every = self.states.get("succeeded", 0) == self.progress.shards
        return every and not counts.failed and counts.masks > counts.skipped

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "batch_id": self.batch_id,
            "output": self.output_uri,
            "shards": self.progress.shards,
            "states": self.states,
            "parts": self.progress.parts,
            "images": self.progress.images,
            "images_failed": self.counts.failed,
            "masks": self.progress.masks,
            "masks_skipped": self.counts.skipped,
            "other_members": self.counts.others,
            "failures": {uri: failure.model_dump() for uri, failure in self.failures.items()},
            "seconds": round(self.seconds, 3),
        }


def is_tar(place: str) -> bool:
    """Whether a place names a tar file, or several by ``*``, ``?`` or ``[...]``."""
    return place.lower().endswith(_ENDINGS)


def find_tars(place: str, objects: Objects) -> list[TarSource]:
    """Return the tar files that ``s3://bucket/path/*.tar``, a path or one without wildcards names, by name.

    Those in S3 are pinned by their ETags. Raises :class:`~maskscore.errors.InvalidDocumentError` where there is none,
    and :class:`~maskscore.errors.JobError` where a bucket cannot be listed.
    """
    if place.startswith("s3://"):
        wildcard = _WILDCARD.search(place)
        prefix = place[: wildcard.start() if wildcard else len(place)].rpartition("/")[0] + "/"
        pattern = place.removeprefix(prefix)
        found = [
            TarSource(uri=prefix + entry.name, etag=entry.etag)
            for entry in objects.list(prefix)
            # A star does not reach into folders, as in a shell.
            if entry.name.count("/") == pattern.count("/") and fnmatchcase(entry.name, pattern) and is_tar(entry.name)
        ]
    else:
        path = Path(place.removeprefix("file://")).expanduser().absolute()
        matching = sorted(path.parent.glob(path.name)) if path.parent.is_dir() else []
        found = [TarSource(uri=file.as_uri()) for file in matching if is_tar(file.name) and file.is_file()]
    if not found:
        raise InvalidDocumentError(f"There is no tar file {place}. Write the pattern in quotes: 's3://bucket/*.tar'.")
    return found


def run_shards(
    client: Client,
    place: str,
    output_uri: str,
    run_options: RunOptions | None = None,
    *,
    masks_format: MasksFormat | None = None,
    batch_id: str | None = None,
    resume: bool = False,
    retry: bool = False,
    follow: bool = True,
    stopped: Callable[[], bool] = lambda: False,
    shown: Callable[[ShardProgressCounts], None] = lambda progress: None,
) -> ShardRunSummary:
    """Score tar files as shards of one batch, into parts below ``output_uri``, and return the summary.

    Parameters: as those of :func:`run_dataset`; ``place`` as :func:`find_tars` takes it. A batch that is resumed keeps
    its options; tar files that were added are submitted. With ``retry``, shards that ended without a result go on after
    their last part. Raises :class:`~maskscore.errors.InvalidDocumentError` where there are no tar files, two of them
    have the same name, or the batch exists and may not be resumed so.
    """
    run_options = run_options or RunOptions()
    started = time.monotonic()
    fingerprint = run_options.fingerprint({"images": place, "output": output_uri, "format": masks_format})
    batch_id = batch_id or default_batch_id(fingerprint)
    begun = check_batch(client, batch_id, fingerprint, resume=resume)
    if begun is not None and (changes := begun.changes(fingerprint)):
        raise InvalidDocumentError(
            f"The batch {batch_id} was begun with other options: {'; '.join(changes)}. All parts of a run have the "
            "same ones: give them again, or another --batch-id and output."
        )
    shards = _shards(find_tars(place, client.objects), output_uri, run_options, masks_format, batch_id)
    try:
        client.submit_many(shards, batch_id=batch_id, wait_for_room=True, retry_failed=retry)
    except JobConflict as error:
        raise InvalidDocumentError(
            f"A tar file was replaced since it was submitted to the batch {batch_id}. --resume --retry-failed scores "
            "it anew where its shard ended without a result; else take another --batch-id and output."
        ) from error
    client.batch(batch_id).set_note(RUN_NOTE, RunNote(fingerprint).text())
    ids = [shard.shard_id for shard in shards]
    statuses: list[JobStatus] = []
    outage = RedisOutage()
    while True:
        try:
            statuses = client.statuses(ids)
        except ServiceUnavailable as error:
            outage.failed(error)
        else:
            outage.answered()
            shown(_progress(statuses))
            if not follow or all(status.state.ended for status in statuses):
                break
        if stopped():
            break
        time.sleep(_LOOK_EVERY_S)
    return _summary(client, batch_id, output_uri, shards, statuses, time.monotonic() - started)


def _shards(
    tars: list[TarSource], output_uri: str, run_options: RunOptions, masks_format: MasksFormat | None, batch_id: str
) -> list[Shard]:
    names = [_name(tar.uri) for tar in tars]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InvalidDocumentError(
            f"{counted(len(twice), 'name')} of tar files are there twice, such as {twice[0]}: parts are named by them. "
            "Run them into different outputs."
        )
    return [
        Shard(
            shard_id=_shard_id(batch_id, name),
            batch_id=batch_id,
            source=tar,
            name=name,
            output_uri=output_uri,
            options=run_options.options,
            masks_format=masks_format,
            **run_options.fields,
        )
        for name, tar in zip(names, tars, strict=True)
    ]


def _name(uri: str) -> str:
    base = uri.rpartition("/")[2]
    stem = next((base[: -len(ending)] for ending in sorted(_ENDINGS, key=len) if base.lower().endswith(ending)), base)
    return re.sub(r"[^A-Za-z0-9._-]", "_", stem).lstrip("._-")[:200] or "tar"


def _shard_id(batch_id: str, name: str) -> str:
    plain = f"{batch_id}-{name}"
    return plain if len(plain) <= 128 else f"shard-{hashlib.sha256(plain.encode()).hexdigest()[:40]}"


def _progress(statuses: list[JobStatus]) -> ShardProgressCounts:
    found = [status.progress for status in statuses if status.progress is not None]
    return ShardProgressCounts(
        shards=len(statuses),
        ended=sum(status.state.ended for status in statuses),
        images=sum(progress.images for progress in found),
        masks=sum(progress.masks for progress in found),
        parts=sum(progress.parts for progress in found),
    )


def _summary(
    client: Client, batch_id: str, output_uri: str, shards: list[Shard], statuses: list[JobStatus], seconds: float
) -> ShardRunSummary:
    counts, failures = ShardCounts(), {}
    for shard, status in zip(shards, statuses, strict=False):
        if status.error is not None:
            failures[shard.source.uri] = status.error
        elif status.state.ended:
            outcome = client.get(shard.shard_id).shard
            counts += outcome.counts if outcome is not None else ShardCounts()
    states = Counter(str(status.state) for status in statuses)
    progress = _progress(statuses)
    return ShardRunSummary(batch_id, output_uri, dict(states), progress, counts, seconds, failures)
