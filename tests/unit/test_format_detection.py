"""The format of a masks document is detected from its content."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import pytest

from maskscore.formats import MasksDocumentError, UnreadableMask, masks_of, read_masks
from maskscore.schema.document import MOST_LEVELS
from maskscore.schema.job import Mask
from maskscore.schema.result import Component, JobResult, JobState

SQUARE = [[0, 0, 5, 0, 5, 5]]
RLE = {"size": [2, 2], "counts": [0, 4]}


def read(document: Any, **options: Any) -> list[Mask | UnreadableMask]:
    return read_masks(json.dumps(document).encode(), **options)


def test_own_lists_and_objects() -> None:
    entries = [{"id": "a", "segmentation": SQUARE}, {"id": 2, "segmentation": RLE, "predicted_iou": 0.5}]
    for document in (entries, {"masks": entries}):
        masks = read(document)
        assert [mask.id for mask in masks] == ["a", "2"]
        assert masks[1].upstream == {"predicted_iou": 0.5}


def test_sa1b() -> None:
    image = {"image_id": 1, "width": 2, "height": 2, "file_name": "sa_1.jpg"}
    (mask,) = read({"image": image, "annotations": [{"id": 77, "segmentation": RLE, "stability_score": 1.0}]})
    assert (mask.id, mask.upstream) == ("77", {"stability_score": 1.0})


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "val/b.jpg"}, {"id": 3, "file_name": "b.jpg"}],
    "annotations": [
        {"id": 10, "image_id": 1, "category_id": 5, "iscrowd": 0, "segmentation": SQUARE},
        {"id": 11, "image_id": 2, "category_id": 6, "iscrowd": 1, "segmentation": RLE},
    ],
    "categories": [],
}


def test_coco_finds_its_image_by_name_or_by_id() -> None:
    assert [mask.id for mask in read(COCO, image_name="a.jpg")] == ["10"]
    assert [mask.id for mask in read(COCO, image_name="x", image_id=2)] == ["11"]
    assert [mask.id for mask in read(COCO, image_name="x", image_id="2")] == ["11"]
    assert read(COCO, image_id=3) == []
    alone = {**COCO, "images": COCO["images"][:1]}
    with pytest.warns(UserWarning, match="1 annotation is of no image that the file lists"):
        assert [mask.id for mask in read(alone, image_name="renamed.jpg")] == ["10"]


@pytest.mark.parametrize(
    ("document", "options", "words"),
    [
        (COCO, {"image_name": "b.jpg"}, "2 images"),
        (COCO, {"image_name": "z.jpg"}, "no images"),
        (COCO, {"image_id": 9}, "the id 9"),
        ({"a": 1}, {}, "no known layout"),
        ("seven", {}, "no known layout"),
    ],
)
def test_a_document_that_cannot_be_used_says_why(document: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(MasksDocumentError) as caught:
        read(document, **options)
    assert words in str(caught.value)


def test_what_is_not_json_is_refused() -> None:
    for data in (b"\x89PNG", b"{", b"[1,"):
        with pytest.raises(MasksDocumentError, match="not JSON"):
            read_masks(data)


def test_an_entry_that_is_no_mask_costs_only_itself() -> None:
    bad: list[Any] = [
        7,
        {"id": "x"},
        {"id": "y", "segmentation": {"size": [2], "counts": []}},
        {"id": "z", "segmentation": 5},
    ]
    masks = read([{"id": "a", "segmentation": RLE}, *bad])
    assert isinstance(masks[0], Mask)
    assert [type(mask) for mask in masks[1:]] == [UnreadableMask] * 4
    assert [mask.id for mask in masks] == ["a", "1", "x", "y", "z"]


def test_numbers_that_are_not_finite_leave_the_upstream_fields() -> None:
    (mask,) = read_masks(
        b'[{"id": "a", "segmentation": [[0, NaN, 1, 1, 2, 2]], "iou": NaN, "deep": {"x": [Infinity, 1]}}]'
    )
    assert mask.upstream == {"iou": None, "deep": {"x": [None, 1]}}


def states(document: Any) -> list[tuple[str, str | None]]:
    """Return each mask's id and, where it is unreadable, its message."""
    return [(mask.id, mask.message if isinstance(mask, UnreadableMask) else None) for mask in read(document)]


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, "1"), ("1", 1), ("a", "a"), ("", "")])
def test_of_masks_with_equal_ids_the_first_is_read(first: Any, second: Any) -> None:
    masks = read([{"id": first, "segmentation": RLE}, {"id": second, "segmentation": RLE, "iou": 0.5}, {"id": "z"}])
    assert isinstance(masks[0], Mask)
    taken = masks[1]
    assert isinstance(taken, UnreadableMask)
    assert (taken.id, taken.upstream) == (str(first), {"iou": 0.5})
    assert taken.message == (
        f"Entry 1 has the id {str(first)!r} that entry 0 has, too; ids must be unique within an image."
    )


def test_an_unreadable_mask_takes_no_id_from_a_good_one() -> None:
    found = states([{"id": 1, "segmentation": 7}, {"id": 1, "segmentation": RLE}, {"id": 1, "segmentation": None}])
    assert [(mask_id, message is None) for mask_id, message in found] == [("1", False), ("1", True), ("1", False)]


