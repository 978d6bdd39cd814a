"""An entry of a file of many images belongs to the image with its id or its file name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mask_files import as_json
from maskscore.dataset.pairing import Pairing
from maskscore.dataset.storage_roots import FolderRoot
from maskscore.formats import MasksDocumentError, Orphans, detect, read_dataset, read_masks
from maskscore.schema.job import Mask
from maskscore.schema.plain_ids import id_key, plain_id
from maskscore.storage import Objects

SQUARE = [[20, 20, 70, 20, 70, 70, 20, 70]]
RLE = {"size": [120, 160], "counts": "hb:m1k1000000PV2"}


LISTS = {
    # sem_seg_predictions.json of Detectron2's SemSegEvaluator
    "file_name": [{"file_name": f"/data/{name}.png", "category_id": 1, "segmentation": SQUARE} for name in "aab"],
    # pycocotools' loadAnns, lvis
    "image_id beside id": [
        {"id": number, "image_id": name, "iscrowd": 0, "segmentation": SQUARE} for number, name in enumerate("aab")
    ],
    "image_id without score": [{"image_id": name, "category_id": 1, "segmentation": SQUARE} for name in "aab"],
    "own, in an object": {
        "masks": [{"id": n, "file_name": f"{name}.png", "segmentation": SQUARE} for n, name in enumerate("aab")]
    },
    "of SAM": [
        {"file_name": f"{name}.png", "segmentation": SQUARE, "predicted_iou": 1, "stability_score": 1} for name in "aab"
    ],
}


@pytest.mark.parametrize("document", LISTS.values(), ids=LISTS)
def test_a_list_of_several_images_gives_each_image_its_own(document: Any, tmp_path: Path) -> None:
    for name, count in (("a", 2), ("b", 1)):
        assert len(read_masks(as_json(document), image_name=f"{name}.png")) == count
    with pytest.raises(MasksDocumentError, match=r"masks of 2 images .* none of them with the file name 'c.png'"):
        read_masks(as_json(document), image_name="c.png")
    with pytest.raises(MasksDocumentError, match="masks of 2 images"):
        read_masks(as_json(document))
    if isinstance(document, list):
        assert detect(as_json(document)).name == "detectron2"
        (tmp_path / "a.json").write_bytes(as_json(document))
        found = [(Path(image.image).stem, len(image.masks)) for image in read_dataset(tmp_path / "a.json")]
        assert found == [("a", 2), ("b", 1)]


def test_a_list_of_another_image_is_refused_where_it_names_it() -> None:
    named = as_json([{"file_name": "a.png", "segmentation": SQUARE}])
    assert len(read_masks(named)) == len(read_masks(named, image_name="a.png")) == 1
    with pytest.raises(MasksDocumentError, match=r"masks of 1 image \(a.png\), and none of them"):
        read_masks(named, image_name="b.png")
    # An id says nothing about the name of the only image.
    assert len(read_masks(as_json([{"image_id": 7, "segmentation": SQUARE}]), image_name="b.png")) == 1
    ids = as_json([{"image_id": number, "segmentation": SQUARE} for number in (1, 2)])
    with pytest.raises(MasksDocumentError, match="give `image_id`"):
        read_masks(ids, image_name="b.png")
    assert len(read_masks(ids, image_name="000000000002.jpg")) == 1


def coco(image_id: Any, annotation_id: Any, owner: Any) -> dict[str, Any]:
    return {
        "images": [
            {"id": image_id, "file_name": "a.png", "height": 120, "width": 160},
            {"id": 9, "file_name": "b.png", "height": 120, "width": 160},
        ],
        "annotations": [{"id": annotation_id, "image_id": owner, "category_id": 1, "segmentation": SQUARE}],
        "categories": [{"id": 1, "name": "circle"}],
    }


SAME = [1, 1.0, "1", "1.0"]


@pytest.mark.parametrize("image_id", SAME)
@pytest.mark.parametrize("owner", SAME)
def test_ids_that_are_equal_as_numbers_are_equal(image_id: Any, owner: Any, tmp_path: Path) -> None:
    document = coco(image_id, 5.0, owner)
    (tmp_path / "a.json").write_bytes(as_json(document))
    first, second = read_dataset(tmp_path / "a.json")
    assert (first.image, second.image, second.masks) == ("a.png", "b.png", [])
    for masks in (
        first.masks,
        read_masks(as_json(document), image_name="a.png"),
        *(read_masks(as_json(document), image_id=asked) for asked in (1, "1")),
        read_masks(as_json(document["annotations"]), image_id=1),
    ):
        assert [(type(mask), mask.id) for mask in masks] == [(Mask, "5")]


def test_keys_of_ids() -> None:
    assert [plain_id(value) for value in (0, -3, 7.0, "12", "012", "a", "1e3", "-0")] == [
        0,
        -3,
        7,
        12,
        "012",
        "a",
        "1e3",
        0,
    ]
    assert [id_key(value) for value in (None, True, 0.5, float("nan"), float("inf"), "", [1])] == [None] * 7


ORPHANS = [{"id": 2, "image_id": 99, "segmentation": SQUARE}, {"id": 3, "segmentation": SQUARE}, 5]
SENTENCE = "3 annotations are of no image that the file lists (1 of image 99, 2 without `image_id`)"


def test_annotations_of_no_image_are_counted_and_named(tmp_path: Path) -> None:
    document = coco(1, 5, 1)
    document["annotations"] += ORPHANS
    (tmp_path / "a.json").write_bytes(as_json(document))
    in_dataset, in_masks = Orphans(), Orphans()
    images = list(read_dataset(tmp_path / "a.json", orphans=in_dataset))
    masks = read_masks(as_json(document), image_name="a.png", orphans=in_masks)
    assert [len(image.masks) for image in images] == [1, 0]
    assert len(masks) == 1
    assert str(in_dataset) == str(in_masks) == SENTENCE
    with pytest.warns(UserWarning, match="99"):
        list(read_dataset(tmp_path / "a.json"))
    with pytest.warns(UserWarning, match="99"):
        read_masks(as_json(document), image_name="a.png")


def test_a_run_counts_and_names_them(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(b"")
    document = coco(1, 5, 1)
    document["annotations"] += ORPHANS
    (tmp_path / "a.json").write_bytes(as_json(document))
    with Pairing(FolderRoot(images, Objects(buckets=None, result_buckets=None)), tmp_path / "a.json") as pairing:
        assert str(pairing.counts.orphans) == SENTENCE
        assert pairing.counts.document()["orphans"] == {
            "count": 3,
            "without_image": 2,
            "images": {"99": 1},
            "more_images": False,
        }
        (pair,) = pairing
        assert pair.inline is not None
        assert len(pair.inline.masks) == 1
    assert str(pairing.counts.orphans) == SENTENCE


def test_two_images_with_one_id_are_refused(tmp_path: Path) -> None:
    document = coco("9", 5, 9)
    (tmp_path / "a.json").write_bytes(as_json(document))
    with pytest.raises(MasksDocumentError, match=r"the image id 9 twice, of a.png and of b.png"):
        list(read_dataset(tmp_path / "a.json"))
    with pytest.raises(MasksDocumentError, match="2 images with the id 9"):
        read_masks(as_json(document), image_id=9)
