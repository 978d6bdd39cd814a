"""Checks the namespace: jobs by state, dead letters, foreign entries, and live workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from maskscore.broker import make_app
from maskscore.doctor.deployment import Deployment
from maskscore.doctor.finding import Finding, ok, warning
from maskscore.ledger import Backlog, Stray, TenantStates, WorkerRegistry, open_ledger
from maskscore.schema import DEFAULT_MODEL_NAME
from maskscore.text import counted

__all__ = ["examine_jobs", "judge_models", "judge_tenants"]

_PING_S = 1.5
_LONG_S = 3600


def examine_jobs(deployment: Deployment) -> Iterator[Finding]:
    """Count the jobs that have not ended, and ask the workers for a sign of life."""
    settings = deployment.settings
    ledger = open_ledger(deployment.redis, settings)
    backlog = ledger.backlog()
    oldest = f", the oldest for {backlog.oldest_waiting_s:,.0f} s" if backlog.waiting else ""
    yield ok(
        "jobs",
        f"Namespace {settings.namespace!r}: {backlog.waiting:,} waiting{oldest}; {backlog.running:,} running; "
        f"{backlog.delayed:,} delayed.",
    )
    yield _judge_dead(backlog.dead)
    yield _judge_strays(ledger.strays(), settings.namespace)
    reports = [worker.report for worker in WorkerRegistry(deployment.redis, namespace=settings.namespace).workers()]
    served = {report.name: report.model for report in reports}
    yield _judge_workers(_workers(deployment), backlog, served)
    yield from judge_models(backlog, set(served.values()))
    yield from judge_tenants(ledger.tenant_states())


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


def _judge_workers(names: list[str], backlog: Backlog, served: Mapping[str, str]) -> Finding:
    if names:

        def shown_name(name: str) -> str:
            model = served.get(name, DEFAULT_MODEL_NAME)
            return name if model == DEFAULT_MODEL_NAME else f"{name} ({model})"

        shown = ", ".join(map(shown_name, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return ok("workers", f"{'1 worker answers' if len(names) == 1 else f'{len(names)} workers answer'}: {shown}.")
    if backlog.waiting:
        return warning(
            "workers",
            "Jobs wait, and no worker answers.",
            "Start one: maskscore worker. One that runs may have another MASKSCORE_NAMESPACE or MASKSCORE_REDIS_URL.",
        )
    return ok("workers", "None answers; no job waits for one.")


def judge_models(backlog: Backlog, served: set[str]) -> Iterator[Finding]:
    """Compare the models that jobs ask for with those that workers serve; nothing, where only the default is used."""
    if {*backlog.models, *served} <= {DEFAULT_MODEL_NAME}:
        return
    # Without any worker, the finding above says it of the default one.
    waiting = {
        name: jobs.waiting + jobs.delayed
        for name, jobs in backlog.models.items()
        if name not in served and (served or name != DEFAULT_MODEL_NAME) and jobs.waiting + jobs.delayed
    }
    if not waiting:
        yield ok("models", f"Served by live workers: {', '.join(sorted(served)) or 'none, and no job waits for one'}.")
        return
    names = sorted(waiting, key=lambda name: (-waiting[name], name))
    shown = ", ".join(f"{name} ({counted(waiting[name], 'job')})" for name in names[:5])
    more = f" and {counted(len(names) - 5, 'model')} more" if len(names) > 5 else ""
    model_option = "" if names[0] == DEFAULT_MODEL_NAME else f" --model-name {names[0]}"
    yield warning(
        "models",
        f"Jobs wait for models that no live worker serves: {shown}{more}. Served: "
        f"{', '.join(sorted(served)) or 'none'}.",
        f"Start a worker with their weights, such as `maskscore worker{model_option} --weights DIR`, or "
        "cancel the jobs if the name is misspelt.",
    )


def judge_tenants(states: TenantStates) -> Iterator[Finding]:
    """Name tenants whose jobs wait for their own limits alone; nothing, where no tenant has limits and jobs."""
    limited = [
        state
        for state in states.tenants
        if state.waiting
        and (state.limits.most_queued, state.limits.most_running, state.limits.masks_per_second) != (None, None, None)
    ]
    if not limited:
        return
    held = [state for state in limited if state.limits.most_running == 0]
    full = [
        state for state in limited if state.limits.most_queued is not None and state.waiting >= state.limits.most_queued
    ]
    # A job has one mask at least.
    slow = [
        state
        for state in limited
        if state.limits.masks_per_second is not None and state.waiting > _LONG_S * state.limits.masks_per_second
    ]
    if not held and not full and not slow:
        yield ok("tenants", f"Within their limits: {counted(len(limited), 'tenant')} that have limits and queued jobs.")
        return
    parts = [
        f"{what}: {', '.join(repr(state.name) for state in some[:5])}{', ...' if len(some) > 5 else ''}"
        for what, some in (
            ("No job may run of", held),
            ("As many jobs queued as may be of", full),
            ("More than an hour of queued jobs, by their masks per second, of", slow),
        )
        if some
    ]
    yield warning(
        "tenants",
        "; ".join(parts) + ".",
        "`maskscore tenants list` shows them; `maskscore tenants set NAME` changes what they may have.",
    )
