"""Masks files in gzip, ZIP, UTF-16, JSON Lines and JSON within JSON give the masks of the plain file."""

from __future__ import annotations

import contextlib
import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from in_memory_files import zip_file
from mask_files import cvat_runs, rle, shapes
from maskscore.formats import MasksDocumentError, detect, read_categories, read_dataset, read_masks
from maskscore.schema.job import Mask

MASKS = shapes()


SAM = [{"segmentation": rle(mask), "predicted_iou": 0.9, "stability_score": 0.8} for mask in MASKS]
COCO = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "height": 40, "width": 60} for n in range(2)],
    "annotations": [
        {"id": n, "image_id": n % 2, "category_id": 1, "segmentation": rle(mask)} for n, mask in enumerate(MASKS)
    ],
    "categories": [{"id": 1, "name": "dog"}],
}


def lines(values: list[Any]) -> bytes:
    return "\n".join(map(json.dumps, values)).encode() + b"\n\n"


WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip of two members": lambda data: gzip.compress(data[:40]) + gzip.compress(data[40:]),
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "UTF-16, big end first": lambda data: b"\xfe\xff" + data.decode().encode("utf-16-be"),
    "UTF-16 without a mark": lambda data: data.decode().encode("utf-16-le"),
    "UTF-8 with a mark": lambda data: b"\xef\xbb\xbf" + data,
    "ZIP": lambda data: zip_file({"annotations/instances.json": data, "images/a": b"\xff\xd8\xff"}),
    "UTF-16 in gzip": lambda data: gzip.compress(data.decode().encode("utf-16")),
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_a_wrapped_file_is_read_as_the_file_in_it(tmp_path: Path, name: str) -> None:
    plain, wrapped = (tmp_path / part for part in ("plain", "wrapped"))
    plain.write_bytes(json.dumps(COCO).encode())
    wrapped.write_bytes(WRAPPINGS[name](plain.read_bytes()))
    assert detect(wrapped).name == detect(wrapped.read_bytes()).name == "coco"
    assert list(read_dataset(wrapped)) == list(read_dataset(plain))
    assert list(read_categories(wrapped)) == COCO["categories"]
    assert read_masks(wrapped.read_bytes(), image_id=0) == read_masks(plain.read_bytes(), image_id=0)
    masks = read_masks(WRAPPINGS[name](json.dumps(SAM).encode()))
    assert masks == read_masks(json.dumps(SAM).encode())


def test_json_lines_and_json_written_twice_are_the_list() -> None:
    expected = read_masks(json.dumps(SAM).encode())
    assert all(isinstance(mask, Mask) for mask in expected)
    for data in (lines(SAM), gzip.compress(lines(SAM)), json.dumps(json.dumps(SAM)).encode()):
        assert detect(data).name == "sam"
        assert read_masks(data) == expected
    assert read_masks(lines(SAM[:1])) == expected[:1]
    with pytest.raises(MasksDocumentError, match="not JSON Lines: line 3"):
        read_masks(lines(SAM[:2]).rstrip() + b"\n{")


def test_json_lines_of_a_dataset(tmp_path: Path) -> None:
    results = [{**annotation, "score": 0.5} for annotation in COCO["annotations"]]
    for result in results:
        del result["id"]
    path = tmp_path / "results.jsonl"
    path.write_bytes(lines(results))
    assert detect(path).name == "detectron2"
    assert [(image.image, len(image.masks)) for image in read_dataset(path)] == [("0", 2), ("1", 1)]


@pytest.mark.parametrize("as_lines", [True, False])
def test_documents_of_several_images_in_one_file(tmp_path: Path, as_lines: bool) -> None:
    documents = [
        {
            "image": {"file_name": f"{name}.jpg", "height": 40, "width": 60},
            "annotations": [{"id": 1, "segmentation": rle(mask)}],
        }
        for name, mask in zip("abc", MASKS, strict=True)
    ]
    path = tmp_path / "all"
    path.write_bytes(lines(documents) if as_lines else json.dumps(documents).encode())
    assert detect(path).name == "sa1b"
    images = list(read_dataset(path))
    assert [(image.image, image.size) for image in images] == [(f"{name}.jpg", (40, 60)) for name in "abc"]
    assert read_masks(path.read_bytes(), image_name="b.jpg") == images[1].masks
    with pytest.raises(MasksDocumentError, match=r"no documents of the image with the file name 'd.jpg', of 3"):
        read_masks(path.read_bytes(), image_name="d.jpg")


