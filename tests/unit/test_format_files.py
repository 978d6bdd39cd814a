"""Each format's file of one image, as its tool documents it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from in_memory_files import npy_file, npz_file
from mask_files import Bits, as_json, assert_drawn, brush_of, cvat_runs, drawn, label_map, png, rle, shapes
from maskscore.formats import MasksDocumentError, UnreadableMask, detect, read_masks
from maskscore.schema.job import Mask

SIZE = (40, 60)


def outline_of(mask: Mask | UnreadableMask) -> list[float]:
    """Return the points of a mask of one polygon."""
    assert isinstance(mask, Mask), mask
    assert isinstance(mask.segmentation, list)
    (outline,) = mask.segmentation
    return outline


SAM_FIELDS = {
    "area": 4,
    "bbox": [0, 0, 1, 1],
    "predicted_iou": 0.9,
    "point_coords": [[1.0, 1.0]],
    "stability_score": 0.8,
    "crop_box": [0, 0, 60, 40],
}


@pytest.mark.parametrize("compressed", [True, False])
def test_sams_command_line_with_convert_to_rle(compressed: bool) -> None:
    """``scripts/amg.py --convert-to-rle`` writes a JSON list of records: https://github.com/facebookresearch/segment-anything"""

    def counts(mask: Bits) -> Any:
        if compressed:
            return rle(mask)
        flat = np.concatenate([[False], mask.ravel(order="F")])
        edges = np.flatnonzero(flat[1:] != flat[:-1])
        return {"size": list(mask.shape), "counts": np.diff([0, *edges, mask.size]).tolist()}

    data = as_json([{"segmentation": counts(mask), **SAM_FIELDS} for mask in shapes()])
    assert detect(data).name == "sam"
    masks = read_masks(data, format="sam")
    assert_drawn(masks, shapes())
    assert [mask.id for mask in masks] == ["0", "1", "2"]
    assert masks[0].upstream == SAM_FIELDS


def summary(masks: list[Any], scale: tuple[float, float] = (1, 1)) -> list[dict[str, Any]]:
    return [
        {
            "name": "dog",
            "class": 16,
            "confidence": 0.9,
            "box": {"x1": 1, "y1": 2, "x2": 3, "y2": 4},
            "track_id": 7,
            "segments": {"x": [x / scale[0] for x, _ in outline], "y": [y / scale[1] for _, y in outline]},
        }
        for outline in masks
    ]


OUTLINES = [[(10.0, 5.0), (30.0, 5.0), (30.0, 25.0)], [(0.0, 0.0), (6.0, 0.0), (6.0, 4.0), (0.0, 4.0)]]
FLAT = [[number for point in outline for number in point] for outline in OUTLINES]


def test_ultralytics_json() -> None:
    """``result.to_json()``: ``Results.summary`` in ultralytics/engine/results.py of version 8.4."""
    data = as_json(summary(OUTLINES))
    assert detect(data).name == "ultralytics"
    masks = read_masks(data)
    assert [mask.segmentation for mask in masks if isinstance(mask, Mask)] == [[FLAT[0]], [FLAT[1]]]
    assert masks[0].upstream == {name: value for name, value in summary(OUTLINES)[0].items() if name != "segments"}
    normalised = as_json(summary(OUTLINES, (60, 40)))
    again = read_masks(normalised, size=SIZE)
    for mask, flat in zip(again, FLAT, strict=True):
        np.testing.assert_allclose(outline_of(mask), flat)
    with pytest.raises(MasksDocumentError, match="give `size`"):
        read_masks(normalised)


def test_ultralytics_boxes_are_no_masks() -> None:
    entries = [
        {name: value for name, value in summary(OUTLINES)[0].items() if name != "segments"},
        5,
        *summary(OUTLINES),
    ]
    assert [type(mask) for mask in read_masks(as_json(entries))] == [UnreadableMask] * 2 + [Mask] * 2


