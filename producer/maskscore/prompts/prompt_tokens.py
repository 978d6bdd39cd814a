"""The number of tokens of a prompt: exact with the worker package's tokenizer, else estimated."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from maskscore.worker_entry_points import worker_part

__all__ = ["CLIP_CONTEXT", "TokenCounter", "estimate_tokens", "token_counter"]

CLIP_CONTEXT: Final = 77
_MARKS: Final = 2  # start and end
# Byte-pair encodings know the usual English words whole, and cut the rest into pieces of some letters.
_LETTERS_PER_TOKEN: Final = 8
_PIECES: Final = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """``count`` of a text includes the marks of its start and end; ``why_estimated`` is ``None`` where it is exact."""

    context_length: int
    count: Callable[[str], int]
    why_estimated: str | None = None


def token_counter(architecture: str, weights: Path | None = None, pretrained: str | None = None) -> TokenCounter:
    """Return what counts the tokens of the model in the folder ``weights``, else of an open_clip architecture.

    ``pretrained`` is the tag of these weights, for a folder that states no preprocessing. Fetches nothing.

    Raises :class:`~maskscore.errors.SettingsError` for an architecture that open_clip does not know.
    """
    try:
        of_architecture = worker_part("token-counter")
    except ModuleNotFoundError as error:
        return TokenCounter(CLIP_CONTEXT, estimate_tokens, f"{error.name} is not installed here")
    counter: TokenCounter = of_architecture(architecture, weights, pretrained)
    return counter


def estimate_tokens(text: str) -> int:
    """Return about how many tokens CLIP's own tokenizer would make of a text, its marks included."""
    return _MARKS + sum(math.ceil(len(piece) / _LETTERS_PER_TOKEN) for piece in _PIECES.findall(text))
