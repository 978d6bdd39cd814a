"""The masks of many images, from one file or folder, an image at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from maskscore.formats.detection import detect
from maskscore.formats.format import Format
from maskscore.formats.json_stream import items
from maskscore.formats.masks_from_entries import masks_of
from maskscore.formats.optional_modules import formats_extra
from maskscore.formats.outcomes import ImageMasks, MasksDocumentError, Orphans
from maskscore.formats.read_context import ReadContext
from maskscore.formats.registry import format_named

__all__ = ["read_categories", "read_dataset"]

_Reader = Callable[[Path, Orphans], Iterator[ImageMasks]]


def read_dataset(path: Path, *, format: str | None = None, orphans: Orphans | None = None) -> Iterator[ImageMasks]:
    """Yield the masks of each image of a dataset, in the file's order; images without masks, too.

    ``path`` is a file that holds the masks of many images, or a folder that SAM's command line has written (of one
    image, or with a folder per image). ``format`` is a name of :data:`~maskscore.formats.FORMATS`; without it the
    content decides. ``orphans`` counts the annotations that are of none of the file's images; without it, a warning
    says how many there are. Of a file of any size no more than one image's masks are in memory: what must be grouped by
    image lies on the disk meanwhile, in the place for temporary files (``SQLITE_TMPDIR``, ``TMPDIR``), about as large
    as the file.

    Raises :class:`~maskscore.formats.MasksDocumentError`, at once where the format is of one image only, and while it
    yields where the file is damaged further on; OSError where it cannot be read.
    """
    format_ = format_named(format) if format is not None else detect(path)
    if format_.stated is not None and _has_several(path):
        return _read(partial(_documents, format_), path, orphans)
    if format_.images is None:
        raise MasksDocumentError(
            f"{path} has the masks of one image ({format_.name}: {format_.description}), not of a dataset. Give it "
            "beside its image."
        )
    return _read(format_.images, path, orphans)


def read_categories(path: Path, *, format: str | None = None) -> Iterator[Any]:
    """Yield the entries of ``categories`` of a dataset of COCO's kinds, as they are; of other files nothing.

    Raises as :func:`read_dataset` does.
    """
    format_ = format_named(format) if format is not None else detect(path)
    if format_.categories is not None:
        yield from format_.categories(path)


def _has_several(path: Path) -> bool:
    """Say whether the file is a list of documents, or has one in each of its lines."""
    with closing(items(path, "item")) as documents:
        return len(list(islice(documents, 2))) == 2


def _documents(format_: Format, path: Path, _: Orphans) -> Iterator[ImageMasks]:
    assert format_.stated is not None
    for index, document in enumerate(items(path, "item")):
        stated = format_.stated(document)
        name = stated.name
        if not isinstance(name, str):
            raise MasksDocumentError(f"{path}: document {index} of {format_.name} does not name its image.")
        yield ImageMasks(name, masks_of(format_.entries(document, ReadContext()), stated.size), size=stated.size)


def _read(reader: _Reader, path: Path, given: Orphans | None) -> Iterator[ImageMasks]:
    orphans = Orphans() if given is None else given
    with formats_extra():
        yield from reader(path, orphans)
    if given is None and orphans.count:
        warnings.warn(f"{path}: {orphans}; they are left out.", stacklevel=2)
