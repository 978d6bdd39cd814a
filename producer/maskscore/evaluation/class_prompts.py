"""The prompts that are true of each category."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from maskscore.errors import InvalidDocumentError
from maskscore.schema import PromptSet
from maskscore.text import read_yaml_file

__all__ = ["ClassPrompts", "read_classes"]

Given = Mapping[str, tuple[str, ...]]

# The default prompt set has several for one category of COCO's; none of them is wrong of it.
_VARIANTS: Final[Given] = {"person": ("a person", "a man", "a woman", "a child", "a group of people")}

_ARTICLE: Final = re.compile(r"^(a pair of|a|an|the)\s+")


@dataclass(frozen=True, slots=True)
class ClassPrompts:
    """Which positive prompts of a set are true of each category."""

    prompts: Mapping[str, frozenset[str]]
    unmapped: tuple[str, ...]

    @classmethod
    def of(cls, categories: Iterable[str], prompt_set: PromptSet, given: Given) -> ClassPrompts:
        """Map categories: by what is ``given``; else by the built-in variants, and by the name itself.

        A name is a prompt's, whatever its case, where the prompt is the name, perhaps after ``a``, ``an``, ``the`` or
        ``a pair of``: ``dog`` is ``a dog``, ``scissors`` is ``a pair of scissors``. Categories without a prompt are
        ``unmapped``. Raises :class:`~maskscore.errors.InvalidDocumentError` where a given prompt is none of the set's
        positives.
        """
        positives = set(prompt_set.positive)
        by_name: dict[str, set[str]] = {}
        for prompt in prompt_set.positive:
            for name in {prompt.lower(), _ARTICLE.sub("", prompt.lower())}:
                by_name.setdefault(name, set()).add(prompt)
        mapped: dict[str, frozenset[str]] = {}
        for category in categories:
            if category in given:
                wrong = [prompt for prompt in given[category] if prompt not in positives]
                if wrong:
                    raise InvalidDocumentError(
                        f"The class {category!r:.60} is mapped to {wrong[0]!r:.60}, which is no positive prompt of the "
                        f"set {prompt_set.name!r}."
                    )
                mapped[category] = frozenset(given[category])
                continue
            name = category.lower().replace("_", " ")
            variants = positives & set(_VARIANTS.get(name, ()))
            mapped[category] = frozenset(by_name.get(name, set()) | variants)
        unmapped = tuple(category for category, prompts in mapped.items() if not prompts)
        return cls({category: prompts for category, prompts in mapped.items() if prompts}, unmapped)


def read_classes(path: Path) -> dict[str, tuple[str, ...]]:
    """Read ``category: prompt`` or ``category: [prompt, …]`` from a YAML file.

    Raises :class:`~maskscore.errors.InvalidDocumentError`.
    """
    fields: Any = read_yaml_file(path, f"The file of classes {path}").value
    read: dict[str, tuple[str, ...]] = {}
    for category, prompts in fields.items() if isinstance(fields, dict) else [("", None)]:
        listed = [prompts] if isinstance(prompts, str) else prompts
        if not isinstance(listed, list) or not listed or not all(isinstance(prompt, str) for prompt in listed):
            raise InvalidDocumentError(
                f"The classes {path} must be `category: prompt` or `category: [prompt, ...]`; got {category!r:.60}: "
                f"{prompts!r:.60}."
            )
        read[str(category)] = tuple(listed)
    return read
