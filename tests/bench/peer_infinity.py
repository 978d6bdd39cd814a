"""Infinity as a peer: it embeds pictures, so the crops, the softmax and the rest stay with whoever calls it.

It wants older releases of what maskscore stands on, and so has a virtual environment of its own, which ``make bench``
makes beside the benchmarks' one; PyTorch is shared.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image

from bench.infinity_model import ensure_hugging_face_model
from bench.peer_server import PeerServer, running_peer
from in_memory_files import image_file
from reference import Reference, decode, treated

__all__ = ["infinity_program", "infinity_scores", "running_infinity"]


def infinity_program() -> Path | None:
    """Return infinity's command, or ``None`` where it is not installed."""
    program = Path(f"{sys.prefix}-infinity") / "bin" / "infinity_emb"
    return program if program.exists() else None


@contextmanager
def running_infinity(program: Path, weights: Path) -> Iterator[PeerServer]:
    """Start infinity with the weights, on the CPU, as its documentation does where Optimum is not installed."""
    model = ensure_hugging_face_model(weights)

    def command(port: int) -> list[str]:
        options = ["--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--host", "127.0.0.1"]
        return [
            str(program),
            "v2",
            "--model-id",
            str(model),
            "--served-model-name",
            "clip",
            "--port",
            str(port),
            *options,
        ]

    # The benchmarks' own path would hide its older libraries.
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONPATH": ""}
    with running_peer("infinity", command, environment=offline) as server:
        yield server


def infinity_scores(
    server: PeerServer, data: bytes, segmentations: list[dict[str, Any]], script: Reference, texts: tuple[str, ...]
) -> npt.NDArray[np.float64]:
    """Return ``(masks, prompts)`` probabilities of a JPEG's masks.

    The caller decodes, crops and treats as the specification's script does, and sends squares of the model's size,
    which is the least that infinity can be given to do.
    """
    pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    pictures = [_square(pixels, decode(one, *pixels.shape[:2])) for one in segmentations]
    body = {"model": "clip", "modality": "image", "encoding_format": "base64", "input": pictures}
    answer = sorted(server.post("/embeddings", body)["data"], key=lambda item: item["index"])
    rows = [np.frombuffer(base64.b64decode(item["embedding"]), np.float32) for item in answer]
    features = torch.nn.functional.normalize(torch.from_numpy(np.stack(rows)), dim=-1)
    with torch.inference_mode():
        logits = script.model.logit_scale.exp() * features @ script.text_features(texts).T
        probabilities: npt.NDArray[np.float64] = logits.softmax(dim=-1).double().numpy()
    return probabilities


def _square(pixels: npt.NDArray[np.uint8], bits: npt.NDArray[np.bool_]) -> str:
    rows, columns = np.nonzero(bits)
    box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    crop = Image.fromarray(treated(pixels[box], bits[box], "original", 0.4))
    return "data:image/png;base64," + base64.b64encode(image_file(_resize(crop), compress_level=1)).decode()


def _resize(crop: Image.Image) -> Image.Image:
    transform = open_clip.image_transform(224, is_train=False)
    # Resize and centre crop alone: what follows makes a tensor and normalises it, which is the server's.
    for step in transform.transforms[:2]:
        crop = step(crop)
    return crop
