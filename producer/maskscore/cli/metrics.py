"""``metrics``: the table of all Prometheus metrics, made from the code that declares them."""

from __future__ import annotations

import click
from rich.table import Table

from maskscore.cli.terminal import new_console
from maskscore.observability import METRICS, Metric

__all__ = ["metrics_command", "metrics_markdown"]

_INTRODUCTION = """\
# Metrics

Prometheus metrics in base units. The side says which process serves a metric:

- `exporter`: `maskscore exporter`. One per namespace is enough; it needs no worker.
- `worker`: each worker, at `MASKSCORE_HTTP_PORT`.
- `both`: whichever of these processes sweeps the ledger at the time. Sum the metric over all of them.
- `gateway`: `maskscore gateway`, at `/metrics`.

Histograms have `_bucket`, `_sum` and `_count`. Each process also serves the usual `process_...` and `python_...`
metrics.

`make docs` generates this page.
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
