"""The images of a tar with their masks, in whatever order the members stand, from a cursor on."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from threading import Lock
from typing import IO, Any, Final

from maskscore.formats import MASKS_SUFFIXES, Naming, extension
from maskscore.schema import ShardCursor
from maskscore.shards.byte_streams import open_stream
from maskscore.shards.tar_members import Damage, Member, OtherMember, TarMembers
from maskscore.storage import Objects

__all__ = ["TarPair", "TarPairs", "tar_pairs"]

_MARKS: Final = (".masks", ".mask", ".seg", ".segmentation")
_NAMING: Final = Naming()
_HELD_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class TarPair:
    """An image and its masks; one of them alone where the other is not in the tar; or damage.

    ``number`` counts from 0 on from the cursor's ``counts.images``: the row in ``images``.
    """

    number: int
    image: Member | None = None
    masks: Member | None = None
    damage: Damage | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A member whose partner has not come; its bytes are ``at`` this place of the spilled ones, if not in memory."""

    member: Member
    role: str
    rank: int
    at: int | None = None


class _SpilledBytes:
    """Bytes in a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._kept = self._end = 0

    def keep(self, data: bytes) -> int:
        """Write bytes, and return where they are."""
        at = self._end
        self._file.seek(at)
        self._file.write(data)
        self._file.flush()
        self._end += len(data)
        self._kept += 1
        return at

    def take(self, at: int, size: int) -> bytes:
        """Return bytes and drop them."""
        self._file.seek(at)
        data = self._file.read(size)
        self.drop()
        return data

    def drop(self) -> None:
        """Count bytes as not needed; the file begins anew when none are."""
        self._kept -= 1
        if not self._kept:
            self._file.truncate(0)
            self._end = 0


class TarPairs:
    """Yields the pairs of a tar; iterate once. Members that wait for their partner are held: :func:`tar_pairs`."""

    def __init__(
        self,
        members: TarMembers,
        cursor: ShardCursor,
        spilled: _SpilledBytes,
        *,
        held_bytes: int,
        only: Collection[str] | None,
    ) -> None:
        self._members, self._cursor, self._spilled = members, cursor, spilled
        self._held_bytes, self._in_memory = held_bytes, 0
        self._held: dict[str, list[_Waiting]] = {}
        # The keys of the pairs that are asked for, where these are not all; and those of them that were not yielded.
        self._only = None if only is None else {_role_of(name)[0] for name in only}
        self._missing = set(self._only or ())
        # Pairs that were not asked about yet: number, where the reading stood, starts of their members, others so far.
        self._yielded: deque[tuple[int, int, tuple[int, ...], int]] = deque()
        self._others = 0
        self._number = cursor.counts.images
        self._lock = Lock()

    def __iter__(self) -> Iterator[TarPair]:
        run: tuple[str, int] | None = None
        self._load_held()
        for key in list(self._held):
            yield from self._complete(key, self._cursor.offset)
        for item in self._members:
            if isinstance(item, OtherMember):
                self._others += 1
                continue
            if isinstance(item, Damage):
                if self._only is None:
                    yield self._numbered(TarPair(0, damage=item), self._members.offset)
                continue
            key, role, rank = _role_of(item.name)
            if run is not None and run[0] != key:
                yield from self._complete(run[0], item.start)
                if self._only is not None and not self._missing:
                    break
            run = key, item.start
            if self._only is not None and _role_of(item.text)[0] not in self._only:
                continue
            if role == "other":
                self._others += 1
            else:
                self._hold(key, _Waiting(item, role, rank))
        if run is not None:
            yield from self._complete(run[0], self._members.offset)
        lonely = [(waiting, key) for key, group in self._held.items() for waiting in group]
        for waiting, key in sorted(lonely, key=lambda entry: entry[0].member.start):
            member = self._loaded(waiting)
            pair = TarPair(0, image=member) if waiting.role == "image" else TarPair(0, masks=member)
            with self._lock:
                self._release(waiting)
                self._held[key].remove(waiting)
            yield self._numbered(pair, self._members.offset)

    def cursor_after(self, number: int) -> tuple[int, str, int]:
        """Return ``offset`` and ``held`` of the cursor after the pair of this number, and the others passed so far.

        Numbers must ascend. Safe to call from another thread than the one that iterates.
        """
        with self._lock:
            while self._yielded and self._yielded[0][0] < number:
                self._yielded.popleft()
            found, offset, _, others = self._yielded.popleft()
            if found != number:
                raise ValueError(f"pair {number} was not yielded, or was asked about")
            waiting = {entry.member.start for group in self._held.values() for entry in group}
            for _, _, starts, _ in self._yielded:
                waiting.update(starts)
            held = _packed(sorted(start for start in waiting if start < offset))
            # Of a tar that is read again for some of its pairs, they were counted before.
            return offset, held, others if self._only is None else 0

    def _load_held(self) -> None:
        for start in _unpacked(self._cursor.held):
            self._members.seek(start)
            item = next(iter(self._members))
            if isinstance(item, Member):
                key, role, rank = _role_of(item.name)
                self._hold(key, _Waiting(item, role, rank))
        if self._cursor.offset:
            self._members.seek(self._cursor.offset)

    def _hold(self, key: str, waiting: _Waiting) -> None:
        size = len(waiting.member.data or b"")
        with self._lock:
            if size and self._in_memory + size > self._held_bytes:
                at = self._spilled.keep(waiting.member.data or b"")
                waiting = replace(waiting, member=replace(waiting.member, data=None), at=at)
            else:
                self._in_memory += size
            self._held.setdefault(key, []).append(waiting)

    def _loaded(self, waiting: _Waiting) -> Member:
        member = waiting.member
        return member if waiting.at is None else replace(member, data=self._spilled.take(waiting.at, member.size))

    def _release(self, waiting: _Waiting) -> None:
        self._in_memory -= len(waiting.member.data or b"")

    def _complete(self, key: str, offset: int) -> Iterator[TarPair]:
        """Yield the pair of a key whose files that stand together have been read, if it is one."""
        group = self._held.get(key, [])
        images = sorted((entry for entry in group if entry.role == "image"), key=lambda entry: entry.rank)
        masks = sorted((entry for entry in group if entry.role == "masks"), key=lambda entry: entry.rank)
        if images and not masks and len(images) > 1 and extension(images[-1].member.name) == ".png":
            masks = [images.pop()]
        if not images or not masks:
            return
        self._missing.discard(key)
        with self._lock:
            del self._held[key]
            for entry in group:
                self._release(entry)
            self._others += len(group) - 2
        for entry in group:
            if entry.at is not None and entry not in (images[0], masks[0]):
                self._spilled.drop()
        pair = TarPair(0, self._loaded(images[0]), self._loaded(masks[0]))
        yield self._numbered(pair, offset, tuple(entry.member.start for entry in group))

    def _numbered(self, pair: TarPair, offset: int, starts: tuple[int, ...] | None = None) -> TarPair:
        if starts is None:
            starts = tuple(member.start for member in (pair.image, pair.masks) if member is not None)
        with self._lock:
            self._yielded.append((self._number, offset, starts, self._others))
            pair = replace(pair, number=self._number)
            self._number += 1
        return pair


@contextmanager
def tar_pairs(
    objects: Objects,
    uri: str,
    cursor: ShardCursor,
    *,
    etag: str | None = None,
    max_bytes: int,
    held_bytes: int = _HELD_BYTES,
    only: Collection[str] | None = None,
    **ranges: Any,
) -> Iterator[tuple[TarPairs, str]]:
    """Open a tar at a cursor; yield its pairs, and the ETag that it is pinned to.

    With ``only``, names of members as :attr:`~maskscore.shards.Member.text` has them, only the pairs that one of these
    belongs to are yielded, damage and other members are passed over, and the tar is read up to the last of the pairs.
    Members of more than ``max_bytes`` have no ``data``. Members that wait for their partner take at most ``held_bytes``
    of memory; the others are in a temporary file (``TMPDIR``), which takes the size of the tar at most. ``ranges`` are
    those of :class:`~maskscore.shards.RangeStream`. Raises :class:`~maskscore.errors.JobError` as
    :meth:`maskscore.storage.Objects.read_range` does, also while the pairs are read: ``image_changed`` for another
    object than that of the cursor. Raises OSError where the temporary file's disk is full.
    """
    with (
        open_stream(objects, uri, etag=etag or cursor.etag, **ranges) as (stream, pin),
        # It has no name: the system frees it with this process, however that ends.
        TemporaryFile(prefix="maskscore-shard-") as file,
    ):
        members = TarMembers(stream, max_bytes=max_bytes)
        yield TarPairs(members, cursor, _SpilledBytes(file), held_bytes=held_bytes, only=only), pin


def _role_of(name: str) -> tuple[str, str, int]:
    """Return the key, the role (``image``, ``masks`` or ``other``) and the rank of a member."""
    name = name.removeprefix("./")
    ending = extension(name)
    stem = name[: len(name) - len(ending)]
    marked = next((mark for mark in _MARKS if stem.lower().endswith(mark)), None)
    role = _NAMING.of(name, masks_root=None)
    if marked and len(stem) > len(marked) and role.kind != "other":
        return stem[: -len(marked)], "masks", -1
    if role.kind == "image":
        return role.key, "image", int(ending == ".png")
    return role.key, role.kind, MASKS_SUFFIXES.index(ending) if ending in MASKS_SUFFIXES else 0


def _packed(starts: list[int]) -> str:
    """Return ascending numbers as base64 of the LEB128 of their differences."""
    data, last = bytearray(), 0
    for start in starts:
        difference, last = start - last, start
        while difference >= 0x80:
            data.append(difference & 0x7F | 0x80)
            difference >>= 7
        data.append(difference)
    return base64.b64encode(data).decode()


def _unpacked(text: str) -> Iterator[int]:
    last = value = shift = 0
    for byte in base64.b64decode(text):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            last += value
            yield last
            value = shift = 0
