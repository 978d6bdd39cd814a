"""The same masks on the same weights: the specification's script, LitServe around it, and maskscore."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.crops import plain
from bench.figures import Figures
from bench.material import full_size_weights, jpeg, masks, photograph
from bench.stack import cpu_seconds, cpu_seconds_of_session, running_services, running_worker, upload
from maskscore import Client, Job, Mask, ScoringOptions
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from reference import Reference, decode

__all__ = ["run"]

OPTIONS = ScoringOptions(prompts="demo")


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Score one photo's masks by each, in turn, and compare the scores."""
    weights = full_size_weights()
    data = jpeg(photograph())
    found = [Mask(id=str(n), segmentation=encode_mask(bits)) for n, bits in enumerate(masks(100 if full else 8))]
    segmentations = [plain(mask) for mask in found]
    texts, positive = load_builtin("demo").texts, len(load_builtin("demo").positive)
    script = Reference.from_architecture("ViT-B-32", weights / "open_clip_model.safetensors")
    script.text_features(texts)

    def specification() -> list[Any]:
        pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        return [
            script.probabilities(pixels, decode(one, *pixels.shape[:2]), texts, "original") for one in segmentations
        ]

    body = {
        "image": base64.b64encode(data).decode(),
        "masks": [{**one, "counts": one["counts"].decode()} for one in segmentations],
    }
    has_litserve = importlib.util.find_spec("litserve") is not None
    with (
        running_services() as services,
        _litserve(weights) if has_litserve else nullcontext(None) as peer,
        running_worker(services, weights, prompts="demo") as (exact, exact_worker),
        running_worker(services, weights, prompts="demo", precision="bf16") as (half, half_worker),
    ):
        image = upload(data, "peers.jpg")
        calls: dict[str, Any] = {"the specification's script": specification}
        used: dict[str, Callable[[], float]] = {"the specification's script": time.process_time}
        if peer is not None:
            port, session = peer
            calls["LitServe around it"] = lambda: _ask(port, body)["probabilities"]
            used["LitServe around it"] = lambda: cpu_seconds_of_session(session)
        calls["maskscore, fp32"] = lambda: _score(exact, image, found)
        used["maskscore, fp32"] = lambda: cpu_seconds(exact_worker.pid)
        calls["maskscore, bf16"] = lambda: _score(half, image, found)
        used["maskscore, bf16"] = lambda: cpu_seconds(half_worker.pid)
        expected = np.array([float(row[:positive].sum()) for row in specification()])
        for name, call in list(calls.items())[1:]:
            given = np.array([row if isinstance(row, float) else sum(row[:positive]) for row in call()])
            if np.abs(given - expected).max() > (3e-2 if "bf16" in name else 1e-3):
                raise AssertionError(f"{name} gives other scores than the specification's script")
        walls: dict[str, list[float]] = {name: [] for name in calls}
        cpus: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(5 if full else 2):
            for name, call in calls.items():
                started, before = time.perf_counter(), used[name]()
                call()
                walls[name].append(time.perf_counter() - started)
                cpus[name].append(used[name]() - before)
    table = Table(title=f"one photo of 2250 x 1500 with {len(found)} masks, ViT-B-32 at full size, on this CPU")
    for column in ("who", "masks/s", "maskscore in fp32 is faster by", "masks per core-second", "by"):
        table.add_column(column, justify="left" if column == "who" else "right")
    wall = {name: statistics.median(taken) for name, taken in walls.items()}
    cpu = {name: statistics.median(taken) for name, taken in cpus.items()}
    ours, half_ours = "maskscore, fp32", "maskscore, bf16"
    for name in calls:
        by_cpu = f"{cpu[name] / cpu[ours]:.2f}" if cpu[ours] else ""
        per_core = f"{len(found) / cpu[name]:.1f}" if cpu[name] else ""
        table.add_row(name, f"{len(found) / wall[name]:.1f}", f"{wall[name] / wall[ours]:.2f}", per_core, by_cpu)
    console.print(table)
    if not has_litserve:
        console.print("LitServe is not installed: pip install '.[bench]'")
    keys = {"the specification's script": "spec", "LitServe around it": "litserve"}
    for name, key in keys.items():
        if name in wall:
            figures[f"peers.{key}_ratio"] = wall[name] / wall[ours]
            figures[f"peers.{key}_bf16_ratio"] = wall[name] / wall[half_ours]
            if cpu[ours]:
                figures[f"peers.{key}_cpu_ratio"] = cpu[name] / cpu[ours]
                figures[f"peers.{key}_bf16_cpu_ratio"] = cpu[name] / cpu[half_ours]


def _score(client: Client, image: str, found: list[Mask]) -> list[float]:
    result = client.submit(Job(image=image, masks=found, options=OPTIONS)).wait(timeout=900)
    return [float(component.p_pos_sum or 0) for component in result.components]


@contextmanager
def _litserve(weights: Path) -> Iterator[tuple[int, int]]:
    """Yield the port and the session of a server that answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "bench.litserve_app"]
    command += [str(weights / "open_clip_model.safetensors"), str(port)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                if server.poll() is not None:
                    raise RuntimeError("LitServe ended at once")
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.5)
            else:
                raise RuntimeError("LitServe does not answer")
            yield port, server.pid
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)


def _ask(port: int, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=900) as answer:
        return json.load(answer)
