"""A temporary DuckDB table of the masks to export, so that any number of them can be sorted in bounded memory."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic_core import from_json

from maskscore.export.copies import displaced_masks
from maskscore.export.export_counts import ExportCounts
from maskscore.export.job_reader import ExportedJob
from maskscore.export.query_engine import open_query_engine, record_batches
from maskscore.export.selection import Selection
from maskscore.schema import id_key, plain_id
from maskscore.storage import file_name_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["BufferedImage", "BufferedMask", "MaskBuffer", "open_mask_buffer"]

# Their columns with the types of Arrow.
_TABLES: Final = {
    "jobs": {
        **{"job": "int64", "uri": "string", "width": "int64", "height": "int64", "image_id": "int64"},
        **{"stem": "string", "entry": "string"},
    },
    "masks": {
        **{"sequence": "int64", "job": "int64", "rank": "double", "category": "int64", "label": "string"},
        "mask": "string",
    },
    "left_out": {"sequence": "int64"},
    "displaced": {"sequence": "int64", "masks": "string"},
}
# Jobs of one image are together; it is numbered by the first of them, which also says what is known of it.
_NUMBER_IMAGES: Final = """
create table images as
    select row_number() over (order by job) as number, * exclude job
    from jobs qualify row_number() over (partition by uri order by job) = 1;
create table numbered as
    select sequence, number as image, rank, category, label, mask
    from masks join jobs using (job) join images using (uri);
drop table masks;
alter table numbered rename to masks;
"""
_BEST_FIRST: Final = "rank desc nulls last, sequence"
# Rows that are held in Python at once: a few MB of segmentations.
_ROWS: Final = 2048
_SLACK = 10_000
_COUNT_LABELS: Final = "select label, count(*) from masks where label is not null group by label order by min(sequence)"


@dataclass(frozen=True, slots=True)
class BufferedImage:
    """An image that has masks; ``entry`` is what the upstream tool's file says of it, ``number`` counts from 1."""

    number: int
    uri: str
    width: int
    height: int
    image_id: int | None
    entry: dict[str, Any]


class BufferedMask(NamedTuple):
    """A mask as JSON, with its image's number and upstream id, and its category."""

    image: int
    image_id: int | None
    category: int | None
    label: str | None
    json: str


