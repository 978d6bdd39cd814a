"""Messages for an invalid prompt set, with the line of the YAML."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from maskscore.errors import InvalidDocumentError
from maskscore.text import YamlText, did_you_mean

__all__ = ["explain_prompt_set"]

_MOST: Final = 3
_GROUPS: Final = ("positive", "negative", "neutral")
_KINDS: Final = {bool: "true or false", int: "a number", float: "a number", type(None): "nothing", list: "a list"}


def explain_prompt_set(
    error: ValidationError, text: YamlText, kind: type[BaseModel], what: str
) -> InvalidDocumentError:
    """Return the error that says what :mod:`pydantic` found wrong with a prompt set of this ``kind``."""
    if not isinstance(text.value, dict):
        found = "empty" if text.value is None else f"{_KINDS.get(type(text.value), 'a text')}"
        return InvalidDocumentError(
            f"{what} is not valid: it must have the fields `name`, `positive` and `negative`, and it is {found}."
        )
    problems = error.errors(include_url=False, include_context=False)
    said = [_said(problem, text, list(kind.model_fields)) for problem in problems[:_MOST]]
    if len(problems) > _MOST:
        said.append(f"and {len(problems) - _MOST} more")
    return InvalidDocumentError(f"{what} is not valid: {'; '.join(said)}.")


def _said(problem: ErrorDetails, text: YamlText, fields: list[str]) -> str:
    place, value, kind = problem["loc"], problem["input"], problem["type"]
    field = str(place[0]) if place else ""
    line = text.line_of(place)
    before = f"line {line}: " if line else ""
    if kind == "extra_forbidden":
        hint = did_you_mean(field, fields) or f"; known are {', '.join(fields)}"
        return f"{before}`{field:.60}` is no field of a prompt set{hint}"
    if kind == "missing":
        return f"`{field}` is missing"
    if kind in ("tuple_type", "list_type"):
        return f"{before}`{field}` must be a list, with a line `- TEXT` for each prompt"
    if kind == "string_type" and len(place) > 1:
        return f"{before}`{field}` has {_not_text(value)}; put the text in quotes"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:
        return message + "".join(_lines_of_repeated(text))
    return f"{before}`{field}`: {message[:1].lower()}{message[1:]}"


def _not_text(value: Any) -> str:
    if isinstance(value, dict):
        key = next(iter(value), "")
        return f"`{key!s:.40}: ...`, which YAML reads as a field because of the colon"
    return f"an entry that YAML reads as {_KINDS.get(type(value), 'a ' + type(value).__name__)} ({value!s:.40})"


def _lines_of_repeated(text: YamlText) -> Iterator[str]:
    seen: dict[str, int] = {}
    for group in _GROUPS:
        for line, prompt in text.lines_of(group):
            if prompt in seen:
                yield f" (lines {seen[prompt]} and {line})"
                return
            seen[prompt] = line
