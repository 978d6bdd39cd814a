"""Counts decoded with arrays equal those of the plain reader and of pycocotools."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from maskscore.masks import encode_mask
from maskscore.masks.arrays import Runs, bits_in_box, box_of_runs, read_counts, read_texts, union
from maskscore.schema.rle_text import counts_from_text, text_from_counts


def filled(runs: Runs, pixels: int) -> npt.NDArray[np.bool_]:
    flat = np.zeros(pixels, bool)
    for start, stop in zip(runs.starts, runs.stops, strict=True):
        assert start < stop
        flat[start:stop] = True
    return flat


def plain(counts: list[int]) -> npt.NDArray[np.bool_]:
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


@settings(max_examples=300)
@given(st.lists(st.integers(0, 3) | st.integers(0, 5000), max_size=40))
@example([])
@example([0])
@example([7])
@example([0, 7])
@example([0, 0, 0, 3, 0, 3, 0])
def test_runs_are_those_of_the_plain_reader(counts: list[int]) -> None:
    pixels = sum(counts)
    for given_ in (counts, text_from_counts(counts)):
        np.testing.assert_array_equal(filled(read_counts(given_, pixels=pixels), pixels), plain(counts))


@given(st.lists(st.integers(0, (1 << 33) - 1), min_size=1, max_size=30))
def test_long_runs_are_read_to_the_last_bit(counts: list[int]) -> None:
    runs = read_counts(text_from_counts(counts), pixels=sum(counts))
    assert int((runs.stops - runs.starts).sum()) == sum(counts[1::2])


def refusal(read: Callable[[], object]) -> str | None:
    """Return the sentence with which counts are refused; ``None`` where they are read."""
    try:
        read()
    except ValueError as error:
        return str(error)
    return None


alphabet = st.sampled_from([chr(48 + bits) for bits in range(64)])


@settings(max_examples=500)
@given(st.text(max_size=40) | st.text(alphabet, max_size=40))
@example("")
@example("P")
@example("o" * 20)
@example("\ud800")
@example("0p0")
def test_a_text_is_refused_as_the_plain_reader_refuses_it(text: str) -> None:
    fault = refusal(lambda: counts_from_text(text))
    if fault is not None:
        assert refusal(lambda: read_counts(text, pixels=100)) == fault
        return
    counts = counts_from_text(text)
    pixels = sum(counts)
    runs = read_counts(text, pixels=pixels)
    assert int((runs.stops - runs.starts).sum()) == sum(counts[1::2])
    assert f"add up to {pixels}, but" in str(refusal(lambda: read_counts(text, pixels=pixels + 1)))


@given(st.lists(st.integers(-(2**70), 2**70) | st.integers(-5, 5), max_size=20))
@example([2**62, 2**62, 2**62, 2**62 + 100])
@example([2**63])
@example([-(2**63) - 1])
def test_a_list_is_read_or_refused(counts: list[int]) -> None:
    fault = refusal(lambda: read_counts(counts, pixels=100))
    if fault is not None:
        assert ("negative" in fault) == any(run < 0 for run in counts)
        assert "negative" in fault or sum(counts) != 100
    else:
        assert min(counts) >= 0
        np.testing.assert_array_equal(filled(read_counts(counts, pixels=100), 100), plain(counts))


masks = arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)), fill=st.booleans())


@given(masks)
def test_bits_are_cocos_inside_the_smallest_box(mask: npt.NDArray[np.bool_]) -> None:
    rle = encode_mask(mask)
    runs = read_counts(rle.counts, pixels=mask.size)
    if not mask.any():
        assert not len(runs.starts)
        return
    box = x, y, width, height = box_of_runs(runs, mask.shape[0])
    bits = bits_in_box(runs, box, mask.shape[0])
    assert [x, y, width, height] == coco.toBbox({"size": list(mask.shape), "counts": rle.counts}).tolist()
    np.testing.assert_array_equal(bits, mask[y : y + height, x : x + width])


@settings(max_examples=300)
@given(st.lists(arrays.arrays(bool, (7, 9), fill=st.booleans()), min_size=1, max_size=6))
def test_masks_read_in_one_go_are_those_read_alone(masks: list[npt.NDArray[np.bool_]]) -> None:
    texts = [str(encode_mask(mask).counts) for mask in masks]
    read = read_texts(texts, height=7, width=9)
    assert (read is not None) == all(mask.any() for mask in masks)
    for text, found in zip(texts, read or (), strict=False):
        alone = read_counts(text, pixels=63)
        np.testing.assert_array_equal(found.runs.edges, alone.edges)
        assert (found.box, found.area) == (box_of_runs(alone, 7), alone.area)


@settings(max_examples=500)
@given(
    st.lists(
        st.text(max_size=20) | st.text(alphabet, max_size=20) | st.just(text_from_counts([5, 20, 38])),
        min_size=1,
        max_size=4,
    )
)
@example([text_from_counts([0, 0, 0, 3, 0, 3, 57]), text_from_counts([5, 20, 38])])
@example([text_from_counts([5, 20, 38]), ""])
@example([text_from_counts([5, 20, 39]), text_from_counts([5, 20, 37])])
@example(["P", "P"])
@example(["o" * 20, "\ud800"])
@example(["ooooooooooN" * 9])
@example(["P" * 6 + "5", text_from_counts([5, 20, 38])])
@example(["U" + "P" * 5 + "0" + text_from_counts([20, 38]), text_from_counts([5, 20, 38])])
def test_of_many_texts_none_is_read_where_one_is_refused(texts: list[str]) -> None:
    def is_read_alone(text: str) -> bool:
        return refusal(lambda: read_counts(text, pixels=63)) is None and len(read_counts(text, pixels=63).starts) > 0

    assert (read_texts(texts, height=7, width=9) is not None) == all(map(is_read_alone, texts))


def test_runs_whose_sum_overflows_are_those_of_no_image() -> None:
    side = 1 << 14
    whole = text_from_counts([0, side * side])
    assert read_texts([whole, whole], height=side, width=side) is not None
    overflowing = text_from_counts([side * side] * 17)
    assert refusal(lambda: read_counts(overflowing, pixels=side * side)) is not None
    assert read_texts([whole, overflowing], height=side, width=side) is None
    # Sums over many masks overflow, and each is read.
    read = read_texts([whole, text_from_counts([7, 2, side * side - 9])] * 20, height=side, width=side)
    assert read is not None
    assert [mask.area for mask in read] == [side * side, 2] * 20
    assert read[-1].runs.edges.tolist() == [7, 9]


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 30)), max_size=12))
def test_a_union_has_no_overlap(runs: list[tuple[int, int]]) -> None:
    starts = np.asarray([start for start, _ in runs], np.int64)
    stops = np.asarray([start + length for start, length in runs], np.int64)
    merged = union(Runs.between(starts, stops))
    np.testing.assert_array_equal(filled(merged, 120), filled(Runs.between(starts, stops), 120))
    assert (merged.starts[1:] > merged.stops[:-1]).all()
