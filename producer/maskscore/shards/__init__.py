"""What shards are read from: tar files, whose members are paired in whatever order they stand, and lists of pairs.

From a :class:`~maskscore.schema.ShardCursor` on, :func:`tar_pairs` yields the :class:`TarPair` of a tar, and
:func:`listed_pairs` the :class:`ListedPair` of a list. Both are read by ranges ahead, past damage.
"""

from __future__ import annotations

from maskscore.shards.byte_streams import RANGE_BYTES, ByteStream, DecompressedStream, RangeStream, open_stream
from maskscore.shards.member_pairs import TarPair, TarPairs, tar_pairs
from maskscore.shards.pair_lists import ListedPair, listed_pairs
from maskscore.shards.tar_members import Damage, Member, OtherMember, TarMembers

__all__ = [
    "RANGE_BYTES",
    "ByteStream",
    "Damage",
    "DecompressedStream",
    "ListedPair",
    "Member",
    "OtherMember",
    "RangeStream",
    "TarMembers",
    "TarPair",
    "TarPairs",
    "listed_pairs",
    "open_stream",
    "tar_pairs",
]
