"""YAML that a person has written, read so that what is wrong with it is said by its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from maskscore.errors import InvalidDocumentError

__all__ = ["YamlText", "read_yaml", "read_yaml_file"]

_MIB: Final = 1024 * 1024
_LARGEST: Final = 32 * _MIB
# PyYAML's words are those of its scanner.
_PLAIN: Final = (
    ("mapping values are not allowed", "a text with a colon and a space in it must be in quotes"),
    ("cannot start any token", "a text that begins with this character must be in quotes, and lines begin with spaces"),
    ("found undefined alias", "a text that begins with * must be in quotes"),
    ("could not find expected ':'", "a field is written `name: value`; a text of several lines must be in quotes"),
    ("expected <block end>", "the lines before it are indented by another number of spaces, or a quote is not closed"),
    ("found unexpected end of stream", "a quote or a bracket is not closed"),
)


@dataclass(frozen=True, slots=True)
class YamlText:
    """What a YAML text says (``value``), and where it says it; lines are counted from 1."""

    value: Any
    _root: yaml.Node | None

    def line_of(self, place: Sequence[str | int]) -> int | None:
        """Return the line of what is found by these keys and positions; of the deepest that there is.

        ``None`` where the text does not have the first of them.
        """
        node, line = self._root, None
        for step in place:
            found = _below(node, step)
            if found is None:
                break
            line, node = found
        return line

    def lines_of(self, place: str) -> Iterator[tuple[int, str]]:
        """Yield the line and the text of each entry of a list that is a field of the document."""
        found = _below(self._root, place)
        if found is not None and isinstance(found[1], yaml.SequenceNode):
            for entry in found[1].value:
                if isinstance(entry, yaml.ScalarNode):
                    yield entry.start_mark.line + 1, str(entry.value)


def read_yaml_file(path: Path, what: str) -> YamlText:
    """Read a YAML file; ``what`` says in messages what it is (``The prompt set own.yaml``).

    Raises :class:`~maskscore.errors.InvalidDocumentError` where it cannot be read, or is not YAML.
    """
    try:
        if path.is_dir():
            raise InvalidDocumentError(f"{what} is a folder; give a YAML file.")
        if path.stat().st_size > _LARGEST:
            raise InvalidDocumentError(f"{what} is larger than {_LARGEST // _MIB} MiB.")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InvalidDocumentError(f"{what} cannot be read: there is no such file.") from error
    except OSError as error:
        raise InvalidDocumentError(f"{what} cannot be read: {error.strerror}.") from error
    return read_yaml(data, what)


def read_yaml(data: bytes, what: str) -> YamlText:
    """Read a YAML text of UTF-8; ``what`` says in messages what it is.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where it is not UTF-8 or not YAML, is nested too deep, or has
    a field twice.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidDocumentError(
            f"{what} is not UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}. Save it as UTF-8."
        ) from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_repeated_fields(root, what)
        # Parsed twice: the nodes know their lines, the value knows its types.
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidDocumentError(f"{what} is not YAML: {_said(error)}.") from error
    except RecursionError:
        raise InvalidDocumentError(f"{what} is nested too deep: lists in lists are not taken.") from None
    except ValueError as error:
        # A date such as 2026-13-45, which YAML takes for one.
        raise InvalidDocumentError(f"{what} is not YAML: {error}. Put such a text in quotes.") from error
    return YamlText(value, root)


def _said(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).rstrip(".")
    advice = next((plain for words, plain in _PLAIN if words in problem), None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"{place}{problem}" + (f" ({advice})" if advice else "")


def _below(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        found: yaml.Node = node.value[step]
        return found.start_mark.line + 1, found
    return None


def _refuse_repeated_fields(root: yaml.Node | None, what: str) -> None:
    """Raise where a mapping has a key twice: YAML would take the last one and lose the others."""
    left, seen = [root], set()
    while left:
        node = left.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                    raise InvalidDocumentError(
                        f"{what} is not valid: line {line}: `{key.value:.60}` is given a second time; the first is in "
                        f"line {lines[key.value]}."
                    )
                left += [key, value]
