"""Shards: the images of a tar or of a list, scored side by side and collected in order into parts."""

from __future__ import annotations

from maskscore_worker.shards.parts_rescoring import CommitPart
from maskscore_worker.shards.shard_stream import score_shard

__all__ = ["CommitPart", "score_shard"]
