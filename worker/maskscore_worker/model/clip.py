"""The CLIP model: a weights folder → features of crops and prompts. The only module that makes open_clip models."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from maskscore.errors import FailureCode, JobError, WeightsError
from maskscore.schema import ModelIdentity
from maskscore.settings import CropMode
from maskscore_worker.model.checkpoint import dtypes_of, load_checkpoint, read_checkpoint
from maskscore_worker.model.fast_tower import fast_tower
from maskscore_worker.model.folding import MIDDLE, fold_normalisation
from maskscore_worker.model.precision import BF16_ERROR, DTYPES
from maskscore_worker.weights import CONFIG_FILE, digest_of, weights_file

__all__ = ["ClipModel", "load_model"]

log = logging.getLogger(__name__)

# What transformers' tokenizers are saved as: the fast ones, SentencePiece, WordPiece, byte-level BPE.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
)
_TEXTS_PER_FORWARD = 256

Features = npt.NDArray[np.float32]


class ClipModel:
    """A loaded model on its device. Made by :func:`load_model`.

    ``transform`` is open_clip's inference transform (Pillow image → normalised ``(3, S, S)`` tensor);
    ``standard_resize`` says whether it is the usual one (short side by bicubic, centre crop). ``stored_as`` names the
    types of the file's tensors (``float16``); ``precision`` is what the image tower computes in, whatever they are.
    Texts are encoded in fp32, and features are normalised in it. ``logit_bias`` is a SigLIP model's, else ``None``.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        architecture: str,
        weights_digest: str,
        stored_as: str,
        device: torch.device,
        precision: Literal["fp32", "bf16"],
    ) -> None:
        preprocess = PreprocessCfg(**model.visual.preprocess_cfg)
        sides = {preprocess.size} if isinstance(preprocess.size, int) else set(preprocess.size)
        if len(sides) != 1:
            raise WeightsError(
                f"{architecture} takes images of {preprocess.size} pixels; only square ones are supported."
            )
        self.architecture = architecture
        self.weights_digest = weights_digest
        self.stored_as = stored_as
        self.device = device
        self.image_size = int(sides.pop())
        self.mean: tuple[float, ...] = tuple(preprocess.mean)
        self.std: tuple[float, ...] = tuple(preprocess.std)
        self.standard_resize = (preprocess.resize_mode, preprocess.interpolation) == ("shortest", "bicubic")
        self.transform: Callable[[Image.Image], torch.Tensor] = image_transform_v2(preprocess, is_train=False)
        self.context_length = int(tokenizer.context_length)
        self.precision = precision
        self._dtype = DTYPES[precision]
        self._parameters = sum(parameter.numel() for parameter in model.parameters())
        model.visual = fast_tower(model.eval().visual, image_size=self.image_size, dtype=self._dtype, device=device)
        self._model = model.to(device)
        self._tokenizer = tokenizer
        self._folded = fold_normalisation(model, self.mean, self.std)
        self.logit_scale = float(model.logit_scale.detach().exp())
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = None if bias is None else float(bias.detach())
        self._mean = torch.tensor(self.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(self.std, device=device).view(1, 3, 1, 1)

    def identity(self, crop_mode: CropMode) -> ModelIdentity:
        """Return what identifies the features that this model gives of crops made in ``crop_mode``."""
        return ModelIdentity(
            architecture=self.architecture,
            weights_digest=self.weights_digest,
            image_size=self.image_size,
            precision=self.precision,
            crop_mode=crop_mode,
        )

    def encode_images(self, crops: npt.NDArray[np.uint8] | torch.Tensor) -> Features:
        """Return the L2-normalised features ``(N, D)`` float32 of ``(N, S, S, 3)`` uint8 RGB crops.

        Raises :class:`torch.OutOfMemoryError` when the device's memory does not suffice.
        """
        return self._encoded(self.image_tower, crops)

    def encode_tensors(self, tensors: npt.NDArray[np.float32] | torch.Tensor) -> Features:
        """Return the features of ``(N, 3, S, S)`` float32 images that :attr:`transform` has normalised."""
        return self._encoded(self.tensor_tower, tensors)

    def image_tower(self, crops: torch.Tensor) -> torch.Tensor:
        """Return what :meth:`encode_images` returns, for crops on the model's device, there; in inference mode."""
        pixels = crops.permute(0, 3, 1, 2)
        if self._folded is not None:
            return _normalised(self._folded.encode_image(pixels.to(self._dtype).sub_(MIDDLE)))
        values = pixels.to(torch.float32).div(255).sub_(self._mean).div_(self._std)
        return self.tensor_tower(values.contiguous())

    def tensor_tower(self, values: torch.Tensor) -> torch.Tensor:
        """Return what :meth:`encode_tensors` returns, for images on the model's device, there; in inference mode."""
        features: torch.Tensor = self._model.encode_image(values.to(self._dtype))
        return _normalised(features)

    def _encoded(self, tower: Callable[[torch.Tensor], torch.Tensor], images: Any) -> Features:
        if isinstance(images, np.ndarray):
            # PyTorch takes no array that cannot be written, though nothing is written here; batches can be.
            images = torch.from_numpy(np.require(images, requirements=["C", "W"]))
        with torch.inference_mode():
            array: Features = tower(images.to(self.device)).cpu().numpy()
        return array

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
                parts.append(_normalised(self._model.encode_text(tokens)).cpu().numpy())
        return np.concatenate(parts)

    def describe(self) -> dict[str, Any]:
        """Return what ``maskscore weights check`` shows: parameters, feature dimension, image size and so on."""
        return {
            "parameters": self._parameters,
            "feature_dimension": self.encode_texts(["a"]).shape[1],
            "image_size": self.image_size,
            "context_length": self.context_length,
            "logit_scale": self.logit_scale,
            **({} if self.logit_bias is None else {"logit_bias": self.logit_bias}),
            "stored_as": self.stored_as,
            "precision": f"fp32, unless MASKSCORE_PRECISION says bf16. {BF16_ERROR}",
        }

    def _count_tokens(self, text: str) -> int:
        if hasattr(self._tokenizer, "encode"):
            return len(self._tokenizer.encode(text)) + 2  # start and end
        own_marks = self._tokenizer.tokenizer_mode == "clips"  # start, end and class, added by open_clip
        encoded = self._tokenizer.tokenizer(self._tokenizer.clean_fn(text), add_special_tokens=not own_marks)
        return len(encoded["input_ids"]) + (3 if own_marks else 0)


def _normalised(features: torch.Tensor) -> torch.Tensor:
    features = features.float()
    lengths: torch.Tensor = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / lengths


def load_model(
    folder: Path, *, architecture: str, device: torch.device, precision: Literal["fp32", "bf16"] = "fp32"
) -> ClipModel:
    """Load the model of a folder; nothing is fetched from anywhere.

    The folder's own ``open_clip_config.json``, where it has one, goes before ``architecture`` (a name that open_clip
    knows). Raises :class:`~maskscore.errors.WeightsError` when the folder holds no weights, when they cannot be read,
    when a key is missing or too many or a tensor has another shape, when a value is not finite, or when the
    architecture could only be made with what is on a hub. Turns TF32 off for the whole process.
    """
    path = weights_file(folder)
    configured = (folder / CONFIG_FILE).is_file()
    # Asked by name only: for `hf-hub:…` open_clip would go to the hub.
    if not configured and architecture not in open_clip.list_models():
        raise WeightsError(
            f"open_clip knows no architecture {architecture!r}, and {folder} has no {CONFIG_FILE}. "
            "Correct MASKSCORE_MODEL; `python -c 'import open_clip; print(open_clip.list_models())'` lists the names."
        )
    config = _configuration_of(folder) if configured else open_clip.get_model_config(architecture)
    name = _name_of(config) if configured else architecture
    source = f"local-dir:{folder}" if configured else architecture
    own_tokenizer = _tokenizer_of(config, name, folder, configured=configured)
    # By default cuDNN rounds a convolution's inputs to TF32, so that "fp32" would not be true of the patch embedding.
    torch.backends.cudnn.allow_tf32 = False
    try:
        # open_clip says at every start that no pretrained weights are loaded: that is the point.
        logging.getLogger().addFilter(_without_open_clip)
        model = open_clip.create_model(
            source, pretrained=None, load_weights=False, pretrained_image=False, pretrained_text=False
        )
        tokenizer = open_clip.get_tokenizer(source, **own_tokenizer)
    except Exception as error:
        raise WeightsError(
            f"The architecture {name} of {folder} could not be made: {type(error).__name__}: {error}"
        ) from error
    finally:
        logging.getLogger().removeFilter(_without_open_clip)
    tensors = read_checkpoint(path)
    load_checkpoint(model, tensors, path, name)
    return ClipModel(
        model,
        tokenizer,
        architecture=name,
        weights_digest=digest_of(path),
        stored_as=dtypes_of(tensors),
        device=device,
        precision=precision,
    )


def _without_open_clip(record: logging.LogRecord) -> bool:
    return "open_clip" not in record.pathname or record.levelno >= logging.ERROR


def _configuration_of(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))["model_cfg"]
        if not all(isinstance(config[part], dict) for part in ("vision_cfg", "text_cfg")):
            raise TypeError("vision_cfg and text_cfg must be objects")
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder / CONFIG_FILE} is not an open_clip configuration (JSON with `model_cfg`): {error!r}."
        ) from error
    return dict(config)


