"""How many tokens a prompt has: by the architecture's own tokenizer where open_clip is installed, else about."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from maskscore.errors import SettingsError

__all__ = ["TokenCounter", "token_counter"]

_CLIP_CONTEXT: Final = 77
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


def token_counter(architecture: str) -> TokenCounter:
    """Return what counts the tokens of an open_clip architecture; fetches nothing.

    Raises :class:`~maskscore.errors.SettingsError` for an architecture that open_clip does not know.
    """
    if find_spec("open_clip") is None:
        return TokenCounter(_CLIP_CONTEXT, _estimate, "open_clip is not installed here")
    import open_clip

    if architecture not in open_clip.list_models():
        raise SettingsError(f"open_clip knows no architecture {architecture!r}. Correct MASKSCORE_MODEL, or --model.")
    text = open_clip.get_model_config(architecture)["text_cfg"]
    if text.get("hf_tokenizer_name"):
        context = int(text.get("context_length", _CLIP_CONTEXT))
        return TokenCounter(context, _estimate, f"the tokenizer of {architecture} is on a hub")
    tokenizer = open_clip.get_tokenizer(architecture)
    return TokenCounter(int(tokenizer.context_length), lambda prompt: len(tokenizer.encode(prompt)) + _MARKS)


def _estimate(text: str) -> int:
    return _MARKS + sum(math.ceil(len(piece) / _LETTERS_PER_TOKEN) for piece in _PIECES.findall(text))
