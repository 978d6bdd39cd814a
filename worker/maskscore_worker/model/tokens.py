"""Counting tokens by an architecture's own tokenizer, without its weights."""

from __future__ import annotations

import open_clip

from maskscore.errors import SettingsError
from maskscore.prompts import CLIP_CONTEXT, TokenCounter, estimate_tokens

__all__ = ["token_counter"]

_MARKS = 2  # start and end


def token_counter(architecture: str) -> TokenCounter:
    """Return what counts the tokens of an open_clip architecture; one whose tokenizer is on a hub is estimated.

    Raises :class:`~maskscore.errors.SettingsError` for an architecture that open_clip does not know.
    """
    if architecture not in open_clip.list_models():
        raise SettingsError(f"open_clip knows no architecture {architecture!r}. Correct MASKSCORE_MODEL, or --model.")
    text = open_clip.get_model_config(architecture)["text_cfg"]
    if text.get("hf_tokenizer_name"):
        context = int(text.get("context_length", CLIP_CONTEXT))
        return TokenCounter(context, estimate_tokens, f"the tokenizer of {architecture} is on a hub")
    tokenizer = open_clip.get_tokenizer(architecture)
    return TokenCounter(int(tokenizer.context_length), lambda prompt: len(tokenizer.encode(prompt)) + _MARKS)
