"""The specification, written down as plainly as it reads: one mask, one crop, one forward at a time.

It shares no code with the service: open_clip loads the weights and makes the transform, pycocotools decodes the masks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image, ImageFilter
from pycocotools import mask as coco
from safetensors.torch import load_file

BoolMask = npt.NDArray[np.bool_]


@dataclass
class Reference:
    model: Any
    transform: Any
    tokenizer: Any
    texts: dict[tuple[str, ...], torch.Tensor] = field(default_factory=dict)
    features: dict[tuple[object, ...], torch.Tensor] = field(default_factory=dict)
    """Of crops, by what they were made of: the same are asked for in each of the service's modes."""

    @classmethod
    def from_folder(cls, folder: Path) -> Reference:
        """A folder that carries its own open_clip_config.json, read by open_clip itself."""
        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", precision="fp32")
        return cls(model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}"))

    @classmethod
    def from_architecture(cls, architecture: str, weights: Path) -> Reference:
        model, _, transform = open_clip.create_model_and_transforms(architecture, pretrained=None)
        model.load_state_dict(load_file(weights))
        return cls(model.eval(), transform, open_clip.get_tokenizer(architecture))

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str]) -> torch.Tensor:
        key = tuple(prompts)
        if key not in self.texts:
            features = self.model.encode_text(self.tokenizer(list(prompts)))
            self.texts[key] = torch.nn.functional.normalize(features, dim=-1)
        return self.texts[key]

    @torch.no_grad()
    def image_feature(self, image: npt.NDArray[np.uint8], mask: BoolMask, treatment: str, alpha: float) -> torch.Tensor:
        rows, columns = np.nonzero(mask)
        crop_box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        crop, inside = image[crop_box], mask[crop_box]
        digests = [hashlib.sha256(pixels.tobytes()).digest() for pixels in (crop, inside)]
        key = (*digests, inside.shape, treatment, alpha)
        if key not in self.features:
            self.features[key] = self.feature(treated(crop, inside, treatment, alpha))
        return self.features[key]

    @torch.no_grad()
    def feature(self, crop: npt.NDArray[np.uint8]) -> torch.Tensor:
        feature = self.model.encode_image(self.transform(Image.fromarray(crop)).unsqueeze(0))
        return torch.nn.functional.normalize(feature, dim=-1)

    @torch.no_grad()
    def probabilities(
        self, image: npt.NDArray[np.uint8], mask: BoolMask, prompts: Sequence[str], treatment: str, alpha: float = 0.4
    ) -> npt.NDArray[np.float64]:
        feature = self.image_feature(image, mask, treatment, alpha)
        logits: torch.Tensor = self.model.logit_scale.exp() * feature @ self.text_features(prompts).T
        return logits.softmax(dim=-1)[0].numpy().astype(np.float64)

    @torch.no_grad()
    def cosines(
        self, image: npt.NDArray[np.uint8], mask: BoolMask, prompts: Sequence[str], treatment: str, alpha: float = 0.4
    ) -> npt.NDArray[np.float64]:
        feature = self.image_feature(image, mask, treatment, alpha)
        return (feature @ self.text_features(prompts).T)[0].numpy().astype(np.float64)


def treated(crop: npt.NDArray[np.uint8], mask: BoolMask, treatment: str, alpha: float) -> npt.NDArray[np.uint8]:
    if treatment == "raw_crop":
        return crop
    pixels = crop.astype(np.float64)
    outside = np.full_like(pixels, 128.0) if treatment == "original" else pixels * (1 - alpha) + 128 * alpha
    pixels = np.where(mask[..., None], pixels * 1.05, outside)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def viewed(
    image: npt.NDArray[np.uint8], mask: BoolMask, treatment: str, frame: str, size: int, **numbers: float
) -> npt.NDArray[np.uint8]:
    """The recipes of docs/reference/treatments.md, as they read there: the picture that the transform is given."""
    alpha, blur, context = (
        numbers.get(name, usual) for name, usual in (("alpha", 0.4), ("blur", 0.1), ("context", 0.25))
    )
    rows, columns = np.nonzero(mask)
    top, left, bottom, right = (int(edge) for edge in (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1))
    high, wide = bottom - top, right - left
    longer = max(high, wide)
    if frame == "context":
        side = longer + 2 * int(context * longer + 0.5)
        down, across = min(side, image.shape[0]), min(side, image.shape[1])
        top = min(max(top - (down - high) // 2, 0), image.shape[0] - down)
        left = min(max(left - (across - wide) // 2, 0), image.shape[1] - across)
        high, wide = down, across
    crop, inside = image[top : top + high, left : left + wide], mask[top : top + high, left : left + wide, None]
    if treatment == "blur":
        crop = np.where(inside, crop, blurred(Image.fromarray(np.ascontiguousarray(crop)), blur * longer))
    elif treatment == "mean_fill":
        crop = np.where(inside, crop, np.array([123, 117, 104], np.uint8))
    else:
        crop = treated(crop, inside[..., 0], treatment, alpha)
    if frame == "cut":
        return crop
    scale = size / max(high, wide)
    width, height = (max(1, int(side * scale + 0.5)) for side in (wide, high))
    square = Image.new(
        "RGB", (size, size), (128, 128, 128) if treatment in ("original", "soft_mask") else (123, 117, 104)
    )
    resized = Image.fromarray(np.ascontiguousarray(crop)).resize((width, height), Image.Resampling.BICUBIC)
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return np.asarray(square)


def blurred(crop: Image.Image, sigma: float) -> npt.NDArray[np.uint8]:
    times = max(1, int(sigma / 8))
    around = crop.reduce(times).filter(ImageFilter.GaussianBlur(sigma / times))
    if times > 1:
        box = (0, 0, crop.width / times, crop.height / times)
        around = around.resize(crop.size, Image.Resampling.BILINEAR, box=box)
    return np.asarray(around)


def multiplier(p_pos_sum: float, p_neg_sum: float) -> float:
    if p_neg_sum > 0.5:
        return 0.1
    if p_pos_sum > 0.7 and p_neg_sum < 0.2:
        return 2.0
    if p_pos_sum > 0.4:
        return 1.0
    return 0.5


def decode(segmentation: Any, height: int, width: int) -> BoolMask:
    """COCO's own decoding of RLE (compressed or not) and polygons."""
    if isinstance(segmentation, list):
        rle = coco.merge(coco.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = coco.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    decoded: BoolMask = coco.decode(rle).astype(bool)
    return decoded
