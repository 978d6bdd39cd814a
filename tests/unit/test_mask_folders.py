"""Folders of masks per image: SAM's, and those of pictures alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as coco

from maskscore.dataset.mask_folders import read_folder, read_pictures
from maskscore.dataset.storage_roots import FolderRoot
from maskscore.errors import MaskscoreError
from maskscore.schema.job import RLE, Mask
from maskscore.storage import Objects


@pytest.fixture
def root(tmp_path: Path) -> Iterator[FolderRoot]:
    objects = Objects(buckets=None, result_buckets=None, file_roots=[tmp_path])
    (tmp_path / "a").mkdir()
    yield FolderRoot(tmp_path, objects)
    objects.close()


def draw(file: Path, row: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((9, 12), dtype=bool)
    mask[row, 2:7] = True
    Image.fromarray(mask.astype(np.uint8) * 255).save(file)
    return mask


def bits(mask: Mask) -> npt.NDArray[np.bool_]:
    assert isinstance(mask.segmentation, RLE)
    decoded: npt.NDArray[np.uint8] = coco.decode(mask.segmentation.model_dump())
    return decoded.astype(bool)


def test_pictures_alone_are_called_by_their_names(tmp_path: Path, root: FolderRoot) -> None:
    drawn = {str(n): draw(tmp_path / "a" / f"{n}.png", n % 9) for n in (10, 2, 1)}
    masks = [mask for mask in read_folder(root, "a") if isinstance(mask, Mask)]
    assert [mask.id for mask in masks] == ["1", "2", "10"]
    for mask in masks:
        np.testing.assert_array_equal(bits(mask), drawn[mask.id])


def test_sams_table_goes_with_its_masks(tmp_path: Path, root: FolderRoot) -> None:
    drawn = [draw(tmp_path / "a" / f"{n}.png", n) for n in range(2)]
    (tmp_path / "a" / "metadata.csv").write_text("id,area,predicted_iou\n0,5,0.9\n1,5,0.8\n")
    masks = [mask for mask in read_folder(root, "a") if isinstance(mask, Mask)]
    assert [mask.upstream["predicted_iou"] for mask in masks] == [0.9, 0.8]
    for mask, expected in zip(masks, drawn, strict=True):
        np.testing.assert_array_equal(bits(mask), expected)


def test_a_file_that_is_no_picture_is_named(tmp_path: Path, root: FolderRoot) -> None:
    (tmp_path / "a" / "0.png").write_bytes(b"no picture")
    with pytest.raises(MaskscoreError, match=r"0\.png"):
        read_folder(root, "a")


def test_the_format_that_is_said_goes_before_the_content(tmp_path: Path, root: FolderRoot) -> None:
    mask = np.zeros((9, 12), dtype=np.uint8)
    mask[2, 2:7], mask[4, 2:7] = 1, 2
    Image.fromarray(mask).save(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "metadata.csv").write_text("id,area\n0,10\n")
    said = [mask for mask in read_folder(root, "a", "png-labels") if isinstance(mask, Mask)]
    assert [mask.id for mask in said] == ["0-1", "0-2"]
    assert [mask.id for mask in read_folder(root, "a", "sam-folder")] == ["0"]
    with pytest.raises(MaskscoreError, match="to be of the format npz, but they are a PNG"):
        read_folder(root, "a", "npz")
    (tmp_path / "a" / "metadata.csv").unlink()
    with pytest.raises(MaskscoreError, match=r"no metadata\.csv"):
        read_folder(root, "a", "sam-folder")


def test_a_background_that_may_be_a_mask_is_reported_with_its_file(tmp_path: Path, root: FolderRoot) -> None:
    labels = np.full((9, 12), 3, dtype=np.uint8)
    labels[2, 2:7] = 1
    for name in ("a/0.png", "a/1.png", "video/000/5.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(tmp_path / name)
    with pytest.warns(UserWarning, match="around the picture") as of_folder:
        read_folder(root, "a")
    with pytest.warns(UserWarning, match="around the picture") as of_frame:
        read_pictures(root, ["video/000/5.png"])
    starts = ["a/0.png: The value 3", "a/1.png: The value 3", "video/5.png: object 000: The value 3"]
    given = [str(warning.message) for warning in (*of_folder, *of_frame)]
    assert [text[: len(start)] for text, start in zip(given, starts, strict=True)] == starts
