"""Which layout a file has: its content says it, not its name."""

from __future__ import annotations

import codecs
from pathlib import Path

from maskscore.formats.containers import opened, unwrapped
from maskscore.formats.format import Kind
from maskscore.formats.json_documents import layout_of_json, parse_json
from maskscore.formats.json_stream import sketch
from maskscore.formats.layouts import FORMATS, Layout
from maskscore.formats.magic import kind_by_magic
from maskscore.formats.optional_modules import formats_extra
from maskscore.formats.outcomes import MasksDocumentError
from maskscore.formats.registry import recognised_folder, recognised_text

__all__ = ["Kind", "detect", "kind_of", "starts_with_class"]

_HEAD_BYTES = 4096
# Larger documents are looked at, and not read whole.
_SMALL_BYTES = 1 << 24


def detect(source: Path | bytes) -> Layout:
    """Return the layout of a file, a folder, or a file's bytes.

    Raises :class:`~maskscore.formats.MasksDocumentError` that names the known formats where it is none of them, and
    OSError where a path cannot be read.
    """
    if isinstance(source, Path) and source.is_dir():
        from maskscore.formats.sam_folder import is_sam_output

        if is_sam_output(source):
            return FORMATS["sam-folder"]
        if (folder := recognised_folder(source)) is not None:
            return FORMATS[folder]
        raise MasksDocumentError(
            f"{source} is no folder of SAM's command line (there is no metadata.csv in it), nor one of videos with a "
            f"PNG per frame. {_known()}"
        )
    try:
        with formats_extra():
            return FORMATS[_detected(source)]
    except MasksDocumentError as error:
        where = f"{source}: " if isinstance(source, Path) else ""
        raise MasksDocumentError(f"{where}{error} {_known()}") from error


def kind_of(data: bytes) -> Kind:
    """Return what the first bytes of a file are; what is nothing else is taken for JSON, whose parser says why not."""
    if (known := kind_by_magic(data)) is not None:
        return known
    head = data[:_HEAD_BYTES].removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(b"<"):
        return "xml"
    if recognised_text(head) is not None:
        return "lines"
    tokens, _, further = head.partition(b"\n")
    # Ultralytics writes a class without a polygon for a mask that it has lost in scaling. A number alone is JSON, too.
    few = bool(further.strip()) and starts_with_class(head)
    return "numbers" if (few or len(tokens.split()) >= 5) and _are_numbers(tokens) else "json"


def starts_with_class(data: bytes) -> bool:
    """Say whether the first line is a whole number, and at most a few numbers more, as YOLO's of a lost mask."""
    line = data[:_HEAD_BYTES].removeprefix(codecs.BOM_UTF8).lstrip().split(b"\n", 1)[0]
    tokens = line.split()
    return 0 < len(tokens) < 5 and tokens[0].isdigit() and _are_numbers(line)


def _known() -> str:
    return f"Known formats: {', '.join(FORMATS)}."


def _are_numbers(line: bytes) -> bool:
    return all(map(_is_number, line.split()[:5]))


def _is_number(token: bytes) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return token[-1:] != b","


def _detected(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        data, large = unwrapped(source), False
    else:
        with opened(source) as file:
            large = source.stat().st_size > _SMALL_BYTES
            data = file.read(_HEAD_BYTES if large else _SMALL_BYTES + 1)
            large = large or len(data) > _SMALL_BYTES
    kind = kind_of(data)
    if kind in ("png", "picture"):
        from maskscore.formats.png import layout_of_png

        return layout_of_png(source.read_bytes() if large and isinstance(source, Path) else data)
    if kind in ("npz", "npy"):
        return "npz"
    if kind == "xml":
        return "cvat"
    if kind == "numbers":
        return "yolo"
    if kind == "lines" and (name := recognised_text(data[:_HEAD_BYTES].lstrip())) is not None:
        return name
    if large and isinstance(source, Path):
        return layout_of_json(sketch(source))
    return layout_of_json(parse_json(data))
