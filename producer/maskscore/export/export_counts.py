"""Counts of the jobs and masks of an export: written, filtered out, without a result."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from maskscore.text import counted, one_line

__all__ = ["ExportCounts"]

_MOST_NAMED: Final = 10


@dataclass(slots=True)
class ExportCounts:
    """Counts of an export.

    ``masks`` are those of the jobs that have a result (components, with ``split_components``), ``kept`` those that
    were written. ``filtered`` counts the others by the first filter that they did not pass, named as the command
    line's options are. ``unwritable`` counts masks whose segmentation could not be read any more; ``example`` says of
    one of them why. ``without_result`` counts jobs by their code; ``not_ended`` and ``result_unavailable`` are two.
    ``ranked`` counts the masks that have each factor of the ranking. ``with_field`` counts all masks that have each
    upstream field by which they are filtered or ranked, ``known`` are the upstream fields of some of them.
    ``labels`` counts the written masks by label, where labels were asked for; ``texts`` are what the labels were made
    of (``text_noun``: a prompt, or a head's class), and ``unused_texts`` are those of the file of classes that no mask
    has. ``noun`` is ``image`` for parts of shards, where each image counts as a job does.
    """

    jobs: int = 0
    masks: int = 0
    kept: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    unwritable: int = 0
    example: str | None = None
    without_result: Counter[str] = field(default_factory=Counter)
    ranked: Counter[str] = field(default_factory=Counter)
    with_field: Counter[str] = field(default_factory=Counter)
    known_fields: set[str] = field(default_factory=set)
    labels: Counter[str] = field(default_factory=Counter)
    texts: set[str] = field(default_factory=set)
    text_noun: str = "prompt"
    unused_texts: tuple[str, ...] = ()
    noun: str = "job"

    @property
    def complete(self) -> bool:
        """Whether every job had a result and every mask its segmentation."""
        return not self.unwritable and not self.without_result

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        unused = "unused_prompts" if self.text_noun == "prompt" else "unused_classes"
        return {
            "jobs": self.jobs,
            "without_result": dict(self.without_result),
            "masks": self.masks,
            "kept": self.kept,
            "filtered": dict(self.filtered),
            "ranked": dict(self.ranked),
            "unwritable": self.unwritable,
            "example": self.example,
            **({"labels": dict(self.labels)} if self.labels else {}),
            **({unused: list(self.unused_texts)} if self.unused_texts else {}),
        }

    def __str__(self) -> str:
        lines = [f"{self.kept:,} of {counted(self.masks, 'mask')} kept; {counted(self.jobs, self.noun)}"]
        if self.filtered:
            lines.append("filtered out: " + _listed(self.filtered))
        if self.labels:
            lines.append("labels: " + _listed(self.labels))
        if self.unused_texts:
            some = ", ".join(repr(one_line(text)) for text in self.unused_texts[:_MOST_NAMED])
            more = ", ..." if len(self.unused_texts) > _MOST_NAMED else ""
            listed = counted(len(self.unused_texts), self.text_noun)
            lines.append(f"no mask has {listed} of the file of classes: {some}{more}")
        if self.unwritable:
            lines.append(f"segmentation not readable: {counted(self.unwritable, 'mask')}; {self.example}")
        if self.without_result:
            lines.append(f"{self.noun}s without a result: {_listed(self.without_result)}")
        return "\n".join(lines)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{one_line(name)} {count:,}" for name, count in counts.most_common())
