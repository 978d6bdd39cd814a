"""A folder of weights, as open_clip publishes it: the names of its files, and the digest of one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from maskscore.errors import WeightsError

__all__ = [
    "CONFIG_FILE",
    "PICKLED",
    "SAFETENSORS",
    "TOKENIZER_SETTINGS",
    "VOCABULARIES",
    "digest_of",
    "has_tokenizer",
    "weights_file",
]

CONFIG_FILE: Final = "open_clip_config.json"
SAFETENSORS: Final = "open_clip_model.safetensors"
PICKLED: Final = "open_clip_pytorch_model.bin"

# As transformers saves tokenizers: all in one file; of SentencePiece; of WordPiece; of byte pairs.
VOCABULARIES: Final = (
    "tokenizer.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
)
# What goes with them, where there is such a file: the kind and its options, special tokens, and byte pairs.
TOKENIZER_SETTINGS: Final = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")


def weights_file(folder: Path) -> Path:
    """Return the folder's weights file, safetensors first. Raises :class:`~maskscore.errors.WeightsError`."""
    for name in (SAFETENSORS, PICKLED):
        if (folder / name).is_file():
            return folder / name
    what, other = ("holds neither", "nor") if folder.is_dir() else ("is not a folder; it should hold", "or")
    raise WeightsError(
        f"{folder} {what} {SAFETENSORS} {other} {PICKLED}. `maskscore weights pull {folder}` fetches ViT-B-32's, "
        f"`maskscore weights pull NAME:TAG {folder}` others."
    )


def has_tokenizer(folder: Path) -> bool:
    """Return whether the folder holds the files of a tokenizer of its own."""
    return any((folder / name).is_file() for name in VOCABULARIES)


def digest_of(path: Path) -> str:
    """Return ``sha256:…`` of a file."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
