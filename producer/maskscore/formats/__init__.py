"""Masks from the files of other tools. The content of a file shows its format, or ``format=`` names it.

- :func:`read_masks`: the masks of one image, from the bytes of one object or file. Workers read with it what a job
  names by URI.
- :func:`read_dataset`: the masks of many images, from one file or folder, an image at a time, in bounded memory.
- :func:`read_categories`: what such a file says of its categories.
- :class:`DatasetFile`: the same for several iterations, and with the categories; COCO is read in one pass.
- :func:`detect`: which :class:`Format` a file has; its ``scope`` says whether it is of one image or of many.
- :data:`FORMATS`: the formats by name, for ``--format``.
- :func:`from_sam`, :func:`from_arrays`, :func:`from_ultralytics`, :func:`from_detectron2`: masks of what a segmenter
  has returned in this very process; they need NumPy.
- :func:`encode_brush`: a mask as Label Studio keeps it; it needs NumPy.

What cannot be used at all raises :class:`MasksDocumentError`; a single entry that is no mask is an
:class:`UnreadableMask` in its place. JSON is read with the base install alone; arrays, PNG, XML and packed brushes need
``pip install "maskscore[formats]"``, which a worker has.
"""

from __future__ import annotations

from maskscore.formats.containers import unwrapped
from maskscore.formats.dataset_reading import DatasetFile, read_categories, read_dataset
from maskscore.formats.detection import detect, kind_of
from maskscore.formats.file_names import (
    IMAGE_SUFFIXES,
    JPEG_RANK,
    MASKS_SUFFIXES,
    FileRole,
    Naming,
    extension,
    folder_of,
    last_part,
)
from maskscore.formats.format import Format, formats_extra
from maskscore.formats.image_masks import ImageMasks, MasksDocumentError, Orphans, UnreadableMask
from maskscore.formats.image_names import best, composed, likeness, parts_of, spellings
from maskscore.formats.image_reading import read_masks
from maskscore.formats.label_studio_brush import encode_brush
from maskscore.formats.masks_from_entries import id_of, masks_of
from maskscore.formats.read_context import ReadContext
from maskscore.formats.registry import FORMATS
from maskscore.formats.sam_folder import SAM_TABLE
from maskscore.formats.segmenter_outputs import from_arrays, from_detectron2, from_sam, from_ultralytics
from maskscore.formats.vos import VOS, entries_of_pictures, frame_of

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "JPEG_RANK",
    "MASKS_SUFFIXES",
    "SAM_TABLE",
    "VOS",
    "DatasetFile",
    "FileRole",
    "Format",
    "ImageMasks",
    "MasksDocumentError",
    "Naming",
    "Orphans",
    "ReadContext",
    "UnreadableMask",
    "best",
    "composed",
    "detect",
    "encode_brush",
    "entries_of_pictures",
    "extension",
    "folder_of",
    "formats_extra",
    "frame_of",
    "from_arrays",
    "from_detectron2",
    "from_sam",
    "from_ultralytics",
    "id_of",
    "kind_of",
    "last_part",
    "likeness",
    "masks_of",
    "parts_of",
    "read_categories",
    "read_dataset",
    "read_masks",
    "spellings",
    "unwrapped",
]
