"""Masks from the files of other tools: which layout it is, shows in the content.

Known are maskscore's own (a JSON list of masks, or an object with ``masks``), the records of SAM's automatic mask
generator (a JSON list), SA-1B's (``image`` and ``annotations``) and COCO's (``images`` and ``annotations``).
"""

from __future__ import annotations

from maskscore.formats.document import MasksDocumentError, UnreadableMask
from maskscore.formats.json_layouts import read_masks

__all__ = ["MasksDocumentError", "UnreadableMask", "read_masks"]
