"""Earlier parts with embeddings → parts with the scores of other prompts: no image is read, nothing is encoded."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from maskscore.errors import FailureCode, HeadMismatch, JobError
from maskscore.heads import Decision, HeadApplication
from maskscore.parts import PARTS_VERSION, PartTables, part_names
from maskscore.schema import PartsSource, PromptSet, PromptSetIdentity, Shard, ShardCounts, ShardCursor
from maskscore_worker.features import resolve_prompt_set
from maskscore_worker.pipeline import Pipeline
from maskscore_worker.scoring import Scores, check_method, score

__all__ = ["CommitPart", "rescore_parts"]

CommitPart = Callable[[PartTables, int, ShardCursor], None]
"""Stores a part, given its tables and its number, and then the cursor after it; called for one part after the other."""

_SCORES: Final = ("s_pos", "s_neg", "s_pos_text", "s_neg_text", "p_pos_sum", "p_neg_sum", "semantic_multiplier")
_DECISIONS: Final = ("p_keep", "keep", "head_class")
_MOST_BYTES: Final = 8 << 30
_ROWS: Final = 4096


def rescore_parts(
    pipeline: Pipeline,
    shard: Shard,
    source: PartsSource,
    cursor: ShardCursor,
    commit_part: CommitPart,
    *,
    check: Callable[[], None],
) -> ShardCursor:
    """Score the parts of a source from a cursor on, each into one of the same number; return the last cursor.

    Columns that do not depend on the options stay as they are. Scores are those of the embeddings, float16, with the
    worker's text tower; heads decide as :meth:`maskscore.heads.HeadApplication.decide` does. One part is in memory at a
    time; its masks are scored by ``settings.concurrency`` threads.

    Raises :class:`~maskscore.errors.JobError`: ``parts_unfit`` for masks without embeddings or of other weights than
    the worker's, ``masks_changed`` where the parts are of another document or source than those before,
    ``masks_invalid`` for a file that is no part, and as :meth:`maskscore.storage.Objects.read` does; and what
    ``commit_part`` and ``check`` raise.
    """
    rescoring = _Rescoring(pipeline, shard)
    for number in range(cursor.part, source.parts):
        check()
        names = part_names(shard.name, number)
        tables = [_read(pipeline, source.uri + name) for name in names]
        etag = cursor.etag or source.etag
        abouts = [_about(table, source.uri + name) for table, name in zip(tables, names, strict=True)]
        for about, name in zip(abouts, names, strict=True):
            if etag is not None and about.get("digest") != etag:
                raise JobError(
                    FailureCode.MASKS_CHANGED,
                    f"{source.uri}{name} was replaced since the shard was submitted, or since its first part: it is "
                    "of another document or source than the parts before. Submit again for the present parts.",
                )
        etag = abouts[0].get("digest")
        new = rescoring.part(*tables, about=abouts[0], etag=etag or "", uri=source.uri + names.masks, check=check)
        counts = cursor.counts + new.counts
        cursor = ShardCursor(part=number + 1, etag=etag, done=number + 1 == source.parts, counts=counts)
        commit_part(new, number, cursor)
    return cursor


def _read(pipeline: Pipeline, uri: str) -> pa.Table:
    data = pipeline.objects.read(uri, what="masks", max_bytes=_MOST_BYTES).data
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise JobError(FailureCode.MASKS_INVALID, f"{uri} cannot be read: {error}.") from error


def _about(table: pa.Table, uri: str) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads((table.schema.metadata or {})[b"maskscore"])
    except (KeyError, ValueError) as error:
        raise JobError(FailureCode.MASKS_INVALID, f"{uri} is no part of a shard.") from error
    if about.get("version") != PARTS_VERSION:
        raise JobError(
            FailureCode.DOCUMENT_VERSION_UNSUPPORTED,
            f"{uri} is a part of version {about.get('version')}; this worker reads version {PARTS_VERSION}.",
        )
    return about


@dataclass(frozen=True, slots=True)
class _Scored:
    """Scores, and decisions where there is a head, of some masks."""

    scores: list[Scores]
    decisions: list[Decision]


class _Rescoring:
    """What all parts of a shard are scored with."""

    def __init__(self, pipeline: Pipeline, shard: Shard) -> None:
        self._pipeline, self._shard = pipeline, shard
        check_method(shard.options, pipeline.model.logit_bias, pipeline.model.architecture)
        self._prompts: PromptSet = resolve_prompt_set(shard.options.prompts, pipeline.settings.prompts_dir)
        self._prompt_features = pipeline.prompt_features.get(self._prompts)

    def part(
        self,
        masks: pa.Table,
        images: pa.Table,
        *,
        about: dict[str, Any],
        etag: str,
        uri: str,
        check: Callable[[], None],
    ) -> PartTables:
        """Return the tables of a part, scored again. ``etag`` is the digest of the earlier one."""
        there = pc.is_null(masks["skipped"]).to_numpy(zero_copy_only=False)
        self._check(masks, there, uri)
        views = about.get("scoring", {}).get("views") or self._shard.options.views_text
        head = self._pipeline.head_of(self._shard.options, self._prompts, views=views)
        columns = self._columns(masks, self._scored(masks, there, head, check), there, head)
        ids = {"job_id": self._shard.shard_id, "batch_id": self._shard.batch_id}
        masks, images = (
            _with(table, {**own, **_repeated(len(table), **ids)}) for table, own in ((masks, columns), (images, {}))
        )
        new = {key: value for key, value in about.items() if key != "digest"} | {"shard": self._shard.shard_id}
        if "scoring" in new:
            prompts = PromptSetIdentity.of(self._prompts).model_dump(mode="json")
            new["scoring"] |= {"prompts": prompts, "features": "float16 embeddings"}
        new["digest"] = self._shard.digest(etag)
        masks, images = (
            table.replace_schema_metadata({"maskscore": json.dumps({**new, "table": name})})
            for name, table in (("masks", masks), ("images", images))
        )
        failed = len(images) - pc.sum(pc.equal(images["state"], "succeeded")).as_py()
        counts = ShardCounts(images=len(images), failed=failed, masks=len(masks), skipped=len(masks) - int(there.sum()))
        return PartTables(masks, images, counts)

    def _check(self, masks: pa.Table, there: npt.NDArray[np.bool_], uri: str) -> None:
        dimensions = self._prompt_features.shape[1]
        if "embedding" not in masks.schema.names:
            raise JobError(
                FailureCode.PARTS_UNFIT,
                f"{uri} has no embeddings: its shard was not scored with --embeddings. Score the images again.",
            )
        own = self._pipeline.model.weights_digest
        weights = pc.unique(masks["weights_digest"].filter(pa.array(there))).to_pylist()
        if other := [digest for digest in weights if digest != own]:
            raise JobError(
                FailureCode.PARTS_UNFIT,
                f"{uri} has embeddings of the weights {other[0]}, and this worker has {own}. Use workers with the "
                "weights of the parts.",
            )
        found = masks["embedding"].is_valid().to_numpy(zero_copy_only=False)
        if masks.schema.field("embedding").type.list_size != dimensions or not found[there].all():
            raise JobError(
                FailureCode.PARTS_UNFIT, f"{uri} lacks embeddings of {dimensions} numbers of some masks with scores."
            )

    def _scored(
        self, masks: pa.Table, there: npt.NDArray[np.bool_], head: HeadApplication | None, check: Callable[[], None]
    ) -> _Scored:
        column = masks["embedding"].filter(pa.array(there)).combine_chunks()
        threads = ThreadPoolExecutor(self._pipeline.settings.concurrency, thread_name_prefix="shard-rows")
        found = _Scored([], [])
        try:
            slices = [column.slice(start, _ROWS) for start in range(0, len(column), _ROWS)]
            for own in threads.map(partial(self._score, head), slices):
                check()
                found.scores.extend(own.scores)
                found.decisions.extend(own.decisions)
        finally:
            threads.shutdown(cancel_futures=True)
        return found

    def _score(self, head: HeadApplication | None, vectors: pa.FixedSizeListArray) -> _Scored:
        model = self._pipeline.model
        values = vectors.flatten().to_numpy(zero_copy_only=False)
        features = values.astype(np.float32).reshape(len(vectors), -1)
        scores = score(
            features,
            self._prompt_features,
            self._prompts,
            model.logit_scale,
            self._shard.options,
            logit_bias=model.logit_bias,
        )
        if head is None:
            return _Scored(scores, [])
        try:
            return _Scored(scores, [head.decide(own, row) for own, row in zip(scores, features, strict=True)])
        except HeadMismatch as error:
            raise JobError(FailureCode.HEAD_MISMATCH, str(error)) from error

    def _columns(
        self, masks: pa.Table, scored: _Scored, there: npt.NDArray[np.bool_], head: HeadApplication | None
    ) -> dict[str, pa.Array]:
        """Return the columns that change, with nulls for masks that have no score."""
        scores, decisions = scored.scores, scored.decisions
        values: dict[str, list[Any]] = {name: list(map(attrgetter(name), scores)) for name in _SCORES}
        values["top_k"] = [None if one.top_k is None else [p.model_dump() for p in one.top_k] for one in scores]
        if head is None:
            values |= {name: [None] * len(scores) for name in (*_DECISIONS, "head")}
        else:
            values |= {name: list(map(attrgetter(name), decisions)) for name in _DECISIONS}
            values["head"] = [f"{head.head.identity.name}@{head.head.identity.digest}"] * len(scores)
        places = pa.array(np.cumsum(there) - 1, mask=~there)
        columns = {name: pa.array(own, masks.schema.field(name).type).take(places) for name, own in values.items()}
        # Masks that were skipped have these, too.
        return columns | _repeated(len(masks), method=self._shard.options.method, prompts_digest=self._prompts.digest)


def _repeated(rows: int, **values: str | None) -> dict[str, pa.Array]:
    return {name: pa.repeat(pa.scalar(value, pa.string()), rows) for name, value in values.items()}


def _with(table: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table
