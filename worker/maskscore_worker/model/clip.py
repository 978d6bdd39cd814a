"""The CLIP model: a weights folder → features of crops and prompts. The only module that makes open_clip models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch

from maskscore.errors import FailureCode, JobError, WeightsError
from maskscore.imaging import ClipTransform
from maskscore.schema import ModelIdentity, ResizeUsed
from maskscore.settings import CropMode
from maskscore_worker.model.checkpoint import dtypes_of, load_checkpoint, read_checkpoint
from maskscore_worker.model.configuration import read_configuration
from maskscore_worker.model.cpu_kernels import count_rounded
from maskscore_worker.model.fast_tower import fast_tower
from maskscore_worker.model.folding import MIDDLE, fold_normalisation
from maskscore_worker.model.layer_trace import noted_largest
from maskscore_worker.model.precision import BF16_ERROR, DTYPES, ImagePrecision
from maskscore_worker.model.preprocessing import ModelTransform, normalise, read_preprocessing
from maskscore_worker.model.tokens import count_tokens, load_tokenizer
from maskscore_worker.weights import digest_of, weights_file

__all__ = ["ClipModel", "load_model"]

log = logging.getLogger(__name__)

_TEXTS_PER_FORWARD = 256

Features = npt.NDArray[np.float32]
Probe = Callable[["ClipModel"], npt.NDArray[np.float32]]


class ClipModel:
    """A loaded model on its device. Made by :func:`load_model`.

    ``preprocessing`` says how a crop becomes what the image tower takes. ``stored_as`` names the types of the file's
    tensors (``float16``); ``precision`` is what the image tower computes in, whatever they are. Texts are encoded in
    fp32, and features are normalised in it. ``logit_bias`` is a SigLIP model's, else ``None``.
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
        precision: ImagePrecision,
        probe: Probe | None = None,
        plain: bool = False,
    ) -> None:
        self.preprocessing = preprocessing = read_preprocessing(model.visual.preprocess_cfg, architecture)
        self.architecture = architecture
        self.weights_digest = weights_digest
        self.stored_as = stored_as
        self.device = device
        self.image_size = preprocessing.known.size
        self.context_length = int(tokenizer.context_length)
        self.precision = precision
        self._dtype = DTYPES[precision]
        self._parameters = sum(parameter.numel() for parameter in model.parameters())
        # Before anything is moved or replaced: what open_clip's own layers compute on the CPU.
        self.plain_features: Features | None = None
        self.largest_value = 0.0
        """Largest absolute value of a layer's output in that forward."""
        if probe is not None:
            images = torch.from_numpy(probe(self))
            with torch.inference_mode(), noted_largest(model.eval().visual) as largest:
                self.plain_features = _normalised(model.encode_image(images)).numpy()
            self.largest_value = largest()
        tower = model.eval().visual
        if plain:
            model.visual = tower.to(device=device, dtype=self._dtype)
        else:
            model.visual = fast_tower(
                tower, image_size=self.image_size, dtype=self._dtype, device=device, mixed=precision == "mixed"
            )
        self.rounded_layers = count_rounded(model.visual)
        """Layers of the image tower whose factors are rounded to bf16, as ``mixed`` does."""
        self._model = model.to(device)
        self._tokenizer = tokenizer
        self._folded = None if plain else fold_normalisation(model, preprocessing.mean, preprocessing.std)
        self.logit_scale = float(model.logit_scale.detach().exp())
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = None if bias is None else float(bias.detach())
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)

    def identity(self, crop_mode: CropMode) -> ModelIdentity:
        """Return what identifies the features that this model gives of crops made in ``crop_mode``."""
        known = self.preprocessing.known
        resize = ResizeUsed(mode=known.resize_mode, interpolation=known.interpolation, fill=known.fill)
        return ModelIdentity(
            architecture=self.architecture,
            weights_digest=self.weights_digest,
            image_size=self.image_size,
            precision=self.precision,
            crop_mode=crop_mode,
            crop_mode_reason=self.preprocessing.foreign,
            resize=None if known == ClipTransform(known.size) else resize,
        )

    def encode_images(self, crops: npt.NDArray[np.uint8] | torch.Tensor) -> Features:
        """Return the L2-normalised features ``(N, D)`` float32 of ``(N, S, S, 3)`` uint8 RGB crops.

        Raises :class:`torch.OutOfMemoryError` when the device's memory does not suffice.
        """
        return self._encoded(self.image_tower, crops)

    def encode_tensors(self, tensors: npt.NDArray[np.float32] | torch.Tensor) -> Features:
        """Return the features of ``(N, 3, S, S)`` float32 images that open_clip's transform has normalised."""
        return self._encoded(self.tensor_tower, tensors)

    def image_tower(self, crops: torch.Tensor) -> torch.Tensor:
        """Return what :meth:`encode_images` returns, for crops on the model's device, there; in inference mode."""
        pixels = crops.permute(0, 3, 1, 2)
        if self._folded is not None:
            return _normalised(self._folded.encode_image(pixels.to(self._dtype).sub_(MIDDLE)))
        return self.tensor_tower(normalise(pixels, self._mean, self._std).contiguous())

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
            tokens = count_tokens(self._tokenizer, text)
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
            "resize": str(self.preprocessing.known),
            "mean_and_std": _listed(self.preprocessing),
            "crops": "reference" if self.preprocessing.foreign else "fast",
            "context_length": self.context_length,
            "logit_scale": self.logit_scale,
            **({} if self.logit_bias is None else {"logit_bias": self.logit_bias}),
            "stored_as": self.stored_as,
            "precision": f"fp32, unless MASKSCORE_PRECISION says otherwise. {BF16_ERROR}",
        }


