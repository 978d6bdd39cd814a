"""The failed images of shards that have succeeded, as further lists of pairs: shards that score just these again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from maskscore import results
from maskscore.codes import FailureCode
from maskscore.dataset.pair_list_shards import MOST_LINE_BYTES, chunked_lines, write_list
from maskscore.schema import ImageMasksPair, JobState, PairsSource, Shard, ShardCursor, ShardOutcome
from maskscore.shards import listed_pairs
from maskscore.storage import Objects

__all__ = ["failed_positions", "retry_shards"]

_NOT_AGAIN: Final = (FailureCode.POISONED, FailureCode.DOCUMENT_INVALID)
"""An image that ends workers, and a line of the list that is no pair."""


def failed_positions(outcomes: list[ShardOutcome]) -> dict[str, set[int]]:
    """Return the positions of images that failed, and were not scored again since, by their shard's id.

    Raises :class:`~maskscore.errors.ResultUnavailable` where parts cannot be read.
    """
    import pyarrow.compute as pc

    images = results.open(outcomes, "images")
    superseded = results.superseded_rows(images)
    positions: dict[str, set[int]] = defaultdict(set)
    failed = images.to_table(
        columns=["job_id", "position", "code"], filter=pc.field("state") != str(JobState.SUCCEEDED)
    )
    for row in failed.to_pylist():
        if (row["job_id"], row["position"]) not in superseded and row["code"] not in _NOT_AGAIN:
            positions[row["job_id"]].add(row["position"])
    return positions


def retry_shards(
    failed: Iterable[tuple[Shard, Collection[int]]],
    number: int,
    *,
    name: str,
    output_uri: str,
    objects: Objects,
    shard_of: Callable[[PairsSource, str], Shard],
    pairs_per_list: int,
) -> Iterator[Shard]:
    """Write lists of the pairs at these positions of earlier lists; yield a shard of each, numbered from ``number`` on.

    Raises :class:`~maskscore.errors.JobError` for a list that is gone or was replaced, and where none can be written.
    """
    lines = (line for shard, positions in failed for line in _lines(shard, positions, objects))
    for place, own in enumerate(chunked_lines(lines, pairs_per_list), number):
        again = results.retry_name(name, place)
        yield shard_of(write_list(objects, output_uri, again, own), again)


def _lines(shard: Shard, positions: Collection[int], objects: Objects) -> Iterator[bytes]:
    uri, etag = shard.source.uri, shard.source.etag
    with listed_pairs(objects, uri, ShardCursor(), etag=etag, max_bytes=MOST_LINE_BYTES) as (pairs, _):
        for listed in pairs:
            if listed.number in positions and isinstance(listed.pair, ImageMasksPair):
                yield listed.pair.model_dump_json().encode()
