"""The images that failed in shards that have succeeded, as further shards that score just these again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from maskscore import results
from maskscore.codes import FailureCode
from maskscore.dataset.pair_list_shards import MOST_LINE_BYTES, chunked_lines, write_list
from maskscore.schema import ImageMasksPair, JobState, PairsSource, Shard, ShardCursor, ShardOutcome, TarSource
from maskscore.shards import listed_pairs
from maskscore.storage import Objects

__all__ = ["Failed", "FailedImage", "failed_images", "retry_shards_of_lists", "retry_shards_of_tars"]

_NOT_AGAIN: Final = (FailureCode.POISONED, FailureCode.DOCUMENT_INVALID)
"""An image that ends workers, and a line of the list that is no pair."""
_MEMBERS: Final = 1000
"""Images of one shard of a tar: their names are a part of its document."""


@dataclass(frozen=True, slots=True)
class FailedImage:
    """A row of ``images``. Damage of a tar has neither ``image`` nor ``masks``; ``etag`` is that of the tar."""

    position: int
    image: str | None
    masks: str | None
    etag: str | None


Failed = Iterable[tuple[Shard, Collection[FailedImage]]]


def failed_images(outcomes: list[ShardOutcome]) -> dict[str, list[FailedImage]]:
    """Return the images that failed, and were not scored again since, by their shard's id.

    Raises :class:`~maskscore.errors.ResultUnavailable` where parts cannot be read.
    """
    import pyarrow.compute as pc

    images = results.open(outcomes, "images")
    superseded = results.superseded_rows(images)
    found: dict[str, list[FailedImage]] = defaultdict(list)
    columns = ["position", "image", "masks", "etag"]
    failed = images.to_table(columns=[*columns, "job_id", "code"], filter=pc.field("state") != str(JobState.SUCCEEDED))
    for row in failed.to_pylist():
        if (row["job_id"], row["position"]) not in superseded and row["code"] not in _NOT_AGAIN:
            found[row["job_id"]].append(FailedImage(*(row[name] for name in columns)))
    return found


def retry_shards_of_lists(
    failed: Failed,
    retries: Collection[str],
    noted: Callable[[str], None],
    *,
    name: str,
    output_uri: str,
    objects: Objects,
    shard_of: Callable[[PairsSource, str], Shard],
    pairs_per_list: int,
) -> Iterator[Shard]:
    """Write lists of the pairs that failed of earlier lists, and yield a shard of each.

    ``retries`` are the names of the shards that scored images again before. Nothing is ``noted``. Raises
    :class:`~maskscore.errors.JobError` for a list that is gone or was replaced, and where none can be written.
    """
    lines = (line for shard, images in failed for line in _lines(shard, images, objects))
    for place, own in enumerate(chunked_lines(lines, pairs_per_list), _next_number(name, retries)):
        again = results.retry_name(name, place)
        yield shard_of(write_list(objects, output_uri, again, own), again)


def _lines(shard: Shard, images: Collection[FailedImage], objects: Objects) -> Iterator[bytes]:
    uri, etag = shard.source.uri, shard.source.etag
    positions = {image.position for image in images}
    with listed_pairs(objects, uri, ShardCursor(), etag=etag, max_bytes=MOST_LINE_BYTES) as (pairs, _):
        for listed in pairs:
            if listed.number in positions and isinstance(listed.pair, ImageMasksPair):
                yield listed.pair.model_dump_json().encode()


def retry_shards_of_tars(
    failed: Failed,
    retries: Collection[str],
    noted: Callable[[str], None],
    *,
    objects: Objects,
    shard_of: Callable[[TarSource, str], Shard],
) -> Iterator[Shard]:
    """Yield shards of the images that failed of each tar, as the tar is now; damage of a tar has no name, and is left.

    ``retries`` are the names of the shards that scored images again before. A tar that was replaced since is ``noted``.
    Raises :class:`~maskscore.errors.JobError` for one that is gone.
    """
    tars: dict[str, tuple[Shard, dict[str, FailedImage]]] = {}
    for shard, images in failed:
        if own := {uri: image for image in images if (uri := image.image or image.masks) is not None}:
            name = shard.name.rpartition(results.RETRY)[0] or shard.name
            tars.setdefault(name, (shard, {}))[1].update(own)
    for name, (shard, members) in tars.items():
        uri = shard.source.uri
        etag = objects.etag(uri, what="image")
        if any(image.etag not in (None, etag) for image in members.values()):
            noted(
                f"{uri} was replaced since it was scored: the images that failed are scored from what it is now, and "
                "all others stay as they were scored"
            )
        names = [member.removeprefix(f"{uri}!/") for member in members]
        if uri.startswith("file:"):
            names = list(map(unquote, names))
        for place, start in enumerate(range(0, len(names), _MEMBERS), _next_number(name, retries)):
            pin = None if shard.source.etag is None else etag
            source = TarSource(uri=uri, etag=pin, members=names[start : start + _MEMBERS])
            yield shard_of(source, results.retry_name(name, place))


def _next_number(name: str, retries: Iterable[str]) -> int:
    own = (results.retry_number(retry) for retry in retries if retry.startswith(f"{name}{results.RETRY}"))
    return max((number for number in own if number is not None), default=-1) + 1