def label_line(outline: list[tuple[float, float]], *more: object) -> str:
    coordinates = [f"{x / 60:g} {y / 40:g}" for x, y in outline]
    return " ".join(["16", *coordinates, *map(str, more)])


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ((), {}),
        ((0.75,), {"confidence": 0.75}),
        ((12,), {"track_id": 12}),
        ((0.75, 12), {"confidence": 0.75, "track_id": 12}),
    ],
)
def test_yolo_labels(more: tuple[object, ...], fields: dict[str, Any]) -> None:
    """https://docs.ultralytics.com/datasets/segment, and ``Results.save_txt`` with ``save_conf`` and a tracker."""
    data = "\n".join(label_line(outline, *more) for outline in OUTLINES).encode() + b"\n"
    assert detect(data).name == "yolo"
    masks = read_masks(data, size=SIZE)
    for mask, flat in zip(masks, FLAT, strict=True):
        np.testing.assert_allclose(outline_of(mask), flat, atol=1e-3)
        assert mask.upstream == {"class": 16, **fields}


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\r\n"])
def test_an_empty_label_file_is_an_image_without_objects(data: bytes) -> None:
    assert read_masks(data, file_name="s3://bucket/labels/a.txt") == []
    assert read_masks(data, file_name="a.TXT") == []
    with pytest.raises(MasksDocumentError, match="is empty"):
        read_masks(data, file_name="a.json")


@pytest.mark.parametrize("data", [b"0\n0\n17", b"0 \r\n0\r\n1\r\n", b"0\n1 0.5 0.5 0.2 0.3\n1"])
def test_labels_of_a_class_alone_are_skipped_one_by_one(data: bytes) -> None:
    assert detect(data).name == "yolo"
    masks = read_masks(data, size=(9, 9))
    assert [isinstance(mask, UnreadableMask) for mask in masks] == [True] * 3
    assert "has a class and no polygon" in str(masks[0])


@pytest.mark.parametrize("data", [b"0", b"7\n", b"\xef\xbb\xbf12 \r\n"])
def test_a_number_alone_is_a_label_only_in_a_label_file(data: bytes) -> None:
    (label,) = read_masks(data, file_name="labels/a.txt")
    assert "has a class and no polygon" in str(label)
    for name in (None, "masks.json"):
        with pytest.raises(MasksDocumentError, match="no known layout"):
            read_masks(data, file_name=name)


def test_yolo_lines_that_are_no_polygons() -> None:
    lines = [
        "16 0.5 0.5 0.2 0.2",
        "16 0.5 0.5 0.2 0.2 0.9",
        "16 10 10 20 10 20 20",
        "16 a b c d e f",
        "16 nan 0 1 0 1 1",
    ]
    masks = read_masks("\n".join([*lines, label_line(OUTLINES[0])]).encode(), size=SIZE)
    assert [type(mask) for mask in masks] == [UnreadableMask] * 5 + [Mask]
    assert [mask.message[:20] for mask in masks if isinstance(mask, UnreadableMask)] == [
        "Line 1 has a box or ",
        "Line 2 has a box or ",
        "Line 3 has the coord",
        "Line 4 is not made o",
        "Line 5 has the coord",
    ]
    assert read_masks(b"", format="yolo") == []
    with pytest.raises(MasksDocumentError, match="or say the format: yolo"):
        read_masks(b"\n")
    with pytest.raises(MasksDocumentError, match="format yolo, but they are JSON"):
        read_masks(b'{"annotations": []}', format="yolo", size=SIZE)
    with pytest.raises(MasksDocumentError, match="give `size`"):
        read_masks(label_line(OUTLINES[0]).encode())


def task(results: list[dict[str, Any]], image: str = "s3://bucket/photos/a.jpg", task_id: int = 5) -> dict[str, Any]:
    return {
        "id": task_id,
        "data": {"image": image},
        "annotations": [{"id": 1001, "result": results, "was_cancelled": False}],
    }


def brush_result(mask: Bits, result_id: str = "Dx_aB91ISN") -> dict[str, Any]:
    return {
        "id": result_id,
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "original_width": mask.shape[1],
        "original_height": mask.shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": brush_of(mask), "brushlabels": ["Car"]},
    }


