"""One mask of an export: what a line of JSON Lines and a row of Parquet say."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from maskscore.schema import Box, Component, Document, JobResult, Method, PromptScore, Treatment

__all__ = ["DECISIONS", "DisplacedMask", "ExportedMask", "exported_mask"]


DECISIONS: Final = ("p_keep", "keep", "head_class", "head")
"""Fields that only masks have on which a head has decided."""


def _is_none(value: object) -> bool:
    return value is None


class DisplacedMask(Document):
    """A mask that was left out because of the one that is exported: a copy or a part of it, or its whole."""

    job_id: str
    mask_id: str
    part: int | None = None
    rule: str = Field(description="nms, drop-parts or drop-wholes.")
    overlap: float = Field(description="IoU for nms; else the share of the smaller mask inside the larger one.")


class ExportedMask(Document):
    """One mask, or with ``split_components`` one connected part of it, of one image."""

    image: str = Field(description="URI of the image.")
    image_width: int = Field(description="Pixels, in the frame that box and segmentation use.")
    image_height: int = Field(description="Pixels.")
    job_id: str = Field(description="Job that scored it.")
    batch_id: str | None = Field(None, description="Batch of the job.")
    mask_id: str = Field(description="Id of the mask within its job, as the upstream tool gave it.")
    mask_index: int = Field(description="Position of the mask in the job, from 0.")
    part: int | None = Field(None, description="Number of the connected component, largest first, from 0.")
    box: Box | None = Field(None, description="x, y, width, height in pixels, computed from the mask.")
    area: int | None = Field(None, description="Pixels in the mask.")
    rank_score: float | None = Field(None, description="What masks are ranked by; the larger, the better.")
    semantic_multiplier: float | None = Field(
        None,
        description="2 surely an object, 1 probably, 0.5 unclear (method sigmoid: no prompt fits), 0.1 background or "
        "fragment.",
    )
    s_pos: float | None = Field(None, description="Probability (method cosine: cosine) of the best positive prompt.")
    s_neg: float | None = Field(None, description="Probability (method cosine: cosine) of the best negative prompt.")
    s_pos_text: str | None = Field(None, description="The best positive prompt.")
    s_neg_text: str | None = Field(None, description="The best negative prompt.")
    p_pos_sum: float | None = Field(None, description="Probability of all positive prompts together (method softmax).")
    p_neg_sum: float | None = Field(None, description="Probability of all negative prompts together (method softmax).")
    p_keep: float | None = Field(
        None, exclude_if=_is_none, description="Probability by a head that the mask is to be kept."
    )
    keep: bool | None = Field(None, exclude_if=_is_none, description="Whether p_keep reaches the head's threshold.")
    head_class: str | None = Field(
        None, exclude_if=_is_none, description="Most probable class, by a head that tells classes apart."
    )
    head: str | None = Field(None, exclude_if=_is_none, description="Name and digest of the head: NAME@sha256:...")
    skipped: str | None = Field(None, description="Code of why the mask has no score.")
    method: Method | None = Field(None, description="softmax, sigmoid or cosine.")
    treatment: Treatment | None = Field(None, description="How the crop was treated.")
    views: str | None = Field(None, description="Treatment and frame, and those averaged: blur/context+raw_crop.")
    prompts_digest: str | None = Field(None, description="Which prompts were asked: sha256 of their three groups.")
    weights_digest: str | None = Field(None, description="Which weights answered: sha256 of their file.")
    top_k: list[PromptScore] | None = Field(None, description="The best prompts, where the job asked for them.")
    embedding: str | None = Field(None, description="The feature where the job asked for it, fp16, little-endian.")
    segmentation: Any = Field(None, description="COCO RLE (size, compressed counts) or COCO polygons.")
    upstream: dict[str, Any] = Field(default_factory=dict, description="Further fields of the upstream tool.")
    # Exports that do not ask for these are byte for byte what they were.
    label: str | None = Field(
        None,
        exclude_if=_is_none,
        description="With --label-from: the best prompt or the head's class, or its entry in the file of classes.",
    )
    displaced: list[DisplacedMask] | None = Field(
        None,
        exclude_if=_is_none,
        description="Masks that were left out because of this one, with --nms, --drop-parts or --drop-wholes.",
    )


def exported_mask(
    result: JobResult, component: Component, *, rank_score: float | None, segmentation: Any, label: str | None = None
) -> ExportedMask:
    """Return a component of a succeeded job's result as it is exported."""
    image = result.image
    if image is None:
        raise ValueError(f"the result of job {result.job_id} has no image")
    # Its values are valid already: they come from documents that were.
    return ExportedMask.model_construct(
        image=image.uri,
        image_width=image.width,
        image_height=image.height,
        job_id=result.job_id,
        batch_id=result.batch_id,
        mask_id=component.id,
        mask_index=component.index,
        part=component.part,
        box=component.box,
        area=component.area,
        rank_score=rank_score,
        semantic_multiplier=component.semantic_multiplier,
        s_pos=component.s_pos,
        s_neg=component.s_neg,
        s_pos_text=component.s_pos_text,
        s_neg_text=component.s_neg_text,
        p_pos_sum=component.p_pos_sum,
        p_neg_sum=component.p_neg_sum,
        p_keep=component.p_keep,
        keep=component.keep,
        head_class=component.head_class,
        head=f"{result.head.name}@{result.head.digest}" if result.head and component.keep is not None else None,
        skipped=component.skipped.code if component.skipped else None,
        method=result.method,
        treatment=result.treatment,
        views=result.views_text,
        prompts_digest=result.prompts.digest if result.prompts else None,
        weights_digest=result.model.weights_digest if result.model else None,
        top_k=component.top_k,
        embedding=component.embedding,
        segmentation=segmentation,
        upstream=component.upstream,
        label=label,
    )
