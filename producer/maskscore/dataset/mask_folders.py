"""Reads the masks of one image from a folder with one picture per mask, as SAM's command line writes them."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from maskscore.dataset.storage_roots import FolderRoot, StorageRoot
from maskscore.formats import (
    SAM_TABLE,
    VOS,
    ImageMasks,
    MasksDocumentError,
    ReadContext,
    UnreadableMask,
    entries_of_pictures,
    folder_of,
    formats_extra,
    frame_of,
    last_part,
    masks_of,
    read_dataset,
    read_masks,
)
from maskscore.schema import Mask

__all__ = ["read_folder", "read_pictures"]

_SAM = "sam-folder"


def read_folder(root: StorageRoot, folder: str, format: str | None = None) -> list[Mask | UnreadableMask]:
    """Return the masks of a folder below a root, in the order of its files; each is called by its file's name.

    With SAM's ``metadata.csv`` they are read as SAM's, and carry its columns. ``format`` says it outright:
    ``sam-folder``, or the layout of each picture. Warns of masks that may mean something else than was read. Raises
    :class:`~maskscore.formats.MasksDocumentError` where a file cannot be read, and as ``root`` does.
    """
    if isinstance(root, FolderRoot):
        return _read(root.path / folder, folder, format)
    with tempfile.TemporaryDirectory(prefix="maskscore-masks-") as here:
        for entry in root.below(folder):
            (Path(here) / last_part(entry)).write_bytes(root.read(entry, "masks"))
        return _read(Path(here), folder, format)


def read_pictures(root: StorageRoot, names: Sequence[str], format: str | None = None) -> list[Mask | UnreadableMask]:
    """Return the masks of files below a root, ``.../OBJECT/FRAME.png``, each called by its object's number.

    Warns of masks that may mean something else than was read. Raises as ``root`` does.
    """
    context = ReadContext()
    pictures = [(last_part(folder_of(name)), root.read(name, "masks")) for name in names]
    with formats_extra():
        masks = masks_of(entries_of_pictures(pictures, context, None if format == VOS.name else format))
    _warn(frame_of(names[0]) or names[0], context.doubts)
    return masks


def _warn(place: str, doubts: Iterable[str]) -> None:
    # The place is a part of the text: Python shows equal warnings only once.
    for doubt in doubts:
        warnings.warn(f"{place}: {doubt}", stacklevel=2)


def _read(folder: Path, name: str, format: str | None) -> list[Mask | UnreadableMask]:
    has_table = (folder / SAM_TABLE).is_file()
    if format == _SAM and not has_table:
        raise MasksDocumentError(f"The masks were to be of the format {_SAM}, but there is no {SAM_TABLE} beside them.")
    if has_table and format in (None, _SAM):
        images: list[ImageMasks] = list(read_dataset(folder, format=_SAM))
        return [mask for image in images for mask in image.masks]
    masks: list[Mask | UnreadableMask] = []
    files = [
        file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".") and file.name != SAM_TABLE
    ]
    for file in sorted(files, key=lambda file: (len(file.name), file.name)):
        doubts: list[str] = []
        try:
            found = read_masks(file.read_bytes(), format=format, file_name=file.name, doubts=doubts)
        except MasksDocumentError as error:
            raise MasksDocumentError(f"{file.name}: {error}") from error
        _warn(f"{name}/{file.name}", doubts)
        alone = len(found) == 1
        masks += [_called(mask, file.stem if alone else f"{file.stem}-{mask.id}") for mask in found]
    return masks


def _called(mask: Mask | UnreadableMask, name: str) -> Mask | UnreadableMask:
    if isinstance(mask, UnreadableMask):
        return UnreadableMask(name, mask.message, mask.upstream)
    return mask.model_copy(update={"id": name})
