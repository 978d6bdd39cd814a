"""``metrics``: the table of all Prometheus metrics, made from the code that declares them."""

from __future__ import annotations

import click
from rich.table import Table

from maskscore.cli.terminal import new_console
from maskscore.observability import METRICS, Metric

__all__ = ["metrics_command", "metrics_markdown"]

_INTRODUCTION = """\
# Metrics

Prometheus metrics in base units. `maskscore exporter` serves those of the side `exporter`: one is enough for a
namespace, and it works without any worker. Each worker serves its own at `MASKSCORE_HTTP_PORT`. The side `both` is
counted by whichever process sweeps the ledger at the time, so sum it over all of them; the side `gateway` is the
`/metrics` of `maskscore gateway`. Histograms have the usual
`_bucket`, `_sum` and `_count`. The usual `process_...` and `python_...` metrics of each process come beside them.

This page is written by `make docs`.
"""


def metrics_markdown() -> str:
    """Return ``docs/reference/metrics.md``."""
    lines = [_INTRODUCTION, "| metric | kind | side | meaning | labels |", "|---|---|---|---|---|"]
    lines += [f"| `{m.name}` | {m.kind} | {m.side} | {m.help} | {_labels(m)} |" for m in METRICS]
    return "\n".join(lines) + "\n"


def _labels(metric: Metric) -> str:
    return ". ".join(f"`{name}`: {meaning}" for name, meaning in metric.labels.items())


@click.command("metrics")
@click.option("--markdown", is_flag=True, help="As a Markdown page.")
def metrics_command(markdown: bool) -> None:
    """List every Prometheus metric with labels and meaning."""
    if markdown:
        click.echo(metrics_markdown(), nl=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric", no_wrap=True)
    table.add_column("kind and meaning")
    for metric in METRICS:
        labels = f" Labels: {_labels(metric)}." if metric.labels else ""
        table.add_row(metric.name, f"[{metric.kind}, {metric.side}] {metric.help}{labels}".replace("`", ""))
    new_console().print(table)
