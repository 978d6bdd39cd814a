"""Polygons are applied before or after the EXIF rotation, whichever fits the size that their file states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from in_memory_files import image_file
from mask_files import as_json
from maskscore.cli.submit import job_from_options
from maskscore.client.image_header import image_size
from maskscore.errors import SkipCode
from maskscore.formats import UnreadableMask, read_dataset, read_masks
from maskscore.masks import count_fitting
from maskscore.schema.job import Mask, Orientation
from maskscore_worker.inputs.images import ImageFile, decode_image, header_size
from maskscore_worker.masks.regions import Region, SkippedRegion, find_regions

# The picture is stored as 160 x 120, and seen as 120 x 160.
STORED, SEEN = (120, 160), (160, 120)
SQUARE = [20, 20, 70, 20, 70, 70, 20, 70]


def photo() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return image_file(Image.new("RGB", (160, 120)), "JPEG", exif=exif)


def coco(size: tuple[int, int], polygon: list[int] = SQUARE) -> bytes:
    return as_json(
        {
            "images": [{"id": 1, "file_name": "a.jpg", "height": size[0], "width": size[1]}],
            "annotations": [{"id": 1, "image_id": 1, "segmentation": [polygon]}],
            "categories": [],
        }
    )


def cvat(size: tuple[int, int]) -> bytes:
    return (
        f'<annotations><image id="0" name="a.jpg" width="{size[1]}" height="{size[0]}">'
        '<polygon label="a" points="20,20;70,20;70,70;20,70"/></image></annotations>'
    ).encode()


def percent(size: tuple[int, int]) -> bytes:
    points = [[100 * x / size[1], 100 * y / size[0]] for x, y in ((20, 20), (70, 20), (70, 70), (20, 70))]
    value = {"points": points, "polygonlabels": ["a"]}
    result = {"id": "a", "type": "polygonlabels", "original_width": size[1], "original_height": size[0], "value": value}
    return as_json([{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"id": 1, "result": [result]}]}])


def sa1b(size: tuple[int, int]) -> bytes:
    image = {"image_id": 1, "file_name": "a.jpg", "height": size[0], "width": size[1]}
    return as_json({"image": image, "annotations": [{"id": 1, "segmentation": [SQUARE]}]})


def frame_of(masks: list[Mask | UnreadableMask], orientation: Orientation = "auto") -> tuple[bool, list[str]]:
    """Return whether the worker turns the photo for these masks, and the codes of its warnings."""
    image = decode_image(
        ImageFile(photo(), "a.jpg"),
        orientation=orientation,
        count_fitting=lambda height, width: count_fitting(masks, height, width),
        max_pixels=10**6,
    )
    return image.orientation_applied, [notice.code for notice in image.notices]


@pytest.mark.parametrize("written", [coco, cvat, percent, sa1b])
def test_the_stated_size_decides(written: Any, tmp_path: Path) -> None:
    for size, turned in ((STORED, False), (SEEN, True)):
        read = [read_masks(written(size), image_name="a.jpg")]
        if written is not sa1b:
            path = tmp_path / f"{turned}.json"
            path.write_bytes(written(size))
            read += [image.masks for image in read_dataset(path)]
        for masks in read:
            assert frame_of(masks) == (turned, [])
            travelled = [Mask.model_validate_json(mask.model_dump_json()) for mask in masks if isinstance(mask, Mask)]
            assert frame_of(list(travelled)) == (turned, [])


def test_the_size_is_written_only_where_it_decides() -> None:
    wide = [100, 20, 150, 20, 150, 70]
    for data in (coco(STORED, wide), coco((90, 90)), sa1b((0, 5))):
        (mask,) = read_masks(data)
        assert "polygon_size" not in json.loads(json.dumps(mask, default=lambda value: value.model_dump()))
    (mask,) = read_masks(coco(STORED))
    assert isinstance(mask, Mask)
    assert json.loads(mask.model_dump_json())["polygon_size"] == list(STORED)
    assert mask.upstream == {"image_id": 1}


def test_a_size_that_is_of_neither_frame_decides_nothing() -> None:
    masks = read_masks(coco((60, 80)))
    assert frame_of(masks) == (True, ["orientation_ambiguous"])


@pytest.mark.parametrize("orientation", ["auto", "apply", "ignore"])
def test_normalised_outlines_are_shares_of_the_frame_that_is_scored(orientation: Orientation, tmp_path: Path) -> None:
    """Label text is read by the client beside its image, or by a worker: with the same pixels."""
    (tmp_path / "a.jpg").write_bytes(photo())
    labels = b"0 0.25 0.25 0.5 0.25 0.5 0.5\n"
    (tmp_path / "a.txt").write_bytes(labels)
    size = header_size(ImageFile(photo(), "a.jpg"), orientation, max_pixels=10**6)
    assert image_size(tmp_path / "a.jpg", orientation) == size == (STORED if orientation == "ignore" else SEEN)
    inline = job_from_options(str(tmp_path / "a.jpg"), str(tmp_path / "a.txt"), {"orientation": orientation}).masks
    by_worker = read_masks(labels, size=size)
    assert inline == by_worker
    assert frame_of(by_worker, orientation) == (orientation != "ignore", [])


def test_polygons_of_the_other_frame_are_skipped() -> None:
    masks = read_masks(coco(SEEN))
    for has_two_frames, kind in ((True, SkippedRegion), (False, Region)):
        (found,) = find_regions(
            masks, height=120, width=160, min_area=1, split_components=False, has_two_frames=has_two_frames
        )
        assert isinstance(found, kind)
    (skipped,) = find_regions(masks, height=120, width=160, min_area=1, split_components=False, has_two_frames=True)
    assert isinstance(skipped, SkippedRegion)
    assert skipped.code == SkipCode.MASK_SIZE_MISMATCH
    assert "120 x 160" in skipped.message
