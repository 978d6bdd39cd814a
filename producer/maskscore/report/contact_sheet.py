"""The contact sheet: the best, the worst and the most doubtful masks, selected in one pass over the jobs."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from maskscore.report.job_sections import Row, Section, mask_in_box
from maskscore.report.page_pictures import mask_thumbnail
from maskscore.report.score_colours import CLEAR_COSINE, Grade
from maskscore.schema import Component, SigmoidThresholds

__all__ = ["Card", "ContactSheet", "Group", "score_margin"]

_CARDS: Final = 12
# A batch's best must not all be of one image.
_PER_IMAGE: Final = 3
# A difference of the sums below this: neither has more than 0.8.
_DOUBTFUL_SUMS: Final = 0.6
# Of independent probabilities: neither fits, or both do.
_DOUBTFUL_FITS: Final = SigmoidThresholds().fit

_Key = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Card:
    """One mask on the sheet. ``href`` leads to its row, ``picture`` is a data URI, ``prompt`` the best one.

    ``margin`` is what the sheet is ordered by (:func:`score_margin`), with its sign.
    """

    href: str
    picture: str | None
    grade: Grade
    verdict: str
    prompt: str
    margin: str
    mask: str
    image: str


@dataclass(frozen=True, slots=True)
class Group:
    """One row of the sheet."""

    name: str
    meaning: str
    cards: list[Card]


def score_margin(component: Component) -> float | None:
    """Return how much the positive score exceeds the negative: ``p_pos_sum − p_neg_sum``, else ``s_pos − s_neg``.

    ``None`` for a component without scores.
    """
    if component.p_pos_sum is not None and component.p_neg_sum is not None:
        return component.p_pos_sum - component.p_neg_sum
    if component.s_pos is None or component.s_neg is None:
        return None
    return component.s_pos - component.s_neg


class ContactSheet:
    """Holds at most a dozen cards per group; ``method`` is the scores'."""

    def __init__(self, method: str) -> None:
        bound = {"cosine": CLEAR_COSINE, "sigmoid": _DOUBTFUL_FITS}.get(method, _DOUBTFUL_SUMS)
        self.ordered_by = "Σ pos − Σ neg" if method == "softmax" else "s_pos − s_neg"
        self._groups = [
            _Best("Best", "furthest on the positive side", _positive),
            _Best("Worst", "furthest on the negative side", _negative),
            _Best("Most doubtful", "nearly as much negative as positive", lambda c, margin: _doubtful(margin, bound)),
        ]

    def offer(self, section: Section, page: str) -> None:
        """Take those of a job's masks that belong on the sheet; ``page`` is the file that shows them."""
        for group in self._groups:
            group.offer(section, page)

    def groups(self) -> list[Group]:
        """Return the groups that have cards, each in its order."""
        return [Group(group.name, group.meaning, cards) for group in self._groups if (cards := group.cards())]


class _Best:
    """The dozen with the largest keys; the earlier one of equals."""

    def __init__(self, name: str, meaning: str, key: Callable[[Component, float], _Key | None]) -> None:
        self.name, self.meaning = name, meaning
        self._key = key
        self._heap: list[tuple[_Key, int, Card]] = []
        self._seen = 0

    def offer(self, section: Section, page: str) -> None:
        for key, row in heapq.nlargest(_PER_IMAGE, self._keyed(section), key=lambda pair: pair[0]):
            if len(self._heap) == _CARDS and key <= self._heap[0][0]:
                return
            # Drawn only now: of a million masks few ever come here.
            self._seen += 1
            push = heapq.heappush if len(self._heap) < _CARDS else heapq.heapreplace
            push(self._heap, (key, -self._seen, _card(section, row, page)))

    def cards(self) -> list[Card]:
        return [card for _, _, card in sorted(self._heap, key=lambda item: item[:2], reverse=True)]

    def _keyed(self, section: Section) -> Iterator[tuple[_Key, Row]]:
        for row in section.rows:
            margin = score_margin(row.component)
            key = None if margin is None else self._key(row.component, margin)
            if key is not None:
                yield key, row


def _positive(component: Component, margin: float) -> _Key | None:
    return (margin, component.s_pos or 0.0) if margin > 0 else None


def _negative(component: Component, margin: float) -> _Key | None:
    return (-margin, component.s_neg or 0.0) if margin <= 0 else None


def _doubtful(margin: float, bound: float) -> _Key | None:
    return (-abs(margin), 0.0) if abs(margin) < bound else None


def _card(section: Section, row: Row, page: str) -> Card:
    component = row.component
    picture = None
    if section.photo is not None and component.box is not None:
        mask_picture = mask_in_box(section.entry, component, section.photo)
        if mask_picture is not None:
            picture = mask_thumbnail(section.photo, mask_picture, component.box, row.grade.colour)
    multiplier, margin = component.semantic_multiplier, score_margin(component) or 0.0
    return Card(
        f"{page}#{row.anchor}",
        picture,
        row.grade,
        "" if multiplier is None else f"{multiplier}",
        (component.s_pos_text if margin > 0 else component.s_neg_text) or "",
        f"{margin:+.3f}".replace("-", "−"),
        component.id if component.part is None else f"{component.id}, part {component.part}",
        section.name.rpartition("/")[2] or section.name,
    )
