"""The output of SAM's command line without ``--convert-to-rle``: a folder per image, a PNG per mask, metadata.csv.

Source: ``write_masks_to_folder`` in https://github.com/facebookresearch/segment-anything (``scripts/amg.py``).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskscore.formats.format import Format
from maskscore.formats.image_masks import ImageMasks, MasksDocumentError, Orphans, UnreadableMask
from maskscore.formats.masks_from_entries import masks_of
from maskscore.formats.read_context import ReadContext

__all__ = ["FORMAT", "SAM_TABLE"]

SAM_TABLE = "metadata.csv"
"""What SAM's command line writes beside an image's pictures."""
_BOXES = {
    "bbox": ("bbox_x0", "bbox_y0", "bbox_w", "bbox_h"),
    "crop_box": ("crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h"),
}
_POINT = ("point_input_x", "point_input_y")
_NUMBERS = ("area", "predicted_iou", "stability_score")


def _is_sam_output(folder: Path) -> bool:
    """Say whether this is a folder of one image's masks, or the first of the folders in it is."""
    if (folder / SAM_TABLE).is_file():
        return True
    first = next(_folders(folder), None)
    return first is not None and (first / SAM_TABLE).is_file()


def _images(folder: Path, _: Orphans) -> Iterator[ImageMasks]:
    """Yield the masks of each image, which is called by its folder: the image's file name without its ending.

    ``upstream`` has the columns of metadata.csv under the names that the JSON output has. The order of many folders is
    that of the file system, which costs no memory. Raises :class:`~maskscore.formats.MasksDocumentError` for a
    metadata.csv that cannot be read.
    """
    if (folder / SAM_TABLE).is_file():
        yield _image(folder)
        return
    for one in _folders(folder):
        if (one / SAM_TABLE).is_file():
            yield _image(one)


def _folders(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield Path(entry.path)


def _image(folder: Path) -> ImageMasks:
    try:
        with (folder / SAM_TABLE).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise MasksDocumentError(f"{folder / SAM_TABLE} cannot be read: {error}.") from error
    entries = [_entry(folder, row, index) for index, row in enumerate(rows)]
    sizes = [entry["segmentation"].size for entry in entries if isinstance(entry, dict)]
    return ImageMasks(folder.name, masks_of(entries), size=sizes[0] if sizes else None)


def _entry(folder: Path, row: Mapping[str, str], index: int) -> Any:
    mask_id = (row.get("id") or str(index)).strip()
    fields = _fields(row)
    from maskscore.formats.picture_masks import entries_of_picture, picture_of

    if not mask_id.isdigit():
        return UnreadableMask(mask_id, f"Row {index} of {SAM_TABLE} has the id {mask_id!r:.60}, not a number.", fields)
    try:
        context = ReadContext()
        picture = picture_of((folder / f"{mask_id}.png").read_bytes(), context)
        drawn = entries_of_picture(picture, "png-binary", context)
    except FileNotFoundError:
        return UnreadableMask(mask_id, f"There is no {mask_id}.png in {folder}.", fields)
    except MasksDocumentError as error:
        return UnreadableMask(mask_id, f"{mask_id}.png: {error}", fields)
    if not drawn:
        return UnreadableMask(mask_id, f"{mask_id}.png has no pixel that is inside.", fields)
    return {"id": mask_id, "segmentation": drawn[0]["segmentation"], **fields}


def _fields(row: Mapping[str, str]) -> dict[str, Any]:
    numbers = {name: number for name in row if (number := _number(row[name])) is not None}
    fields: dict[str, Any] = {name: numbers[name] for name in _NUMBERS if name in numbers}
    for name, columns in _BOXES.items():
        if all(column in numbers for column in columns):
            fields[name] = [numbers[column] for column in columns]
    if all(column in numbers for column in _POINT):
        fields["point_coords"] = [[numbers[column] for column in _POINT]]
    return fields


def _number(text: object) -> int | float | None:
    if not isinstance(text, str):
        return None
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return None


FORMAT = Format(
    name="sam-folder",
    scope="folder",
    description="SAM's command line: metadata.csv and a PNG per mask",
    kinds=(),
    recognises=_is_sam_output,
    images=_images,
)
