"""What all documents of the contract share: strict fields, and the refusal to guess."""

from __future__ import annotations

import zlib

from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["Document", "explain", "pack", "unpack"]


class Document(BaseModel):
    """Base of the contract's models: unknown fields are an error, instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def explain(error: ValidationError, *, limit: int = 3) -> str:
    """Say in one line what a :class:`pydantic.ValidationError` found and where, for people and for results."""
    problems = error.errors(include_url=False, include_context=False)
    parts = []
    for problem in problems[:limit]:
        place = ".".join(str(step) for step in problem["loc"]) or "document"
        given = repr(problem["input"])
        given = given if len(given) <= 60 else given[:57] + "..."
        parts.append(f"{place}: {problem['msg']} (got {given})")
    if len(problems) > limit:
        parts.append(f"and {len(problems) - limit} more")
    return "; ".join(parts)


def pack(document: Document) -> bytes:
    """Return the document as zlib-compressed JSON: how documents and results lie in Redis."""
    return zlib.compress(document.model_dump_json().encode(), level=1)


def unpack(data: bytes) -> bytes:
    """Return the JSON that :func:`pack` compressed. Raises ValueError for anything else."""
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise ValueError(f"not a packed document: {error}") from error
