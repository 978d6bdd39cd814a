"""Tokenizers of open_clip models, made without a network, and the number of tokens that they make of a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from maskscore.errors import SettingsError, WeightsError
from maskscore.prompts import CLIP_CONTEXT, TokenCounter, estimate_tokens
from maskscore_worker.model.configuration import Configuration, read_configuration
from maskscore_worker.weights import CONFIG_FILE, VOCABULARIES, has_tokenizer

__all__ = ["count_tokens", "load_tokenizer", "missing_tokenizer", "token_counter"]

_MARKS = 2  # start and end


def missing_tokenizer(found: Configuration, folder: Path) -> str | None:
    """Say which files the folder lacks for the model's tokenizer; ``None`` where it has them or needs none."""
    name = found.model["text_cfg"].get("hf_tokenizer_name")
    if not name or has_tokenizer(folder):
        return None
    return (
        f"The tokenizer of {found.name} is {name!r} from a hub, and a worker fetches nothing. Put its files "
        f"({VOCABULARIES[0]}, tokenizer_config.json) into {folder}; `maskscore weights pull` fetches them, too."
    )


def load_tokenizer(found: Configuration, folder: Path) -> Any:
    """Return open_clip's tokenizer of a model: CLIP's own, or the one whose files are in ``folder``.

    None of the folder's code is run. Raises :class:`~maskscore.errors.WeightsError` where its files are missing or
    cannot be read.
    """
    text = found.model["text_cfg"]
    context_length = int(text.get("context_length", CLIP_CONTEXT))
    options = dict(text.get("tokenizer_kwargs") or {})
    if not text.get("hf_tokenizer_name"):
        return SimpleTokenizer(context_length=context_length, **options)
    if missing := missing_tokenizer(found, folder):
        raise WeightsError(missing)
    options |= {"local_files_only": True, "trust_remote_code": False}
    try:
        return HFTokenizer(
            str(folder), context_length=context_length, tokenizer_mode=text.get("tokenizer_mode"), **options
        )
    except Exception as error:
        raise WeightsError(
            f"The tokenizer in {folder} cannot be read: {type(error).__name__}: {error} Fetch its files again with "
            "`maskscore weights pull`."
        ) from error


def count_tokens(tokenizer: Any, text: str) -> int:
    """Return how many places of the context a text takes, those of the marks that the tokenizer adds included."""
    if hasattr(tokenizer, "encode"):
        return len(tokenizer.encode(text)) + _MARKS
    own_marks = tokenizer.tokenizer_mode == "clips"  # start, end and class, added by open_clip
    encoded = tokenizer.tokenizer(tokenizer.clean_fn(text), add_special_tokens=not own_marks)
    return len(encoded["input_ids"]) + (3 if own_marks else 0)


def token_counter(architecture: str, folder: Path | None = None, pretrained: str | None = None) -> TokenCounter:
    """Return what counts the tokens of the model of a folder of weights, else of an open_clip architecture.

    ``pretrained`` is the tag of the folder's weights. A tokenizer whose files are not in the folder is estimated.
    Raises :class:`~maskscore.errors.SettingsError` for an architecture that open_clip does not know, and
    :class:`~maskscore.errors.WeightsError` for a folder that no worker would take.
    """
    if folder is not None and (folder / CONFIG_FILE).is_file():
        found = read_configuration(folder, architecture=architecture, pretrained=pretrained)
    elif architecture in open_clip.list_models():
        found = Configuration(architecture, open_clip.get_model_config(architecture), architecture)
    else:
        raise SettingsError(f"open_clip knows no architecture {architecture!r}. Correct MASKSCORE_MODEL, or --model.")
    text = found.model["text_cfg"]
    if text.get("hf_tokenizer_name") and (folder is None or not has_tokenizer(folder)):
        where = "on a hub" if folder is None else f"not in {folder}"
        context = int(text.get("context_length", CLIP_CONTEXT))
        return TokenCounter(context, estimate_tokens, f"the tokenizer of {found.name} is {where}")
    tokenizer = load_tokenizer(found, folder or Path())
    return TokenCounter(int(tokenizer.context_length), lambda prompt: count_tokens(tokenizer, prompt))
