"""COCO's files of many images, and those of its kind: LVIS, and COCO panoptic with its PNGs.

COCO: https://cocodataset.org/#format-data (panoptic: section 4); LVIS: https://www.lvisdataset.org/dataset. COCO and
LVIS keep a mask in ``segmentation``. Panoptic segments are listed in JSON and drawn in a PNG per image, in a folder
named as the JSON file (``panoptic_val2017.json`` and ``panoptic_val2017/``), or beside it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from maskscore.formats.format import Format, Grouping
from maskscore.formats.image_masks import ImageMasks, MasksDocumentError, Orphans, Size, UnreadableMask
from maskscore.formats.image_names import parts_of, spellings
from maskscore.formats.json_stream import Grouped, items_of_several
from maskscore.formats.json_values import list_of, size_of
from maskscore.formats.masks_from_entries import id_of, masks_of
from maskscore.formats.read_context import ReadContext
from maskscore.schema import id_key, plain_id

__all__ = ["COCO", "COCO_PANOPTIC", "LVIS"]


def _is_coco(document: Any) -> bool:
    lists = ("annotations", "images")
    return isinstance(document, dict) and all(isinstance(document.get(name), list) for name in lists)


def _is_lvis(document: Any) -> bool:
    image = _first(document, "images")
    return "file_name" not in image and "coco_url" in image


def _is_panoptic(content: Any) -> bool:
    """Say whether it is panoptic's JSON, or a picture of one image's segments."""
    if isinstance(content, dict | list):
        return "segments_info" in _first(content, "annotations")
    return getattr(content, "format_name", None) == "coco-panoptic"


def _first(document: Any, name: str) -> Mapping[str, Any]:
    first = next(iter(document[name]), None) if _is_coco(document) else None
    return first if isinstance(first, dict) else {}


def _entries(document: Any, context: ReadContext) -> list[Any]:
    fields = document if isinstance(document, dict) else {}
    annotations = list_of(fields.get("annotations"), "COCO's, with `images` and `annotations`")
    images = list_of(fields.get("images"), "COCO's, with `images` and `annotations`")
    known = [image for image in images if isinstance(image, dict) and id_key(image.get("id")) is not None]
    chosen = _chosen(known, context)
    context.polygon_size = _size(chosen)
    listed, wanted = {id_key(image["id"]) for image in known}, id_key(chosen["id"])
    entries = []
    for entry in annotations:
        owner = id_key(entry.get("image_id")) if isinstance(entry, dict) else None
        if owner == wanted:
            entries.append(entry)
        elif owner not in listed:
            context.orphans.add(owner)
    return entries


def _chosen(known: list[Any], context: ReadContext) -> Any:
    if context.id is not None:
        found = [image for image in known if context.has_id(image["id"])]
    elif len(known) == 1:
        found = known
    else:
        named = context.called(image.get("file_name") or image.get("coco_url") for image in known)
        found = [known[position] for position in named]
    if len(found) != 1:
        raise MasksDocumentError(
            f"The COCO file has {len(found) or 'no'} images with {context.words}, of {len(known)}. Give `image_id` "
            "beside the masks' URI."
        )
    return found[0]


def _group(path: Path, grouped: Grouped) -> None:
    for prefix, value in items_of_several(path, ("images.item", "annotations.item", "categories.item")):
        if prefix == "annotations.item":
            grouped.add_annotation(value, id_key(value.get("image_id")) if isinstance(value, dict) else None)
        elif prefix == "images.item":
            grouped.add_image(value)
        else:
            grouped.add_category(value)


def _images(path: Path, grouped: Grouped, orphans: Orphans) -> Iterator[ImageMasks]:
    grouped.count_orphans(orphans, listed=True)
    for image in grouped.images():
        image_id, size = plain_id(image.get("id")), _size(image)
        if image_id is None and not _has_name(image):
            continue
        entries = grouped.annotations(id_key(image_id))
        if entries and "segments_info" in entries[0]:
            entries = _panoptic_entries(entries, path)
        # An id is known to its jobs as the file writes it, but for 1.0.
        known = image["id"] if isinstance(image.get("id"), str) else image_id
        yield ImageMasks(_name(image), masks_of(entries, size), known, size)


def _has_name(image: Mapping[str, Any]) -> bool:
    return isinstance(image.get("file_name"), str) or isinstance(image.get("coco_url"), str)


def _name(image: Mapping[str, Any]) -> str:
    if isinstance(image.get("file_name"), str):
        return str(image["file_name"])
    if isinstance(image.get("coco_url"), str):
        # LVIS keeps COCO's URLs, which end in the split's folder and the file's name.
        return "/".join(str(image["coco_url"]).rsplit("/", 2)[-2:])
    return str(plain_id(image.get("id")))


def _size(image: Any) -> Size | None:
    return size_of(plain_id(image.get("height")), plain_id(image.get("width"))) if isinstance(image, dict) else None


def _entries_of_panoptic(content: Any, context: ReadContext) -> list[Any]:
    if not hasattr(content, "format_name"):
        raise MasksDocumentError(
            "This is COCO panoptic's JSON, whose masks lie in a PNG per image. Give the PNG, or the whole dataset to "
            "`read_dataset`."
        )
    from maskscore.formats.picture_masks import entries_of_picture

    return entries_of_picture(content, "coco-panoptic", context)


def _panoptic_entries(annotations: list[Any], json_path: Path) -> list[Any]:
    """Return an entry per segment of one image's annotations, with the segment's fields.

    A segment that its PNG does not show, or whose PNG is not there, becomes an
    :class:`~maskscore.formats.UnreadableMask`; what the PNG shows beside the listed segments is left out.
    """
    return [entry for annotation in annotations for entry in _segments(annotation, json_path)]


def _segments(annotation: Any, json_path: Path) -> list[Any]:
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
    from maskscore.formats.picture_decoding import decode_png
    from maskscore.formats.picture_masks import panoptic_ids

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


_GROUPING = Grouping(_group, _images)

COCO = Format(
    name="coco",
    scope="dataset",
    description="COCO's JSON: `images` and `annotations`",
    kinds=("json",),
    recognises=_is_coco,
    entries=_entries,
    grouping=_GROUPING,
)
LVIS = Format(
    name="lvis",
    scope="dataset",
    description="LVIS's JSON: COCO's, with images named by URL",
    kinds=("json",),
    recognises=_is_lvis,
    entries=_entries,
    grouping=_GROUPING,
)
COCO_PANOPTIC = Format(
    name="coco-panoptic",
    scope="dataset",
    description="COCO panoptic: JSON and a folder of PNGs, or one PNG",
    kinds=("png", "picture", "json"),
    recognises=_is_panoptic,
    entries=_entries_of_panoptic,
    grouping=_GROUPING,
)
