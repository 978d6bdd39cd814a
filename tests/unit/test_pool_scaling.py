"""The pool's decisions: number of workers, restarts, and the cores of each."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskscore.errors import SettingsError
from maskscore.pool import worker_slots
from maskscore.pool.restart_backoff import RestartBackoff
from maskscore.pool.scaling import BacklogSample, PoolLimits, workers_wanted
from maskscore.pool.worker_slots import cpu_slots, device_slots

LIMITS = PoolLimits(least=0, most=4, jobs_per_worker=10, cool_down_s=60)


def seen(*jobs: int | None, every_s: float = 10) -> list[BacklogSample]:
    """These counts, one every ten seconds."""
    return [BacklogSample(n * every_s, count) for n, count in enumerate(jobs)]


@pytest.mark.parametrize(
    ("jobs", "workers"), [(0, 0), (1, 1), (10, 1), (11, 2), (40, 4), (41, 4), (1_000_000, 4)], ids=str
)
def test_a_backlog_asks_for_its_share_at_once(jobs: int, workers: int) -> None:
    assert workers_wanted(seen(jobs), 0, LIMITS) == workers


def test_fewer_come_only_after_a_whole_cool_down() -> None:
    assert workers_wanted(seen(40, 0, 0, 0, 0, 0, 0), 4, LIMITS) == 4
    assert workers_wanted(seen(40, 0, 0, 0, 0, 0, 0, 0), 4, LIMITS) == 0


def test_the_busiest_moment_of_the_cool_down_decides() -> None:
    assert workers_wanted(seen(40, 0, 0, 0, 15, 0, 0, 0), 4, LIMITS) == 2


def test_a_pool_that_has_just_begun_knows_no_cool_down() -> None:
    assert workers_wanted(seen(0, 0, 0), 3, LIMITS) == 3


def test_without_a_cool_down_fewer_come_at_once() -> None:
    assert workers_wanted(seen(40, 0), 4, PoolLimits(1, 4, 10, 0)) == 1


def test_while_redis_does_not_answer_the_pool_stays_as_it_is() -> None:
    assert workers_wanted(seen(40, None), 2, LIMITS) == 2
    assert workers_wanted(seen(0, 0, 0, 0, None, 0, 0, 0), 2, LIMITS) == 2
    assert workers_wanted([], 2, LIMITS) == 2
    assert workers_wanted([], 0, PoolLimits(1, 4, 10, 60)) == 1


@given(
    jobs=st.lists(st.one_of(st.none(), st.integers(0, 200)), max_size=30),
    present=st.integers(0, 9),
    least=st.integers(0, 3),
    more=st.integers(1, 6),
    share=st.integers(1, 20),
    cool_down_s=st.floats(0, 200),
)
def test_it_never_leaves_its_limits_and_never_has_too_few(
    jobs: list[int | None], present: int, least: int, more: int, share: int, cool_down_s: float
) -> None:
    limits = PoolLimits(least, least + more, share, cool_down_s)
    number = workers_wanted(seen(*jobs), present, limits)
    assert limits.least <= number <= limits.most
    if jobs and jobs[-1] is not None:
        assert number >= min(limits.most, math.ceil(jobs[-1] / share))


def test_the_pause_doubles_until_a_worker_has_run_well() -> None:
    restarts = RestartBackoff(first_s=1, most_s=30, well_s=60)
    assert restarts.over(0)
    assert [restarts.died(n, ready_at=None) for n in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert not restarts.over(35.9)
    assert restarts.over(36)
    assert restarts.died(100, ready_at=41) == 30
    assert restarts.died(200, ready_at=140) == 1


def test_a_death_an_hour_for_years_does_not_overflow() -> None:
    restarts = RestartBackoff(first_s=1, most_s=30, well_s=math.inf)
    assert {restarts.died(n, ready_at=0) for n in range(5000)} == {1, 2, 4, 8, 16, 30}


@given(count=st.integers(1, 20), cores=st.sets(st.integers(0, 255), min_size=1, max_size=64))
def test_cores_are_shared_out_once_each_as_long_as_there_are_enough(count: int, cores: set[int]) -> None:
    found = cpu_slots(count, sorted(cores))
    assert len(found) == count
    assert all(slot.cores and slot.cores <= cores for slot in found)
    if count <= len(cores):
        assert sorted(core for slot in found for core in slot.cores) == sorted(cores)
        assert max(len(p.cores) for p in found) - min(len(p.cores) for p in found) <= 1


def test_a_place_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [slot.name for slot in cpu_slots(2, [0, 1, 2, 3, 8])] == ["cpu:0-1", "cpu:2+3+8"]
    assert cpu_slots(2, range(8))[0].environment == {"MASKSCORE_DEVICE": "cpu", "OMP_NUM_THREADS": "4"}
    assert [slot.environment for slot in device_slots(["cuda:0", "cuda:1"])] == [
        {"MASKSCORE_DEVICE": "cuda:0"},
        {"MASKSCORE_DEVICE": "cuda:1"},
    ]
    with pytest.raises(SettingsError, match="'gpu0'"):
        device_slots(["gpu0"])


def test_a_pytorch_that_cannot_say_its_devices_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_slots, "_ASK", "print('loading'); print(3)")
    assert worker_slots.find_devices() == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setattr(worker_slots, "_ASK", "print(0)")
    assert worker_slots.find_devices() == ["cpu"]
    monkeypatch.setattr(worker_slots, "_ASK", "raise SystemExit('the driver is too old')")
    with pytest.raises(SettingsError, match=r"the driver is too old.*--devices cuda:0,cuda:1"):
        worker_slots.find_devices()
    monkeypatch.setattr(worker_slots, "_ASK", "print('nothing of use')")
    with pytest.raises(SettingsError, match="nothing of use"):
        worker_slots.find_devices()
