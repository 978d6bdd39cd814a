"""The top of a report: counts, histograms, the contact sheet, and the failures.

It grows with the number of different codes, models and prompt sets, not with the number of jobs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from maskscore.report.contact_sheet import ContactSheet
from maskscore.report.histogram import Histogram
from maskscore.report.job_sections import Section
from maskscore.report.score_colours import COSINE_GRADES, MULTIPLIER_GRADES, NO_GRADE, SIGMOID_GRADES, Grade
from maskscore.schema import JobResult

__all__ = ["Bar", "Problem", "ReportSummary", "Scale"]

_EXAMPLES: Final = 3
# Documents of an unknown upstream may bring a prompt set each; a page that lists a thousand helps nobody.
_MOST_FACTS: Final = 50


@dataclass(frozen=True, slots=True)
class Bar:
    """One grade's count; ``percent`` of all components."""

    grade: Grade
    count: int
    percent: float


@dataclass(frozen=True, slots=True)
class Scale:
    """The grades of one method, its histogram and its contact sheet."""

    name: str
    bars: list[Bar]
    histogram: Histogram
    sheet: ContactSheet


@dataclass(slots=True)
class Problem:
    """A code: how often, one of its sentences, and a few examples as ``(href, name)``."""

    code: str
    message: str
    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    def add(self, href: str, name: str) -> None:
        """Count one more, and keep it as an example where there are few."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append((href, name))


class ReportSummary:
    """Everything about the jobs that passed :meth:`add`."""

    def __init__(self) -> None:
        self.jobs = self.masks = self.scored = 0
        self.states: Counter[str] = Counter()
        self._grades: Counter[Grade] = Counter()
        self._failures: dict[str, Problem] = {}
        self._skipped: dict[str, Problem] = {}
        self._facts: dict[str, Counter[tuple[str, str]]] = {
            "Batch": Counter(),
            "Model": Counter(),
            "Prompts": Counter(),
            "Treatment, method": Counter(),
        }
        self._histograms: dict[str, Histogram] = {}
        self._sheets: dict[str, ContactSheet] = {}

    def add(self, section: Section, page: str = "") -> None:
        """Count a job; ``page`` is the file that shows it, empty where that is the summary's own."""
        result = section.entry.result
        self.jobs += 1
        self.states[result.state.value] += 1
        if result.error is not None:
            problem = self._failures.setdefault(result.error.code, Problem(result.error.code, result.error.message))
            problem.add(f"{page}#{section.anchor}", section.name)
        self._add_facts(result)
        method = result.method or "softmax"
        if method not in self._histograms and section.rows:
            self._histograms[method] = Histogram.of_method(method)
            self._sheets[method] = ContactSheet(method)
        for row in section.rows:
            self.masks += 1
            self._grades[row.grade] += 1
            self._histograms[method].add(row.component)
            if skipped := row.component.skipped:
                problem = self._skipped.setdefault(skipped.code, Problem(skipped.code, skipped.message))
                problem.add(f"{page}#{row.anchor}", f"{row.component.id} of {section.name}")
            else:
                self.scored += 1
        if section.rows:
            self._sheets[method].offer(section, page)

    @property
    def failures(self) -> list[Problem]:
        """Jobs without a result, by code, the most frequent first."""
        return sorted(self._failures.values(), key=lambda problem: -problem.count)

    @property
    def skipped(self) -> list[Problem]:
        """Masks without a score, by code, the most frequent first."""
        return sorted(self._skipped.values(), key=lambda problem: -problem.count)

    def scales(self) -> list[Scale]:
        """Return the scale of each method that the results have: the multiplier's, that of cosines."""
        methods = [method for method in ("softmax", "sigmoid", "cosine") if method in self._histograms] or ["softmax"]
        scales = []
        for method in methods:
            name, grades = "multiplier", list(MULTIPLIER_GRADES.values())
            if method == "sigmoid":
                name, grades = "multiplier (sigmoid)", list(SIGMOID_GRADES.values())
            elif method == "cosine":
                name, grades = "s_pos − s_neg (cosines)", list(COSINE_GRADES)
            if self._grades[NO_GRADE] and method == methods[-1]:
                grades.append(NO_GRADE)
            bars = [Bar(g, self._grades[g], 100 * self._grades[g] / max(1, self.masks)) for g in grades]
            histogram = self._histograms.get(method) or Histogram.of_method(method)
            scales.append(Scale(name, bars, histogram, self._sheets.get(method) or ContactSheet(method)))
        return scales

    def facts(self) -> list[tuple[str, list[tuple[str, str, int]]]]:
        """Return what computed the scores: per kind of fact, each value's text, its digest, how many jobs have it."""
        return [
            (kind, [(text, digest, count) for (text, digest), count in counter.most_common()])
            for kind, counter in self._facts.items()
            if counter
        ]

    def _add_facts(self, result: JobResult) -> None:
        if result.batch_id:
            self._count("Batch", result.batch_id, "")
        if model := result.model:
            text = f"{model.name}: " if model.name else ""
            text += f"{model.architecture}, {model.image_size} px, {model.precision}, {model.crop_mode} crops"
            if model.resize is not None:
                text += f", {model.resize.mode} by {model.resize.interpolation}"
            self._count("Model", text, model.weights_digest)
        if used := result.prompts:
            text = f"{used.name}: {used.positive} positive, {used.negative} negative"
            self._count("Prompts", text + (f", {used.neutral} neutral" if used.neutral else ""), used.digest)
        if result.treatment and result.method:
            self._count("Treatment, method", f"{result.views_text}, {result.method}", "")

    def _count(self, kind: str, text: str, digest: str) -> None:
        counter = self._facts[kind]
        known = (text, digest) in counter or len(counter) < _MOST_FACTS
        counter[(text, digest) if known else ("others", "")] += 1
