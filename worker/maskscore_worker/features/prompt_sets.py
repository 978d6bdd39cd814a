"""Finds a job's prompt set: its own, one in the operator's folder, or a built-in one."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from maskscore.errors import FailureCode, InvalidDocumentError, JobError
from maskscore.prompts import builtin_names, load_builtin, read_prompt_set
from maskscore.schema import PromptSet
from maskscore.text import did_you_mean

__all__ = ["resolve_prompt_set"]


def resolve_prompt_set(prompts: str | PromptSet, folder: Path | None) -> PromptSet:
    """Return the prompt set; ``folder``'s ``NAME.yaml`` goes before the built-in set of that name.

    Raises :class:`~maskscore.errors.JobError` with ``prompt_set_unknown`` or ``prompts_invalid``.
    """
    return prompts if isinstance(prompts, PromptSet) else _named(prompts, folder)


@lru_cache(maxsize=64)
def _named(name: str, folder: Path | None) -> PromptSet:
    own = {path.stem: path for path in folder.glob("*.yaml")} if folder else {}
    try:
        if name in own:
            return read_prompt_set(own[name])
        return load_builtin(name)
    except KeyError:
        known = sorted({*own, *builtin_names()})
        raise JobError(
            FailureCode.PROMPT_SET_UNKNOWN,
            f"There is no prompt set {name!r} on this worker{did_you_mean(name, known) or '.'} It knows "
            f"{', '.join(known)}. Name one of these, give the prompts in the job, or put NAME.yaml into the "
            "folder MASKSCORE_PROMPTS_DIR.",
        ) from None
    except InvalidDocumentError as error:
        raise JobError(FailureCode.PROMPTS_INVALID, str(error)) from error
