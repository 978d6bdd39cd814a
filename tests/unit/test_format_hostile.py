"""Hostile masks files end in a MasksDocumentError or in unreadable masks, within bounds of time and memory."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import to_json

from in_memory_files import npz_file, zip_file
from mask_files import brush_of, cvat_runs, label_map, png, png_claiming, shapes
from maskscore.formats import FORMATS, MasksDocumentError, Orphans, UnreadableMask, detect, read_dataset, read_masks
from maskscore.schema.job import Mask

MASKS = shapes()


def npy_header(descr: str, shape: str, version: int = 1) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2, "little") + text.encode()


def npz_of(member: bytes, name: str = "masks.npy") -> bytes:
    return zip_file({name: member})


def cvat(attributes: str = "", image: str = 'width="60" height="40"') -> bytes:
    return f'<annotations><image id="0" name="a" {image}><mask label="x" {attributes}/></image></annotations>'.encode()


def cvat_mask(**changed: object) -> bytes:
    runs, left, top, width, height = cvat_runs(MASKS[0])
    values = {"rle": runs, "left": left, "top": top, "width": width, "height": height, **changed}
    return cvat(" ".join(f'{name}="{value}"' for name, value in values.items()))


def label_studio(rle: Any, width: Any = 60, height: Any = 40, **value: Any) -> bytes:
    result = {
        "id": "a",
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "value": {"rle": rle, **value} if rle is not None else value,
    }
    return json.dumps([{"id": 1, "data": {"image": "a"}, "annotations": [{"id": 1, "result": [result]}]}]).encode()


GOOD = {
    "png": png(label_map(MASKS, [1, 2, 3])),
    "png of 16 bits": png(label_map(MASKS, [1, 2, 300], np.uint16)),
    "npz": npz_file(masks=np.stack(MASKS)),
    "npy": npy_header("'|b1'", "(3, 40, 60)") + np.stack(MASKS).tobytes(),
    "cvat": cvat_mask(),
    "brush": label_studio(brush_of(MASKS[0])),
    "yolo": b"1 0.1 0.1 0.5 0.1 0.5 0.5\n2 0 0 1 0 1 1 0.5\n",
    "summary": json.dumps([{"name": "x", "class": 1, "segments": {"x": [1, 2, 9], "y": [1, 9, 9]}}]).encode(),
}


def tried(data: bytes, **options: Any) -> list[Mask | UnreadableMask] | MasksDocumentError:
    """Return the masks or the refusal; anything else is the test's failure. No more than 64 MiB may be needed."""
    tracemalloc.start()
    try:
        return read_masks(data, image_name="a", size=(40, 60), orphans=Orphans(), **options)
    except MasksDocumentError as error:
        return error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 64 << 20


@pytest.mark.parametrize("name", GOOD)
def test_what_is_damaged_below_is_good(name: str) -> None:
    masks = tried(GOOD[name])
    assert isinstance(masks, list)
    assert masks
    assert all(isinstance(mask, Mask) for mask in masks)


@pytest.mark.parametrize("name", GOOD)
@given(data=st.data())
def test_damaged_bytes_cost_no_more_than_the_file(name: str, data: st.DataObject) -> None:
    good = GOOD[name]
    damaged = bytearray(good[: data.draw(st.integers(0, len(good)), "cut")])
    for place in data.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=4), "places"):
        if damaged:
            damaged[place] = data.draw(st.integers(0, 255), "byte")
    tried(bytes(damaged))


@pytest.mark.parametrize(
    "start", [b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"<annotations>", b"[{", b"1 1 1 1 1 "]
)
@given(rest=st.binary(max_size=300))
def test_random_bytes_after_a_good_start(start: bytes, rest: bytes) -> None:
    tried(start + rest)


@pytest.mark.parametrize("format_", FORMATS)
@given(data=st.binary(max_size=60) | st.text(alphabet='[]{}",:0123456789 <>/a.', max_size=60).map(str.encode))
def test_random_bytes_under_any_format(format_: str, data: bytes) -> None:
    tried(data, format=format_)


