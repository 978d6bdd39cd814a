"""Parquet: a mask per row, with typed columns that say what they mean."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from maskscore.client import Batch, Client
from maskscore.export.buffered_masks import buffered_masks
from maskscore.export.export_counts import ExportCounts
from maskscore.export.exported_mask import DECISIONS, ExportedMask
from maskscore.export.mask_buffer import MaskBuffer
from maskscore.export.parts_source import Parts
from maskscore.export.selection import Selection
from maskscore.parts import UpstreamColumns
from maskscore.storage import Output, output_file

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_parquet"]

# Some 10 MB of masks with their segmentations.
_ROW_GROUP: Final = 8192
_BOX: Final = ("box_x", "box_y", "box_width", "box_height")
_ABOUT_BOX: Final = ("Left edge of the box, in pixels.", "Its upper edge.", "Its width.", "Its height.")
_INTEGERS: Final = ("image_width", "image_height", "mask_index", "part", *_BOX)
_FLOATS: Final = ("rank_score", "semantic_multiplier", "s_pos", "s_neg", "p_pos_sum", "p_neg_sum", "p_keep")


def write_parquet(
    client: Client,
    jobs: Batch | Parts | Iterable[str],
    output: Output,
    selection: Selection | None = None,
    *,
    segmentations: bool = True,
) -> ExportCounts:
    """Write one row per mask; :class:`~maskscore.export.ExportedMask`'s fields, typed, are the columns.

    ``box`` becomes four columns, and ``segmentation`` is JSON text. Each scalar field of the upstream tool has a column
    ``upstream_NAME``; the rest is JSON text in ``upstream``. Raises ModuleNotFoundError where pyarrow is not installed
    (``pip install "maskscore[export]"``), and as :func:`maskscore.export.write_jsonl` does.
    """
    import pyarrow  # noqa: F401 - to say so before anything is read

    place = output_file(output, client.objects, content_type="application/vnd.apache.parquet")
    selection = selection or Selection()
    if isinstance(jobs, Parts) and not selection.compares_masks:
        counts = ExportCounts()
        with place as path, jobs.selected(selection, counts, segmentations=segmentations) as parts:
            left_out = set(DECISIONS) - parts.decided
            parts.write_parquet(path, _schema(parts.upstream_kinds, selection, left_out=left_out))
        return counts
    options = {"segmentations": segmentations, "segmentation_required": False, "with_file_metadata": False}
    with buffered_masks(client, jobs, selection, place, **options) as (path, buffer, counts):
        _write(path, buffer)
    return counts


def _write(path: Path, buffer: MaskBuffer) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    upstream = UpstreamColumns()
    decided: set[str] = set()
    for mask in buffer.masks():
        fields = from_json(mask.json)
        upstream.see(fields["upstream"])
        decided.update(name for name in DECISIONS if name in fields)
    schema = _schema(upstream.kinds, buffer.selection, left_out=set(DECISIONS) - decided)
    rows = (_row(from_json(mask.json), upstream) for mask in buffer.masks())
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(rows, _ROW_GROUP)):
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema=schema), row_group_size=_ROW_GROUP)


def _schema(upstream: Mapping[str, str], selection: Selection, *, left_out: set[str]) -> pa.Schema:
    import pyarrow as pa

    fields = []
    for name, about in _described(selection):
        if name in left_out:
            continue
        if name in _INTEGERS:
            kind = pa.int32()
        elif name == "area":
            kind = pa.int64()
        elif name in _FLOATS:
            kind = pa.float64()
        elif name == "keep":
            kind = pa.bool_()
        elif name == "embedding":
            kind = pa.binary()
        elif name == "top_k":
            kind = pa.list_(pa.struct([("text", pa.string()), ("group", pa.string()), ("score", pa.float64())]))
        elif name == "displaced":
            displaced = [("job_id", pa.string()), ("mask_id", pa.string()), ("part", pa.int32())]
            kind = pa.list_(pa.struct([*displaced, ("rule", pa.string()), ("overlap", pa.float64())]))
        else:
            kind = pa.string()
        fields.append(pa.field(name, kind, metadata={"description": about} if about else None))
    kinds = {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64(), "text": pa.string()}
    for name, kind_name in upstream.items():
        about = f"The upstream tool's field {name}."
        fields.append(pa.field(f"upstream_{name}", kinds[kind_name], metadata={"description": about}))
    described = {field.name: field.metadata[b"description"].decode() for field in fields if field.metadata}
    return pa.schema(fields, metadata={"maskscore": json.dumps({"version": 1, "columns": described})})


def _described(selection: Selection) -> Iterator[tuple[str, str | None]]:
    asked = {"label": selection.labelling is not None, "displaced": selection.compares_masks}
    for name, field in ExportedMask.model_fields.items():
        if not asked.get(name, True):
            continue
        if name == "box":
            yield from zip(_BOX, _ABOUT_BOX, strict=True)
        elif name == "segmentation":
            yield name, f"{field.description} As JSON text."
        elif name == "upstream":
            yield name, f"{field.description} As JSON text: those that have no column of their own."
        else:
            yield name, field.description


def _row(mask: dict[str, Any], upstream: UpstreamColumns) -> dict[str, Any]:
    row = {name: value for name, value in mask.items() if name not in ("box", "segmentation", "upstream")}
    if mask["box"] is not None:
        row |= zip(_BOX, mask["box"], strict=True)
    if mask["segmentation"] is not None:
        row["segmentation"] = json.dumps(mask["segmentation"], separators=(",", ":"))
    if mask["embedding"] is not None:
        row["embedding"] = base64.b64decode(mask["embedding"])
    typed, rest = upstream.split(mask["upstream"])
    row |= {f"upstream_{name}": value for name, value in typed.items()}
    if rest:
        row["upstream"] = json.dumps(rest)
    return row
