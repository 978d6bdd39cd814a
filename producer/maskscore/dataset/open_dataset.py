"""A dataset as the user names it, and its opened form with files listed and paired."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskscore.dataset.pairing import Pairing
from maskscore.dataset.storage_roots import StorageRoot, open_root
from maskscore.errors import InvalidDocumentError
from maskscore.formats import Naming, last_part
from maskscore.storage import Objects

__all__ = ["Dataset", "OpenDataset"]


@dataclass(frozen=True, slots=True)
class OpenDataset:
    """A dataset whose files are listed and paired."""

    images: StorageRoot
    masks: StorageRoot | Path | None
    pairing: Pairing


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images, and where their masks are.

    Parameters
    ----------
    images: ``s3://bucket/prefix/``, or a folder.
    masks: ``None``: beside the images. A prefix or a folder: one file per image, of its name, or one folder of
        pictures. A file: a dataset file, such as COCO's, that names the images.
    format: the masks' layout (:data:`maskscore.formats.FORMATS`), where their content does not say.
    image_suffix, masks_suffix: endings by which files are known, such as ``_mask.png``; see
        :class:`~maskscore.formats.Naming`.
    """

    images: str
    masks: str | None = None
    format: str | None = None
    image_suffix: str | None = None
    masks_suffix: str | None = None

    @contextmanager
    def opened(
        self, objects: Objects, *, limit: int | None = None, seen: Callable[[int], None] | None = None
    ) -> Iterator[OpenDataset]:
        """List and pair everything; raises as :class:`~maskscore.dataset.pairing.Pairing` does.

        ``limit`` is the most pairs that are wanted; ``seen`` is called with the number of files seen, now and then.
        """
        images = open_root(self.images, objects)
        naming = Naming(self.image_suffix, self.masks_suffix)
        with tempfile.TemporaryDirectory(prefix="maskscore-run-") as scratch:
            masks = None if self.masks is None else _open_masks(self.masks, objects, Path(scratch))
            if not isinstance(masks, Path | None) and masks.uri == images.uri:
                masks = None
            with Pairing(images, masks, naming=naming, format=self.format, limit=limit, seen=seen) as pairing:
                yield OpenDataset(images, masks, pairing)

    def identity(self, objects: Objects) -> dict[str, Any]:
        """Return what makes it this dataset, with absolute places; raises as ``open_root`` does."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        given["images"] = open_root(self.images, objects).uri
        if self.masks is not None and "://" not in self.masks:
            given["masks"] = Path(self.masks).absolute().as_uri()
        return given


def _open_masks(place: str, objects: Objects, scratch: Path) -> StorageRoot | Path:
    if place.startswith("s3://"):
        if place.endswith("/") or "/" not in place.removeprefix("s3://") or not objects.exists(place, what="masks"):
            return open_root(place, objects)
        file = scratch / last_part(place)
        objects.download(place, file, what="masks")
        return file
    path = Path(place).expanduser()
    if "://" in place or path.is_dir():
        return open_root(place, objects)
    if not path.is_file():
        raise InvalidDocumentError(f"There is no folder and no dataset file {path} with masks.")
    return path
