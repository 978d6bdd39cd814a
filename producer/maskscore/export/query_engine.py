"""DuckDB with a temporary file and bounded memory. Needs ``maskscore[export]`` (duckdb and pyarrow)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from maskscore.storage import OutputError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["open_query_engine", "record_batches"]

_MEMORY_LIMIT: Final = "1GB"


@contextmanager
def open_query_engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in a temporary folder (``TMPDIR``), and remove it in the end.

    Tables and what a query sorts are kept there where they take more than 1 GB of memory; no extension is loaded from
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
                # A bar of its own would be drawn between other output.
                database.execute("set enable_progress_bar = false")
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


def record_batches(database: duckdb.DuckDBPyConnection, query: str, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the answer of a query in batches of up to ``rows`` rows, as they come.

    Other queries may run on ``database`` meanwhile.
    """
    yield from database.cursor().sql(query).to_arrow_reader(rows)
