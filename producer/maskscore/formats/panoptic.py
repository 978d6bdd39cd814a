"""COCO panoptic: segments listed in JSON, drawn in a PNG per image.

Source: https://cocodataset.org/#format-data, section 4. The PNGs lie in a folder named as the JSON file
(``panoptic_val2017.json`` and ``panoptic_val2017/``), or beside it.
"""

from __future__ import annotations

import unicodedata
from itertools import product
from pathlib import Path
from typing import Any

from maskscore.formats.image_names import parts_of, spellings
from maskscore.formats.masks_from_entries import id_of
from maskscore.formats.outcomes import MasksDocumentError, UnreadableMask
from maskscore.formats.read_context import ReadContext

__all__ = ["entries_of_panoptic"]


def entries_of_panoptic(annotations: list[Any], json_path: Path) -> list[Any]:
    """Return an entry per segment of one image's annotations, with the segment's fields.

    A segment that its PNG does not show, or whose PNG is not there, becomes an
    :class:`~maskscore.formats.UnreadableMask`; what the PNG shows beside the listed segments is left out.
    """
    return [entry for annotation in annotations for entry in _entries(annotation, json_path)]


def _entries(annotation: Any, json_path: Path) -> list[Any]:
    infos = annotation.get("segments_info")
    segments = [info for info in infos if isinstance(info, dict)] if isinstance(infos, list) else []
    try:
        shown = _shown(annotation.get("file_name"), json_path)
    except MasksDocumentError as error:
        return [UnreadableMask(id_of(info.get("id"), n), str(error), info) for n, info in enumerate(segments)]
    return [
        {**info, "segmentation": shown[info["id"]]}
        if isinstance(info.get("id"), int) and info["id"] in shown
        else UnreadableMask(id_of(info.get("id"), n), f"{annotation['file_name']} has no pixel of this segment.", info)
        for n, info in enumerate(segments)
    ]


def _shown(name: Any, json_path: Path) -> dict[int, Any]:
    from maskscore.formats.label_maps import entries_of_labels
    from maskscore.formats.png import decode_png, panoptic_ids

    context = ReadContext()
    pixels, _ = decode_png(_read(name, json_path), context)
    return {entry["id"]: entry["segmentation"] for entry in entries_of_labels(panoptic_ids(pixels), context)}


def _read(name: Any, json_path: Path) -> bytes:
    # Of a path the last part alone: a dataset from elsewhere must not name files outside its folder.
    paths = [parts_of(spelling) for spelling in spellings(name)] if isinstance(name, str) else []
    if not paths or any(not parts or ".." in parts for parts in paths):
        raise MasksDocumentError(f"The annotation's `file_name` is no PNG's name: {name!r:.200}.")
    folders = (json_path.with_suffix(""), json_path.parent)
    names = dict.fromkeys(unicodedata.normalize(form, parts[-1]) for parts in paths for form in ("NFC", "NFD"))
    for folder, spelled in product(folders, list(names)):
        try:
            return (folder / spelled).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise MasksDocumentError(f"{name!r:.200} cannot be read: {error}.") from error
    raise MasksDocumentError(f"There is no {name} in {folders[0]} or {folders[1]}.")
