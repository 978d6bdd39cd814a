"""open_clip's preprocessing of a model → the transform that the fast croppers make, where they make the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from maskscore.errors import WeightsError
from maskscore.imaging import ClipTransform

__all__ = ["ModelTransform", "normalise", "read_preprocessing"]


@dataclass(frozen=True, slots=True)
class ModelTransform:
    """A model's preprocessing.

    ``transform`` is open_clip's own inference transform (Pillow image → normalised ``(3, S, S)`` tensor), ``known``
    what the fast croppers make before ``mean`` and ``std`` are applied. ``foreign`` says why they cannot be used, and
    is ``None`` where they can.
    """

    transform: Any
    known: ClipTransform
    mean: tuple[float, ...]
    std: tuple[float, ...]
    foreign: str | None


def read_preprocessing(config: dict[str, Any], architecture: str) -> ModelTransform:
    """Return the preprocessing of an open_clip ``preprocess_cfg``.

    Whether ``known`` is ``transform`` is tried, on pictures of noise that are made smaller, larger, wider and taller:
    another release of open_clip, torchvision or Pillow may do otherwise. Raises
    :class:`~maskscore.errors.WeightsError` for a configuration that open_clip refuses, and for images that are not
    square.
    """
    try:
        settings = PreprocessCfg(**config)
        transform = image_transform_v2(settings, is_train=False)
    except (AssertionError, TypeError, ValueError) as error:
        raise WeightsError(
            f"open_clip cannot preprocess images for {architecture} as its preprocess_cfg says, {config}: "
            f"{type(error).__name__}: {error}. Correct it in the folder's open_clip_config.json."
        ) from error
    sides = {settings.size} if isinstance(settings.size, int) else set(settings.size)
    if len(sides) != 1:
        raise WeightsError(f"{architecture} takes images of {settings.size} pixels; only square ones are supported.")
    mean, std = (tuple(float(value) for value in values) for values in (settings.mean, settings.std))
    known = _known(settings, int(sides.pop()))
    differs = any(not torch.equal(transform(picture), _made(known, picture, mean, std)) for picture in _pictures(known))
    foreign = None
    if differs:
        foreign = (
            f"open_clip's transform of {architecture} ({known}, {known.size} pixels) gives other pixels than the fast "
            "croppers, so it makes the crops itself, one by one on the CPU"
        )
    return ModelTransform(transform, known, mean, std, foreign)


def normalise(crops: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Return ``(N, 3, S, S)`` float32 of uint8 crops of that shape, as torchvision's ToTensor and Normalize do."""
    return crops.to(torch.float32).div(255).sub_(mean).div_(std)


def _known(settings: PreprocessCfg, size: int) -> ClipTransform:
    fill = settings.fill_color
    levels: Sequence[Any] = (fill,) * 3 if isinstance(fill, int | float) else fill
    red, green, blue = (min(255, max(0, int(level))) for level in levels)
    mode: Literal["shortest", "squash", "longest"] = settings.resize_mode
    # "random" is for training; at inference it is bicubic.
    return ClipTransform(
        size,
        mode or "shortest",
        "bilinear" if settings.interpolation == "bilinear" else "bicubic",
        (red, green, blue) if mode == "longest" else (0, 0, 0),
    )


def _pictures(known: ClipTransform) -> list[Image.Image]:
    size = known.size
    rng = np.random.default_rng(0)
    shapes = ((size * 3 // 2, size * 2 + 5), (size // 3 + 1, size // 2 + 2), (size * 3, size // 2 + 3))
    return [Image.fromarray(rng.choice(np.array([0, 90, 255], np.uint8), (*shape, 3))) for shape in shapes]


def _made(known: ClipTransform, picture: Image.Image, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(known.square(picture))).permute(2, 0, 1).contiguous()
    means, stds = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return normalise(pixels, means, stds)
