"""The worker's own checks for `maskscore doctor`: device, prompts and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch

from maskscore.doctor import Cause, Deployment, Finding, failed, failed_by, ok, skipped, warning
from maskscore.errors import JobError, SettingsError, WeightsError
from maskscore_worker.features import resolve_prompt_set
from maskscore_worker.model import choose_device
from maskscore_worker.pipeline import PathDiffersError, check_weights

__all__ = ["EXAMINATIONS"]


_FOREIGN: Final = (
    "Scores are right. For the fast croppers, take the releases of open_clip_torch, torchvision and Pillow that "
    "maskscore was tested with, or other weights."
)


def _examine_device(deployment: Deployment) -> Iterator[Finding]:
    """Choose the device as a worker does, and compute something on it."""
    setting = deployment.settings.device
    try:
        device = choose_device(setting)
    except SettingsError as error:
        yield failed_by("device", Cause.SETTINGS, error, "Name one of these, or `auto`.")
        return
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        torch.ones(2, device=device).sum().item()
        name = torch.cuda.get_device_name(device)
        yield ok("device", f"{device} ({name}) computes; {free / 2**30:.1f} of {total / 2**30:.1f} GiB are free.")
    elif setting == "auto" and torch.version.cuda:
        yield warning(
            "device",
            f"PyTorch is built for CUDA {torch.version.cuda} but sees no GPU; the CPU scores, slowly.",
            "Check the driver with nvidia-smi, and that the container was given the GPU. MASKSCORE_DEVICE=cpu if it is "
            "meant.",
        )
    else:
        yield ok("device", f"{device}, with {torch.get_num_threads()} threads.")


def _examine_prompts(deployment: Deployment) -> Iterator[Finding]:
    """Find the prompt set that a worker encodes at its start."""
    settings = deployment.settings
    try:
        found = resolve_prompt_set(settings.prompts, settings.prompts_dir)
    except JobError as error:
        yield failed_by("prompts", Cause.SETTINGS, error, "Correct MASKSCORE_PROMPTS, or the file of that name.")
        return
    yield ok("prompts", f"{found.name!r}, version {found.version}: {len(found.texts)} prompts.")


def _examine_weights(deployment: Deployment) -> Iterator[Finding]:
    """Load the weights, and prove the fast path with them, as a worker does."""
    settings = deployment.settings
    if settings.weights is None:
        yield failed(
            "weights",
            Cause.SETTINGS,
            "MASKSCORE_WEIGHTS is unset, and a worker needs weights.",
            "maskscore weights pull DIR, then MASKSCORE_WEIGHTS=DIR or --weights DIR.",
        )
        return
    here, skip = settings, None
    try:
        choose_device(settings.device)
    except SettingsError:
        # The weights are looked at all the same.
        here = settings.model_copy(update={"device": "cpu"})
        skip = skipped("fast path", "Not examined: the device cannot be used, as is said above.")
    try:
        report = check_weights(here)
    except WeightsError as error:
        advice = (
            "Correct MASKSCORE_MODEL, MASKSCORE_PRETRAINED or the folder's files; "
            f"`maskscore weights pull NAME:TAG {settings.weights}` fetches all of them again."
        )
        yield failed_by("weights", Cause.SETTINGS, error, advice)
        return
    except PathDiffersError as error:
        yield failed_by("fast path", Cause.DEPLOYMENT, error, "MASKSCORE_DEVICE=cpu scores meanwhile.")
        return
    size = f"{report.size / 2**20:,.1f} MiB"
    found = f"{report.file}: {report.architecture}, {size}, {report.digest[:19]}…"
    if report.warning is not None:
        yield warning("weights", f"{found}. Crops are slow: {report.warning}.", _FOREIGN)
    else:
        yield ok("weights", found)
    yield skip or _judge_fast_path(report.device, report.stepped_down)


def _judge_fast_path(device: str, stepped_down: dict[str, str]) -> Finding:
    if not stepped_down:
        return ok("fast path", f"Its values on {device} are those of the plain path.")
    said = "; ".join(f"{part}: {why}" for part, why in sorted(stepped_down.items()))
    advice = "Scores are right, and slower. Results name it in model.stepped_down; please report it."
    return warning("fast path", f"Stepped down to the plain path: {said}.", advice)


EXAMINATIONS: Final[dict[str, Callable[[Deployment], Iterator[Finding]]]] = {
    "device": _examine_device,
    "prompts": _examine_prompts,
    "weights": _examine_weights,
}
"""By the names under which :mod:`maskscore.doctor` runs them."""
