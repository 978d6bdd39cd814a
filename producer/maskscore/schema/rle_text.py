"""COCO's run-length encoding of masks: its text form. Needs nothing but Python.

The format is that of the COCO API (``maskApi.c``, ``rleToString`` and ``rleFrString``): runs in column-major order,
the first counting zeros; as text, each run in groups of five bits, lowest first, 48 added to each, bit six set while
more follow, and from the fourth run on the difference to the run two before.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["counts_from_text", "text_from_counts"]

_FIRST, _MORE, _SIGN = 48, 0x20, 0x10
# Seven groups hold every run of an image; more is an attack on memory or a damaged text.
_MOST_GROUPS = 7


def counts_from_text(text: str) -> list[int]:
    """Return the run lengths of COCO's compressed text.

    Raises ValueError that says what is wrong: a character outside the alphabet, a run cut off, a negative run.
    """
    if not text.isascii():
        raise ValueError("the compressed counts are not ASCII text")
    if text[:2] in ("b'", 'b"'):
        raise ValueError(
            "the compressed counts are what Python shows of bytes (b'...'): write `counts.decode()`, not `str(counts)`"
        )
    counts: list[int] = []
    value = groups = 0
    for position, byte in enumerate(text.encode()):
        bits = byte - _FIRST
        if not 0 <= bits < 64:
            raise ValueError(f"the compressed counts have {chr(byte)!r} at position {position}, which is no COCO text")
        value |= (bits & 0x1F) << (5 * groups)
        groups += 1
        if groups > _MOST_GROUPS:
            raise ValueError(f"the compressed counts have a run that is too long at position {position}")
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << (5 * groups)
        if len(counts) > 2:
            value += counts[-2]
        if value < 0:
            raise ValueError(f"run {len(counts)} of the compressed counts is negative ({value})")
        counts.append(value)
        value = groups = 0
    if groups:
        raise ValueError("the compressed counts end in the middle of a run")
    return counts


def text_from_counts(counts: Iterable[int]) -> str:
    """Return COCO's compressed text of run lengths."""
    characters = []
    runs = list(counts)
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & _SIGN else 0)
            characters.append(chr((bits | _MORE if more else bits) + _FIRST))
            if not more:
                break
    return "".join(characters)
