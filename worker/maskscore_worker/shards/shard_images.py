"""The images of a shard, from a tar or a list of pairs, each with what it takes to score it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from urllib.parse import quote

from maskscore.errors import FailureCode, JobError
from maskscore.schema import ImageRef, Job, MasksRef, Shard, ShardCursor, TarSource
from maskscore.settings import WorkerSettings
from maskscore.shards import ListedPair, Member, TarPair, TarPairs, listed_pairs, tar_pairs
from maskscore.storage import FetchedObject, Objects
from maskscore_worker.inputs import Fetched, fetch

__all__ = ["ShardImage", "ShardImages", "open_images"]


@dataclass(frozen=True, slots=True)
class ShardImage:
    """An image of a shard; ``number`` is its row in ``images``.

    ``load`` returns its job and its bytes, or raises the :class:`~maskscore.errors.JobError` that it fails with. Other
    fields: as those of :class:`~maskscore.parts.ImageOutcome`, whose ``etag`` is that of the image's tar here.
    """

    number: int
    load: Callable[[], tuple[Job, Fetched]]
    image: str | None = None
    masks: str | None = None
    etag: str | None = None
    image_offset: int | None = None
    image_bytes: int | None = None


class ShardImages(Protocol):
    """Iterate once, from one thread. ``source_etag`` is that of the tar or the list; empty where it has none."""

    source_etag: str

    def __iter__(self) -> Iterator[ShardImage]:
        """Yield the images from the cursor on, in their order."""

    def cursor_after(self, number: int) -> tuple[int, str, int]:
        """Return ``offset`` and ``held`` of the cursor after this image, and the others passed so far."""


@contextmanager
def open_images(
    shard: Shard, cursor: ShardCursor, objects: Objects, settings: WorkerSettings, check: Callable[[], None]
) -> Iterator[ShardImages]:
    """Open a shard's source at a cursor; the objects of a list's images are read by ``2 * concurrency`` threads ahead.

    ``check`` may raise to give up a store that is slow. Raises :class:`~maskscore.errors.JobError` as
    :meth:`maskscore.storage.Objects.read_range` does, also while the images are read.
    """
    source, largest = shard.source, max(settings.max_image_bytes, settings.max_masks_bytes)
    if isinstance(source, TarSource):
        etag, only = source.etag, source.members
        with tar_pairs(objects, source.uri, cursor, etag=etag, max_bytes=largest, only=only) as (pairs, etag):
            yield _TarImages(shard, pairs, etag, settings)
        return
    most = settings.max_masks_bytes
    with listed_pairs(objects, source.uri, cursor, etag=source.etag, max_bytes=most) as (listed, etag):
        readers = ThreadPoolExecutor(2 * settings.concurrency, thread_name_prefix="shard-fetch")
        try:
            yield _ListedImages(
                shard, listed, etag, lambda job: readers.submit(fetch, job, objects, settings, check).result
            )
        finally:
            readers.shutdown(cancel_futures=True)


class _ListedImages:
    def __init__(
        self, shard: Shard, pairs: Iterator[ListedPair], etag: str, begin: Callable[[Job], Callable[[], Fetched]]
    ) -> None:
        self._shard, self._pairs, self._begin = shard, pairs, begin
        self.source_etag = etag

    def __iter__(self) -> Iterator[ShardImage]:
        shard = self._shard
        for listed in self._pairs:
            pair = listed.pair
            if isinstance(pair, JobError):
                yield ShardImage(listed.number, partial(_fail, pair))
                continue
            job = Job(
                job_id=shard.shard_id,
                batch_id=shard.batch_id,
                image=pair.image,
                masks=pair.masks,
                options=shard.options,
            )
            masks = pair.masks.uri if isinstance(pair.masks, MasksRef) else None
            yield ShardImage(listed.number, partial(self._load, job, self._begin(job)), pair.image.uri, masks)

    def _load(self, job: Job, fetched: Callable[[], Fetched]) -> tuple[Job, Fetched]:
        return job, fetched()

    def cursor_after(self, number: int) -> tuple[int, str, int]:
        return number + 1, "", 0


class _TarImages:
    def __init__(self, shard: Shard, pairs: TarPairs, etag: str, settings: WorkerSettings) -> None:
        self._shard, self._pairs, self._settings = shard, pairs, settings
        self.source_etag = etag
        self._tar = shard.source.uri
        self.cursor_after = pairs.cursor_after

    def __iter__(self) -> Iterator[ShardImage]:
        for pair in self._pairs:
            image, masks = pair.image, pair.masks
            yield ShardImage(
                pair.number,
                partial(self._load, pair),
                None if image is None else self._uri(image),
                None if masks is None else self._uri(masks),
                self.source_etag or None,
                None if image is None else image.offset,
                None if image is None else image.size,
            )

    def _load(self, pair: TarPair) -> tuple[Job, Fetched]:
        shard, settings = self._shard, self._settings
        if pair.damage is not None:
            raise JobError(FailureCode.IMAGE_TRUNCATED, f"{self._tar}: {pair.damage.message}")
        if pair.image is None or pair.masks is None:
            found = pair.image or pair.masks
            assert found is not None
            code, what = (
                (FailureCode.MASKS_NOT_FOUND, "masks file")
                if pair.image is not None
                else (FailureCode.IMAGE_NOT_FOUND, "image")
            )
            raise JobError(code, f"{self._tar} has no {what} for {found.name!r}.")
        image = _bytes_of(pair.image, settings.max_image_bytes, FailureCode.IMAGE_TOO_LARGE, "IMAGE")
        masks = _bytes_of(pair.masks, settings.max_masks_bytes, FailureCode.MASKS_TOO_LARGE, "MASKS")
        job = Job(
            job_id=shard.shard_id,
            batch_id=shard.batch_id,
            image=ImageRef(uri=self._uri(pair.image), orientation=shard.orientation),
            masks=MasksRef(uri=self._uri(pair.masks), format=shard.masks_format),
            options=shard.options,
        )
        return job, Fetched(FetchedObject(image, self.source_etag or None, None), masks)

    def _uri(self, member: Member) -> str:
        return f"{self._tar}!/{quote(member.text) if self._tar.startswith('file:') else member.text}"


def _fail(error: JobError) -> tuple[Job, Fetched]:
    raise error


def _bytes_of(member: Member, most: int, code: FailureCode, setting: str) -> bytes:
    if member.data is None or member.size > most:
        raise JobError(
            code,
            f"{member.name!r} has {member.size:,} bytes; at most {most:,} are read (MASKSCORE_MAX_{setting}_BYTES).",
        )
    return member.data
