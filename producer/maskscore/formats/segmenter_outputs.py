"""Masks of what a segmenter has returned in this process. Needs NumPy, and nothing of the segmenters' own.

Tensors are taken as they are, on whichever device: what has ``detach``, ``cpu`` and ``numpy``, or what NumPy reads.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from maskscore.formats.masks_from_entries import with_polygon_size
from maskscore.formats.read_context import ReadContext
from maskscore.masks import encode_mask
from maskscore.schema import Mask, plain_id

__all__ = ["from_arrays", "from_detectron2", "from_sam", "from_ultralytics"]


def from_arrays(
    masks: Any,
    *,
    threshold: float | None = None,
    axis: Literal["first", "last"] = "first",
    fields: Sequence[Mapping[str, Any]] | None = None,
) -> list[Mask]:
    """Return the masks of a stack of arrays, called by their positions; or of a label map, called by its values.

    Parameters
    ----------
    masks: ``(N, H, W)`` or ``(N, 1, H, W)``, ``(H, W)`` for one mask, or a sequence of ``(H, W)``; with ``axis="last"``
        ``(H, W, N)``. Of booleans and integers what is not zero is inside. An ``(H, W)`` or ``(1, H, W)`` array of
        whole numbers, with -1 or with two and more values above 0, is a label map: each value is a mask, but for the
        background, which is -1 where there is one, and else 0 (``segmentation`` of transformers'
        ``post_process_*_segmentation``).
    threshold: of floats, what is greater is inside. ``None`` is 0.0, as SAM's ``mask_threshold`` for logits, and then
        refuses what can only be probabilities, all between 0 and 1, which want 0.5.
    fields: what each mask has in ``upstream``, such as ``{"predicted_iou": 0.9}``; an ``id`` in them is the mask's. For
        a label map they belong to the values that their ``id`` says (``segments_info`` of transformers), or to the
        values in rising order; those whose value has no pixel are left out, with a warning.

    Raises ValueError for other shapes, for as many fields as there are no masks, and for probabilities without a
    threshold.
    """
    stack = _array(masks)
    one = stack[0] if stack.ndim == 3 and len(stack) == 1 and axis == "first" else stack
    if one.ndim == 2 and threshold is None:
        from maskscore.formats.label_maps import label_map_of

        labels = label_map_of(one)
        if labels is not None:
            return _of_labels(labels, fields)
    if stack.ndim == 2:
        stack = stack[None]
    elif axis == "last":
        stack = stack.transpose(2, 0, 1) if stack.ndim == 3 else stack
    elif stack.ndim == 4 and stack.shape[1] == 1:
        stack = stack[:, 0]
    if stack.ndim != 3:
        raise ValueError(f"masks are (N, H, W), (N, 1, H, W) or (H, W); these have the shape {stack.shape}")
    given = fields if fields is not None else [{}] * len(stack)
    if len(given) != len(stack):
        raise ValueError(f"the number of masks is {len(stack)}, that of fields {len(given)}")
    return [_mask(index, encode_mask(inside(mask, threshold)), given[index]) for index, mask in enumerate(stack)]


def inside(mask: Any, threshold: float | None = None) -> Any:
    """Return where an array of logits, numbers or booleans is inside, as booleans.

    Raises ValueError for probabilities without a threshold: :func:`from_arrays`.
    """
    import numpy as np

    if mask.dtype.kind != "f":
        return mask != 0
    if threshold is None and mask.size:
        low, high = float(mask.min()), float(mask.max())
        if low >= 0 and high <= 1 and not np.all((mask == 0) | (mask == 1)):
            raise ValueError(
                f"the numbers go from {low:.3g} to {high:.3g}: these are probabilities, not logits; take what is "
                "greater than 0.5"
            )
    return mask > (0.0 if threshold is None else threshold)


def from_sam(records: Iterable[Mapping[str, Any]]) -> list[Mask]:
    """Return the masks of what SAM's or SAM 2's automatic mask generator returns, called by their positions.

    ``segmentation`` is a boolean array (``output_mode="binary_mask"``), or an RLE (``uncompressed_rle``, ``coco_rle``);
    ``predicted_iou``, ``stability_score``, ``point_coords``, ``crop_box`` and the rest are kept for ``upstream``. Masks
    and logits of their predictors are for :func:`from_arrays`. Raises ValueError where a record does not fit.
    """
    return [
        _mask(
            index,
            record["segmentation"] if isinstance(record["segmentation"], Mapping) else _one(record["segmentation"]),
            {name: value for name, value in record.items() if name != "segmentation"},
        )
        for index, record in enumerate(records)
    ]


def from_ultralytics(result: Any) -> list[Mask]:
    """Return the masks of one Ultralytics result (``results[i]``), called by their positions.

    With ``retina_masks=True`` the masks have the image's size and are taken as they are; else they are of the network's
    size, and their outlines ``masks.xy``, in pixels of the image, are taken as polygons of OpenCV's convention.
    ``upstream`` has ``name``, ``class``, ``confidence``, ``box`` (XYXY in pixels) and, of a tracker, ``track_id``.
    """
    if result.masks is None:
        return []
    data = _array(result.masks.data)
    convention = None
    if tuple(data.shape[1:]) == tuple(result.orig_shape):
        drawn: list[Any] = [_one(mask) for mask in data]
    else:
        drawn = [[_array(outline).reshape(-1).tolist()] for outline in result.masks.xy]
        convention = "opencv"
    fields: list[dict[str, Any]] = [{} for _ in drawn]
    boxes = result.boxes
    if boxes is not None:
        columns = {
            "class": boxes.cls,
            "confidence": boxes.conf,
            "box": boxes.xyxy,
            "track_id": getattr(boxes, "id", None),
        }
        fields = _rows(columns, len(drawn))
        for row in fields:
            row["class"] = int(row["class"])
            row["name"] = result.names[row["class"]]
    masks = [_mask(index, mask, fields[index], polygon_convention=convention) for index, mask in enumerate(drawn)]
    return with_polygon_size(masks, _size(result.orig_shape))


def from_detectron2(instances: Any) -> list[Mask]:
    """Return the masks of Detectron2's ``Instances`` (``outputs["instances"]``), called by their positions.

    ``pred_masks`` are booleans of the image's size, or bit masks or polygons of Detectron2's own types. ``upstream``
    has ``score``, ``pred_class`` (the model's own index, not the dataset's ``category_id``) and ``box`` (XYXY in
    pixels).
    """
    known = instances.get_fields()
    if "pred_masks" not in known:
        return []
    masks = known["pred_masks"]
    if hasattr(masks, "polygons"):
        drawn: list[Any] = [[_array(part).tolist() for part in parts] for parts in masks.polygons]
    else:
        drawn = [_one(mask) for mask in _array(getattr(masks, "tensor", masks))]
    boxes = known.get("pred_boxes")
    columns = {
        "score": known.get("scores"),
        "pred_class": known.get("pred_classes"),
        "box": getattr(boxes, "tensor", boxes),
    }
    rows = _rows(columns, len(drawn))
    found = [_mask(index, mask, row) for index, (mask, row) in enumerate(zip(drawn, rows, strict=True))]
    return with_polygon_size(found, _size(instances.image_size))


def _size(shape: Sequence[int]) -> tuple[int, int]:
    return int(shape[0]), int(shape[1])


def _array(value: Any) -> Any:
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # NumPy has no bfloat16; what is greater than zero stays so.
        value = (value.float() if value.is_floating_point() else value).numpy()
    elif isinstance(value, list | tuple):
        value = [_array(item) for item in value]
    return np.asarray(value)


def _one(mask: Any) -> Any:
    return encode_mask(inside(_array(mask)))


def _rows(columns: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    lists = {name: _array(column).tolist() for name, column in columns.items() if column is not None}
    return [{name: values[index] for name, values in lists.items()} for index in range(count)]


def _of_labels(labels: Any, fields: Sequence[Mapping[str, Any]] | None) -> list[Mask]:
    from maskscore.formats.label_maps import entries_of_labels

    entries = entries_of_labels(labels, ReadContext())
    own: dict[Any, Mapping[str, Any]] = {}
    if fields and all("id" in row for row in fields):
        own = {plain_id(_plain(row["id"])): row for row in fields}
        absent = own.keys() - {entry["id"] for entry in entries}
        if absent:
            some = ", ".join(sorted(map(str, absent))[:5])
            warnings.warn(
                f"{len(absent)} of {len(fields)} segments have no pixel in the label map (ids {some}); they are left "
                "out.",
                stacklevel=3,
            )
    elif fields is not None:
        if len(fields) != len(entries):
            raise ValueError(f"the number of masks in the label map is {len(entries)}, that of fields {len(fields)}")
        own = {entry["id"]: row for entry, row in zip(entries, fields, strict=True)}
    return [_mask(entry["id"], entry["segmentation"], own.get(entry["id"], {})) for entry in entries]


def _mask(index: int, segmentation: Any, fields: Mapping[str, Any], *, polygon_convention: Any = None) -> Mask:
    plain = {name: _plain(value) for name, value in fields.items()}
    mask_id = plain.pop("id", None)
    plain.pop("segmentation", None)
    if polygon_convention is not None:
        plain["polygon_convention"] = polygon_convention
    return Mask.model_validate({**plain, "id": index if mask_id is None else mask_id, "segmentation": segmentation})


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
