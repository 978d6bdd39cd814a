"""Checks the namespace: jobs by state, dead letters, foreign entries, and live workers."""

from __future__ import annotations

from collections.abc import Iterator

from maskscore.broker import make_app
from maskscore.doctor.deployment import Deployment
from maskscore.doctor.finding import Finding, ok, warning
from maskscore.ledger import Backlog, Ledger, Stray

__all__ = ["examine_jobs"]

_PING_S = 1.5


def examine_jobs(deployment: Deployment) -> Iterator[Finding]:
    """Count the jobs that have not ended, and ask the workers for a sign of life."""
    settings = deployment.settings
    ledger = Ledger(deployment.redis, namespace=settings.namespace, ttl_s=settings.result_ttl_s)
    backlog = ledger.backlog()
    oldest = f", the oldest for {backlog.oldest_waiting_s:,.0f} s" if backlog.waiting else ""
    yield ok(
        "jobs",
        f"Namespace {settings.namespace!r}: {backlog.waiting:,} waiting{oldest}; {backlog.running:,} running; "
        f"{backlog.delayed:,} delayed.",
    )
    yield _judge_dead(backlog.dead)
    yield _judge_strays(ledger.strays(), settings.namespace)
    yield _judge_workers(_workers(deployment), backlog)


def _judge_dead(count: int) -> Finding:
    if not count:
        return ok("dead letters", "None.")
    return warning(
        "dead letters",
        f"{count:,} {'job was' if count == 1 else 'jobs were'} given up after every retry.",
        "`maskscore dead list` has the reasons; `maskscore dead requeue` runs them again.",
    )


def _judge_strays(strays: list[Stray], namespace: str) -> Finding:
    name = "foreign entries"
    if not strays:
        return ok(name, "None.")
    return warning(
        name,
        f"{len(strays):,} {'was' if len(strays) == 1 else 'were'} put aside in the last 7 days, the last at "
        f"{strays[-1].at:%Y-%m-%d %H:%M:%S} UTC: {strays[-1]}.",
        f"Keep other programs off the keys {namespace}:*, and set maxmemory-policy noeviction. Submit again the jobs "
        f"whose records are gone; look at the keys {namespace}:stray:* and delete them.",
    )


def _workers(deployment: Deployment) -> list[str]:
    app = make_app(deployment.settings)
    try:
        answers = app.control.inspect(timeout=min(_PING_S, deployment.timeout_s)).ping()
    finally:
        app.close()
    return sorted(name.removeprefix("maskscore@") for name in answers or ())


def _judge_workers(names: list[str], backlog: Backlog) -> Finding:
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return ok("workers", f"{'1 worker answers' if len(names) == 1 else f'{len(names)} workers answer'}: {shown}.")
    if backlog.waiting:
        return warning(
            "workers",
            "Jobs wait, and no worker answers.",
            "Start one: maskscore worker. One that runs may have another MASKSCORE_NAMESPACE or MASKSCORE_REDIS_URL.",
        )
    return ok("workers", "None answers; no job waits for one.")
