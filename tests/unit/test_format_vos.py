"""Videos in folders: SAM 2's pictures per object and DAVIS' pictures per frame, paired with their frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mask_files import Bits, drawn, label_map, png, shapes
from maskscore.dataset import Dataset
from maskscore.dataset.job_maker import JobMaker
from maskscore.formats import ImageMasks, MasksDocumentError, UnreadableMask, detect, read_dataset, read_masks
from maskscore.schema.job import Mask, MasksRef
from maskscore.storage import Objects

MASKS = shapes()


def write(path: Path, data: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def as_sam2(mask: Bits) -> bytes:
    return png(mask.astype(np.uint8), palette=True)


@pytest.fixture
def per_object(tmp_path: Path) -> Path:
    nothing = np.zeros_like(MASKS[0])
    for name, mask in {
        "sav_1/000/00000": MASKS[0],
        "sav_1/001/00000": MASKS[1],
        "sav_1/000/00004": nothing,
        "sav_1/001/00004": MASKS[2],
        "sav_2/000/00000": MASKS[2],
    }.items():
        write(tmp_path / "out" / f"{name}.png", as_sam2(mask))
    return tmp_path / "out"


EXPECTED = {
    "sav_1/00000": {"0": MASKS[0], "1": MASKS[1]},
    "sav_1/00004": {"1": MASKS[2]},
    "sav_2/00000": {"0": MASKS[2]},
}


def check(images: list[ImageMasks]) -> None:
    assert [image.image for image in images] == list(EXPECTED)
    for image in images:
        assert image.size == (40, 60)
        assert {mask.id for mask in image.masks} == EXPECTED[image.image].keys()
        for mask in image.masks:
            np.testing.assert_array_equal(drawn(mask), EXPECTED[image.image][mask.id])


def test_pictures_per_object(per_object: Path) -> None:
    assert detect(per_object).name == "vos"
    check(list(read_dataset(per_object)))
    one = per_object / "sav_1"
    assert detect(one).name == "vos"
    assert [image.image for image in read_dataset(one)] == ["00000", "00004"]


def test_pictures_per_frame(tmp_path: Path) -> None:
    write(tmp_path / "bear" / "00000.png", png(label_map(MASKS, [1, 2, 3]), palette=True))
    write(tmp_path / "bear" / "00001.png", png(label_map(MASKS[:2], [1, 2]), palette=True))
    images = list(read_dataset(tmp_path, format="vos"))
    assert [(image.image, [mask.id for mask in image.masks]) for image in images] == [
        ("bear/00000", ["1", "2", "3"]),
        ("bear/00001", ["1", "2"]),
    ]
    # Without objects' folders it may be anything.
    with pytest.raises(MasksDocumentError, match="folders of a video's frames"):
        detect(tmp_path)
    with pytest.raises(MasksDocumentError, match="to be of the format vos"):
        read_masks((tmp_path / "bear" / "00000.png").read_bytes(), format="vos")


def test_an_objects_picture_that_is_damaged_costs_that_object_alone(per_object: Path) -> None:
    (per_object / "sav_1" / "000" / "00000.png").write_bytes(b"\x89PNG\r\n\x1a\nx")
    first = next(iter(read_dataset(per_object)))
    assert [type(mask) for mask in first.masks] == [UnreadableMask, Mask]
    assert [mask.id for mask in first.masks] == ["0", "1"]


@pytest.mark.parametrize("format_", [None, "vos", "png-labels"])
def test_a_run_finds_the_pictures_of_each_frames_objects(
    tmp_path: Path, per_object: Path, objects: Objects, format_: str | None
) -> None:
    frames = [f"{name}.jpg" for name in EXPECTED]
    for name in [*frames, "sav_3/00000.jpg"]:
        write(tmp_path / "frames" / name)
    write(per_object / "sav_3" / "00000.png", png(label_map(MASKS, [1, 2, 3]), palette=True))
    with Dataset(str(tmp_path / "frames"), str(per_object), format_).opened(objects) as opened:
        pairs = list(opened.pairing)
        maker = JobMaker(opened.images, opened.masks, objects, "batch", format=format_)
        made = [maker.make(pair) for pair in pairs]
        census = opened.pairing.counts
    assert [pair.image for pair in pairs] == [*frames, "sav_3/00000.jpg"]
    assert pairs[0].pictures == ("sav_1/000/00000.png", "sav_1/001/00000.png")
    assert (census.pairs, census.masks_without_image, census.masks_not_used) == (4, 0, 0)
    for pair, one in zip(pairs[:3], made, strict=False):
        assert isinstance(one.job.masks, list)
        expected = EXPECTED[pair.image.removesuffix(".jpg")]
        assert [mask.id for mask in one.job.masks] == list(expected)
        for mask in one.job.masks:
            np.testing.assert_array_equal(drawn(mask), expected[mask.id])
    reference = made[3].job.masks
    assert isinstance(reference, MasksRef)
    assert reference.format == (None if format_ is None else "png-labels")


def test_a_run_of_one_video(tmp_path: Path, per_object: Path, objects: Objects) -> None:
    for name in ("00000.jpg", "00004.jpg"):
        write(tmp_path / "frames" / name)
    with Dataset(str(tmp_path / "frames"), str(per_object / "sav_1")).opened(objects) as opened:
        found = {pair.image: pair.pictures for pair in opened.pairing}
    assert found == {name: (f"000/{name[:5]}.png", f"001/{name[:5]}.png") for name in ("00000.jpg", "00004.jpg")}


def test_a_background_that_may_be_a_mask_is_reported_with_frame_and_object(tmp_path: Path) -> None:
    labels = np.where(MASKS[0], np.uint8(1), np.uint8(3))
    write(tmp_path / "video" / "000" / "5.png", png(labels))
    with pytest.warns(UserWarning, match="video/5: object 000: The value 3 is all around the picture"):
        list(read_dataset(tmp_path, format="vos"))
