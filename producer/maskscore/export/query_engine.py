"""DuckDB with a temporary file and bounded memory. Needs ``maskscore[export]`` (duckdb and pyarrow)."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from maskscore.storage import OutputError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = [
    "constant_columns",
    "copy_to_parquet",
    "create_function",
    "create_view_of_files",
    "open_query_engine",
    "quoted",
    "quoted_text",
    "record_batches",
]

_MEMORY_LIMIT: Final = "1400MB"
# As parts have: some 30 MB of masks with their segmentations.
_ROW_GROUP: Final = 32_768
_PROGRESS_EVERY_S: Final = 0.2


@contextmanager
def open_query_engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in a temporary folder (``TMPDIR``), and remove it in the end.

    Tables and what a query sorts are kept there where they take more than 1.4 GB of memory; no extension is loaded from
    elsewhere. Raises ModuleNotFoundError where DuckDB is not installed, and
    :class:`~maskscore.errors.OutputError` when the folder is full.
    """
    import duckdb

    with TemporaryDirectory(prefix="maskscore-export-") as folder:
        configuration: dict[str, Any] = {
            "memory_limit": _MEMORY_LIMIT,
            "temp_directory": str(Path(folder) / "sorting"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            with duckdb.connect(str(Path(folder) / "masks.duckdb"), config=configuration) as database:
                # The progress is kept, and not drawn, which would be between other output.
                database.execute("set enable_progress_bar = true; set enable_progress_bar_print = false")
                yield database
        except duckdb.OutOfMemoryException as error:
            reason = str(error).partition("\n")[0]
            raise OutputError(
                f"The masks cannot be sorted: {reason}. It takes {_MEMORY_LIMIT} of memory, and room in the temporary "
                "folder: set TMPDIR to a folder with more room, or filter more."
            ) from error
        except duckdb.IOException as error:
            raise OutputError(
                f"The masks cannot be kept in the temporary folder: {error}. Set TMPDIR to a folder with more room."
            ) from error


def create_view_of_files(
    database: duckdb.DuckDBPyConnection,
    name: str,
    files: Sequence[str],
    schema: pa.Schema,
    constants: Mapping[str, str] | None = None,
) -> None:
    """Create a view of local Parquet files with the columns of ``schema``; a file may lack some, or have other types.

    ``constants`` are those of :func:`constant_columns`, which are not read. DuckDB's own union of the columns of many
    files keeps up to a quarter of a megabyte of each one; this does not.
    """
    kinds = dict(zip(schema.names, map(str, database.from_arrow(schema.empty_table()).types), strict=True))
    read = ", ".join(
        f"{quoted_text(column)}: {{name: {quoted_text(column)}, type: {quoted_text(kind)}, default_value: null}}"
        for column, kind in kinds.items()
    )
    replaced = ", ".join(f"{value} as {quoted(column)}" for column, value in (constants or {}).items())
    database.execute(
        f"create view {name} as select * {f'replace ({replaced})' if replaced else ''} "
        f"from read_parquet([{_listed(files)}], schema = map {{{read}}})"
    )


def constant_columns(database: duckdb.DuckDBPyConnection, files: Sequence[str], schema: pa.Schema) -> dict[str, str]:
    """Return the columns that have one value in all rows of local Parquet files, with that value as SQL writes it.

    The statistics in the files say so. Left out are lists and structures, of which they say too little, and floats that
    are not all null: NaN is not in their statistics.
    """
    import pyarrow as pa

    kinds = dict(zip(schema.names, database.from_arrow(schema.empty_table()).types, strict=True))
    exact = (pa.string(), pa.int32(), pa.int64(), pa.bool_())
    # A column that some file lacks has fewer rows in the metadata than others, and nulls for its rows. Values are texts
    # there, of numbers too ('500' comes after '1000'): they are compared for equality alone.
    query = (
        "select path_in_schema, sum(stats_null_count) = sum(num_values), min(stats_min_value), "
        "min(stats_min_value) = max(stats_min_value) and count_if(stats_min_value = stats_max_value "
        "and stats_null_count = 0 and min_is_exact and max_is_exact) = max(count(*)) over () "
        f"from parquet_metadata([{_listed(files)}]) group by path_in_schema having count(*) = count(stats_null_count)"
    )
    found = {}
    for name, all_null, value, all_same in database.execute(query).fetchall():
        if name in schema.names and (all_null or (all_same and schema.field(name).type in exact)):
            found[name] = f"{'null' if all_null else quoted_text(value)}::{kinds[name]}"
    return found


def record_batches(database: duckdb.DuckDBPyConnection, query: str, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the answer of a query in batches of up to ``rows`` rows, as they come.

    Other queries may run on ``database`` meanwhile.
    """
    yield from database.cursor().sql(query).to_arrow_reader(rows)


def copy_to_parquet(
    database: duckdb.DuckDBPyConnection,
    query: str,
    path: Path,
    schema: pa.Schema,
    *,
    progress: Callable[[float], None],
) -> int:
    """Write the answer of a query as Parquet with the types and metadata of ``schema``; return the number of rows.

    The query has the schema's columns, by name. ``progress`` is called with the share that is done, 0 to 1. DuckDB
    encodes the columns by all its threads, and nothing of them passes through Python.
    """
    kinds = database.from_arrow(schema.empty_table()).types
    columns = ", ".join(
        f"cast({name} as {kind}) as {name}" for name, kind in zip(map(quoted, schema.names), kinds, strict=True)
    )
    # Arrow reads the descriptions of columns from here, as from files that it has written.
    described = {"ARROW:schema": base64.b64encode(schema.serialize().to_pybytes()).decode()}
    described |= {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    metadata = ", ".join(f"{quoted_text(key)}: {quoted_text(value)}" for key, value in described.items())
    options = f"format parquet, compression zstd, row_group_size {_ROW_GROUP}, kv_metadata {{{metadata}}}"
    done = threading.Event()

    def show() -> None:
        while not done.wait(_PROGRESS_EVERY_S):
            progress(max(0.0, database.query_progress()) / 100)

    shown = threading.Thread(target=show, daemon=True)
    shown.start()
    try:
        copied = f"copy (select {columns} from ({query})) to {quoted_text(str(path))} ({options})"
        ((rows,),) = database.execute(copied).fetchall()
    finally:
        done.set()
        shown.join()
    progress(1.0)
    return int(rows)


def create_function(
    database: duckdb.DuckDBPyConnection,
    name: str,
    function: Callable[[pa.Array | pa.ChunkedArray], pa.Array],
    parameter: str,
    result: str,
) -> None:
    """Make a function of one column of Arrow known to a database; it is given nulls, too."""
    from duckdb.func import ARROW, SPECIAL

    # DuckDB evaluates annotations, which name what is imported for type checkers alone: a lambda has none.
    plain = lambda column: function(column)  # noqa: E731
    database.create_function(name, plain, [parameter], result, type=ARROW, null_handling=SPECIAL)


def _listed(files: Sequence[str]) -> str:
    # DuckDB takes a name for a pattern, which could mean other files.
    return ", ".join(quoted_text(re.sub(r"([*?[])", r"[\1]", file)) for file in files)


def quoted(name: str) -> str:
    """Return a column's name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(value: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"
