"""The prompt sets that there are here: files of a folder before those that come with the package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from maskscore.errors import InvalidDocumentError
from maskscore.prompts.reading import (
    builtin_names,
    load_builtin,
    read_prompt_set,
)
from maskscore.schema import (
    PromptSet,
)
from maskscore.text import did_you_mean, read_yaml, read_yaml_file

__all__ = ["PromptSource", "find_prompt_set", "prompt_sets"]


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Where a prompt set's YAML is: a file, or in the package (``path`` is ``None``)."""

    name: str
    path: Path | None

    def __str__(self) -> str:
        return f"built-in {self.name!r}" if self.path is None else str(self.path)

    def fields(self) -> dict[str, Any]:
        """Return the YAML's fields, whatever they are.

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
    """Yield the sets that jobs may name, by name; a file of ``folder`` hides the built-in set of its name."""
    own = {path.stem: path for path in folder.glob("*.yaml")} if folder else {}
    for name in sorted(own.keys() | set(builtin_names())):
        yield PromptSource(name, own.get(name))


def find_prompt_set(name: str, folder: Path | None) -> PromptSource:
    """Return the set of a YAML file, or the one that a job means by this name.

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
