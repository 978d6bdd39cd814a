"""JSON of one image with ``annotations``: SA-1B's, and that of Grounded-SAM-2's demos, which follows it.

Sources: the section on the dataset in https://github.com/facebookresearch/segment-anything; ``json_results`` in
https://github.com/IDEA-Research/Grounded-SAM-2 (``grounded_sam2_local_demo.py``).
"""

from __future__ import annotations

from typing import Any

from maskscore.formats.format import Format, Stated
from maskscore.formats.image_masks import MasksDocumentError
from maskscore.formats.json_values import size_of
from maskscore.formats.read_context import ReadContext

__all__ = ["GROUNDED_SAM2", "SA1B"]


def _entries(document: Any, context: ReadContext) -> list[Any]:
    annotations = document.get("annotations") if isinstance(document, dict) else None
    if not isinstance(annotations, list):
        raise MasksDocumentError("The masks are not in the layout that was asked for: SA-1B's, with `annotations`.")
    return annotations


def _is_sa1b(document: Any) -> bool:
    return _has_annotations(document) and isinstance(document.get("image"), dict)


def _is_grounded_sam2(document: Any) -> bool:
    return _has_annotations(document) and isinstance(document.get("image_path"), str)


def _has_annotations(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and isinstance(document.get("annotations"), list)
        and not isinstance(document.get("images"), list)
    )


def _stated_in_sa1b(document: Any) -> Stated:
    image = document.get("image") if isinstance(document, dict) else None
    fields = image if isinstance(image, dict) else {}
    return Stated(fields.get("file_name"), size_of(fields.get("height"), fields.get("width")))


def _stated_in_grounded_sam2(document: Any) -> Stated:
    fields = document if isinstance(document, dict) else {}
    return Stated(fields.get("image_path"), size_of(fields.get("img_height"), fields.get("img_width")))


SA1B = Format(
    name="sa1b",
    scope="image",
    description="SA-1B's JSON: `image` and `annotations`",
    kinds=("json",),
    recognises=_is_sa1b,
    entries=_entries,
    stated=_stated_in_sa1b,
)
GROUNDED_SAM2 = Format(
    name="grounded-sam2",
    scope="image",
    description="JSON of Grounded-SAM-2's demos: `image_path` and `annotations`",
    kinds=("json",),
    recognises=_is_grounded_sam2,
    entries=_entries,
    stated=_stated_in_grounded_sam2,
)
