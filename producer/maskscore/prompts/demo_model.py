"""The small demo model: it knows drawn shapes only, so prompts other than its own mean nothing to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from maskscore.prompts.prompt_library import builtin_names, load_builtin
from maskscore.schema import PromptSet

__all__ = ["DEMO_DIGEST", "DEMO_PROMPTS", "DEMO_WEIGHTS", "demo_warning"]

DEMO_DIGEST: Final = "sha256:5aada4e27ba64ce46a9e63c9094cd886c7286afe351d9655593de7c79c9696ec"
"""Digest of the demo model's weights, by which results and workers name them."""
DEMO_WEIGHTS: Final = "demo"
"""What ``--weights`` takes for the demo model, where there is no folder of this name."""
DEMO_PROMPTS: Final = "demo"
"""The name of the prompt set that it was trained for."""


def demo_warning(prompts: str | PromptSet, weights_digests: Iterable[str]) -> str | None:
    """Return a sentence where these prompts are asked of the demo model, and are not its own.

    ``weights_digests`` are those of the workers that may get the job: nothing is said where one has other weights, and
    nothing of a name that is not a built-in set's, whose prompts only the worker knows.
    """
    digests = set(weights_digests)
    if digests != {DEMO_DIGEST}:
        return None
    if isinstance(prompts, str):
        if prompts not in builtin_names():
            return None
        prompts = load_builtin(prompts)
    if set(prompts.texts) <= set(load_builtin(DEMO_PROMPTS).texts):
        return None
    return (
        f"The weights are those of the small demo model, which knows drawn shapes only: its scores for the prompts "
        f"{prompts.name!r} mean nothing. Use the prompt set {DEMO_PROMPTS!r} with it, or real weights "
        "(`maskscore weights pull DIR`)."
    )
