"""Weights folders: fetching one from the Hugging Face hub, and saying what one holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from maskscore.errors import WeightsError
from maskscore_worker.model import CONFIG_FILE, digest_of, load_model, weights_file

__all__ = ["DEFAULT_REPO", "WeightsReport", "check", "pull"]

DEFAULT_REPO = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """What a folder holds; ``details`` is the model's own description (parameters, image size, …)."""

    file: Path
    size: int
    digest: str
    architecture: str
    details: dict[str, Any]


def pull(folder: Path, *, repo: str = DEFAULT_REPO, revision: str | None = None) -> str:
    """Fetch a model's weights and configuration into ``folder`` and return the weights' digest (``sha256:…``).

    Progress is shown by huggingface_hub's own bars, on stderr. A download that was cut off goes on where it stopped
    when this is called again. The digest is checked against the hub's. Raises
    :class:`~maskscore.errors.WeightsError` when the hub cannot be reached, has no such file, or the digest differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        hf_hub_download(repo, CONFIG_FILE, revision=revision, local_dir=folder)
        name = "open_clip_model.safetensors"
        try:
            path = Path(hf_hub_download(repo, name, revision=revision, local_dir=folder))
        except EntryNotFoundError:
            name = "open_clip_pytorch_model.bin"
            path = Path(hf_hub_download(repo, name, revision=revision, local_dir=folder))
        expected = get_hf_file_metadata(hf_hub_url(repo, name, revision=revision)).etag
    # The library's HTTP client, and with it the errors, differ between its releases.
    except Exception as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise WeightsError(f"{repo} on the hub is not an open_clip model: {_first_line(error)}") from error
        raise WeightsError(
            f"The hub ({os.environ.get('HF_ENDPOINT', 'Hugging Face')}) could not be reached, or refused: "
            f"{_first_line(error)} Run the command again to go on where it stopped; where there is no network, copy "
            f"{CONFIG_FILE} and open_clip_model.safetensors of {repo} into {folder} from a machine that has one."
        ) from error
    digest = digest_of(path)
    # Large files are addressed by their SHA-256; anything else (a git blob's id) cannot be compared.
    if expected and len(expected) == 64 and digest != f"sha256:{expected}":
        path.unlink()
        raise WeightsError(
            f"{path} has the digest {digest}, but the hub names sha256:{expected}; the file was removed. Pull again."
        )
    return digest


def check(folder: Path, *, architecture: str) -> WeightsReport:
    """Load the folder's model on the CPU, strictly, and say what it is.

    Raises :class:`~maskscore.errors.WeightsError` as :func:`~maskscore_worker.model.load_model` does.
    """
    path = weights_file(folder)
    model = load_model(folder, architecture=architecture, device=torch.device("cpu"))
    return WeightsReport(path, path.stat().st_size, model.weights_digest, model.architecture, model.describe())


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."
