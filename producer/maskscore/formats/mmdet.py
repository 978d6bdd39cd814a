"""MMDetection's ``DetInferencer``: ``labels``, ``scores``, ``bboxes`` and ``masks`` of one image, side by side.

Source: ``DetInferencer.pred2dict`` in https://github.com/open-mmlab/mmdetection (``mmdet/apis/det_inferencer.py``),
which writes a file per image into ``preds/``, and returns them in ``predictions``.
"""

from __future__ import annotations

from typing import Any

from maskscore.formats.format import Format
from maskscore.formats.image_masks import MasksDocumentError
from maskscore.formats.read_context import ReadContext

__all__ = ["FORMAT"]

_COLUMNS = {"label": "labels", "score": "scores", "bbox": "bboxes"}


def _recognises(document: Any) -> bool:
    if not isinstance(document, dict):
        return False
    if isinstance(document.get("predictions"), list) and "visualization" in document:
        return True
    return {"labels", "scores", "bboxes"} <= document.keys() or "panoptic_seg_path" in document


def _entries(document: Any, context: ReadContext) -> list[Any]:
    found = _prediction(document)
    masks, labels = found.get("masks"), found.get("labels")
    if not isinstance(masks, list):
        if "panoptic_seg_path" in found:
            raise MasksDocumentError(
                f"MMDetection's file has no masks but a panoptic picture, {found['panoptic_seg_path']!r:.200}: give "
                "that PNG as the masks."
            )
        if labels == []:
            return []
        raise MasksDocumentError(
            "MMDetection's file has boxes and no `masks`: the model that wrote it segments nothing. Take one that "
            "does, such as Mask R-CNN or RTMDet-Ins."
        )
    context.counted(len(masks))
    columns = {}
    for name, column in _COLUMNS.items():
        values = found.get(column)
        if values is not None and (not isinstance(values, list) or len(values) != len(masks)):
            raise MasksDocumentError(f"MMDetection's file has not as many `{column}` as masks ({len(masks)}).")
        if values is not None:
            columns[name] = values
    return [
        {"segmentation": mask, **{name: values[index] for name, values in columns.items()}}
        for index, mask in enumerate(masks)
    ]


def _prediction(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise MasksDocumentError("The masks are not in the layout that was asked for: MMDetection's, an object.")
    if not isinstance(document.get("predictions"), list):
        return document
    predictions = [item for item in document["predictions"] if isinstance(item, dict)]
    if len(predictions) != 1:
        raise MasksDocumentError(
            f"MMDetection's file has the predictions of {len(predictions)} images without their names. Give the files "
            "of its folder `preds/`, one per image."
        )
    return predictions[0]


FORMAT = Format(
    name="mmdet",
    scope="image",
    description="JSON of MMDetection's DetInferencer: `labels`, `scores`, `bboxes` and `masks`",
    kinds=("json",),
    recognises=_recognises,
    entries=_entries,
)
