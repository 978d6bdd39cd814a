"""The weights that open_clip lists (its ``pretrained.py``), with what is published of them; from ``pretrained.json``.

The table is a file because open_clip's own cannot be read without importing PyTorch; ``tests/pretrained_table.py``
writes it, and a test compares it with the installed open_clip. Architectures are read from open_clip's own files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

from maskscore.errors import PretrainedUnset, WeightsError
from maskscore.text import did_you_mean

__all__ = [
    "ARCHITECTURE_KEY",
    "Preprocessing",
    "Pretrained",
    "architecture_config",
    "clean_tag",
    "find_pretrained",
    "open_clip_config",
    "preprocessing_of",
    "pretrained_models",
    "tags_of",
]

_TABLE: Final = Path(__file__).with_name("pretrained.json")
_QUICK_GELU: Final = "-quickgelu"
# Of ``PreprocessCfg``, open_clip/transform.py.
_OPENAI_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_OPENAI_STD: Final = (0.26862954, 0.26130258, 0.27577711)

ARCHITECTURE_KEY: Final = "architecture"

CropPath = Literal["fast", "none"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the model's input, in open_clip's words; ``mean`` and ``std`` of values from 0 to 1, RGB."""

    mean: tuple[float, ...] = _OPENAI_MEAN
    std: tuple[float, ...] = _OPENAI_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{self.resize_mode} {self.interpolation}, mean {mean}, std {std}"


@dataclass(frozen=True, slots=True)
class Pretrained:
    """One row of the table.

    Parameters
    ----------
    hub: repository on the Hugging Face hub, ``owner/name``, with ``/FILE`` where its weights have a name of their own.
    mparams: parameters of both towers, in millions.
    gflops: of the image tower for one crop (a multiplication and an addition are two), in 10⁹; ``counted`` says that
        they were counted for this table, where open_clip publishes none.
    imagenet: zero-shot top-1 accuracy on ImageNet-1k, 0 to 1, as open_clip publishes it; ``None`` where it does not.
    licence: of the weights, lower-case SPDX or the hub's name, and who says so; ``None`` where nothing was found.
    own_text_tower: ``False`` where the text tower is defined on a hub, which no worker asks.
    """

    architecture: str
    tag: str
    hub: str
    quick_gelu: bool
    preprocessing: Preprocessing
    image_size: int
    mparams: float
    gflops: float
    counted: bool
    imagenet: float | None
    licence: str | None
    licence_from: str | None
    own_text_tower: bool

    @property
    def name(self) -> str:
        """``ARCHITECTURE:TAG``, as ``maskscore weights pull`` takes it."""
        return f"{self.architecture}:{self.tag}"

    @property
    def path(self) -> CropPath:
        """How a worker makes this model's crops: all of open_clip's are ``fast``; ``none``: it cannot serve it."""
        return "fast" if self.own_text_tower else "none"


@cache
def pretrained_models() -> tuple[Pretrained, ...]:
    """Return every row, in open_clip's order. Copies under ``…-quickgelu`` are left out."""
    table = json.loads(_TABLE.read_text("utf-8"))
    rows = []
    for row in table["tags"]:
        keys = ("mean", "std", "interpolation", "resize_mode")
        values: dict[str, Any] = {key: tuple(row[key]) if isinstance(row[key], list) else row[key] for key in keys}
        others = {key: value for key, value in row.items() if key not in keys}
        rows.append(
            Pretrained(preprocessing=Preprocessing(**values), **others, **table["architectures"][row["architecture"]])
        )
    return tuple(rows)


def tags_of(architecture: str) -> tuple[Pretrained, ...]:
    """Return the rows of an architecture; of one named ``…-quickgelu``, those that use that activation."""
    rows = pretrained_models()
    found = tuple(row for row in rows if row.architecture == architecture)
    if not found and architecture.endswith(_QUICK_GELU):
        plain = architecture.removesuffix(_QUICK_GELU)
        found = tuple(row for row in rows if row.architecture == plain and row.quick_gelu)
    return found


def find_pretrained(name: str) -> Pretrained:
    """Return the row that ``ARCHITECTURE`` or ``ARCHITECTURE:TAG`` names; the first, where it has one tag alone.

    Raises :class:`~maskscore.errors.WeightsError` that names what there is.
    """
    architecture, _, tag = name.partition(":")
    rows = tags_of(architecture)
    if not rows:
        known = {row.architecture for row in pretrained_models()}
        raise WeightsError(
            f"open_clip lists no weights of {architecture!r}{did_you_mean(architecture, known)}. "
            "`maskscore weights list` shows what there is. Other repositories of the hub are fetched with --repo."
        )
    if not tag and len(rows) == 1:
        return rows[0]
    for row in rows:
        if row.tag == clean_tag(tag):
            return row
    what = f"has no weights {tag!r}" if tag else "has several weights"
    raise WeightsError(f"{architecture} {what}; name one of {_named(rows)}, as in {rows[0].name}.")


def preprocessing_of(architecture: str, tag: str | None) -> Preprocessing:
    """Return the preprocessing of an architecture's weights, by their tag, or where all its weights have the same.

    Of an architecture without published weights it is open_clip's default. Raises
    :class:`~maskscore.errors.PretrainedUnset` where ``tag`` is ``None`` and the weights differ, and
    :class:`~maskscore.errors.WeightsError` where there is no such tag.
    """
    rows = tags_of(architecture)
    if tag is not None:
        return find_pretrained(f"{architecture}:{tag}").preprocessing
    different = {row.preprocessing for row in rows}
    if len(different) > 1:
        choices = "; ".join(
            f"{_named([row for row in rows if row.preprocessing == each])}: {each}"
            for each in sorted(different, key=str)
        )
        raise PretrainedUnset(
            f"The preprocessing of {architecture} depends on the weights ({choices}). Set MASKSCORE_PRETRAINED to the "
            "tag of yours, or put their open_clip_config.json into the folder; "
            f"`maskscore weights pull {architecture}:TAG DIR` fetches both."
        )
    return next(iter(different), Preprocessing())


def architecture_config(architecture: str) -> dict[str, Any]:
    """Return open_clip's configuration (``model_cfg``) of an architecture, from the installed package's files.

    Raises :class:`~maskscore.errors.WeightsError` where there is none.
    """
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'open_clip'", name="open_clip")
    path = Path(spec.origin).with_name("model_configs") / f"{architecture}.json"
    if not path.is_file():
        raise WeightsError(f"The installed open_clip has no architecture {architecture!r}. Install a newer one.")
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return config


def open_clip_config(row: Pretrained) -> Mapping[str, Any]:
    """Return what ``open_clip_config.json`` says of these weights: ``model_cfg`` and their own ``preprocess_cfg``.

    The architecture's name is added to what open_clip reads, because some have equal configurations.
    """
    model = architecture_config(row.architecture)
    if row.quick_gelu:
        model["quick_gelu"] = True
    preprocessing = {
        "size": row.image_size,
        "mode": "RGB",
        "mean": list(row.preprocessing.mean),
        "std": list(row.preprocessing.std),
        "interpolation": row.preprocessing.interpolation,
        "resize_mode": row.preprocessing.resize_mode,
        "fill_color": 0,
    }
    return {ARCHITECTURE_KEY: row.architecture, "model_cfg": model, "preprocess_cfg": preprocessing}


def clean_tag(tag: str) -> str:
    """Return a tag as open_clip's table has it: lower case, with underscores."""
    return tag.lower().replace("-", "_")


def _named(rows: tuple[Pretrained, ...] | list[Pretrained]) -> str:
    return ", ".join(row.tag for row in rows)
