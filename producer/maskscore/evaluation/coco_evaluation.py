"""An evaluation of candidates on a COCO file: read and checked first, then scored by the service."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from maskscore.client import Client
from maskscore.errors import InvalidDocumentError
from maskscore.evaluation.candidates import Candidate, heads_by_score, with_fitting_heads
from maskscore.evaluation.class_prompts import ClassPrompts, read_classes
from maskscore.evaluation.evaluation_run import EvaluationResult, Progress, evaluate
from maskscore.evaluation.image_locations import image_uris
from maskscore.evaluation.labelled_coco import LabelledImage, read_coco
from maskscore.evaluation.negative_sampling import sample_negatives
from maskscore.evaluation.stored_scores import ImagesByName, ScoredImage, measure_scores
from maskscore.formats import Orphans
from maskscore.heads import HeadApplication
from maskscore.schema import Frame, Method, PromptSet, PromptSetIdentity, Treatment, View, explain

__all__ = ["CocoEvaluation", "views_of"]


@dataclass(frozen=True, slots=True)
class CocoEvaluation:
    """The labelled images of a file, and the candidates that are measured on them; ``heads`` are by their score's name.

    Where the file has backgrounds, they are the negatives; else negatives are sampled with ``seed``, but for scores
    that are there already. ``given`` has the prompts of categories that were named with them.
    """

    path: Path
    images: list[LabelledImage]
    candidates: list[Candidate]
    heads: Mapping[str, HeadApplication]
    orphans: Orphans
    method: Method
    seed: int
    given: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(
        cls,
        path: Path,
        *,
        views: Iterable[tuple[View, ...]],
        prompt_sets: Sequence[PromptSet],
        method: Method = "softmax",
        models: Sequence[str | None] = (None,),
        heads: Sequence[HeadApplication] = (),
        classes: Path | None = None,
        negatives: Sequence[str] = (),
        crowds: Literal["ignore", "objects"] = "ignore",
        limit: int | None = None,
        seed: int = 0,
    ) -> CocoEvaluation:
        """Read a COCO file and build a candidate of each model, prompt set and entry of ``views``.

        ``models`` are names, ``None`` for that of workers without one. Without views there is no candidate: what is
        measured then are scores that are there already (:meth:`measure_scores`). ``classes`` is a YAML file of
        ``category: prompt``, ``negatives`` names categories that are background. Raises
        :class:`~maskscore.errors.InvalidDocumentError` where the file has no labelled image, options are not valid, or
        a head is given twice, and :class:`~maskscore.errors.HeadMismatch` for a head that was fitted to other views,
        prompts or another method.
        """
        orphans = Orphans()
        images = read_coco(path, negatives=negatives, limit=limit, crowds=crowds, orphans=orphans)
        if not images:
            raise InvalidDocumentError(f"{path} has no image with annotations.")
        categories = _categories(images)
        given = read_classes(classes) if classes else {}
        listed = list(views)
        try:
            candidates = [
                Candidate(averaged, prompt_set, ClassPrompts.of(categories, prompt_set, given), method, model)
                for model in models
                for prompt_set in prompt_sets
                for averaged in listed
            ]
        except ValidationError as error:
            raise InvalidDocumentError(f"The options are not valid: {explain(error)}.") from error
        named = heads_by_score(heads)
        fitting = with_fitting_heads(candidates, named) if candidates else []
        return cls(path, images, fitting, named, orphans, method, seed, given)

    @property
    def has_backgrounds(self) -> bool:
        """Whether the file itself has negatives."""
        return any(image.of_kind("background") for image in self.images)

    def measure(
        self,
        client: Client,
        images: str,
        *,
        recall: float = 0.9,
        prices: Mapping[str, float] | None = None,
        timeout: float | None = None,
        progress: Progress = lambda results, _total, _name: results,
    ) -> EvaluationResult:
        """Score the masks with the service; ``images`` is the folder or prefix of the file's images.

        The other parameters are those of :func:`~maskscore.evaluation.evaluate`. Raises
        :class:`~maskscore.errors.HeadMismatch` where no worker has a head's weights, and as
        :func:`~maskscore.evaluation.image_uris` and :func:`~maskscore.evaluation.evaluate` do.
        """
        uris = image_uris(images, [image.file_name for image in self.images], client.objects)
        digests: dict[str, set[str]] = defaultdict(set)
        for worker in client.workers():
            digests[worker.report.model].add(worker.report.weights_digest)
        return evaluate(
            client,
            list(zip(uris, self.images, strict=True)),
            with_fitting_heads(self.candidates, self.heads, lambda candidate: digests[candidate.model_name]),
            negatives=(lambda _: []) if self.has_backgrounds else (lambda image: sample_negatives(image, self.seed)),
            recall=recall,
            prices=prices or {},
            timeout=timeout,
            progress=progress,
        )

    @property
    def image_finder(self) -> ImagesByName:
        """What finds the labelled image of a URI."""
        return ImagesByName(self.images)

    def measure_scores(
        self,
        images: ImagesByName,
        sources: Mapping[str, Iterable[ScoredImage]],
        prompt_set_of: Callable[[PromptSetIdentity], PromptSet],
        *,
        recall: float = 0.9,
    ) -> tuple[CocoEvaluation, EvaluationResult]:
        """Measure scores that are there already; return the evaluation with their candidates, and its result.

        ``images`` is the :attr:`image_finder`, ``prompt_set_of`` gives the prompt set that a result names. Sources and
        errors are those of :func:`~maskscore.evaluation.stored_scores.measure_scores`.
        """
        categories = _categories(self.images)
        candidates, result = measure_scores(
            self.images,
            images,
            sources,
            prompt_set_of=prompt_set_of,
            class_prompts=lambda prompt_set: ClassPrompts.of(categories, prompt_set, self.given),
            heads=self.heads,
            recall=recall,
        )
        return replace(self, candidates=candidates, method=candidates[0].method), result

    def document(self) -> dict[str, Any]:
        """Return what was measured on, as a JSON object."""
        sampled = not self.has_backgrounds and not any(candidate.source for candidate in self.candidates)
        return {
            "file": str(self.path),
            "images": len(self.images),
            "negatives": "of the file" if self.has_backgrounds else "sampled" if sampled else "none",
            "seed": self.seed if sampled else None,
            "method": self.method,
            "crowds": sum(len(image.of_kind("crowd")) for image in self.images),
            "unusable_annotations": sum(image.unusable for image in self.images),
            "unusable_reasons": [reason for image in self.images for reason in image.reasons][:3],
            "orphans": self.orphans.count,
            "unmapped": {candidate.prompts.name: list(candidate.classes.unmapped) for candidate in self.candidates},
        }


def _categories(images: Iterable[LabelledImage]) -> list[str]:
    return list(dict.fromkeys(mask.category for image in images for mask in image.of_kind("object")))


def views_of(
    treatments: Sequence[Treatment], frames: Sequence[Frame], texts: Sequence[str], numbers: dict[str, float]
) -> list[tuple[View, ...]]:
    """Return each treatment with each frame, then the views of ``texts`` (``VIEW[+VIEW...]``), each once.

    Without any of the three: every treatment in the frame ``cut``. ``numbers`` are ``alpha``, ``blur`` and ``context``
    of all views. Raises :class:`~maskscore.errors.InvalidDocumentError` for a text that is no view.
    """
    crossed: list[tuple[View, ...]] = []
    if treatments or frames or not texts:
        crossed = [
            (View.parse(f"{treatment}/{frame}", **numbers),)
            for frame in frames or ("cut",)
            for treatment in treatments or get_args(Treatment)
        ]
    own = [tuple(View.parse(part, **numbers) for part in text.split("+")) for text in texts]
    return list(dict.fromkeys([*crossed, *own]))
