"""Small distinct jobs, and what each of them scores when nothing disturbs it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import boto3
import numpy as np
from PIL import Image

from chaos.s3_faults import S3FaultProxy
from maskscore import Client, Component, Job, JobResult, JobState, Mask, ScoringOptions
from maskscore.masks import encode_mask
from maskscore.schema.job import Treatment
from maskscore_worker.demo.scenes import draw_scene

__all__ = ["BUCKET", "TOLERANCE", "Corpus", "differences", "make_corpus", "make_documents", "slow_job"]

BUCKET: Final = "chaos"
TOLERANCE: Final = 1e-5
"""Probabilities of one crop differ by float32 rounding with the size of the batch that it was in."""

_SHRINK = 5
_FIRST_SEED = 4_400_001
_SCORES = ("s_pos", "s_neg", "p_pos_sum", "p_neg_sum")


@dataclass(frozen=True, slots=True)
class Corpus:
    """The distinct jobs; ``expected[n]`` is the result of ``documents[n]``, from a run in which nothing failed."""

    documents: list[Job]
    expected: list[JobResult]

    def job(self, number: int, job_id: str) -> Job:
        """Return the distinct job of this number (modulo their count) under an id of its own."""
        return self.documents[number % len(self.documents)].model_copy(update={"job_id": job_id})

    def wrong(self, number: int, result: JobResult) -> list[str]:
        """Return how the result of :meth:`job` ``number`` differs from the undisturbed one."""
        return differences(result, self.expected[number % len(self.expected)])


def make_documents(count: int) -> list[Job]:
    """Upload ``count`` drawn images of some 60 x 80 pixels, and return a job of one to three masks for each."""
    s3 = boto3.client("s3")
    jobs = []
    treatments = get_args(Treatment)
    for number in range(count):
        scene = draw_scene(_FIRST_SEED + number)
        pixels = np.ascontiguousarray(scene.image[::_SHRINK, ::_SHRINK])
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        key = f"scene-{number}.png"
        s3.put_object(Bucket=BUCKET, Key=key, Body=buffer.getvalue())
        masks = [
            Mask(id=mask.id, segmentation=encode_mask(mask.mask[::_SHRINK, ::_SHRINK]))
            for mask in scene.masks[: 1 + number % 3]
        ]
        jobs.append(
            Job.model_validate(
                {
                    "image": f"s3://{BUCKET}/{key}",
                    "masks": masks,
                    "options": ScoringOptions(prompts="demo", treatment=treatments[number % len(treatments)]),
                }
            )
        )
    return jobs


def slow_job(s3: S3FaultProxy, seconds: float) -> Job:
    """A job whose image takes so many seconds to fetch, since S3 sends it slowly from now on."""
    # Noise, which hardly any format makes smaller.
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    boto3.client("s3").put_object(Bucket=BUCKET, Key="noise.png", Body=buffer.getvalue())
    s3.trickle(buffer.tell() / seconds, only="noise.png")
    mask = {"id": "half", "segmentation": [[0, 0, 40, 0, 40, 60, 0, 60]]}
    return Job.model_validate({"image": f"s3://{BUCKET}/noise.png", "masks": [mask], "options": {"prompts": "demo"}})


def make_corpus(client: Client, documents: Sequence[Job]) -> Corpus:
    """Score each distinct job once, undisturbed."""
    handles = [client.submit(job) for job in documents]
    by_id = {result.job_id: result for result in client.as_completed(handles, timeout=120)}
    expected = [by_id[job.job_id] for job in documents]
    failed = [result for result in expected if result.state is not JobState.SUCCEEDED]
    assert not failed, f"the undisturbed run failed: {failed[0].error}"
    assert any(component.s_pos is not None for result in expected for component in result.components)
    return Corpus(list(documents), expected)


def differences(result: JobResult, expected: JobResult) -> list[str]:
    """Return what differs: the components' order, ids, boxes and skips exactly, the scores beyond the tolerance."""
    if [_exact(c) for c in result.components] != [_exact(c) for c in expected.components]:
        return [f"components {[_exact(c) for c in result.components]}, not {[_exact(c) for c in expected.components]}"]
    found = []
    for one, other in zip(result.components, expected.components, strict=True):
        for name in _SCORES:
            value, wanted = getattr(one, name), getattr(other, name)
            if (value is None) != (wanted is None) or (value is not None and abs(value - wanted) > TOLERANCE):
                found.append(f"{one.id}: {name} {value}, not {wanted}")
    return found


def _exact(component: Component) -> tuple[Any, ...]:
    skipped = component.skipped.code if component.skipped else None
    return component.id, component.index, component.part, component.box, component.area, skipped
