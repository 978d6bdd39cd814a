"""The pages' templates, style and script, which lie beside this module in ``templates/``."""

from __future__ import annotations

from functools import cache
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

__all__ = ["number", "template"]


def template(name: str) -> Template:
    """Return the template ``name``; everything that it is given is escaped unless it is ``Markup``."""
    return _environment().get_template(f"{name}.html.j2")


def number(value: object) -> str:
    """Write a number with three decimals, and anything else that an upstream tool may have given as it is."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_text),
    )
    environment.filters["number"] = number
    environment.filters["counted"] = _counted
    environment.filters["breakable"] = _breakable
    shared = {"style": "page.css", "script": "page.js", "judge_style": "judge.css", "judge_script": "judge.js"}
    environment.globals.update({name: Markup(_text(file)) for name, file in shared.items()})
    return environment


def _text(name: str) -> str:
    folder = resources.files(__name__.rpartition(".")[0]) / "templates"
    return (folder / name).read_text("utf-8")


def _breakable(path: str) -> Markup:
    """Let a path or URI break behind its slashes, and not in the middle of a name."""
    return Markup("/<wbr>").join(path.split("/"))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
