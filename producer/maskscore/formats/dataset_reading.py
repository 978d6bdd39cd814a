"""The masks of many images, from one file or folder, an image at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

from maskscore.formats.detection import detect
from maskscore.formats.format import Format, Grouping, formats_extra
from maskscore.formats.image_masks import ImageMasks, MasksDocumentError, Orphans
from maskscore.formats.json_stream import Grouped, items
from maskscore.formats.masks_from_entries import masks_of
from maskscore.formats.read_context import ReadContext
from maskscore.formats.registry import format_named

__all__ = ["DatasetFile", "read_categories", "read_dataset"]


class DatasetFile:
    """The masks of many images, in one file or folder; may be iterated several times. A context manager.

    Iterating yields the masks of each image in the file's order; images without masks, too. Of a file of any size no
    more than one image's masks are in memory. What must be grouped by image (COCO, lists of results) is read in one
    pass, and lies on the disk until :meth:`close`, in the place for temporary files (``SQLITE_TMPDIR``, ``TMPDIR``),
    about as large as the file; every further iteration reads it from there. Used by one thread at a time.

    Parameters
    ----------
    path: a file that holds the masks of many images, or a folder that SAM's command line has written (of one image, or
        with a folder per image).
    format: a name of :data:`~maskscore.formats.FORMATS`; without it the content decides.
    orphans: counts the annotations that are of none of the file's images, during the first iteration.

    Raises :class:`~maskscore.formats.MasksDocumentError`, at once where the format is of one image only, and while it
    yields where the file is damaged further on; OSError where it cannot be read.
    """

    def __init__(self, path: Path, *, format: str | None = None, orphans: Orphans | None = None) -> None:
        self.path = path
        self._orphans = orphans if orphans is not None else Orphans()
        self._is_guess = format is None
        self._format = format_named(format) if format is not None else detect(path, head_only=True)
        self._grouped: Grouped | None = None
        self._has_documents = self._format.stated is not None and _has_several(path)
        if self._format.images is None and self._format.grouping is None and not self._has_documents:
            raise MasksDocumentError(
                f"{path} has the masks of one image ({self._format.name}: {self._format.description}), not of a "
                "dataset. Give it beside its image."
            )

    def __enter__(self) -> DatasetFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was grouped."""
        if self._grouped is not None:
            self._grouped.close()
            self._grouped = None

    def __iter__(self) -> Iterator[ImageMasks]:
        orphans, self._orphans = self._orphans, Orphans()
        with formats_extra():
            if self._has_documents:
                yield from _documents(self._format, self.path)
            elif self._format.grouping is not None:
                yield from self._format.grouping.images(self.path, self._group(self._format.grouping), orphans)
            elif self._format.images is not None:
                yield from self._format.images(self.path, orphans)

    def categories(self) -> Iterator[Any]:
        """Yield the entries of ``categories`` of a file of COCO's kinds, as they are; of other files nothing."""
        if self._format.grouping is not None:
            yield from self._group(self._format.grouping).categories()

    def _group(self, grouping: Grouping) -> Grouped:
        if self._grouped is None:
            with ExitStack() as unless_done:
                grouped = Grouped()
                unless_done.callback(grouped.close)
                grouping.fill(self.path, grouped)
                grouped.index()
                if self._is_guess and not grouped.has_annotations:
                    # The head alone does not say whether there is a list of annotations; the whole file does.
                    detect(self.path)
                unless_done.pop_all()
            self._grouped = grouped
        return self._grouped


def read_dataset(path: Path, *, format: str | None = None, orphans: Orphans | None = None) -> Iterator[ImageMasks]:
    """Yield the masks of each image of a dataset: one iteration of :class:`DatasetFile`, and raises as it does.

    Without ``orphans``, a warning says how many annotations are of none of the file's images.
    """
    counted = Orphans() if orphans is None else orphans
    return _read_once(DatasetFile(path, format=format, orphans=counted), None if orphans is not None else counted)


def read_categories(path: Path, *, format: str | None = None) -> Iterator[Any]:
    """Yield the entries of ``categories`` of a file of COCO's kinds, as they are; of other files nothing.

    Raises as :class:`DatasetFile` does, but not for a file of one image.
    """
    format_ = format_named(format) if format is not None else detect(path, head_only=True)
    if format_.grouping is not None:
        with DatasetFile(path, format=format_.name) as dataset:
            yield from dataset.categories()


def _read_once(dataset: DatasetFile, warned_of: Orphans | None) -> Iterator[ImageMasks]:
    with dataset:
        yield from dataset
        if warned_of is not None and warned_of.count:
            warnings.warn(f"{dataset.path}: {warned_of}; they are left out.", stacklevel=2)


def _has_several(path: Path) -> bool:
    """Say whether the file is a list of documents, or has one in each of its lines."""
    with closing(items(path, "item")) as documents:
        return len(list(islice(documents, 2))) == 2


def _documents(format_: Format, path: Path) -> Iterator[ImageMasks]:
    assert format_.stated is not None
    for index, document in enumerate(items(path, "item")):
        stated = format_.stated(document)
        name = stated.name
        if not isinstance(name, str):
            raise MasksDocumentError(f"{path}: document {index} of {format_.name} does not name its image.")
        yield ImageMasks(name, masks_of(format_.entries(document, ReadContext()), stated.size), size=stated.size)
