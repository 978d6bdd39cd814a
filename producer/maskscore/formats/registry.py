"""The formats that are known. A new one is its module, its page ``docs/reference/formats/NAME.md``, and a line here.

A job's document names formats, too: :data:`~maskscore.schema.MasksFormat` has the names of all but folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from maskscore.formats import (
    coco,
    cvat,
    kitti_mots,
    label_studio,
    label_studio_min,
    labelme,
    mask_lists,
    mmdet,
    npz,
    png,
    sa1b,
    sam_folder,
    supervisely,
    ultralytics,
    via,
    vos,
    yolo,
)
from maskscore.formats.format import Format, Kind
from maskscore.formats.image_masks import MasksDocumentError

__all__ = ["FORMATS", "format_named", "recognised", "recognised_folder"]

# A content may be of several: the last of them is it, so what is more general stands before what is more special.
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        format_.name: format_
        for format_ in (
            mask_lists.MASKSCORE,
            mask_lists.SAM,
            sam_folder.FORMAT,
            coco.COCO,
            coco.LVIS,
            coco.COCO_PANOPTIC,
            mask_lists.COCO_RESULTS,
            ultralytics.FORMAT,
            yolo.FORMAT,
            cvat.FORMAT,
            png.PNG_LABELS,
            png.PNG_BINARY,
            npz.FORMAT,
            sa1b.SA1B,
            sa1b.GROUNDED_SAM2,
            mmdet.FORMAT,
            labelme.FORMAT,
            via.FORMAT,
            supervisely.FORMAT,
            label_studio.FORMAT,
            label_studio_min.FORMAT,
            kitti_mots.FORMAT,
            vos.VOS,
        )
    }
)
"""Name → format; the names are what ``--format`` and ``format=`` take."""


def format_named(name: str) -> Format:
    """Return the format of this name. Raises :class:`MasksDocumentError` that lists those there are."""
    try:
        return FORMATS[name]
    except KeyError:
        raise MasksDocumentError(f"There is no format {name!r:.60}. Known are {', '.join(FORMATS)}.") from None


def recognised(kind: Kind, content: Any) -> Format | None:
    """Return the format of a content of this kind, or ``None``. See :class:`~maskscore.formats.format.Format`."""
    known = (format_ for format_ in reversed(list(FORMATS.values())) if kind in format_.kinds)
    return next((format_ for format_ in known if format_.recognises(content)), None)


def recognised_folder(path: Path) -> Format | None:
    """Return the format of a folder, or ``None``."""
    folders = (format_ for format_ in FORMATS.values() if format_.scope == "folder")
    return next((format_ for format_ in folders if format_.recognises(path)), None)
