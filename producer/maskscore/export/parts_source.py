"""Parts of shards as the source of an export: filtered, ranked and cut off by DuckDB, read in batches of Arrow."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from maskscore import results
from maskscore.errors import HeadMismatch
from maskscore.export.export_counts import ExportCounts
from maskscore.export.exported_mask import DECISIONS, ExportedMask
from maskscore.export.file_metadata import FileMetadata, image_id_of
from maskscore.export.job_reader import ExportedJob
from maskscore.export.labels import LABEL_SOURCES
from maskscore.export.parts_query import BEST_FIRST, SOURCE_ORDER, PartsQuery, quoted
from maskscore.export.query_engine import open_query_engine
from maskscore.export.selection import Selection
from maskscore.schema import ImageInfo

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["Parts", "SelectedParts"]

_ROWS: Final = 8192
_MOST_FIELDS: Final = 30
_UPSTREAM: Final = "upstream_"


class Parts:
    """All parts below ``s3://bucket/prefix/`` or a folder; the writers take it in place of jobs.

    ``progress`` is called with the masks that were read, and their number, where it is known. Raises as
    :func:`maskscore.results.open` does.
    """

    def __init__(self, uri: str, *, progress: Callable[[int, int], None] | None = None) -> None:
        self.uri = uri
        self.masks = results.open(uri)
        self._progress = progress or (lambda done, total: None)

    @contextmanager
    def selected(
        self,
        selection: Selection,
        counts: ExportCounts,
        *,
        segmentations: bool = True,
        segmentation_required: bool = False,
    ) -> Iterator[SelectedParts]:
        """Filter the masks, and count; ``segmentation_required`` leaves out masks without a segmentation.

        Raises :class:`~maskscore.errors.HeadMismatch` for a selection with a head, which is applied to results of jobs
        only, and for masks without the decisions that are asked for, and
        :class:`~maskscore.errors.InvalidDocumentError` as :func:`maskscore.export.read_jobs` does.
        """
        if selection.head is not None:
            raise HeadMismatch(
                f"The head {selection.head.head.name} cannot be applied to parts: their masks have the decisions "
                "of the head that their shard was scored with. Leave out --head, or score the shards with it."
            )
        counts.noun = "image"
        images = results.open(self.uri, "images").to_table(columns=["state", "code"])
        counts.jobs = images.num_rows
        for row in images.group_by(["state", "code"]).aggregate([([], "count_all")]).to_pylist():
            if row["state"] != "succeeded":
                counts.without_result[row["code"] or row["state"]] += row["count_all"]
        with open_query_engine() as database:
            if self.uri.startswith("s3://"):
                database.register("parts", self.masks)
            else:
                # DuckDB reads local files itself, several times faster than through Arrow.
                files = database.read_parquet(self.masks.files, union_by_name=True)
                files.create_view("parts")
            query = PartsQuery(self.masks.schema, selection, segmentation_required=segmentation_required)
            selected = SelectedParts(database, query, selection, self.masks.schema, counts, self._progress)
            selected.segmentations = segmentations
            yield selected


class SelectedParts:
    """The masks of parts that a selection keeps; copies and parts of masks are not compared here."""

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        query: PartsQuery,
        selection: Selection,
        schema: pa.Schema,
        counts: ExportCounts,
        progress: Callable[[int, int], None],
    ) -> None:
        self._database, self._query, self._selection = database, query, selection
        self._schema, self._counts, self._progress = schema, counts, progress
        self.segmentations = True
        self.kept = 0
        """Masks that will be read."""
        self.decided: set[str] = set()
        """The fields of decisions that some mask has."""
        self._count()

    def _count(self) -> None:
        """Count all masks by the filter that leaves them out, and what else a summary says."""
        selection, counts = self._selection, self._counts
        fields, factors = selection.upstream_fields, tuple(selection.ranking.weights)
        sums = [
            *(f"count(*) filter ({self._query.has_field(name)})" for name in fields),
            *(f"count({self._query.factor(name)})" for name in factors),
            *(f"count({name})" for name in DECISIONS),
            "count(*) filter (skipped is null and keep is null)",
            "count(*) filter (skipped is null and head_class is null)",
        ]
        undecided = unclassed = 0
        grouped = f"select reason, count(*), {', '.join(sums)} from {self._query.judged} group by reason"
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
        if not selection.compares_masks:
            self._count_top()

    def _check(self, undecided: int, unclassed: int) -> None:
        selection, counts = self._selection, self._counts
        if selection.needs_decisions and undecided:
            raise HeadMismatch(f"{undecided:,} masks have no p_keep: their shards were scored without a head.")
        if selection.labelling is not None:
            if selection.labelling.from_head and unclassed:
                raise HeadMismatch(
                    f"{unclassed:,} masks have no class, because the head of their shards does not tell classes apart."
                )
            found = f"select distinct label_text from {self._query.judged} where label_text is not null"
            counts.texts = {text for (text,) in self._rows(f"{found} and (reason is null or reason = 'classes')")}
            counts.unused_texts = selection.labelling.check_texts(counts.texts)
            counts.text_noun = LABEL_SOURCES[selection.labelling.source].noun
        if counts.masks:
            selection.check_fields(counts.with_field, counts.known_fields)

    def _count_top(self) -> None:
        per_image, top = self._selection.top_per_image, self._selection.top
        if per_image is not None:
            sizes = f"select count(*) as size from {self._query.judged} where reason is null group by image"
            ((left,),) = self._rows(f"select coalesce(sum(least(size, {per_image})), 0)::bigint from ({sizes})")
            self._counts.filtered["top-per-image"] = self.kept - left
            self.kept = left
        if top is not None and top < self.kept:
            self._counts.filtered["top"] = self.kept - top
            self.kept = top
        self._counts.filtered += type(self._counts.filtered)()

    def batches(self, columns: Mapping[str, str], *, source_order: bool = False) -> Iterator[pa.RecordBatch]:
        """Yield the masks' ``columns``, expressions by name, in the selection's order or that of the parts."""
        expressions = ", ".join(f"{expression} as {quoted(name)}" for name, expression in columns.items())
        query = f"select {expressions} from ({self._kept()})"
        if source_order:
            query += f" order by {SOURCE_ORDER}"
        done = 0
        for batch in self._database.sql(query).to_arrow_reader(_ROWS):
            done += batch.num_rows
            self._progress(done, self.kept)
            yield batch

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
        return quoted(name) if there and (name != "segmentation" or self.segmentations) else "null"

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

    def _kept(self) -> str:
        """Return the query of the masks that are kept; the best of all first, where that is asked for."""
        selection = self._selection
        query = f"select * from {self._query.judged} where reason is null"
        if selection.compares_masks:
            return query
        if selection.top_per_image is not None:
            query += (
                f" qualify row_number() over (partition by image order by {BEST_FIRST}) <= {selection.top_per_image}"
            )
        elif selection.top is not None and self.kept:
            # Sorting the ranks alone says which rows need not be sorted with all their columns.
            ranks = f"select rank_score from {self._query.judged} where reason is null"
            last = f"{ranks} order by rank_score desc nulls last limit 1 offset {self.kept - 1}"
            ((least,),) = self._rows(last)
            if least is not None:
                query += f" and rank_score >= {least!r}::double"
        if selection.best_first:
            query += f" order by {BEST_FIRST}"
        elif selection.top_per_image is not None:
            query += f" order by {SOURCE_ORDER}"
        return query if selection.top is None else f"{query} limit {selection.top}"

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._database.execute(query).fetchall()


def _exported(row: dict[str, Any]) -> ExportedMask:
    upstream = {
        name.removeprefix(_UPSTREAM): value
        for name, value in row.items()
        if name.startswith(_UPSTREAM) and value is not None
    }
    upstream |= from_json(row["upstream"]) if row["upstream"] else {}
    box = tuple(row[name] for name in ("box_x", "box_y", "box_width", "box_height"))
    fields = {name: row[name] for name in ExportedMask.model_fields if name in row}
    return ExportedMask.model_construct(
        **fields
        | {
            "box": None if box[0] is None else box,
            "embedding": _base64(row.get("embedding")),
            "segmentation": from_json(row["segmentation"]) if row["segmentation"] else None,
            "upstream": upstream,
        }
    )


def _base64(embedding: list[float] | None) -> str | None:
    if embedding is None:
        return None
    return base64.b64encode(struct.pack(f"<{len(embedding)}e", *embedding)).decode()
