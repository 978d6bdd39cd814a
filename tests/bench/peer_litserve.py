"""The specification's script behind LitServe: one request is one image with all its masks."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from PIL import Image

from bench.peer_server import PeerServer, running_peer
from maskscore.prompts import load_builtin
from reference import Reference, decode

__all__ = ["running_litserve"]


@contextmanager
def running_litserve(weights: Path) -> Iterator[PeerServer]:
    """Start this module as a server with the weights."""
    file = str(weights / "open_clip_model.safetensors")
    with running_peer(
        "LitServe", lambda port: [sys.executable, "-m", "bench.peer_litserve", file, str(port)]
    ) as server:
        yield server


class Scorer(litserve.LitAPI):  # type: ignore[misc]
    """Decodes, crops and scores mask by mask, as the script does."""

    def __init__(self, weights: str) -> None:
        super().__init__()
        self._weights = weights

    def setup(self, device: Any) -> None:
        """Load the model and encode the prompts."""
        self._model = Reference.from_architecture("ViT-B-32", Path(self._weights))
        self._texts = load_builtin("demo").texts
        self._model.text_features(self._texts)

    # LitServe would take an annotation of the request for a query parameter.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """Take the image and the masks out of a request."""
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("RGB"))
        return pixels, request["masks"]

    def predict(self, inputs: Any) -> list[list[float]]:
        """Score mask by mask."""
        pixels, masks = inputs
        return [
            self._model.probabilities(pixels, decode(mask, *pixels.shape[:2]), self._texts, "original").tolist()
            for mask in masks
        ]

    def encode_response(self, output: list[list[float]]) -> dict[str, Any]:
        """Return all probabilities."""
        return {"probabilities": output}


if __name__ == "__main__":
    server = litserve.LitServer(Scorer(sys.argv[1]), accelerator="cpu", timeout=600)
    server.run(port=int(sys.argv[2]), host="127.0.0.1", generate_client_file=False, log_level="warning")
