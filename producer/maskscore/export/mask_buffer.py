"""An SQLite file of the masks to export, so that any number of them can be sorted in little memory."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from pydantic_core import from_json

from maskscore.export.copies import displaced_masks
from maskscore.export.export_counts import ExportCounts
from maskscore.export.job_reader import ExportedJob
from maskscore.export.selection import Selection
from maskscore.schema import id_key, plain_id
from maskscore.storage import OutputError, file_name_of

__all__ = ["BufferedImage", "BufferedMask", "MaskBuffer", "open_mask_buffer"]

_TABLES = """
pragma journal_mode = off;
pragma synchronous = off;
create table images (
    number integer primary key, uri text unique, width integer, height integer, image_id integer, stem text, entry text
);
create table masks (
    sequence integer primary key, image integer, rank real, category integer, label text, mask text
);
create table left_out (sequence integer primary key);
create table displaced (sequence integer primary key, masks text);
begin;
"""
# SQLite sorts null ranks, which skipped masks have, as the smallest.
_BEST_FIRST = "rank desc, sequence"
_SLACK = 10_000
_COUNT_LABELS = "select label, count(*) from masks where label is not null group by label order by min(sequence)"


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

    def __init__(self, database: sqlite3.Connection, selection: Selection) -> None:
        self._database = database
        self.selection = selection
        self._rows = 0
        self._categories: dict[tuple[str | None, str], dict[str, Any]] = {}
        self.licenses: dict[int, dict[str, Any]] = {}
        self.batches: set[str] = set()

    def fill(self, jobs: Iterable[ExportedJob], counts: ExportCounts) -> None:
        """Add the masks of all jobs, and keep those that the selection allows by comparing them.

        These are ``nms``, ``drop_parts`` and ``drop_wholes``, for which pycocotools is needed, ``top`` and
        ``top_per_image``.
        """
        top, per_image = self.selection.top, self.selection.top_per_image
        needs_others = per_image is not None or self.selection.compares_masks
        for job in jobs:
            self._add(job)
            if top is not None and not needs_others and self._rows > 2 * top + _SLACK:
                counts.filtered["top"] += self._keep_best(top)
        if self.selection.compares_masks:
            counts.filtered += self._leave_out_displaced()
        if per_image is not None:
            counts.filtered["top-per-image"] += self._delete(
                "sequence in (select sequence from (select sequence, row_number() over "
                f"(partition by image order by {_BEST_FIRST}) as place from masks) where place > ?)",
                per_image,
            )
        if top is not None:
            counts.filtered["top"] += self._keep_best(top)
        counts.filtered += Counter()  # without those that filtered nothing
        self._database.execute("delete from images where number not in (select image from masks)")
        counts.kept = self._rows
        counts.labels = Counter(dict(self._database.execute(_COUNT_LABELS)))

    @property
    def categories(self) -> list[dict[str, Any]]:
        """The entries of the upstream files' categories, each once; one id may have several names."""
        return list(self._categories.values())

    def images(self) -> Iterator[BufferedImage]:
        """Yield the images that have masks, in the order in which they were added."""
        query = "select number, uri, width, height, image_id, entry from images order by number"
        for number, uri, width, height, image_id, entry in self._database.execute(query):
            yield BufferedImage(number, uri, width, height, image_id, from_json(entry))

    def image_ids_are_unique(self) -> bool:
        """Say whether every image has an id of the upstream tool's, and no two the same."""
        query = "select count(*) = count(distinct image_id) from images"
        return bool(self._database.execute(query).fetchone()[0])

    def masks_by_image(self) -> Iterator[tuple[BufferedImage, str, Iterator[BufferedMask]]]:
        """Yield each image with a file name of its own, without an ending, and with its masks.

        The name is the image's; of images in several folders that have the same name, all but the first have eight
        digits of their URI's digest behind it.
        """
        query = "select stem, min(number) from images group by stem having count(*) > 1"
        firsts = dict(self._database.execute(query))
        masks = groupby(self.masks(by_image=True), key=lambda mask: mask.image)
        for image, (_, own) in zip(self.images(), masks, strict=True):
            stem = PurePosixPath(file_name_of(image.uri)).stem
            if firsts.get(stem, image.number) != image.number:
                stem += "-" + hashlib.sha256(image.uri.encode()).hexdigest()[:8]
            yield image, stem, own

    def category_ids(self) -> list[int]:
        """Return the integer category ids of the upstream tool."""
        query = "select distinct category from masks where category is not null order by category"
        return [category for (category,) in self._database.execute(query)]

    def has_masks_without_category(self) -> bool:
        """Say whether there are masks of no category."""
        query = "select exists (select 1 from masks where category is null)"
        return bool(self._database.execute(query).fetchone()[0])

    def has_masks_without_label(self) -> bool:
        """Say whether there are masks without a label."""
        query = "select exists (select 1 from masks where label is null)"
        return bool(self._database.execute(query).fetchone()[0])

    def labels(self) -> list[str]:
        """Return the labels of the masks, in alphabetical order."""
        return sorted(label for label, _ in self._database.execute(_COUNT_LABELS))

    def masks(self, *, by_image: bool = False) -> Iterator[BufferedMask]:
        """Yield the masks in the selection's order; with ``by_image``, image by image."""
        order = _BEST_FIRST if self.selection.best_first else "sequence"
        query = (
            "select image, image_id, category, label, mask, displaced.masks from masks join images on image = number "
            f"left join displaced using (sequence) order by {'image, ' if by_image else ''}{order}"
        )
        for image, image_id, category, label, mask, displaced in self._database.execute(query):
            if self.selection.compares_masks:
                # The JSON of an object with fields: what it was, and one more.
                mask = f'{mask[:-1]},"displaced":{displaced or "[]"}}}'
            yield BufferedMask(image, image_id, category, label, mask)

    def _add(self, job: ExportedJob) -> None:
        uri = job.image.uri
        known = self._database.execute("select number from images where uri = ?", (uri,)).fetchone()
        if known is None:
            stem = PurePosixPath(file_name_of(uri)).stem
            row = (uri, job.image.width, job.image.height, job.image_id, stem, json.dumps(job.file_metadata.image))
            statement = "insert into images (uri, width, height, image_id, stem, entry) values (?, ?, ?, ?, ?, ?)"
            number = self._database.execute(statement, row).lastrowid
        else:
            number = known[0]
        self._database.executemany(
            "insert into masks (image, rank, category, label, mask) values (?, ?, ?, ?, ?)",
            [
                (
                    number,
                    mask.rank_score,
                    _category(mask.upstream.get("category_id")),
                    mask.label,
                    mask.model_dump_json(),
                )
                for mask in job.masks
            ],
        )
        self._rows += len(job.masks)
        self.batches |= {mask.batch_id for mask in job.masks if mask.batch_id is not None}
        self.licenses |= {entry["id"]: entry for entry in job.file_metadata.licenses if isinstance(entry["id"], int)}
        self._categories |= {
            (id_key(entry["id"]), str(entry.get("name"))): entry for entry in job.file_metadata.categories
        }

    def _leave_out_displaced(self) -> Counter[str]:
        """Leave out copies and parts, or wholes, image by image; return how many by the rule."""
        counts: Counter[str] = Counter()
        query = f"select image, sequence, mask from masks where rank is not null order by image, {_BEST_FIRST}"
        for _, rows in groupby(self._database.execute(query), key=itemgetter(0)):
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
                self._database.execute("insert into left_out values (?)", (gone,))
            entries = [(sequence, json.dumps(found, separators=(",", ":"))) for sequence, found in displaced.items()]
            self._database.executemany("insert into displaced values (?, ?)", entries)
        self._rows -= self._database.execute(
            "delete from masks where sequence in (select sequence from left_out)"
        ).rowcount
        return counts

    def _keep_best(self, top: int) -> int:
        return self._delete(
            f"sequence not in (select sequence from masks order by {_BEST_FIRST} limit ?)",
            top,
        )

    def _delete(self, condition: str, value: int) -> int:
        deleted = self._database.execute(f"delete from masks where {condition}", (value,)).rowcount
        self._rows -= deleted
        return deleted


@contextmanager
def open_mask_buffer(selection: Selection) -> Iterator[MaskBuffer]:
    """Create a buffer in a temporary folder (``TMPDIR``), and remove it in the end.

    Raises :class:`~maskscore.errors.OutputError` when the folder is full.
    """
    try:
        with (
            TemporaryDirectory(prefix="maskscore-export-") as folder,
            closing(sqlite3.connect(Path(folder) / "masks.sqlite", isolation_level=None)) as database,
        ):
            database.executescript(_TABLES)
            yield MaskBuffer(database, selection)
    except sqlite3.OperationalError as error:
        raise OutputError(
            f"The masks cannot be kept in the temporary folder: {error}. Set TMPDIR to a folder with more room."
        ) from error


def _category(value: Any) -> int | None:
    number = plain_id(value)
    return number if isinstance(number, int) and abs(number) < 1 << 63 else None
