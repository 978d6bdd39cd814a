"""Weights: the table of open_clip's, folders of them, and fetching one from the Hugging Face hub.

Nothing loads PyTorch here. ``download``, which needs the hub's library, is found by its entry point alone
(``maskscore weights pull``).
"""

from __future__ import annotations

from maskscore_worker.weights.folder import (
    CONFIG_FILE,
    VOCABULARIES,
    digest_of,
    has_tokenizer,
    weights_file,
)
from maskscore_worker.weights.pretrained import (
    ARCHITECTURE_KEY,
    Preprocessing,
    Pretrained,
    clean_tag,
    find_pretrained,
    preprocessing_of,
    pretrained_models,
    tags_of,
)

__all__ = [
    "ARCHITECTURE_KEY",
    "CONFIG_FILE",
    "VOCABULARIES",
    "Preprocessing",
    "Pretrained",
    "clean_tag",
    "digest_of",
    "find_pretrained",
    "has_tokenizer",
    "preprocessing_of",
    "pretrained_models",
    "tags_of",
    "weights_file",
]
