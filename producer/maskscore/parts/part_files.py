"""The two files of a part: their names, and how they are written."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from maskscore.errors import FailureCode, JobError, OutputError
from maskscore.parts.table_building import DICTIONARIES, PartTables
from maskscore.storage import Objects, output_errors, output_file

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PartNames", "part_names", "write_part"]

_ROW_GROUP: Final = 32_768
_CONTENT_TYPE: Final = "application/vnd.apache.parquet"


class PartNames(NamedTuple):
    """Paths of a part's files below the output."""

    masks: str
    images: str


def part_names(shard: str, number: int) -> PartNames:
    """Return the names of part ``number``, from 0, of the shard of this name (:attr:`maskscore.schema.Shard.name`)."""
    return PartNames(*(f"{table}/{shard}-{number:05d}.parquet" for table in ("masks", "images")))


def write_part(tables: PartTables, names: PartNames, output: str | Path, objects: Objects | None = None) -> None:
    """Write a part's files below ``s3://bucket/prefix/`` or a folder; each appears whole, ``images`` last.

    A file of the same shard is replaced, so that a part that was written and not committed is written again. Raises
    :class:`~maskscore.errors.JobError` as :meth:`maskscore.storage.Objects.write_new` does, with ``result_exists`` for
    a file of another shard; for a folder, :class:`~maskscore.errors.OutputError` for both.
    """
    for name, table in zip(names, (tables.masks, tables.images), strict=True):
        data = _parquet(table)
        shard = json.loads(table.schema.metadata[b"maskscore"])["shard"]
        if isinstance(output, str) and output.startswith("s3://"):
            if objects is None:
                raise ValueError("an output in S3 needs `objects`")
            uri = f"{output.rstrip('/')}/{name}"
            check = partial(_check, uri, shard)
            objects.write_new(uri, data, content_type=_CONTENT_TYPE, replaces=check)
            continue
        path = Path(output) / name
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            try:
                _check(str(path), shard, path.read_bytes())
            except JobError as error:
                raise OutputError(error.message) from error
        with output_file(path) as part:
            part.write_bytes(data)


def _parquet(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name in DICTIONARIES],
        write_page_index=True,
    )
    return sink.getvalue()


def _check(place: str, shard: str, found: bytes) -> None:
    """Raise ``result_exists`` where ``found`` is something else than a part of the shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    whose = None
    try:
        metadata = pq.read_schema(pa.BufferReader(found)).metadata or {}
        whose = json.loads(metadata[b"maskscore"])["shard"]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        pass
    if whose != shard:
        there = f"a part of the shard {whose}" if whose else "something that is no part"
        raise JobError(
            FailureCode.RESULT_EXISTS,
            f"{place} holds {there}, which is not overwritten. Give shards that have one output different names, or "
            "another output.",
        )
