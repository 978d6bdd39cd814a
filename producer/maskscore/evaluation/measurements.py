"""All figures of one candidate, from the scores of its masks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from maskscore.evaluation.candidates import Candidate
from maskscore.evaluation.score_figures import (
    DIFFERENCE,
    ClassFigures,
    ScoredMask,
    ScoreFigures,
    class_figures,
    score_figures,
    top_share,
)
from maskscore.evaluation.scoring_speed import ScoringSpeed
from maskscore.schema import Component, Method
from maskscore.statistics import Estimate

__all__ = ["Measurement", "ScoreCollector", "own_score"]

_TOP: Final = 5


def own_score(method: Method) -> str:
    """Return the method's own score of an object; the method ``cosine`` has none, and so the difference."""
    return {"softmax": "p_pos_sum", "sigmoid": "s_pos"}.get(method, DIFFERENCE)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one model, under one view (or average of views), with one prompt set has achieved.

    ``weights_digests`` are those of the results; several, if workers of one name have several. ``ranked`` objects have
    a category with a prompt, and ``top_1`` and ``top_5`` (``None`` without any) are the shares of them for which such a
    prompt is the best, or among the five best, of the positive ones; ``top_5`` is ``None`` as well where scores that
    were there already do not tell the five best of ``unknown_top_5`` masks. ``source`` is the name of such scores, and
    ``speed`` is then ``None``. ``scores`` are the figures by score, the
    ``main_scores`` those of the method and of the heads.
    """

    model: str
    view: str
    prompts: str
    digest: str
    weights_digests: list[str]
    objects: int
    backgrounds: int
    fragments: int
    ranked: int
    top_1: Estimate | None
    top_5: Estimate | None
    main_scores: list[str]
    scores: dict[str, ScoreFigures]
    classes: dict[str, ClassFigures]
    speed: ScoringSpeed | None
    skipped: dict[str, int]
    failed: dict[str, int]
    source: str | None = None
    unknown_top_5: int = 0


@dataclass(slots=True, eq=False)
class ScoreCollector:
    """Collects the components of one candidate as they come in.

    ``unknown_top_5`` counts masks whose five best positive prompts their scores do not tell, and none of those that
    they tell is a true one.
    """

    candidate: Candidate
    masks: list[ScoredMask] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    unknown_top_5: int = 0

    @property
    def main_scores(self) -> list[str]:
        """The method's own score, then those of the heads."""
        return [own_score(self.candidate.method), *self.candidate.heads]

    def add(self, component: Component, *, image: str, kind: str, category: str, index: int | None = None) -> None:
        """Take a component of an image (by its id) that is known to be of this kind and category.

        ``index`` is the mask's place among those of the image, where the component's own is not that.
        """
        if component.skipped is not None or component.s_pos is None or component.s_neg is None:
            self.skipped[component.skipped.code if component.skipped else "no_score"] += 1
            return
        values = {DIFFERENCE: component.s_pos - component.s_neg}
        own = own_score(self.candidate.method)
        if own != DIFFERENCE and (value := getattr(component, own)) is not None:
            values[own] = value
        kept = {}
        feature = component.embedding_vector()
        for score, head in self.candidate.heads.items():
            decision = head.decide(component, feature)
            values[score], kept[score] = decision.p_keep, decision.keep
        accepted = self.candidate.classes.prompts.get(category) if kind == "object" else None
        rank = None if accepted is None else self._rank(component, accepted)
        place = component.index if index is None else index
        self.masks.append(ScoredMask(image, place, kind, category, values, rank, kept))

    def measurement(self, recall: float, speed: ScoringSpeed | None) -> Measurement:
        """Return the measurement of what has come in."""
        candidate, kinds = self.candidate, Counter(mask.kind for mask in self.masks)
        thresholds = {score: head.head.threshold for score, head in candidate.heads.items()}
        return Measurement(
            model=candidate.model_name,
            view=candidate.text,
            prompts=candidate.prompts.name,
            digest=candidate.prompts.digest,
            weights_digests=sorted(self.digests),
            objects=kinds["object"],
            backgrounds=kinds["background"],
            fragments=kinds["fragment"],
            ranked=sum(mask.rank is not None for mask in self.masks),
            top_1=top_share(self.masks, 1),
            top_5=None if self.unknown_top_5 else top_share(self.masks, _TOP),
            main_scores=self.main_scores,
            scores={
                score: score_figures(score, self.masks, recall=recall, threshold=thresholds.get(score))
                for score in dict.fromkeys([*self.main_scores, DIFFERENCE])
            },
            classes={
                name: replace(own, top_5=None) if self.unknown_top_5 else own
                for name, own in class_figures(self.masks, self.main_scores).items()
            },
            speed=speed,
            skipped=dict(self.skipped),
            failed=dict(self.failed),
            source=candidate.source,
            unknown_top_5=self.unknown_top_5,
        )

    def _rank(self, component: Component, accepted: frozenset[str]) -> int:
        """Return the place of the best accepted prompt among the positives, 0 where it is not among the first five."""
        prompts = component.top_k or []
        best = [entry.text for entry in prompts if entry.group == "positive"][:_TOP]
        # The best one is known without any.
        best = best or [component.s_pos_text or ""]
        rank = next((place for place, text in enumerate(best, 1) if text in accepted), 0)
        candidate = self.candidate
        if not rank and len(prompts) < candidate.top_k and len(best) < min(_TOP, len(candidate.prompts.positive)):
            self.unknown_top_5 += 1
        return rank
