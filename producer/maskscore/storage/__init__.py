"""Objects by URI, ``s3://bucket/key`` and ``file:///path``: what is allowed, below a size, with errors to act on."""

from __future__ import annotations

from maskscore.storage.failures import What
from maskscore.storage.names import file_name_of, path_in
from maskscore.storage.output import (
    Output,
    OutputError,
    check_output,
    output_errors,
    output_file,
    output_folder,
    write_text,
)
from maskscore.storage.results import StoredResult, load_result, load_result_or_error, store_result
from maskscore.storage.s3_clients import (
    S3_ERRORS,
    S3_UNREACHABLE,
    S3Refusal,
    credentials_source,
    private_s3_client,
    s3_client,
)
from maskscore.storage.store import FetchedObject, ListedObject, Objects

__all__ = [
    "S3_ERRORS",
    "S3_UNREACHABLE",
    "FetchedObject",
    "ListedObject",
    "Objects",
    "Output",
    "OutputError",
    "S3Refusal",
    "StoredResult",
    "What",
    "check_output",
    "credentials_source",
    "file_name_of",
    "load_result",
    "load_result_or_error",
    "output_errors",
    "output_file",
    "output_folder",
    "path_in",
    "private_s3_client",
    "s3_client",
    "store_result",
    "write_text",
]
