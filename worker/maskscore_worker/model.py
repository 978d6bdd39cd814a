"""The only door to open_clip: a weights folder → a model that turns crops and prompts into features."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file

from maskscore.errors import FailureCode, JobError, WeightsError

__all__ = ["CONFIG_FILE", "ClipModel", "digest_of", "load_model", "weights_file"]

log = logging.getLogger(__name__)

CONFIG_FILE = "open_clip_config.json"
_WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# Buffers that some releases saved and others compute; they hold no learned value.
_HARMLESS_KEYS = re.compile(r"(^|\.)(position_ids|attn_mask)$")
_TEXTS_PER_FORWARD = 256

Features = npt.NDArray[np.float32]


class ClipModel:
    """A loaded model on its device, in fp32. Made by :func:`load_model`.

    ``transform`` is open_clip's inference transform (Pillow image → normalised ``(3, S, S)`` tensor);
    ``standard_resize`` says whether it is the usual one (short side by bicubic, centre crop).
    """

    precision = "fp32"

    def __init__(
        self, model: Any, tokenizer: Any, *, architecture: str, weights_digest: str, device: torch.device
    ) -> None:
        preprocess = PreprocessCfg(**model.visual.preprocess_cfg)
        sides = {preprocess.size} if isinstance(preprocess.size, int) else set(preprocess.size)
        if len(sides) != 1:
            raise WeightsError(
                f"{architecture} takes images of {preprocess.size} pixels; only square ones are supported."
            )
        self.architecture = architecture
        self.weights_digest = weights_digest
        self.device = device
        self.image_size = int(sides.pop())
        self.mean: tuple[float, ...] = tuple(preprocess.mean)
        self.std: tuple[float, ...] = tuple(preprocess.std)
        self.standard_resize = (preprocess.resize_mode, preprocess.interpolation) == ("shortest", "bicubic")
        self.transform: Callable[[Image.Image], torch.Tensor] = image_transform_v2(preprocess, is_train=False)
        self.context_length = int(tokenizer.context_length)
        self._model = model.eval().to(device)
        self._tokenizer = tokenizer
        self.logit_scale = float(model.logit_scale.detach().exp())
        self._mean = torch.tensor(self.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(self.std, device=device).view(1, 3, 1, 1)

    def encode_images(self, crops: npt.NDArray[np.uint8]) -> Features:
        """Return the L2-normalised features ``(N, D)`` float32 of ``(N, S, S, 3)`` uint8 RGB crops.

        Raises :class:`torch.OutOfMemoryError` when the device's memory does not suffice.
        """
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self.device)
            values = pixels.permute(0, 3, 1, 2).to(torch.float32).div(255)
            return self._features(values.sub_(self._mean).div_(self._std).contiguous())

    def encode_tensors(self, tensors: npt.NDArray[np.float32]) -> Features:
        """Return the features of ``(N, 3, S, S)`` float32 images that :attr:`transform` has normalised."""
        with torch.inference_mode():
            return self._features(torch.from_numpy(np.ascontiguousarray(tensors)).to(self.device))

    def encode_texts(self, texts: Sequence[str]) -> Features:
        """Return the L2-normalised features ``(P, D)`` float32 of prompts.

        Raises :class:`~maskscore.errors.JobError` with ``prompt_too_long`` where a prompt does not fit the context;
        open_clip itself would cut it off.
        """
        for text in texts:
            tokens = self._count_tokens(text)
            if tokens > self.context_length:
                shown = text if len(text) <= 60 else text[:57] + "..."
                raise JobError(
                    FailureCode.PROMPT_TOO_LONG,
                    f"The prompt {shown!r} has {tokens} tokens; {self.architecture} takes {self.context_length}. "
                    "Shorten it.",
                )
        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), _TEXTS_PER_FORWARD):
                tokens = self._tokenizer(list(texts[start : start + _TEXTS_PER_FORWARD])).to(self.device)
                parts.append(_normalised(self._model.encode_text(tokens)))
        return np.concatenate(parts)

    def describe(self) -> dict[str, Any]:
        """Return what ``maskscore weights check`` shows: parameters, feature dimension, image size and so on."""
        return {
            "parameters": sum(parameter.numel() for parameter in self._model.parameters()),
            "feature_dimension": self.encode_texts(["a"]).shape[1],
            "image_size": self.image_size,
            "context_length": self.context_length,
            "logit_scale": self.logit_scale,
        }

    def _features(self, values: torch.Tensor) -> Features:
        return _normalised(self._model.encode_image(values))

    def _count_tokens(self, text: str) -> int:
        if hasattr(self._tokenizer, "encode"):
            return len(self._tokenizer.encode(text)) + 2  # start and end
        return len(self._tokenizer.tokenizer(text)["input_ids"])


def _normalised(features: torch.Tensor) -> Features:
    features = features.float()
    array: Features = (features / features.norm(dim=-1, keepdim=True)).cpu().numpy()
    return array


def load_model(folder: Path, *, architecture: str, device: torch.device) -> ClipModel:
    """Load the model of a folder; nothing is fetched from anywhere.

    The folder's own ``open_clip_config.json``, where it has one, goes before ``architecture`` (a name that open_clip
    knows). Raises :class:`~maskscore.errors.WeightsError` when the folder holds no weights, when they cannot be read,
    when a key is missing or too many or a tensor has another shape, or when a value is not finite: a layer that stayed
    random would give plausible nonsense.
    """
    path = weights_file(folder)
    configured = (folder / CONFIG_FILE).is_file()
    name = _architecture_of(folder) if configured else architecture
    source = f"local-dir:{folder}" if configured else architecture
    if not configured and architecture not in open_clip.list_models():
        raise WeightsError(
            f"open_clip knows no architecture {architecture!r}, and {folder} has no {CONFIG_FILE}. "
            "Correct MASKSCORE_MODEL; `python -c 'import open_clip; print(open_clip.list_models())'` lists the names."
        )
    try:
        # open_clip says at every start that no pretrained weights are loaded: that is the point.
        logging.getLogger().addFilter(_without_open_clip)
        model = open_clip.create_model(
            source, pretrained=None, load_weights=False, pretrained_image=False, pretrained_text=False
        )
        tokenizer = open_clip.get_tokenizer(source)
    except Exception as error:
        raise WeightsError(
            f"The architecture {name} could not be made from {folder}: {type(error).__name__}: {error}. An "
            f"architecture whose tokenizer comes from a hub needs its files and an {CONFIG_FILE} in the folder."
        ) from error
    finally:
        logging.getLogger().removeFilter(_without_open_clip)
    _fill(model, _read(path), path, name)
    return ClipModel(model, tokenizer, architecture=name, weights_digest=digest_of(path), device=device)


def weights_file(folder: Path) -> Path:
    """Return the folder's weights file, safetensors first. Raises :class:`~maskscore.errors.WeightsError`."""
    for name in _WEIGHTS_FILES:
        if (folder / name).is_file():
            return folder / name
    what = "holds neither" if folder.is_dir() else "is not a folder; it should hold"
    raise WeightsError(
        f"{folder} {what} {' nor '.join(_WEIGHTS_FILES)}. Fetch the weights with `maskscore weights pull {folder}`."
    )


