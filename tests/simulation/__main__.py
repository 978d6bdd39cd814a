"""``python -m simulation``: a bursty day under three settings of the scaler."""

from __future__ import annotations

import json
from pathlib import Path

import click

from maskscore.cli.job_tables import table
from maskscore.cli.plan import duration, worker_rate
from maskscore.cli.terminal import new_console
from maskscore.storage import write_text
from simulation import Outcome, Scaling, bursty_day, draw, simulate

__all__ = ["simulate_command"]


def _settings(target: float, most: int, cool_down_s: float) -> list[Scaling]:
    return [
        Scaling("eager", 0, most, max(1.0, target / 10), cool_down_s=cool_down_s),
        Scaling("one stays", 1, most, target),
        Scaling("patient", 0, most, 8 * target, cool_down_s=cool_down_s),
    ]


@click.command("python -m simulation")
@click.option("--jobs", type=click.IntRange(min=1), default=200_000, show_default=True, help="Jobs of the day.")
@click.option("--masks-per-image", type=click.FloatRange(min=1), default=100.0, show_default=True, help="On average.")
@click.option("--masks-per-s", type=click.FloatRange(min=0, min_open=True), help="Rate of one worker.")
@click.option("--rates", type=click.Path(path_type=Path), help="File with the rates that `make bench` has measured.")
@click.option("--rate", "name", help="Name of the rate in that file.  [default: the whole service's slowest]")
@click.option(
    "--jobs-per-worker",
    type=click.FloatRange(min=0, min_open=True),
    help="The scaler's target; `eager` has a tenth of it, `patient` eight times as many.  "
    "[default: what a worker does in 20 s]",
)
@click.option("--max", "most", type=click.IntRange(min=1), default=16, show_default=True, help="Most GPUs.")
@click.option(
    "--cold-start",
    callback=duration,
    metavar="TIME",
    default="90s",
    show_default=True,
    help="From asking for a pod until its worker takes jobs: node, image, weights.",
)
@click.option(
    "--cool-down",
    callback=duration,
    metavar="TIME",
    default="5m",
    show_default=True,
    help="Without a job, before the last GPU is given up; KEDA's cooldownPeriod.",
)
@click.option(
    "--worker-cost-per-hour", "cost", type=click.FloatRange(min=0), help="What a GPU costs per hour, in any currency."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed is another day.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the day's picture here.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per setting.")
def simulate_command(
    jobs: int,
    masks_per_image: float,
    masks_per_s: float | None,
    rates: Path | None,
    name: str | None,
    jobs_per_worker: float | None,
    most: int,
    cold_start: float,
    cool_down: float,
    cost: float | None,
    seed: int,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Simulate a bursty day under three settings of the Kubernetes scaler (KEDA), and compare them.

    Four fifths of the jobs come in five batches, the rest over the day. The workers' number follows KEDA's and the
    HPA's own rules; each worker takes jobs in their order at its rate.
    """
    rate, origin = worker_rate(masks_per_s, rates, name)
    target = jobs_per_worker or max(1.0, round(20 * rate / masks_per_image))
    arrivals = bursty_day(jobs, masks_per_image, seed=seed)
    outcomes = [
        simulate(arrivals, scaling, masks_per_s=rate, cold_start_s=cold_start, seed=seed)
        for scaling in _settings(target, most, cool_down)
    ]
    if svg is not None:
        write_text(svg, draw(arrivals, outcomes))
    if as_json:
        for outcome in outcomes:
            click.echo(json.dumps(_figures(outcome, cost)))
        return
    console = new_console()
    busy = outcomes[0].busy_s / 3600
    console.print(
        f"{jobs:,} jobs of {masks_per_image:g} masks on average; a worker scores {rate:,.5g} masks/s ({origin}) and "
        f"takes jobs {cold_start:g} s after it was asked for. The work itself is {busy:,.1f} GPU-hours.\n"
    )
    console.print(_table(outcomes, cost))


def _table(outcomes: list[Outcome], cost: float | None) -> object:
    rows = table("setting", "min", "jobs/GPU", "GPU-h", "most", "starts", "median", "95%", "longest", "cost")
    for column in rows.columns[1:]:
        column.justify = "right"
    for outcome in outcomes:
        scaling = outcome.scaling
        rows.add_row(
            scaling.name,
            str(scaling.least),
            f"{scaling.target:,.0f}",
            f"{outcome.pod_s / 3600:,.1f}",
            str(max(sample.pods for sample in outcome.samples)),
            str(outcome.starts),
            *(_seconds(outcome.wait_s(share)) for share in (0.5, 0.95, 1.0)),
            "" if cost is None else f"{cost * outcome.pod_s / 3600:,.2f}",
        )
    return rows


def _figures(outcome: Outcome, cost: float | None) -> dict[str, object]:
    scaling = outcome.scaling
    return {
        "setting": scaling.name,
        "min": scaling.least,
        "max": scaling.most,
        "jobs_per_worker": scaling.target,
        "polling_s": scaling.polling_s,
        "cool_down_s": scaling.cool_down_s,
        "stabilisation_s": scaling.stabilisation_s,
        "jobs": outcome.ended,
        "gpu_hours": outcome.pod_s / 3600,
        "busy_gpu_hours": outcome.busy_s / 3600,
        "most_gpus": max(sample.pods for sample in outcome.samples),
        "starts": outcome.starts,
        "wait_median_s": outcome.wait_s(0.5),
        "wait_95_s": outcome.wait_s(0.95),
        "wait_longest_s": outcome.wait_s(1.0),
        "cost": None if cost is None else cost * outcome.pod_s / 3600,
    }


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"


if __name__ == "__main__":
    simulate_command()
