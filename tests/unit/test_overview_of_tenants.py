"""The tenants in `top`: which of them are shown, what is said of them, and how wide that is."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from maskscore.cli import top
from maskscore.client import Overview
from maskscore.ledger import Backlog, JobStatus, ShardProgress, TenantLimits, TenantState, TenantStates
from maskscore.schema import JobState
from maskscore.settings import ClientSettings

STATES = [
    *(TenantState(f"big-{number}", 1000 - number, 1, TenantLimits(), False, 0) for number in range(30)),
    TenantState(
        "team-" + "x" * 120, 100_000, 120, TenantLimits(1, 100_000, 120, 1_000_000.5), own=True, empty_for_s=1000
    ),
    TenantState("on-hold", 1, 0, TenantLimits(most_running=0), own=True, empty_for_s=0),
    TenantState("idle", 0, 0, TenantLimits(most_running=0), own=True, empty_for_s=0),
]


def overview(states: list[TenantState]) -> Overview:
    tenants = TenantStates(states, other_waiting=5, other_running=2) if states else TenantStates([])
    return Overview(datetime.now(UTC), Backlog(1, 1, 0, 0, 0, {}), [], 10, {}, tenants)


def shown(seen: Overview) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(top._view(seen, ClientSettings(), 80))
    return out.getvalue().splitlines()


def test_tenants_at_their_limits_come_first_and_the_rest_is_added_up() -> None:
    seen = overview(STATES)
    names = [state.name for state in seen.tenants(4).tenants]
    assert names == [STATES[30].name, "on-hold", "big-0", "big-1"]
    rest = seen.tenants(4)
    assert (rest.other_waiting, rest.other_running) == (5 + sum(1000 - number for number in range(2, 30)), 2 + 28)
    document = seen.document()
    assert len(document["tenants"]) == 20
    assert document["tenants"][1].items() >= {"tenant": "on-hold", "max_running": 0, "at_limits": ["on hold"]}.items()
    assert document["other_tenants"] == {"queued": 5 + sum(1000 - number for number in range(18, 30)), "running": 14}


def test_tenants_fit_into_a_terminal() -> None:
    lines = shown(overview(STATES))
    at = next(number for number, line in enumerate(lines) if line.startswith("tenants"))
    assert max(map(len, lines)) <= 80
    assert "queue full, all" in lines[at + 1]
    assert lines[at + 2].split() == ["on-hold", "1", "0/0", "on", "hold"]
    assert lines[at + 6].startswith("(others)")
    assert len(lines[at:]) == top._height_of(top._tenants(overview(STATES))) + len(lines[at + 8 :])


@pytest.mark.parametrize("states", [[], STATES[:1]])
def test_a_single_tenant_without_limits_is_not_worth_a_table(states: list[TenantState]) -> None:
    alone = replace(overview([]), tenant_states=TenantStates(states))
    assert not any(line.startswith("tenants") for line in shown(alone))


def test_shards_that_run_are_shown_with_what_their_parts_hold() -> None:
    running = [
        JobStatus(
            f"nightly-{'x' * 90}-{number}",
            JobState.RUNNING,
            1,
            0,
            datetime.now(UTC),
            None,
            None,
            "w",
            "nightly",
            None,
            ShardProgress(11_186 + number, 1_118_600, 12),
        )
        for number in range(7)
    ]
    seen = replace(overview([]), shards=running)
    lines = shown(seen)
    assert max(map(len, lines)) <= 80
    assert any("11,186" in line and "1,118,600" in line for line in lines)
    assert any("and 2 more" in line for line in lines)
    assert seen.document()["shards"][6] == {
        "job_id": running[6].job_id,
        "images": 11_192,
        "masks": 1_118_600,
        "parts": 12,
    }
    assert "shards" not in overview([]).document()
