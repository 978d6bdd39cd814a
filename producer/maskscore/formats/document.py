"""What a masks document may turn out to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from maskscore.errors import MaskscoreError

__all__ = ["MasksDocumentError", "UnreadableMask"]


class MasksDocumentError(MaskscoreError):
    """The whole document cannot be used: not JSON, of no known layout, or without this image."""

    code = "masks_invalid"


@dataclass(frozen=True, slots=True)
class UnreadableMask:
    """An entry that is no mask. It costs its own score and not its neighbours'."""

    id: str
    message: str
    upstream: dict[str, Any] = field(default_factory=dict)
