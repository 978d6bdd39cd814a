"""The two files of a part: their names, and how they are written and removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from maskscore.errors import FailureCode, JobError, OutputError
from maskscore.parts.table_building import DICTIONARIES, PartTables
from maskscore.storage import Objects, output_errors, output_file

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CATEGORIES_FILE", "PartNames", "part_names", "remove_parts", "write_part"]

CATEGORIES_FILE: Final = "categories.json"
"""Where an output has the categories of the dataset files that its parts came from, as a list of COCO's entries."""

_ROW_GROUP: Final = 32_768
_CONTENT_TYPE: Final = "application/vnd.apache.parquet"


class PartNames(NamedTuple):
    """Paths of a part's files below the output."""

    masks: str
    images: str


def part_names(shard: str, number: int) -> PartNames:
    """Return the names of part ``number``, from 0, of the shard of this name (:attr:`maskscore.schema.Shard.name`)."""
    return PartNames(*(f"{table}/{shard}-{number:05d}.parquet" for table in ("masks", "images")))


def write_part(
    tables: PartTables,
    names: PartNames,
    output: str | Path,
    objects: Objects | None = None,
    *,
    replacing: Callable[[], None] = lambda: None,
) -> None:
    """Write a part's files below a URI or a folder's path; each appears whole, ``images`` last.

    A file of the same shard is replaced, so that a part that was written and not committed is written again.
    ``replacing`` is called before one is that has another digest (:func:`part_tables`): what follows it may be of
    another document, too. Raises :class:`~maskscore.errors.JobError` as :meth:`maskscore.storage.Objects.write_new`
    does, with ``result_exists`` for a file of another shard; for a folder, :class:`~maskscore.errors.OutputError` for
    both.
    """
    for name, table in zip(names, (tables.masks, tables.images), strict=True):
        data = _parquet(table)
        about = json.loads(table.schema.metadata[b"maskscore"])
        if isinstance(output, str) and "://" in output:
            if objects is None:
                raise ValueError("an output's URI needs `objects`")
            uri = f"{output.rstrip('/')}/{name}"
            check = partial(_check, uri, about, replacing)
            objects.write_new(uri, data, content_type=_CONTENT_TYPE, replaces=check)
            continue
        path = Path(output) / name
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            try:
                _check(str(path), about, replacing, path.read_bytes())
            except JobError as error:
                raise OutputError(error.message) from error
        with output_file(path) as part:
            part.write_bytes(data)


def remove_parts(shard: str, first: int, output: str, objects: Objects) -> None:
    """Remove the parts of the shard of this name from number ``first`` on, the last one first, below a URI.

    So none is overlooked later where this is interrupted. Raises :class:`~maskscore.errors.JobError` as
    :meth:`maskscore.storage.Objects.remove` does.
    """

    def uris(number: int) -> list[str]:
        return [f"{output.rstrip('/')}/{name}" for name in part_names(shard, number)]

    # The masks are written first.
    end = next(number for number in count(first) if not objects.exists(uris(number)[0], what="result"))
    for number in reversed(range(first, end)):
        for uri in reversed(uris(number)):
            objects.remove(uri)


def _parquet(table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Not a file of Python's, for each of whose some hundred small writes the interpreter's lock would be taken.
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name in DICTIONARIES],
        write_page_index=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _check(place: str, about: dict[str, Any], replacing: Callable[[], None], found: bytes) -> None:
    """Raise ``result_exists`` where ``found`` is something else than a part of the shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    whose, digest = None, None
    try:
        there = json.loads((pq.read_schema(pa.BufferReader(found)).metadata or {})[b"maskscore"])
        whose, digest = there["shard"], there.get("digest")
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    if whose == about["shard"]:
        if digest != about.get("digest"):
            replacing()
    else:
        what = f"a part of the shard {whose}" if whose else "something that is no part"
        raise JobError(
            FailureCode.RESULT_EXISTS,
            f"{place} holds {what}, which is not overwritten. Give shards that have one output different names, or "
            "another output.",
        )
