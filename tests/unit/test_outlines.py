"""One outline through all borders of a mask is drawn back to the mask, as OpenCV's fillPoly draws it."""

from __future__ import annotations

import hypothesis.extra.numpy as npst
import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from maskscore.masks import filled_outline_spans
from maskscore.masks.arrays import joined_outline

Bits = npt.NDArray[np.bool_]


def filled(outline: npt.NDArray[np.int64], shape: tuple[int, ...]) -> Bits:
    height, width = shape
    flat = np.zeros(height * width, np.bool_)
    for start, stop in filled_outline_spans(outline.ravel().tolist(), height, width):
        flat[start:stop] = True
    return flat.reshape(width, height).T


@given(npst.arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_a_mask_in_one_piece_comes_back_with_its_holes(bits: Bits) -> None:
    labels, count = ndimage.label(bits, np.ones((3, 3)))
    for number in range(1, count + 1):
        piece = labels == number
        np.testing.assert_array_equal(filled(joined_outline(piece), piece.shape), piece)
    if count > 1:
        assert (filled(joined_outline(bits), bits.shape) >= bits).all()


def test_holes_in_holes_and_large_noise() -> None:
    rings = np.zeros((41, 41), np.bool_)
    for margin in range(0, 20, 2):
        rings[margin : 41 - margin, margin : 41 - margin] ^= True
    rings[:, 20] = True
    np.testing.assert_array_equal(filled(joined_outline(rings), rings.shape), rings)
    noise = np.random.default_rng(1).random((120, 90)) < 0.8
    labels, _ = ndimage.label(noise, np.ones((3, 3)))
    piece = labels == np.bincount(labels[noise]).argmax()
    assert ndimage.label(~piece)[1] > 300
    np.testing.assert_array_equal(filled(joined_outline(piece), piece.shape), piece)


def test_parts_are_joined_by_short_lines() -> None:
    bits = np.zeros((20, 60), np.bool_)
    bits[2:10, 1:9] = bits[4:12, 14:24] = bits[15:17, 50:58] = True
    more = filled(joined_outline(bits), bits.shape) & ~bits
    # Between the first two lie 5 columns, between the second and the third 26.
    assert 0 < more.sum() <= 5 + 26


def test_an_outline_has_three_points_and_only_corners() -> None:
    bits = np.zeros((9, 9), np.bool_)
    bits[4, 3] = True
    assert joined_outline(bits).tolist() == [[3, 4]] * 3
    bits[2:7, 1:8] = True
    assert sorted(map(tuple, joined_outline(bits).tolist())) == [(1, 2), (1, 6), (7, 2), (7, 6)]
