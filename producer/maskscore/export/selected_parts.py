"""The masks of parts that a selection keeps: counted, cut off and read by DuckDB."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from maskscore.errors import HeadMismatch, ResultUnavailable
from maskscore.export.export_counts import ExportCounts
from maskscore.export.exported_mask import DECISIONS, ExportedMask
from maskscore.export.file_metadata import FileMetadata, image_id_of
from maskscore.export.job_reader import ExportedJob
from maskscore.export.labels import LABEL_SOURCES
from maskscore.export.parts_query import PartsQuery
from maskscore.export.query_engine import copy_to_parquet, create_function, quoted
from maskscore.export.selection import Selection
from maskscore.results import box_of, top_k_of, upstream_of
from maskscore.schema import ImageInfo

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["SelectedParts"]

_ROWS: Final = 8192
_MOST_FIELDS: Final = 30
_UPSTREAM: Final = "upstream_"
# What identifies a mask, in the order of the parts.
_KEY: Final = ("job_id", "position", "mask_index", "part")


class SelectedParts:
    """The masks of the table ``parts`` that a selection keeps; copies and parts of masks are not compared here.

    Which of them are the best is found by their ranks alone, so that only rows that are kept are read with all their
    columns.
    """

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        query: PartsQuery,
        selection: Selection,
        schema: pa.Schema,
        constants: Mapping[str, str],
        counts: ExportCounts,
        progress: Callable[[int, int], None],
        *,
        place: str,
        segmentations: bool,
    ) -> None:
        self._database, self.query, self._selection = database, query, selection
        self._schema, self._constants, self._counts, self._progress = schema, constants, counts, progress
        self._place, self._segmentations = place, segmentations
        self._picked = False
        # A column that is the same in all rows neither identifies nor orders them.
        self._key = [name for name in _KEY if name not in constants] or list(_KEY)
        self._source_order = ", ".join(f"{name} nulls first" if name == "part" else name for name in self._key)
        self._best_first = f"rank_score desc nulls last, {self._source_order}"
        self.kept = 0
        """Masks that will be read."""
        self.decided: set[str] = set()
        """The fields of decisions that some mask has."""
        self._count()
        if not selection.compares_masks and (selection.top is not None or selection.top_per_image is not None):
            self._pick()

    def _count(self) -> None:
        """Count all masks by the filter that leaves them out, and what else a summary says."""
        selection, counts = self._selection, self._counts
        fields, factors = selection.upstream_fields, tuple(selection.ranking.weights)
        sums = [
            *(f"count(*) filter ({self.query.has_field(name)})" for name in fields),
            *(f"count({self.query.factor(name)})" for name in factors),
            *(f"count({name})" for name in DECISIONS),
            "count(*) filter (skipped is null and keep is null)" if selection.needs_decisions else "0",
            "count(*) filter (skipped is null and head_class is null)" if selection.needs_decisions else "0",
        ]
        undecided = unclassed = 0
        grouped = f"select reason, count(*), {', '.join(sums)} from {self.query.judged} group by reason"
        for reason, masks, *own in self._rows(grouped):
            counts.masks += masks
            counts.with_field.update(dict(zip(fields, own, strict=False)))
            undecided, unclassed = undecided + own[-2], unclassed + own[-1]
            if reason == "unwritable":
                counts.unwritable = masks
                counts.example = "the parts hold no segmentation of some masks that have a box"
            elif reason is not None:
                counts.filtered[reason] = masks
            else:
                self.kept = masks
                counts.ranked.update(dict(zip(factors, own[len(fields) :], strict=False)))
                decisions = own[len(fields) + len(factors) :]
                self.decided = {name for name, count in zip(DECISIONS, decisions, strict=False) if count}
        counts.known_fields.update(list(self.upstream_kinds)[:_MOST_FIELDS])
        self._check(undecided, unclassed)

    def _check(self, undecided: int, unclassed: int) -> None:
        selection, counts = self._selection, self._counts
        if selection.needs_decisions and undecided:
            raise HeadMismatch(
                f"{undecided:,} masks have no p_keep: their shards were scored without a head. Give one with --head."
            )
        if selection.labelling is not None:
            if selection.labelling.from_head and unclassed:
                raise HeadMismatch(
                    f"{unclassed:,} masks have no class, because the head of their shards does not tell classes apart. "
                    "Give one that does with --head: `maskscore fit --by-class`."
                )
            found = f"select distinct label_text from {self.query.judged} where label_text is not null"
            counts.texts = {text for (text,) in self._rows(f"{found} and (reason is null or reason = 'classes')")}
            counts.unused_texts = selection.labelling.check_texts(counts.texts)
            counts.text_noun = LABEL_SOURCES[selection.labelling.source].noun
        if counts.masks:
            selection.check_fields(counts.with_field, counts.known_fields)

    def _pick(self) -> None:
        """Make a table of the best masks: what identifies them, in the order in which they are written."""
        selection, counts = self._selection, self._counts
        per_image, top = selection.top_per_image, selection.top
        best = f"select {', '.join(self._key)}, rank_score, label from {self._kept_of_all}"
        if per_image is not None:
            sizes = f"select count(*) as size from {self._kept_of_all} group by image"
            ((left,),) = self._rows(f"select coalesce(sum(least(size, {per_image})), 0)::bigint from ({sizes})")
            counts.filtered["top-per-image"] = self.kept - left
            self.kept = left
            best += f" qualify row_number() over (partition by image order by {self._best_first}) <= {per_image}"
        best += f" order by {self._best_first if selection.best_first else self._source_order}"
        if top is not None and top < self.kept:
            counts.filtered["top"] = self.kept - top
            self.kept = top
        if top is not None:
            best += f" limit {top}"
        counts.filtered = +counts.filtered  # without filters that left out none
        self._database.execute(f"create table picked as select *, row_number() over () as place from ({best})")
        self._picked = True

    @property
    def _kept_of_all(self) -> str:
        """The masks that pass the filters, with rank and label, after ``from``; more may follow behind ``where``."""
        return f"{self.query.judged} where {self.query.passed} and reason is null"

    def write_parquet(self, path: Path, schema: pa.Schema) -> None:
        """Write the masks' columns of ``schema``, in the selection's order, and count them by label."""
        columns = {field.name: self.expression(field.name) for field in schema}
        if columns.get("embedding", "null") != "null":
            create_function(self._database, "halves", _halves, "FLOAT[]", "BLOB")
            columns["embedding"] = f"halves({columns['embedding']})"
        if self._selection.labelling is not None:
            masks = "picked" if self._picked else self._kept_of_all
            labels = f"select label, count(*) from {masks} {'where' if self._picked else 'and'} label is not null"
            self._counts.labels.update(dict(self._rows(f"{labels} group by label order by count(*) desc, label")))
        written = copy_to_parquet(
            self._database,
            self._query_of(columns),
            path,
            schema,
            progress=lambda share: self._progress(round(share * self.kept), self.kept),
        )
        self._counts.kept = written
        self._check_number(written)

    def batches(self, columns: Mapping[str, str], *, source_order: bool = False) -> Iterator[pa.RecordBatch]:
        """Yield the masks' ``columns``, expressions by name, in the selection's order or that of the parts."""
        done = 0
        query = self._query_of(columns, source_order=source_order)
        for batch in self._database.sql(query).to_arrow_reader(_ROWS):
            done += batch.num_rows
            self._progress(done, self.kept)
            yield batch
        self._check_number(done)

    def rows(self, columns: Mapping[str, str], *, order: str | None = None, most: int | None = None) -> list[Any]:
        """Return ``columns``, expressions by name, of the masks that pass the filters: the ``most`` first by an order.

        Of those that are equal in it, the order of the parts decides.
        """
        text = f"select {', '.join(f'{value} as {quoted(name)}' for name, value in columns.items())}"
        text += f" from {self._kept_of_all}"
        text += f" order by {order}, {self._source_order} limit {most}" if order else ""
        found: list[Any] = self._database.sql(text).to_arrow_table().to_pylist()
        return found

    def _query_of(self, columns: Mapping[str, str], *, source_order: bool = False) -> str:
        # What is the same in all rows is not sorted with them.
        fixed = {
            name: "null" if expression == "null" else self._constants[name]
            for name, expression in columns.items()
            if expression == "null" or (expression == quoted(name) and name in self._constants)
        }
        order = self._source_order if source_order else None
        if self._picked:
            # `part` is null for a whole mask.
            same = " and ".join(
                f"parts.{name} {'is not distinct from' if name == 'part' else '='} picked.{name}" for name in self._key
            )
            joined = f"(select parts.*, rank_score, label, place from parts join picked on {same} where "
            masks, order = f"{joined}{self.query.passed})", order or "place"
        else:
            masks = self._kept_of_all
            if self._selection.best_first and not self._selection.compares_masks:
                order = order or self._best_first
        own = ", ".join(f"{columns[name]} as {quoted(name)}" for name in columns if name not in fixed)
        # A column that DuckDB knows to be never null would be required in the file, and its schema depend on the data.
        # That no rank score is NaN, DuckDB does not know.
        every = ", ".join(
            f"if(isnan(rank_score), null, {fixed.get(name, quoted(name))}) as {quoted(name)}"
            if name in (*fixed, "rank_score", "label")
            else quoted(name)
            for name in columns
        )
        return f"select {every} from (select {own} from {masks}{f' order by {order}' if order else ''})"

    def _check_number(self, read: int) -> None:
        if read != self.kept:
            raise ResultUnavailable(
                f"The parts in {self._place} have other masks now than when they were counted, or a mask twice, as "
                f"copies of a part have: {read:,} were read in place of {self.kept:,}."
            )

    @property
    def upstream_kinds(self) -> dict[str, str]:
        """The fields of upstream tools that have a column of their own, with the kinds of ``UpstreamColumns``."""
        import pyarrow as pa

        kinds = {pa.bool_(): "boolean", pa.int64(): "integer", pa.float64(): "number"}
        fields = (field for field in self._schema if field.name.startswith(_UPSTREAM))
        return {field.name.removeprefix(_UPSTREAM): kinds.get(field.type, "text") for field in fields}

    def expression(self, name: str) -> str:
        """Return the expression of an exported column; null for one that the parts do not have."""
        there = name in (*self._schema.names, "rank_score", "label")
        return quoted(name) if there and (name != "segmentation" or self._segmentations) else "null"

    def jobs(self, *, source_order: bool) -> Iterator[ExportedJob]:
        """Yield the masks, those of one image that follow each other together."""
        columns = {name: self.expression(name) for name in (*self._schema.names, "rank_score", "label")}
        for batch in self.batches(columns, source_order=source_order):
            rows = [_exported(row) for row in batch.to_pylist()]
            for (uri, _), own in groupby(rows, key=lambda mask: (mask.image, mask.job_id)):
                masks = list(own)
                image = ImageInfo.model_construct(
                    uri=uri, width=masks[0].image_width, height=masks[0].image_height, format=""
                )
                yield ExportedJob(image, image_id_of(FileMetadata(), None, masks[0].upstream), FileMetadata(), masks)

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._database.execute(query).fetchall()


def _halves(vectors: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return lists of numbers as bytes: fp16, little-endian."""
    import numpy as np
    import pyarrow as pa

    found = [None if vector is None else np.asarray(vector, "<f2").tobytes() for vector in vectors.to_pylist()]
    return pa.array(found, pa.binary())


def _exported(row: dict[str, Any]) -> ExportedMask:
    fields = {name: row[name] for name in ExportedMask.model_fields if name in row}
    return ExportedMask.model_construct(
        **fields
        | {
            "box": box_of(row),
            "embedding": _base64(row.get("embedding")),
            "top_k": top_k_of(row),
            "segmentation": from_json(row["segmentation"]) if row["segmentation"] else None,
            "upstream": upstream_of(row),
        }
    )


def _base64(embedding: list[float] | None) -> str | None:
    if embedding is None:
        return None
    return base64.b64encode(struct.pack(f"<{len(embedding)}e", *embedding)).decode()
