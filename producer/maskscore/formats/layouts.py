"""The layouts that are known, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from maskscore.formats.format import Layout, Scope
from maskscore.formats.outcomes import MasksDocumentError
from maskscore.formats.registry import REGISTERED

__all__ = ["FORMATS", "Layout", "Scope", "layout_named"]

FORMATS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            Layout("maskscore", "image", "a JSON list of masks, or an object with `masks`"),
            Layout("sam", "image", "JSON list of records of SAM's or SAM 2's automatic mask generator"),
            Layout("sam-folder", "folder", "SAM's command line: metadata.csv and a PNG per mask"),
            Layout("coco", "dataset", "COCO's JSON: `images` and `annotations`"),
            Layout("lvis", "dataset", "LVIS's JSON: COCO's, with images named by URL"),
            Layout("coco-panoptic", "dataset", "COCO panoptic: JSON and a folder of PNGs, or one PNG"),
            Layout("detectron2", "dataset", "COCO results: a JSON list of annotations with `image_id`"),
            Layout("ultralytics", "image", "JSON of an Ultralytics result: objects with `segments`"),
            Layout("yolo", "image", "label text of Ultralytics: a class and a normalised polygon per line"),
            Layout("label-studio", "dataset", "JSON export of Label Studio: tasks with brushes and polygons"),
            Layout("cvat", "dataset", "CVAT for images 1.1: XML with masks and polygons"),
            Layout("png-labels", "image", "label map in a PNG, TIFF, BMP or GIF: each value but 0 is a mask"),
            Layout("png-binary", "image", "PNG, TIFF, BMP, GIF or JPEG of one mask: the bright pixels are inside"),
            Layout("npz", "image", "NumPy's NPZ or NPY: a stack of masks, or a label map"),
            *(format_.layout for format_ in REGISTERED.values()),
        )
    }
)
"""Name → layout; the names are what ``--format`` and ``format=`` take."""


def layout_named(name: str) -> Layout:
    """Return the layout of this name. Raises :class:`MasksDocumentError` that lists those there are."""
    try:
        return FORMATS[name]
    except KeyError:
        raise MasksDocumentError(f"There is no format {name!r:.60}. Known are {', '.join(FORMATS)}.") from None