def test_documents_that_do_not_name_their_image_stand_alone() -> None:
    own = {"masks": SAM}
    mmdet = {"labels": [1], "scores": [1], "bboxes": [[0, 0, 1, 1]], "masks": [SAM[0]["segmentation"]]}
    for document, name in ((own, "maskscore"), (mmdet, "mmdet"), (COCO, "coco")):
        one = json.dumps([document]).encode()
        assert detect(one).name == name
        assert read_masks(one, image_id=0) == read_masks(json.dumps(document).encode(), image_id=0)
        for several in (lines([document, document]), json.dumps([document, document]).encode()):
            with pytest.raises(MasksDocumentError, match="2 documents, and they do not say of which image"):
                read_masks(several, image_id=0)


def test_the_layout_of_a_large_file_is_that_of_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"image": {"file_name": "a.jpg"}, "annotations": SAM}
    via: dict[str, Any] = {"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": [], "file_attributes": {}}}
    labelme: dict[str, Any] = {"version": "5", "flags": {}, "shapes": [], "imagePath": "a.jpg", "imageData": None}
    supervisely: dict[str, Any] = {"tags": [], "size": {"height": 1, "width": 1}, "objects": []}
    mmdet: dict[str, Any] = {"labels": [1], "scores": [1], "bboxes": [[0, 0, 1, 1]], "masks": [SAM[0]["segmentation"]]}
    known = {
        "coco": COCO,
        "sam": SAM,
        "maskscore": {"masks": SAM},
        "sa1b": document,
        "via": via,
        "labelme": labelme,
        "supervisely": supervisely,
        "mmdet": mmdet,
        "grounded-sam2": {"image_path": "a.jpg", "annotations": SAM},
    }
    files = [(name, json.dumps(value).encode()) for name, value in known.items()]
    files += [("sam", lines(SAM)), ("sa1b", lines([document, document])), ("via", json.dumps(via, indent=1).encode())]
    files += [("via", json.dumps({"_via_settings": {"ui": {"a": [1]}}, "_via_img_metadata": via}).encode())]
    path = tmp_path / "large"
    for name, data in files:
        for wrapped in (data, gzip.compress(data)):
            path.write_bytes(wrapped)
            with monkeypatch.context() as patched:
                patched.setattr("maskscore.formats.detection._SMALL_BYTES", 1)
                assert detect(path).name == name
            assert detect(path).name == name


def cvat() -> bytes:
    runs, left, top, width, height = cvat_runs(MASKS[0])
    mask = f'<mask label="dog" rle="{runs}" left="{left}" top="{top}" width="{width}" height="{height}"/>'
    return f'<annotations><image id="0" name="a.jpg" width="60" height="40">{mask}</image></annotations>'.encode()


def test_cvats_zip(tmp_path: Path) -> None:
    path = tmp_path / "job.zip"
    path.write_bytes(zip_file({"annotations.xml": cvat(), "images/a": b"\xff\xd8\xff"}))
    assert detect(path).name == "cvat"
    assert [image.image for image in read_dataset(path)] == ["a.jpg"]
    assert read_masks(path.read_bytes()) == read_masks(cvat()) == read_masks(path.read_bytes(), format="cvat")


ZIP = zip_file({"a.json": b"[]"})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(json.dumps(SAM).encode())[:-9], "damaged"),
        (gzip.compress(b"x")[:10] + b"\xff" * 20, "damaged"),
        (zip_file({"a.json": b"[]", "b/c.json": b"[]"}), "2 documents (a.json, b/c.json ...): unpack it"),
        (ZIP.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"), "damaged"),
        (b"\xff\xfe[\x00\x00\xd8", "not UTF-16"),
        (gzip.compress(gzip.compress(b"[]")), "not JSON"),
    ],
    # The bytes hold the time.
    ids=["cut off", "no stream", "two documents", "encrypted", "half a character", "wrapped twice"],
)
def test_a_damaged_wrapping_says_so(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    for read in (lambda: read_masks(data), lambda: detect(path)):
        with pytest.raises(MasksDocumentError) as raised:
            read()
        assert words in str(raised.value)


@pytest.mark.parametrize("wrap", [gzip.compress, lambda data: zip_file({"a.json": data})])
def test_a_bomb_costs_no_more_than_is_allowed(wrap: Callable[[bytes], bytes]) -> None:
    bomb = wrap(b"[" + bytes(100_000_000).replace(b"\0", b" ") + b"]")
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(MasksDocumentError, match="unpacks to more than 1,000,000 bytes"):
            read_masks(bomb, max_bytes=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", WRAPPINGS)
@settings(max_examples=40)
@given(data=st.data())
def test_damaged_wrappings_are_masks_or_a_refusal(name: str, data: st.DataObject) -> None:
    damaged = bytearray(WRAPPINGS[name](json.dumps(SAM).encode()))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=3), "places"):
        damaged[place] = data.draw(st.integers(0, 255), "byte")
    with contextlib.suppress(MasksDocumentError):
        read_masks(bytes(damaged), max_bytes=1 << 20)