@pytest.mark.parametrize("nameless", [{"segmentation": RLE}, {"id": None, "segmentation": RLE}])
def test_a_position_gives_way_to_an_id(nameless: dict[str, Any]) -> None:
    assert [message for _, message in states([nameless, nameless])] == [None, None]
    for owned in ("0", 0):
        found = states([nameless, {"id": owned, "segmentation": RLE}])
        assert found == [
            (
                "0",
                "Entry 0 has no id, and its position 0 is an id that entry 1 has, too; ids must be unique within an "
                "image.",
            ),
            ("0", None),
        ]


@pytest.mark.parametrize("mask_id", [{}, [], [1], {"a": 1}, True, False, 1.5, math.nan, math.inf])
def test_what_is_no_id_costs_only_its_mask(mask_id: Any) -> None:
    found = states(
        [{"id": "a", "segmentation": RLE}, *[{"id": mask_id, "segmentation": RLE}] * 2, {"segmentation": RLE}]
    )
    assert [identifier for identifier, _ in found] == ["a", "1", "2", "3"]
    assert [message is None for _, message in found] == [True, False, False, True]
    assert "neither a text nor an integer" in str(found[1][1])


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_deep_fields_cost_their_mask_and_the_rest_can_be_written_and_read_back() -> None:
    masks = read([{"id": n, "segmentation": RLE, "deep": nested(n)} for n in (MOST_LEVELS, MOST_LEVELS + 1, 190)])
    assert [isinstance(mask, Mask) for mask in masks] == [True, False, False]
    assert masks[0].upstream == {"deep": nested(MOST_LEVELS)}
    assert [mask.upstream for mask in masks[1:]] == [{}, {}]
    component = Component(id="1", index=0, upstream=masks[0].upstream)
    result = JobResult(job_id="j", state=JobState.SUCCEEDED, components=[component])
    assert JobResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize("others", [[], [1.5, None, True, "a", [1, 2.5], {"b": [0.5]}], [math.nan], [[]]])
@pytest.mark.parametrize("levels", [MOST_LEVELS - 1, MOST_LEVELS, MOST_LEVELS + 1])
def test_a_field_is_kept_or_costs_its_mask_whatever_other_masks_have(levels: int, others: list[Any]) -> None:
    deep = nested(levels - 1)
    # The innermost list is empty.
    innermost = deep
    while innermost[0] != 1:
        innermost = innermost[0]
    innermost[0] = []
    given = [deep, {"deep": {"number": -math.inf, "list": [math.nan, 2, "a"]}}, *others]
    masks = masks_of([{"id": n, "segmentation": RLE, "field": field} for n, field in enumerate(given)])
    assert isinstance(masks[0], Mask) == (levels <= MOST_LEVELS)
    assert masks[0].upstream == ({"field": deep} if levels <= MOST_LEVELS else {})
    assert masks[1].upstream == {"field": {"deep": {"number": None, "list": [None, 2, "a"]}}}
    assert [mask.upstream["field"] for mask in masks[2:]] == [None if other is math.nan else other for other in others]
    (alone,) = masks_of([{"id": 1, "segmentation": RLE, "field": deep}])
    assert (alone.upstream, isinstance(alone, Mask)) == (masks[0].upstream, isinstance(masks[0], Mask))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"masks":' * 100_000,
        '[{"id": 1' + "0" * 5000 + ', "segmentation": []}]',
        '[{"id": "\\ud800", "segmentation": []}]',
        '[{"id": "\ud800", "segmentation": []}]',
        '[{"id": 1}] [',
        "[,]",
    ],
)
def test_what_no_reader_of_json_takes_is_refused(text: str) -> None:
    with pytest.raises(MasksDocumentError, match="not JSON"):
        read_masks(text.encode(errors="surrogatepass"))


def test_odd_but_good_json_is_read() -> None:
    digits = "1" + "0" * 4000
    text = f'\ufeff[{{"id": {digits}, "segmentation": [[0, 0, 1e400, 0, 5, 5]], "n": {digits}, "a\\u0000": 1e999}}]'
    (mask,) = read_masks(text.encode())
    assert isinstance(mask, Mask)
    assert mask.id == digits
    assert mask.upstream == {"n": int(digits), "a\0": None}
    (nul,) = read([{"id": "a\0b", "segmentation": RLE}])
    assert (type(nul), nul.id) == (Mask, "a\0b")


def test_the_number_of_entries_is_known_before_they_are_read() -> None:
    seen = []

    def refuse(count: int) -> None:
        seen.append(count)
        raise MasksDocumentError("too many")

    with pytest.raises(MasksDocumentError, match="too many"):
        read_masks(json.dumps([{"id": n} for n in range(1000)]).encode(), check_count=refuse)
    assert seen == [1000]


def test_a_million_errors_take_the_memory_of_one() -> None:
    many = "0," * 500_000 + "0"
    texts = [
        '{"id": 1, "segmentation": [[' + '"",' * 300_000 + "0]]}",
        '{"id": 1, "segmentation": [' + many + "]}",
        '{"id": 1, "segmentation": {"size": [2, 2], "counts": [' + '"",' * 300_000 + "0]}}",
        '{"id": 1, "segmentation": {' + ",".join(f'"{n}": 0' for n in range(100_000)) + "}}",
        '{"id": 1, "segmentation": {"size": [' + many + '], "counts": ""}}',
    ]
    for text in texts:
        data = f"[{text}]".encode()
        tracemalloc.start()
        try:
            (mask,) = read_masks(data)
            assert tracemalloc.get_traced_memory()[1] < 40 * len(data)
        finally:
            tracemalloc.stop()
        assert isinstance(mask, UnreadableMask)
        assert len(mask.message) < 700
