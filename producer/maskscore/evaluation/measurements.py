"""Top-1, top-5 and AUROC of one candidate, from the scores of its masks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from maskscore.schema import Component, Method
from maskscore.statistics import Estimate, Scored

__all__ = ["AGAINST", "Measurement", "ScoreCollector", "scores_of"]

AGAINST: Final[Mapping[str, tuple[str, ...]]] = {
    "all": ("background", "fragment"),
    "background": ("background",),
    "fragment": ("fragment",),
}
"""The kinds of negatives that objects are separated from, by name."""

_DIFFERENCE: Final = "s_pos - s_neg"


def scores_of(method: Method) -> tuple[str, str]:
    """Return what objects are separated by: the first is the method's own score, where it has one."""
    return ("s_pos" if method == "sigmoid" else "p_pos_sum"), _DIFFERENCE


_TOP: Final = 5


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one view (or average of views) with one prompt set has achieved.

    ``ranked`` objects have a category with a prompt, and ``top_1`` and ``top_5`` (``None`` without any) are the shares
    of them for which such a prompt is the best, or among the five best, of the positive ones. ``auroc`` is by score,
    then by what objects are separated from; ``None`` where one side has no mask.
    """

    view: str
    prompts: str
    digest: str
    objects: int
    backgrounds: int
    fragments: int
    ranked: int
    top_1: Estimate | None
    top_5: Estimate | None
    auroc: dict[str, dict[str, Estimate | None]]
    skipped: dict[str, int]
    failed: dict[str, int]


@dataclass(slots=True)
class ScoreCollector:
    """Collects the components of one candidate as they come in; keeps two numbers per mask, and its image."""

    accepted: Mapping[str, frozenset[str]]
    method: Method = "softmax"
    scores: dict[str, dict[str, list[Scored]]] = field(init=False)
    kinds: Counter[str] = field(default_factory=Counter)
    ranks: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Per image, how many of its objects have which rank."""
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        names = scores_of(self.method)
        self.scores = {kind: {name: [] for name in names} for kind in ("object", "background", "fragment")}

    def add(self, component: Component, *, image: str, kind: str, category: str) -> None:
        """Take a component of an image (by its id) that is known to be of this kind and category."""
        if component.skipped is not None or component.s_pos is None or component.s_neg is None:
            self.skipped[component.skipped.code if component.skipped else "no_score"] += 1
            return
        self.kinds[kind] += 1
        scores = self.scores[kind]
        scores[_DIFFERENCE].append((component.s_pos - component.s_neg, image))
        own, _ = scores_of(self.method)
        if (value := getattr(component, own)) is not None:
            scores[own].append((value, image))
        if kind == "object" and category in self.accepted:
            self.ranks[image][self._rank(component, self.accepted[category])] += 1

    def measurements(self, view: str, prompts: str, digest: str) -> Measurement:
        """Return the measurements of what has come in."""
        return Measurement(
            view=view,
            prompts=prompts,
            digest=digest,
            objects=self.kinds["object"],
            backgrounds=self.kinds["background"],
            fragments=self.kinds["fragment"],
            ranked=sum(ranks.total() for ranks in self.ranks.values()),
            top_1=self._top(1),
            top_5=self._top(_TOP),
            auroc={
                score: {name: self._area(score, kinds) for name, kinds in AGAINST.items()}
                for score in scores_of(self.method)
            },
            skipped=dict(self.skipped),
            failed=dict(self.failed),
        )

    def _rank(self, component: Component, accepted: frozenset[str]) -> int:
        """Return the place of the best accepted prompt among the positives, 0 where it is not among the first five."""
        best = [entry.text for entry in component.top_k or [] if entry.group == "positive"][:_TOP]
        return next((place for place, text in enumerate(best, 1) if text in accepted), 0)

    def _top(self, places: int) -> Estimate | None:
        by_image = [
            (sum(ranks[place] for place in range(1, places + 1)), ranks.total()) for ranks in self.ranks.values()
        ]
        return Estimate.of_share(by_image) if by_image else None

    def _area(self, score: str, kinds: Sequence[str]) -> Estimate | None:
        positives = self.scores["object"][score]
        negatives = [scored for kind in kinds for scored in self.scores[kind][score]]
        return Estimate.of_auroc(positives, negatives)
