"""An object as a stream of bytes: ranges that are requested ahead, decompressed where it is compressed."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, Protocol

from maskscore.storage import ObjectRole, Objects

__all__ = ["RANGE_BYTES", "ByteStream", "DecompressedStream", "RangeStream", "open_stream"]

RANGE_BYTES: Final = 31 << 20
"""Bytes that one request asks for: less than the 32 MiB from which on an allocator takes new memory for each."""
AHEAD: Final = 4
"""Ranges that are requested or held at once, beside the one that is read: together 155 MiB."""

_MAGIC: Final = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_PIECE: Final = 1 << 16


class ByteStream(Protocol):
    """What is read from the front, once. ``seekable``: :meth:`seek` costs nothing, also backwards."""

    seekable: bool
    error: str | None
    """Why the stream has ended before its end; ``None`` where it has not."""

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end alone."""

    def seek(self, offset: int) -> None:
        """Go on at this byte."""


class RangeStream:
    """Bytes that ``read_range(start, length)`` returns, ``ahead`` ranges of ``range_bytes`` requested ahead by threads.

    Holds at most ``(ahead + 1) * range_bytes`` bytes. Use it as a context manager, by one thread.
    """

    seekable = True

    def __init__(
        self,
        read_range: Callable[[int, int], bytes],
        size: int,
        *,
        range_bytes: int = RANGE_BYTES,
        ahead: int = AHEAD,
    ) -> None:
        self._read_range, self._size = read_range, size
        self._range_bytes, self._ahead = range_bytes, ahead
        self._threads = ThreadPoolExecutor(ahead, thread_name_prefix="range")
        self._coming: deque[Future[bytes]] = deque()
        self._present, self._used, self._next = b"", 0, 0
        self.error: str | None = None

    def __enter__(self) -> RangeStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def seek(self, offset: int) -> None:
        """Go on at this byte; what was requested for elsewhere is dropped."""
        for future in self._coming:
            future.cancel()
        self._coming.clear()
        self._present, self._used, self._next = b"", 0, offset

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end. Raises as ``read_range`` does."""
        parts = []
        while size:
            if self._used == len(self._present):
                self._present, self._used = b"", 0
                self._request()
                if not self._coming:
                    break
                self._present = self._coming.popleft().result()
                # While this one is read, as many as before are on their way.
                self._request()
                continue
            part = self._present[self._used : self._used + size]
            self._used += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _request(self) -> None:
        while self._next < self._size and len(self._coming) < self._ahead:
            length = min(self._range_bytes, self._size - self._next)
            self._coming.append(self._threads.submit(self._read_range, self._next, length))
            self._next += length


class _RawFile(io.RawIOBase):
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(_PIECE if size < 0 else size)


class DecompressedStream:
    """Another stream, decompressed by pyarrow: ``gzip`` or ``zstd``. It is read once, from the front."""

    seekable = False

    def __init__(self, stream: ByteStream, compression: str) -> None:
        import pyarrow as pa

        self._file = pa.CompressedInputStream(pa.PythonFile(_RawFile(stream), mode="r"), compression)
        self._offset = 0
        self.error: str | None = None

    def seek(self, offset: int) -> None:
        """Read on to this byte. Raises ValueError for one that was passed."""
        if offset < self._offset:
            raise ValueError(f"byte {offset} of a compressed stream was passed")
        while self._offset < offset and self.read(min(_PIECE, offset - self._offset)):
            pass

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end, and where the compressed data is damaged (``error``)."""
        parts = []
        while size and self.error is None:
            try:
                part = self._file.read(min(size, _PIECE))
            except OSError as error:
                self.error = str(error)
                break
            if not part:
                break
            parts.append(part)
            size -= len(part)
        data = b"".join(parts)
        self._offset += len(data)
        return data


@contextmanager
def open_stream(
    objects: Objects, uri: str, *, etag: str | None, what: ObjectRole = "image", **ranges: Any
) -> Iterator[tuple[ByteStream, str]]:
    """Yield an object's bytes, decompressed if it begins as gzip or zstd, and the ETag that they are pinned to.

    ``what`` decides the codes of errors; ``ranges`` are :class:`RangeStream`'s. Raises
    :class:`~maskscore.errors.JobError` as :meth:`maskscore.storage.Objects.read_range` does, also while it is read.
    """
    head = objects.read_range(uri, 0, 4, what=what, etag=etag)
    pin = head.etag or etag

    def read_range(start: int, length: int) -> bytes:
        return objects.read_range(uri, start, length, what=what, etag=pin).data

    with RangeStream(read_range, head.size, **ranges) as stream:
        compression = next((name for magic, name in _MAGIC if head.data.startswith(magic)), None)
        yield (stream if compression is None else DecompressedStream(stream, compression)), pin or ""
