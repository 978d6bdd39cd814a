"""What became of one image of a shard: the row of ``images``, and its rows of ``masks``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskscore.schema import JobResult

__all__ = ["ImageOutcome"]


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """One image of a shard.

    Parameters
    ----------
    result: ``succeeded`` with components, or ``failed`` with an error; its ``job_id`` and ``batch_id`` are the shard's.
    image, masks: URIs; ``image`` is ``None`` for masks without an image and for damage.
    segmentations: of each component, COCO RLE (size, compressed counts) or polygons; ``None`` where there is none.
    etag: of the image, or of the tar that it stands in.
    image_offset, image_bytes: where the image's bytes stand in a plain tar.
    """

    result: JobResult
    image: str | None
    masks: str | None = None
    segmentations: Sequence[Any] = ()
    etag: str | None = None
    image_offset: int | None = None
    image_bytes: int | None = None
