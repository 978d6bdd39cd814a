"""Tasks and the labelling configuration of Label Studio: images with masks as predictions, a choice per region.

Sources: https://labelstud.io/guide/predictions (tasks with predictions), https://labelstud.io/tags/brushlabels,
https://labelstud.io/tags/polygonlabels (points in percent of the image's sides) and https://labelstud.io/tags/choices
(``perRegion``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import quoteattr

from maskscore.export import ExportedMask
from maskscore.formats import encode_brush
from maskscore.review.judgements import (
    CHOICE_OF_CLASS,
    CHOICE_OF_KEEP,
    DROP,
    KEEP,
    ReviewedImage,
    ReviewedMask,
)
from maskscore.review.mask_sampling import DoubtMeasure, SampledMask
from maskscore.schema import Component, ImageInfo, Mask

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["labelling_configuration", "shape_of", "task_of"]

_IMAGE: Final = "image"
_BRUSH: Final = "brush"
_POLYGON: Final = "polygon"
_LABEL: Final = "mask"
_COLOUR: Final = "#d55e00"


def labelling_configuration(classes: Sequence[str]) -> str:
    """Return the XML: the image, the masks, and per region a choice of keep and drop, or of ``classes``.

    The first nine choices have the keys 1 to 9.
    """
    name, values = (CHOICE_OF_CLASS, classes) if classes else (CHOICE_OF_KEEP, (KEEP, DROP))
    choices = "\n".join(
        f"    <Choice value={quoteattr(value)}" + (f' hotkey="{number}"' if number < 10 else "") + "/>"
        for number, value in enumerate(values, 1)
    )
    return f"""<View>
  <Image name="{_IMAGE}" value="$image" zoom="true" zoomControl="true" brightnessControl="true"/>
  <BrushLabels name="{_BRUSH}" toName="{_IMAGE}">
    <Label value="{_LABEL}" background="{_COLOUR}" hotkey="b"/>
  </BrushLabels>
  <PolygonLabels name="{_POLYGON}" toName="{_IMAGE}">
    <Label value="{_LABEL}" background="{_COLOUR}" hotkey="p"/>
  </PolygonLabels>
  <Choices name="{name}" toName="{_IMAGE}" perRegion="true" choice="single-radio" showInline="true">
{choices}
  </Choices>
</View>
"""


def shape_of(image: ImageInfo, mask: ExportedMask) -> dict[str, Any]:
    """Return a mask as Label Studio's polygon, where it is a single one, or as its brush.

    It is in the frame that a browser shows, which turns an image as its EXIF orientation says. Raises ValueError that
    says what is wrong for a segmentation that cannot be drawn.
    """
    from maskscore.imaging import SWAPS_SIDES

    turned = 1 if image.orientation_applied else image.exif_orientation
    width, height = (image.height, image.width) if turned in SWAPS_SIDES else (image.width, image.height)
    sides = {"to_name": _IMAGE, "original_width": width, "original_height": height, "image_rotation": 0}
    outline = mask.segmentation
    if isinstance(outline, list) and len(outline) == 1 and turned == 1:
        points = [[100 * x / width, 100 * y / height] for x, y in zip(outline[0][0::2], outline[0][1::2], strict=True)]
        value = {"points": points, "closed": True, "polygonlabels": [_LABEL]}
        return {"from_name": _POLYGON, "type": "polygonlabels", **sides, "value": value}
    value = {"format": "rle", "rle": encode_brush(_pixels(image, mask, turned)), "brushlabels": [_LABEL]}
    return {"from_name": _BRUSH, "type": "brushlabels", **sides, "value": value}


def task_of(image: ImageInfo, url: str, shapes: Sequence[tuple[SampledMask, Any]], measure: DoubtMeasure) -> Any:
    """Return one task: an image, and some masks of one job as regions of a prediction, each with its shape."""
    regions: dict[str, ReviewedMask] = {}
    results = []
    for sampled, shape in shapes:
        mask = sampled.mask
        # Label Studio cuts an id off at a '#', so a mask's own id is not one.
        region = f"m{mask.mask_index}" if mask.part is None else f"m{mask.mask_index}p{mask.part}"
        regions[region] = ReviewedMask(
            mask_id=mask.mask_id, part=mask.part, random=sampled.random, value=sampled.value, doubt=sampled.doubt
        )
        results.append({"id": region, **shape, "meta": {"text": [_words(sampled, measure)]}})
    first = shapes[0][0].mask
    about = ReviewedImage(job_id=first.job_id, batch_id=first.batch_id, image=image.uri, regions=regions)
    prediction: dict[str, Any] = {"model_version": "maskscore", "result": results}
    nearest = min((sampled.doubt for sampled, _ in shapes if sampled.doubt is not None), default=math.inf)
    # Label Studio sorts tasks by it, and takes numbers from 0 to 1 alone.
    if nearest <= 1:
        prediction["score"] = nearest
    return {"data": {"image": url, "maskscore": about.model_dump(mode="json")}, "predictions": [prediction]}


def _pixels(image: ImageInfo, mask: ExportedMask, turned: int) -> npt.NDArray[np.bool_]:
    """Return the mask, ``(height, width)`` of the turned frame."""
    import numpy as np
    from PIL import Image

    from maskscore.imaging import TURNS, component_bits

    if mask.box is None:
        raise ValueError(f"the mask {mask.mask_id!r:.60} has no box")
    size = (image.width, image.height)
    picture = Image.new("L", size)
    # A part's segmentation is the part's alone.
    whole = Component(id=mask.mask_id, index=mask.mask_index, box=mask.box, area=mask.area)
    bits = component_bits(Mask(id=mask.mask_id, segmentation=mask.segmentation), whole, mask.box, size)
    picture.paste(bits, mask.box[:2])
    return np.asarray(picture.transpose(TURNS[turned]) if turned in TURNS else picture) > 0


def _words(sampled: SampledMask, measure: DoubtMeasure) -> str:
    """Return what the person reads of a region: its id and its scores."""
    mask = sampled.mask
    name = mask.mask_id if mask.part is None else f"{mask.mask_id}, part {mask.part}"
    said = [name]
    if mask.s_pos is not None and mask.s_neg is not None:
        said.append(f"{mask.s_pos_text} {mask.s_pos:.3f}, {mask.s_neg_text} {mask.s_neg:.3f}")
    if mask.semantic_multiplier is not None:
        said.append(f"multiplier {mask.semantic_multiplier}")
    if sampled.value is not None:
        said.append(f"{measure.name} {sampled.value:+.3f}, threshold {measure.threshold:g}")
    return "; ".join(said)