class MaskBuffer:
    """The masks to export and their images.

    ``selection`` says which masks are exported, and in which order; ``licenses`` are those of the upstream files, by
    id; ``batches`` are the ids of the masks' batches.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, selection: Selection) -> None:
        self._database = database
        self.selection = selection
        self._jobs = 0
        self._sequence = 0
        self._rows = 0
        self._waiting: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _TABLES}
        self._categories: dict[tuple[str | None, str], dict[str, Any]] = {}
        self.licenses: dict[int, dict[str, Any]] = {}
        self.batches: set[str] = set()
        for name in _TABLES:
            database.from_arrow(self._arrow(name)).create(name)

    def fill(self, jobs: Iterable[ExportedJob], counts: ExportCounts) -> None:
        """Add the masks of all jobs, once, and keep those that the selection allows by comparing them.

        These are ``nms``, ``drop_parts`` and ``drop_wholes``, for which pycocotools is needed, ``top`` and
        ``top_per_image``.
        """
        top, per_image = self.selection.top, self.selection.top_per_image
        needs_others = per_image is not None or self.selection.compares_masks
        for job in jobs:
            self._add(job)
            if top is not None and not needs_others and self._rows > 2 * top + _SLACK:
                counts.filtered["top"] += self._keep_best(top)
        self._write("jobs", "masks")
        self._database.execute(_NUMBER_IMAGES)
        if self.selection.compares_masks:
            counts.filtered += self._leave_out_displaced()
        if per_image is not None:
            counts.filtered["top-per-image"] += self._keep(
                f"select * from masks qualify row_number() over (partition by image order by {_BEST_FIRST}) "
                f"<= {per_image}"
            )
        if top is not None:
            counts.filtered["top"] += self._keep_best(top)
        counts.filtered += Counter()  # without those that filtered nothing
        self._database.execute("delete from images where number not in (select image from masks)")
        counts.kept = self._rows
        counts.labels = Counter(dict(self._database.execute(_COUNT_LABELS).fetchall()))

    @property
    def categories(self) -> list[dict[str, Any]]:
        """The entries of the upstream files' categories, each once; one id may have several names."""
        return list(self._categories.values())

    def add_categories(self, entries: Iterable[dict[str, Any]]) -> None:
        """Add what an upstream file says of its categories."""
        self._categories |= {(id_key(entry["id"]), str(entry.get("name"))): entry for entry in entries}

    def images(self) -> Iterator[BufferedImage]:
        """Yield the images that have masks, in the order in which they were added."""
        query = "select number, uri, width, height, image_id, entry from images order by number"
        for number, uri, width, height, image_id, entry in self._read(query):
            yield BufferedImage(number, uri, width, height, image_id, from_json(entry))

    def image_ids_are_unique(self) -> bool:
        """Say whether every image has an id of the upstream tool's, and no two the same."""
        return bool(self._value("select count(*) = count(distinct image_id) from images"))

    def masks_by_image(self) -> Iterator[tuple[BufferedImage, str, Iterator[BufferedMask]]]:
        """Yield each image with a file name of its own, without an ending, and with its masks.

        The name is the image's; of images in several folders that have the same name, all but the first have eight
        digits of their URI's digest behind it.
        """
        query = "select stem, min(number) from images group by stem having count(*) > 1"
        firsts = dict(self._database.execute(query).fetchall())
        masks = groupby(self.masks(by_image=True), key=lambda mask: mask.image)
        for image, (_, own) in zip(self.images(), masks, strict=True):
            stem = PurePosixPath(file_name_of(image.uri)).stem
            if firsts.get(stem, image.number) != image.number:
                stem += "-" + hashlib.sha256(image.uri.encode()).hexdigest()[:8]
            yield image, stem, own

    def category_ids(self) -> list[int]:
        """Return the integer category ids of the upstream tool."""
        query = "select distinct category from masks where category is not null order by category"
        return [category for (category,) in self._database.execute(query).fetchall()]

    def has_masks_without_category(self) -> bool:
        """Say whether there are masks of no category."""
        return bool(self._value("select exists (select 1 from masks where category is null)"))

    def has_masks_without_label(self) -> bool:
        """Say whether there are masks without a label."""
        return bool(self._value("select exists (select 1 from masks where label is null)"))

    def labels(self) -> list[str]:
        """Return the labels of the masks, in alphabetical order."""
        return sorted(label for label, _ in self._database.execute(_COUNT_LABELS).fetchall())

    def masks(self, *, by_image: bool = False) -> Iterator[BufferedMask]:
        """Yield the masks in the selection's order; with ``by_image``, image by image."""
        order = _BEST_FIRST if self.selection.best_first else "sequence"
        query = (
            "select image, image_id, category, label, mask, displaced.masks from masks join images on image = number "
            f"left join displaced using (sequence) order by {'image, ' if by_image else ''}{order}"
        )
        for image, image_id, category, label, mask, displaced in self._read(query):
            if self.selection.compares_masks:
                # The JSON of an object with fields: what it was, and one more.
                mask = f'{mask[:-1]},"displaced":{displaced or "[]"}}}'
            yield BufferedMask(image, image_id, category, label, mask)

    def _add(self, job: ExportedJob) -> None:
        uri, stem = job.image.uri, PurePosixPath(file_name_of(job.image.uri)).stem
        entry = json.dumps(job.file_metadata.image)
        self._waiting["jobs"].append((self._jobs, uri, job.image.width, job.image.height, job.image_id, stem, entry))
        self._waiting["masks"] += [
            (
                sequence,
                self._jobs,
                mask.rank_score,
                _category(mask.upstream.get("category_id")),
                mask.label,
                mask.model_dump_json(),
            )
            for sequence, mask in enumerate(job.masks, self._sequence)
        ]
        self._jobs += 1
        self._sequence += len(job.masks)
        self._rows += len(job.masks)
        if len(self._waiting["masks"]) >= _ROWS:
            self._write("jobs", "masks")
        self.batches |= {mask.batch_id for mask in job.masks if mask.batch_id is not None}
        self.licenses |= {entry["id"]: entry for entry in job.file_metadata.licenses if isinstance(entry["id"], int)}
        self.add_categories(job.file_metadata.categories)

    def _leave_out_displaced(self) -> Counter[str]:
        """Leave out copies and parts, or wholes, image by image; return how many by the rule."""
        counts: Counter[str] = Counter()
        query = f"select image, sequence, mask from masks where rank is not null order by image, {_BEST_FIRST}"
        for _, rows in groupby(self._read(query), key=itemgetter(0)):
            sequences, masks = [], []
            for _, sequence, mask in rows:
                sequences.append(sequence)
                masks.append(from_json(mask))
            displaced: dict[int, list[dict[str, Any]]] = defaultdict(list)
            for entry in displaced_masks(masks, self.selection):
                counts[entry.rule] += 1
                own = {name: masks[entry.mask][name] for name in ("job_id", "mask_id", "part")}
                own |= {"rule": entry.rule, "overlap": entry.overlap}
                # What a mask has displaced goes with it to the mask that displaces it.
                gone = sequences[entry.mask]
                displaced[sequences[entry.by]] += [own, *displaced.pop(gone, [])]
                self._waiting["left_out"].append((gone,))
            self._waiting["displaced"] += [
                (sequence, json.dumps(found, separators=(",", ":"))) for sequence, found in displaced.items()
            ]
            if len(self._waiting["left_out"]) >= _ROWS:
                self._write("left_out", "displaced")
        self._write("left_out", "displaced")
        self._keep("select * from masks where sequence not in (select sequence from left_out)")
        return counts

    def _keep_best(self, top: int) -> int:
        self._write("jobs", "masks")
        return self._keep(f"select * from masks order by {_BEST_FIRST} limit {top}")

    def _keep(self, query: str) -> int:
        """Keep the masks that a query selects, and return how many went."""
        before = self._rows
        self._database.execute(f"create or replace table masks as {query}")
        self._rows = int(self._value("select count(*) from masks"))
        return before - self._rows

    def _read(self, query: str) -> Iterator[tuple[Any, ...]]:
        for batch in record_batches(self._database, query, _ROWS):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def _value(self, query: str) -> Any:
        (value,) = self._database.execute(query).fetchall()[0]
        return value

    def _write(self, *tables: str) -> None:
        """Add the rows that wait for these tables."""
        for name in tables:
            if self._waiting[name]:
                self._database.from_arrow(self._arrow(name)).insert_into(name)
                self._waiting[name].clear()

    def _arrow(self, name: str) -> pa.Table:
        """Return the rows that wait for a table."""
        import pyarrow as pa

        schema = pa.schema([(column, pa.type_for_alias(kind)) for column, kind in _TABLES[name].items()])
        columns = zip(*self._waiting[name], strict=True) if self._waiting[name] else [()] * len(schema)
        return pa.table([pa.array(values, kind) for values, kind in zip(columns, schema.types, strict=True)], schema)


@contextmanager
def open_mask_buffer(selection: Selection) -> Iterator[MaskBuffer]:
    """Create a buffer in a temporary folder, and remove it in the end; raises as :func:`open_query_engine` does."""
    with open_query_engine() as database:
        yield MaskBuffer(database, selection)


def _category(value: Any) -> int | None:
    number = plain_id(value)
    return number if isinstance(number, int) and abs(number) < 1 << 63 else None
