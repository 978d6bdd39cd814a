"""The file name in a job's image URI is matched with the names in masks files."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from maskscore.client.mask_documents import scored_masks
from maskscore.export.file_metadata import read_file_metadata
from maskscore.formats import MasksDocumentError
from maskscore.formats.image_names import best, likeness
from maskscore.schema.job import Job, Mask, MasksRef
from maskscore.storage.uris import file_name_of

TRIANGLE = [[0, 0, 5, 0, 5, 5]]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///x/a%20b.jpg", "a b.jpg"),
        ("file:/x/100%25%3F.jpg", "100%?.jpg"),
        ("file:///x/a%2Fb.jpg", "b.jpg"),
        ("s3://bucket/x/a%20b.jpg", "a%20b.jpg"),
        ("s3://bucket/x/a b#1?.jpg", "a b#1?.jpg"),
    ],
)
def test_only_a_file_uri_is_decoded(uri: str, name: str) -> None:
    assert file_name_of(uri) == name


def coco(*names: str) -> bytes:
    images = [
        {"id": number, "file_name": f"train/{name}", "height": 9, "width": 9} for number, name in enumerate(names)
    ]
    annotations = [
        {"id": 10 + number, "image_id": number, "category_id": 1, "segmentation": TRIANGLE}
        for number in range(len(names))
    ]
    return json.dumps({"images": images, "annotations": annotations, "categories": []}).encode()


def cvat(*names: str) -> bytes:
    polygon = '<polygon label="a" points="0,0;5,0;5,5"/>'
    images = "".join(
        f'<image id="{number}" name="{name}" width="9" height="9">{polygon * (number + 1)}</image>'
        for number, name in enumerate(names)
    )
    return f"<annotations>{images}</annotations>".encode()


def label_studio(*names: str) -> bytes:
    points = {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["a"]}
    result = {"type": "polygonlabels", "original_width": 9, "original_height": 9, "value": points}
    return json.dumps(
        [
            {
                "id": number,
                "data": {"image": name},
                "annotations": [{"result": [{**result, "id": f"r{at}"} for at in range(number + 1)]}],
            }
            for number, name in enumerate(names)
        ]
    ).encode()


def masks(uri: str, document: bytes) -> int:
    job = Job(image=uri, masks=MasksRef(uri="s3://bucket/masks"))
    found = scored_masks(job, document, None)
    assert all(isinstance(mask, Mask) for mask in found)
    return len(found)


@pytest.mark.parametrize("write", [cvat, label_studio])
def test_masks_of_a_file_whose_name_has_a_space(write: Callable[..., bytes]) -> None:
    assert masks("file:///x/a%20b.jpg", write("c.jpg", "x/a b.jpg")) == 2
    assert masks("s3://bucket/a%20b.jpg", write("a b.jpg", "a%20b.jpg")) == 2


@pytest.mark.parametrize("url", ["https://host/x/a%20b.jpg", "file:///y/a%20b.jpg", "/data/local-files/?d=x/a%20b.jpg"])
def test_urls_of_label_studio_are_percent_encoded(url: str) -> None:
    assert masks("file:///x/a%20b.jpg", label_studio("c.jpg", url)) == 2
    assert masks("s3://bucket/a b.jpg", label_studio("c.jpg", url)) == 2


def test_coco_masks_and_entry_of_a_file_whose_name_has_a_space() -> None:
    document = coco("c.jpg", "a b.jpg")
    job = Job(image="file:///x/a%20b.jpg", masks=MasksRef(uri="s3://bucket/masks"))
    (mask,) = scored_masks(job, document, None)
    assert mask.id == "11"
    assert read_file_metadata(job, document).image["id"] == 1
    other = job.model_copy(update={"image": Job(image="s3://bucket/a%20b.jpg", masks=[]).image})
    assert read_file_metadata(other, document).image == {}
    with pytest.raises(MasksDocumentError, match="no images"):
        scored_masks(other, document, None)


SPELLINGS = [
    "https://host/x/train/a%20b.jpg?X-Amz-Date=1#2",
    "a b.jpg?X-Amz-Date=1",
    "C:\\x\\train\\a b.jpg",
    "train%5Ca%20b.jpg",
    "/data/upload/1/0a1b2c3d-a b.jpg",
]


@pytest.mark.parametrize("write", [coco, cvat, label_studio])
@pytest.mark.parametrize("name", SPELLINGS)
def test_a_name_as_other_tools_spell_it(write: Callable[..., bytes], name: str) -> None:
    document = write("c.jpg", name)
    assert masks("s3://bucket/train/a b.jpg", document) == (1 if write is coco else 2)
    if write is coco:
        job = Job(image="s3://bucket/train/a b.jpg", masks=MasksRef(uri="s3://bucket/masks"))
        assert read_file_metadata(job, document).image["id"] == 1


@pytest.mark.parametrize("write", [coco, cvat, label_studio])
def test_letters_are_the_same_in_other_code_points(write: Callable[..., bytes]) -> None:
    assert masks("s3://bucket/caf\u00e9.jpg", write("c.jpg", "cafe\u0301.jpg")) > 0
    assert masks("s3://bucket/cafe\u0301.jpg", write("c.jpg", "caf\u00e9.jpg")) > 0


@pytest.mark.parametrize("write", [cvat, label_studio])
def test_folders_decide_between_images_of_one_name(write: Callable[..., bytes]) -> None:
    document = write("val/a.jpg", "train/a.jpg", "C:\\x\\test\\a.jpg")
    assert [masks(f"s3://bucket/{folder}/a.jpg", document) for folder in ("val", "train", "test")] == [1, 2, 3]
    for uri in ("s3://bucket/else/a.jpg", "s3://bucket/b.jpg"):
        with pytest.raises(MasksDocumentError, match=r"has (no|3) (images|tasks)"):
            masks(uri, document)


def test_the_likest_name_is_the_best() -> None:
    def meant(image: str, *names: str) -> list[str]:
        return [names[position] for position in best(likeness(name, image) for name in names)]

    assert meant("x/train/a.jpg", "a.jpg", "val/a.jpg", "train/a.jpg") == ["train/a.jpg"]
    # A folder that is another one says less than none.
    assert meant("x/train/a.jpg", "a.jpg", "val/a.jpg") == ["a.jpg"]
    assert meant("a.jpg", "a.jpg", "val/a.jpg") == ["a.jpg", "val/a.jpg"]
    assert meant("train/a.jpg", "train/a.jpg", "old/train/a.jpg") == ["train/a.jpg"]
    assert meant("b.jpg", "a.jpg", "ab.jpg", "", "?b.jpg") == []
    # What stands there goes before what it may stand for.
    assert meant("a%20b.jpg", "a%20b.jpg", "a%2520b.jpg") == ["a%20b.jpg"]
