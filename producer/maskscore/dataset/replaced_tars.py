"""Tar files of a batch of shards that were replaced under their names since images of theirs were scored."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from maskscore import results
from maskscore.client import Client
from maskscore.errors import InvalidDocumentError
from maskscore.schema import JobState, Shard, TarSource

__all__ = ["ReplacedTars", "scores_again"]


def scores_again(shard: Shard) -> bool:
    """Say whether a shard is one of images that failed in another one."""
    return results.retry_number(shard.name) is not None


class ReplacedTars:
    """Knows the versions (ETags) of the tar files of a batch, and which shards of other versions count.

    ``known`` are the batch's shards of failed images; with ``retry``, images that failed are scored again.
    """

    def __init__(self, client: Client, batch_id: str, known: Iterable[Shard], *, retry: bool) -> None:
        self._client, self._batch_id, self._retry = client, batch_id, retry
        self._scored_again = {_version(shard) for shard in known if scores_again(shard)}
        self._present: set[tuple[str, str | None]] = set()
        self._new: set[str] = set()

    def is_outdated(self, shard: Shard) -> bool:
        """Say whether a shard of failed images ended without a result, and is of a version that is no more.

        It would fail each time; another one takes its name. Of a tar, its shard itself is to be asked about first.
        """
        if not scores_again(shard):
            self._present.add(_version(shard))
            return False
        if not self._retry or not isinstance(shard.source, TarSource) or _version(shard) in self._present:
            return False
        status = self._client.status(shard.shard_id)
        return status.state.ended and status.state is not JobState.SUCCEEDED

    def scored_before(self, shard: Shard) -> Shard:
        """Return the shard that has this one's id, has succeeded, and is of another version of its tar.

        Its failed images are scored again from the present version now, or were before. Raises
        :class:`~maskscore.errors.InvalidDocumentError` where that is not so.
        """
        earlier = self._client.shard(shard.shard_id)
        if earlier.model_copy(update={"source": shard.source}) != shard or earlier.source.uri != shard.source.uri:
            raise self._error(shard.source.uri)
        succeeded = self._client.status(shard.shard_id).state is JobState.SUCCEEDED
        if not succeeded or not (self._retry or _version(shard) in self._scored_again):
            raise self._error(shard.source.uri)
        outcome = self._client.get(shard.shard_id).shard
        if outcome is None or not outcome.counts.failed:
            raise self._error(shard.source.uri)
        if _version(shard) not in self._scored_again:
            self._new.add(shard.source.uri)
        return earlier

    def check_needed(self, uris: Collection[str]) -> None:
        """Raise :class:`~maskscore.errors.InvalidDocumentError` for a new version that has none of the failed images.

        ``uris`` are the tar files that have some.
        """
        if unneeded := self._new - set(uris):
            raise self._error(min(unneeded))

    def _error(self, uri: str) -> InvalidDocumentError:
        return InvalidDocumentError(
            f"{uri} was replaced since it was submitted to the batch {self._batch_id}. --resume --retry-failed scores "
            "it anew where its shard ended without a result, and else the images that failed; for all of its images, "
            "take another --batch-id and output."
        )


def _version(shard: Shard) -> tuple[str, str | None]:
    return shard.source.uri, shard.source.etag
