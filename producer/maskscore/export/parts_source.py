"""Parts of shards as the source of an export: a table in DuckDB, with the decisions of a head where one is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from maskscore import results
from maskscore.errors import HeadMismatch
from maskscore.export.export_counts import ExportCounts
from maskscore.export.exported_mask import DECISIONS
from maskscore.export.parts_query import PartsQuery
from maskscore.export.query_engine import (
    constant_columns,
    create_function,
    create_view_of_files,
    open_query_engine,
)
from maskscore.export.selected_parts import SelectedParts
from maskscore.export.selection import Selection
from maskscore.heads import HeadApplication, check_head_fits
from maskscore.results import Listing, PartsPlace, place_text
from maskscore.schema import ProbeModel

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    import pyarrow.dataset as ds

__all__ = ["Parts"]


class Parts:
    """All parts below ``s3://bucket/prefix/`` or a folder, or those of shards; the writers take it in place of jobs.

    ``progress`` is called with the masks that were read, and their number, where it is known; ``listing`` is for
    :func:`maskscore.results.image_results`, where images are read by their URIs. ``without_result`` counts
    by their code images beside those of the parts that have no result. Raises as :func:`maskscore.results.open` does.
    """

    def __init__(
        self,
        place: PartsPlace,
        *,
        progress: Callable[[int, int], None] | None = None,
        listing: Listing = lambda parts, total: parts,
        without_result: Mapping[str, int] | None = None,
    ) -> None:
        self.place, self.listing = place, listing
        masks, images = results.open_parts(place, "masks"), results.open_parts(place, "images")
        self.masks, self._images, self._scoring = masks.dataset, images.dataset, masks.scoring
        self._in_all_parts = set.intersection(*(set(schema.names) for schema in masks.schemas.values()))
        self._progress = progress or (lambda done, total: None)
        self._without_result = without_result or {}

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

        Raises :class:`~maskscore.errors.HeadMismatch` where the selection's head does not hold for the masks, or they
        lack what it reads, and for masks without the decisions that are asked for,
        :class:`~maskscore.errors.InvalidDocumentError` as :func:`maskscore.export.read_jobs` does, and
        :class:`~maskscore.errors.ResultUnavailable` where the parts change meanwhile, or hold masks twice.
        """
        counts.noun = "image"
        counts.without_result.update(self._without_result)
        with open_query_engine() as database:
            _register(database, "images", self._images)
            states = f"select state, coalesce(code, state), count(*) from {self._newest(database)} group by all"
            for state, code, images in database.execute(states).fetchall():
                counts.jobs += images
                if state != "succeeded":
                    counts.without_result[code] += images
            undecided = "parts" if selection.head is None else "undecided"
            constants = _register(database, undecided, self.masks, find_constants=True)
            if selection.head is not None:
                self._decide(database, selection.head)
                constants = {name: value for name, value in constants.items() if name not in DECISIONS}
            query = PartsQuery(
                self.masks.schema,
                selection,
                in_all_parts=self._in_all_parts,
                segmentation_required=segmentation_required,
            )
            yield SelectedParts(
                database,
                query,
                selection,
                self.masks.schema,
                constants,
                counts,
                self._progress,
                place=place_text(self.place),
                segmentations=segmentations,
            )

    def _newest(self, database: duckdb.DuckDBPyConnection) -> str:
        """Return the table of images without the rows of those that were scored again later."""
        import pyarrow as pa

        superseded = sorted(results.superseded_rows(self._images))
        if not superseded:
            return "images"
        job_ids, positions = zip(*superseded, strict=True)
        database.register("superseded", pa.table({"job_id": pa.array(job_ids), "position": pa.array(positions)}))
        return "images anti join superseded using (job_id, position)"

    def _decide(self, database: duckdb.DuckDBPyConnection, application: HeadApplication) -> None:
        """Create the view ``parts`` of ``undecided`` with the head's decisions in place of those of its own."""
        head = application.head
        scored = "select distinct job_id, weights_digest, views, method, prompts_digest from undecided"
        for job_id, weights, views, method, prompts in database.execute(f"{scored} where skipped is null").fetchall():
            views = self._scoring.get((job_id, weights), {}).get("views") or views
            check_head_fits(head, weights_digest=weights, views=views, method=method, prompts_digest=prompts)
        # The name of a score is its expression, too.
        value = "embedding" if isinstance(head.model, ProbeModel) else head.model.score
        if value == "embedding" and "embedding" not in self.masks.schema.names:
            raise HeadMismatch(
                f"The head {head.name} reads embeddings, and the parts in {place_text(self.place)} have none. Score "
                "the shards with --embeddings, or with the head."
            )
        if value == "embedding":
            import numpy as np

            # Raises here where they are of another size, and not inside of DuckDB.
            application.decide_many(np.zeros((1, self.masks.schema.field("embedding").type.list_size)))
        missing = f"select count(*) from undecided where skipped is null and {value} is null"
        ((without,),) = database.execute(missing).fetchall()
        if without:
            raise HeadMismatch(f"The head {head.name} reads {value}, which {without:,} masks of the parts do not have.")

        def decide(values: pa.ChunkedArray) -> pa.Array:
            return _decisions(application, values)

        # Masks that DuckDB reads at once are decided at once.
        kind = "FLOAT[]" if value == "embedding" else "DOUBLE"
        struct = "STRUCT(p_keep DOUBLE, keep BOOLEAN, head_class VARCHAR)"
        create_function(database, "decide", decide, kind, struct)
        identity = f"{head.identity.name}@{head.identity.digest}"
        database.execute(
            "create view parts as select * exclude (p_keep, keep, head_class, head, decision), "
            "decision.p_keep as p_keep, decision.keep as keep, decision.head_class as head_class, "
            f"case when decision.keep is not null then '{identity}' end as head "
            f"from (select *, decide(case when skipped is null then {value} end) as decision from undecided)"
        )


