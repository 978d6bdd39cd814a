"""Judgements are read from exports of Label Studio and from files of report pages; other files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskscore.errors import InvalidDocumentError
from maskscore.review import Judgement, read_judgements

REGIONS = {
    "m0": {"mask_id": "a#1", "random": False, "value": 0.1, "doubt": 0.1},
    "m1p2": {"mask_id": "b", "part": 2, "random": True, "value": None, "doubt": None},
}
OF = {"version": 1, "job_id": "j1", "batch_id": "nightly", "image": "s3://photos/1.jpg", "regions": REGIONS}


def choice(region: str, value: str, control: str = "keep") -> dict[str, Any]:
    # Label Studio repeats the region's own value beside the choice.
    value_ = {"format": "rle", "rle": [0, 0], "choices": [value]}
    return {"id": region, "type": "choices", "from_name": control, "to_name": "image", "value": value_}


def brush(region: str) -> dict[str, Any]:
    value = {"format": "rle", "rle": [0, 0], "brushlabels": ["mask"]}
    return {"id": region, "type": "brushlabels", "from_name": "brush", "to_name": "image", "value": value}


def exported(tmp_path: Path, *annotations: dict[str, Any], **fields: Any) -> Path:
    task = {"id": 1, "data": {"image": "http://x/1.jpg", "maskscore": OF}, "annotations": list(annotations), **fields}
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]))
    return path


def test_the_choices_of_an_export_are_judgements(tmp_path: Path) -> None:
    path = exported(
        tmp_path,
        {"result": [brush("m0"), choice("m0", "keep"), brush("m1p2"), choice("m1p2", "drop")]},
        {"result": [brush("m0"), choice("m0", "drop"), brush("m1p2")]},
        {"result": [choice("m1p2", "keep")], "was_cancelled": True},
        {"result": [brush("drawn"), choice("drawn", "keep")]},
    )
    image = "s3://photos/1.jpg"
    assert list(read_judgements(path)) == [
        Judgement(image, "a#1", keep=True, job_id="j1"),
        Judgement(image, "b", 2, keep=False, random=True, job_id="j1"),
        Judgement(image, "a#1", keep=False, job_id="j1"),
        Judgement(image, "drawn", keep=True, job_id="j1"),
    ]


def test_classes_are_judgements_of_another_kind(tmp_path: Path) -> None:
    path = exported(tmp_path, {"result": [choice("m0", "tabby cat", "class")]})
    assert list(read_judgements(path)) == [Judgement("s3://photos/1.jpg", "a#1", class_name="tabby cat", job_id="j1")]


def test_the_file_of_a_report_is_read(tmp_path: Path) -> None:
    path = tmp_path / "judgements.json"
    rows = [
        {"job_id": "j1", "image": "s3://b/1.png", "mask_id": "0", "part": None, "keep": True},
        {"job_id": "j1", "image": "s3://b/1.png", "mask_id": "1", "part": 1, "keep": False},
    ]
    path.write_text(json.dumps({"kind": "maskscore-judgements", "version": 1, "judgements": rows}))
    assert list(read_judgements(path)) == [
        Judgement("s3://b/1.png", "0", keep=True, job_id="j1"),
        Judgement("s3://b/1.png", "1", 1, keep=False, job_id="j1"),
    ]
    of_class = {"job_id": "j1", "image": "s3://b/1.png", "mask_id": "0", "class": "cat"}
    path.write_text(json.dumps({"kind": "maskscore-judgements", "version": 1, "judgements": [of_class]}))
    assert list(read_judgements(path)) == [Judgement("s3://b/1.png", "0", class_name="cat", job_id="j1")]
    both = {"kind": "maskscore-judgements", "version": 1, "judgements": [{**of_class, "keep": True}]}
    path.write_text(json.dumps(both))
    with pytest.raises(InvalidDocumentError, match="a judgement is `keep` or a `class`"):
        list(read_judgements(path))
    path.write_text(json.dumps({"kind": "maskscore-judgements", "version": 2, "judgements": rows}))
    with pytest.raises(InvalidDocumentError, match="of this release: version"):
        list(read_judgements(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "is not JSON"),
        ("3", "neither an export of Label Studio nor"),
        ('[{"image": "x", "annotation_id": 3}]', "not as JSON-MIN"),
        ('[{"data": {"image": "x"}, "annotations": []}]', "Only tasks that `maskscore review` has written"),
        (json.dumps([{"data": {"maskscore": OF}}]), "these are the tasks before the review"),
        (
            json.dumps([{"data": {"maskscore": {**OF, "version": 2}}, "annotations": []}]),
            "task 0: its `data.maskscore`",
        ),
        (
            json.dumps([{"data": {"maskscore": OF}, "annotations": [{"result": [choice("m0", "maybe")]}]}]),
            "the choice 'maybe' of a control 'keep'",
        ),
    ],
)
def test_what_is_no_file_of_judgements_says_so(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "export.json"
    path.write_text(text)
    with pytest.raises(InvalidDocumentError) as caught:
        list(read_judgements(path))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocumentError, match=r"none\.json cannot be read: No such file"):
        list(read_judgements(tmp_path / "none.json"))
