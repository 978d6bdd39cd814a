"""The simulation of a day: the autoscaler's formula, and conservation of jobs and GPUs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from simulation import Arrival, Autoscaler, Scaling, bursty_day, hpa_desired, simulate
from simulation.__main__ import simulate_command
from simulation.chart import draw
from simulation.day import DAY_S

TO_ZERO = Scaling("to zero", least=0, most=8, target=10)


@pytest.mark.parametrize(
    ("metric", "pods", "desired"),
    [(0, 1, 0), (10, 1, 1), (10.9, 1, 1), (12, 1, 2), (100, 1, 10), (21, 2, 2), (17, 2, 2), (9, 2, 1)],
)
def test_the_formula_of_the_hpa_with_its_tolerance(metric: float, pods: int, desired: int) -> None:
    assert hpa_desired(metric, 10, pods) == desired


def test_keda_starts_the_first_pod_and_ends_the_last_after_its_cool_down() -> None:
    scaler = Autoscaler(TO_ZERO)
    assert scaler.poll(0, 0, 0) == 0
    assert scaler.sync(5, 1000, 0) == 0
    assert scaler.poll(15, 1, 0) == 1
    assert scaler.poll(30, 0, 1) == 1
    assert scaler.poll(300, 0, 1) == 1
    assert scaler.poll(315, 0, 1) == 0
    assert Autoscaler(Scaling("one stays", 1, 8, 10)).poll(1000, 0, 1) == 1


def test_the_hpa_goes_up_by_its_policy_and_down_only_after_its_window() -> None:
    scaler = Autoscaler(TO_ZERO)
    assert scaler.sync(0, 1000, 1) == 5
    assert scaler.sync(15, 1000, 5) == 5
    assert scaler.sync(30, 1000, 5) == 8
    assert scaler.sync(45, 0, 8) == 8
    assert scaler.sync(329, 0, 8) == 8
    assert scaler.sync(345, 0, 8) == 4
    assert scaler.sync(360, 0, 4) == 4
    assert scaler.sync(495, 0, 4) == 2
    assert scaler.sync(645, 0, 2) == 1
    assert scaler.sync(795, 0, 1) == 1


def test_a_day_has_its_jobs_in_order_and_is_the_same_again() -> None:
    day = bursty_day(5000, 100, seed=3)
    assert len(day) == 5000
    assert day == sorted(day, key=lambda arrival: arrival.at)
    assert 0 <= day[0].at <= day[-1].at < DAY_S
    assert sum(arrival.masks for arrival in day) / 5000 == pytest.approx(100, rel=0.05)
    assert day == bursty_day(5000, 100, seed=3) != bursty_day(5000, 100, seed=4)


@hypothesis_settings(max_examples=15)
@given(
    arrivals=st.lists(st.builds(Arrival, st.floats(0, DAY_S - 1), st.integers(1, 5000)), max_size=60),
    least=st.integers(0, 2),
    more=st.integers(1, 5),
    target=st.floats(0.5, 50),
    cold_start_s=st.floats(0, 600),
    window_s=st.floats(0, 900),
)
# The second one's time, reached by adding what was left to it, was a moment before it.
@example([Arrival(1.5717868539909432, 1), Arrival(4098.004452831533, 1)], 1, 1, 1.0, 0.0, 0.0)
def test_every_job_that_arrives_ends_and_no_gpu_comes_from_nowhere(
    arrivals: list[Arrival], least: int, more: int, target: float, cold_start_s: float, window_s: float
) -> None:
    arrivals = sorted(arrivals, key=lambda arrival: arrival.at)
    scaling = Scaling("any", least, least + more, target, cool_down_s=window_s, stabilisation_s=window_s)
    outcome = simulate(arrivals, scaling, masks_per_s=100, cold_start_s=cold_start_s)
    assert outcome.arrived == outcome.ended == len(outcome.waits_s) == len(arrivals)
    assert all(wait >= 0 for wait in outcome.waits_s)
    assert outcome.busy_s == pytest.approx(sum(arrival.masks for arrival in arrivals) / 100)
    # What was paid for covers the work and the cold starts of pods that were needed for it.
    assert outcome.pod_s >= outcome.busy_s - 1e-6
    assert outcome.starts >= bool(arrivals)
    for sample in outcome.samples:
        assert sample.jobs >= 0
        assert sample.oldest_s >= 0
        # One that drains is paid for beside those that the limit counts.
        assert 0 <= sample.pods <= 2 * scaling.most
    if least == 0 and not arrivals:
        assert outcome.pod_s == 0


def test_one_job_waits_for_the_scaler_and_the_cold_start() -> None:
    outcome = simulate([Arrival(1000, 100)], TO_ZERO, masks_per_s=100, cold_start_s=90)
    # At most a scrape and a poll late.
    assert 90 <= outcome.waits_s[0] <= 90 + 15 + 15
    assert outcome.starts == 1
    # Its start, its second of work and the cool-down; the last poll that saw it may be late as well.
    assert 90 + 300 <= outcome.pod_s <= 90 + 1 + 300 + 60


def test_a_gpu_that_stays_answers_at_once_and_costs_the_day() -> None:
    outcome = simulate([Arrival(1000, 100)], Scaling("one stays", 1, 8, 10), masks_per_s=100, cold_start_s=90)
    assert outcome.waits_s == [0]
    assert outcome.pod_s == pytest.approx(DAY_S, rel=0.01)


def test_the_picture_is_well_formed_and_holds_every_setting() -> None:
    day = bursty_day(2000, 100)
    outcomes = [
        simulate(day, Scaling(name, least, 4, 50), masks_per_s=1000, cold_start_s=60)
        for name, least in (("one <stays>", 1), ("to zero", 0))
    ]
    drawn = draw(day, outcomes)
    texts = " ".join(ElementTree.fromstring(drawn).itertext())
    assert "one <stays>: 1 to 4 GPUs" in texts
    assert "to zero: 0 to 4 GPUs" in texts
    assert "NaN" not in drawn
    assert len(drawn) < 60_000


def test_the_command_compares_three_settings_and_draws_them(tmp_path: Path) -> None:
    arguments = ["--jobs", "3000", "--masks-per-s", "100", "--worker-cost-per-hour", "2", "--cool-down", "15m"]
    shown = CliRunner().invoke(simulate_command, [*arguments, "--svg", f"{tmp_path}/day.svg"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.output.splitlines())) <= 80
    assert "<svg" in (tmp_path / "day.svg").read_text()
    lines = CliRunner().invoke(simulate_command, [*arguments, "--json"]).output.splitlines()
    outcomes = [json.loads(line) for line in lines]
    assert [outcome["setting"] for outcome in outcomes] == ["eager", "one stays", "patient"]
    for outcome in outcomes:
        assert outcome["jobs"] == 3000
        assert outcome["gpu_hours"] >= outcome["busy_gpu_hours"]
        assert outcome["cost"] == pytest.approx(2 * outcome["gpu_hours"])
    assert [outcome["cool_down_s"] for outcome in outcomes] == [900, 300, 900]


def test_the_defaults_are_those_of_the_overlay() -> None:
    overlay = Path(__file__).parents[2] / "deploy" / "components" / "scaler" / "scaledobject.yaml"
    spec = next(
        document["spec"] for document in yaml.safe_load_all(overlay.read_text()) if document["kind"] == "ScaledObject"
    )
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    up = {policy["type"]: policy for policy in behavior["scaleUp"]["policies"]}
    (down,) = behavior["scaleDown"]["policies"]
    scaling = Scaling("overlay", spec["minReplicaCount"], spec["maxReplicaCount"], 1)
    assert (scaling.polling_s, scaling.cool_down_s) == (spec["pollingInterval"], spec["cooldownPeriod"])
    assert (scaling.up_pods, scaling.up_share) == (up["Pods"]["value"], up["Percent"]["value"] / 100)
    assert {policy["periodSeconds"] for policy in up.values()} == {scaling.up_period_s}
    assert (down["type"], down["value"] / 100) == ("Percent", scaling.down_share)
    assert down["periodSeconds"] == scaling.down_period_s
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == scaling.stabilisation_s
