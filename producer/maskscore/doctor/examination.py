"""Runs all checks in order, each with a time limit and with exceptions turned into findings."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Final

import redis

from maskscore.broker import UNREACHABLE_ERRORS, redis_reason
from maskscore.doctor.clock_check import examine_clock
from maskscore.doctor.deployment import Deployment
from maskscore.doctor.finding import Cause, Finding, failed, failed_by, skipped
from maskscore.doctor.jobs_check import examine_jobs
from maskscore.doctor.redis_check import examine_redis, examine_rights
from maskscore.doctor.redis_setup_check import examine_redis_setup
from maskscore.doctor.settings_check import examine_variables
from maskscore.doctor.storage_check import (
    examine_file_roots,
    examine_read_buckets,
    examine_result_buckets,
    examine_result_roots,
    examine_s3,
    examine_spill,
)
from maskscore.doctor.versions_check import examine_producer_versions, examine_worker_versions
from maskscore.errors import MaskscoreError, ServiceUnavailable, SettingsError
from maskscore.settings import WorkerSettings
from maskscore.worker_entry_points import worker_part

__all__ = ["examine"]

# A finding may take some requests, each with the time out that was asked for; names are looked up without one.
_REQUESTS: Final = 3
_CREDENTIALS: Final = re.compile(r"(?<=://)[^\s/@]*@")


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    examine: Callable[[Deployment], Iterable[Finding]]
    needs: str | None = None
    limited: bool = True


def _worker_check(name: str) -> Callable[[Deployment], Iterator[Finding]]:
    """Return the worker package's check of this name, which is imported when it is called."""

    def check(deployment: Deployment) -> Iterator[Finding]:
        found: Iterator[Finding] = worker_part("examinations")[name](deployment)
        return found

    return check


_CHECKS: Final = (
    _Check("settings", lambda _: examine_variables()),
    _Check("versions", lambda _: examine_producer_versions()),
    _Check("redis", examine_redis),
    _Check("redis rights", examine_rights, needs="redis"),
    _Check("redis setup", examine_redis_setup, needs="redis"),
    _Check("clock", examine_clock, needs="redis"),
    _Check("jobs", examine_jobs, needs="redis"),
    _Check("s3", examine_s3),
    _Check("bucket", examine_read_buckets, needs="s3"),
    _Check("result bucket", examine_result_buckets, needs="s3"),
    _Check("spill", examine_spill, needs="s3"),
    _Check("file roots", examine_file_roots),
    _Check("result roots", examine_result_roots),
)
# PyTorch and weights come from a disk, as slow as it is.
_WORKER_CHECKS: Final = (
    _Check("worker versions", lambda _: examine_worker_versions()),
    _Check("device", _worker_check("device"), limited=False),
    _Check("prompts", _worker_check("prompts")),
    _Check("weights", _worker_check("weights"), limited=False),
)


def examine(
    settings: WorkerSettings,
    *,
    timeout_s: float = 5.0,
    as_worker: bool | None = None,
    begun: Callable[[str], None] = lambda _: None,
) -> Iterator[Finding]:
    """Examine a deployment and yield each finding as soon as it is there.

    Parameters
    ----------
    settings: what is examined; S3's come from boto3's own sources, as everywhere.
    timeout_s: seconds to wait for each answer.
    as_worker: whether the worker's part of this machine is examined; ``None``: where PyTorch and weights are.
    begun: called with the name of each check before it runs.

    Nothing is changed but a tiny object in each result bucket and in the spill's place, which is removed again. No
    finding holds credentials.
    """
    deployment = Deployment(settings, timeout_s=timeout_s)
    for check in _CHECKS:
        if check.needs is not None and check.needs not in deployment.reached:
            if check.needs == "redis" or deployment.needs_s3:
                yield skipped(check.name, f"Not examined, because {_TITLES[check.needs]} was not reached.")
            continue
        begun(check.name)
        yield from _run(check, deployment)
    reason = _why_no_worker(deployment) if as_worker is not True else None
    if as_worker is False:
        reason = "--no-worker was given"
    if reason is not None:
        yield skipped("worker", f"Not examined: {reason}.")
        return
    for check in _WORKER_CHECKS:
        begun(check.name)
        yield from _run(check, deployment)


def _why_no_worker(deployment: Deployment) -> str | None:
    """Return why no worker can run on this machine, or ``None``."""
    if find_spec("torch") is None:
        return "PyTorch is not installed here"
    return "MASKSCORE_WEIGHTS is unset" if deployment.settings.weights is None else None


_TITLES: Final = {"redis": "Redis", "s3": "S3"}


def _run(check: _Check, deployment: Deployment) -> Iterator[Finding]:
    """Run a check in a thread that is left behind when it takes too long: nothing else ends a look-up of a name."""
    found: queue.Queue[Finding | None] = queue.Queue()

    def work() -> None:
        try:
            for finding in check.examine(deployment):
                found.put(finding)
        except Exception as error:
            found.put(_from_error(check.name, error))
        finally:
            found.put(None)

    threading.Thread(target=work, name=f"doctor-{check.name}", daemon=True).start()
    limit_s = _REQUESTS * deployment.timeout_s if check.limited else None
    started = time.monotonic()
    while True:
        try:
            finding = found.get(timeout=limit_s)
        except queue.Empty:
            waited = time.monotonic() - started
            yield failed(
                check.name,
                Cause.UNAVAILABLE,
                f"There was no answer within {waited:.0f} s.",
                "Check the network and the DNS of this machine; --timeout gives it more time.",
            )
            return
        if finding is None:
            return
        yield replace(finding, sentence=_CREDENTIALS.sub("", finding.sentence))


def _from_error(name: str, error: Exception) -> Finding:
    if isinstance(error, SettingsError):
        return failed_by(name, Cause.SETTINGS, error, "Correct the setting; `maskscore settings` explains each.")
    if isinstance(error, ModuleNotFoundError):
        advice = 'pip install "maskscore[worker]"'
        return failed(name, Cause.DEPLOYMENT, f"The module {error.name!r} is not installed.", advice)
    if isinstance(error, UNREACHABLE_ERRORS):
        reason = redis_reason(error)
        return failed(name, Cause.UNAVAILABLE, f"Redis has stopped answering: {reason}.", "Look at Redis's own log.")
    if isinstance(error, redis.RedisError):
        advice = "See what is said of Redis above; if nothing is, its user lacks rights (ACL)."
        return failed(name, Cause.DEPLOYMENT, f"Redis refuses: {redis_reason(error)}.", advice)
    if isinstance(error, MaskscoreError):
        cause = Cause.UNAVAILABLE if isinstance(error, ServiceUnavailable) else Cause.DEPLOYMENT
        return failed_by(name, cause, error, "Put this right and run `maskscore doctor` again.")
    return failed(
        name,
        Cause.DEPLOYMENT,
        f"An unexpected {type(error).__name__} stopped this check: {str(error).strip() or 'it says no more'}",
        "If nothing here explains it, please report it.",
    )
