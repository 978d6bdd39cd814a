"""Masks from segmenters' Python objects: arrays, tensors, SAM's records, results of other libraries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from in_memory_files import npy_file
from mask_files import Bits, assert_drawn, drawn, shapes
from maskscore.formats import from_arrays, from_detectron2, from_sam, from_ultralytics, read_masks
from maskscore.schema.job import Mask

STACK = np.stack(shapes())
LOGITS = STACK * 8.5 - 4


def assert_stack(masks: list[Mask], expected: Any = STACK, size: tuple[int, int] | None = None) -> None:
    assert [mask.id for mask in masks] == [str(index) for index in range(len(expected))]
    assert_drawn(masks, expected, size)


@pytest.mark.parametrize(
    "masks",
    [
        STACK,
        STACK[:, None],
        list(STACK),
        STACK.astype(np.uint8),
        LOGITS,
        torch.from_numpy(STACK),
        [torch.from_numpy(mask) for mask in STACK],
        torch.from_numpy(LOGITS).requires_grad_(),
        torch.from_numpy(LOGITS).to(torch.bfloat16)[:, None],
    ],
)
def test_stacks_and_logits(masks: Any) -> None:
    """SAM's and SAM 2's predictors return booleans or logits, whose ``mask_threshold`` is 0.0."""
    assert_stack(from_arrays(masks))


def test_options_of_stacks() -> None:
    assert_stack(from_arrays(np.moveaxis(STACK, 0, 2), axis="last"))
    assert_stack(from_arrays(STACK * 0.6 + 0.2, threshold=0.5))
    assert_stack(from_arrays(STACK.astype(np.float32)))
    assert_stack(from_arrays(STACK[0]), STACK[:1])
    fields: list[dict[str, Any]] = [{"score": np.float32(0.5)}, {"score": 1}, {"box": np.arange(4)}]
    assert [mask.upstream for mask in from_arrays(STACK, fields=fields)] == [
        {"score": 0.5},
        {"score": 1},
        {"box": [0, 1, 2, 3]},
    ]
    assert from_arrays(np.zeros((0, 4, 4), np.bool_)) == []


@pytest.mark.parametrize(
    ("masks", "options", "words"),
    [
        (STACK * 0.6 + 0.2, {}, "probabilities"),
        (np.zeros((2, 3, 4, 4)), {}, "shape"),
        (np.zeros(3), {}, "shape"),
        (STACK, {"fields": [{}]}, "masks is 3"),
    ],
)
def test_what_is_no_stack_says_so(masks: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_arrays(masks, **options)


def uncompressed(mask: Bits) -> dict[str, Any]:
    flat = np.concatenate([[False], mask.ravel(order="F")])
    return {
        "size": list(mask.shape),
        "counts": np.diff([0, *np.flatnonzero(flat[1:] != flat[:-1]), mask.size]).tolist(),
    }


@pytest.mark.parametrize("mode", ["binary_mask", "uncompressed_rle"])
def test_records_of_sams_generator(mode: str) -> None:
    """``SamAutomaticMaskGenerator.generate`` of segment_anything/automatic_mask_generator.py; SAM 2's is alike."""
    records = [
        {
            "segmentation": mask if mode == "binary_mask" else uncompressed(mask),
            "area": int(mask.sum()),
            "bbox": [1, 2, 3, 4],
            "predicted_iou": 0.9,
            "point_coords": [[10.5, 20.5]],
            "stability_score": np.float32(0.5),
            "crop_box": [0, 0, 60, 40],
        }
        for mask in STACK
    ]
    masks = from_sam(records)
    assert_stack(masks)
    assert masks[0].upstream == {
        "area": int(STACK[0].sum()),
        "bbox": [1, 2, 3, 4],
        "predicted_iou": 0.9,
        "point_coords": [[10.5, 20.5]],
        "stability_score": 0.5,
        "crop_box": [0, 0, 60, 40],
    }


def ultralytics_result(data: torch.Tensor) -> Any:
    """Return what ``Results`` of ultralytics/engine/results.py has: tensors of masks and boxes, outlines as arrays."""
    outlines = [np.array([[10, 5], [30, 5], [30, 25]], np.float32)] * len(data)
    return SimpleNamespace(
        orig_shape=(40, 60),
        names={16: "dog"},
        masks=SimpleNamespace(data=data, xy=outlines),
        boxes=SimpleNamespace(
            cls=torch.full((len(data),), 16.0),
            conf=torch.full((len(data),), 0.5),
            xyxy=torch.tensor([[1.0, 2.0, 3.0, 4.0]] * len(data)),
            id=None,
        ),
    )


