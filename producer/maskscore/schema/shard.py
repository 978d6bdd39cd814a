"""The shard document: many images that one worker streams into Parquet parts. JSON, ``version`` 1.

docs/explanation/shards.md describes the documents and the tables of the parts.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field
from pydantic_core import from_json

from maskscore.errors import FailureCode, JobError
from maskscore.schema.document import Document, read_document
from maskscore.schema.job import (
    ImageAndMasks,
    ImageRef,
    Job,
    JobId,
    MasksFormat,
    MasksOfImage,
    ObjectVersion,
    Orientation,
    Priority,
    Uri,
    parse_fields,
)
from maskscore.schema.scoring_options import ScoringOptions

__all__ = [
    "ImageMasksPair",
    "PairsSource",
    "PartsSource",
    "Shard",
    "ShardCounts",
    "ShardCursor",
    "ShardOutcome",
    "TarSource",
    "is_shard",
    "job_or_shard",
    "parse_job_or_shard",
    "parse_shard",
]

SHARD_VERSION: Final = 1
# Some thirty years, in seconds, as for jobs.
_LONGEST_S: Final = 1e9


class TarSource(Document):
    """A tar file: ``s3://bucket/key`` or ``file:///path``, which may be compressed (``.tar.gz``, ``.tar.zst``).

    ``etag`` pins the object: a shard submitted for one version never scores another. With ``members``, the names of
    images or of masks files, only these images are scored, each with its masks.
    """

    kind: Literal["tar"] = "tar"
    uri: Uri
    etag: ObjectVersion | None = None
    # Documents without them stay byte for byte what earlier releases write and read.
    members: Annotated[list[Uri], Field(min_length=1, max_length=10_000)] | None = Field(
        None, exclude_if=lambda names: names is None
    )


class PairsSource(Document):
    """A list of loose pairs: an object of JSON Lines, each an :class:`ImageMasksPair`.

    The list is an object of its own because thousands of URIs would be too large for Redis.
    """

    kind: Literal["pairs"] = "pairs"
    uri: Uri
    etag: ObjectVersion | None = None


class PartsSource(Document):
    """Earlier parts with embeddings, which are scored again without their images.

    They are those of the shard's name, numbers 0 to ``parts`` - 1, below ``uri``: ``s3://bucket/prefix/`` or
    ``file:///folder/``. ``etag`` is the digest that they have in common: of their document and their source.
    """

    kind: Literal["parts"] = "parts"
    uri: Annotated[Uri, Field(pattern=r"/$")]
    parts: int = Field(ge=1)
    etag: ObjectVersion | None = None


class ImageMasksPair(ImageAndMasks):
    """One line of a :class:`PairsSource`: an image and its masks, as in a job document."""

    image: ImageRef
    masks: MasksOfImage


class Shard(Document):
    """Many images that are scored by one worker, in their order, into parts.

    A part is two Parquet files below ``output_uri``: ``masks/NAME-00003.parquet`` and ``images/NAME-00003.parquet``,
    numbered from 0. It ends after ``part_images`` images, or after the image with which it has ``part_masks`` masks; of
    a :class:`PartsSource`, where the earlier part does. Names of shards must be unique below one ``output_uri``.

    Raises :class:`pydantic.ValidationError` for unknown fields and bad values.
    """

    document: Literal["shard"] = "shard"
    version: Literal[1] = SHARD_VERSION
    shard_id: JobId = Field(default_factory=lambda: uuid.uuid4().hex)
    batch_id: JobId | None = None
    source: Annotated[TarSource | PairsSource | PartsSource, Discriminator("kind")]
    masks_format: MasksFormat | None = Field(None, description="Of the masks in a tar; without it the content decides.")
    orientation: Orientation = Field("auto", description="Of the images in a tar; see `ImageRef`.")
    options: ScoringOptions = ScoringOptions()
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$", description="What its parts are called.")
    output_uri: Annotated[Uri, Field(pattern=r"^(s3://[^/]+/(.*/)?|file:///.+/)$")] = Field(
        description="`s3://bucket/prefix/`, or `file:///folder/` on the workers' machines."
    )
    part_images: int = Field(1000, ge=1, le=100_000, description="Most images of a part.")
    part_masks: int = Field(100_000, ge=1, le=10_000_000, description="Masks after which a part ends.")
    priority: Priority = "normal"
    tenant: JobId | None = None
    expires_in: float | None = Field(None, gt=0, le=_LONGEST_S, allow_inf_nan=False)

    @property
    def job_id(self) -> str:
        """The shard's id: it is a job of the ledger."""
        return self.shard_id

    def digest(self, etag: str) -> str:
        """Return what its parts have in common: of all that decides what is in them, and its source's ETag."""
        of_queue = {"priority", "tenant", "expires_in"}
        return hashlib.sha256(f"{etag} {self.model_dump_json(exclude=of_queue)}".encode()).hexdigest()[:32]


