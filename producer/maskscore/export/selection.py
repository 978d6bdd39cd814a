"""Which masks are exported, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from maskscore.errors import InvalidDocumentError
from maskscore.export.labels import Labelling
from maskscore.export.ranking import DEFAULT_WEIGHTS, OWN_VALUES, Ranking
from maskscore.heads import HeadApplication
from maskscore.schema import Component
from maskscore.text import did_you_mean

__all__ = ["Selection"]

_OPTIONS: Final = {
    "p_neg_sum": "--max-neg",
    "multiplier": "--min-multiplier",
    "semantic_multiplier": "--min-multiplier",
    "area": "--min-area",
    "p_keep": "--min-p-keep",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Filters, the ranking, and the order.

    Parameters
    ----------
    min_multiplier: least ``semantic_multiplier``.
    max_neg: most ``p_neg_sum``, the probability of all background and fragment prompts together, which the
        multiplier is made of.
    min_area: least pixels.
    at_least: least values of the upstream tool's fields by name, such as ``{"predicted_iou": 0.88}``.
    head: decides on each mask first; its ``p_keep``, ``keep`` and ``head_class`` replace those of the results.
    keep: only masks that the head, or the one of their job, keeps.
    min_p_keep: least ``p_keep``.
    include_skipped: write masks that have no score, too; no filter but ``top`` and ``top_per_image`` is theirs.
    ranking: what the rank score is.
    sort: best first, instead of the order of the jobs and of their masks.
    top: only so many, the best of all; best first.
    top_per_image: only so many of each image (by its URI), the best.
    labelling: give each mask a label; masks that get none are filtered out.
    nms: leave out masks whose IoU with a better one of their image (by its URI) is at least this: copies.
    drop_parts: leave out masks of which at least this share lies inside a larger one of their image.
    drop_wholes: leave out masks in which at least this share of a smaller one of their image lies.

    ``nms`` comes after the filters, ``drop_parts`` or ``drop_wholes`` after it, and the two ``top`` last.
    :func:`maskscore.masks.arrays.find_displaced` says exactly which masks go.

    A mask that does not have a value that is asked for is filtered out; a field that no mask has is an error of the
    export. Raises :class:`~maskscore.errors.InvalidDocumentError` for a ``top`` or ``top_per_image`` below 1, a
    threshold that is not above 0 and at most 1, ``drop_parts`` together with ``drop_wholes``, and labels from a
    ``head`` that does not tell classes apart.
    """

    min_multiplier: float | None = None
    max_neg: float | None = None
    min_area: int | None = None
    at_least: Mapping[str, float] = field(default_factory=dict)
    head: HeadApplication | None = None
    keep: bool = False
    min_p_keep: float | None = None
    include_skipped: bool = False
    ranking: Ranking = field(default_factory=Ranking)
    sort: bool = False
    top: int | None = None
    top_per_image: int | None = None
    labelling: Labelling | None = None
    nms: float | None = None
    drop_parts: float | None = None
    drop_wholes: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("top", self.top), ("top_per_image", self.top_per_image)):
            if value is not None and value < 1:
                raise InvalidDocumentError(f"{name} is {value}; it must be at least 1.")
        for name, share in (("nms", self.nms), ("drop_parts", self.drop_parts), ("drop_wholes", self.drop_wholes)):
            if share is not None and not 0 < share <= 1:
                raise InvalidDocumentError(f"{name} is {share}; it must be above 0, and at most 1.")
        if self.labelling is not None and self.labelling.from_head and self.head and not self.head.head.classes:
            raise InvalidDocumentError(
                f"The head {self.head.head.name} does not tell classes apart, so it gives no labels. Give one "
                "that does: `maskscore fit --by-class`."
            )
        if self.drop_parts is not None and self.drop_wholes is not None:
            raise InvalidDocumentError("drop_parts keeps the wholes, drop_wholes the parts: give one of them.")

    @property
    def upstream_fields(self) -> tuple[str, ...]:
        """The upstream tool's fields that are asked for by name; the default ranking does without those it names."""
        ranked = (name for name in self.ranking.weights if name not in DEFAULT_WEIGHTS)
        return tuple(dict.fromkeys((*self.at_least, *(name for name in ranked if name not in OWN_VALUES))))

    def check_fields(self, with_field: Mapping[str, int], known: Iterable[str]) -> None:
        """Raise :class:`~maskscore.errors.InvalidDocumentError` for an upstream field that no mask has.

        ``with_field`` counts the masks that have each of :attr:`upstream_fields`, ``known`` are fields that they have.
        """
        known = sorted(known)
        for name in self.upstream_fields:
            if with_field.get(name):
                continue
            ranking = () if name in self.at_least else OWN_VALUES
            hint = did_you_mean(name, (*known, *ranking)) or "."
            option = _OPTIONS.get(name)
            instead = f" {option} is for it." if option else ""
            raise InvalidDocumentError(
                f"No mask has a field {name!r:.60}{hint}{instead} The fields of these masks: "
                f"{', '.join(known) or 'none'}."
            )

    @property
    def needs_decisions(self) -> bool:
        """Whether masks are filtered, ranked or labelled by what a head says of them."""
        return (
            self.keep
            or self.min_p_keep is not None
            or "p_keep" in self.ranking.weights
            or (self.labelling is not None and self.labelling.from_head)
        )

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """All labels that masks may get, in their order; ``None`` where only the masks tell."""
        if self.labelling is None:
            return None
        if self.labelling.names is None and self.labelling.from_head and self.head is not None:
            head = self.head.head
            return tuple(name for name in head.classes if name not in head.drop_classes)
        return self.labelling.names

    @property
    def best_first(self) -> bool:
        """Whether the order is that of the rank scores."""
        return self.sort or self.top is not None

    @property
    def compares_masks(self) -> bool:
        """Whether masks of an image are compared, for which their segmentations are needed."""
        return any(share is not None for share in (self.nms, self.drop_parts, self.drop_wholes))

    @property
    def needs_all(self) -> bool:
        """Whether nothing can be written before every mask is known."""
        return self.best_first or self.top_per_image is not None or self.compares_masks

    def refused_by(self, component: Component) -> str | None:
        """Return the name of the first filter that the mask does not pass; ``None`` for one to keep."""
        if component.skipped is not None:
            return None if self.include_skipped else "skipped"
        if self.min_multiplier is not None and not _reaches(component.semantic_multiplier, self.min_multiplier):
            return "min-multiplier"
        if self.max_neg is not None and not (component.p_neg_sum is not None and component.p_neg_sum <= self.max_neg):
            return "max-neg"
        if self.min_area is not None and not _reaches(component.area, self.min_area):
            return "min-area"
        if self.keep and not component.keep:
            return "keep"
        if self.min_p_keep is not None and not _reaches(component.p_keep, self.min_p_keep):
            return "min-p-keep"
        for name, least in self.at_least.items():
            if not _reaches(component.upstream.get(name), least):
                return f"min {name}"
        return None


def _reaches(value: object, least: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= least
