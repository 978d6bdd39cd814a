"""Files and folders that hold the masks of many images."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mask_files import assert_drawn, brush_of, cvat_runs, drawn, label_map, png, shapes
from maskscore.formats import ImageMasks, MasksDocumentError, UnreadableMask, detect, read_dataset, read_masks
from maskscore.masks import encode_mask
from maskscore.schema.job import Mask
from photo_dataset import IMAGES, MASKS

SQUARE = [[0.0, 0.0, 5.0, 0.0, 5.0, 5.0]]


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), "utf-8")
    return path


def coco(images: int = 3) -> dict[str, Any]:
    return {
        "info": {},
        "annotations": [
            {"id": 10 * image + n, "image_id": image, "category_id": 1, "iscrowd": 0, "segmentation": SQUARE}
            for n in range(2)
            for image in range(1, images)
        ],
        "images": [
            {"id": image, "file_name": f"val/{image}.jpg", "height": 40, "width": 60} for image in range(images, 0, -1)
        ],
    }


def test_coco_yields_each_image_with_its_own_masks(tmp_path: Path) -> None:
    path = write(tmp_path / "any.name", coco())
    assert (detect(path).name, detect(path).scope) == ("coco", "dataset")
    images = list(read_dataset(path))
    assert [(image.image, image.image_id, image.size) for image in images] == [
        ("val/3.jpg", 3, (40, 60)),
        ("val/2.jpg", 2, (40, 60)),
        ("val/1.jpg", 1, (40, 60)),
    ]
    assert [[mask.id for mask in image.masks] for image in images] == [[], ["20", "21"], ["10", "11"]]
    for image in images:
        assert image.masks == read_masks(path.read_bytes(), image_id=image.image_id)


def test_coco_with_crowds_and_polygons_of_real_photos(photos: Path) -> None:
    path = photos / "instances.json"
    images = list(read_dataset(path))
    assert (len(images), sum(len(image.masks) for image in images)) == (IMAGES, MASKS)
    for image in images:
        assert image.masks == read_masks(path.read_bytes(), image_name=Path(image.image).name)
        assert image.size is not None
        assert all(isinstance(mask, Mask) and drawn(mask, image.size).any() for mask in image.masks)


def test_lvis(tmp_path: Path) -> None:
    document = coco()
    for image in document["images"]:
        name = Path(image.pop("file_name")).name
        image |= {"coco_url": f"http://images.cocodataset.org/train2017/{name}", "neg_category_ids": [1]}
    path = write(tmp_path / "lvis.json", document)
    assert detect(path).name == "lvis"
    assert [image.image for image in read_dataset(path)] == ["train2017/3.jpg", "train2017/2.jpg", "train2017/1.jpg"]


def test_coco_panoptic(tmp_path: Path) -> None:
    """https://cocodataset.org/#format-data, 4: annotations with ``segments_info``, and a folder of PNGs."""
    ids = [5, 3 + 256 * 200, 65536 * 100]
    labels = label_map(shapes(), ids, np.uint32)
    folder = tmp_path / "panoptic_val"
    folder.mkdir()
    (folder / "a.png").write_bytes(
        png(np.stack([labels & 255, (labels >> 8) & 255, labels >> 16], -1).astype(np.uint8))
    )
    segments = [{"id": value, "category_id": value % 7, "iscrowd": 0, "area": 1} for value in [*ids, 99]]
    document = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 40, "width": 60} for n in (1, 2, 3)],
        "annotations": [
            {"image_id": 1, "file_name": "a.png", "segments_info": segments},
            {"image_id": 2, "file_name": "missing.png", "segments_info": segments[:1]},
            {"image_id": 3, "file_name": "../panoptic_val/a.png", "segments_info": segments[:1]},
        ],
    }
    path = write(tmp_path / "panoptic_val.json", document)
    assert detect(path).name == "coco-panoptic"
    first, missing, outside = read_dataset(path)
    for mask, value in zip(first.masks, ids, strict=False):
        np.testing.assert_array_equal(drawn(mask), labels == value)
        assert mask.upstream == {"category_id": value % 7, "iscrowd": 0, "area": 1}
    messages = [
        image.masks[-1].message for image in (first, missing, outside) if isinstance(image.masks[-1], UnreadableMask)
    ]
    assert "no pixel of this segment" in messages[0]
    assert "There is no missing.png in" in messages[1]
    assert "no PNG's name" in messages[2]


