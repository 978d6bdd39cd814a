"""Masks for a person to judge, as tasks of Label Studio, and the judgements that come back."""

from __future__ import annotations

from maskscore.review.judgements import Judgement, read_judgements

__all__ = ["Judgement", "read_judgements"]
