"""Docstrings as Markdown for the API reference: Sphinx's roles become code, sections of parameters become lists."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|exc):`~?([^`]+)`")
_SECTION = re.compile(r"^Parameters\n-+\n((?:.+\n?)+)", re.MULTILINE)


class MarkdownDocstrings(griffe.Extension):
    """Rewrites each docstring before it is rendered."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object that was loaded."""
        if obj.docstring is not None:
            obj.docstring.value = _SECTION.sub(_listed, _ROLE.sub(r"`\1`", obj.docstring.value))


def _listed(section: re.Match[str]) -> str:
    items = re.sub(r"^([\w, *]+): ", r"- `\1`: ", section[1], flags=re.MULTILINE)
    return f"**Parameters**\n\n{items}"