KEYS = [
    *("id", "image_id", "images", "annotations", "segmentation", "size", "counts", "masks", "image", "data", "result"),
    *("value", "rle", "points", "type", "segments", "x", "y", "box", "class", "confidence", "score", "category_id"),
    *("original_width", "original_height", "file_name", "coco_url", "segments_info", "predictions"),
    *(
        "labels",
        "scores",
        "bboxes",
        "visualization",
        "shapes",
        "imagePath",
        "shape_type",
        "mask",
        "regions",
        "filename",
    ),
    *(
        "shape_attributes",
        "_via_img_metadata",
        "objects",
        "height",
        "width",
        "bitmap",
        "origin",
        "exterior",
        "interior",
    ),
    *("annotation_id", "annotator", "image_path", "geometryType"),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@pytest.mark.parametrize("format_", [None, *(name for name, known in FORMATS.items() if "json" in known.kinds)])
@settings(max_examples=40)
@given(document=json_values | st.dictionaries(st.sampled_from(KEYS), json_values, max_size=6))
def test_any_json_is_masks_or_a_refusal(format_: str | None, document: Any) -> None:
    tried(json.dumps(document).encode(), format=format_)


@given(st.fixed_dictionaries({"id": json_values, "data": st.dictionaries(st.just("image"), json_values)}), json_values)
def test_any_task_of_label_studio_is_masks_or_a_refusal(task: dict[str, Any], results: Any) -> None:
    tried(
        json.dumps([{**task, "annotations": [{"result": results}, {"id": 1, "result": [{"value": results}]}]}]).encode()
    )


@pytest.mark.parametrize(
    "format_", ["coco", "lvis", "coco-panoptic", "detectron2", "label-studio", "label-studio-min", "via"]
)
@given(document=json_values | st.fixed_dictionaries({"images": json_values, "annotations": json_values}))
def test_any_json_is_a_dataset_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, format_: str, document: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / f"{format_}.json"
    path.write_text(json.dumps(document))
    try:
        images = list(read_dataset(path, format=format_, orphans=Orphans()))
    except MasksDocumentError:
        return
    for image in images:
        to_json(image.masks)


def test_a_result_can_hold_what_an_unreadable_mask_keeps() -> None:
    deep = "[" * 150 + "]" * 150
    text = (
        label_studio([])
        .decode()
        .replace('"id": "a"', f'"id": [7], "from_name": {deep}, "score": NaN, "image_rotation": 0')
    )
    found = tried(text.encode())
    assert isinstance(found, list)
    (mask,) = found
    assert isinstance(mask, UnreadableMask)
    assert (mask.id, mask.upstream) == ("0", {"score": None, "image_rotation": 0, "annotation_id": 1})


BOMB = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol" * 100}">' for n in range(9))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(png_claiming(200_000, 200_000), "at most 100,000,000 are unpacked", id="a PNG of 40 gigapixels"),
        pytest.param(png_claiming(9_000, 9_000), "cannot be decoded", id="a PNG of which most is missing"),
        pytest.param(GOOD["png"][:100], "cannot be decoded", id="a PNG that is cut"),
        pytest.param(npy_header("'|b1'", "(1000000, 100000, 100000)"), "at most 4,294,967,296", id="an NPY of 10 PB"),
        pytest.param(npy_header("'|b1'", "(3, 40, 60)"), "ends early", id="an NPY of nothing"),
        pytest.param(npy_header("'|b1'", "(20000, 40, 60)"), "ends early", id="an NPY of many"),
        pytest.param(npy_header("'|b1'", "(-3, 40, 60)"), "damaged", id="an NPY of negative size"),
        pytest.param(npy_header("'|O'", "(1, 40, 60)") + b"cos\nsystem\n(S'true'\ntR.", "never read", id="a pickle"),
        pytest.param(npz_of(npy_header("'|O'", "(1,)"), "masks.npy"), "never read", id="a pickle in an NPZ"),
        pytest.param(npy_header("'<c8'", "(1, 40, 60)"), "booleans, integers or floats", id="complex numbers"),
        pytest.param(npy_header("'<M8[s]'", "(1, 40, 60)"), "booleans, integers or floats", id="dates"),
        pytest.param(npy_header("[('a', '<i4')]", "(40, 60)"), "booleans, integers or floats", id="records"),
        pytest.param(npz_of(b"", "a.txt"), "has 0 arrays", id="an archive of something else"),
        pytest.param(npz_file(a=np.zeros((4, 4)), b=np.zeros((4, 4))), "which are the masks", id="two arrays"),
        pytest.param(npz_file(a=np.zeros(3)), "which are the masks", id="no stack"),
        pytest.param(npz_file(a=np.zeros((2, 3, 4, 5))), "known are", id="four dimensions"),
        pytest.param(f"<!DOCTYPE a [{BOMB}]><annotations>&l8;</annotations>".encode(), "DTD", id="a billion laughs"),
        pytest.param(
            b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations>&x;</annotations>',
            "DTD",
            id="a file by entity",
        ),
        pytest.param(b"<html></html>", "outermost element is 'html'", id="a web page"),
        pytest.param(b"<a" * 1000, "not XML", id="no XML"),
        pytest.param(b'<?xml version="1.0" encoding="none-such"?><annotations/>', "not XML", id="XML of no encoding"),
        pytest.param(b"1 \xff 3 4 5", "not JSON", id="neither text nor JSON"),
        pytest.param(b"1 2 3 4 5 \xff", "not text", id="no text"),
    ],
)
def test_a_file_that_is_refused_says_why(data: bytes, words: str) -> None:
    found = tried(data)
    assert isinstance(found, MasksDocumentError)
    assert words in str(found)
    assert len(str(found)) < 700


