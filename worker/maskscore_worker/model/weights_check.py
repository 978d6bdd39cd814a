"""Checks a folder of weights by loading it as a worker does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from maskscore.errors import WeightsError
from maskscore_worker.model.clip import load_model
from maskscore_worker.model.configuration import read_configuration
from maskscore_worker.model.tokens import missing_tokenizer
from maskscore_worker.weights import weights_file

__all__ = ["WeightsReport", "check_weights"]


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """What a folder holds; ``size`` is in bytes, ``details`` the model's own description (parameters, image size).

    ``warning`` says why a worker takes the slow path for it, and is ``None`` where it does not.
    """

    file: Path
    size: int
    digest: str
    architecture: str
    details: dict[str, Any]
    warning: str | None = None


def check_weights(folder: Path, *, architecture: str, pretrained: str | None = None) -> WeightsReport:
    """Load the folder's model on the CPU, strictly, and describe it.

    Raises :class:`~maskscore.errors.WeightsError` as :func:`~maskscore_worker.model.clip.load_model` does, but at once
    for all that the folder lacks.
    """
    _refuse_incomplete(folder, architecture, pretrained)
    path = weights_file(folder)
    model = load_model(folder, architecture=architecture, pretrained=pretrained, device=torch.device("cpu"))
    foreign = model.preprocessing.foreign
    return WeightsReport(
        path, path.stat().st_size, model.weights_digest, model.architecture, model.describe(), warning=foreign
    )


def _refuse_incomplete(folder: Path, architecture: str, pretrained: str | None) -> None:
    problems: list[WeightsError] = []
    try:
        weights_file(folder)
    except WeightsError as error:
        problems.append(error)
    if folder.is_dir():
        try:
            found = read_configuration(folder, architecture=architecture, pretrained=pretrained)
        except WeightsError as error:
            problems.append(error)
        else:
            if missing := missing_tokenizer(found, folder):
                problems.append(WeightsError(missing))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise WeightsError(f"{folder} lacks {len(problems)} things. " + " ".join(str(problem) for problem in problems))
