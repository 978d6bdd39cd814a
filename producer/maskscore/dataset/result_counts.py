"""Counts over the results of a batch, stored as JSON between runs."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field

from maskscore.errors import ResultUnavailable, SkipCode
from maskscore.schema import JobResult

__all__ = ["FailureCounts", "ResultCounts"]

_EXAMPLES = 3


class FailureCounts(BaseModel):
    """The jobs (or images) that ended with one code: how many, and the first few with what was said of them."""

    count: int = 0
    examples: list[tuple[str, str]] = Field(default_factory=list)

    def add(self, name: Callable[[], str], message: str) -> None:
        """Count one; ``name`` is asked for only where it is one of the first."""
        # Asking for the name may fail; then nothing was counted.
        if len(self.examples) < _EXAMPLES:
            self.examples.append((name(), message))
        self.count += 1


class ResultCounts(BaseModel):
    """Counts over the results of a batch.

    ``multipliers`` counts masks by their semantic multiplier, as text; ``none`` are those scored without one
    (``method="cosine"``). ``skipped`` counts masks by why they were skipped, ``failures`` jobs by their code,
    ``no_mask_scored`` the jobs that succeeded although no mask of theirs was scored.
    """

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    position: str = "0"
    jobs: int = 0
    masks: int = 0
    multipliers: dict[str, int] = Field(default_factory=dict)
    skipped: dict[str, int] = Field(default_factory=dict)
    warnings: dict[str, int] = Field(default_factory=dict)
    failures: dict[str, FailureCounts] = Field(default_factory=dict)
    # The alias is the name in stored counts.
    no_mask_scored: FailureCounts = Field(default_factory=FailureCounts, alias="unscored")

    def add(self, result: JobResult, name: Callable[[], str]) -> None:
        """Count a job's result; ``name`` says which image it is of."""
        if result.error is not None:
            self.add_failure(result.error.code, name, result.error.message)
        if result.no_mask_scored:
            self.no_mask_scored.add(name, result.why_no_mask_scored)
        self.jobs += 1
        for notice in result.warnings:
            _one_more(self.warnings, notice.code)
        for component in result.components:
            if component.skipped is not None:
                _one_more(self.skipped, component.skipped.code)
                continue
            self.masks += 1
            multiplier = component.semantic_multiplier
            _one_more(self.multipliers, "none" if multiplier is None else f"{multiplier:.1f}")

    @property
    def copies(self) -> int:
        """How many masks were skipped as copies (``nms``)."""
        return self.skipped.get(SkipCode.DUPLICATE_MASK, 0)

    @property
    def parts(self) -> int:
        """How many masks were skipped as parts of others (``drop_parts``)."""
        return self.skipped.get(SkipCode.PART_OF_MASK, 0)

    def share_of_forwards(self, skipped: int) -> float:
        """Return the share of so many skipped masks among the scored ones, the copies and the parts."""
        return skipped / (self.masks + self.copies + self.parts) if skipped else 0.0

    def count_of(self, code: str) -> int:
        """Return how many jobs ended with a code."""
        return self.failures[code].count if code in self.failures else 0

    def add_unread(self, name: str, message: str) -> None:
        """Count a job that has ended, and whose result cannot be read."""
        self.jobs += 1
        self.add_failure(ResultUnavailable.code, lambda: name, message)

    def add_failure(self, code: str, name: Callable[[], str], message: str) -> None:
        """Count a failure by its code."""
        self.failures.setdefault(code, FailureCounts()).add(name, message)


def _one_more(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
