"""The results of shards as tables of Arrow.

>>> from maskscore import results
>>> results.open("s3://scores/run-1/").to_table(columns=["image", "s_pos"])  # doctest: +SKIP
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maskscore.errors import ResultUnavailable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

__all__ = ["open"]

_THREADS = 16


def open(uri: str | Path, table: Literal["masks", "images"] = "masks") -> ds.Dataset:
    """Return a table of all parts below ``s3://bucket/prefix/`` or a folder, which reads them when it is asked.

    Columns are those of all parts together; a field of upstream tools whose type differs between parts has the type
    that holds both, at last text. S3 is reached with boto3's address and credentials. Raises
    :class:`~maskscore.errors.ResultUnavailable` where there are no parts or one is damaged, and ModuleNotFoundError
    where pyarrow is not installed (``pip install "maskscore[export]"``).
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow import fs

    place = str(uri)
    try:
        filesystem: Any
        if place.startswith("s3://"):
            from maskscore.storage import arrow_s3_filesystem

            filesystem, root = arrow_s3_filesystem(), place.removeprefix("s3://").rstrip("/")
        else:
            filesystem, root = fs.LocalFileSystem(), str(Path(place).absolute())
        listed = filesystem.get_file_info(fs.FileSelector(f"{root}/{table}", allow_not_found=True))
        paths = sorted(
            info.path for info in listed if info.path.endswith(".parquet") and not info.base_name.startswith((".", "_"))
        )
        if not paths:
            raise ResultUnavailable(f"There are no parts in {place.rstrip('/')}/{table}/.")
        parquet = ds.ParquetFileFormat()
        with ThreadPoolExecutor(_THREADS) as threads:
            schemas = list(threads.map(lambda path: parquet.inspect(path, filesystem), paths))
        return ds.dataset(paths, schema=_together(schemas), filesystem=filesystem, format=parquet)
    except (pa.ArrowException, OSError) as error:
        raise ResultUnavailable(f"The parts in {place} cannot be read: {error}.") from error


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
