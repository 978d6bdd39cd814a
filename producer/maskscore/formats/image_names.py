"""Which image a file of masks means by a path, a file name or a URL, which other tools spell in many ways.

Known spellings, each tried after the ones before it: the text as it stands; without a URL's query and fragment
(``photo.jpg?X-Amz-Date=...``); with ``\\`` as a separator; percent-decoded; and without the eight characters that Label
Studio puts before the name of an uploaded file (``/data/upload/1/0a1b2c3d-photo.jpg``). Accented letters are the same
letters composed or not (Unicode's NFC and NFD: macOS writes the latter). An image is meant where the last parts are
equal; where several images have this name, by the folders before it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote

__all__ = ["Likeness", "best", "composed", "likeness", "parts_of", "spellings"]

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^/]*/")
_UPLOADED: Final = re.compile(r"(.*/upload/(?:[^/]+/)?)[0-9A-Za-z]{8}-([^/]+)", re.DOTALL)


class Likeness(NamedTuple):
    """How a name means an image; the smallest is the best.

    ``parts`` counts the equal parts at the ends of both, as a negative number. ``against``: a folder of the one is not
    that of the other. ``spelling`` is the number of the spelling that fits, 0 for the text as it stands. ``longer``:
    the name has further folders where the image's path has none.
    """

    parts: int
    against: bool
    spelling: int
    longer: bool


def spellings(name: str) -> list[str]:
    """Return the paths that a name may stand for, the text itself first, without doubles."""
    found = [name]
    path = re.split(r"[?#]", _SCHEME.sub("/", name, count=1), maxsplit=1)[0]
    slashes = path.replace("\\", "/")
    decoded = unquote(slashes).replace("\\", "/")
    uploaded = _UPLOADED.fullmatch(decoded)
    for text in (path, slashes, decoded, "".join(uploaded.groups()) if uploaded else ""):
        if text and text not in found:
            found.append(text)
    return found


def composed(text: str) -> str:
    """Return the text with its letters composed (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def parts_of(path: str) -> tuple[str, ...]:
    """Return a path's parts, composed, without empty ones and ``.``."""
    return tuple(part for part in composed(path).split("/") if part not in ("", "."))


def likeness(name: object, image: str) -> Likeness | None:
    """Say how a name in a file means an image, whose path or file name is ``image``; ``None`` where it does not."""
    if not isinstance(name, str):
        return None
    wanted = parts_of(image)
    for number, spelling in enumerate(spellings(name)):
        parts = parts_of(spelling)
        if common := _common_tail(parts, wanted):
            left = len(parts) - common, len(wanted) - common
            against = min(left) > 0
            # Of names whose folders are others, none is better for its spelling.
            return Likeness(-common, against, 0 if against else number, left[0] > 0 and common > 1)
    return None


def best(likenesses: Iterable[Likeness | None]) -> list[int]:
    """Return the positions of the best: one where it is clear, several where it is not, none where none fits."""
    fitting = [(like, position) for position, like in enumerate(likenesses) if like is not None]
    least = min((like for like, _ in fitting), default=None)
    return [position for like, position in fitting if like == least]


def _common_tail(some: tuple[str, ...], others: tuple[str, ...]) -> int:
    count = 0
    for one, other in zip(reversed(some), reversed(others), strict=False):
        if one != other:
            break
        count += 1
    return count
