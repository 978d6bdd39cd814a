"""What a file of masks may be wrapped in: gzip, a ZIP archive with one document, UTF-16 instead of UTF-8.

gzip: RFC 1952, also of several members. A ZIP archive is what CVAT exports: the document, and perhaps the images.
"""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from maskscore.formats.image_masks import MasksDocumentError

__all__ = ["MOST_BYTES", "opened", "unwrapped"]

MOST_BYTES = 1 << 28
"""The most that one image's file may unpack to, unless the caller says otherwise."""
# A dataset is read as a stream; this bounds the time.
_MOST_STREAMED_BYTES = 1 << 37
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_DOCUMENTS = (".json", ".jsonl", ".ndjson", ".xml")
# What the two libraries raise for an archive that is damaged, encrypted, or of a compression that they do not know.
_DAMAGED = (
    *(EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, struct.error),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError),
)
# In JSON without a mark of the byte order, the first character tells (RFC 4627, 3).
_UTF_16 = {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"[\x00": "utf-16-le",
    b"{\x00": "utf-16-le",
    b"\x00[": "utf-16-be",
    b"\x00{": "utf-16-be",
}


def unwrapped(data: bytes, most: int = MOST_BYTES) -> bytes:
    """Return the document that the bytes hold, in UTF-8; bytes that are wrapped in nothing as they are.

    A ZIP archive with arrays (NPZ) or without documents is left as it is. Raises
    :class:`~maskscore.formats.MasksDocumentError` for what is damaged, holds several documents, or unpacks to more than
    ``most`` bytes.
    """
    if not _is_wrapped(data[:2]):
        return data
    with _open(io.BytesIO(data), most) as file:
        return file.read()


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file and yield a stream of the document in it, in UTF-8, without a mark of the byte order.

    Raises as :func:`unwrapped` does, while it is read, and OSError where the file cannot be.
    """
    with path.open("rb") as file, _open(file, _MOST_STREAMED_BYTES) as document:
        yield document


def _is_wrapped(head: bytes) -> bool:
    return head == _GZIP or head == _ZIP[:2] or head in _UTF_16


@contextmanager
def _open(file: IO[bytes], most: int) -> Iterator[io.BufferedReader]:
    head = file.read(4)
    file.seek(0)
    if head[:2] == _GZIP:
        with gzip.GzipFile(fileobj=file) as unpacked, _open_text(unpacked, most) as document:
            yield document
    elif head == _ZIP and (name := _document_in(file)) is not None:
        with zipfile.ZipFile(file) as archive, _member(archive, name) as member, _open_text(member, most) as document:
            yield document
    else:
        file.seek(0)
        with _open_text(file, None) as document:
            yield document


def _document_in(file: IO[bytes]) -> str | None:
    """Return the name of the only document of a ZIP archive; ``None`` where it has arrays, or no documents."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
    except Exception:  # what is no archive is said by the reader of NPZ
        return None
    if any(name.endswith(".npy") for name in names):
        return None
    documents = [name for name in names if name.lower().endswith(_DOCUMENTS)]
    if len(documents) > 1:
        some = ", ".join(documents[:3])
        raise MasksDocumentError(
            f"The ZIP archive has {len(documents):,} documents ({some[:200]} ...): unpack it, and give the one that "
            "has the masks, or their folder."
        )
    return documents[0] if documents else None


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    try:
        return archive.open(name)
    except _DAMAGED as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> MasksDocumentError:
    reason = " ".join(str(error).split())[:200]
    return MasksDocumentError(f"The masks' archive is damaged, encrypted, or packed in another way: {reason}.")


@contextmanager
def _open_text(file: Any, most: int | None) -> Iterator[io.BufferedReader]:
    document: io.BufferedReader = io.BufferedReader(_Bounded(file, most))
    head = document.peek(4)[:4]
    encoding = _UTF_16.get(head[:2])
    if encoding is not None:
        document = io.BufferedReader(_Recoded(document, encoding))
    elif head.startswith(codecs.BOM_UTF8):
        document.read(len(codecs.BOM_UTF8))
    yield document


class _Bounded(io.RawIOBase):
    """A stream that ends in an error after so many bytes, and in one sentence where it is damaged."""

    def __init__(self, file: Any, most: int | None) -> None:
        self._file, self._most, self._read = file, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except _DAMAGED as error:
            raise _damaged(error) from error
        self._read += len(data)
        if self._most is not None and self._read > self._most:
            raise MasksDocumentError(
                f"The masks' file unpacks to more than {self._most:,} bytes (of a worker MASKSCORE_MAX_MASKS_BYTES)."
            )
        buffer[: len(data)] = data
        return len(data)


class _Recoded(io.RawIOBase):
    """UTF-16 as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            data = self._file.read(1 << 16)
            try:
                self._left = self._decoder.decode(data, final=not data).encode()
            except UnicodeError as error:
                raise MasksDocumentError(f"The masks are not UTF-16 text: {error}.") from error
            if not data:
                break
        taken, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)
