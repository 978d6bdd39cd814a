"""The pairs of a dataset as shards: lists of some thousand pairs, written beside the parts, each a shard's source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final

from maskscore.dataset.job_maker import JobMaker, MadeJob
from maskscore.dataset.pairing import Pair, Pairing
from maskscore.dataset.result_counts import FailureCounts
from maskscore.errors import MaskscoreError
from maskscore.schema import ImageMasksPair, PairsSource, Shard, ShardCursor
from maskscore.shards import listed_pairs
from maskscore.storage import Objects

__all__ = ["MOST_LINE_BYTES", "PAIRS_PER_LIST", "PairListShards", "chunked_lines", "write_list"]

PAIRS_PER_LIST: Final = 1000
_MOST_BYTES: Final = 64 << 20
_CHUNK: Final = 50
_THREADS: Final = 8
MOST_LINE_BYTES: Final = 1 << 30


class PairListShards:
    """Writes the pairs of a dataset as lists ``lists/NAME-00000.jsonl``, and yields a shard of each; iterate once.

    Parameters
    ----------
    pairing, maker: the pairs, and what makes an image and its masks of each, uploaded where that is asked.
    output_uri: ``s3://bucket/prefix/`` or ``file:///folder/`` of the parts, below which the lists are written, too.
    shard_of: returns the shard of a list, given its source and its name.
    name: what shards and lists are called, before their number.
    pairs_per_list: a list has so many pairs, or fewer where they take 64 MiB.
    known: shards of an earlier call with the same dataset. They are yielded first; further lists have what is in none
        of theirs, and numbers go on after theirs.

    ``refused`` counts the images whose masks cannot be read here, by code, and ``left_out`` the masks that cannot be
    read of other images. Raises :class:`~maskscore.errors.JobError` for a store that cannot be read or written.
    """

    def __init__(
        self,
        pairing: Pairing,
        maker: JobMaker,
        output_uri: str,
        shard_of: Callable[[PairsSource, str], Shard],
        *,
        name: str,
        pairs_per_list: int = PAIRS_PER_LIST,
        known: Iterable[Shard] = (),
    ) -> None:
        self._pairing, self._maker, self._output_uri = pairing, maker, output_uri
        self._shard_of, self._name, self._pairs_per_list = shard_of, name, pairs_per_list
        # An image may have several entries in a dataset file: there, its masks say which pair it is.
        self._by_masks = isinstance(maker.masks, Path)
        self._known = list(known)
        self.refused: dict[str, FailureCounts] = {}
        self.left_out = FailureCounts()

    def __iter__(self) -> Iterator[Shard]:
        number = 0
        for shard in self._known:
            self._pairing.add_submitted(self._keys_of(shard))
            number = max(number, int(shard.name.rpartition("-")[2]) + 1)
            yield shard
        for place, lines in enumerate(chunked_lines(self._lines(), self._pairs_per_list), number):
            name = f"{self._name}-{place:05d}"
            yield self._shard_of(write_list(self._maker.objects, self._output_uri, name, lines), name)

    def _lines(self) -> Iterator[bytes]:
        pairs = iter(self._pairing)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="pairs") as pool:
            while chunk := list(islice(pairs, _CHUNK)):
                chunk = self._missing(chunk)
                # Threads help only where making a job reads or writes files.
                made_all = (pool.map if any(map(self._maker.reads, chunk)) else map)(self._maker.make_or_refuse, chunk)
                for pair, made in zip(chunk, made_all, strict=True):
                    if isinstance(made, MadeJob):
                        for reason in made.left_out:
                            self.left_out.add(lambda image=pair.image: image, reason)  # type: ignore[misc]
                        yield _line(made)
                    else:
                        counts = self.refused.setdefault(made.code, FailureCounts())
                        counts.add(lambda image=pair.image: image, str(made))  # type: ignore[misc]

    def _missing(self, chunk: list[Pair]) -> list[Pair]:
        if not self._known:
            return chunk
        keys = [self._key(pair) for pair in chunk]
        listed = self._pairing.submitted(keys)
        return [pair for pair, key in zip(chunk, keys, strict=True) if key not in listed]

    def _key(self, pair: Pair) -> str:
        if self._by_masks:
            try:
                return _digest(_line(self._maker.make(pair)))
            except MaskscoreError:  # it is refused again
                return ""
        return self._maker.image_uri(pair)

    def _keys_of(self, shard: Shard) -> Iterator[str]:
        uri, etag, objects = shard.source.uri, shard.source.etag, self._maker.objects
        with listed_pairs(objects, uri, ShardCursor(), etag=etag, max_bytes=MOST_LINE_BYTES) as (pairs, _):
            for listed in pairs:
                if isinstance(listed.pair, ImageMasksPair):
                    own = listed.pair.model_dump_json().encode()
                    yield _digest(own) if self._by_masks else listed.pair.image.uri


def chunked_lines(lines: Iterable[bytes], pairs_per_list: int) -> Iterator[list[bytes]]:
    """Yield so many lines at a time, or fewer where they take 64 MiB."""
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        if chunk and (len(chunk) == pairs_per_list or size + len(line) > _MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield chunk


def write_list(objects: Objects, output_uri: str, name: str, lines: list[bytes]) -> PairsSource:
    """Write the list of a shard of this name beside the parts, and return it as a source."""
    uri = f"{output_uri}lists/{name}.jsonl"
    etag = objects.write(uri, b"\n".join([*lines, b""]), content_type="application/jsonl")
    return PairsSource(uri=uri, etag=etag)


def _line(made: MadeJob) -> bytes:
    return ImageMasksPair(image=made.job.image, masks=made.job.masks).model_dump_json().encode()


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
