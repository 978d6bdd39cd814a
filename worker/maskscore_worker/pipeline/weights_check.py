"""Checks a folder of weights by loading it, and proving the fast path with it, as a worker does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskscore.errors import WeightsError
from maskscore.settings import WorkerSettings
from maskscore_worker.model import missing_tokenizer, read_configuration
from maskscore_worker.pipeline.loading import compare_fast_path
from maskscore_worker.pipeline.precision_check import PrecisionReport, measure_precisions
from maskscore_worker.weights import weights_file

__all__ = ["WeightsReport", "check_weights"]


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """What a folder holds; ``size`` is in bytes, ``details`` the model's own description (parameters, image size).

    ``warning`` says why a worker makes its crops slowly, and is ``None`` where it does not. ``stepped_down`` are the
    parts of the fast path that gave other values than the plain path on ``device``, with the reasons.
    """

    file: Path
    size: int
    digest: str
    architecture: str
    details: dict[str, Any]
    warning: str | None
    device: str
    stepped_down: dict[str, str]
    precisions: PrecisionReport | None = None


def check_weights(settings: WorkerSettings, *, precisions: bool = False, images: Path | None = None) -> WeightsReport:
    """Load the model of ``settings.weights``, strictly, prove the fast path on the settings' device, and describe both.

    With ``precisions``, measure these, on the photos of ``images`` where it is given.

    Raises :class:`~maskscore.errors.WeightsError` as :func:`~maskscore_worker.model.load_model` does, but at once for
    all that the folder lacks; :class:`~maskscore.errors.SettingsError` for a device that is not there or that computes
    other values than the CPU.
    """
    assert settings.weights is not None
    _refuse_incomplete(settings.weights, settings.model, settings.pretrained)
    path = weights_file(settings.weights)
    model, stepped_down = compare_fast_path(settings)
    return WeightsReport(
        path,
        path.stat().st_size,
        model.weights_digest,
        model.architecture,
        model.describe(),
        warning=model.preprocessing.foreign,
        device=str(model.device),
        stepped_down=stepped_down,
        precisions=measure_precisions(settings, images) if precisions else None,
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
