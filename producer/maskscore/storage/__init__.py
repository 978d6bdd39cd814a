"""Objects in S3 and files by URI, results, and output files; S3's errors become failure codes here."""

from __future__ import annotations

from maskscore.storage.failures import ObjectRole
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
    arrow_s3_filesystem,
    credentials_source,
    private_s3_client,
    s3_client,
)
from maskscore.storage.store import FetchedObject, FetchedRange, ListedObject, Objects
from maskscore.storage.uris import file_name_of, object_path, path_of

__all__ = [
    "S3_ERRORS",
    "S3_UNREACHABLE",
    "FetchedObject",
    "FetchedRange",
    "ListedObject",
    "ObjectRole",
    "Objects",
    "Output",
    "OutputError",
    "S3Refusal",
    "StoredResult",
    "arrow_s3_filesystem",
    "check_output",
    "credentials_source",
    "file_name_of",
    "load_result",
    "load_result_or_error",
    "object_path",
    "output_errors",
    "output_file",
    "output_folder",
    "path_of",
    "private_s3_client",
    "s3_client",
    "store_result",
    "write_text",
]
