"""Which format a file has: its content says it, not its name."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

from maskscore.formats.containers import opened, unwrapped
from maskscore.formats.format import Format, Kind, formats_extra, kind_by_magic
from maskscore.formats.image_masks import MasksDocumentError
from maskscore.formats.json_documents import format_of_documents, parse_json
from maskscore.formats.json_stream import sketch
from maskscore.formats.read_context import ReadContext
from maskscore.formats.registry import FORMATS, recognised, recognised_folder

__all__ = ["content_of", "detect", "format_of", "kind_of", "text_head"]

_HEAD_BYTES = 4096
# Of larger JSON documents a sketch is read, and not the whole.
_SMALL_BYTES = 1 << 24
_MOST_SNIFFED_BYTES = 1 << 20


def detect(source: Path | bytes, *, head_only: bool = False) -> Format:
    """Return the format of a file, a folder, or a file's bytes.

    With ``head_only``, COCO and its kinds are known by the first megabyte, if need be without their ``annotations``;
    the format may then be ``coco`` for ``coco-panoptic``, which has the same reader.

    Raises :class:`~maskscore.formats.MasksDocumentError` that names the known formats where it is none of them, and
    OSError where a path cannot be read.
    """
    known = f"Known formats: {', '.join(FORMATS)}."
    if isinstance(source, Path) and source.is_dir():
        if (folder := recognised_folder(source)) is not None:
            return folder
        kinds = "; ".join(format_.description for format_ in FORMATS.values() if format_.scope == "folder")
        raise MasksDocumentError(f"{source} is no folder of a known format ({kinds}). {known}")
    try:
        with formats_extra():
            return _detected(source, head_only)
    except MasksDocumentError as error:
        where = f"{source}: " if isinstance(source, Path) else ""
        raise MasksDocumentError(f"{where}{error} {known}") from error


def kind_of(data: bytes) -> Kind:
    """Return what the first bytes of a file are; what is nothing else is taken for JSON, whose parser says why not."""
    if (known := kind_by_magic(data)) is not None:
        return known
    head = text_head(data)
    if head.startswith(b"<"):
        return "xml"
    return "json" if recognised("text", head) is None else "text"


def text_head(data: bytes) -> bytes:
    """Return the first few kilobytes of a text, without the mark of the byte order and the white space before it."""
    return data[:_HEAD_BYTES].removeprefix(codecs.BOM_UTF8).lstrip()


def content_of(data: bytes, kind: Kind, context: ReadContext) -> Any:
    """Return what the functions of a format of this kind are given: see :class:`~maskscore.formats.format.Format`."""
    if kind == "json":
        return parse_json(data)
    if kind in ("png", "picture"):
        from maskscore.formats.picture_masks import picture_of

        return picture_of(data, context)
    return data


def format_of(content: Any, kind: Kind) -> Format:
    """Return the format of a content of this kind. Raises :class:`~maskscore.formats.MasksDocumentError`."""
    found = format_of_documents(content) if kind == "json" else None
    shown = text_head(content) if kind == "text" else content
    found = found or recognised(kind, shown)
    if found is None:
        names = ", ".join(name for name, format_ in FORMATS.items() if kind in format_.kinds)
        raise MasksDocumentError(f"The masks have no known layout. Known in {kind.upper()} are {names}.")
    return found


def _detected(source: Path | bytes, head_only: bool) -> Format:
    if isinstance(source, bytes):
        data, large = unwrapped(source), False
    else:
        most = _MOST_SNIFFED_BYTES if head_only else _SMALL_BYTES
        with opened(source) as file:
            large = source.stat().st_size > most
            data = file.read(_HEAD_BYTES if large else most + 1)
            large = large or len(data) > most
    kind = kind_of(data)
    if large and isinstance(source, Path):
        if kind == "json":
            return format_of(sketch(source, most_bytes=most if head_only else None), kind)
        if kind in ("png", "picture"):
            data = source.read_bytes()
    return format_of(content_of(data, kind, ReadContext()), kind)
