"""Judgements from files: CSV and Parquet, COCO, an export of Label Studio, and what a report's page saves."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json

from maskscore.errors import InvalidDocumentError
from maskscore.review import Judgement, judgements_in
from maskscore.schema import plain_id

__all__ = ["read_judged"]

_YES: Final = frozenset({"1", "true", "yes", "keep", "1.0"})
_NO: Final = frozenset({"0", "false", "no", "drop", "0.0"})
_COLUMNS: Final = (
    "It needs the columns `image`, `mask_id`, and `keep` (1 or 0, true or false, keep or drop) or `class`; `part` and "
    "`random` may be there."
)


def read_judged(path: Path) -> list[Judgement]:
    """Read the judgements of a file; its ending and its content say what it is.

    ``.csv`` and ``.parquet`` have the columns ``image``, ``mask_id``, and ``keep`` or ``class``; rows in which both are
    empty are not judged. JSON is COCO (annotations have ``keep``, or the categories ``keep`` and ``drop``, or classes
    as categories; the mask is ``mask_id``, else ``id``), Label Studio's export of a review, or the file that a report's
    page saves. Parquet needs ``maskscore[export]``.

    Raises :class:`~maskscore.errors.InvalidDocumentError` for a file that cannot be read or says something else.
    """
    if path.suffix.lower() in (".csv", ".parquet"):
        rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _parquet_rows(path)
        return [one for number, row in rows if (one := _of_row(row, f"{path}: row {number}")) is not None]
    try:
        document = from_json(path.read_bytes())
    except OSError as error:
        raise InvalidDocumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise InvalidDocumentError(f"{path} is not JSON, and its name does not end in .csv or .parquet.") from error
    if isinstance(document, dict) and "annotations" in document and "images" in document:
        return list(_of_coco(document, path))
    return list(judgements_in(document, path))


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(reader.fieldnames or (), path)
            yield from enumerate(reader, 2)
    except OSError as error:
        raise InvalidDocumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidDocumentError(f"{path} is not CSV in UTF-8: {error}.") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _check_columns(file.schema_arrow.names, path)
        wanted = [name for name in file.schema_arrow.names if name in _READ]
        rows = file.read(columns=wanted).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InvalidDocumentError(f"{path} cannot be read as Parquet: {str(error)[:300]}.") from error
    yield from enumerate(rows, 1)


_READ: Final = ("image", "mask_id", "keep", "class", "part", "random")


def _check_columns(names: Iterable[str], path: Path) -> None:
    there = set(names)
    if not {"image", "mask_id"} <= there or not there & {"keep", "class"}:
        raise InvalidDocumentError(f"{path} has the columns {', '.join(sorted(there))[:300] or 'none'}. {_COLUMNS}")


def _of_row(row: Mapping[str, Any], where: str) -> Judgement | None:
    image, mask_id, part = (row.get(name) for name in ("image", "mask_id", "part"))
    keep, name = row.get("keep"), row.get("class")
    if keep in (None, "") and name in (None, ""):
        return None
    if image in (None, "") or mask_id in (None, ""):
        raise InvalidDocumentError(f"{where} has no image or no mask_id. {_COLUMNS}")
    number = None if part in (None, "") else plain_id(part)
    if number is not None and not isinstance(number, int):
        raise InvalidDocumentError(f"{where}: the part {part!r:.60} is not a number.")
    return Judgement(
        str(image),
        _id_text(mask_id),
        number,
        keep=None if keep in (None, "") else _truth(keep, "keep", where),
        class_name=None if name in (None, "") else str(name),
        random=row.get("random") not in (None, "") and _truth(row["random"], "random", where),
    )


def _truth(value: Any, column: str, where: str) -> bool:
    text = str(value).strip().lower()
    if text not in _YES and text not in _NO:
        raise InvalidDocumentError(f"{where}: `{column}` is {value!r:.60}; write 1 or 0, true or false, keep or drop.")
    return text in _YES


def _id_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _of_coco(document: Mapping[str, Any], path: Path) -> Iterator[Judgement]:
    try:
        images = {str(entry["id"]): str(entry["file_name"]) for entry in document["images"]}
        names = {str(entry["id"]): str(entry["name"]) for entry in document.get("categories") or ()}
        annotations = [
            (
                images[str(entry["image_id"])],
                _id_text(entry.get("mask_id", entry.get("id"))),
                entry.get("part"),
                entry.get("keep"),
                names.get(str(entry.get("category_id"))),
                entry.get("random"),
            )
            for entry in document["annotations"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidDocumentError(
            f"{path} is not COCO: an image, category or annotation lacks {error}, or refers to what is not there."
        ) from error
    for number, (image, mask_id, part, keep, name, random) in enumerate(annotations):
        if keep is None and name is not None and name.lower() in ("keep", "drop"):
            keep, name = name.lower(), None
        row = {"image": image, "mask_id": mask_id, "part": part, "keep": keep, "class": name, "random": random}
        judgement = _of_row(row, f"{path}: annotation {number}")
        if judgement is not None:
            yield judgement
