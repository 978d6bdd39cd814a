"""``tenants``: who has jobs queued and running, and the limits and weights of each."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import click

from maskscore.cli.job_tables import table
from maskscore.cli.terminal import new_console
from maskscore.client import Client
from maskscore.ledger import TenantState
from maskscore.schema import JOB_ID_PATTERN

__all__ = ["tenant_cells", "tenants_command"]

_json = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")


def _checked_name(_: click.Context, __: click.Parameter, name: str) -> str:
    if not JOB_ID_PATTERN.fullmatch(name):
        raise click.BadParameter(
            f"{name!r} cannot be a tenant: a tenant's name has up to 128 letters, digits, '.', '_', ':' and '-'."
        )
    return name


_name = click.argument("name", callback=_checked_name)


@click.group("tenants")
def tenants_command() -> None:
    """List tenants, and set what each may have.

    A tenant is who a job is run for: `tenant` of the job, which is the name of the token for jobs that come through the
    gateway; a batch without one is a tenant of its own. Tenants take turns, by their weights. A tenant without limits
    of its own has those of MASKSCORE_TENANT_MAX_QUEUED, MASKSCORE_TENANT_MAX_RUNNING and
    MASKSCORE_TENANT_MASKS_PER_SECOND, as the producers and workers have them; the lists show them as they are set here.
    """


@tenants_command.command("list")
@_json
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Maximum number of tenants.")
def _list(as_json: bool, limit: int) -> None:
    """List the tenants with jobs or limits of their own, those with the most jobs first."""
    with Client() as client:
        states = client.tenants()
    shown = states.among(states.tenants[:limit])
    others = shown.other_waiting, shown.other_running
    if as_json:
        for state in shown.tenants:
            click.echo(json.dumps(state.document()))
        if any(others):
            click.echo(json.dumps({"tenant": None, "queued": others[0], "running": others[1]}))
        return
    if not shown.tenants:
        click.echo("no tenants: none has jobs or limits of its own", err=True)
        return
    rows = table("tenant", "queued", "running", "masks/s", "weight", "now")
    for state in shown.tenants:
        rows.add_row(*tenant_cells(state))
    if any(others):
        rows.add_row("(others)", *(f"{count:,}" for count in others), "", "", "")
    new_console().print(rows)


@tenants_command.command("show")
@_name
@_json
def _show(name: str, as_json: bool) -> None:
    """Show a tenant's jobs, limits and weight."""
    with Client() as client:
        state = client.tenant(name)
    if as_json:
        click.echo(json.dumps(state.document()))
        return
    limits = state.limits

    def most(value: float | None) -> str:
        return "no limit" if value is None else f"at most {value:,.10g}"

    click.echo(f"tenant     {name}{'' if state.own else ', without limits of its own'}")
    click.echo(f"queued     {state.waiting:,}, {most(limits.most_queued)}")
    click.echo(f"running    {state.running:,}, {most(limits.most_running)}")
    click.echo(f"masks/s    {most(limits.masks_per_second)}")
    click.echo(f"weight     {limits.weight:g}")
    if state.at_limits:
        click.echo(f"now        {', '.join(state.at_limits)}")


@tenants_command.command("set")
@_name
@click.option(
    "--weight",
    type=click.FloatRange(0.001, 1000),
    help="Jobs that it starts for each one of a tenant with weight 1, while both have jobs queued.",
)
@click.option("--max-queued", type=click.IntRange(0), help="Maximum number of queued jobs; further ones are refused.")
@click.option("--max-running", type=click.IntRange(0), help="Maximum number of running jobs; 0 starts none.")
@click.option(
    "--masks-per-second",
    type=click.FloatRange(0, min_open=True),
    help="Maximum number of masks per second, on average; up to 2 s of it can be saved up.",
)
def _set(
    name: str,
    weight: float | None,
    max_queued: int | None,
    max_running: int | None,
    masks_per_second: float | None,
) -> None:
    """Set a tenant's weight and limits.

    What is not given stays as it is. It holds at once, also for jobs that are queued. A job that is larger than what
    --masks-per-second allows is run all the same, and the tenant's next one waits for it.
    """
    given: dict[str, Any] = {
        "weight": weight,
        "most_queued": max_queued,
        "most_running": max_running,
        "masks_per_second": masks_per_second,
    }
    given = {field: value for field, value in given.items() if value is not None}
    if not given:
        raise click.UsageError("give at least one of --weight, --max-queued, --max-running, --masks-per-second")
    with Client() as client:
        client.set_tenant(name, replace(client.own_limits(name), **given))
        click.echo(_line(client.tenant(name)))


@tenants_command.command("unset")
@_name
def _unset(name: str) -> None:
    """Remove a tenant's weight and limits, so that it has those of all tenants without their own."""
    with Client() as client:
        client.set_tenant(name, None)
        click.echo(_line(client.tenant(name)))


def _line(state: TenantState) -> str:
    limits = state.limits
    parts = [f"weight {limits.weight:g}"]
    for what, value in (
        ("queued", limits.most_queued),
        ("running", limits.most_running),
        ("mask per second" if limits.masks_per_second == 1 else "masks per second", limits.masks_per_second),
    ):
        if value is not None:
            parts.append(f"at most {value:,.10g} {what}")
    return f"{state.name}: {', '.join(parts)}{'' if state.own else ' (none of its own)'}"


def tenant_cells(state: TenantState) -> list[str]:
    """Return a tenant's name, queued and running jobs, masks per second, weight, and the limits that it is at."""
    limits = state.limits

    def of(count: int, most: int | None) -> str:
        return f"{count:,}" if most is None else f"{count:,}/{most:,}"

    rate = "" if limits.masks_per_second is None else f"{limits.masks_per_second:,.10g}"
    queued, running = of(state.waiting, limits.most_queued), of(state.running, limits.most_running)
    return [state.name or "(no tenant)", queued, running, rate, f"{limits.weight:g}", ", ".join(state.at_limits)]