def _register(
    database: duckdb.DuckDBPyConnection, name: str, table: ds.FileSystemDataset, *, find_constants: bool = False
) -> dict[str, str]:
    """Make a table of parts a view of the database; return the columns that have one value in all rows, if asked."""
    import pyarrow.dataset as ds
    from pyarrow import fs

    schema = _without_halves(table.schema)
    if isinstance(table.filesystem, fs.LocalFileSystem):
        # DuckDB reads local files itself, several times faster than through Arrow.
        constants = constant_columns(database, table.files, schema) if find_constants else {}
        create_view_of_files(database, name, table.files, schema, constants)
        return constants
    # A schema with other types cannot replace that of an open dataset.
    database.register(name, ds.dataset(table.files, schema=schema, format=table.format, filesystem=table.filesystem))
    return {}


def _without_halves(schema: pa.Schema) -> pa.Schema:
    """Return the schema with lists of float32 in place of those of float16, which DuckDB takes from Parquet alone."""
    import pyarrow as pa

    if "embedding" not in schema.names:
        return schema
    place = schema.get_field_index("embedding")
    return schema.set(place, pa.field("embedding", pa.list_(pa.float32())))


def _decisions(application: HeadApplication, values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the decisions on the scores or features of masks; null where there is none."""
    import numpy as np
    import pyarrow as pa

    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    there = values.is_valid().to_numpy(zero_copy_only=False)
    given = values.drop_null()
    if not len(given):
        return pa.nulls(len(values), _decision_type())
    if pa.types.is_list(values.type):
        given = given.flatten().to_numpy(zero_copy_only=False).reshape(len(given), -1)
    else:
        given = given.to_numpy(zero_copy_only=False)
    decisions = application.decide_many(given)
    classes = pa.nulls(len(given), pa.string()) if decisions.classes is None else pa.array(decisions.classes)
    columns = [pa.array(decisions.p_keep), pa.array(decisions.keep), classes]
    found = pa.StructArray.from_arrays(columns, fields=list(_decision_type()))
    places = np.where(there, np.cumsum(there) - 1, 0)
    return found.take(pa.array(places, mask=~there))


def _decision_type() -> pa.StructType:
    import pyarrow as pa

    return pa.struct([("p_keep", pa.float64()), ("keep", pa.bool_()), ("head_class", pa.string())])
