"""The label of each exported mask: its best prompt or a head's class, or what a file of classes makes of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from maskscore.errors import InvalidDocumentError
from maskscore.schema import Component
from maskscore.text import counted, did_you_mean, one_line, read_yaml_file

__all__ = ["LABEL_SOURCES", "LabelSource", "Labelling", "read_classes"]


class LabelSource(NamedTuple):
    """Where labels come from: the fields of a mask that hold the text and its score, and what the text is."""

    text: str
    score: str
    noun: str


LABEL_SOURCES: Final[Mapping[str, LabelSource]] = MappingProxyType(
    {"s_pos_text": LabelSource("s_pos_text", "s_pos", "prompt"), "head": LabelSource("head_class", "p_keep", "class")}
)
"""What a label may be taken from, by the names of ``--label-from``."""

# Named in a message.
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """How masks get their labels.

    Parameters
    ----------
    source: a name of :data:`LABEL_SOURCES`.
    classes: text → label, several to one; masks whose label is ``None`` are left out. Without it the text is the label.
    min_score: least score of the text: ``s_pos`` of a prompt, ``p_keep`` of a head's class; masks below are left out.

    Raises :class:`~maskscore.errors.InvalidDocumentError` for an unknown source.
    """

    source: str = "s_pos_text"
    classes: Mapping[str, str | None] | None = None
    min_score: float | None = None

    def __post_init__(self) -> None:
        if self.source not in LABEL_SOURCES:
            raise InvalidDocumentError(
                f"There is no source of labels {self.source!r:.60}{did_you_mean(self.source, LABEL_SOURCES) or '.'} "
                f"There are: {', '.join(LABEL_SOURCES)}."
            )

    def text_of(self, component: Component) -> str | None:
        """Return the text of a mask; ``None`` where its score is below ``min_score``, or it has none."""
        fields = LABEL_SOURCES[self.source]
        text: str | None = getattr(component, fields.text)
        score: float | None = getattr(component, fields.score)
        if self.min_score is not None and (score is None or score < self.min_score):
            return None
        return text

    def label_of(self, text: str) -> str | None:
        """Return the label of a text; ``None`` for one that is not to be exported, or not known."""
        return text if self.classes is None else self.classes.get(text)

    @property
    def from_head(self) -> bool:
        """Whether the labels are the classes of a head."""
        return self.source == "head"

    @property
    def names(self) -> tuple[str, ...] | None:
        """All labels, each once, in the order of the file; ``None`` where the texts are the labels."""
        if self.classes is None:
            return None
        return tuple(dict.fromkeys(name for name in self.classes.values() if name is not None))

    def check_texts(self, seen: Iterable[str]) -> tuple[str, ...]:
        """Return the texts of ``classes`` that no mask has.

        Raises :class:`~maskscore.errors.InvalidDocumentError` where a mask's text has no class.
        """
        if self.classes is None:
            return ()
        seen = set(seen)
        unknown = sorted(seen - self.classes.keys())
        if unknown:
            named = ", ".join(repr(one_line(text)[:80]) for text in unknown[:_MOST_NAMED])
            hint = did_you_mean(unknown[0], self.classes).removeprefix("; ")
            raise InvalidDocumentError(
                f"The file of classes has no entry for {counted(len(unknown), LABEL_SOURCES[self.source].noun)} that "
                f"masks are labelled with: {named}{', ...' if len(unknown) > _MOST_NAMED else ''}. Give each a label, "
                f"or null to leave its masks out.{f' ({hint})' if hint else ''}"
            )
        return tuple(text for text in self.classes if text not in seen)


def read_classes(path: Path) -> dict[str, str | None]:
    """Read a YAML or JSON file of ``prompt: class``; a class of null leaves the prompt's masks out.

    For the classes of a head it is ``class: label`` in the same way.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where it cannot be read, or is something else.
    """
    what = f"The file of classes {path}"
    document = read_yaml_file(path, what)
    if not isinstance(document.value, dict) or not document.value:
        raise InvalidDocumentError(f"{what} is no list of `prompt: class`, a line for each prompt.")
    classes: dict[str, str | None] = {}
    for prompt, name in document.value.items():
        line = document.line_of([prompt]) if isinstance(prompt, str) else None
        where = f"line {line}: " if line is not None else ""
        if not isinstance(prompt, str):
            raise InvalidDocumentError(f"{what} is not valid: the prompt {prompt!r} is not text; put it in quotes.")
        if isinstance(name, bool) or not isinstance(name, str | int | None):
            raise InvalidDocumentError(
                f"{what} is not valid: {where}the class of {prompt!r:.60} is {name!r:.60}; it must be text (put it in "
                "quotes), or null."
            )
        if isinstance(name, str) and not name.strip():
            raise InvalidDocumentError(f"{what} is not valid: {where}the class of {prompt!r:.60} is empty.")
        classes[prompt] = None if name is None else str(name).strip()
    if not any(classes.values()):
        raise InvalidDocumentError(f"{what} has no class, only null.")
    return classes