def test_a_deflated_bomb_is_unpacked_in_pieces() -> None:
    # 200 MB of zeros in 200 kB: a mask at a time.
    data = npz_of(npy_header("'|b1'", "(20, 10000, 1000)") + bytes(200_000_000))
    assert len(data) < 300_000
    tracemalloc.start()
    try:
        masks = read_masks(data)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert len(masks) == 20


def test_counts_are_checked_before_anything_is_unpacked() -> None:
    seen: list[int] = []

    def refuse(count: int) -> None:
        seen.append(count)
        raise MasksDocumentError("too many")

    for data, count in [
        (npy_header("'|b1'", "(50000, 40, 60)"), 50_000),
        (png(np.arange(20_000, dtype=np.uint16).repeat(3).reshape(200, 300)), 19_999),
        (b"1 0 0 1 0 1 1\n" * 20_000, 20_000),
        (
            b'<annotations><image id="0" name="a" width="1" height="1">' + b"<mask/>" * 999 + b"</image></annotations>",
            999,
        ),
        (label_studio([0] * 100), 1),
    ]:
        with pytest.raises(MasksDocumentError, match="too many"):
            read_masks(data, check_count=refuse, size=(40, 60))
        assert seen.pop() == count


@pytest.mark.parametrize(
    "data",
    [
        cvat_mask(rle="1,2,3"),
        cvat_mask(rle=""),
        cvat_mask(rle="-1,2"),
        cvat_mask(rle="9" * 5000),
        cvat_mask(rle="99999999999999999999,1"),
        cvat_mask(left=-1),
        cvat_mask(left=59),
        cvat_mask(width=0),
        cvat_mask(height=10**9),
        cvat_mask(top="a"),
        cvat('rle="1" left="0" top="0" width="1" height="1"', image=""),
        cvat('rle="0,1" left="0" top="0" width="1" height="1"', image='width="1000000" height="1000000"'),
        cvat(),
        b'<annotations><image id="0" name="a" width="1" height="1"><polygon points="1,2;3"/></image></annotations>',
        b'<annotations><image id="0" name="a" width="1" height="1"><polygon/></image></annotations>',
        label_studio([]),
        label_studio([0, 0, 37, 128]),
        label_studio(brush_of(MASKS[0])[:-9]),
        label_studio(brush_of(MASKS[0]), width=61),
        label_studio(brush_of(MASKS[0]), width=None),
        label_studio(brush_of(MASKS[0]), width=10**9, height=10**9),
        label_studio([300, 2]),
        label_studio(["a"]),
        label_studio("0, 1"),
        label_studio(5),
        label_studio(None, points=[[1, 2], 3]),
        label_studio(None, points=[[1, "a"], [1, 2], [3, 4]]),
    ],
)
def test_one_bad_mask_is_unreadable(data: bytes) -> None:
    # A polygon's result is one by its type.
    found = tried(
        data.replace(
            b'"brushlabels", "original_width": 60, "original_height": 40, "value": {"points"',
            b'"polygonlabels", "original_width": 60, "original_height": 40, "value": {"points"',
        )
    )
    assert isinstance(found, list)
    (mask,) = found
    assert isinstance(mask, UnreadableMask)
    assert len(mask.message) < 500


def test_masks_unpack_to_a_bounded_number_of_pixels_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskscore.formats.read_context._MOST_PIXELS_TOGETHER", 5 * 40 * 60)
    results = [
        json.loads(label_studio(brush_of(MASKS[0])))[0]["annotations"][0]["result"][0] | {"id": n} for n in range(7)
    ]
    task = {"id": 1, "data": {"image": "a"}, "annotations": [{"id": 1, "result": results}]}
    found = tried(json.dumps([task]).encode())
    assert isinstance(found, list)
    assert [type(mask) for mask in found] == [Mask] * 5 + [UnreadableMask] * 2
    element = cvat_mask()[cvat_mask().index(b"<mask") : cvat_mask().index(b"</image>")]
    many = tried(cvat_mask().replace(element, element * 60))
    assert isinstance(many, list)
    # Of CVAT's masks only the columns of the box are unpacked.
    width = cvat_runs(MASKS[0])[3]
    assert sum(isinstance(mask, Mask) for mask in many) == 5 * 60 // width


def test_words_of_another_size_are_refused() -> None:
    encoded = brush_of(MASKS[0])
    encoded[4] = 15 << 3 | encoded[4] & 7
    found = tried(label_studio(encoded))
    assert isinstance(found, list)
    assert isinstance(found[0], UnreadableMask)
    assert "words of 16 bits" in found[0].message


@given(st.binary(max_size=200))
def test_detection_of_random_bytes_names_what_is_known(data: bytes) -> None:
    try:
        known = detect(data).name
    except MasksDocumentError as error:
        known = str(error).rpartition("Known formats: ")[2].split(",")[0]
    assert known in FORMATS
