"""Prompt sets from YAML: those that come with the package, files, checks, and what the demo model knows."""

from __future__ import annotations

from maskscore.prompts.demo_model import DEMO_PROMPTS, DEMO_WEIGHTS, demo_warning
from maskscore.prompts.prompt_checks import Balance, check_prompts, groups_of, weigh
from maskscore.prompts.prompt_library import builtin_names, find_prompt_set, load_builtin, prompt_sets, read_prompt_set
from maskscore.prompts.prompt_tokens import CLIP_CONTEXT, TokenCounter, estimate_tokens, token_counter

__all__ = [
    "CLIP_CONTEXT",
    "DEMO_PROMPTS",
    "DEMO_WEIGHTS",
    "Balance",
    "TokenCounter",
    "builtin_names",
    "check_prompts",
    "demo_warning",
    "estimate_tokens",
    "find_prompt_set",
    "groups_of",
    "load_builtin",
    "prompt_sets",
    "read_prompt_set",
    "token_counter",
    "weigh",
]
