"""Tar files as shards: read by ranges ahead, damage found, images paired with their masks in whatever order they stand.

:func:`tar_pairs` yields the :class:`TarPair` of a tar from a :class:`~maskscore.schema.ShardCursor` on.
"""

from __future__ import annotations

from maskscore.shards.byte_streams import ByteStream, DecompressedStream, RangeStream, open_stream
from maskscore.shards.member_pairs import TarPair, TarPairs, tar_pairs
from maskscore.shards.tar_members import Damage, Member, OtherMember, TarMembers

__all__ = [
    "ByteStream",
    "Damage",
    "DecompressedStream",
    "Member",
    "OtherMember",
    "RangeStream",
    "TarMembers",
    "TarPair",
    "TarPairs",
    "open_stream",
    "tar_pairs",
]
