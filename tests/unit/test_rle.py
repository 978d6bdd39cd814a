"""RLE is encoded and decoded as pycocotools does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from maskscore.masks import encode_mask
from maskscore.schema.rle_text import counts_from_text, text_from_counts

bits = arrays.arrays(
    bool, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.booleans(), fill=st.booleans()
)


def coco_rle(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    rle: dict[str, Any] = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return rle


@given(bits)
def test_encoding_equals_cocos(mask: npt.NDArray[np.bool_]) -> None:
    rle = encode_mask(mask)
    assert isinstance(rle.counts, str)
    expected = coco_rle(mask)
    assert (list(rle.size), rle.counts.encode()) == (list(expected["size"]), expected["counts"])
    np.testing.assert_array_equal(coco.decode({"size": list(rle.size), "counts": rle.counts}).astype(bool), mask)


@given(st.lists(st.integers(0, 10_000_000), max_size=30))
def test_text_and_counts_are_each_others_inverse(counts: list[int]) -> None:
    assert counts_from_text(text_from_counts(counts)) == counts


@given(bits)
def test_cocos_text_is_read(mask: npt.NDArray[np.bool_]) -> None:
    counts = counts_from_text(coco_rle(mask)["counts"].decode())
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    np.testing.assert_array_equal(flat.reshape(mask.shape, order="F"), mask)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ü", "not ASCII"),
        ("0 1", "' '"),
        ("P", "middle of a run"),
        ("o" * 20, "too long"),
        ("A", "negative"),
    ],
)
def test_damaged_text_is_refused_with_its_fault(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        counts_from_text(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        counts = counts_from_text(text)
    except ValueError:
        return
    assert all(run >= 0 for run in counts)


@pytest.mark.parametrize("array", [np.zeros((2, 2, 3)), np.zeros(4), np.zeros((0, 5))])
def test_only_pictures_of_two_dimensions_are_masks(array: npt.NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="two-dimensional"):
        encode_mask(array)
