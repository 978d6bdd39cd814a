"""Pairs images with their masks, by file names or by the entries of a dataset file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from maskscore.dataset.file_index import FileIndex, Found
from maskscore.dataset.pairing_counts import MOST_NAMES, PairingCounts, no_pairs_message
from maskscore.dataset.storage_roots import StorageRoot
from maskscore.errors import InvalidDocumentError
from maskscore.formats import (
    MASKS_SUFFIXES,
    SAM_TABLE,
    DatasetFile,
    ImageMasks,
    MasksDocumentError,
    Naming,
    composed,
    extension,
    folder_of,
    last_part,
)
from maskscore.storage import ListedObject

__all__ = ["Pair", "Pairing"]

_CHUNK = 5000
_MOST_ENDINGS = 40
Seen = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its masks: a file or folder (``masks``), or the entry of a dataset file (``inline``).

    ``folder`` is true where ``masks`` is a folder with a picture per mask. ``pictures`` lists the pictures where each
    lies in a folder of its own; ``folder`` is true then, too.
    """

    image: str
    etag: str | None
    masks: str | None = None
    masks_etag: str | None = None
    folder: bool = False
    pictures: tuple[str, ...] = ()
    inline: ImageMasks | None = None


class Pairing:
    """The images of a dataset with their masks.

    Parameters
    ----------
    images: the root of the images.
    masks: the root of the masks files, or the path of one dataset file (such as COCO's); ``None``: beside the images.
    naming: the endings of images and masks files.
    format: the format of the dataset file; without it the content decides.
    limit: the most pairs to yield.
    seen: called with the number of files listed so far, once per few thousand.

    The constructor lists and pairs everything, in a temporary file. Iterating yields the pairs in the order of the
    images' names, or of the dataset file. At most a few thousand names are in memory. Raises
    :class:`~maskscore.errors.JobError` for a bucket that cannot be listed, and
    :class:`~maskscore.errors.InvalidDocumentError` where no image has masks; the message lists what was found.
    """

    def __init__(
        self,
        images: StorageRoot,
        masks: StorageRoot | Path | None = None,
        *,
        naming: Naming | None = None,
        format: str | None = None,
        limit: int | None = None,
        seen: Seen | None = None,
    ) -> None:
        self._images, self._masks = images, masks
        self._naming = naming or Naming()
        self._format, self._limit = format, limit
        self._seen = seen or (lambda count: None)
        self.counts = PairingCounts()
        self._index = FileIndex()
        self._file: DatasetFile | None = None
        try:
            self._list()
            if isinstance(masks, Path):
                self._match(masks)
            else:
                self._index.pair(together=masks is None and self._naming.masks_suffix is None)
            self._count()
            if not self.counts.pairs:
                raise InvalidDocumentError(no_pairs_message(self.counts, images, masks, self._naming))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Pairing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.counts.pairs if self._limit is None else min(self._limit, self.counts.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return islice(self._pairs(), self._limit)

    def close(self) -> None:
        """Remove the listing."""
        self._index.close()
        if self._file is not None:
            self._file.close()

    def categories(self) -> Iterator[Any]:
        """Yield the entries of ``categories`` of a COCO file, as they are; nothing where the masks are elsewhere."""
        return iter(()) if self._file is None else self._file.categories()

    def add_submitted(self, job_ids: Iterator[str]) -> None:
        """Store the ids of jobs that an earlier run has submitted."""
        self._index.add_submitted(job_ids)

    def submitted(self, job_ids: list[str]) -> set[str]:
        """Return which of these ids an earlier run has submitted."""
        return self._index.submitted(job_ids)

    def _list(self) -> None:
        if self._masks is None:
            rest = _marked(self._images.entries(), None)
        elif isinstance(self._masks, Path):
            rest = _marked(self._images.entries(), False)
        else:
            rest = self._both(self._masks)
        files, look_at = 0, 0
        while chunk := list(islice(rest, _CHUNK)):
            files += len(chunk)
            self._add(chunk)
            self._seen(files)
            if self._limit is None or isinstance(self._masks, Path) or files < look_at:
                continue
            look_at = 2 * files
            if self._index.count_exact(self._limit) >= self._limit:
                self.counts.complete = next(rest, None) is None
                return

    def _both(self, masks: StorageRoot) -> Iterator[tuple[ListedObject, bool | None]]:
        # Alternate between the listings: with `limit`, enough pairs are found before either ends.
        inside = masks.uri.removeprefix(self._images.uri) if masks.uri.startswith(self._images.uri) else ""
        images = (entry for entry in self._images.entries() if not inside or not entry.name.startswith(inside))
        around = self._images.uri.removeprefix(masks.uri) if self._images.uri.startswith(masks.uri) else ""
        others = (entry for entry in masks.entries() if not around or not self._is_image_below(entry.name, around))
        both = zip_longest(_marked(images, False), _marked(others, True))
        return (item for item in chain.from_iterable(both) if item is not None)

    def _is_image_below(self, name: str, images: str) -> bool:
        return name.startswith(images) and self._naming.of(name, masks_root=False).kind == "image"

    def _add(self, chunk: list[tuple[ListedObject, bool | None]]) -> None:
        images, masks = [], []
        for entry, masks_root in chunk:
            name = entry.name
            if not _is_text(name):
                self._other("a name that is not UTF-8")
                continue
            place = self._naming.of(name, masks_root=masks_root)
            base = composed(last_part(place.key))
            if place.kind == "image":
                images.append((place.key, name, base, entry.etag))
            elif place.kind == "masks":
                # Only pictures can form a folder of masks.
                folder = folder_of(name) if place.rank >= len(MASKS_SUFFIXES) or self._naming.masks_suffix else ""
                masks.append((place.key, place.rank, name, base, folder, entry.etag))
            elif last_part(name) != SAM_TABLE:  # read with the pictures of its folder
                self._other(extension(name) or "no extension")
        self._index.add_images(images)
        self._index.add_masks(masks)

    def _other(self, ending: str) -> None:
        others = self.counts.others
        others[ending if ending in others or len(others) < _MOST_ENDINGS else "others"] += 1

    def _match(self, file: Path) -> None:
        """Read a dataset file to its end, so that errors in it are raised before anything is submitted."""
        self._index.prepare_look_ups()
        claims: list[tuple[str, str, bool]] = []
        for number, entry in enumerate(self._entries(file), 1):
            self._seen(number)
            self.counts.masks += 1
            found = self._found(entry)
            if len(found) != 1:
                self.counts.masks_without_image += 1
                for names in (
                    self.counts.lonely_masks,
                    *([self.counts.ambiguous_masks] if found else []),
                ):
                    if len(names) < MOST_NAMES:
                        names.append(entry.image)
                continue
            self.counts.pairs += 1
            claims.append((found[0].name, entry.image, found[0].exact))
            if len(claims) >= _CHUNK:
                self._index.claim(claims)
                claims.clear()
            if self.counts.pairs == self._limit:
                self.counts.complete = False
                break
        self._index.claim(claims)
        count, names = self._index.settle_claims()
        self.counts.pairs -= count
        self.counts.masks_without_image += count
        for listed in (self.counts.lonely_masks, self.counts.ambiguous_masks):
            listed += names[: MOST_NAMES - len(listed)]

    def _entries(self, file: Path) -> Iterator[ImageMasks]:
        try:
            if self._file is None:
                self._file = DatasetFile(file, format=self._format, orphans=self.counts.orphans)
            yield from self._file
        except MasksDocumentError as error:
            raise InvalidDocumentError(str(error)) from error
        except OSError as error:
            raise InvalidDocumentError(f"{file} cannot be read: {error.strerror or error}.") from error

    def _found(self, entry: ImageMasks) -> list[Found]:
        name = entry.image.removeprefix("./")
        # COCO's images are named by their ids with twelve digits; its results have the id only.
        for called in (name, f"{name:0>12}") if name.isdigit() else (name,):
            if found := self._index.look_up(called, lambda path: self._naming.of(path, masks_root=False).key):
                return found
        return []

    def _count(self) -> None:
        counts, index = self.counts, self._index
        counts.images = index.count("images")
        counts.images_without_masks = index.count("lonely_images")
        counts.lonely_images = index.some("lonely_images", MOST_NAMES)
        if isinstance(self._masks, Path):
            return
        counts.masks, counts.pairs = index.count("masks"), index.count("pairs")
        counts.masks_without_image = index.count("lonely_masks")
        counts.masks_not_used = index.count("spare_masks")
        counts.lonely_masks = index.some("lonely_masks", MOST_NAMES)

    def _pairs(self) -> Iterator[Pair]:
        if isinstance(self._masks, Path):
            for entry in self._entries(self._masks):
                found = self._found(entry)
                if len(found) == 1 and (found[0].exact or not self._index.is_contested(found[0].name, entry.image)):
                    yield Pair(found[0].name, found[0].etag, inline=entry)
            return
        for image in self._index.images():
            yield Pair(image.name, image.etag, image.partner, image.partner_etag, image.folder, image.pictures)


def _marked(entries: Iterator[ListedObject], masks_root: bool | None) -> Iterator[tuple[ListedObject, bool | None]]:
    return ((entry, masks_root) for entry in entries)


def _is_text(name: str) -> bool:
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
