"""Heads: read from files, checked against what was scored, and applied to masks without a forward pass.

A head of scores needs no further package; a probe on embeddings needs NumPy (``maskscore[formats]``).
"""

from __future__ import annotations

from maskscore.heads.decision import Decision, Decisions, HeadApplication, check_head_fits, score_value
from maskscore.heads.stored_heads import find_head, head_files, read_head, write_head

__all__ = [
    "Decision",
    "Decisions",
    "HeadApplication",
    "check_head_fits",
    "find_head",
    "head_files",
    "read_head",
    "score_value",
    "write_head",
]
