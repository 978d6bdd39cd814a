"""Checks a folder of weights by loading it as a worker does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from maskscore_worker.model.clip import load_model
from maskscore_worker.weights import weights_file

__all__ = ["WeightsReport", "check_weights"]


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """What a folder holds; ``size`` is in bytes, ``details`` the model's own description (parameters, image size)."""

    file: Path
    size: int
    digest: str
    architecture: str
    details: dict[str, Any]


def check_weights(folder: Path, *, architecture: str) -> WeightsReport:
    """Load the folder's model on the CPU, strictly, and describe it.

    Raises :class:`~maskscore.errors.WeightsError` as :func:`~maskscore_worker.model.clip.load_model` does.
    """
    path = weights_file(folder)
    model = load_model(folder, architecture=architecture, device=torch.device("cpu"))
    return WeightsReport(path, path.stat().st_size, model.weights_digest, model.architecture, model.describe())