class ShardCounts(Document):
    """What the committed parts of a shard hold."""

    images: int = Field(0, description="Rows of `images`, also those of failed images and of lonely masks files.")
    failed: int = Field(0, description="Those of them that are not `succeeded`.")
    masks: int = Field(0, description="Rows of `masks`.")
    skipped: int = Field(0, description="Those of them that have no score.")
    others: int = Field(0, description="Members of the tar that are neither images nor masks files.")

    def __add__(self, other: ShardCounts) -> ShardCounts:
        names = type(self).model_fields
        return ShardCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})


class ShardCursor(Document):
    """Where a shard goes on after its last committed part; a new shard starts with ``ShardCursor()``.

    ``offset`` is a byte of the (decompressed) tar, the number of pairs done of a list, or 0 for parts. ``held`` has the
    offsets of members before it whose partner comes later: base64 of ascending LEB128 differences, about two bytes per
    member.
    """

    version: Literal[1] = SHARD_VERSION
    part: int = Field(0, ge=0, description="Number of the next part.")
    etag: ObjectVersion | None = Field(None, description="Of the source that the parts before are of.")
    offset: int = Field(0, ge=0)
    held: str = ""
    done: bool = Field(False, description="Whether the last part is committed.")
    counts: ShardCounts = ShardCounts()


class ShardOutcome(Document):
    """What has become of a shard, in its result: ``parts`` parts of this ``name`` below ``output_uri``."""

    name: str
    output_uri: Uri
    parts: int
    counts: ShardCounts


def is_shard(document: bytes) -> bool:
    """Whether a document is that of a shard, and no job's, as both are written by this package."""
    return document.startswith(b'{"document":"shard"')


def parse_shard(document: bytes | str) -> Shard:
    """Read a shard document.

    Raises :class:`~maskscore.errors.JobError` with ``document_version_unsupported`` for another version and
    ``document_invalid`` for everything else that does not fit.
    """
    try:
        fields = from_json(document)
    except ValueError as error:
        raise JobError(FailureCode.DOCUMENT_INVALID, f"The shard document is not JSON: {error}.") from error
    if not isinstance(fields, dict) or fields.get("document") != "shard":
        raise JobError(FailureCode.DOCUMENT_INVALID, "The document is no shard: it has no `document` of `shard`.")
    return read_document(fields, Shard, what="shard", version=SHARD_VERSION)


def parse_job_or_shard(document: bytes | str) -> Job | Shard:
    """Read a document of a job, or of a shard, which has ``document`` of ``shard``; raises as :func:`parse_job`."""
    try:
        fields = from_json(document)
    except ValueError as error:
        raise JobError(FailureCode.DOCUMENT_INVALID, f"The document is not JSON: {error}.") from error
    return job_or_shard(fields)


def job_or_shard(fields: object) -> Job | Shard:
    """Read a document that is parsed JSON already; raises as :func:`parse_job_or_shard` does."""
    if isinstance(fields, dict) and "document" in fields:
        return read_document(fields, Shard, what="shard", version=SHARD_VERSION)
    return parse_fields(fields)
