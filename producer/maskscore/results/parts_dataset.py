"""A table of parts as a dataset of Arrow: that of a folder, or of some shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from maskscore.errors import ResultUnavailable
from maskscore.parts import CATEGORIES_FILE, part_names
from maskscore.schema import ShardOutcome
from maskscore.storage import path_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

__all__ = [
    "OpenedParts",
    "PartsPlace",
    "Table",
    "categories_of",
    "concatenated",
    "is_parts_folder",
    "open",
    "open_parts",
    "place_text",
]

PartsPlace = str | Path | Sequence[ShardOutcome]
"""Where parts are: all below ``s3://bucket/prefix/``, ``file:///folder/`` or a folder, or those of some shards."""

Table = Literal["masks", "images"]

_THREADS: Final = 16


@dataclass(frozen=True, slots=True)
class OpenedParts:
    """A table of parts.

    Parameters
    ----------
    scoring: by the shard's id and the weights' digest, how its masks were scored.
    schemas: of each file, by its path; their metadata has what the file says under ``maskscore``.
    """

    dataset: ds.Dataset
    scoring: dict[tuple[str, str], dict[str, Any]]
    schemas: dict[str, pa.Schema]


def is_parts_folder(name: str) -> bool:
    """Say whether a name is that of a folder of parts, in S3 or local, and not that of a batch or a job."""
    return "/" in name or any(Path(name, "masks").glob("*.parquet"))


def place_text(place: PartsPlace) -> str:
    """Return what messages call a place."""
    if isinstance(place, str | Path):
        return str(place)
    names = ", ".join(shard.name for shard in place[:3])
    return f"the shards {names}{', ...' if len(place) > 3 else ''}"


def open(place: PartsPlace, table: Table = "masks") -> ds.Dataset:
    """Return a table of all parts of a place, which reads them when it is asked.

    Columns are those of all parts together; a field of upstream tools whose type differs between parts has the type
    that holds both, at last text. S3 is reached with boto3's address and credentials. Raises
    :class:`~maskscore.errors.ResultUnavailable` where there are no parts, or one is damaged or gone, and
    ModuleNotFoundError where pyarrow is not installed (``pip install "maskscore[export]"``).
    """
    return open_parts(place, table).dataset


def open_parts(place: PartsPlace, table: Table) -> OpenedParts:
    """Return a table as :func:`open` does, with what the files say of all their rows."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    try:
        filesystem, paths = _files(place, table)
        parquet = ds.ParquetFileFormat()
        with ThreadPoolExecutor(_THREADS) as threads:
            schemas = list(threads.map(lambda path: parquet.inspect(path, filesystem), paths))
        dataset = ds.dataset(paths, schema=_together(schemas), filesystem=filesystem, format=parquet)
    except (pa.ArrowException, OSError) as error:
        raise ResultUnavailable(f"The parts in {place_text(place)} cannot be read: {error}.") from error
    scoring: dict[tuple[str, str], dict[str, Any]] = {}
    for schema in schemas:
        about = json.loads((schema.metadata or {}).get(b"maskscore", b"{}"))
        if "scoring" in about:
            scoring[about["shard"], about["scoring"]["model"]["weights_digest"]] = about["scoring"]
    return OpenedParts(dataset, scoring, dict(zip(paths, schemas, strict=True)))


def categories_of(place: PartsPlace) -> list[dict[str, Any]]:
    """Return the entries of COCO's categories that are kept with parts, each once; one id may have several names.

    Raises :class:`~maskscore.errors.ResultUnavailable` where the file that has them cannot be read.
    """
    import pyarrow as pa

    filesystem, roots = _roots(place)
    entries: dict[str, dict[str, Any]] = {}
    for root in dict.fromkeys(roots):
        path = f"{root}/{CATEGORIES_FILE}"
        try:
            with filesystem.open_input_stream(path) as stream:
                found = json.loads(stream.read())
        except FileNotFoundError:
            continue
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ResultUnavailable(f"The categories of parts, {path}, cannot be read: {error}.") from error
        entries |= {json.dumps(entry, sort_keys=True): entry for entry in found}
    return list(entries.values())


def _roots(place: PartsPlace) -> tuple[Any, list[str]]:
    """Return the file system that holds parts, and the folders of their places in it."""
    from pyarrow import fs

    places = [str(place)] if isinstance(place, str | Path) else [shard.output_uri for shard in place]
    filesystem: Any
    if places and places[0].startswith("s3://"):
        from maskscore.storage import arrow_s3_filesystem

        filesystem, roots = arrow_s3_filesystem(), [one.removeprefix("s3://").rstrip("/") for one in places]
    else:
        filesystem = fs.LocalFileSystem()
        roots = [str(path_of(one) if one.startswith("file:") else Path(one).absolute()) for one in places]
    return filesystem, roots


def _files(place: PartsPlace, table: Table) -> tuple[Any, list[str]]:
    """Return the file system that holds a table's files, and their paths in it."""
    from pyarrow import fs

    filesystem, roots = _roots(place)
    if not isinstance(place, str | Path):
        named = [
            f"{root}/{getattr(part_names(shard.name, number), table)}"
            for root, shard in zip(roots, place, strict=True)
            for number in range(shard.parts)
        ]
        if not named:
            raise ResultUnavailable("None of the shards has a part yet.")
        return filesystem, named

    def names(folder: str) -> set[str]:
        listed = filesystem.get_file_info(fs.FileSelector(f"{roots[0]}/{folder}", allow_not_found=True))
        found = {info.base_name for info in listed if info.base_name.endswith(".parquet")}
        return {name for name in found if not name.startswith((".", "_"))}

    found = names(table)
    if table == "masks":
        # The images of a part are written last: without them, it was not written to its end.
        found &= names("images") or found
    paths = [f"{roots[0]}/{table}/{name}" for name in sorted(found)]
    if not paths:
        raise ResultUnavailable(f"There are no parts in {str(place).rstrip('/')}/{table}/.")
    return filesystem, paths


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables one after the other, with the columns and types that :func:`open` gives those of parts."""
    import pyarrow as pa

    schema = _together([table.schema for table in tables])
    columns = (
        [table[f.name].cast(f.type) if f.name in table.schema.names else pa.nulls(len(table), f.type) for f in schema]
        for table in tables
    )
    return pa.concat_tables(pa.table(own, schema=schema) for own in columns)


def _together(schemas: list[pa.Schema]) -> pa.Schema:
    """Return the fields of all schemas, in the order of their first appearance, with types that hold those of all."""
    import pyarrow as pa

    fields: dict[str, Any] = {}
    for field in (field for schema in dict.fromkeys(schemas) for field in schema):
        known = fields.setdefault(field.name, field)
        if known.type == field.type:
            continue
        numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (known.type, field.type))
        fields[field.name] = pa.field(field.name, pa.float64() if numbers else pa.string())
    return pa.schema(list(fields.values()))
