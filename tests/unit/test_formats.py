"""Which layout a masks document has, shows in its content."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maskscore.formats import MasksDocumentError, UnreadableMask, read_masks
from maskscore.job import Mask

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


def test_records_of_sams_generator_are_called_by_their_position() -> None:
    record = {
        "segmentation": RLE,
        "area": 4,
        "bbox": [0, 0, 1, 1],
        "predicted_iou": 0.9,
        "point_coords": [[1.0, 1.0]],
        "stability_score": 0.8,
        "crop_box": [0, 0, 2, 2],
    }
    masks = read([record, record])
    assert [mask.id for mask in masks] == ["0", "1"]
    assert masks[0].upstream == {name: value for name, value in record.items() if name != "segmentation"}


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
    assert [mask.id for mask in read(alone, image_name="renamed.jpg")] == ["10"]


@pytest.mark.parametrize(
    ("document", "options", "words"),
    [
        (COCO, {"image_name": "b.jpg"}, "2 images"),
        (COCO, {"image_name": "z.jpg"}, "no images"),
        (COCO, {"image_id": 9}, "the id 9"),
        ({"a": 1}, {}, "no known layout"),
        (7, {}, "no known layout"),
        ([{"id": 1, "segmentation": RLE}, {"id": "1", "segmentation": RLE}], {}, "more than once: ['1']"),
    ],
)
def test_a_document_that_cannot_be_used_says_why(document: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(MasksDocumentError) as caught:
        read(document, **options)
    assert words in str(caught.value)


def test_what_is_not_json_is_refused() -> None:
    for data in (b"", b"\x89PNG", b"{", b"[1,"):
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
