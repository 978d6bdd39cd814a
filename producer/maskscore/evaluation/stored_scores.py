"""Measures labelled masks by scores that are there already: those of batches, of jobs, and of parts of shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from maskscore.errors import InvalidDocumentError
from maskscore.evaluation.candidate_differences import differences_from_first
from maskscore.evaluation.candidates import Candidate, with_fitting_heads
from maskscore.evaluation.class_prompts import ClassPrompts
from maskscore.evaluation.evaluation_run import EvaluationResult
from maskscore.evaluation.labelled_coco import LabelledImage
from maskscore.evaluation.measurements import ScoreCollector
from maskscore.formats import parts_of, spellings
from maskscore.heads import HeadApplication
from maskscore.schema import JobResult, PromptSet, PromptSetIdentity, View
from maskscore.storage import object_path
from maskscore.text import counted

__all__ = ["ImagesByName", "ScoredImage", "measure_scores"]

_NOT_SCORED = "not_scored"


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """The result of an image: ``uri`` where it is known, and ``views`` as text."""

    uri: str | None
    result: JobResult
    views: str | None


class ImagesByName:
    """Finds the labelled image that a URI means: the one with the longest name that the URI ends in, by whole parts.

    Names are compared in each of their :func:`~maskscore.formats.spellings`. Raises
    :class:`~maskscore.errors.InvalidDocumentError` where two images have one name.
    """

    def __init__(self, images: Iterable[LabelledImage]) -> None:
        listed = list(images)
        self._images = len(listed)
        self._named: dict[tuple[str, ...], LabelledImage | None] = {}
        for image in listed:
            if (other := self._named.setdefault(parts_of(image.file_name), image)) is not image:
                named = image.file_name
                raise InvalidDocumentError(
                    f"The images {getattr(other, 'id', '')} and {image.id} are both called {named!r:.200}: give them "
                    "names with folders, or their URIs."
                )
        others: dict[tuple[str, ...], LabelledImage | None] = {}
        for image in listed:
            for parts in {parts_of(spelling) for spelling in spellings(image.file_name)[1:]}:
                # A spelling that two images share means none of them.
                others[parts] = image if others.get(parts, image) is image else None
        self._named = others | self._named

    def __len__(self) -> int:
        return self._images

    def find(self, uri: str) -> LabelledImage | None:
        """Return the image of a URI, ``None`` where none is meant."""
        for path in dict.fromkeys((uri, object_path(uri))):
            parts = parts_of(path)
            for start in range(len(parts)):
                if (image := self._named.get(parts[start:])) is not None:
                    return image
        return None


def measure_scores(
    images: Sequence[LabelledImage],
    by_name: ImagesByName,
    sources: Mapping[str, Iterable[ScoredImage]],
    *,
    prompt_set_of: Callable[[PromptSetIdentity], PromptSet],
    class_prompts: Callable[[PromptSet], ClassPrompts],
    heads: Mapping[str, HeadApplication],
    recall: float,
) -> tuple[list[Candidate], EvaluationResult]:
    """Return a candidate of each source, which people call by its key, and what is measured of all.

    A source is read once, image by image; images and masks without a label are passed over. Of a mask that several
    results have, the first counts. A label without a part is of a mask that was not split, or has a single part.
    Labelled images without a result count as failed, by their code or as ``not_scored``; labelled masks that a result
    lacks count as skipped.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where a source has no score of a labelled mask, where its
    masks were scored in several ways, and where images of a source are called alike;
    :class:`~maskscore.errors.HeadMismatch` for a head that holds for no source; and what ``prompt_set_of`` raises.
    """
    opened = [_Source(name, images, by_name, iter(results)) for name, results in sources.items()]
    candidates = [source.candidate(prompt_set_of, class_prompts) for source in opened]
    digests = {source.name: source.digest for source in opened}
    candidates = with_fitting_heads(candidates, heads, lambda candidate: (digests[candidate.source or ""],))
    collectors = [ScoreCollector(candidate) for candidate in candidates]
    for source, collector in zip(opened, collectors, strict=True):
        source.read(collector)
    measurements = [collector.measurement(recall, None) for collector in collectors]
    return candidates, EvaluationResult(measurements, differences_from_first(collectors))


@dataclass(slots=True, eq=False)
class _Source:
    name: str
    images: Sequence[LabelledImage]
    by_name: ImagesByName
    results: Iterator[ScoredImage]
    digest: str = ""
    _way: tuple[str | None, str | None, str] = (None, None, "")
    _uris: dict[str, str] = field(default_factory=dict)
    _codes: dict[str, str] = field(default_factory=dict)
    _taken: set[tuple[str, int]] = field(default_factory=set)
    _succeeded: set[str] = field(default_factory=set)

    def candidate(
        self,
        prompt_set_of: Callable[[PromptSetIdentity], PromptSet],
        class_prompts: Callable[[PromptSet], ClassPrompts],
    ) -> Candidate:
        """Return what the first labelled image with scores was scored by; nothing is lost of those before it."""
        before: list[ScoredImage] = []
        for scored in self.results:
            labelled = None if scored.uri is None else self.by_name.find(scored.uri)
            if labelled is None:
                continue
            before.append(scored)
            result = scored.result
            if result.prompts is None or result.model is None or not _has_scores(result) or not scored.views:
                continue
            self.results = chain(before, self.results)
            self.digest, self._way = result.model.weights_digest, _way(scored)
            prompt_set = prompt_set_of(result.prompts)
            return Candidate(
                tuple(View.parse(view) for view in scored.views.split("+")),
                prompt_set,
                class_prompts(prompt_set),
                result.method or "softmax",
                result.model.name,
                source=self.name,
            )
        example = self.images[0].file_name
        raise InvalidDocumentError(
            f"{self.name} has no score of a labelled mask: of the {counted(len(self.images), 'labelled image')}, "
            f"{len(before):,} are there. An image is found by its URI, or by the end of its path, such as "
            f"{example!r:.120}."
        )

    def read(self, collector: ScoreCollector) -> None:
        """Hand the scores of all labelled masks over, and count what has none."""
        for scored in self.results:
            labelled = None if scored.uri is None else self.by_name.find(scored.uri)
            if labelled is None or scored.uri is None:
                continue
            if (other := self._uris.setdefault(labelled.id, scored.uri)) != scored.uri:
                raise InvalidDocumentError(
                    f"The labelled image {labelled.file_name!r:.200} could be {other} or {scored.uri}, of "
                    f"{self.name}. Name images by their URIs."
                )
            if scored.result.error is not None:
                self._codes[labelled.id] = scored.result.error.code
            else:
                self._add(collector, labelled, scored)
        for image in self.images:
            wanted = [place for place, mask in enumerate(image.masks) if mask.kind != "crowd"]
            if image.id in self._succeeded:
                missing = sum((image.id, place) not in self._taken for place in wanted)
                collector.skipped.update({_NOT_SCORED: missing} if missing else {})
            elif wanted:
                collector.failed[self._codes.get(image.id, _NOT_SCORED)] += 1

    def _add(self, collector: ScoreCollector, labelled: LabelledImage, scored: ScoredImage) -> None:
        result = scored.result
        self._succeeded.add(labelled.id)
        if _has_scores(result) and _way(scored) != self._way:
            ways = " and ".join(
                f"view {views}, method {method}, prompts {digest[:19]}"
                for views, method, digest in (self._way, _way(scored))
            )
            raise InvalidDocumentError(
                f"The masks of {self.name} were scored in several ways: {ways}. Measure scores of one way, and each "
                "other way by a --scores of its own."
            )
        if result.model is not None and _has_scores(result):
            collector.digests.add(result.model.weights_digest)
            for head in collector.candidate.heads.values():
                collector.candidate.check_head(head, result.model.weights_digest)
        places: dict[tuple[str, int | None], int] = {}
        for place, mask in enumerate(labelled.masks):
            places.setdefault((mask.mask_id, mask.part), place)
        parts = Counter(component.id for component in result.components)
        for component in result.components:
            found = places.get((component.id, component.part))
            if found is None and parts[component.id] == 1:
                found = places.get((component.id, None))
            if found is None or (labelled.id, found) in self._taken:
                continue
            mask = labelled.masks[found]
            self._taken.add((labelled.id, found))
            if mask.kind != "crowd":
                collector.add(component, image=labelled.id, kind=mask.kind, category=mask.category, index=found)


def _has_scores(result: JobResult) -> bool:
    return any(component.skipped is None for component in result.components)


def _way(scored: ScoredImage) -> tuple[str | None, str | None, str]:
    result = scored.result
    return scored.views, result.method, result.prompts.digest if result.prompts else ""
