"""Prompt sets: the sentences a mask is compared with, as data with a name, a version and a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from maskscore.schema.document import Document

__all__ = ["PromptSet"]


# Far beyond what a model reads: tokenizers take time by the square of a word's length.
Prompt = Annotated[str, Field(max_length=2000)]
Prompts = Annotated[tuple[Prompt, ...], Field(fail_fast=True)]
MOST_PROMPTS = 10_000
MOST_TEMPLATES = 200
_PLACE = "{}"


class PromptSet(Document):
    """Positive, negative and optional neutral prompts.

    The neutral group takes part in the softmax but in neither sum. A prompt given twice would count twice, so that is
    refused, as are empty positive or negative groups.

    A prompt may stand for several sentences: those of ``sentences`` where it is named there, else each of the
    ``templates`` with the prompt in place of its ``{}``, else itself alone. The features of a prompt's sentences are
    averaged as CLIP's authors do it: each L2-normalised, then their mean L2-normalised. Results name the prompt.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    version: int = Field(1, ge=1, description="The set's own version, raised when its prompts change.")
    description: str = ""
    positive: Prompts = Field(min_length=1)
    negative: Prompts = Field(min_length=1)
    neutral: Prompts = ()
    # Written only where there are some, so that documents and digests of sets without them stay what they were.
    templates: Annotated[tuple[Prompt, ...], Field(fail_fast=True)] = Field(
        (),
        max_length=MOST_TEMPLATES,
        exclude_if=lambda templates: not templates,
        description="Sentences with one `{}` each, for all prompts that have no sentences of their own.",
    )
    sentences: dict[Prompt, Prompts] = Field(
        default_factory=dict,
        exclude_if=lambda sentences: not sentences,
        description="Sentences of single prompts, used as they stand.",
    )

    @field_validator("sentences", mode="before")
    @classmethod
    def _few_sentences(cls, sentences: Any) -> Any:
        # Before they are looked at: each of millions that do not fit would be an error of its own.
        if isinstance(sentences, dict) and len(sentences) > MOST_PROMPTS:
            raise ValueError(f"there are sentences for {len(sentences):,} prompts; a set has at most {MOST_PROMPTS:,}")
        return sentences

    @field_validator("positive", "negative", "neutral")
    @classmethod
    def _no_blanks(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if any(not prompt.strip() for prompt in prompts):
            raise ValueError("a prompt must not be blank")
        return prompts

    @model_validator(mode="after")
    def _few_and_different(self) -> PromptSet:
        if len(self.texts) > MOST_PROMPTS:
            raise ValueError(f"the set has {len(self.texts):,} prompts; at most {MOST_PROMPTS:,} are encoded")
        seen: set[str] = set()
        for prompt in self.texts:
            if prompt in seen:
                raise ValueError(f"the prompt {prompt!r:.200} is given more than once")
            seen.add(prompt)
        return self

    @model_validator(mode="after")
    def _sentences_fit(self) -> PromptSet:
        for template in self.templates:
            if template.count(_PLACE) != 1:
                raise ValueError(f"the template {template!r:.200} must have one {{}}, where the prompt stands")
        prompts = set(self.texts)
        for prompt, own in self.sentences.items():
            if prompt not in prompts:
                raise ValueError(f"there are sentences for {prompt!r:.200}, which is no prompt of the set")
            if not own or any(not sentence.strip() for sentence in own):
                raise ValueError(f"the sentences for {prompt!r:.200} must not be blank")
        count = len(self.texts) * max(1, len(self.templates)) + sum(map(len, self.sentences.values()))
        if count > MOST_PROMPTS:
            raise ValueError(f"the set has {count:,} sentences; at most {MOST_PROMPTS:,} are encoded")
        seen: set[str] = set()
        for sentence in (sentence for prompt in self.texts for sentence in self.sentences_of(prompt)):
            if sentence in seen:
                raise ValueError(f"the sentence {sentence!r:.200} is given more than once")
            seen.add(sentence)
        return self

    def sentences_of(self, prompt: str) -> tuple[str, ...]:
        """Return the sentences whose features are averaged for a prompt of the set."""
        if prompt in self.sentences:
            return self.sentences[prompt]
        return tuple(template.replace(_PLACE, prompt) for template in self.templates) or (prompt,)

    @property
    def texts(self) -> tuple[str, ...]:
        """All prompts, positives then negatives then neutrals: the order of every score vector."""
        return self.positive + self.negative + self.neutral

    # A worker asks for it several times per job.
    @cached_property
    def digest(self) -> str:
        """``sha256:…`` of the three groups, and of their sentences where a prompt is not its only one.

        Name, version and description do not change scores and are left out.
        """
        asked: list[Any] = [self.positive, self.negative, self.neutral]
        sentences = [self.sentences_of(prompt) for prompt in self.texts]
        if any(own != (prompt,) for prompt, own in zip(self.texts, sentences, strict=True)):
            asked.append(sentences)
        text = json.dumps(asked, ensure_ascii=False, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values for some fields, which are not checked; its digest is of what it has."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("digest", None)
        return copied
