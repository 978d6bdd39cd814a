"""``exporter``: the ledger's numbers for Prometheus, and a sweeper."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import click

from maskscore.cli.exit_codes import Exit
from maskscore.cli.optional_dependencies import needs_extra
from maskscore.settings import WorkerSettings, load_settings, warn_of_unknown_variables

__all__ = ["exporter_command"]


@click.command("exporter")
@click.option("--host", help="Address to listen on.  [MASKSCORE_HTTP_HOST; default: 0.0.0.0]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port.  [MASKSCORE_HTTP_PORT; default: 9808]")
def exporter_command(host: str | None, port: int | None) -> None:
    """Serve the ledger's metrics to Prometheus at /metrics.

    The exporter also sweeps the ledger: lapsed leases, due retries, lost tickets.

    One per namespace is enough; it works with no worker there, and goes on while Redis is away. /healthz says whether
    it lives. SIGTERM or Ctrl-C ends it.
    """
    with needs_extra("metrics"):
        from maskscore.exporter import run_exporter
        from maskscore.observability import log_json_early, log_to_stderr

        log_json_early()
    warn_of_unknown_variables()
    settings = load_settings(WorkerSettings, http_host=host, http_port=port)
    log_to_stderr(settings.log_level, settings.log_format)
    stop = threading.Event()

    def end(*_: Any) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    run_exporter(settings, stop, started=lambda _: None)
    sys.exit(Exit.OK)
