"""The masks of many images, from one file or folder, an image at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from maskscore.formats.containers import opened
from maskscore.formats.detection import detect
from maskscore.formats.format import Format
from maskscore.formats.json_stream import Grouped, items
from maskscore.formats.label_studio import entries_of_task, task_image, task_size
from maskscore.formats.layouts import layout_named
from maskscore.formats.masks_from_entries import masks_of
from maskscore.formats.optional_modules import formats_extra
from maskscore.formats.outcomes import ImageMasks, MasksDocumentError, Orphans
from maskscore.formats.read_context import ReadContext
from maskscore.formats.registry import REGISTERED
from maskscore.formats.results import image_of_entry, stated_size
from maskscore.schema import id_key, plain_id

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
    layout = layout_named(format) if format is not None else detect(path)
    registered = REGISTERED.get(layout.name)
    if registered is not None and registered.stated is not None and _has_several(path):
        return _read(_without_orphans(partial(_documents, registered)), path, orphans)
    if layout.scope == "image":
        raise MasksDocumentError(
            f"{path} has the masks of one image ({layout.name}: {layout.description}), not of a dataset. Give it "
            "beside its image."
        )
    reader = _READERS[layout.name] if registered is None else _without_orphans(registered.images)
    return _read(reader, path, orphans)


def read_categories(path: Path, *, format: str | None = None) -> Iterator[Any]:
    """Yield the entries of ``categories`` of a dataset of COCO's kinds, as they are; of other files nothing.

    Raises as :func:`read_dataset` does.
    """
    layout = layout_named(format) if format is not None else detect(path)
    if _READERS.get(layout.name) is _coco:
        yield from items(path, "categories.item")


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


def _without_orphans(images: Callable[[Path], Iterator[ImageMasks]] | None) -> _Reader:
    assert images is not None
    return lambda path, _: images(path)


def _read(reader: _Reader, path: Path, given: Orphans | None) -> Iterator[ImageMasks]:
    orphans = Orphans() if given is None else given
    with formats_extra():
        yield from reader(path, orphans)
    if given is None and orphans.count:
        warnings.warn(f"{path}: {orphans}; they are left out.", stacklevel=2)


def _coco(path: Path, orphans: Orphans) -> Iterator[ImageMasks]:
    with closing(Grouped()) as grouped:
        grouped.add_images(items(path, "images.item"))
        grouped.add_annotations(items(path, "annotations.item"), lambda entry: id_key(entry.get("image_id")))
        grouped.count_orphans(orphans, listed=True)
        for image in grouped.images():
            image_id, size = plain_id(image.get("id")), stated_size(image)
            if image_id is None and not _has_name(image):
                continue
            entries = grouped.annotations(id_key(image_id))
            if entries and "segments_info" in entries[0]:
                from maskscore.formats.panoptic import entries_of_panoptic

                entries = entries_of_panoptic(entries, path)
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


def _results(path: Path, orphans: Orphans) -> Iterator[ImageMasks]:
    with closing(Grouped()) as grouped:
        grouped.add_annotations(items(path, "item"), image_of_entry)
        grouped.count_orphans(orphans, listed=False)
        for key, first in grouped.annotated():
            name, image_id = first.get("file_name"), plain_id(first.get("image_id"))
            yield ImageMasks(name if isinstance(name, str) else key, masks_of(grouped.annotations(key)), image_id)


def _label_studio(path: Path, _: Orphans) -> Iterator[ImageMasks]:
    for task in items(path, "item"):
        if isinstance(task, dict):
            task_id, size = task.get("id"), task_size(task)
            known_id = task_id if isinstance(task_id, str) else plain_id(task_id)
            name = task_image(task) or str(known_id)
            yield ImageMasks(name, masks_of(entries_of_task(task, ReadContext()), size), known_id, size)


def _cvat(path: Path, _: Orphans) -> Iterator[ImageMasks]:
    from maskscore.formats.cvat import images_of_cvat

    with opened(path) as file:
        yield from images_of_cvat(file)


def _sam_folder(path: Path, _: Orphans) -> Iterator[ImageMasks]:
    from maskscore.formats.sam_folder import images_of_sam_output

    yield from images_of_sam_output(path)


_READERS: Mapping[str, _Reader] = {
    "coco": _coco,
    "lvis": _coco,
    "coco-panoptic": _coco,
    "detectron2": _results,
    "label-studio": _label_studio,
    "cvat": _cvat,
    "sam-folder": _sam_folder,
}
