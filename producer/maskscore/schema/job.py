"""The job document: what an upstream service asks for. JSON on the wire, ``version`` 1."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import from_json

from maskscore.errors import FailureCode, JobError
from maskscore.schema.document import MOST_LEVELS, Document, assembled, deeper, read_document
from maskscore.schema.nested_bitmaps import rle_of_rows, rows_of_bitmap
from maskscore.schema.scoring_options import Method, ScoringOptions, ShortText, SigmoidThresholds, Thresholds
from maskscore.schema.views import Frame, Treatment, View

__all__ = [
    "RLE",
    "Frame",
    "ImageAndMasks",
    "ImageRef",
    "Job",
    "JobId",
    "Mask",
    "MasksFormat",
    "MasksOfImage",
    "MasksRef",
    "Method",
    "Orientation",
    "PolygonConvention",
    "Polygons",
    "Priority",
    "ScoringOptions",
    "SigmoidThresholds",
    "Thresholds",
    "Treatment",
    "View",
    "parse_fields",
    "parse_job",
]

DOCUMENT_VERSION: Final = 1

Orientation = Literal["auto", "apply", "ignore"]
Priority = Literal["high", "normal", "low"]
MasksFormat = Literal[
    "maskscore",
    "sam",
    "sa1b",
    "coco",
    "lvis",
    "coco-panoptic",
    "detectron2",
    "ultralytics",
    "yolo",
    "label-studio",
    "cvat",
    "png-labels",
    "png-binary",
    "npz",
    "grounded-sam2",
    "mmdet",
    "label-studio-min",
    "labelme",
    "via",
    "supervisely",
    "kitti-mots",
]
# S3's keys have at most 1,024 bytes, paths 4,096; percent signs make a file's URI longer.
_MOST_URI: Final = 16_384
# Some thirty years, in seconds.
_LONGEST_S: Final = 1e9
Uri = Annotated[str, Field(max_length=_MOST_URI)]
# Sent in a request's header and query, where nothing but visible ASCII can stand.
ObjectVersion = Annotated[str, Field(max_length=1024, pattern=r"^[\x20-\x7e]*$")]
JOB_ID_PATTERN: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")
JobId = Annotated[str, Field(pattern=JOB_ID_PATTERN.pattern)]


class RLE(Document):
    """A mask as COCO run-length encoding, column-major, the first run counting zeros.

    ``size`` is ``(height, width)`` in pixels. ``counts`` is COCO's compressed text (``bytes`` are accepted and read
    as ASCII) or the uncompressed list of run lengths. The counts themselves are checked where they are decoded, in
    the worker, so that one bad mask costs its own score and not its job.
    """

    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    counts: str | Annotated[list[int], Field(fail_fast=True)]

    @field_validator("counts", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return value.decode("latin-1") if isinstance(value, bytes) else value


# One bad number says enough: an error for each of millions would take gigabytes.
Polygons = Annotated[list[Annotated[list[float], Field(fail_fast=True)]], Field(fail_fast=True)]
"""Polygons: one flat ``[x1, y1, x2, y2, …]`` list per part, in pixels of the image."""

PolygonConvention = Literal["coco", "opencv"]
"""Where a polygon's points lie, and which pixels it takes.

``coco``: (0, 0) is the corner of the first pixel, and pixels are taken as by COCO's ``rleFrPoly``. ``opencv``: (0, 0)
is the middle of the first pixel, each point is moved to the nearest pixel, and the pixels under the outline are inside,
as ``cv2.findContours`` writes outlines and ``cv2.fillPoly`` draws them.
"""


def _with_bitmaps(schema: dict[str, Any]) -> None:
    """Say in the JSON Schema what the validator takes besides: H rows of W booleans."""
    row = {"type": "array", "minItems": 1, "items": {"type": "boolean"}}
    rows = {"type": "array", "minItems": 1, "items": row}
    schema["anyOf" if "anyOf" in schema else "oneOf"].append(rows)


class Mask(BaseModel):
    """One mask to score.

    ``segmentation`` is an RLE, polygons, or a bitmap: H rows of W booleans (or 0 and 1), which becomes an RLE.
    ``polygon_convention`` says how the tool that wrote the polygons draws them; ``None`` is ``coco``. ``polygon_size``
    is ``(height, width)`` of the image that the polygons are in pixels of, in the frame (turned by EXIF, or as stored)
    that they use; it decides between the two where the image has an EXIF orientation. RLEs have their own ``size``.

    Any further field of the upstream tool (``predicted_iou``, ``stability_score``, ``category_id``, …) may be given
    and comes back untouched in the component's ``upstream``; it may be nested :data:`MOST_LEVELS` deep.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    id: Annotated[str, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}]}, mode="validation")]
    segmentation: Annotated[
        Annotated[RLE, Tag("rle")] | Annotated[Polygons, Tag("polygons")],
        Discriminator(lambda value: "polygons" if isinstance(value, list) else "rle"),
        Field(json_schema_extra=_with_bitmaps),
    ]
    # Documents without these stay byte for byte what earlier releases write and read.
    polygon_convention: PolygonConvention | None = Field(None, exclude_if=lambda value: value is None)
    polygon_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        None, exclude_if=lambda value: value is None
    )

    @field_validator("id", mode="before")
    @classmethod
    def _id_text(cls, value: object) -> object:
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("segmentation", mode="before")
    @classmethod
    def _no_rows(cls, value: object) -> object:
        rows = rows_of_bitmap(value) if isinstance(value, list) else None
        return value if rows is None else rle_of_rows(rows)

    @model_validator(mode="after")
    def _shallow(self) -> Mask:
        deep = [name for name, value in self.upstream.items() if deeper(value, MOST_LEVELS)]
        if deep:
            raise ValueError(f"the field {deep[0]!r:.60} is nested more than {MOST_LEVELS} levels deep")
        return self

    @property
    def upstream(self) -> dict[str, Any]:
        """The fields that maskscore does not know, as they were given."""
        return dict(self.model_extra or {})

    @classmethod
    def of_compressed(cls, mask_id: str, size: tuple[int, int], counts: str, upstream: dict[str, Any]) -> Mask:
        """Return the mask that validating these would give, in a tenth of the time.

        ``size`` is ``(height, width)``, both at least 1; ``upstream`` has no field that a mask knows, and is not nested
        deeper than :data:`MOST_LEVELS`.
        """
        rle = assembled(RLE, {"size": size, "counts": counts})
        return assembled(cls, {"id": mask_id, "segmentation": rle}, upstream)


