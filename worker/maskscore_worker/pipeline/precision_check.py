"""Measures what each precision does to the scores of a worker's own weights, on photos."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from maskscore.schema import PromptSet, ScoringOptions
from maskscore.settings import Precision, WorkerSettings
from maskscore.text import counted
from maskscore_worker.features import resolve_prompt_set
from maskscore_worker.inputs import PHOTOS, cut_into_masks, photo, photos_in
from maskscore_worker.masks import Region
from maskscore_worker.model import ClipModel, ImagePrecision, choose_device, precisions_of
from maskscore_worker.pipeline.loading import fast_batcher, load_compared_model
from maskscore_worker.pipeline.probe_crops import PROBE_VIEWS, drawn_photo, ellipse

__all__ = ["CLIP_SCALE", "Differences", "MeasuredPrecision", "PrecisionReport", "compare_scores", "measure_precisions"]

CLIP_SCALE: Final = 100.0
"""The ``logit_scale`` at which released CLIPs stand: the same error of a cosine moves a probability the most there."""

Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]
_ACROSS, _DOWN = 5, 4


@dataclass(frozen=True, slots=True)
class Differences:
    """Differences of probabilities (of each prompt, and the groups' sums) of crops from those in fp32.

    ``largest`` is that of all; ``above_0_01`` and ``above_0_03`` count the crops with one above; ``multipliers`` those
    whose multiplier is another.
    """

    logit_scale: float
    largest: float
    above_0_01: int
    above_0_03: int
    multipliers: int


@dataclass(frozen=True, slots=True)
class MeasuredPrecision:
    """One precision. ``served`` is what a worker takes where these weights do not bear it, ``why`` says so.

    ``differences`` are at the model's own scale and at :data:`CLIP_SCALE`; there are none of fp32.
    """

    precision: ImagePrecision
    served: ImagePrecision
    why: str
    masks_per_second: float
    differences: tuple[Differences, ...]


@dataclass(frozen=True, slots=True)
class PrecisionReport:
    """What was measured: ``photos`` says on what, ``crops`` on how many crops, ``prompts`` with which prompts."""

    photos: str
    crops: int
    prompts: str
    precisions: tuple[MeasuredPrecision, ...]


def measure_precisions(settings: WorkerSettings, images: Path | None) -> PrecisionReport:
    """Score the same crops in each precision that the settings' device has, each as a worker with it does.

    The crops are those of the photos in ``images``, else of scikit-image's photos, else of a drawn picture. The time is
    that of the forward, the better of two.

    Raises as :func:`~maskscore_worker.pipeline.loading.load_pipeline` does, and
    :class:`~maskscore.errors.SettingsError` for a folder without an image.
    """
    source, photos = _photos(images)
    regions = [list(_regions(pixels)) for pixels in photos]
    prompts = resolve_prompt_set(settings.prompts, settings.prompts_dir)
    exact: Features | None = None
    rows = []
    for precision in precisions_of(choose_device(settings.device)):
        model, features, taken, why = _features(settings, precision, photos, regions)
        if exact is None:
            exact = features
            texts, scale = model.encode_texts(prompts.texts), model.logit_scale
        scales = (scale,) if abs(scale - CLIP_SCALE) < 0.05 else (scale, CLIP_SCALE)
        differences = tuple(
            compare_scores(exact, features, texts, prompts, logit_scale=each)
            for each in scales
            if features is not exact
        )
        rows.append(MeasuredPrecision(precision, model.precision, why, len(features) / taken, differences))
    assert exact is not None
    return PrecisionReport(source, len(exact), prompts.name, tuple(rows))


def compare_scores(
    exact: Features, features: Features, texts: Features, prompts: PromptSet, *, logit_scale: float
) -> Differences:
    """Compare the scores of the same crops' features ``(N, D)``; ``texts`` are those ``(P, D)`` of the prompts."""
    # Of every prompt, of which results hold but the best.
    both = [
        softmax(logit_scale * each.astype(np.float64) @ texts.astype(np.float64).T, axis=1)
        for each in (exact, features)
    ]
    positives, negatives = len(prompts.positive), len(prompts.negative)
    sums = [
        np.stack([each[:, :positives].sum(axis=1), each[:, positives : positives + negatives].sum(axis=1)], axis=1)
        for each in both
    ]
    largest = np.maximum(*(np.abs(ours - other).max(axis=1) for ours, other in (both, sums)))
    multiplier = ScoringOptions().thresholds.multiplier
    return Differences(
        logit_scale,
        float(largest.max()),
        int((largest > 0.01).sum()),
        int((largest > 0.03).sum()),
        sum(
            multiplier(*ours) != multiplier(*other)
            for ours, other in zip(*(each.tolist() for each in sums), strict=True)
        ),
    )


def _features(
    settings: WorkerSettings, precision: Precision, photos: Sequence[Pixels], regions: Sequence[list[Region]]
) -> tuple[ClipModel, Features, float, str]:
    """Return the model, the crops' features, the seconds that they took, and why another precision was taken."""
    here = settings.model_copy(update={"precision": precision, "spot_check_share": 0.0})
    model, crop_mode, known, stepped_down = load_compared_model(here, choose_device(settings.device))
    _, batcher, fast_path = fast_batcher(here, model, crop_mode, known, stepped_down, lambda _: None)
    fast_path.check()
    batcher.start()
    try:
        crops: list[Any] = []
        for pixels, own in zip(photos, regions, strict=True):
            image = fast_path.open(pixels)
            crops += [image.make(own, view, lambda: None) for view in PROBE_VIEWS]
        times = []
        for _ in range(2):
            started = time.perf_counter()
            features = np.concatenate([batcher.encode(some) for some in crops])
            times.append(time.perf_counter() - started)
    finally:
        batcher.close(timeout_s=30)
    return model, features, min(times), fast_path.reasons.get("precision", "")


def _photos(images: Path | None) -> tuple[str, list[Pixels]]:
    cut = find_spec("skimage") is not None
    how = "" if cut else ", in ellipses, because scikit-image is not installed"
    if images is not None:
        photos = photos_in(images)
        return f"{counted(len(photos), 'photo')} of {images}{how}", photos
    if cut:
        return f"{len(PHOTOS)} photos of scikit-image", [photo(name) for name in PHOTOS]
    return "a drawn picture, because scikit-image is not installed; real photos: --images DIR", [drawn_photo()]


def _regions(pixels: Pixels) -> Iterator[Region]:
    height, width = pixels.shape[:2]
    if find_spec("skimage") is None:
        across, down = width // _ACROSS, height // _DOWN
        boxes = [(x * across, y * down, across, down) for y in range(_DOWN) for x in range(_ACROSS)]
        yield from (ellipse(number, box, height) for number, box in enumerate(boxes))
        return
    for number, mask in enumerate(cut_into_masks(pixels)):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        y, x = int(rows[0]), int(columns[0])
        bits = np.ascontiguousarray(mask[y : int(rows[-1]) + 1, x : int(columns[-1]) + 1])
        yield Region(number, "", None, (x, y, bits.shape[1], bits.shape[0]), int(bits.sum()), height, bits)
