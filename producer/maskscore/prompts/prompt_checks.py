"""Checks of a prompt set, and how the number of its prompts shifts the sums."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from maskscore.prompts.prompt_tokens import TokenCounter
from maskscore.schema import PromptSet, Thresholds, explain

__all__ = ["Balance", "Problem", "check_prompts", "find_repeated", "find_too_long", "groups_of", "weigh"]

GROUPS: Final = ("positive", "negative", "neutral")
_ARTICLE: Final = re.compile(r"^(an?|the) (?=.)")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to correct; ``code`` is stable, ``prompts`` are those that it is about."""

    code: str
    sentence: str
    prompts: tuple[str, ...] = ()


def groups_of(fields: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the prompts of each group as far as they are texts, also of a set that is not valid."""
    groups = {}
    for group in GROUPS:
        prompts = fields.get(group)
        if isinstance(prompts, list | tuple):
            groups[group] = tuple(prompt for prompt in prompts if isinstance(prompt, str))
    return groups


def check_prompts(fields: Mapping[str, Any], counter: TokenCounter) -> list[Problem]:
    """Return what is wrong with a set's fields, as they are in its file."""
    problems = find_repeated(groups_of(fields))
    try:
        valid = PromptSet.model_validate(fields)
        # What the model reads: a prompt may stand for several sentences.
        texts = tuple(sentence for prompt in valid.texts for sentence in valid.sentences_of(prompt))
    except ValidationError as error:
        # Blank and repeated prompts make a set invalid, too, and are told already.
        if not any(problem.code in ("blank", "repeated") for problem in problems):
            problems.append(Problem("invalid", f"The set is not valid: {explain(error)}."))
        texts = tuple(prompt for prompts in groups_of(fields).values() for prompt in prompts)
    return problems + find_too_long(texts, counter)


def find_repeated(groups: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Return the blank prompts and those that are there more than once, in one group or in several.

    ``repeated`` are equal; ``repeated_but_for_case`` are the same to a tokenizer, which looks neither at case nor at
    the number of spaces; ``repeated_but_for_article`` differ in `a`, `an` or `the` alone, and count nearly twice.
    """
    problems = []
    alike: dict[str, list[tuple[str, str]]] = {}
    for group, prompts in groups.items():
        blank = sum(not prompt.strip() for prompt in prompts)
        if blank:
            problems.append(Problem("blank", f"{blank} of the {group} prompts are blank."))
        for prompt in prompts:
            if prompt.strip():
                alike.setdefault(_ARTICLE.sub("", _plain(prompt)), []).append((group, prompt))
    for found in alike.values():
        if len(found) > 1:
            problems.append(_repeated(found))
    return problems


def _repeated(found: list[tuple[str, str]]) -> Problem:
    prompts = tuple(prompt for _, prompt in found)
    different = ", ".join(f"{prompt!r:.200}" for prompt in dict.fromkeys(prompts))
    groups = " and ".join(f"{group}s" for group in dict.fromkeys(group for group, _ in found))
    if len(set(prompts)) == 1:
        return Problem("repeated", f"{different} is {len(found)} times among the {groups}.", prompts)
    if len({_plain(prompt) for prompt in prompts}) == 1:
        code, differ = "repeated_but_for_case", "differ in case or spaces alone, which no model sees"
    else:
        code, differ = "repeated_but_for_article", "differ in their article alone, and count nearly twice"
    return Problem(code, f"{different}, among the {groups}, {differ}.", prompts)


def _plain(prompt: str) -> str:
    return " ".join(prompt.casefold().split())


def find_too_long(texts: Sequence[str], counter: TokenCounter) -> list[Problem]:
    """Return the prompts that have more tokens than the model's text tower takes."""
    about = "" if counter.why_estimated is None else "about "
    return [
        Problem("too_long", f"{text!r:.60} has {about}{tokens} tokens; at most {counter.context_length} fit.", (text,))
        for text in texts
        if (tokens := counter.count(text)) > counter.context_length
    ]


@dataclass(frozen=True, slots=True)
class Balance:
    """What the groups' sizes alone do: the sums and the multiplier of a mask that is equally similar to all prompts.

    ``thresholds`` say of this set what the given ones say of one with as many negatives as positives; ``None`` where
    it is such a set, or has neutrals.
    """

    p_pos_sum: float
    p_neg_sum: float
    multiplier: float
    odds: float
    thresholds: Thresholds | None


def weigh(positive: int, negative: int, neutral: int = 0, thresholds: Thresholds | None = None) -> Balance:
    """Return the balance of groups of so many prompts.

    With equal similarities a softmax gives each of n prompts 1/n, so that a group of k has k/n. ``odds`` is
    ``positive / negative``: as many times are the odds of ``p_pos_sum`` larger than with groups of equal size and the
    same mean of exp(logit). Solved for a threshold t of the positives that is ``odds t / (odds t + 1 - t)``, of the
    negatives the same with ``1 / odds``.
    """
    thresholds = thresholds or Thresholds()
    whole = positive + negative + neutral
    odds = positive / negative
    moved = None
    if not neutral and positive != negative:
        moved = Thresholds(
            reject_neg_sum=_moved(thresholds.reject_neg_sum, 1 / odds),
            strong_pos_sum=_moved(thresholds.strong_pos_sum, odds),
            strong_neg_sum=_moved(thresholds.strong_neg_sum, 1 / odds),
            accept_pos_sum=_moved(thresholds.accept_pos_sum, odds),
        )
    sums = positive / whole, negative / whole
    return Balance(*sums, thresholds.multiplier(*sums), odds, moved)


def _moved(threshold: float, odds: float) -> float:
    return round(odds * threshold / (odds * threshold + 1 - threshold), 4)
