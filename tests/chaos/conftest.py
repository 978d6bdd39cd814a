"""One deployment for all chaos tests, and the table of what they found."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich import box
from rich.console import Console
from rich.table import Table

from chaos.chaos_profile import PROFILE
from chaos.deployment import Deployment, open_deployment
from chaos.scenario import Record, Row
from chaos.shard_corpus import ShardCorpus, make_shard_corpus
from required_parts import require_servers

_SHARDS = 20 if PROFILE.name == "short" else 100

_ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture(scope="session")
def whole_deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    require_servers()
    with open_deployment(tmp_path_factory.mktemp("chaos")) as deployment:
        yield deployment


@pytest.fixture
def deployment(whole_deployment: Deployment) -> Iterator[Deployment]:
    """The deployment, whole again after each test."""
    whole_deployment.heal()
    yield whole_deployment
    whole_deployment.redis_proxy.pass_on()
    whole_deployment.s3_proxy.pass_on()


@pytest.fixture(scope="session")
def shard_corpus(whole_deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> ShardCorpus:
    """The tar files, and the tables of a run that nothing disturbs."""
    whole_deployment.heal()
    folder = tmp_path_factory.mktemp("tars")
    return make_shard_corpus(whole_deployment.client, whole_deployment.documents, folder, _SHARDS)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Print a fault's outcome and put it into the table; before anything is asserted of it."""

    def keep(row: Row) -> None:
        print(f"  {row.fault}: {row.outcome}", flush=True)
        request.config.stash.setdefault(_ROWS, []).append(row)

    return keep


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what breaks things on purpose, so that `-m "not chaos"` leaves it out."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("chaos")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of faults."""
    rows = config.stash.get(_ROWS, [])
    if not rows:
        return
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        title=f"Faults ({PROFILE.name} profile, leases of {PROFILE.lease_s:g} s)",
        title_justify="left",
        caption="recovery: from a worker's death until others have taken its jobs;\n"
        "from the end of an outage until each worker has done a job again",
        caption_justify="left",
    )
    table.add_column("fault", min_width=36, no_wrap=True)
    for name in ("accepted", "succeeded", "failed", "lost", "doubled", "wrong", "recovery"):
        table.add_column(name, justify="right")
    for row in rows:
        outcome = row.outcome
        failed = "\n".join(f"{count} {code}" for code, count in outcome.failed.items()) or "0"
        table.add_row(
            row.fault,
            *(str(n) for n in (outcome.accepted, outcome.succeeded)),
            failed,
            *(str(len(found)) for found in (outcome.lost, outcome.doubled, outcome.wrong)),
            _recovery(row),
        )
    terminalreporter.write_line("")
    Console(file=terminalreporter._tw._file, width=110).print(table)


def _recovery(row: Row) -> str:
    if not row.recovery_s:
        return "-"
    if math.inf in row.recovery_s:
        return "never"
    least, most = (
        f"{seconds:.{0 if seconds >= 100 else 1}f}" for seconds in (min(row.recovery_s), max(row.recovery_s))
    )
    return f"{most} s" if least == most else f"{least}..{most} s"
