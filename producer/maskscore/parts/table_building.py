"""Outcomes of images → the two tables of a part, with typed columns."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from maskscore.parts.image_outcome import ImageOutcome
from maskscore.parts.upstream_columns import UpstreamColumns
from maskscore.schema import Component, ShardCounts

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DICTIONARIES", "PARTS_VERSION", "PartTables", "part_tables"]

PARTS_VERSION: Final = 1
"""Raised when a column changes its name, type or meaning; new columns do not raise it."""

DICTIONARIES: Final = (
    *("image", "masks", "job_id", "batch_id", "state", "code", "format", "etag", "skipped", "method", "treatment"),
    *("views", "prompts_digest", "weights_digest", "head", "head_class", "s_pos_text", "s_neg_text"),
    *("image_width", "image_height", "semantic_multiplier", "position", "exif_orientation"),
)
"""Columns of few values, which Parquet keeps as dictionaries."""

_MASKS: Final = {
    "position": "int64",
    "image": "string",
    "image_width": "int32",
    "image_height": "int32",
    "job_id": "string",
    "batch_id": "string",
    "mask_id": "string",
    "mask_index": "int32",
    "part": "int32",
    "box_x": "int32",
    "box_y": "int32",
    "box_width": "int32",
    "box_height": "int32",
    "area": "int64",
    "semantic_multiplier": "double",
    "s_pos": "double",
    "s_neg": "double",
    "s_pos_text": "string",
    "s_neg_text": "string",
    "p_pos_sum": "double",
    "p_neg_sum": "double",
    "p_keep": "double",
    "keep": "bool",
    "head_class": "string",
    "head": "string",
    "skipped": "string",
    "method": "string",
    "treatment": "string",
    "views": "string",
    "prompts_digest": "string",
    "weights_digest": "string",
    "top_k": "top_k",
    "segmentation": "string",
    "upstream": "string",
}
_IMAGES: Final = {
    "image": "string",
    "masks": "string",
    "position": "int64",
    "job_id": "string",
    "batch_id": "string",
    "state": "string",
    "code": "string",
    "message": "string",
    "image_width": "int32",
    "image_height": "int32",
    "format": "string",
    "etag": "string",
    "exif_orientation": "int32",
    "orientation_applied": "bool",
    "image_offset": "int64",
    "image_bytes": "int64",
    "mask_rows": "int32",
    "skipped_rows": "int32",
    "warnings": "warnings",
}


@dataclass(frozen=True, slots=True)
class PartTables:
    """The tables of a part, and what they count."""

    masks: pa.Table
    images: pa.Table
    counts: ShardCounts


def part_tables(
    outcomes: Sequence[ImageOutcome],
    *,
    first_position: int,
    dimensions: int | None = None,
    views: str | None = None,
) -> PartTables:
    """Return the tables of at least one image; ``first_position`` is the first one's row in its shard, from 0.

    ``dimensions`` D: ``masks`` has a column ``embedding`` of D float16; without it, there is none. ``views`` is the
    view of the shard's options as text, with its numbers. Raises ValueError for outcomes of several shards.
    """
    shards = {outcome.result.job_id for outcome in outcomes}
    if len(shards) != 1:
        raise ValueError(f"a part is of one shard, not of {len(shards)}")
    upstream = UpstreamColumns()
    for outcome in outcomes:
        for component in outcome.result.components:
            upstream.see(component.upstream)
    mask_rows = [
        row
        for position, outcome in enumerate(outcomes, first_position)
        for row in _mask_rows(position, outcome, upstream)
    ]
    image_rows = [_image_row(position, outcome) for position, outcome in enumerate(outcomes, first_position)]
    kinds = {"boolean": "bool", "integer": "int64", "number": "double", "text": "string"}
    typed = {f"upstream_{name}": kinds[kind] for name, kind in sorted(upstream.kinds.items())}
    (shard,) = shards
    counts = ShardCounts(
        images=len(image_rows),
        failed=sum(row["state"] != "succeeded" for row in image_rows),
        masks=len(mask_rows),
        skipped=sum(row["skipped_rows"] for row in image_rows),
    )
    about: dict[str, Any] = {"version": PARTS_VERSION, "shard": shard}
    models = (outcome.result for outcome in outcomes if outcome.result.model is not None)
    if (first := next(models, None)) is not None:
        about["scoring"] = {
            "model": first.model.model_dump(mode="json") if first.model else None,
            "prompts": first.prompts.model_dump(mode="json") if first.prompts else None,
            "views": views or first.views_text,
        }
    masks = _table(mask_rows, {**_MASKS, **typed}, {**about, "table": "masks"})
    if dimensions is not None:
        masks = masks.append_column("embedding", _embeddings(mask_rows, dimensions))
    return PartTables(masks, _table(image_rows, _IMAGES, {**about, "table": "images"}), counts)


def _table(rows: Sequence[dict[str, Any]], columns: dict[str, str], about: dict[str, Any]) -> pa.Table:
    import pyarrow as pa

    structs = {
        "top_k": pa.list_(pa.struct([("text", pa.string()), ("group", pa.string()), ("score", pa.float64())])),
        "warnings": pa.list_(pa.struct([("code", pa.string()), ("message", pa.string())])),
    }
    fields = [(name, structs[kind] if kind in structs else pa.type_for_alias(kind)) for name, kind in columns.items()]
    values: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        for name in columns:
            values[name].append(row.get(name))
    schema = pa.schema(fields, metadata={"maskscore": json.dumps(about)})
    return pa.table([pa.array(values[name], kind) for name, kind in fields], schema=schema)


def _mask_rows(position: int, outcome: ImageOutcome, upstream: UpstreamColumns) -> Iterator[dict[str, Any]]:
    result = outcome.result
    image = result.image
    if image is None:
        return
    head = f"{result.head.name}@{result.head.digest}" if result.head else None
    common = {
        "position": position,
        "image": outcome.image,
        "image_width": image.width,
        "image_height": image.height,
        "job_id": result.job_id,
        "batch_id": result.batch_id,
        "method": result.method,
        "treatment": result.treatment,
        "views": result.views_text,
        "prompts_digest": result.prompts.digest if result.prompts else None,
        "weights_digest": result.model.weights_digest if result.model else None,
    }
    for component, segmentation in zip(result.components, outcome.segmentations, strict=True):
        yield common | _own(component, segmentation, upstream) | {"head": head if component.keep is not None else None}


def _own(component: Component, segmentation: Any, upstream: UpstreamColumns) -> dict[str, Any]:
    typed, rest = upstream.split(component.upstream)
    box = (None,) * 4 if component.box is None else component.box
    return {
        **{name: getattr(component, name) for name in Component.model_fields if name in _MASKS},
        "mask_id": component.id,
        "mask_index": component.index,
        **dict(zip(("box_x", "box_y", "box_width", "box_height"), box, strict=True)),
        "skipped": component.skipped.code if component.skipped else None,
        "top_k": None if component.top_k is None else [prompt.model_dump() for prompt in component.top_k],
        "segmentation": None if segmentation is None else json.dumps(segmentation, separators=(",", ":")),
        "embedding": component.embedding,
        **{f"upstream_{name}": value for name, value in typed.items()},
        "upstream": json.dumps(rest) if rest else None,
    }


def _embeddings(rows: Sequence[dict[str, Any]], dimensions: int) -> pa.FixedSizeListArray:
    import numpy as np
    import pyarrow as pa

    vectors = np.zeros((len(rows), dimensions), "<f2")
    absent = np.ones(len(rows), bool)
    for number, row in enumerate(rows):
        if row["embedding"] is not None:
            vectors[number] = np.frombuffer(base64.b64decode(row["embedding"]), "<f2")
            absent[number] = False
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimensions, mask=pa.array(absent))


def _image_row(position: int, outcome: ImageOutcome) -> dict[str, Any]:
    result, image = outcome.result, outcome.result.image
    row = {
        "image": outcome.image,
        "masks": outcome.masks,
        "position": position,
        "job_id": result.job_id,
        "batch_id": result.batch_id,
        "state": str(result.state),
        "code": result.error.code if result.error else None,
        "message": result.error.message if result.error else None,
        "etag": outcome.etag,
        "image_offset": outcome.image_offset,
        "image_bytes": outcome.image_bytes,
        "mask_rows": len(result.components),
        "skipped_rows": sum(component.skipped is not None for component in result.components),
        "warnings": [notice.model_dump() for notice in result.warnings],
    }
    if image is not None:
        row |= {"image_width": image.width, "image_height": image.height, "format": image.format}
        row |= {"exif_orientation": image.exif_orientation, "orientation_applied": image.orientation_applied}
    return row