def test_detectron2_results_are_grouped_by_image(tmp_path: Path) -> None:
    """``coco_instances_results.json`` of detectron2/evaluation/coco_evaluation.py"""
    results = [
        {"image_id": image_id, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5, "segmentation": SQUARE}
        for image_id in (9, 3, 9, 3, 9)
    ]
    path = write(tmp_path / "coco_instances_results.json", results)
    assert [(image.image, image.image_id, len(image.masks)) for image in read_dataset(path)] == [
        ("9", 9, 3),
        ("3", 3, 2),
    ]


def test_label_studio(tmp_path: Path) -> None:
    tasks = [
        {
            "id": task,
            "data": {"image": image},
            "annotations": [
                {
                    "id": 1,
                    "result": [
                        {
                            "id": "r",
                            "type": "brushlabels",
                            "original_width": 60,
                            "original_height": 40,
                            "value": {"format": "rle", "rle": brush_of(mask), "brushlabels": ["Car"]},
                        }
                    ],
                }
            ],
        }
        for task, image, mask in zip(
            (5, 6, 7),
            ("s3://b/x/a.jpg", "/data/local-files/?d=set%2Fb.jpg", "/data/upload/1/0a1b2c3d-c.jpg"),
            shapes(),
            strict=True,
        )
    ]
    images = list(read_dataset(write(tmp_path / "export.json", tasks)))
    assert [(image.image, image.image_id, image.size) for image in images] == [
        ("s3://b/x/a.jpg", 5, (40, 60)),
        ("set/b.jpg", 6, (40, 60)),
        ("/data/upload/1/0a1b2c3d-c.jpg", 7, (40, 60)),
    ]
    for image, mask in zip(images, shapes(), strict=True):
        np.testing.assert_array_equal(drawn(image.masks[0]), mask)


def test_cvat(tmp_path: Path) -> None:
    elements = []
    for index, mask in enumerate(shapes()):
        runs, left, top, width, height = cvat_runs(mask)
        elements.append(
            f'<image id="{index}" name="a/{index}.jpg" width="60" height="40"><mask label="car" occluded="0" '
            f'rle="{runs}" left="{left}" top="{top}" width="{width}" height="{height}" z_order="0"/></image>'
        )
    path = tmp_path / "annotations.xml"
    path.write_text(f"<annotations><version>1.1</version>{''.join(elements)}</annotations>", "utf-8")
    images = list(read_dataset(path))
    assert [(image.image, image.image_id, image.size) for image in images] == [
        (f"a/{index}.jpg", str(index), (40, 60)) for index in range(3)
    ]
    for image, mask in zip(images, shapes(), strict=True):
        np.testing.assert_array_equal(drawn(image.masks[0]), mask)


SAM_HEADER = (
    "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,predicted_iou,stability_score,crop_box_x0,"
    "crop_box_y0,crop_box_w,crop_box_h"
)


def sam_output(folder: Path) -> None:
    """Write what ``write_masks_to_folder`` of SAM's scripts/amg.py writes."""
    folder.mkdir(parents=True)
    rows = [SAM_HEADER]
    for index, mask in enumerate(shapes()):
        (folder / f"{index}.png").write_bytes(png(mask.astype(np.uint8) * 255))
        rows.append(f"{index},{mask.sum()},1,2,3,4,10.5,20.5,0.{index + 1},0.95,0,0,60,40")
    (folder / "metadata.csv").write_text("\n".join(rows))


def test_sams_command_line_without_convert_to_rle(tmp_path: Path) -> None:
    for name in ("photo_1", "photo_2"):
        sam_output(tmp_path / "out" / name)
    (tmp_path / "out" / "photo_2" / "1.png").unlink()
    assert detect(tmp_path / "out").name == "sam-folder"
    (one,) = read_dataset(tmp_path / "out" / "photo_1")
    assert (one.image, one.size, [mask.id for mask in one.masks]) == ("photo_1", (40, 60), ["0", "1", "2"])
    assert_drawn(one.masks, shapes())
    assert one.masks[1].upstream == {
        "area": int(shapes()[1].sum()),
        "predicted_iou": 0.2,
        "stability_score": 0.95,
        "bbox": [1, 2, 3, 4],
        "crop_box": [0, 0, 60, 40],
        "point_coords": [[10.5, 20.5]],
    }
    both = {image.image: image.masks for image in read_dataset(tmp_path / "out", format="sam-folder")}
    assert both.keys() == {"photo_1", "photo_2"}
    assert both["photo_1"] == one.masks
    assert [type(mask) for mask in both["photo_2"]] == [Mask, UnreadableMask, Mask]


