"""The delay before a job is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maskscore_worker.jobs.attempt import backoff_s


@given(st.integers(0, 10_000))
def test_doubled_each_time_up_to_the_most_with_up_to_half_taken_off(retries: int) -> None:
    full = min(60.0, 2.0 ** min(retries, 60))
    assert full / 2 <= backoff_s(retries, first_s=1, most_s=60) <= full


def test_jobs_that_failed_together_do_not_come_back_together() -> None:
    assert len({backoff_s(3, first_s=1, most_s=60) for _ in range(100)}) > 90
