"""Prompt sets from YAML: those of the package, those of a folder, and single files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from maskscore.errors import InvalidDocumentError
from maskscore.prompts.validation_messages import explain_prompt_set
from maskscore.schema import PromptSet
from maskscore.text import YamlText, did_you_mean, read_yaml, read_yaml_file

__all__ = ["PromptSource", "builtin_names", "find_prompt_set", "load_builtin", "prompt_sets", "read_prompt_set"]


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Where a prompt set's YAML is: a file, or in the package (``path`` is ``None``)."""

    name: str
    path: Path | None

    def __str__(self) -> str:
        return f"built-in {self.name!r}" if self.path is None else str(self.path)

    def fields(self) -> dict[str, Any]:
        """Return the YAML's fields, unchecked.

        Raises :class:`~maskscore.errors.InvalidDocumentError` when it cannot be read, or is no mapping.
        """
        what = f"The prompt set {self}"
        if self.path is None:
            fields = read_yaml(resources.files(__package__).joinpath(f"{self.name}.yaml").read_bytes(), what).value
        else:
            fields = read_yaml_file(self.path, what).value
        if not isinstance(fields, dict):
            raise InvalidDocumentError(f"The prompt set {self} is no mapping of `name`, `positive` and `negative`.")
        return fields

    def read(self) -> PromptSet:
        """Return the prompt set. Raises :class:`~maskscore.errors.InvalidDocumentError` where it is not valid."""
        return load_builtin(self.name) if self.path is None else read_prompt_set(self.path)


def prompt_sets(folder: Path | None) -> Iterator[PromptSource]:
    """Yield the sets that jobs may name, sorted by name; a file of ``folder`` hides the built-in set of that name."""
    own = {path.stem: path for path in folder.glob("*.yaml")} if folder else {}
    for name in sorted(own.keys() | set(builtin_names())):
        yield PromptSource(name, own.get(name))


def find_prompt_set(name: str, folder: Path | None) -> PromptSource:
    """Return the set of a YAML file's path, or the set that a job may name so.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where there is none.
    """
    if name.endswith((".yaml", ".yml")):
        return PromptSource(Path(name).stem, Path(name))
    known = {source.name: source for source in prompt_sets(folder)}
    if name not in known:
        raise InvalidDocumentError(
            f"There is no prompt set {name!r:.60}{did_you_mean(name, known) or '.'} Known are {', '.join(known)}. "
            "Name one of these, a YAML file, or set MASKSCORE_PROMPTS_DIR to the folder that has it."
        )
    return known[name]


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
