"""Comparing treatments: the jobs that are submitted, and the order of the masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from drawn_entries import drawn_entries
from maskscore.errors import InvalidDocumentError
from maskscore.report.compare_page import write_comparison
from maskscore.report.comparison import TREATMENTS, Comparison, comparison_jobs
from maskscore.schema.job import SigmoidThresholds, Thresholds
from maskscore.schema.result import Component, JobResult, JobState, Skipped


def test_every_treatment_is_asked_by_both_methods() -> None:
    [entry] = drawn_entries(1)
    assert entry.job is not None
    jobs = comparison_jobs(entry.job, [*TREATMENTS, "soft_mask,alpha=0.9"])
    asked = [(job.options.treatment, job.options.method, job.options.alpha) for job in jobs]
    assert asked == [
        (treatment, method, alpha)
        for treatment, alpha in [*((name, 0.4) for name in TREATMENTS), ("soft_mask", 0.9)]
        for method in ("softmax", "cosine")
    ]
    assert len({job.job_id for job in jobs} | {entry.job.job_id}) == 9
    assert all(
        (job.masks, job.image, job.options.prompts) == (entry.job.masks, entry.job.image, "demo") for job in jobs
    )


def test_independent_probabilities_may_decide() -> None:
    [entry] = drawn_entries(1)
    assert entry.job is not None
    options = entry.job.options.model_copy(
        update={"method": "sigmoid", "sigmoid_thresholds": SigmoidThresholds(fit=0.02)}
    )
    first, second = comparison_jobs(entry.job.model_copy(update={"options": options}), ["raw_crop"])
    assert (first.options.method, first.options.sigmoid_thresholds.fit) == ("sigmoid", 0.02)
    assert second.options.method == "cosine"


@pytest.mark.parametrize("text", ["polish", "", "soft_mask,alpha=3", "soft_mask,beta=1", "raw_crop,"])
def test_a_treatment_that_there_is_not_is_refused(text: str) -> None:
    [entry] = drawn_entries(1)
    assert entry.job is not None
    with pytest.raises(InvalidDocumentError, match="There is no treatment"):
        comparison_jobs(entry.job, [text])


def results(sums: Mapping[str, tuple[float, ...]], cosines: dict[str, float], columns: int) -> list[JobResult]:
    found = []
    for column in range(columns):
        softmax = [scored(n, name, values[column]) for n, (name, values) in enumerate(sums.items())]
        cosine = [
            Component(id=name, index=n, s_pos=0.2 + cosines.get(name, values[column] - 0.5) / 10, s_neg=0.2)
            for n, (name, values) in enumerate(sums.items())
        ]
        skipped = Component(id="x", index=len(sums), skipped=Skipped(code="empty_mask", message="It is empty."))
        for components in (softmax, cosine):
            found.append(JobResult(job_id="j", state=JobState.SUCCEEDED, components=[*components, skipped]))
    return found


def scored(index: int, name: str, positive: float) -> Component:
    multiplier = Thresholds().multiplier(positive, 1 - positive)
    return Component(
        id=name,
        index=index,
        s_pos=positive,
        s_neg=1 - positive,
        s_pos_text="a dog",
        s_neg_text="sky",
        p_pos_sum=positive,
        p_neg_sum=1 - positive,
        semantic_multiplier=multiplier,
    )


SUMS = {
    "same": (0.95, 0.9),
    "odd": (0.9, 0.95),
    "little": (0.75, 0.85),
    "much": (0.1, 0.9),
    "close": (0.97, 0.98),
}


def test_masks_whose_verdict_differs_come_first() -> None:
    comparison = Comparison(["original", "raw_crop"], results(SUMS, {"odd": -0.3}, 2))
    assert [mask.name for mask in comparison.masks] == ["much", "little", "odd", "same", "close", "x"]
    assert (comparison.differing, comparison.methods_differing) == (2, 1)
    assert comparison.disagreements() == [1, 1]
    counts = {grade.name: found for grade, found in comparison.grades()}
    assert counts == {"2.0": [3, 5], "1.0": [1, 0], "0.1": [1, 0], "–": [1, 1]}
    assert list(counts) == ["2.0", "1.0", "0.1", "–"]


def test_the_page_shows_each_mask_under_each_treatment(tmp_path: Path) -> None:
    [entry] = drawn_entries(1)
    assert entry.job is not None
    columns = [*TREATMENTS, "soft_mask,alpha=1"]
    jobs = comparison_jobs(entry.job, columns)
    comparison = Comparison(columns, [entry.result] * 8)
    write_comparison(tmp_path / "c.html", comparison, jobs, entry, title="<i>")
    text = (tmp_path / "c.html").read_text("utf-8")
    count = len(entry.result.components)
    assert text.count('<section class="compared"') == count
    assert text.count('alt="crop of mask') == 4 * count
    # Equal answers, so nothing is marked, but each treatment's crop is another picture.
    assert "verdicts differ" not in text
    crops = [part.split('"')[1] for part in text.split("<img src=")[1:] if "crop of mask" in part.split(">")[0]]
    assert len(set(crops[:4])) >= 3
    assert "<i>" not in text.split("<body>")[1].split("</h1>")[0]