def digest_of(path: Path) -> str:
    """Return ``sha256:…`` of a file."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _without_open_clip(record: logging.LogRecord) -> bool:
    return "open_clip" not in record.pathname or record.levelno >= logging.ERROR


def _architecture_of(folder: Path) -> str:
    """Name a folder's own configuration: the open_clip architecture it equals, else its digest."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))["model_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder / CONFIG_FILE} is not an open_clip configuration (JSON with `model_cfg`): {error!r}."
        ) from error
    for name in open_clip.list_models():
        if open_clip.get_model_config(name) == config:
            return str(name)
    return "custom-" + hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read: {type(error).__name__}: {error}. Fetch it again; `maskscore weights pull` checks "
            "the digest."
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict of tensors.")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _fill(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path, architecture: str) -> None:
    wanted = model.state_dict()
    problems = []
    for what, keys in (("missing", wanted.keys() - state.keys()), ("unexpected", state.keys() - wanted.keys())):
        named = sorted(key for key in keys if not _HARMLESS_KEYS.search(key))
        if named:
            problems.append(f"{len(named)} {what}: {_some(named)}")
    shared = wanted.keys() & state.keys()
    shapes = sorted(
        f"{key} is {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in shared
        if state[key].shape != wanted[key].shape
    )
    if shapes:
        problems.append(f"{len(shapes)} of another shape: {_some(shapes)}")
    if problems:
        raise WeightsError(
            f"{path} does not fit {architecture}: {'; '.join(problems)}. Set MASKSCORE_MODEL to the architecture that "
            f"the weights are of, or put its {CONFIG_FILE} into the folder."
        )
    broken = sorted(key for key in shared if not torch.isfinite(state[key]).all())
    if broken:
        raise WeightsError(f"{path} holds values that are not finite, in {_some(broken)}. Fetch it again.")
    model.load_state_dict({key: state[key] for key in shared}, strict=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
