"""Scores labelled masks with the service, one job per image and candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from maskscore.client import Client
from maskscore.errors import WaitTimeout
from maskscore.evaluation.class_prompts import ClassPrompts
from maskscore.evaluation.labelled_coco import LabelledImage, LabelledMask
from maskscore.evaluation.measurements import Measurement, ScoreCollector
from maskscore.schema import Job, JobResult, Mask, Method, PromptSet, ScoringOptions, View

__all__ = ["Candidate", "evaluate"]

_MOST_TOP_K: Final = 100
_KIND, _CATEGORY = "eval_kind", "eval_category"

Progress = Callable[[Iterable[JobResult], int], Iterable[JobResult]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Views whose features are averaged (or one alone), and a prompt set with its classes.

    Raises :class:`pydantic.ValidationError` for a view that is given twice.
    """

    views: tuple[View, ...]
    prompts: PromptSet
    classes: ClassPrompts
    method: Method = "softmax"

    def __post_init__(self) -> None:
        _ = self.options

    @property
    def options(self) -> ScoringOptions:
        """The scoring options of its jobs."""
        first, *others = self.views
        return ScoringOptions(
            prompts=self.prompts,
            treatment=first.treatment,
            frame=first.frame,
            alpha=first.alpha,
            blur=first.blur,
            context=first.context,
            average_with=tuple(others),
            method=self.method,
            top_k=min(_MOST_TOP_K, len(self.prompts.texts)),
        )

    @property
    def text(self) -> str:
        """The views as text, joined by ``+``."""
        return "+".join(view.text for view in self.views)


def evaluate(
    client: Client,
    images: Sequence[tuple[str, LabelledImage]],
    candidates: Sequence[Candidate],
    *,
    negatives: Callable[[LabelledImage], list[LabelledMask]],
    timeout: float | None = None,
    progress: Progress = lambda results, _count: results,
) -> list[Measurement]:
    """Score every image (with its URI) with every candidate; return the measurements in the candidates' order.

    ``negatives`` gives what is sampled for an image; it is called once per image. A prompt set travels in its jobs, so
    that it is the one whose classes are known. The five best positive prompts are looked for among a mask's 100 best
    prompts: more than 95 negative and neutral ones could hide some. Where it is interrupted, or not done after
    ``timeout`` seconds, its jobs are cancelled.

    Raises :class:`~maskscore.errors.WaitTimeout`, and what :meth:`maskscore.Client.submit_many` raises.
    """
    collectors = [ScoreCollector(candidate.classes.prompts, candidate.method) for candidate in candidates]
    asked: dict[str, tuple[ScoreCollector, str]] = {}

    def jobs() -> Iterator[Job]:
        for uri, image in images:
            masks = _masks([*image.masks, *negatives(image)])
            for candidate, collector in zip(candidates, collectors, strict=True):
                job = Job.model_validate({"image": uri, "masks": masks, "options": candidate.options})
                asked[job.job_id] = collector, image.id
                yield job

    batch = client.submit_many(jobs(), wait_for_room=True)
    try:
        for result in progress(batch.as_completed(timeout), len(asked)):
            collector, image_id = asked[result.job_id]
            if result.error is not None:
                collector.failed[result.error.code] += 1
            for component in result.components:
                upstream = component.upstream
                collector.add(component, image=image_id, kind=upstream[_KIND], category=upstream[_CATEGORY])
    except WaitTimeout as error:
        batch.cancel()
        raise WaitTimeout(f"The evaluation had not ended after {timeout:g} s; its jobs are cancelled.") from error
    except (KeyboardInterrupt, SystemExit):
        # No other caller waits for these results.
        batch.cancel()
        raise
    return [
        collector.measurements(candidate.text, candidate.prompts.name, candidate.prompts.digest)
        for candidate, collector in zip(candidates, collectors, strict=True)
    ]


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
