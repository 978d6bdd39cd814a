"""What a folder of weights is of: the open_clip configuration, its name, and the weights' preprocessing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip

from maskscore.errors import WeightsError
from maskscore_worker.weights import (
    ARCHITECTURE_KEY,
    CONFIG_FILE,
    Preprocessing,
    clean_tag,
    find_pretrained,
    preprocessing_of,
    tags_of,
)

__all__ = ["Configuration", "read_configuration"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Configuration:
    """An open_clip model, without its weights.

    Parameters
    ----------
    name: the open_clip architecture that it equals, else ``custom-`` and a digest.
    model: open_clip's ``model_cfg``.
    source: what open_clip makes the model of: ``local-dir:FOLDER``, or the name of an architecture.
    preprocessing: what open_clip cannot know from ``source``: the preprocessing of a folder that states none.
    """

    name: str
    model: dict[str, Any]
    source: str
    preprocessing: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_configuration(folder: Path, *, architecture: str, pretrained: str | None = None) -> Configuration:
    """Return the configuration of a folder, else of ``architecture`` with the weights whose tag is ``pretrained``.

    Raises :class:`~maskscore.errors.WeightsError` where there is no such architecture or tag, where the file is no
    configuration or contradicts the tag, and where a tower is defined on a hub; and
    :class:`~maskscore.errors.PretrainedUnset` where the preprocessing cannot be known without a tag.
    """
    if (folder / CONFIG_FILE).is_file():
        found = _of_folder(folder, architecture, pretrained)
    else:
        found = _of_architecture(folder, architecture, pretrained)
    _refuse_hub_towers(found)
    return found


def _of_folder(folder: Path, architecture: str, pretrained: str | None) -> Configuration:
    path = folder / CONFIG_FILE
    try:
        document = json.loads(path.read_text("utf-8"))
        model = dict(document["model_cfg"])
        stated = dict(document.get("preprocess_cfg") or {})
        if not all(isinstance(model[part], dict) for part in ("vision_cfg", "text_cfg")):
            raise TypeError("vision_cfg and text_cfg must be objects")
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is not an open_clip configuration (JSON with `model_cfg`): {error!r}.") from error
    name = _name_of(model, stated=(document.get(ARCHITECTURE_KEY), architecture), tag=pretrained)
    source = f"local-dir:{folder}"
    if not stated:
        return Configuration(name, model, source, _preprocessing(name, pretrained))
    if pretrained is not None and tags_of(name):
        own = dataclasses.asdict(preprocessing_of(name, pretrained))
        different = [key for key, value in own.items() if key in stated and _plain(stated[key]) != _plain(value)]
        if different:
            raise WeightsError(
                f"{path} and the tag {pretrained!r} contradict each other in {', '.join(different)}. Unset "
                "MASKSCORE_PRETRAINED, or remove the file if it is not of these weights."
            )
    return Configuration(name, model, source)


def _of_architecture(folder: Path, architecture: str, pretrained: str | None) -> Configuration:
    # Asked by name only: for `hf-hub:…` open_clip would go to the hub.
    if architecture not in open_clip.list_models():
        raise WeightsError(
            f"open_clip knows no architecture {architecture!r}, and {folder} has no {CONFIG_FILE}. "
            "Correct MASKSCORE_MODEL; `python -c 'import open_clip; print(open_clip.list_models())'` lists the names."
        )
    preprocessing = _preprocessing(architecture, pretrained)
    model = open_clip.get_model_config(architecture)
    quick_gelu = [row.tag for row in tags_of(architecture) if row.quick_gelu]
    if pretrained is not None and find_pretrained(f"{architecture}:{pretrained}").quick_gelu:
        model["quick_gelu"] = True
        architecture = _name_of(model)
    elif pretrained is None and quick_gelu and not model.get("quick_gelu"):
        log.warning(
            "%s has no %s, and is taken for %s without QuickGELU. If its weights are %s, set MASKSCORE_PRETRAINED to "
            "that tag",
            folder,
            CONFIG_FILE,
            architecture,
            " or ".join(quick_gelu),
        )
    return Configuration(architecture, model, architecture, preprocessing)


def _preprocessing(architecture: str, pretrained: str | None) -> dict[str, Any]:
    if not tags_of(architecture) and pretrained is None:
        log.warning(
            "the preprocessing of the weights of %s is not known, and open_clip's default is taken: %s. Their %s would "
            "state it, as preprocess_cfg",
            architecture,
            Preprocessing(),
            CONFIG_FILE,
        )
    return dataclasses.asdict(preprocessing_of(architecture, pretrained))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _name_of(model: dict[str, Any], *, stated: Iterable[str | None] = (), tag: str | None = None) -> str:
    """Name a configuration: the open_clip architecture that it equals, else its digest.

    Of several that it equals (MobileCLIP-B and MobileCLIP2-B) it is one that is ``stated``, else one with the tag.
    """
    names = [str(name) for name in open_clip.list_models() if open_clip.get_model_config(name) == model]
    tagged = [name for name in names if tag and clean_tag(tag) in {row.tag for row in tags_of(name)}]
    for name in [*(name for name in stated if name in names), *tagged, *names]:
        return str(name)
    return "custom-" + hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()[:12]


def _refuse_hub_towers(found: Configuration) -> None:
    """Refuse towers for whose definition open_clip would ask a hub."""
    tower = found.model["text_cfg"].get("hf_model_name")
    if tower and not Path(str(tower)).is_dir():
        raise WeightsError(
            f"The text tower of {found.name} is defined by {tower!r} on a hub, and a worker fetches nothing. Use an "
            "architecture whose text tower is open_clip's own."
        )
    tower = found.model["vision_cfg"].get("timm_model_name", "")
    if ":" in str(tower):
        raise WeightsError(
            f"The image tower of {found.name} is defined by {tower!r} on a hub, and a worker fetches nothing. Name "
            "timm's own architecture."
        )
