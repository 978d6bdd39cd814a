"""``maskscore run`` without services: wrong usage, a dry run, and the summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from maskscore.cli.progress import rate, time_left
from maskscore.cli.run import run_command
from maskscore.cli.run_output import print_summary
from maskscore.dataset import FailureCounts, PairingCounts, ResultCounts, RunOptions, RunSummary, default_batch_id
from maskscore.dataset.submission import Submitted
from maskscore.errors import PayloadTooLarge
from maskscore.ledger import BatchCounts
from maskscore.schema.job import ScoringOptions
from maskscore.schema.prompt_set import PromptSet
from maskscore.schema.result import Component, Failure, JobResult, JobState, Skipped


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["x", "--retry-failed"], "--resume"),
        (["x", "--upload", "s3://bucket/prefix"], "slash"),
        (["x", "--result-uri", "s3:///"], "--result-uri"),
        (["x", "--batch-id", "a b"], "--batch-id"),
        (["x", "--format", "nothing"], "--format"),
        ([], "IMAGES"),
    ],
)
def test_wrong_usage(arguments: list[str], word: str) -> None:
    ran = CliRunner().invoke(run_command, arguments)
    assert (ran.exit_code, word in ran.output) == (2, True), ran.output


def test_a_dry_run_asks_no_service_and_shows_the_first_pairs(tmp_path: Path) -> None:
    for n in range(12):
        (tmp_path / f"{n:02}.jpg").touch()
        (tmp_path / f"{n:02}.json").touch()
    for name in ("x.jpg", "y.json", "z.csv"):
        (tmp_path / name).touch()
    shown = CliRunner(env={"MASKSCORE_REDIS_URL": "redis://127.0.0.1:1/0"}).invoke(
        run_command, [str(tmp_path), "--dry-run"]
    )
    assert shown.exit_code == 0, shown.output
    for word in ("00.jpg  ←  00.json", "and 2 more", "12 images", "x.jpg", "y.json", "1 .csv"):
        assert word in shown.output
    document = json.loads(CliRunner().invoke(run_command, [str(tmp_path), "--dry-run", "--json"]).output)
    assert (document["images"], len(document["pairs"]), document["census"]["others"]) == (12, 10, {".csv": 1})


def summary(
    counts: BatchCounts, result_counts: ResultCounts, submitted: Submitted, pairing_counts: PairingCounts | None = None
) -> RunSummary:
    return RunSummary(
        "b", pairing_counts or PairingCounts(), 10, submitted, counts, result_counts, 2.0, 5.0, complete=True
    )


def test_the_summary_says_what_became_of_each_image(capsys: pytest.CaptureFixture[str]) -> None:
    result_counts = ResultCounts()
    for number in range(8):
        components = [
            Component(id="1", index=0, semantic_multiplier=2.0),
            Component(id="2", index=1, semantic_multiplier=0.1),
            Component(id="3", index=2, skipped=Skipped(code="empty_mask", message="no pixel is set")),
        ]
        result_counts.add(
            JobResult(job_id=str(number), state=JobState.SUCCEEDED, components=components), lambda: "never asked"
        )
    for number in range(5):
        error = Failure(code="image_truncated", message="it ends too early")
        result_counts.add(JobResult(job_id="x", state=JobState.FAILED, error=error), lambda n=number: f"s3://b/{n}.jpg")  # type: ignore[misc]
    (only,) = [component for component in components if component.skipped]
    nothing = JobResult(job_id="n", state=JobState.SUCCEEDED, components=[only])
    result_counts.add(nothing, lambda: "s3://b/none.jpg")
    left_out = FailureCounts(count=4, examples=[("s3://b/c.jpg", "c.json: mask 7: it has two points")])
    submitted = Submitted(
        left_out=left_out,
        refused={PayloadTooLarge.code: FailureCounts(count=1, examples=[("s3://b/big.jpg", "too large")])},
    )
    whole = summary(
        BatchCounts(succeeded=8, failed=5),
        result_counts,
        submitted,
        PairingCounts(images_without_masks=1, lonely_images=["z"]),
    )
    assert whole.succeeded is False
    print_summary(whole, as_json=False, follow=True)
    said = capsys.readouterr().out
    for word in (
        "8 succeeded, 5 failed",
        "16 scored; skipped: 9 empty_mask",
        "left out  4 entries",
        "c.json: mask 7: it has two points",
        "no_mask_scored: 1 → ",
        "s3://b/none.jpg: The only mask was not scored: 1 empty_mask. The first: no pixel is set",
        f"2.0                 8  50.0%  {'█' * 20}",
        "image_truncated: 5 → ",
        "s3://b/2.jpg: it ends too early",
        "payload_too_large: 1 → set MASKSCORE_SPILL_URI",
        "1 image without masks: z",
        "maskscore export b ",
    ):
        assert word in said, said
    assert "s3://b/3.jpg" not in said
    print_summary(whole, as_json=True, follow=True)
    document = json.loads(capsys.readouterr().out)
    assert document["multipliers"] == {"2.0": 8, "0.1": 8}
    assert document["failures"]["image_truncated"]["count"] == 5
    assert (document["masks_left_out"], document["no_mask_scored"]["count"]) == (4, 1)
    # What is kept between two runs is the same when it is read again.
    assert ResultCounts.model_validate_json(result_counts.model_dump_json()) == result_counts


def test_a_run_of_which_an_image_has_no_scored_mask_is_no_success() -> None:
    result_counts = ResultCounts()
    skipped = Component(id="1", index=0, skipped=Skipped(code="empty_mask", message="no pixel is set"))
    scored = Component(id="2", index=1, semantic_multiplier=2.0)
    for components, succeeded in (([], True), ([skipped, scored], True), ([skipped], False)):
        result_counts.add(JobResult(job_id="1", state=JobState.SUCCEEDED, components=components), lambda: "a.jpg")
        assert summary(BatchCounts(succeeded=1), result_counts, Submitted()).succeeded is succeeded


def test_a_run_without_masks_has_no_histogram(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summary(BatchCounts(), ResultCounts(), Submitted()), as_json=False, follow=True)
    assert "multiplier" not in capsys.readouterr().out


def test_equal_work_has_an_equal_batch_id() -> None:
    place = {"images": "s3://photos/Ein Jahr/2026/"}
    default = default_batch_id(RunOptions().fingerprint(place))
    assert default.startswith("run-2026-")
    assert default_batch_id(RunOptions(fields={"priority": "low"}).fingerprint(place)) == default
    own = PromptSet(name="own", positive=("a dog",), negative=("sky",))
    others = [
        RunOptions(ScoringOptions(treatment="raw_crop")),
        RunOptions(ScoringOptions(prompts=own)),
        RunOptions(ScoringOptions(prompts=own.model_copy(update={"positive": ("a cat",)}))),
        RunOptions(fields={"result_uri": "s3://a/b/"}),
        RunOptions(upload="s3://a/b/"),
        RunOptions(content_id=True),
    ]
    ids = {default_batch_id(order.fingerprint(place)) for order in others}
    assert len(ids | {default}) == len(others) + 1


def test_rate_and_time_left() -> None:
    assert [rate(value) for value in (0.25, 1234.5)] == ["0.2/s", "1,234/s"]
    said = [time_left(value) for value in (None, 59.9, 3599, 100_000)]
    assert said == ["time left unknown", "59 s left", "59 min left", "27 h 46 min left"]
