"""Outcomes of images → the two tables of a part, with typed columns."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from maskscore.parts.image_outcome import ImageOutcome
from maskscore.parts.upstream_columns import UpstreamColumns
from maskscore.schema import Component, ShardCounts

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DICTIONARIES", "PARTS_VERSION", "PartTables", "outcome_tables", "part_tables", "shard_counts"]

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
_BOX: Final = ("box_x", "box_y", "box_width", "box_height")


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
    digest: str | None = None,
) -> PartTables:
    """Return the tables of at least one image; ``first_position`` is the first one's row in its shard, from 0.

    ``dimensions`` D: ``masks`` has a column ``embedding`` of D float16; without it, there is none. ``views`` is the
    view of the shard's options as text, with its numbers; parts with equal ``digest`` are of one document and one
    version of its source. Raises ValueError for outcomes of several shards.
    """
    shards = {outcome.result.job_id for outcome in outcomes}
    if len(shards) != 1:
        raise ValueError(f"a part is of one shard, not of {len(shards)}")
    (shard,) = shards
    about: dict[str, Any] = {"version": PARTS_VERSION, "shard": shard, **({"digest": digest} if digest else {})}
    models = (outcome.result for outcome in outcomes if outcome.result.model is not None)
    if (first := next(models, None)) is not None:
        about["scoring"] = {
            "model": first.model.model_dump(mode="json") if first.model else None,
            "prompts": first.prompts.model_dump(mode="json") if first.prompts else None,
            "views": views or first.views_text,
        }
    masks, images = outcome_tables(outcomes, first_position=first_position, dimensions=dimensions)
    masks, images = (
        table.replace_schema_metadata({"maskscore": json.dumps({**about, "table": name})})
        for name, table in (("masks", masks), ("images", images))
    )
    return PartTables(masks, images, shard_counts(outcomes))


def outcome_tables(
    outcomes: Sequence[ImageOutcome], *, first_position: int, dimensions: int | None = None
) -> tuple[pa.Table, pa.Table]:
    """Return ``masks`` and ``images`` of images of any jobs, with the columns that parts have.

    ``first_position`` and ``dimensions`` are those of :func:`part_tables`.
    """
    import pyarrow as pa

    image_rows = [_image_row(position, outcome) for position, outcome in enumerate(outcomes, first_position)]
    images = _columns({name: [row.get(name) for row in image_rows] for name in _IMAGES}, _IMAGES)
    return pa.table(_mask_columns(outcomes, first_position, dimensions)), pa.table(images)


def shard_counts(outcomes: Sequence[ImageOutcome]) -> ShardCounts:
    """Return what the tables of these images count."""
    return ShardCounts(
        images=len(outcomes),
        failed=sum(outcome.result.state != "succeeded" for outcome in outcomes),
        masks=sum(len(outcome.result.components) for outcome in outcomes),
        skipped=sum(_skipped_rows(outcome) for outcome in outcomes),
    )


def _skipped_rows(outcome: ImageOutcome) -> int:
    return sum(component.skipped is not None for component in outcome.result.components)


def _columns(values: dict[str, list[Any]], kinds: dict[str, str]) -> dict[str, pa.Array]:
    import pyarrow as pa

    structs = {
        "top_k": pa.list_(pa.struct([("text", pa.string()), ("group", pa.string()), ("score", pa.float64())])),
        "warnings": pa.list_(pa.struct([("code", pa.string()), ("message", pa.string())])),
    }
    return {
        name: pa.array(values[name], structs[kind] if kind in structs else pa.type_for_alias(kind))
        for name, kind in kinds.items()
    }


def _mask_columns(outcomes: Sequence[ImageOutcome], first_position: int, dimensions: int | None) -> dict[str, pa.Array]:
    """Return the columns of ``masks``: column by column, since a part has a hundred thousand rows."""
    import pyarrow as pa

    images = [_common(position, outcome) for position, outcome in enumerate(outcomes, first_position)]
    components = [component for outcome in outcomes for component in outcome.result.components]
    segmentations = [segmentation for outcome in outcomes for segmentation in outcome.segmentations]
    owners = [number for number, outcome in enumerate(outcomes) for _ in outcome.result.components]
    values = _own(components, segmentations)
    heads = [None if o.result.head is None else f"{o.result.head.name}@{o.result.head.digest}" for o in outcomes]
    values["head"] = [
        heads[owner] if component.keep is not None else None
        for owner, component in zip(owners, components, strict=True)
    ]
    upstream, fields = UpstreamColumns(), [component.upstream for component in components]
    for own in fields:
        upstream.see(own)
    of_tools, others = upstream.columns(fields)
    values["upstream"] = [to_json(other) if other else None for other in others]
    values |= {f"upstream_{name}": column for name, column in of_tools.items()}
    kinds = {"boolean": "bool", "integer": "int64", "number": "double", "text": "string"}
    typed = {f"upstream_{name}": kinds[kind] for name, kind in sorted(upstream.kinds.items())}
    common = {name: kind for name, kind in _MASKS.items() if name not in values}
    repeated = _columns({name: [image[name] for image in images] for name in common}, common)
    columns = _columns(values, {name: kind for name, kind in {**_MASKS, **typed}.items() if name in values})
    columns |= {name: column.take(pa.array(owners, "int64")) for name, column in repeated.items()}
    ordered = {name: columns[name] for name in (*_MASKS, *typed)}
    return ordered if dimensions is None else {**ordered, "embedding": _embeddings(components, dimensions)}


def _common(position: int, outcome: ImageOutcome) -> dict[str, Any]:
    """Return what all masks of an image have in common."""
    result, image = outcome.result, outcome.result.image
    return {
        "position": position,
        "image": outcome.image,
        "image_width": image.width if image else None,
        "image_height": image.height if image else None,
        "job_id": result.job_id,
        "batch_id": result.batch_id,
        "method": result.method,
        "treatment": result.treatment,
        "views": result.views_text,
        "prompts_digest": result.prompts.digest if result.prompts else None,
        "weights_digest": result.model.weights_digest if result.model else None,
    }


def _own(components: Sequence[Component], segmentations: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the columns that are each mask's own."""
    if len(components) != len(segmentations):
        raise ValueError(f"there are {len(components)} components, and {len(segmentations)} segmentations")
    boxes = [component.box or (None,) * 4 for component in components]
    return {
        **{name: list(map(attrgetter(name), components)) for name in Component.model_fields if name in _MASKS},
        "mask_id": [component.id for component in components],
        "mask_index": [component.index for component in components],
        **{name: [box[place] for box in boxes] for place, name in enumerate(_BOX)},
        "skipped": [component.skipped.code if component.skipped else None for component in components],
        "top_k": [
            None if component.top_k is None else [prompt.model_dump() for prompt in component.top_k]
            for component in components
        ],
        "segmentation": [None if found is None else to_json(found) for found in segmentations],
    }


def _embeddings(components: Sequence[Component], dimensions: int) -> pa.FixedSizeListArray:
    import numpy as np
    import pyarrow as pa

    vectors = np.zeros((len(components), dimensions), "<f2")
    absent = np.ones(len(components), bool)
    for number, component in enumerate(components):
        if component.embedding is not None:
            vectors[number] = np.frombuffer(base64.b64decode(component.embedding), "<f2")
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
        "skipped_rows": _skipped_rows(outcome),
        "warnings": [notice.model_dump() for notice in result.warnings],
    }
    if image is not None:
        row |= {"image_width": image.width, "image_height": image.height, "format": image.format}
        row |= {"exif_orientation": image.exif_orientation, "orientation_applied": image.orientation_applied}
    return row