def polygon_result(outline: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "id": "polygon",
        "type": "polygonlabels",
        "from_name": "label",
        "original_width": 60,
        "original_height": 40,
        "value": {
            "points": [[x / 60 * 100, y / 40 * 100] for x, y in outline],
            "polygonlabels": ["Dog"],
            "closed": True,
        },
    }


def test_label_studio() -> None:
    """Tasks of the JSON export: https://labelstud.io/guide/task_format, https://labelstud.io/tags/brushlabels"""
    box = {"id": "box", "type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 5, "height": 5}}
    skipped = {"id": 1002, "was_cancelled": True, "result": [brush_result(shapes()[0])]}
    one = task([brush_result(shapes()[0]), box, brush_result(shapes()[1], "b"), polygon_result(OUTLINES[0])])
    one["annotations"].append(skipped)
    data = as_json([one, task([], "/data/upload/1/0a1b2c3d-b.jpg", 6)])
    assert detect(data).name == "label-studio"
    for found in ({"image_name": "a.jpg"}, {"image_id": 5}):
        masks = read_masks(data, **found)
        assert [mask.id for mask in masks] == ["Dx_aB91ISN", "b", "polygon"]
        assert_drawn(masks[:2], shapes()[:2])
        np.testing.assert_allclose(outline_of(masks[2]), FLAT[0])
        assert masks[0].upstream == {"labels": ["Car"], "from_name": "tag", "image_rotation": 0, "annotation_id": 1001}
    assert read_masks(data, image_id=6) == read_masks(data, image_name="b.jpg") == []
    with pytest.raises(MasksDocumentError, match=r"no tasks with the file name 'c[.]jpg'"):
        read_masks(data, image_name="c.jpg")


def test_label_studio_of_several_annotators_and_of_predictions_alone() -> None:
    one = task([brush_result(shapes()[0])])
    one["annotations"].append({"id": 1002, "result": [brush_result(shapes()[1])]})
    masks = read_masks(as_json(one))
    assert [mask.id for mask in masks] == ["1001:Dx_aB91ISN", "1002:Dx_aB91ISN"]
    assert_drawn(masks, shapes()[:2])
    predicted = {
        "id": 1,
        "data": {"image": "a.jpg"},
        "annotations": [],
        "predictions": [{"result": [brush_result(shapes()[2])]}],
    }
    assert_drawn(read_masks(as_json([predicted])), shapes()[2:])


def cvat(images: list[tuple[str, list[str]]]) -> bytes:
    body = "".join(
        f'<image id="{index}" name="{name}" width="60" height="40">{"".join(elements)}</image>'
        for index, (name, elements) in enumerate(images)
    )
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{body}</annotations>'.encode()


def cvat_mask(mask: Bits) -> str:
    runs, left, top, width, height = cvat_runs(mask)
    return (
        f'<mask label="car" source="manual" occluded="1" rle="{runs}" left="{left}" top="{top}" width="{width}" '
        f'height="{height}" z_order="2"><attribute name="model">a</attribute></mask>'
    )


CVAT_POLYGON = '<polygon label="dog" occluded="0" points="10.00,5.00;30.00,5.00;30.00,25.00" z_order="0"></polygon>'


def test_cvat_for_images() -> None:
    """https://docs.cvat.ai/docs/other/xml_format, "Annotation", version 1.1"""
    box = '<box label="car" occluded="0" xtl="1.00" ytl="1.00" xbr="9.00" ybr="9.00" z_order="0"></box>'
    elements = [cvat_mask(shapes()[0]), box, CVAT_POLYGON, cvat_mask(shapes()[1]), cvat_mask(shapes()[2])]
    data = cvat([("photos/a.jpg", elements), ("b.jpg", [])])
    assert detect(data).name == "cvat"
    masks = read_masks(data, image_name="a.jpg")
    assert_drawn([masks[0], *masks[2:]], shapes())
    assert isinstance(masks[1], Mask)
    assert masks[1].segmentation == [FLAT[0]]
    assert masks[0].upstream == {
        "label": "car",
        "occluded": True,
        "source": "manual",
        "z_order": "2",
        "attributes": {"model": "a"},
    }
    assert read_masks(data, image_id=1) == []
    assert len(read_masks(cvat([("a.jpg", elements)]), image_name="renamed.jpg")) == 4
    with pytest.raises(MasksDocumentError, match=r"no images with the file name 'c[.]jpg', of 2"):
        read_masks(data, image_name="c.jpg")


def test_cvat_for_video_says_what_to_export() -> None:
    data = (
        b'<annotations><track id="0" label="car"><box frame="0" xtl="1" ytl="1" xbr="2" ybr="2"/></track></annotations>'
    )
    with pytest.raises(MasksDocumentError, match="Export CVAT for images"):
        read_masks(data)


@pytest.mark.parametrize("kind", ["8 bit", "16 bit", "palette", "RGB of equal channels"])
def test_png_label_maps(kind: str) -> None:
    values = [3, 250, 7] if kind != "16 bit" else [3, 60_000, 300]
    labels = label_map(shapes(), values, np.uint16 if kind == "16 bit" else np.uint8)
    data = png(np.stack([labels] * 3, axis=-1) if kind.startswith("RGB") else labels, palette=kind == "palette")
    assert detect(data).name == "png-labels"
    masks = read_masks(data)
    assert [mask.id for mask in masks] == [str(value) for value in sorted(values)]
    assert_drawn(masks, [labels == value for value in sorted(values)])


def test_png_binary() -> None:
    disc, parts, _ = shapes()
    for pixels in (disc, disc.astype(np.uint8) * 255, np.stack([disc.astype(np.uint8) * 255] * 3, axis=-1)):
        assert detect(png(pixels)).name == "png-binary"
        assert_drawn(read_masks(png(pixels)), [disc])
    # Two values are two masks by themselves, and one where it is said so.
    two = label_map([disc, parts], [1, 2])
    assert len(read_masks(png(two))) == 2
    assert_drawn(read_masks(png(two), format="png-binary"), [two > 0])
    smooth = disc.astype(np.uint8) * 255
    smooth[3, 3], smooth[4, 4] = 90, 200
    expected = disc.copy()
    expected[4, 4] = True
    assert_drawn(read_masks(png(smooth)), [expected])
    assert read_masks(png(np.zeros(SIZE, np.uint8))) == []
    transparent = np.zeros((*SIZE, 4), np.uint8)
    transparent[disc, 3] = 255
    assert_drawn(read_masks(png(transparent)), [disc])


def test_panoptic_png() -> None:
    """https://cocodataset.org/#format-data, 4: ``ids = R + G * 256 + B * 256^2``"""
    ids = [5, 3 + 256 * 200, 1 + 256 * 2 + 65536 * 100]
    labels = label_map(shapes(), ids, np.uint32)
    data = png(np.stack([labels & 255, (labels >> 8) & 255, labels >> 16], axis=-1).astype(np.uint8))
    assert detect(data).name == "coco-panoptic"
    masks = read_masks(data)
    assert [mask.id for mask in masks] == [str(value) for value in sorted(ids)]
    assert_drawn(masks, [labels == value for value in sorted(ids)])
    with pytest.raises(MasksDocumentError, match="say the format coco-panoptic"):
        read_masks(data, format="png-labels")


def test_a_background_that_becomes_a_mask_is_doubted() -> None:
    disc, *_ = shapes()
    coloured = np.where(disc[..., None], [200, 30, 30], [255, 255, 254]).astype(np.uint8)
    labels = np.where(disc, 7, 3).astype(np.uint8)
    for data, said in ((png(coloured), "colour 255, 255, 254"), (png(labels), "value 3")):
        doubts: list[str] = []
        assert len(read_masks(data, doubts=doubts)) == 2
        assert len(doubts) == 1
        assert said in doubts[0]
        with pytest.warns(UserWarning, match="write it as 0"):
            read_masks(data)
    # Not where the format is said, where 0 is there, or where several values are at the border.
    halves = np.full(SIZE, 4, np.uint8)
    halves[:, SIZE[1] // 2 :] = 5
    zero = np.where(disc, 0, labels).astype(np.uint8)
    for data, layout in ((png(labels), "png-labels"), (png(zero), None), (png(halves), None)):
        quiet: list[str] = []
        read_masks(data, format=layout, doubts=quiet)
        assert quiet == []


STACK = np.stack(shapes())


@pytest.mark.parametrize(
    "stack",
    [
        STACK,
        STACK[:, None],
        STACK.astype(np.uint8) * 255,
        STACK * 8.5 - 4,
        (STACK * 8.5 - 4).astype(np.float16),
        np.asfortranarray(STACK),
        STACK.astype(">i4"),
        np.moveaxis(STACK, 0, 2),
        np.ascontiguousarray(np.moveaxis(STACK, 0, 2)),
    ],
)
def test_npz_stacks(stack: Any) -> None:
    for data in (npz_file(stack), npz_file(masks=stack, other=np.zeros((2, 2)), scores=np.array([0.5, 0.25, np.nan]))):
        assert detect(data).name == "npz"
        assert_drawn(read_masks(data, size=SIZE), shapes())
    assert [mask.upstream for mask in read_masks(data, size=SIZE)] == [
        {"scores": 0.5},
        {"scores": 0.25},
        {"scores": None},
    ]


def test_npy_and_maps() -> None:
    assert_drawn(read_masks(npy_file(STACK), format="npz"), shapes())
    labels = label_map(shapes(), [4, 9, 70_000], np.int64)
    for lowest, background in ((0, 0), (-2, 0), (-1, -1)):
        labels[0, 0] = lowest
        masks = read_masks(npz_file(labels))
        # Where -1 is the lowest, it is the background, and 0 is a mask, as in the maps of transformers.
        found = [value for value in (0, 4, 9, 70_000) if value > background]
        assert [mask.id for mask in masks] == [str(value) for value in found]
        assert_drawn(masks, [labels == value for value in found])
    assert_drawn(read_masks(npz_file(STACK[0])), shapes()[:1])
    named = read_masks(npz_file(masks=STACK, ids=np.array([7, 8, 9])))
    assert [mask.id for mask in named] == ["7", "8", "9"]


def test_npz_axes_are_checked_against_the_image() -> None:
    with pytest.raises(MasksDocumentError, match=r"neither \(N, H, W\) nor \(H, W, N\) of an image of 61 x 40"):
        read_masks(npz_file(STACK), size=(40, 61))
    # Turned by the EXIF orientation, the image has the other frame.
    assert_drawn(read_masks(npz_file(STACK), size=SIZE[::-1]), shapes())
    cube = np.zeros((5, 5, 5), np.bool_)
    cube[1, 2, 3] = True
    assert [int(drawn(mask).sum()) for mask in read_masks(npz_file(cube), size=(5, 5))] == [0, 1, 0, 0, 0]


def test_npz_of_probabilities_says_what_to_do() -> None:
    (mask,) = read_masks(npz_file(np.linspace(0, 1, 2400).reshape(1, *SIZE)))
    assert isinstance(mask, UnreadableMask)
    assert "probabilities" in mask.message


def test_a_pickle_is_never_read() -> None:
    with pytest.raises(MasksDocumentError, match="never read"):
        read_masks(npz_file(np.array([{"a": 1}, None], dtype=object)[None]))


def test_detectron2_results() -> None:
    """``instances_to_coco_json`` in detectron2/evaluation/coco_evaluation.py"""
    results = [
        {"image_id": image_id, "category_id": 3, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.9, "segmentation": rle(mask)}
        for image_id, mask in zip([42, 7, 42], shapes(), strict=True)
    ]
    data = as_json(results)
    assert detect(data).name == "detectron2"
    masks = read_masks(data, image_id=42)
    assert_drawn(masks, [shapes()[0], shapes()[2]])
    assert masks[0].upstream == {"image_id": 42, "category_id": 3, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.9}
    assert_drawn(read_masks(data, image_name="000000000007.jpg"), shapes()[1:2])
    assert read_masks(data, image_id=8) == []
    with pytest.raises(MasksDocumentError, match="give `image_id`"):
        read_masks(data, image_name="a.jpg")


def test_lvis_is_found_by_the_name_in_its_url() -> None:
    """https://www.lvisdataset.org/dataset: images have ``coco_url`` and no ``file_name``."""
    document = {
        "images": [
            {
                "id": 1,
                "coco_url": "http://images.cocodataset.org/train2017/000000000001.jpg",
                "height": 40,
                "width": 60,
            },
            {"id": 2, "coco_url": "http://images.cocodataset.org/val2017/000000000002.jpg", "height": 40, "width": 60},
        ],
        "annotations": [{"id": 9, "image_id": 2, "category_id": 1203, "segmentation": [FLAT[0]], "area": 1.0}],
        "categories": [],
    }
    assert detect(as_json(document)).name == "lvis"
    (mask,) = read_masks(as_json(document), image_name="000000000002.jpg")
    assert (mask.id, mask.upstream["category_id"]) == ("9", 1203)


def test_a_format_that_is_said_is_checked() -> None:
    for data, format_, words in [
        (b"[]", "cvat", "but they are JSON"),
        (b"[]", "png-labels", "but they are JSON"),
        (png(STACK[0]), "coco", "but they are a PNG"),
        (b'{"a": 1}', "coco", "not in the layout that was asked for: COCO's"),
        (b"[]", "sam-folder", "but they are"),
        (b"[]", "voc", "There is no format 'voc'. Known are maskscore, sam"),
        (b'{"images": [], "annotations": [{"segments_info": []}]}', "coco-panoptic", "a PNG per image"),
    ]:
        with pytest.raises(MasksDocumentError, match=words):
            read_masks(data, format=format_)


LIGHT = """
import sys
for name in ("numpy", "PIL", "defusedxml"):
    sys.modules[name] = None
from maskscore.formats import MasksDocumentError, detect, read_masks
task = '[{"id": 1, "data": {"image": "a"}, "annotations": [{"result": [%s]}]}]'
points = '{"points": [[0, 0], [9, 0], [9, 9]]}'
polygon = '{"type": "polygonlabels", "original_width": 9, "original_height": 9, "value": %s}' % points
for data in ('[{"segmentation": [[0, 0, 5, 0, 5, 5]]}]', "1 0 0 1 0 1 1", task % polygon):
    assert len(read_masks(data.encode(), size=(9, 9))) == 1
brush = '{"type": "brushlabels", "original_width": 9, "original_height": 9, "value": {"rle": [0]}}'
for data in (b"\\x89PNG\\r\\n\\x1a\\n", b"\\x93NUMPY", b"<annotations/>", (task % brush).encode()):
    try:
        read_masks(data)
    except MasksDocumentError as error:
        print(error)
"""


THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
sys.modules["numpy"] = None
from maskscore.formats import MasksDocumentError, read_masks
barrier = Barrier(8)
def attempt(data):
    barrier.wait()
    try:
        read_masks(data)
    except MasksDocumentError as error:
        return str(error)
with ThreadPoolExecutor(8) as pool:
    for data in (b"\\x93NUMPY", b"\\x89PNG\\r\\n\\x1a\\n") * 20:
        print(*set(pool.map(attempt, [data] * 8)), sep="\\n")
"""


def test_threads_that_meet_in_a_missing_module_all_say_so() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    expected = """These masks need the module 'numpy', which is not installed: pip install "maskscore[formats]"."""
    assert set(done.stdout.splitlines()) == {expected}


def test_the_light_install_reads_json_and_says_what_to_install_for_the_rest() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f'These masks need the module {name!r}, which is not installed: pip install "maskscore[formats]".'
        for name in ("numpy", "numpy", "defusedxml", "numpy")
    ]
