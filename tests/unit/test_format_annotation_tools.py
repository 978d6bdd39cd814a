"""Files of annotation tools are recognised and read to the pixel, and entries without masks are reported."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from in_memory_files import image_file
from mask_files import Bits, assert_drawn, brush_of, drawn, rle, shapes
from maskscore.cli.exit_codes import Exit, exit_code_of
from maskscore.dataset.local_masks import usable_masks
from maskscore.errors import NothingToScore
from maskscore.formats import FORMATS, MasksDocumentError, UnreadableMask, detect, read_dataset, read_masks
from maskscore.schema.job import Mask, MasksFormat

MASKS = shapes()
SIZE = (40, 60)
SQUARE = [[10, 10], [30, 10], [30, 30], [10, 30]]
SQUARE_FLAT = [float(number) for pair in SQUARE for number in pair]


def cut_out(mask: Bits) -> tuple[Bits, int, int]:
    """Return the box of a mask, and its left and top."""
    rows, columns = np.nonzero(mask)
    return mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], int(columns.min()), int(rows.min())


def png_of(bits: Bits, palette: bool = False) -> bytes:
    image = Image.fromarray(bits.astype(np.uint8) if palette else bits)
    if palette:
        image.putpalette([0, 0, 0, 255, 255, 255])
    return image_file(image, "PNG", **({"transparency": 0} if palette else {}))


def read(document: Any, name: str, **options: Any) -> list[Mask | UnreadableMask]:
    """Read a document by its content and by its name; the two agree."""
    data = json.dumps(document).encode()
    assert detect(data).name == name
    masks = read_masks(data, **options)
    assert masks == read_masks(data, format=name, **options)
    return masks


def said(masks: list[Mask | UnreadableMask]) -> list[str]:
    return [mask.message for mask in masks if isinstance(mask, UnreadableMask)]


def test_a_job_can_name_every_format_but_folders() -> None:
    assert set(get_args(MasksFormat)) == {name for name, layout in FORMATS.items() if layout.scope != "folder"}


def test_mmdetections_inferencer() -> None:
    document = {
        "labels": [16, 2, 0],
        "scores": [0.9, 0.5, 0.1],
        "bboxes": [[0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]],
        "masks": [rle(mask) for mask in MASKS],
    }
    for given in (document, {"predictions": [document], "visualization": []}):
        masks = read(given, "mmdet")
        assert_drawn(masks, MASKS)
        assert isinstance(masks[1], Mask)
        assert masks[1].upstream == {"label": 2, "score": 0.5, "bbox": [1, 1, 2, 2]}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"labels": [1], "scores": [0.5], "bboxes": [[0, 0, 1, 1]]}, "boxes and no `masks`"),
        ({"labels": [1], "scores": [0.5], "bboxes": [], "masks": []}, "not as many `labels`"),
        ({"panoptic_seg_path": "preds/a.png"}, "give that PNG"),
        ({"predictions": [{}, {}], "visualization": []}, "predictions of 2 images without their names"),
    ],
)
def test_what_mmdetection_has_without_masks_is_said(document: Any, words: str) -> None:
    with pytest.raises(MasksDocumentError, match=words):
        read(document, "mmdet")
    assert read({"labels": [], "scores": [], "bboxes": []}, "mmdet") == []


def test_grounded_sam2_is_recognised_and_is_read_as_sa1b_too() -> None:
    document = {
        "image_path": "notebooks/images/a.jpg",
        "annotations": [
            {"class_name": "car", "bbox": [1, 2, 3, 4], "segmentation": rle(mask), "score": [0.9]} for mask in MASKS
        ],
        "box_format": "xyxy",
        "img_width": 60,
        "img_height": 40,
    }
    masks = read(document, "grounded-sam2")
    assert_drawn(masks, MASKS)
    assert masks == read_masks(json.dumps(document).encode(), format="sa1b")


def json_min() -> list[dict[str, Any]]:
    return [
        {
            "image": f"/data/upload/1/0a1b2c3d-{name}.jpg",
            "id": task,
            "tag": [
                {
                    "format": "rle",
                    "rle": brush_of(mask),
                    "brushlabels": ["Dog"],
                    "original_width": 60,
                    "original_height": 40,
                },
                {"points": [[25, 25], [50, 25], [50, 75]], "original_width": 60, "original_height": 40},
                {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["Dog"], "original_width": 60},
            ],
            "choice": "good",
            "annotator": 1,
            "annotation_id": annotation,
            "created_at": "2026-11-01T10:00:00Z",
            "updated_at": "2026-11-01T10:00:00Z",
            "lead_time": 2.5,
        }
        for task, annotation, name, mask in [(5, 1, "a", MASKS[0]), (5, 2, "a", MASKS[1]), (6, 3, "b", MASKS[2])]
    ]


def test_label_studio_json_min(tmp_path: Path) -> None:
    masks = read(json_min(), "label-studio-min", image_name="b.jpg")
    np.testing.assert_array_equal(drawn(masks[0]), MASKS[2])
    assert isinstance(masks[1], Mask)
    assert masks[1].segmentation == [[15, 10, 30, 10, 30, 30]]
    assert [isinstance(mask, Mask) and mask.upstream for mask in masks] == [
        {"labels": ["Dog"], "from_name": "tag", "annotation_id": 3},
        {"from_name": "tag", "annotation_id": 3},
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(json_min()))
    images = list(read_dataset(path))
    assert [(image.image_id, image.size, len(image.masks)) for image in images] == [(5, SIZE, 4), (6, SIZE, 2)]
    assert images[1].masks == masks
    np.testing.assert_array_equal(drawn(images[0].masks[2]), MASKS[1])
    with pytest.raises(MasksDocumentError, match=r"no tasks with the file name 'c.jpg', of 2"):
        read(json_min(), "label-studio-min", image_name="c.jpg")


BOX = {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["Dog"]}
LABEL_STUDIO_BOX = {"id": "r", "type": "rectanglelabels", "original_width": 60, "original_height": 40, "value": BOX}
CVAT_BOX = """<annotations><version>1.1</version><image id="0" name="a.jpg" width="60" height="40">
<box label="Dog" xtl="1" ytl="1" xbr="6" ybr="6" occluded="0"/></image></annotations>"""


@pytest.mark.parametrize(
    "text",
    [
        CVAT_BOX,
        json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"id": 2, "result": [LABEL_STUDIO_BOX]}]}]),
        json.dumps([{**json_min()[0], "tag": [BOX]}]),
    ],
    ids=["cvat", "label-studio", "label-studio-min"],
)
def test_boxes_alone_are_named_and_leave_nothing_to_score(text: str, tmp_path: Path) -> None:
    (mask,) = read_masks(text.encode(), image_name="a.jpg")
    assert isinstance(mask, UnreadableMask)
    assert "Boxes are not masks" in mask.message
    file = tmp_path / "export"
    file.write_text(text)
    (image,) = read_dataset(file)
    with pytest.raises(NothingToScore, match=r"the only entry is left out.*Boxes are not masks") as nothing:
        usable_masks(image.masks, "a.jpg")
    assert (nothing.value.code, exit_code_of(nothing.value)) == ("no_mask_scored", Exit.NOT_SUCCEEDED)


def labelme(*shapes: dict[str, Any], **changed: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"version": "5.5.0", "flags": {}, "imagePath": "a.jpg", "imageData": None}
    return {**fields, "imageHeight": 40, "imageWidth": 60, "shapes": list(shapes), **changed}


def test_labelme() -> None:
    bits, left, top = cut_out(MASKS[0])
    corners = [[left, top], [left + bits.shape[1] - 1, top + bits.shape[0] - 1]]
    mask = {"label": "cat", "points": corners, "shape_type": "mask", "mask": base64.b64encode(png_of(bits)).decode()}
    part = {"label": "dog", "group_id": 3, "shape_type": "polygon", "flags": {}}
    masks = read(
        labelme(
            {**part, "points": SQUARE},
            mask,
            {**part, "points": [[40, 1], [50, 1], [50, 9]]},
            {**part, "label": "cow", "points": SQUARE},
            {"label": "box", "points": [[1, 1], [5, 5]], "shape_type": "rectangle"},
            {"label": "ball", "points": [[1, 1], [5, 5]], "shape_type": "circle"},
            {**mask, "points": [[50, 30], [70, 50]]},
            {**mask, "mask": "%%%"},
        ),
        "labelme",
    )
    assert isinstance(masks[0], Mask)
    assert isinstance(masks[2], Mask)
    assert masks[0].segmentation == [SQUARE_FLAT, [40, 1, 50, 1, 50, 9]]
    assert masks[0].upstream == {"label": "dog", "group_id": 3}
    np.testing.assert_array_equal(drawn(masks[1]), MASKS[0])
    assert masks[2].segmentation == [SQUARE_FLAT]
    words = said(masks)
    assert len(words) == 4
    assert "Shape 4 is of the type 'rectangle', and no mask" in words[0]
    assert "circle" in words[1]
    assert "is not inside the image of 60 x 40 pixels" in words[2]
    assert "not a text in base64" in words[3]


def via() -> dict[str, Any]:
    xs, ys = ([pair[axis] for pair in SQUARE] for axis in (0, 1))
    polygon = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
    others = [
        {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4},
        {"name": "circle", "cx": 1, "cy": 2, "r": 3},
        {"name": "ellipse", "cx": 1, "cy": 2, "rx": 3, "ry": 2, "theta": 0},
        {"name": "polyline", "all_points_x": xs, "all_points_y": ys},
        {"name": "point", "cx": 1, "cy": 2},
        {"name": "polygon", "all_points_x": xs, "all_points_y": [1]},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "dog"}} for shape in (polygon, *others)]
    return {
        f"{name}12": {"filename": name, "size": 12, "regions": given, "file_attributes": {}}
        for name, given in (("a.jpg", regions), ("b.jpg", {"0": regions[0]}), ("c.jpg", []))
    }


@pytest.mark.parametrize("project", [False, True])
def test_via(tmp_path: Path, project: bool) -> None:
    document = {"_via_settings": {}, "_via_img_metadata": via(), "_via_attributes": {}} if project else via()
    masks = read(document, "via", image_name="a.jpg")
    assert isinstance(masks[0], Mask)
    assert masks[0].segmentation == [SQUARE_FLAT]
    assert masks[0].upstream == {"region_attributes": {"class": "dog"}}
    for kind, message in zip(
        ("rect", "circle", "ellipse", "polyline", "point", "all_points"), said(masks), strict=True
    ):
        assert kind in message
    path = tmp_path / "via.json"
    path.write_text(json.dumps(document))
    images = list(read_dataset(path))
    assert [(image.image, image.image_id, len(image.masks)) for image in images] == [
        ("a.jpg", "a.jpg12", 7),
        ("b.jpg", "b.jpg12", 1),
        ("c.jpg", "c.jpg12", 0),
    ]
    assert images[0].masks == masks
    assert images[1].masks == read(document, "via", image_id="b.jpg12")
    with pytest.raises(MasksDocumentError, match=r"no images with the file name 'd.jpg', of 3"):
        read(document, "via", image_name="d.jpg")


def supervisely(*objects: dict[str, Any], **size: Any) -> dict[str, Any]:
    return {"description": "", "tags": [], "size": {"height": 40, "width": 60, **size}, "objects": list(objects)}


def bitmap(bits: Bits, left: int, top: int, packed: bool = True) -> dict[str, Any]:
    png = png_of(bits, palette=True)
    data = base64.b64encode(zlib.compress(png) if packed else png).decode()
    return {"geometryType": "bitmap", "classTitle": "dog", "bitmap": {"data": data, "origin": [left, top]}}


def test_supervisely() -> None:
    polygon = {"geometryType": "polygon", "classTitle": "cat", "points": {"exterior": SQUARE, "interior": []}}
    hole = [[15, 15], [25, 15], [25, 25], [15, 25]]
    masks = read(
        supervisely(
            {"id": 7, **bitmap(*cut_out(MASKS[0]))},
            bitmap(*cut_out(MASKS[1]), packed=False),
            {"id": 8, **polygon},
            {"id": 9, **polygon, "points": {"exterior": SQUARE, "interior": [hole, [[0, 0], [12, 0], [12, 12]]]}},
            {"id": 10, "geometryType": "rectangle", "points": {"exterior": [[1, 1], [5, 5]], "interior": []}},
            {"id": 11, **bitmap(MASKS[0], 1, 0)},
        ),
        "supervisely",
    )
    assert [mask.id for mask in masks] == ["7", "1", "8", "9", "10", "11"]
    np.testing.assert_array_equal(drawn(masks[0]), MASKS[0])
    np.testing.assert_array_equal(drawn(masks[1]), MASKS[1])
    assert isinstance(masks[2], Mask)
    assert (masks[2].segmentation, masks[2].polygon_convention) == ([SQUARE_FLAT], "opencv")
    # As cv2.fillPoly fills them: what is under an outline is inside, of the hole as of the square.
    expected = np.zeros(SIZE, np.bool_)
    expected[10:31, 10:31] = True
    expected[15:26, 15:26] = False
    expected[np.tril_indices(13)[1], np.tril_indices(13)[0]] = False
    np.testing.assert_array_equal(drawn(masks[3]), expected)
    words = said(masks)
    assert "Object 4 is of the type 'rectangle', and no mask" in words[0]
    assert "is not inside the image" in words[1]


def test_a_bitmap_that_unpacks_without_end_is_refused() -> None:
    bomb = bitmap(MASKS[0], 0, 0)
    bomb["bitmap"]["data"] = base64.b64encode(zlib.compress(bytes(50_000_000), 9)).decode()
    huge = {"geometryType": "polygon", "points": {"exterior": [[0, 0], [1e12, 0], [0, 1e12]], "interior": [SQUARE]}}
    words = said(read(supervisely(bomb, huge), "supervisely"))
    assert "more than the 75,136 bytes" in words[0]
    assert "too long" in words[1]
    too_large = said(read(supervisely(bomb, huge, height=10**9, width=10**9), "supervisely"))
    assert all("at most 100,000,000 are unpacked" in message for message in too_large)


def mots(*frames: int) -> bytes:
    lines = [
        f"{frame} {1000 * number + 7} {number} 40 60 {rle(mask)['counts']}"
        for frame in frames
        for number, mask in enumerate(MASKS, 1)
    ]
    return "\n".join(lines).encode()


def test_kitti_mots_is_not_taken_for_yolo(tmp_path: Path) -> None:
    path = tmp_path / "0002.txt"
    path.write_bytes(mots(12, 3, 12 + 1) + b"\n\n12 10000 10 40 60 PVf8\n3 x\n")
    assert detect(path).name == detect(path.read_bytes()).name == "kitti-mots"
    images = list(read_dataset(path))
    assert [(image.image, image.image_id, image.size) for image in images] == [
        ("0002/000012", 12, SIZE),
        ("0002/000003", 3, SIZE),
        ("0002/000013", 13, SIZE),
    ]
    for mask, bits in zip(images[0].masks, MASKS, strict=False):
        np.testing.assert_array_equal(drawn(mask), bits)
    assert [mask.id for mask in images[0].masks] == ["1007", "2007", "3007", "10000"]
    assert isinstance(images[0].masks[0], Mask)
    assert images[0].masks[0].upstream == {"class_id": 1, "time_frame": 12}
    assert "to ignore" in said(images[0].masks)[0]
    assert "Line 12 is not" in said(images[1].masks)[0]
    for options in ({"image_name": "000012.png"}, {"image_id": 12}, {"image_name": "x.png", "image_id": "12"}):
        assert read_masks(path.read_bytes(), **options) == images[0].masks
    assert read_masks(mots(5), image_name="photo.png") == read_masks(mots(5), format="kitti-mots", image_id=5)
    for name in ("000014.png", "photo.png"):
        with pytest.raises(MasksDocumentError, match="no frame with the file name"):
            read_masks(path.read_bytes(), image_name=name)
    with pytest.raises(MasksDocumentError, match="they are text of KITTI MOTS"):
        read_masks(path.read_bytes(), format="yolo")


def test_boxes_of_yolo_with_a_confidence_are_still_yolos() -> None:
    assert detect(b"0 0.5 0.5 0.2 0.2 0.9\n").name == "yolo"
    assert detect(b"0 1 1 1 1 1\n").name == "yolo"


def test_coco_as_fiftyone_and_datumaro_write_it(tmp_path: Path) -> None:
    crowd = {"counts": encode_runs(MASKS[0]), "size": list(SIZE)}
    fiftyone = {
        "info": {"year": "", "version": "", "description": "Exported from FiftyOne", "date_created": "2026-11-27"},
        "licenses": [],
        "categories": [{"id": 0, "name": "dog", "supercategory": None}],
        "images": [
            {"id": 1, "file_name": "/data/x/a.jpg", "height": 40, "width": 60, "license": None, "coco_url": None}
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 1, 5, 5], "segmentation": [SQUARE_FLAT]},
            {"id": 2, "image_id": 1, "category_id": 0, "bbox": [1, 1, 5, 5], "iscrowd": 1, "segmentation": crowd},
            {"id": 3, "image_id": 1, "category_id": 0, "bbox": [1, 1, 5, 5], "score": 0.5},
        ],
    }
    datumaro = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": [{"id": 1, "name": "dog", "supercategory": ""}],
        "images": [{"id": 1, "width": 60, "height": 40, "file_name": "x/a.jpg", "license": 0, "date_captured": 0}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "segmentation": [SQUARE_FLAT],
                "attributes": {"occluded": False},
            },
            {"id": 2, "image_id": 1, "category_id": 1, "segmentation": crowd, "iscrowd": 1, "attributes": {}},
            {"id": 3, "image_id": 1, "category_id": 1, "segmentation": [], "bbox": [1, 1, 5, 5], "attributes": {}},
        ],
    }
    for document in (fiftyone, datumaro):
        masks = read(document, "coco", image_name="x/a.jpg")
        path = tmp_path / "labels.json"
        path.write_text(json.dumps(document))
        (image,) = read_dataset(path)
        assert image.masks == masks
        np.testing.assert_array_equal(drawn(masks[1]), MASKS[0])
        assert isinstance(masks[0], Mask)
        assert masks[0].segmentation == [SQUARE_FLAT]
        # A box alone is no mask: said where it is read, or in the result (`empty_mask`).
        if isinstance(masks[2], Mask):
            assert masks[2].segmentation == []
        else:
            assert masks[2].message == "Entry 2 has a box (`bbox`) and no `segmentation`: it is no mask."


def encode_runs(mask: Bits) -> list[int]:
    """Return COCO's uncompressed run lengths of a mask without the first pixel."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return [int(run) for run in np.diff([0, *edges, flat.size])]
