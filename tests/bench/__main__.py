"""``python -m bench [NAME ...] [--full]``."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time

from rich.console import Console

from bench.figures import Figures
from bench.material import BUILD
from maskscore_worker.model.allocator import keep_freed_memory

NAMES = (
    "crops",
    "copies",
    "device",
    "forward",
    "threads",
    "precision",
    "latency",
    "service",
    "queue",
    "run",
    "gateway",
    "memory",
    "export",
    "shards",
    "peers",
    "models",
)


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure maskscore on this machine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}; default: all")
    parser.add_argument("--full", action="store_true", help="more repeats and larger loads")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    # Otherwise SIGTERM would leave the servers and workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # As a worker does; so all that is compared in this process has it.
    keep_freed_memory()
    console = Console(width=96)
    figures = Figures(BUILD / "bench.json")
    for name in arguments.names or NAMES:
        started = time.perf_counter()
        importlib.import_module(f"bench.{name}").run(console, figures, full=arguments.full)
        figures.save()
        console.print(f"[dim]{name}: {time.perf_counter() - started:.0f} s[/]\n")
    console.print(f"Figures: {figures.path}")


if __name__ == "__main__":
    main()