def _normalised(features: torch.Tensor) -> torch.Tensor:
    features = features.float()
    lengths: torch.Tensor = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / lengths


def _listed(preprocessing: ModelTransform) -> str:
    return "; ".join(" ".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))


def load_model(
    folder: Path,
    *,
    architecture: str,
    device: torch.device,
    pretrained: str | None = None,
    precision: ImagePrecision = "fp32",
    probe: Probe | None = None,
    plain: bool = False,
) -> ClipModel:
    """Load the model of a folder; nothing is fetched from anywhere.

    The folder's own ``open_clip_config.json``, where it has one, goes before ``architecture`` (a name that open_clip
    knows). Raises :class:`~maskscore.errors.WeightsError` when the folder holds no weights, when they cannot be read,
    when a key is missing or too many or a tensor has another shape, when a value is not finite, or when the
    architecture could only be made with what is on a hub. Turns TF32 off for the whole process.

    ``probe`` is given the model and returns normalised images, ``(N, 3, S, S)`` float32, whose features
    :attr:`ClipModel.plain_features` keeps: those of open_clip's own layers, on the CPU in fp32. ``plain`` leaves these
    layers what they are, instead of replacing them by faster ones.
    """
    path = weights_file(folder)
    configuration = read_configuration(folder, architecture=architecture, pretrained=pretrained)
    name = configuration.name
    tokenizer = load_tokenizer(configuration, folder)
    # By default cuDNN rounds a convolution's inputs to TF32, so that "fp32" would not be true of the patch embedding.
    torch.backends.cudnn.allow_tf32 = False
    try:
        # open_clip says at every start that no pretrained weights are loaded: that is the point.
        logging.getLogger().addFilter(_without_open_clip)
        model = open_clip.create_model(
            configuration.source,
            pretrained=None,
            load_weights=False,
            pretrained_image=False,
            pretrained_text=False,
            force_quick_gelu=bool(configuration.model.get("quick_gelu")),
            force_preprocess_cfg=configuration.preprocessing,
        )
    except Exception as error:
        raise WeightsError(
            f"The architecture {name} of {folder} could not be made: {type(error).__name__}: {error}"
        ) from error
    finally:
        logging.getLogger().removeFilter(_without_open_clip)
    tensors = read_checkpoint(path)
    load_checkpoint(model, tensors, path, name)
    stored_as = dtypes_of(tensors)
    del tensors  # before packing takes memory, too
    return ClipModel(
        model,
        tokenizer,
        architecture=name,
        weights_digest=digest_of(path),
        stored_as=stored_as,
        device=device,
        precision=precision,
        probe=probe,
        plain=plain,
    )


def _without_open_clip(record: logging.LogRecord) -> bool:
    return "open_clip" not in record.pathname or record.levelno >= logging.ERROR
