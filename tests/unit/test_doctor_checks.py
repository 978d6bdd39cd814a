"""Checks of ``maskscore doctor`` that need no service."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement

from maskscore.doctor import Cause, Finding, Verdict, examination
from maskscore.doctor.clock_check import judge_clock
from maskscore.doctor.deployment import Deployment
from maskscore.doctor.finding import failed_by, ok
from maskscore.doctor.jobs_check import judge_models, judge_tenants
from maskscore.doctor.versions_check import required, unmet
from maskscore.errors import ServiceUnavailable, WeightsError
from maskscore.ledger import Backlog, ModelBacklog, TenantLimits, TenantState, TenantStates
from maskscore.settings import WorkerSettings


@pytest.mark.parametrize(
    ("ahead_s", "verdict", "words"),
    [
        (0.0, Verdict.OK, "agree to 0.001 s"),
        (-4.9, Verdict.OK, "agree to 4.9 s"),
        (6.0, Verdict.WARNING, "6 s behind S3's"),
        (-299.0, Verdict.WARNING, "299 s ahead of S3's"),
        (301.0, Verdict.FAILED, "301 s behind"),
        (-4000.0, Verdict.FAILED, "4,000 s ahead"),
    ],
)
def test_clocks_are_judged_by_what_their_difference_does(ahead_s: float, verdict: Verdict, words: str) -> None:
    finding = judge_clock("clock", "S3", ahead_s, resolution_s=0.0)
    assert finding.verdict is verdict
    assert words in finding.sentence


def test_a_difference_within_the_resolution_is_none() -> None:
    assert judge_clock("clock", "S3", 5.4, resolution_s=0.5).verdict is Verdict.OK


def test_releases_that_are_missing_or_too_old_are_found() -> None:
    wanted = [Requirement("celery>=5.7"), Requirement("redis>=5.2"), Requirement("click")]
    found = {requirement.name: version for requirement, version in unmet(wanted, {"celery": "5.4.0", "redis": "5.2"})}
    assert found == {"celery": "5.4.0", "click": None}
    assert list(unmet(wanted, {"celery": "5.7.0rc1+x", "redis": "8.0", "click": "8"})) != []
    assert list(unmet(wanted, {"celery": "5.7.0", "redis": "8.0", "click": "8"})) == []


def test_what_is_required_is_the_projects_own_metadata() -> None:
    of_producer = {requirement.name: requirement for requirement in required()}
    assert not of_producer["celery"].specifier.contains("5.6")
    assert "torch" not in of_producer
    of_worker = {requirement.name for requirement in required("worker")}
    assert {"torch", "open-clip-torch"} <= {name.replace("_", "-") for name in of_worker}
    assert "celery" not in of_worker


def run_check(examine: object, timeout_s: float = 5.0) -> list[Finding]:
    deployment = Deployment(WorkerSettings(), timeout_s=timeout_s)
    return list(examination._run(examination._Check("it", examine), deployment))  # type: ignore[arg-type]


def test_an_unexpected_error_is_a_finding_without_credentials() -> None:
    def broken(_: Deployment) -> Iterator[Finding]:
        yield ok("it", "This much went well.")
        raise ZeroDivisionError("at redis://someone:secret@host:1/0")

    first, second = run_check(broken)
    assert first.verdict is Verdict.OK
    assert (second.verdict, second.cause) == (Verdict.FAILED, Cause.DEPLOYMENT)
    assert "ZeroDivisionError" in second.sentence
    assert "redis://host:1/0" in second.sentence


def test_a_check_that_does_not_end_is_left_behind() -> None:
    def endless(_: Deployment) -> Iterator[Finding]:
        time.sleep(3600)
        yield ok("it", "Never.")

    (finding,) = run_check(endless, timeout_s=0.05)
    assert (finding.verdict, finding.cause) == (Verdict.FAILED, Cause.UNAVAILABLE)


def test_an_error_is_parted_into_what_is_wrong_and_what_to_do() -> None:
    finding = failed_by("it", Cause.SETTINGS, WeightsError("/a.b/c holds no model. Fetch it."), "Or so.")
    assert (finding.sentence, finding.advice) == ("/a.b/c holds no model.", "Fetch it.")
    finding = failed_by("it", Cause.SETTINGS, ServiceUnavailable("Gone."), "Wait.")
    assert (finding.sentence, finding.advice) == ("Gone.", "Wait.")


def test_a_producer_is_examined_without_the_workers_part() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['maskscore_worker'] = None\n"
        "sys.argv[1:] = ['doctor', '--no-worker', '--timeout', '1']\n"
        "from maskscore.cli import main; main()"
    )
    environment = {"MASKSCORE_REDIS_URL": "redis://127.0.0.1:1/0", "PYTHONPATH": ":".join(sys.path), "COLUMNS": "80"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stderr) == (4, ""), ran
    assert "1 failed" in ran.stdout


@pytest.mark.parametrize(
    ("models", "served", "words"),
    [
        ({"default": ModelBacklog(3)}, {"default"}, []),
        ({"default": ModelBacklog(3)}, set(), []),
        ({"default": ModelBacklog(), "a": ModelBacklog(1)}, {"a", "default"}, ["Served by live workers: a, default"]),
        ({"default": ModelBacklog(2)}, {"a"}, ["default (2 jobs). Served: a"]),
        ({"default": ModelBacklog(), "a": ModelBacklog(1, 0, 1)}, set(), ["a (2 jobs). Served: none"]),
    ],
)
def test_models_that_jobs_wait_for_are_compared_with_those_served(
    models: dict[str, ModelBacklog], served: set[str], words: list[str]
) -> None:
    findings = list(judge_models(Backlog(0, 0, 0, 0, 0.0, models), served))
    assert len(findings) == len(words)
    for finding, said in zip(findings, words, strict=True):
        assert said in finding.sentence


def test_tenants_that_their_own_limits_hold_up_are_named() -> None:
    def findings(waiting: int, limits: TenantLimits) -> list[Finding]:
        return list(judge_tenants(TenantStates([TenantState("t", waiting, 0, limits, True, 0)])))

    assert findings(5, TenantLimits(weight=2)) == findings(0, TenantLimits(most_running=0)) == []
    for limits in (TenantLimits(most_queued=2), TenantLimits(masks_per_second=0.5)):
        assert findings(1, limits)[0].verdict is Verdict.OK
    for limits, words in (
        (TenantLimits(most_queued=2), "As many jobs queued as may be of: 't'."),
        (TenantLimits(most_running=0), "No job may run of: 't'."),
        (
            TenantLimits(masks_per_second=0.0005),
            "More than an hour of queued jobs, by their masks per second, of: 't'.",
        ),
    ):
        (finding,) = findings(2, limits)
        assert (finding.verdict, finding.sentence) == (Verdict.WARNING, words)
