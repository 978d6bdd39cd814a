"""Folders of videos: ``VIDEO/OBJECT/FRAME.png``, as SAM 2 and SA-V keep masks, or ``VIDEO/FRAME.png``, as DAVIS does.

Source: ``save_masks_to_dir`` in https://github.com/facebookresearch/sam2 (``tools/vos_inference.py``): objects are
folders of three digits whose pictures are 0 and 1; without ``--per_obj_png_file`` a frame is one palette picture whose
values are the objects.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from maskscore.formats.format import Format
from maskscore.formats.image_masks import ImageMasks, MasksDocumentError, Orphans, UnreadableMask
from maskscore.formats.masks_from_entries import masks_of
from maskscore.formats.read_context import ReadContext

__all__ = ["VOS", "entries_of_pictures", "frame_of"]

_OBJECT = re.compile(r"\d{3}")


def frame_of(key: str) -> str | None:
    """Return ``VIDEO/FRAME`` of ``VIDEO/OBJECT/FRAME``, a path without its ending; ``None`` where that is no object."""
    folder, _, frame = key.rpartition("/")
    video, _, number = folder.rpartition("/")
    if not _OBJECT.fullmatch(number):
        return None
    return f"{video}/{frame}" if video else frame


def entries_of_pictures(
    pictures: Sequence[tuple[str, bytes]], context: ReadContext, layout: str | None = None
) -> list[Any]:
    """Return the entries of a frame's pictures, ``(object, bytes)`` each; an object that is not seen there has none.

    ``layout`` is the pictures' own, where their content does not say. A mask is called by its object's number; where
    a picture has several values, with a dash and the value. Doubts about a picture begin with its object.
    """
    from maskscore.formats.picture_masks import entries_of_picture, picture_of

    context.format_is_guessed = layout is None
    entries: list[Any] = []
    for name, data in pictures:
        number = str(int(name)) if name.isdecimal() else name
        doubts_before = len(context.doubts)
        try:
            picture = picture_of(data, context)
            found = entries_of_picture(picture, layout or picture.format_name, context)
        except MasksDocumentError as error:
            entries.append(UnreadableMask(number, f"The picture of the object {name} cannot be read: {error}"))
            continue
        context.doubts[doubts_before:] = [f"object {name}: {doubt}" for doubt in context.doubts[doubts_before:]]
        several = len(found) > 1
        for entry in found:
            if isinstance(entry, UnreadableMask):
                entries.append(UnreadableMask(f"{number}-{entry.id}", entry.message))
            else:
                entries.append({**entry, "id": f"{number}-{entry.get('id', 0)}" if several else number})
    return entries


def _is_vos(folder: Any) -> bool:
    # A folder of folders of pictures alone may be anything.
    return bool(_objects(folder)) or any(_objects(video) for video in folder.iterdir() if video.is_dir())


def _images(folder: Path, _: Orphans) -> Iterator[ImageMasks]:
    """Yield the masks of each frame, by video and frame; ``folder`` holds videos, or is a video with objects."""
    objects = _objects(folder)
    if objects:
        yield from _of_objects("", objects)
        return
    for video in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        objects = _objects(video)
        if objects:
            yield from _of_objects(f"{video.name}/", objects)
            continue
        for frame in sorted(video.glob("*.png")):
            yield _image(f"{video.name}/{frame.stem}", [("", frame)])


def _objects(video: Path) -> list[Path]:
    return sorted(
        entry
        for entry in video.iterdir()
        if entry.is_dir() and _OBJECT.fullmatch(entry.name) and next(entry.glob("*.png"), None) is not None
    )


def _of_objects(video: str, objects: list[Path]) -> Iterator[ImageMasks]:
    frames = sorted({frame.name for folder in objects for frame in folder.glob("*.png")})
    for frame in frames:
        pictures = [(folder.name, folder / frame) for folder in objects if (folder / frame).is_file()]
        yield _image(f"{video}{Path(frame).stem}", pictures)


def _image(name: str, pictures: list[tuple[str, Path]]) -> ImageMasks:
    from maskscore.formats.picture_masks import entries_of_picture, picture_of

    context = ReadContext()
    if len(pictures) == 1 and not pictures[0][0]:
        try:
            entries = entries_of_picture(picture_of(pictures[0][1].read_bytes(), context), "png-labels", context)
        except MasksDocumentError as error:
            raise MasksDocumentError(f"{pictures[0][1]}: {error}") from error
    else:
        entries = entries_of_pictures([(number, path.read_bytes()) for number, path in pictures], context)
        for doubt in context.doubts:
            warnings.warn(f"{name}: {doubt}", stacklevel=2)
    sizes = [entry["segmentation"].size for entry in entries if isinstance(entry, dict)]
    return ImageMasks(name, masks_of(entries), size=sizes[0] if sizes else None)


VOS = Format(
    name="vos",
    scope="folder",
    description="folders of a video's frames: a PNG per object (SAM 2, SA-V) or per frame (DAVIS)",
    kinds=(),
    recognises=_is_vos,
    images=_images,
)
