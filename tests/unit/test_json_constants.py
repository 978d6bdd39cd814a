"""``NaN`` and ``Infinity`` in JSON get the same answer wherever JSON is read."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from maskscore.evaluation import read_coco
from maskscore.formats import detect, read_dataset, read_masks
from maskscore.formats.json_constants import StrictJson
from maskscore.schema.job import Mask, parse_job
from maskscore.schema.result import Component

NAN = math.nan
TRIANGLE = [[0, 0, 4, 0, 4, 4]]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 64, 4096])
def test_constants_are_null_and_strings_stay(size: int) -> None:
    document: dict[str, Any] = {
        "NaN": NAN,
        'a "quoted, NaN, b\\': [math.inf, -math.inf, {"x": NAN}, -1.5e-7],
        "é NaN": ["-Infinity", ":NaN,", "\\", '\\"', "NaN", NAN, None, True, "I", "n"],
    }
    file = StrictJson(io.BytesIO(json.dumps(document).encode()))
    read = b"".join(iter(lambda: file.read(size), b""))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    def nulls(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: nulls(item) for name, item in value.items()}
        if isinstance(value, list):
            return [nulls(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    assert json.loads(read, parse_constant=refuse) == nulls(document)


def test_what_is_no_constant_stays_wrong() -> None:
    for text in (b"[nan]", b"[Inf]", b"[xNaN]", b'["a', b"\\"):
        with pytest.raises(json.JSONDecodeError):
            json.loads(StrictJson(io.BytesIO(text)).read())


def test_a_dataset_is_read_as_one_image_is(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "NaN.jpg", "width": 9, "height": 9, "gsd": NAN}]
    annotation = {"image_id": 1, "category_id": 1, "score": NAN, "more": {"values": [math.inf, -math.inf, 1.5]}}
    annotations = [
        {**annotation, "id": 1, "segmentation": TRIANGLE},
        {**annotation, "id": 2, "segmentation": [[0, 0, NAN, 0, 4, 4]]},
    ]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a, NaN"}]}
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(document))
    assert detect(file).name == "coco"
    (image,) = read_dataset(file)
    assert image.image == "NaN.jpg"
    for masks in (image.masks, read_masks(file.read_bytes())):
        first, second = masks
        # A polygon that has one is skipped by the worker, or here.
        assert isinstance(first, Mask)
        assert first.upstream["score"] is None
        assert first.upstream["more"] == {"values": [None, None, 1.5]}
        assert second.id == "2"


def test_a_job_document_and_its_result_may_have_them() -> None:
    mask = {"id": "1", "segmentation": TRIANGLE, "score": NAN}
    job = parse_job(json.dumps({"image": "s3://a/b.jpg", "masks": [mask]}))
    assert isinstance(job.masks, list)
    component = Component(id="1", index=0, upstream=job.masks[0].upstream)
    assert json.loads(component.model_dump_json())["upstream"] == {"score": None}


def test_eval_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    images = [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9, "gsd": NAN}]
    annotations = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": TRIANGLE, "score": NAN}]
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]})
    )
    (image,) = read_coco(file)
    assert [labelled.category for labelled in image.masks] == ["cat"]
