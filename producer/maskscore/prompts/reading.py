"""Prompt sets from YAML: those that come with the package, and files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from maskscore.prompts.validation_messages import explain_prompt_set
from maskscore.schema import PromptSet
from maskscore.text import YamlText, read_yaml, read_yaml_file

__all__ = ["builtin_names", "load_builtin", "read_prompt_set"]


def builtin_names() -> list[str]:
    """Return the names of the prompt sets that come with the package."""
    files = resources.files(__package__).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_builtin(name: str) -> PromptSet:
    """Return the package's prompt set of this name. Raises KeyError where there is none."""
    if name not in builtin_names():
        raise KeyError(name)
    data = resources.files(__package__).joinpath(f"{name}.yaml").read_bytes()
    return _prompt_set(read_yaml(data, f"The prompt set {name!r}"), f"The prompt set {name!r}")


def read_prompt_set(path: Path) -> PromptSet:
    """Read a prompt set from a YAML file.

    Raises :class:`~maskscore.errors.InvalidDocumentError` that names the file, the line and what does not fit; also for
    a file that cannot be read, is not UTF-8 or not YAML.
    """
    what = f"The prompt set {path}"
    return _prompt_set(read_yaml_file(path, what), what)


def _prompt_set(text: YamlText, what: str) -> PromptSet:
    try:
        return PromptSet.model_validate(text.value)
    except ValidationError as error:
        raise explain_prompt_set(error, text, PromptSet, what) from error
