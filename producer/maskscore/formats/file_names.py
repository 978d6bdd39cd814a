"""File names: whether a file is an image or holds masks, and the key that pairs the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

__all__ = [
    "IMAGE_SUFFIXES",
    "JPEG_RANK",
    "MASKS_SUFFIXES",
    "FileRole",
    "Kind",
    "Naming",
    "extension",
    "folder_of",
    "last_part",
]

Kind = Literal["image", "masks", "other"]

IMAGE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".avif", ".ppm"}
)
MASKS_SUFFIXES: Final[tuple[str, ...]] = (
    *(".json", ".jsonl", ".ndjson", ".npz", ".npy", ".txt", ".xml"),
    *(".json.gz", ".jsonl.gz", ".ndjson.gz", ".npy.gz", ".txt.gz", ".xml.gz"),
)
"""Those that are masks wherever they lie, the first before the others where an image has several."""
# A picture is masks only where the user says that masks lie there.
_PICTURES: Final = (".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg")
_MASKS_ROOT: Final = (*MASKS_SUFFIXES, *_PICTURES)
JPEG_RANK: Final = _MASKS_ROOT.index(".jpg")
"""From this rank on it is a JPEG, which is more often a picture of what was found than a mask."""


class FileRole(NamedTuple):
    """A file's part in the pairing: ``key`` is its path without its ending, ``rank`` the order among masks files."""

    kind: Kind
    key: str
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Naming:
    """The endings by which images and masks are known.

    ``image_suffix`` and ``masks_suffix`` are a user's own (``_leftImg8bit.png``, ``_mask.png``): then only files that
    end so are meant, and the rest of the name is the key. Without them a file's extension decides.
    """

    image_suffix: str | None = None
    masks_suffix: str | None = None

    def of(self, name: str, *, masks_root: bool | None) -> FileRole:
        """Say what the file of this name is.

        ``masks_root``: whether it lies where all masks are (``True``), where all images are (``False``), or where both
        lie together (``None``).
        """
        if masks_root is not False and (rank := self._masks_rank(name, masks_root is True)) is not None:
            return FileRole("masks", self._key(name, self.masks_suffix), rank)
        if masks_root is not True and self._is_image(name):
            return FileRole("image", self._key(name, self.image_suffix))
        return FileRole("other", name)

    def _masks_rank(self, name: str, masks_root: bool) -> int | None:
        if self.masks_suffix is not None:
            return 0 if name.endswith(self.masks_suffix) and last_part(name) != self.masks_suffix else None
        suffixes = _MASKS_ROOT if masks_root else MASKS_SUFFIXES
        suffix = extension(name)
        return suffixes.index(suffix) if suffix in suffixes else None

    def _is_image(self, name: str) -> bool:
        if self.image_suffix is not None:
            return name.endswith(self.image_suffix)
        return extension(name) in IMAGE_SUFFIXES

    @staticmethod
    def _key(name: str, suffix: str | None) -> str:
        return name[: -len(suffix)] if suffix else name[: len(name) - len(extension(name))]


def extension(name: str) -> str:
    """Return the extension with its dot, in small letters; empty where there is none. Of ``a.json.gz`` it is both."""
    first = name.rfind("/") + 1
    dot = name.rfind(".")
    if dot <= first:
        return ""
    if name[dot:].lower() == ".gz" and (before := name.rfind(".", 0, dot)) > first:
        both = name[before:].lower()
        return both if both in MASKS_SUFFIXES else ".gz"
    return name[dot:].lower()


def last_part(name: str) -> str:
    """Return a path's last part."""
    return name.rsplit("/", 1)[-1]


def folder_of(name: str) -> str:
    """Return the path of the folder that a file lies in; empty at the root."""
    return name.rpartition("/")[0]
