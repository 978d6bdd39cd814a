"""Label Studio's encoding of a brush: runs of bytes of an RGBA image, packed into bits. Its alpha is the mask.

The encoding is that of https://github.com/thi-ng/umbrella (``packages/rle-pack``), big-endian bits: 32 for the number
of words; 5 for the bits per word, less one; four times 4 for the widths of a run's length, less one. Then blocks: one
bit that says whether one word is repeated, two that choose the width, the length less one in that width, and the one
word, or all of them. Label Studio packs ``height * width * 4`` words of 8 bits, row by row.

NumPy is imported where it is needed: what lists the formats does without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["decode_brush", "encode_brush"]

_CHANNELS, _ALPHA = 4, 3
# The widths of a run's length that Label Studio's own encoder uses.
_WIDTHS = (3, 4, 8, 16)


class _Bits:
    """Big-endian bits, read from the front. Raises ValueError past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._bits = 8 * len(data)
        self.position = 0

    def take(self, count: int) -> int:
        start, end = self.position, self.position + count
        self.check(count)
        first, last = start >> 3, (end + 7) >> 3
        self.position = end
        return (int.from_bytes(self._data[first:last], "big") >> (8 * last - end)) & ((1 << count) - 1)

    def bytes(self, count: int) -> npt.NDArray[np.uint8]:
        """Return the next ``count`` groups of 8 bits."""
        import numpy as np

        self.check(8 * count)
        first, shift = self.position >> 3, self.position & 7
        self.position += 8 * count
        source = np.frombuffer(self._data, np.uint8, count + (shift > 0), first)
        return source if not shift else ((source[:-1] << shift) | (source[1:] >> (8 - shift))).astype(np.uint8)

    def check(self, count: int) -> None:
        if self.position + count > self._bits:
            raise ValueError(f"its `rle` ends early, after {len(self._data):,} bytes")


def decode_brush(data: bytes, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return the mask, ``(height, width)`` bool, in which a pixel is inside where its alpha is not 0.

    Raises ValueError that says what is wrong: words of another size, another number of pixels, an end too early.
    """
    import numpy as np

    bits = _Bits(data)
    total, word = bits.take(32), bits.take(5) + 1
    widths = [bits.take(4) + 1 for _ in range(4)]
    if word != 8:
        raise ValueError(f"its `rle` has words of {word} bits, not of 8")
    if total != height * width * _CHANNELS:
        raise ValueError(
            f"its `rle` is of {total:,} bytes of RGBA, not of {width} x {height} pixels, which are "
            f"{height * width * _CHANNELS:,}"
        )
    alpha = np.zeros(height * width, np.bool_)
    position = 0
    while position < total:
        repeated = bits.take(1)
        end = position + 1 + bits.take(widths[bits.take(2)])
        if end > total:
            raise ValueError(f"its `rle` has more than the {total:,} bytes of RGBA that it states")
        # Alpha is the last of a pixel's bytes, so those among position ... end are of the pixels first ... last.
        first, last = position // _CHANNELS, end // _CHANNELS
        if repeated:
            alpha[first:last] = bits.take(8) != 0
        else:
            alpha[first:last] = bits.bytes(end - position)[first * _CHANNELS + _ALPHA - position :: _CHANNELS] != 0
        position = end
    return alpha.reshape(height, width)


def encode_brush(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return a mask, ``(height, width)`` bool, as the bytes that :func:`decode_brush` reads.

    All four channels of a pixel inside are 255, and of one outside 0, as in ``mask2rle`` of
    https://github.com/HumanSignal/label-studio-sdk (``src/label_studio_sdk/converter/brush.py``).
    """
    import numpy as np

    flat = mask.ravel()
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    bits = [f"{flat.size * _CHANNELS:032b}{8 - 1:05b}", *(f"{width - 1:04b}" for width in _WIDTHS)]
    for start, length in zip(edges[:-1].tolist(), (np.diff(edges) * _CHANNELS).tolist(), strict=True):
        word = "11111111" if flat[start] else "00000000"
        while length:
            taken = min(length, 1 << _WIDTHS[-1])
            number, width = next((number, width) for number, width in enumerate(_WIDTHS) if taken <= 1 << width)
            bits.append(f"1{number:02b}{taken - 1:0{width}b}{word}")
            length -= taken
    text = "".join(bits)
    size = -(-len(text) // 8)
    return list(int(text.ljust(8 * size, "0"), 2).to_bytes(size, "big"))