def test_a_row_of_sams_metadata_names_no_file_elsewhere(tmp_path: Path) -> None:
    sam_output(tmp_path / "x")
    (tmp_path / "outside.png").write_bytes(png(shapes()[0].astype(np.uint8) * 255))
    with (tmp_path / "x" / "metadata.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["\n../outside"])
    (image,) = read_dataset(tmp_path / "x")
    assert isinstance(image.masks[3], UnreadableMask)


def test_what_is_of_one_image_or_of_no_layout_says_so(tmp_path: Path) -> None:
    with pytest.raises(MasksDocumentError, match=r"has the masks of one image"):
        read_dataset(write(tmp_path / "a.json", []))
    (tmp_path / "b.txt").write_text("hello")
    with pytest.raises(MasksDocumentError, match=r"not JSON.*Known formats: maskscore, sam, .*npz"):
        read_dataset(tmp_path / "b.txt")
    with pytest.raises(MasksDocumentError, match=r"no folder of a known format .*metadata[.]csv"):
        read_dataset(tmp_path)
    with pytest.raises(MasksDocumentError, match=r"There is no format 'x'"):
        read_dataset(tmp_path, format="x")
    with pytest.raises(FileNotFoundError):
        read_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize("cut", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("format_", ["coco", "detectron2", "label-studio", "cvat"])
def test_a_file_that_is_cut_says_so(tmp_path: Path, format_: str, cut: float) -> None:
    whole = {
        "coco": json.dumps(coco()),
        "detectron2": json.dumps([{"image_id": 1, "segmentation": SQUARE}] * 20),
        "label-studio": json.dumps([{"id": n, "data": {"image": "a"}, "annotations": []} for n in range(9)]),
        "cvat": "<annotations>" + '<image id="0" name="a" width="1" height="1"></image>' * 9 + "</annotations>",
    }[format_]
    path = tmp_path / "cut"
    path.write_text(whole[: int(len(whole) * cut)])
    with pytest.raises(MasksDocumentError, match="that can be read"):
        list(read_dataset(path, format=format_))


def test_annotations_of_hostile_shapes_cost_only_themselves(tmp_path: Path) -> None:
    deep = "[" * 3000 + "]" * 3000
    text = (
        '{"images": [5, {"id": 1}, {"id": null}, {"id": [1]}], "annotations": [7, {"image_id": 1, "id": 1, "x": DEEP},'
        '{"image_id": 1, "id": 2, "segmentation": [[0, 0, 5, 0, 5, 5]]}, {"image_id": [1]}, {"image_id": 1}]}'
    ).replace("DEEP", deep)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.warns(UserWarning, match="2 annotations are of no image that the file lists"):
        (image,) = read_dataset(path, format="coco")
    assert image.image == "1"
    assert [(mask.id, type(mask)) for mask in image.masks] == [
        ("1", UnreadableMask),
        ("2", Mask),
        ("2", UnreadableMask),
    ]


MEASURE = r"""
import re, sys
from pathlib import Path
from maskscore.formats import read_dataset
images = masks = 0
for image in read_dataset(Path(sys.argv[1])):
    images, masks = images + 1, masks + len(image.masks)
# Not ru_maxrss, which a process inherits from the one that started it.
print(images, masks, re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""


def measured(path: Path) -> tuple[int, int, int]:
    """Return images, masks, and the most KiB that a process of its own had in memory."""
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    images, masks, kib = map(int, done.stdout.split())
    return images, masks, kib


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of a process's memory")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    shuffled = random.Random(1)
    peaks = []
    for images in (200, 5_000):
        document = coco(1)
        outline = [float(shuffled.randrange(1000)) for _ in range(200)]
        document["images"] = [{"id": image, "file_name": f"{image}.jpg"} for image in range(images)]
        document["annotations"] = [
            {"id": n, "image_id": n % images, "category_id": 1, "segmentation": [outline]} for n in range(3 * images)
        ]
        path = write(tmp_path / f"{images}.json", document)
        found = measured(path)
        assert found[:2] == (images, 3 * images)
        peaks.append(found[2])
    size_kib = (tmp_path / "5000.json").stat().st_size / 1024
    assert size_kib > 18_000
    # Some 2 MiB of SQLite's cache, whatever the file's size.
    assert peaks[1] - peaks[0] < size_kib / 4


def test_nothing_is_left_when_the_reading_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    images = read_dataset(write(tmp_path / "a.json", coco(200)))
    first: ImageMasks = next(images)
    assert first.image == "val/200.jpg"
    del images
    assert list((tmp_path / "tmp").iterdir()) == []


def test_encoded_masks_are_those_of_cocos_library() -> None:
    for mask in shapes():
        np.testing.assert_array_equal(drawn(Mask(id="a", segmentation=encode_mask(mask))), mask)