def _name_of(config: dict[str, Any]) -> str:
    """Name a folder's own configuration: the open_clip architecture it equals, else its digest."""
    for name in open_clip.list_models():
        if open_clip.get_model_config(name) == config:
            return str(name)
    return "custom-" + hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def _tokenizer_of(config: dict[str, Any], name: str, folder: Path, *, configured: bool) -> dict[str, bool]:
    """Return the arguments with which open_clip makes the tokenizer without a network.

    open_clip would ask a hub for three things: a text tower's configuration, a timm model's, and a tokenizer. The
    first two are refused; the tokenizer is taken from the folder's own files, and none of the folder's code is run.
    """
    text, vision = config["text_cfg"], config["vision_cfg"]
    tower = text.get("hf_model_name")
    if tower and not Path(str(tower)).is_dir():
        raise WeightsError(
            f"The text tower of {name} is defined by {tower!r} on a hub, and a worker fetches nothing. Use an "
            "architecture whose text tower is open_clip's own."
        )
    if ":" in str(vision.get("timm_model_name", "")):
        raise WeightsError(
            f"The image tower of {name} is defined by {vision['timm_model_name']!r} on a hub, and a worker fetches "
            "nothing. Name timm's own architecture."
        )
    if not text.get("hf_tokenizer_name"):
        return {}
    if not configured or not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise WeightsError(
            f"The tokenizer of {name} is {text['hf_tokenizer_name']!r} from a hub, and a worker fetches nothing. Put "
            f"its files (tokenizer.json, tokenizer_config.json) and the model's {CONFIG_FILE} into {folder}."
        )
    return {"local_files_only": True, "trust_remote_code": False}
