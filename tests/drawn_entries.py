"""Report entries of drawn scenes, with scores as a worker would give them, made without one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from in_memory_files import image_file
from maskscore.masks import encode_mask
from maskscore.report import ReportEntry
from maskscore.schema.job import Job, Mask, ScoringOptions, Thresholds
from maskscore.schema.result import (
    Component,
    Failure,
    ImageInfo,
    JobResult,
    JobState,
    ModelIdentity,
    PromptSetIdentity,
    Skipped,
)
from maskscore_worker.demo.scenes import Scene, draw_scene

__all__ = ["drawn_entries"]

_MODEL = ModelIdentity(
    architecture="ViT-B-32", weights_digest="sha256:" + "0" * 64, image_size=64, precision="fp32", crop_mode="fast"
)
_PROMPTS = PromptSetIdentity(name="demo", digest="sha256:" + "1" * 64, positive=30, negative=6)


def drawn_entries(count: int, *, different: int = 40, size: tuple[int, int] | None = None) -> Iterator[ReportEntry]:
    """Yield ``count`` jobs: scenes with random scores, every 50th failed and every 30th with a mask skipped.

    Only ``different`` scenes are drawn; ``size`` is ``(height, width)``.
    """
    rng = np.random.default_rng(11)
    for number in range(count):
        data, scene = _drawn(700_000 + number % different, size)
        name = f"s3://photos/part-{number // 100:03}/scene-{number:06}.jpg"
        masks = [Mask(id=mask.id, segmentation=encode_mask(mask.mask)) for mask in scene.masks]
        job = Job.model_validate({"job_id": f"job-{number}", "image": name, "masks": masks, "options": OPTIONS})
        if number % 50 == 49:
            error = Failure(code="image_not_found", message=f"There is no object {name}.")
            yield ReportEntry(job, JobResult(job_id=job.job_id, state=JobState.FAILED, error=error), None)
            continue
        components = [_scored(rng, index, scene) for index in range(len(masks))]
        if number % 30 == 7:
            skipped = Skipped(code="empty_mask", message="The mask has no pixel.")
            components[0] = Component(id=masks[0].id, index=0, skipped=skipped)
        height, width = scene.image.shape[:2]
        result = JobResult(
            job_id=job.job_id,
            state=JobState.SUCCEEDED,
            image=ImageInfo(uri=name, width=width, height=height, format="JPEG"),
            model=_MODEL,
            prompts=_PROMPTS,
            treatment="original",
            method="softmax",
            components=components,
        )
        yield ReportEntry(job, result, data, list(masks))


OPTIONS = ScoringOptions(prompts="demo")


@lru_cache(64)
def _drawn(seed: int, size: tuple[int, int] | None) -> tuple[bytes, Scene]:
    scene = draw_scene(seed, size)
    return image_file(scene.image, "JPEG", quality=88), scene


def _scored(rng: np.random.Generator, index: int, scene: Scene) -> Component:
    mask = scene.masks[index]
    rows, columns = np.nonzero(mask.mask)
    box = (int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    positive = float(rng.beta(6, 1) if mask.kind == "object" else rng.beta(1, 5))
    return Component(
        id=mask.id,
        index=index,
        box=box,
        area=int(mask.mask.sum()),
        s_pos=0.9 * positive,
        s_neg=0.9 * (1 - positive),
        s_pos_text=mask.label if mask.kind == "object" else "a red circle",
        s_neg_text="a part of a shape" if mask.kind == "object" else mask.label,
        p_pos_sum=positive,
        p_neg_sum=1 - positive,
        semantic_multiplier=Thresholds().multiplier(positive, 1 - positive),
    )
