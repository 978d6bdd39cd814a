"""Compares treatments on the same masks: the jobs to submit, and where their verdicts differ."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from maskscore.errors import InvalidDocumentError
from maskscore.report.contact_sheet import score_margin
from maskscore.report.score_colours import Grade, grade_of, in_order
from maskscore.schema import (
    SPECIFIED,
    Component,
    Job,
    JobResult,
    ScoringOptions,
    SigmoidThresholds,
    explain,
)

__all__ = ["TREATMENTS", "Cell", "ComparedMask", "Comparison", "comparison_jobs", "treatment_options"]

TREATMENTS: Final = SPECIFIED
"""What is compared unless something else is asked for."""


def treatment_options(text: str) -> dict[str, Any]:
    """Return the scoring options of a treatment written ``NAME`` or ``NAME,OPTION=VALUE,…`` (``soft_mask,alpha=0.7``).

    Any option of :class:`~maskscore.schema.job.ScoringOptions` may follow the name. Raises
    :class:`~maskscore.errors.InvalidDocumentError` for a treatment or an option that there is not.
    """
    name, *pairs = text.split(",")
    options: dict[str, Any] = {"treatment": name}
    for pair in pairs:
        option, _, value = pair.partition("=")
        options[option.strip()] = _value(value.strip())
    try:
        ScoringOptions.model_validate(options)
    except ValidationError as error:
        raise InvalidDocumentError(f"There is no treatment {text!r}: {explain(error)}.") from error
    return options


def comparison_jobs(job: Job, treatments: Iterable[str]) -> list[Job]:
    """Return, for each treatment, the job by probabilities and the one by cosines, with ids of their own.

    Everything but the treatment is ``job``'s; so is the first one's method, if it is ``sigmoid``, and else it is
    ``softmax``. Raises as :func:`treatment_options` does.
    """
    jobs = []
    for treatment in treatments:
        asked = treatment_options(treatment)
        method = "sigmoid" if job.options.method == "sigmoid" else "softmax"
        for changes in ({"method": method}, {"method": "cosine", "sigmoid_thresholds": SigmoidThresholds()}):
            options = ScoringOptions.model_validate({**dict(job.options), **asked, **changes})
            jobs.append(job.model_copy(update={"job_id": uuid.uuid4().hex, "options": options}))
    return jobs


@dataclass(frozen=True, slots=True)
class Cell:
    """One mask under one treatment."""

    probabilities: Component
    cosines: Component

    @property
    def grade(self) -> Grade:
        """The verdict: the grade of the multiplier."""
        return grade_of(self.probabilities)

    @property
    def leans_positive(self) -> bool:
        """Whether the positive score is the larger one."""
        return (score_margin(self.probabilities) or 0.0) > 0

    @property
    def methods_differ(self) -> bool:
        """Whether the larger sum of probabilities (or probability) and the larger cosine are of different groups."""
        sums, cosines = score_margin(self.probabilities), score_margin(self.cosines)
        return sums is not None and cosines is not None and (sums > 0) != (cosines > 0)


@dataclass(frozen=True, slots=True)
class ComparedMask:
    """One mask, or one connected part of it; ``cells`` are in the order of the treatments."""

    component: Component
    cells: list[Cell]

    @property
    def name(self) -> str:
        """The mask's id, with its part where it is one."""
        part = self.component.part
        return self.component.id if part is None else f"{self.component.id}/{part}"

    @property
    def differs(self) -> bool:
        """Whether the treatments lead to different verdicts."""
        return len({cell.grade for cell in self.cells}) > 1

    @property
    def methods_differ(self) -> bool:
        """Whether cosines and probabilities point to different sides under one of the treatments."""
        return any(cell.methods_differ for cell in self.cells)

    @property
    def spread(self) -> float:
        """The largest difference that a treatment makes in ``p_pos_sum`` (method sigmoid: ``s_pos``), 0 to 1."""
        scored = [cell.probabilities for cell in self.cells]
        values = [(c.s_pos if c.p_pos_sum is None else c.p_pos_sum) or 0.0 for c in scored]
        return max(values) - min(values)


class Comparison:
    """The results of :func:`comparison_jobs`, in its order, mask by mask.

    ``masks`` has those first whose verdict depends on the treatment, then those where cosines and probabilities
    disagree, each the largest difference first.
    """

    def __init__(self, treatments: Sequence[str], results: Sequence[JobResult]) -> None:
        self.treatments = list(treatments)
        pairs = list(zip(results[0::2], results[1::2], strict=True))
        masks = []
        for position, component in enumerate(results[0].components):
            cells = [Cell(first.components[position], second.components[position]) for first, second in pairs]
            masks.append(ComparedMask(component, cells))
        self.masks = sorted(masks, key=lambda mask: (not mask.differs, not mask.methods_differ, -mask.spread))

    @property
    def differing(self) -> int:
        """How many masks get another verdict by another treatment."""
        return sum(mask.differs for mask in self.masks)

    @property
    def methods_differing(self) -> int:
        """For how many masks cosines and probabilities disagree, under any treatment."""
        return sum(mask.methods_differ for mask in self.masks)

    def grades(self) -> list[tuple[Grade, list[int]]]:
        """Return how many masks have which grade, per treatment."""
        counts = [Counter(mask.cells[column].grade for mask in self.masks) for column in range(len(self.treatments))]
        found = in_order(grade for counter in counts for grade in counter)
        return [(grade, [counter[grade] for counter in counts]) for grade in found]

    def disagreements(self) -> list[int]:
        """Return for how many masks cosines and probabilities disagree, per treatment."""
        columns = range(len(self.treatments))
        return [sum(mask.cells[column].methods_differ for mask in self.masks) for column in columns]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