class MasksRef(Document):
    """Masks kept in an object, in any layout that :func:`maskscore.formats.read_masks` reads.

    ``format`` names the layout (:data:`maskscore.formats.FORMATS`, but for folders); without it the content decides.
    In a file of many images the job's image is found by ``image_id``, or else by the image's file name.
    """

    uri: Uri
    etag: ObjectVersion | None = None
    image_id: int | ShortText | None = None
    # Documents that name no format stay byte for byte what earlier releases write and read.
    format: MasksFormat | None = Field(None, exclude_if=lambda name: name is None)


class ImageRef(Document):
    """The image to crop from.

    ``etag`` or ``version_id`` pin the object: a job submitted for one version never scores another.
    ``orientation`` says what to do with an EXIF orientation: ``auto`` picks the frame (turned or as stored) whose
    size fits the masks, ``apply`` turns, ``ignore`` does not.
    """

    uri: Uri
    etag: ObjectVersion | None = None
    version_id: ObjectVersion | None = None
    orientation: Orientation = "auto"


def _with_uris_alone(schema: dict[str, Any]) -> None:
    """Say in the JSON Schema what the validator takes: ``image`` and ``masks`` may be the URI alone."""
    properties = schema["properties"]
    uri = {"type": "string", "maxLength": _MOST_URI}
    for name in ("image", "masks"):
        properties[name] = {"anyOf": [properties[name], uri]}


def _unique_ids(masks: list[Mask] | MasksRef) -> list[Mask] | MasksRef:
    if isinstance(masks, list):
        repeated = [mask_id for mask_id, n in Counter(mask.id for mask in masks).items() if n > 1]
        if repeated:
            raise ValueError(f"mask ids must be unique within a job; given more than once: {repeated[:5]}")
    return masks


MasksOfImage = Annotated[
    Annotated[list[Mask], Field(fail_fast=True), Tag("inline")] | Annotated[MasksRef, Tag("object")],
    Discriminator(lambda value: "inline" if isinstance(value, list | tuple) else "object"),
    AfterValidator(_unique_ids),
]


class ImageAndMasks(Document):
    """What a document with ``image`` and ``masks`` takes besides: the URI of either alone, and NaN."""

    # NaN travels as such: one polygon with a NaN is a mask to skip, not a job to refuse.
    model_config = ConfigDict(ser_json_inf_nan="constants", json_schema_extra=_with_uris_alone)

    @model_validator(mode="before")
    @classmethod
    def _uris_alone(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        uris = {name: {"uri": fields[name]} for name in ("image", "masks") if isinstance(fields.get(name), str)}
        return {**fields, **uris}


class Job(ImageAndMasks):
    """One image and its masks, to be scored together.

    ``job_id`` is made here, by the caller's side, so that a submit repeated after a lost answer is the same job.
    ``tenant`` is who the job is run for: jobs of one priority are taken from the tenants by turns, from each the oldest
    first; without one, the batch is the tenant. ``expires_in`` (seconds) ends a job that is still queued then.
    ``result_uri`` (``s3://bucket/prefix/`` or ``s3://bucket/key.json``) stores the result as an object; without it the
    result is kept in Redis.

    Raises :class:`pydantic.ValidationError` for unknown fields, bad values and duplicate mask ids.
    """

    version: Literal[1] = DOCUMENT_VERSION
    job_id: JobId = Field(default_factory=lambda: uuid.uuid4().hex)
    batch_id: JobId | None = None
    image: ImageRef
    masks: MasksOfImage
    options: ScoringOptions = ScoringOptions()
    priority: Priority = "normal"
    # Documents without one stay byte for byte what earlier releases write and read.
    tenant: JobId | None = Field(None, exclude_if=lambda name: name is None)
    expires_in: float | None = Field(None, gt=0, le=_LONGEST_S, allow_inf_nan=False)
    result_uri: Uri | None = None


def parse_job(document: bytes | str) -> Job:
    """Read a job document.

    Raises :class:`~maskscore.errors.JobError` with ``document_version_unsupported`` for another version and
    ``document_invalid`` for everything else that does not fit.
    """
    try:
        fields = from_json(document)
    except ValueError as error:
        raise JobError(FailureCode.DOCUMENT_INVALID, f"The job document is not JSON: {error}.") from error
    return parse_fields(fields)


def parse_fields(fields: object) -> Job:
    """Read a job document that is parsed JSON already; raises as :func:`parse_job` does."""
    if not isinstance(fields, dict):
        raise JobError(FailureCode.DOCUMENT_INVALID, "The job document must be a JSON object.")
    return read_document(fields, Job, what="job", version=DOCUMENT_VERSION)
