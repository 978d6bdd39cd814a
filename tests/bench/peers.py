"""The same masks on the same weights: the specification's script, LitServe and infinity with it, and maskscore."""

from __future__ import annotations

import base64
import importlib.util
import io
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.crops import plain
from bench.figures import Figures
from bench.material import full_size_weights, jpeg, masks, photograph
from bench.peer_infinity import infinity_program, infinity_scores, running_infinity
from bench.stack import cpu_seconds, running_services, running_worker, upload
from maskscore import Client, Job, Mask, ScoringOptions
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from reference import Reference, decode

__all__ = ["run"]

OPTIONS = ScoringOptions(prompts="demo")


@dataclass
class _Contender:
    """Who is measured: ``score`` returns the group sums of the masks, ``cpu`` the processor seconds used so far."""

    name: str
    key: str | None
    score: Callable[[], list[float]]
    cpu: Callable[[], float]
    tolerance: float = 1e-3
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Score once and add the times."""
        started, before = time.perf_counter(), self.cpu()
        self.score()
        self.wall_s.append(time.perf_counter() - started)
        self.cpu_s.append(self.cpu() - before)

    @property
    def wall(self) -> float:
        """Median seconds by the clock."""
        return statistics.median(self.wall_s)

    @property
    def processor(self) -> float:
        """Median processor seconds."""
        return statistics.median(self.cpu_s)


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Score one photo's masks by each, in turn, and compare the scores."""
    weights = full_size_weights()
    data = jpeg(photograph())
    found = [Mask(id=str(n), segmentation=encode_mask(bits)) for n, bits in enumerate(masks(100 if full else 8))]
    segmentations = [plain(mask) for mask in found]
    texts, positive = load_builtin("demo").texts, len(load_builtin("demo").positive)
    script = Reference.from_architecture("ViT-B-32", weights / "open_clip_model.safetensors")
    script.text_features(texts)

    def sums(rows: Iterable[Any]) -> list[float]:
        return [float(sum(row[:positive])) for row in rows]

    def specification() -> list[float]:
        pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        rows = (
            script.probabilities(pixels, decode(one, *pixels.shape[:2]), texts, "original") for one in segmentations
        )
        return sums(rows)

    body = {
        "image": base64.b64encode(data).decode(),
        "masks": [{**one, "counts": one["counts"].decode()} for one in segmentations],
    }
    with ExitStack() as stack:
        services = stack.enter_context(running_services())
        contenders = [_Contender("the specification's script", "spec", specification, time.process_time)]
        if importlib.util.find_spec("litserve"):
            from bench.peer_litserve import running_litserve

            litserve = stack.enter_context(running_litserve(weights))
            contenders.append(
                _Contender(
                    "LitServe around it",
                    "litserve",
                    lambda: sums(litserve.post("/predict", body)["probabilities"]),
                    litserve.cpu_seconds,
                )
            )
        if program := infinity_program():
            infinity = stack.enter_context(running_infinity(program, weights))
            contenders.append(
                _Contender(
                    "the script's crops, infinity",
                    "infinity",
                    lambda: sums(infinity_scores(infinity, data, segmentations, script, texts)),
                    lambda: infinity.cpu_seconds() + time.process_time(),
                )
            )
        image = upload(data, "peers.jpg")
        for precision, tolerance in (("fp32", 1e-3), ("bf16", 3e-2)):
            client, worker = stack.enter_context(running_worker(services, weights, prompts="demo", precision=precision))
            contenders.append(
                _Contender(
                    f"maskscore, {precision}",
                    None,
                    partial(_score, client, image, found),
                    partial(cpu_seconds, worker.pid),
                    tolerance,
                )
            )
        expected = np.array(specification())
        for contender in contenders:
            difference = float(np.abs(np.array(contender.score()) - expected).max())
            if difference > contender.tolerance:
                raise AssertionError(f"{contender.name}: its scores differ from the script's by {difference:.2g}")
        for _ in range(5 if full else 3):
            for contender in contenders:
                contender.measure()
    exact, half = contenders[-2:]
    table = Table(title=f"one photo of 2250 x 1500 with {len(found)} masks, ViT-B-32 at full size, on this CPU")
    for column in ("who", "masks/s", "maskscore in fp32 is faster by", "masks per core-second", "by"):
        table.add_column(column, justify="left" if column == "who" else "right")
    for contender in contenders:
        by_cpu = f"{contender.processor / exact.processor:.2f}" if exact.processor else ""
        per_core = f"{len(found) / contender.processor:.1f}" if contender.processor else ""
        rate, by_clock = f"{len(found) / contender.wall:.1f}", f"{contender.wall / exact.wall:.2f}"
        table.add_row(contender.name, rate, by_clock, per_core, by_cpu)
        if contender.key:
            figures[f"peers.{contender.key}_ratio"] = contender.wall / exact.wall
            figures[f"peers.{contender.key}_bf16_ratio"] = contender.wall / half.wall
            if exact.processor and half.processor:
                figures[f"peers.{contender.key}_cpu_ratio"] = contender.processor / exact.processor
                figures[f"peers.{contender.key}_bf16_cpu_ratio"] = contender.processor / half.processor
    console.print(table)
    present = {contender.key for contender in contenders}
    for key, name in {"litserve": "LitServe", "infinity": "infinity"}.items():
        if key not in present:
            console.print(f"{name} is not installed; `make bench` installs it.")


def _score(client: Client, image: str, found: list[Mask]) -> list[float]:
    result = client.submit(Job(image=image, masks=found, options=OPTIONS)).wait(timeout=900)
    return [float(component.p_pos_sum or 0) for component in result.components]
