"""The members of a tar, one after the other, past damage.

Formats: POSIX.1-2017, "pax Interchange Format"; GNU tar's manual, "Basic Tar Format" (long names, sparse files).
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from maskscore.shards.byte_streams import ByteStream

__all__ = ["Damage", "Member", "OtherMember", "TarMembers"]

_BLOCK: Final = tarfile.BLOCKSIZE
_REGULAR: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_WITHOUT_DATA: Final = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, b"6")
# A long name or extended header has some hundred bytes.
_MOST_EXTENDED: Final = 1 << 20
_MAGIC: Final = b"ustar"
_MAGIC_AT: Final = 257
_SEARCH: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file: its name, its bytes, and where its first header and its bytes start.

    ``data`` is ``None`` for more than the most bytes that are read.
    """

    name: str
    start: int
    offset: int
    size: int
    data: bytes | None

    @property
    def text(self) -> str:
        """The name as documents have it: what is not UTF-8 is replaced, and a ``./`` before it left out."""
        return self.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").removeprefix("./")


@dataclass(frozen=True, slots=True)
class OtherMember:
    """A folder, link, device or sparse file, which is no image."""

    name: str
    start: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a tar cannot be read, and the name of the member that is concerned, where it is known."""

    name: str | None
    start: int
    message: str


class TarMembers:
    """Yields the members of a stream; ``offset`` is the byte up to which they were read.

    A header whose checksum is wrong is searched past, also within the bytes of the member before it, whose own bytes
    are damaged then. A tar that ends without its two zero blocks may be cut off, and that is reported.

    Parameters
    ----------
    max_bytes: of larger members the name alone is read.
    """

    def __init__(self, stream: ByteStream, *, max_bytes: int) -> None:
        self._stream, self._max_bytes = stream, max_bytes
        self._back = b""
        self.offset = 0

    def seek(self, offset: int) -> None:
        """Go on at the member whose first header starts at this byte."""
        known = offset - self.offset
        if 0 <= known <= len(self._back):
            self._back = self._back[known:]
        else:
            self._stream.seek(offset)
            self._back = b""
        self.offset = offset

    def __iter__(self) -> Iterator[Member | OtherMember | Damage]:
        # Nothing is missing where all was read before: see `seek`.
        begin = self.offset
        ended = begin > 0
        last: str | None = None
        while True:
            start = self.offset
            block = self._take(_BLOCK)
            if block.count(0) == len(block) and block:
                ended = True
                continue
            if not block:
                break
            self._put_back(block)
            item = self._member(start)
            if item is None:
                item = self._resume(start, last)
            ended = isinstance(item, Damage)
            last = item.name or last
            yield item
        if self._stream.error is not None and self.offset > begin:
            yield Damage(None, self.offset, f"The compressed data is damaged: {self._stream.error}.")
        elif not ended and self._stream.error is None:
            yield Damage(None, self.offset, f"The tar ends at byte {self.offset:,} without its end: it may be cut off.")

    def _member(self, start: int) -> Member | OtherMember | Damage | None:
        """Return the member that starts here; ``None`` where a header is not valid."""
        long_name: str | None = None
        pax: dict[str, str] = {}
        while True:
            block = self._take(_BLOCK)
            info = _header(block)
            if info is None:
                if len(block) < _BLOCK:
                    return Damage(long_name, start, f"The tar is cut off in the header at byte {start:,}.")
                self._put_back(block)
                return None
            size = info.size
            if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, b"L", b"K"):
                if size > _MOST_EXTENDED:
                    return None
                data = self._take(_padded(size))[:size]
                if info.type == b"L":
                    long_name = _text(data.rstrip(b"\0"))
                elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                    pax = _pax(data)
                continue
            name = pax.get("path") or long_name or info.name
            size = int(pax["size"]) if pax.get("size", "").isdigit() else size
            if info.type in _WITHOUT_DATA:
                return OtherMember(name, start)
            if info.type not in _REGULAR or any(key.startswith("GNU.sparse") for key in pax):
                extended = info.type == tarfile.GNUTYPE_SPARSE and block[482]
                while extended:
                    more = self._take(_BLOCK)
                    extended = len(more) == _BLOCK and more[504]
                self._skip(_padded(size))
                return OtherMember(name, start)
            return self._regular(name, start, size)

    def _regular(self, name: str, start: int, size: int) -> Member | Damage:
        offset = self.offset
        if size > self._max_bytes:
            if self._skip(_padded(size)) < size:
                return Damage(name, start, f"The tar is cut off in {name!r}, which starts at byte {start:,}.")
            return Member(name, start, offset, size, None)
        data = self._take(size)
        if len(data) < size:
            return Damage(
                name,
                start,
                f"The tar is cut off in {name!r}, which starts at byte {start:,}: {len(data):,} of its {size:,} bytes "
                "are there.",
            )
        padding = self._take(_padded(size) - size)
        following = self._take(_BLOCK)
        whole = len(following) < _BLOCK or following.count(0) == _BLOCK or _header(following) is not None
        found = -1 if whole else _find_header(data + padding + following)
        if found < 0:
            self._put_back(following)
            return Member(name, start, offset, size, data)
        self._put_back((data + padding + following)[found:])
        return Damage(
            name,
            start,
            f"{name!r}, which starts at byte {start:,}, is damaged: another member starts within it, at byte "
            f"{offset + found:,}.",
        )

    def _resume(self, start: int, last: str | None) -> Damage:
        """Search for the next header, and go on there."""
        where = f"after {last!r} " if last else ""
        skipped = max(self.offset - start, 0)
        window = self._take(_SEARCH)
        window_start = start + skipped
        while True:
            found = _find_header(window[1:])
            if found >= 0:
                self._put_back(window[1 + found :])
                return Damage(
                    None,
                    start,
                    f"The tar is damaged {where}at byte {start:,}: there is no header. It is read on at byte "
                    f"{window_start + 1 + found:,}.",
                )
            more = self._take(_SEARCH)
            if not more:
                return Damage(None, start, f"The tar is damaged {where}from byte {start:,} to its end: no header.")
            keep = window[-(_BLOCK + 1) :]
            window_start += len(window) - len(keep)
            window = keep + more

    def _take(self, size: int) -> bytes:
        data, self._back = self._back[:size], self._back[size:]
        if len(data) < size:
            more = self._stream.read(size - len(data))
            data = data + more if data else more
        self.offset += len(data)
        return data

    def _put_back(self, data: bytes) -> None:
        self._back = data + self._back
        self.offset -= len(data)

    def _skip(self, size: int) -> int:
        skipped = 0
        while skipped < size and (part := self._take(min(_SEARCH, size - skipped))):
            skipped += len(part)
        return skipped


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    return info if info.size >= 0 else None


def _find_header(data: bytes) -> int:
    """Return where the first valid header starts, at any byte; -1 where there is none."""
    place = data.find(_MAGIC, _MAGIC_AT)
    while place >= 0:
        start = place - _MAGIC_AT
        if len(data) >= start + _BLOCK and _header(data[start : start + _BLOCK]) is not None:
            return start
        place = data.find(_MAGIC, place + 1)
    return -1


def _pax(data: bytes) -> dict[str, str]:
    """Return the records ``LENGTH KEY=VALUE`` of an extended header; those before the first that is damaged."""
    records: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(data):
            break
        key, equals, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if equals:
            records[_text(key)] = _text(value)
        data = data[int(length) :]
    return records


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
