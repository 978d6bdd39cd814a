"""What one process hands to a device that answers at once, against what the same cores decode and nothing else.

    python -m bench.feeding TAR CORES

is that process: it scores the shard again and again with crops that are planned for a device and not made, and features
that are there at once. It prints its rates, and goes on until it is ended, so that py-spy can look at it: where its
threads are (their processor time by step), and which of them holds the interpreter's lock.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import simplejpeg
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.material import masks, photograph
from maskscore.ledger import Claim
from maskscore.parts import PartTables, part_names, write_part
from maskscore.schema import ScoringOptions, Shard, ShardCursor, TarSource
from maskscore.settings import WorkerSettings
from maskscore_worker.batching import Batcher
from maskscore_worker.crops import DeviceCropper
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.model.allocator import collect_rarely, keep_freed_memory
from maskscore_worker.pipeline import Pipeline, load_pipeline
from maskscore_worker.shards import score_shard
from shard_tars import pair_of, write_tar

__all__ = ["run"]

MASKS: Final = 100
PART_IMAGES: Final = 50
# By the innermost of these functions in a stack.
_STEPS: Final = {
    "tar": ("_outcomes",),
    "masks": ("read_job_masks",),
    "decode": ("decode_image",),
    "regions": ("find_regions", "region_portions", "check_sizes"),
    "plan": ("make", "open"),
    "features": ("extract",),
    "scores": ("score", "build_components", "build_result"),
    "rows": ("segmentation", "part_tables"),
    "parquet": ("write_part",),
    "batcher": ("_run",),
}
_SAMPLES_PER_S: Final = 200
_NAMES: Final = {
    "pillow": "Pillow decodes, and nothing else",
    "simplejpeg": "simplejpeg decodes, and nothing else",
    "fed": "fed",
}


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure one and two cores, and look at the process with two."""
    # After the last image of a shard one core alone writes its last part: of few images that is a share of its own.
    images, seconds = (400, 30) if full else (200, 12)
    table = Table(title=f"one process that feeds a device, photos of 2250 x 1500 with {MASKS} masks")
    for column in ("cores", "masks/s", "share", "processor ms per image", "share by processor time"):
        table.add_column(column, justify="left" if column == "cores" else "right")
    with TemporaryDirectory(prefix="maskscore-bench-") as folder:
        tar = _write_shard(Path(folder) / "photos.tar", images)
        for cores in (1, 2):
            with _feeding(tar, cores) as (process, found):
                for name, rounds in found.items():
                    wall, cpu = (statistics.median(taken) for taken in zip(*rounds, strict=True))
                    # Round by round, since a round shares the state that the machine is in.
                    shares = [
                        statistics.median(own[at] / fed[at] for own, fed in zip(rounds, found["fed"], strict=True))
                        for at in range(2)
                    ]
                    table.add_row(
                        f"{cores}, {_NAMES[name]}",
                        f"{MASKS / wall:,.0f}",
                        *("" if name == "fed" else f"{shares[0]:.0%}", f"{1000 * cpu:.1f}"),
                        "" if name == "fed" else f"{shares[1]:.0%}",
                    )
                    if cores == 2:
                        _keep(figures, name, wall, shares)
                if cores == 2:
                    steps = _steps(process.pid, seconds)
    console.print(table)
    if steps is None:
        console.print("py-spy cannot look at the process here, so there is no share of the interpreter's lock.")
        return
    busy, locked = steps
    figures["shards.feed_lock_share"] = sum(locked.values())
    table = Table(title="by step, with two cores (py-spy)")
    for column in ("step", "share of the processor time", "share of the time under the lock"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for step in sorted(busy, key=lambda step: -busy[step]):
        table.add_row(step, f"{busy[step] / sum(busy.values()):.0%}", f"{locked[step]:.1%}")
    table.add_row("all", "", f"{sum(locked.values()):.1%}")
    console.print(table)


def _keep(figures: Figures, name: str, wall_s: float, shares: list[float]) -> None:
    if name == "fed":
        figures["shards.feed_masks_per_s"] = MASKS / wall_s
        return
    # The decoder that the worker takes is the faster one, so a share of it is the smaller one.
    of = "" if name == "simplejpeg" else f"_of_{name}"
    figures[f"shards.feed_share{of}"], figures[f"shards.feed_cpu_share{of}"] = shares


def _write_shard(path: Path, images: int) -> Path:
    pair = pair_of("sa", 1, photograph(), masks(MASKS))
    return write_tar(path, ((f"sa_{n}{name[2:]}", data) for n in range(images) for name, data in pair))


@contextmanager
def _feeding(tar: Path, cores: int) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Yield a process that feeds, once it has printed its rates."""
    command = [sys.executable, "-m", "bench.feeding", str(tar), str(cores)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": "tests"}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError("the process that feeds has ended")
        yield process, json.loads(line)
    finally:
        process.kill()
        process.wait()


def _steps(pid: int, seconds: int) -> tuple[Counter[str], Counter[str]] | None:
    """Return, by step, how many threads are busy and the share of time under the lock; None where py-spy is refused."""
    program = which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        return None
    found = []
    for only in ([], ["--gil"]):
        with TemporaryDirectory() as folder:
            place = Path(folder) / "stacks"
            command = [program, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(_SAMPLES_PER_S)]
            command += ["--nonblocking", "--format", "raw", "--output", str(place), *only]
            if subprocess.run(command, capture_output=True, check=False).returncode or not place.exists():
                return None
            counts: Counter[str] = Counter()
            for line in place.read_text("utf-8").splitlines():
                stack, _, count = line.rpartition(" ")
                counts[_step_of(stack)] += int(count) / (seconds * _SAMPLES_PER_S)  # type: ignore[assignment]
            found.append(counts)
    return found[0], found[1]


def _step_of(stack: str) -> str:
    for frame in reversed(stack.split(";")):
        # Methods come with their class's name.
        name = frame.partition(" ")[0].rpartition(".")[2]
        for step, functions in _STEPS.items():
            if name in functions:
                return step
    return "other"


def main(tar: Path, cores: int) -> None:
    """Print the rates of three rounds, then feed until the process is ended."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(cores)
    keep_freed_memory()
    # As docs/explanation/gpu.md advises: more threads wait for one another's lock where there are so few cores.
    settings = WorkerSettings(
        weights=DEMO_WEIGHTS, prompts="demo", device="cpu", file_roots=(tar.parent,), concurrency=cores + 2
    )
    jpeg = dict(pair_of("sa", 1, photograph(), []))["sa.jpg"]
    now = datetime.now(UTC)
    claim = Claim("shard", "token", 1, 0, b"", now, now)
    shard = Shard(
        shard_id="shard",
        source=TarSource(uri=tar.as_uri()),
        name="photos",
        output_uri="s3://parts/",
        options=ScoringOptions(prompts="demo"),
        part_images=PART_IMAGES,
    )
    images: list[int] = []

    def commit(tables: PartTables, number: int, _: ShardCursor) -> None:
        if tables.counts.failed or tables.counts.skipped:
            raise AssertionError(f"a part of the benchmark has {tables.counts}")
        write_part(tables, part_names("photos", number), tar.parent / f"parts-{cores}")
        images.append(tables.counts.images)

    with load_pipeline(settings, worker="bench") as loaded, _answering_at_once(loaded) as pipeline:
        collect_rarely()

        def feed() -> int:
            images.clear()
            score_shard(pipeline, shard, ShardCursor(), commit, claim=claim)
            return sum(images)

        with ThreadPoolExecutor(cores) as threads:

            def decode(by: Callable[[], object]) -> int:
                return len(list(threads.map(lambda _: by(), range(100))))

            calls = {
                "pillow": lambda: decode(lambda: Image.open(io.BytesIO(jpeg)).load()),
                "simplejpeg": lambda: decode(lambda: simplejpeg.decode_jpeg(jpeg, "RGB", strict=True)),
                "fed": feed,
            }
            for call in calls.values():
                call()
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
            for _ in range(3):
                for name, call in calls.items():
                    found[name].append(_seconds_each(call))
        print(json.dumps(found), flush=True)
        while True:
            feed()


def _seconds_each(call: Callable[[], int]) -> tuple[float, float]:
    """Return seconds per image, by the clock and of this process's processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    images = call()
    return (time.perf_counter() - wall) / images, (time.process_time() - cpu) / images


class _Planner:
    """In place of the fast path: crops are planned as for a device, and come out empty."""

    stepped_down = ()

    def __init__(self, pipeline: Pipeline) -> None:
        cropper = DeviceCropper(pipeline.model.preprocessing.known, torch.device("cpu"))
        cropper.make_crops = lambda image, plan, tables: torch.empty((len(plan.host), 1), dtype=torch.uint8)
        self.memory, self.open = cropper.memory, cropper.open


@contextmanager
def _answering_at_once(loaded: Pipeline) -> Iterator[Pipeline]:
    """Yield the pipeline with a device that takes no time."""
    settings = loaded.settings.model_copy(update={"max_batch": 256})
    dimensions = loaded.model.encode_texts(["a"]).shape[1]
    feature = np.full((settings.max_batch, dimensions), dimensions**-0.5, np.float32)
    batcher = Batcher(
        lambda crops: feature[: len(crops)],
        max_batch=settings.max_batch,
        max_wait_s=settings.max_wait_ms / 1000,
        threads=2,
    )
    batcher.start()
    planner: Any = _Planner(loaded)
    try:
        yield replace(loaded, settings=settings, batcher=batcher, fast_path=planner)
    finally:
        batcher.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
