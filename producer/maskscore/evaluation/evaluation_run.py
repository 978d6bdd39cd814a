"""Scores labelled masks with the service: one candidate after the other, one job per image, each candidate timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from maskscore.client import Client
from maskscore.errors import HeadMismatch, WaitTimeout
from maskscore.evaluation.candidate_differences import CandidateDifference, differences_from_first
from maskscore.evaluation.candidates import Candidate
from maskscore.evaluation.labelled_coco import LabelledImage, LabelledMask
from maskscore.evaluation.measurements import Measurement, ScoreCollector
from maskscore.evaluation.scoring_speed import ScoringSpeed
from maskscore.schema import Job, JobResult, Mask

__all__ = ["EvaluationResult", "Progress", "evaluate"]

_KIND, _CATEGORY = "eval_kind", "eval_category"
_NEVER: Final = float("inf")


Progress = Callable[[Iterable[JobResult], int, str], Iterable[JobResult]]
"""Passes results on as they come, of so many jobs, of the candidate of this name."""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The measurements in the candidates' order, and the differences from the first of them."""

    measurements: list[Measurement]
    differences: list[CandidateDifference]


def evaluate(
    client: Client,
    images: Sequence[tuple[str, LabelledImage]],
    candidates: Sequence[Candidate],
    *,
    negatives: Callable[[LabelledImage], list[LabelledMask]],
    recall: float,
    prices: Mapping[str, float],
    timeout: float | None = None,
    progress: Progress = lambda results, _total, _name: results,
) -> EvaluationResult:
    """Score every image (with its URI) with every candidate.

    ``negatives`` gives what is sampled for an image; it is called once per image. ``prices`` are those of an hour of
    all workers of a model, by its name. A prompt set travels in its jobs, so that it is the one whose classes are
    known. The five best positive prompts are looked for among a mask's 100 best prompts: more than 95 negative and
    neutral ones could hide some. Where it is interrupted, or not done after ``timeout`` seconds, its jobs are
    cancelled.

    The first images of each candidate, one per live worker and half of them at most, are scored before its time is
    taken: workers then have its prompts' features.

    Raises :class:`~maskscore.errors.WaitTimeout`, :class:`~maskscore.errors.HeadMismatch` where the results are of
    other weights than a candidate's head, and what :meth:`maskscore.Client.submit_many` raises.
    """
    end = _NEVER if timeout is None else time.monotonic() + timeout
    scored = [(uri, image.id, _masks([*image.masks, *negatives(image)])) for uri, image in images]
    collectors = [ScoreCollector(candidate) for candidate in candidates]
    measurements = []
    for collector in collectors:
        run = _CandidateRun(client, collector, timeout, end, progress)
        workers = sum(one.report.model == collector.candidate.model_name for one in client.workers())
        first = min(max(1, workers), len(scored) // 2)
        run.score(scored[:first])
        backlog, before, started = client.backlog(), len(collector.masks), time.monotonic()
        cached = run.score(scored[first:])
        speed = ScoringSpeed.of_run(
            len(collector.masks) - before if first else 0,
            time.monotonic() - started,
            workers=workers,
            cached=cached,
            others=backlog.waiting + backlog.running,
            price_per_hour=prices.get(collector.candidate.model_name),
        )
        measurements.append(collector.measurement(recall, speed))
    return EvaluationResult(measurements, differences_from_first(collectors))


@dataclass(frozen=True, slots=True)
class _CandidateRun:
    client: Client
    collector: ScoreCollector
    timeout: float | None
    end: float
    progress: Progress

    def score(self, images: Sequence[tuple[str, str, list[Mask]]]) -> int:
        """Score images, given by URI, id and masks; return how many masks were not computed, but cached."""
        if not images:
            return 0
        candidate = self.collector.candidate
        asked: dict[str, str] = {}

        def jobs() -> Iterator[Job]:
            for uri, image_id, masks in images:
                job = Job.model_validate({"image": uri, "masks": masks, "options": candidate.options})
                asked[job.job_id] = image_id
                yield job

        batch = self.client.submit_many(jobs(), wait_for_room=True)
        cached = 0
        try:
            left = None if self.end == _NEVER else max(0.0, self.end - time.monotonic())
            for result in self.progress(batch.as_completed(left), len(asked), candidate.text):
                cached += result.cached
                self._collect(result, asked[result.job_id])
        except WaitTimeout as error:
            batch.cancel()
            raise WaitTimeout(
                f"The evaluation had not ended after {self.timeout:g} s; its jobs are cancelled."
            ) from error
        except (HeadMismatch, KeyboardInterrupt, SystemExit):
            # No other caller waits for these results.
            batch.cancel()
            raise
        return cached

    def _collect(self, result: JobResult, image_id: str) -> None:
        candidate, collector = self.collector.candidate, self.collector
        if result.error is not None:
            collector.failed[result.error.code] += 1
        if result.model is not None:
            collector.digests.add(result.model.weights_digest)
            for head in candidate.heads.values():
                candidate.check_head(head, result.model.weights_digest)
        for component in result.components:
            upstream = component.upstream
            collector.add(component, image=image_id, kind=upstream[_KIND], category=upstream[_CATEGORY])


def _masks(labelled: Iterable[LabelledMask]) -> list[Mask]:
    return [
        Mask.model_validate(
            {
                "id": f"{number}-{entry.category}",
                "segmentation": entry.mask.segmentation,
                _KIND: entry.kind,
                _CATEGORY: entry.category,
            }
        )
        for number, entry in enumerate(labelled)
        if entry.kind != "crowd"
    ]