def test_ultralytics_results() -> None:
    fields = {"class": 16, "name": "dog", "confidence": 0.5, "box": [1.0, 2.0, 3.0, 4.0]}
    full = from_ultralytics(ultralytics_result(torch.from_numpy(STACK).float()))
    assert_stack(full)
    assert full[0].upstream == fields
    small = from_ultralytics(ultralytics_result(torch.zeros(2, 10, 10)))
    assert [mask.segmentation for mask in small] == [[[10, 5, 30, 5, 30, 25]]] * 2
    assert small[1].upstream == fields
    nothing = ultralytics_result(torch.zeros(0, 10, 10))
    nothing.masks = None
    assert from_ultralytics(nothing) == []
    tracked = ultralytics_result(torch.zeros(1, 10, 10))
    tracked.boxes.id = torch.tensor([7.0])
    assert from_ultralytics(tracked)[0].upstream["track_id"] == 7
    assert {(mask.polygon_convention, mask.polygon_size) for mask in small} == {("opencv", (40, 60))}


class Instances:
    """As detectron2/structures/instances.py: fields by name, and attributes for them."""

    def __init__(self, **fields: Any) -> None:
        self.image_size = (40, 60)
        self._fields = fields

    def get_fields(self) -> dict[str, Any]:
        return self._fields


def test_detectron2_instances() -> None:
    instances = Instances(
        pred_masks=torch.from_numpy(STACK),
        scores=torch.tensor([0.5, 0.25, 0.75]),
        pred_classes=torch.tensor([3, 4, 5]),
        pred_boxes=SimpleNamespace(tensor=torch.arange(12.0).reshape(3, 4)),
    )
    masks = from_detectron2(instances)
    assert_stack(masks)
    assert masks[1].upstream == {"score": 0.25, "pred_class": 4, "box": [4.0, 5.0, 6.0, 7.0]}
    assert_stack(from_detectron2(Instances(pred_masks=SimpleNamespace(tensor=torch.from_numpy(STACK)))))
    polygons = SimpleNamespace(polygons=[[np.array([0.0, 0.0, 5.0, 0.0, 5.0, 5.0])]])
    (drawn_here,) = from_detectron2(Instances(pred_masks=polygons))
    assert drawn_here.segmentation == [[0, 0, 5, 0, 5, 5]]
    # The size of the image that the model saw decides between the frames of one with an EXIF orientation.
    assert drawn_here.polygon_size == (40, 60)
    assert from_detectron2(Instances(scores=torch.zeros(1))) == []


MAP = np.full((40, 60), -1)
MAP[2:9, 3:30], MAP[12:20, 3:30], MAP[25:35, 40:50] = 0, 1, 7


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int32, np.int64])
@pytest.mark.parametrize("background", [-1, 0])
def test_a_label_map_has_a_mask_per_value(dtype: Any, background: int) -> None:
    """transformers' ``post_process_instance_segmentation``: float32, -1 where nothing is."""
    labels = (MAP if background == -1 else np.maximum(MAP, 0)).astype(dtype)
    values = [value for value in (0, 1, 7) if value != background]
    infos = [{"id": value, "label_id": 50 + value, "score": 0.5} for value in reversed(values)]
    for found in (
        read_masks(npy_file(labels)),
        read_masks(npy_file(labels[None])),
        from_arrays(labels),
        from_arrays(labels[None]),
        from_arrays(labels, fields=infos),
    ):
        assert [mask.id for mask in found] == [str(value) for value in values]
        for mask, value in zip(found, values, strict=True):
            np.testing.assert_array_equal(drawn(mask), value == MAP)
    told = from_arrays(labels, fields=infos)
    assert [mask.upstream for mask in told] == [{"label_id": 50 + value, "score": 0.5} for value in values]


def test_fields_of_a_label_map() -> None:
    scores = [{"score": 0.1}, {"score": 0.2}, {"score": 0.3}]
    assert [mask.upstream for mask in from_arrays(MAP, fields=scores)] == scores
    with pytest.raises(ValueError, match="is 3, that of fields 2"):
        from_arrays(MAP, fields=scores[:2])
    with pytest.warns(UserWarning, match=r"1 of 2 segments have no pixel in the label map \(ids 9\)"):
        assert len(from_arrays(MAP, fields=[{"id": 7}, {"id": 9}])) == 3


@pytest.mark.parametrize(
    "mask",
    [STACK[0], STACK[0].astype(np.uint8), 255 * STACK[0].astype(np.uint8), STACK[0].astype(float), STACK[0] * 8.5 - 4],
)
def test_one_mask_stays_one_mask(mask: Any) -> None:
    for found in (from_arrays(mask), from_arrays(mask[None]), read_masks(npy_file(mask[None]))):
        (only,) = found
        assert only.id == "0"
        np.testing.assert_array_equal(drawn(only), STACK[0])


def test_an_id_among_the_fields_is_the_masks() -> None:
    fields = [{"id": 10 + number, "label_id": 50, "segmentation": None} for number in range(len(STACK))]
    masks = from_arrays(STACK, fields=fields)
    assert [(mask.id, mask.upstream) for mask in masks] == [(str(10 + n), {"label_id": 50}) for n in range(len(STACK))]
    (named,) = from_sam([{"segmentation": STACK[0], "id": "a"}])
    assert (named.id, named.upstream) == ("a", {})
