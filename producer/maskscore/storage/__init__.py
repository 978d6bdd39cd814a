"""Objects by URI, ``s3://bucket/key`` and ``file:///path``: what is allowed, below a size, with errors to act on."""

from __future__ import annotations

from maskscore.storage.failures import What
from maskscore.storage.names import (
    file_name_of,
    path_in,
)
from maskscore.storage.output import (
    Output,
    OutputError,
    check_output,
    output_errors,
    output_file,
    output_folder,
    write_text,
)
from maskscore.storage.results import (
    StoredResult,
    load_result,
    store_result,
)
from maskscore.storage.store import FetchedObject, ListedObject, Objects

__all__ = [
    "FetchedObject",
    "ListedObject",
    "Objects",
    "Output",
    "OutputError",
    "StoredResult",
    "What",
    "check_output",
    "file_name_of",
    "load_result",
    "output_errors",
    "output_file",
    "output_folder",
    "path_in",
    "store_result",
    "write_text",
]
