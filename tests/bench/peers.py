"""The same masks on the same weights: the specification's script, LitServe around it, and maskscore."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
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
from bench.stack import running_services, running_worker, upload
from bench.turns import in_turn
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
    found = [Mask(id=str(n), segmentation=encode_mask(bits)) for n, bits in enumerate(masks(100 if full else 40))]
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
        _litserve(weights) if has_litserve else nullcontext(None) as port,
        running_worker(services, weights, prompts="demo") as (exact, _),
        running_worker(services, weights, prompts="demo", precision="bf16") as (half, _),
    ):
        image = upload(data, "peers.jpg")
        calls: dict[str, Any] = {"the specification's script": specification}
        if port is not None:
            calls["LitServe around it"] = lambda: _ask(port, body)["probabilities"]
        calls["maskscore, fp32"] = lambda: _score(exact, image, found)
        calls["maskscore, bf16"] = lambda: _score(half, image, found)
        expected = np.array([float(row[:positive].sum()) for row in specification()])
        for name, call in calls.items():
            given = np.array([row if isinstance(row, float) else sum(row[:positive]) for row in call()])
            if np.abs(given - expected).max() > (3e-2 if "bf16" in name else 1e-3):
                raise AssertionError(f"{name} gives other scores than the specification's script")
        measured = in_turn(calls, repeats=5 if full else 3, warm_up=False)
    table = Table(title=f"one photo of 2250 x 1500 with {len(found)} masks, ViT-B-32 at full size, on this CPU")
    for column in ("who", "masks/s", "maskscore in fp32 is faster by"):
        table.add_column(column, justify="left" if column == "who" else "right")
    ours = measured["maskscore, fp32"].wall_s
    for name, taken in measured.items():
        table.add_row(name, f"{len(found) / taken.wall_s:.1f}", f"{taken.wall_s / ours:.2f}")
    console.print(table)
    if not has_litserve:
        console.print("LitServe is not installed: pip install '.[bench]'")
    keys = {"the specification's script": "spec", "LitServe around it": "litserve"}
    for name, key in keys.items():
        if name in measured:
            figures[f"peers.{key}_ratio"] = measured[name].wall_s / ours
            figures[f"peers.{key}_bf16_ratio"] = measured[name].wall_s / measured["maskscore, bf16"].wall_s


def _score(client: Client, image: str, found: list[Mask]) -> list[float]:
    result = client.submit(Job(image=image, masks=found, options=OPTIONS)).wait(timeout=900)
    return [float(component.p_pos_sum or 0) for component in result.components]


@contextmanager
def _litserve(weights: Path) -> Iterator[int]:
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
            yield port
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)


def _ask(port: int, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=900) as answer:
        return json.load(answer)
