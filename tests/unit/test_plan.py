"""The arithmetic of ``maskscore plan``, and the source of its figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from maskscore.cli.plan import duration, plan_command
from maskscore.errors import InvalidDocumentError
from maskscore.sizing import Capacity, Sharding, Workload, make_plan, read_rate

SA_1B = Workload(11_000_000, 100, 950_000, 650, inline=False, results_in_redis=False)
MEANS = Capacity(3000, 0.8, 86_400.0, None, 1_000_000, 604_800.0, 2.0)


def test_sa_1b_in_a_day() -> None:
    plan = make_plan(SA_1B, MEANS)
    assert plan.masks == 1_100_000_000
    # 1.1e9 / (2400/s * 86400 s) = 5.3
    assert plan.workers == 6
    assert plan.hours == pytest.approx(1.1e9 / (6 * 2400) / 3600)
    assert plan.read_bytes == 11_000_000 * 950_000 + 1_100_000_000 * 650
    assert plan.read_bytes_per_s == pytest.approx(plan.read_bytes / (plan.hours * 3600))
    assert plan.reads_per_s == pytest.approx(2 * plan.images_per_s)
    assert plan.cost == pytest.approx(2.0 * 6 * plan.hours)
    assert plan.redis_queued_bytes == 1_000_000 * 840


def test_sa_1b_as_tars_takes_megabytes_of_redis_and_few_requests() -> None:
    plan = make_plan(dataclasses.replace(SA_1B, shards=Sharding(tars=True, images=11_000)), MEANS)
    jobs = make_plan(SA_1B, MEANS)
    assert (plan.shards, plan.parts, plan.puts) == (1000, 11_000, 22_000)
    assert plan.gets is not None
    assert plan.gets < 0.05 * plan.images
    assert plan.redis_bytes < plan.images
    assert (plan.workers, plan.hours, plan.cost) == (jobs.workers, jobs.hours, jobs.cost)


def test_pairs_are_read_one_by_one_and_their_lists_at_once() -> None:
    work = dataclasses.replace(SA_1B, images=2500, shards=Sharding(tars=False, images=1000, part_images=400))
    plan = make_plan(work, MEANS)
    # Two requests per list, whose images make up to three parts.
    assert (plan.shards, plan.parts, plan.gets, plan.puts) == (3, 9, 2 * 2500 + 6, 18 + 3)
    # 2,500 images with 100 inline masks of 650 bytes are 163 MB of lists, six ranges of 31 MiB.
    assert make_plan(dataclasses.replace(work, inline=True), MEANS).gets == 2500 + 3 + 6


@given(
    images=st.integers(1, 10**9),
    masks=st.floats(0.1, 1000),
    rate=st.floats(0.1, 1e5),
    deadline_s=st.floats(60, 1e7),
    inline=st.booleans(),
    in_redis=st.booleans(),
)
def test_the_deadline_is_kept_with_no_worker_too_many(
    images: int, masks: float, rate: float, deadline_s: float, inline: bool, in_redis: bool
) -> None:
    work = Workload(images, masks, 1000, 100, inline, in_redis)
    capacity = dataclasses.replace(MEANS, masks_per_s=rate, deadline_s=deadline_s)
    plan = make_plan(work, capacity)
    assert plan.hours * 3600 <= deadline_s * (1 + 1e-9)
    if plan.workers > 1:
        fewer = make_plan(work, dataclasses.replace(capacity, workers=plan.workers - 1, deadline_s=None))
        assert fewer.hours * 3600 > deadline_s * (1 - 1e-9)
    assert (plan.written_bytes == 0) is in_redis
    assert plan.redis_ended_bytes > 0


def test_what_is_kept_is_what_ended_within_the_time_to_live() -> None:
    slow = make_plan(SA_1B, dataclasses.replace(MEANS, workers=1, deadline_s=None, kept_s=3600.0))
    assert slow.redis_ended_bytes == pytest.approx(11_000_000 * 850 / slow.hours, rel=1e-6)


def test_the_slowest_rate_of_the_service_is_taken_unless_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    figures = {"service.a_masks_per_s": 30.0, "service.b_masks_per_s": 20.0, "forward.masks_per_s": 5.0, "x.ms": 1.0}
    file.write_text(json.dumps(figures))
    assert read_rate(file) == ("service.b_masks_per_s", 20.0)
    assert read_rate(file, "forward.masks_per_s") == ("forward.masks_per_s", 5.0)
    with pytest.raises(InvalidDocumentError, match=r"service\.a_masks_per_s"):
        read_rate(file, "x.ms")
    for content in ("[]", "nonsense", '{"service.a_masks_per_s": "fast"}'):
        file.write_text(content)
        with pytest.raises(InvalidDocumentError, match=r"bench\.json"):
            read_rate(file)
    with pytest.raises(InvalidDocumentError, match="cannot be read"):
        read_rate(tmp_path / "none.json")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("24h", 86_400), ("2d", 172_800)])
def test_durations(text: str, seconds: float) -> None:
    option = click.Option(["--deadline"])
    assert duration(click.Context(plan_command), option, text) == seconds


GIVEN = ["--images", "1000", "--masks-per-image", "30"]


def test_the_command_prints_a_table_with_its_assumptions_and_json() -> None:
    arguments = [*GIVEN, "--masks-per-s", "50", "--deadline", "1m", "--workers-cost-per-hour", "3"]
    shown = CliRunner().invoke(plan_command, arguments, env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.output.splitlines())) <= 80
    for words in ("workers", "13", "read from S3", "Redis, at most", "Assumed:", "given by --masks-per-s"):
        assert words in shown.output
    plan = json.loads(CliRunner().invoke(plan_command, [*arguments, "--json"]).output)
    assert plan["workers"] == 13
    assert plan["redis_bytes"] == plan["redis_queued_bytes"] + plan["redis_ended_bytes"]
    assert plan["assumptions"]


def test_the_command_plans_shards() -> None:
    arguments = [*GIVEN, "--masks-per-s", "50", "--shards", "tars", "--shard-images", "500"]
    shown = CliRunner().invoke(plan_command, arguments, env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.output.splitlines())) <= 80
    assert "2  tar files of 500 images" in shown.output
    plan = json.loads(CliRunner().invoke(plan_command, [*arguments, "--json"]).output)
    assert (plan["shards"], plan["parts"]) == (2, 2)
    assert "shards" not in json.loads(CliRunner().invoke(plan_command, [*arguments[:6], "--json"]).output)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--masks-per-s", "1", "--shard-images", "5"], "goes with --shards"),
        (["--masks-per-s", "1", "--shards", "tars", "--inline"], "their masks are members"),
        ([], "make bench"),
        (["--masks-per-s", "1", "--rates", "x"], "make bench"),
        (["--masks-per-s", "1", "--deadline", "soon"], "24h"),
        (["--masks-per-s", "1", "--deadline", "1h", "--workers", "2"], "either"),
    ],
)
def test_wrong_wishes_are_refused(more: list[str], words: str) -> None:
    refused = CliRunner().invoke(plan_command, [*GIVEN, *more])
    assert refused.exit_code == 2
    assert words in refused.output
