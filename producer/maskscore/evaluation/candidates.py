"""Candidates of an evaluation, and which heads hold for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from maskscore.errors import HeadMismatch, InvalidDocumentError
from maskscore.evaluation.class_prompts import ClassPrompts
from maskscore.heads import HeadApplication, check_head_fits
from maskscore.schema import DEFAULT_MODEL_NAME, Method, PromptSet, ScoringOptions, View

__all__ = ["Candidate", "heads_by_score", "with_fitting_heads"]

_MOST_TOP_K = 100


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model, views whose features are averaged (or one alone), and a prompt set with its classes.

    ``model`` is ``None`` for that of workers without a name. ``heads`` decide on the same results; their key is the
    name of the score, as :func:`heads_by_score` gives it. ``source`` is what people call the scores where they are
    there already, such as a folder of parts. Raises :class:`pydantic.ValidationError` for a view that is
    given twice.
    """

    views: tuple[View, ...]
    prompts: PromptSet
    classes: ClassPrompts
    method: Method = "softmax"
    model: str | None = None
    heads: Mapping[str, HeadApplication] = field(default_factory=dict)
    source: str | None = None

    def __post_init__(self) -> None:
        _ = self.options

    @property
    def options(self) -> ScoringOptions:
        """The scoring options of its jobs."""
        first, *others = self.views
        return ScoringOptions(
            prompts=self.prompts,
            treatment=first.treatment,
            frame=first.frame,
            alpha=first.alpha,
            blur=first.blur,
            context=first.context,
            average_with=tuple(others),
            method=self.method,
            top_k=self.top_k,
            embeddings=any(head.head.kind == "probe" for head in self.heads.values()),
            model=self.model,
        )

    @property
    def top_k(self) -> int:
        """How many best prompts of each mask are asked for."""
        return min(_MOST_TOP_K, len(self.prompts.texts))

    @property
    def text(self) -> str:
        """The views as text, joined by ``+``."""
        return "+".join(view.text for view in self.views)

    @property
    def model_name(self) -> str:
        """What people call the model."""
        return self.model or DEFAULT_MODEL_NAME

    def check_head(self, head: HeadApplication, weights_digest: str | None) -> None:
        """Raise :class:`~maskscore.errors.HeadMismatch` unless a head holds for results from these weights."""
        check_head_fits(
            head.head,
            weights_digest=weights_digest,
            views=self.text,
            method=self.method,
            prompts_digest=self.prompts.digest,
        )


def heads_by_score(heads: Iterable[HeadApplication]) -> dict[str, HeadApplication]:
    """Return heads by the name of their score: ``p_keep NAME``, with a part of the digest where a name is not enough.

    Raises :class:`~maskscore.errors.InvalidDocumentError` for a head that is given twice.
    """
    named: dict[str, HeadApplication] = {}
    listed = list(heads)
    for head in listed:
        alike = [other.head for other in listed if other.head.name == head.head.name]
        score = f"p_keep {head.head.name}" + (f" ({head.head.digest[7:13]})" if len(alike) > 1 else "")
        if score in named:
            raise InvalidDocumentError(f"The head {head.head.name} is given twice.")
        named[score] = head
    return named


def with_fitting_heads(
    candidates: Iterable[Candidate],
    heads: Mapping[str, HeadApplication],
    digests: Callable[[Candidate], Collection[str]] = lambda _: (),
) -> list[Candidate]:
    """Return the candidates, each with the heads that hold for it.

    ``digests`` gives those of the weights that a candidate is scored by; without any, every head is taken to hold for
    the weights. Raises :class:`~maskscore.errors.HeadMismatch` where a head holds for no candidate.
    """
    mismatches: dict[str, HeadMismatch] = {}
    fitting: list[Candidate] = []
    for candidate in candidates:
        own: dict[str, HeadApplication] = {}
        for score, head in heads.items():
            served = digests(candidate) or (head.head.weights_digest,)
            try:
                candidate.check_head(head, min(served, key=lambda digest: digest != head.head.weights_digest))
                own[score] = head
            except HeadMismatch as error:
                mismatches[score] = error
        fitting.append(replace(candidate, heads=own))
    for score in heads:
        if not any(score in candidate.heads for candidate in fitting):
            raise mismatches[score]
    return fitting
