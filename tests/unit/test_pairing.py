"""Pairing images with masks, and what is reported about the rest."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskscore.dataset import Dataset, Pair
from maskscore.dataset.pairing import Pairing
from maskscore.dataset.storage_roots import FolderRoot
from maskscore.errors import InvalidDocumentError, JobError
from maskscore.formats import Naming
from maskscore.storage import ListedObject, Objects


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pairs(objects: Objects, images: Path, masks: Path | None = None, **naming: str) -> dict[str, str | None]:
    dataset = Dataset(str(images), None if masks is None else str(masks), **naming)
    with dataset.opened(objects) as opened:
        return {pair.image: f"{pair.masks}/" if pair.folder else pair.masks for pair in opened.pairing}


def test_masks_beside_their_images(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "a.jpg", "a.json", "b/a.JPG", "b/a.npz", "b/c.d.jpg", "b/c.d.txt", "b/c.jpg", "b/c.json")
    assert pairs(objects, tmp_path) == {
        "a.jpg": "a.json",
        "b/a.JPG": "b/a.npz",
        "b/c.d.jpg": "b/c.d.txt",
        "b/c.jpg": "b/c.json",
    }


def test_a_parallel_folder_may_hold_pictures(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "images/x/a.jpg", "images/x/b.png", "masks/x/a.png", "masks/x/b.png", "masks/y/b.png")
    found = pairs(objects, tmp_path / "images", tmp_path / "masks")
    assert found == {"x/a.jpg": "x/a.png", "x/b.png": "x/b.png"}


def test_masks_inside_the_images_folder_are_no_images(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "a.jpg", "masks/a.png", "masks/b.png")
    assert pairs(objects, tmp_path, tmp_path / "masks") == {"a.jpg": "a.png"}


def test_images_inside_the_masks_folder_are_no_masks(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "images/a.png", "images/b.png", "labels/a.png")
    with Dataset(str(tmp_path / "images"), str(tmp_path)).opened(objects) as opened:
        assert [(pair.image, pair.masks) for pair in opened.pairing] == [("a.png", "labels/a.png")]


def test_a_png_beside_a_jpeg_is_its_masks_only_without_others(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "a.jpg", "a.png", "b.jpg", "b.png", "b.json", "c.png")
    assert pairs(objects, tmp_path) == {"a.jpg": "a.png", "b.jpg": "b.json", "b.png": "b.json"}


def test_a_folder_of_masks_per_image(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "sam/a/0.png", "sam/a/1.png", "sam/a/metadata.csv", "sam/b.json")
    assert pairs(objects, tmp_path / "images", tmp_path / "sam") == {"a.jpg": "a/", "b.jpg": "b.json"}


def test_a_name_that_only_one_image_has_is_found_elsewhere(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.jpg", "more/2.jpg", "labels/1.txt", "labels/2.txt", "labels/3.txt")
    with Dataset(str(tmp_path)).opened(objects) as opened:
        assert [(pair.image, pair.masks) for pair in opened.pairing] == [("images/1.jpg", "labels/1.txt")]
        pairing_counts = opened.pairing.counts
    assert (pairing_counts.images_without_masks, pairing_counts.lonely_images) == (2, ["images/2.jpg", "more/2.jpg"])
    assert (pairing_counts.masks_without_image, pairing_counts.lonely_masks) == (2, ["labels/2.txt", "labels/3.txt"])


def test_endings_of_a_users_own(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "a_leftImg8bit.png", "a_gtFine.png", "a.jpg", "_gtFine.png")
    found = pairs(objects, tmp_path, image_suffix="_leftImg8bit.png", masks_suffix="_gtFine.png")
    assert found == {"a_leftImg8bit.png": "a_gtFine.png"}
    touch(tmp_path, "x.jpg", "x.jpg.json")
    assert pairs(objects, tmp_path, masks_suffix=".jpg.json") == {"x.jpg": "x.jpg.json"}


def test_the_first_of_several_masks_files_is_taken_and_the_others_are_counted(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "a.jpg", "a.txt", "a.json", "a.npz", "notes.md", ".hidden.jpg", ".cache/b.jpg")
    with Dataset(str(tmp_path)).opened(objects) as opened:
        assert [pair.masks for pair in opened.pairing] == ["a.json"]
        pairing_counts = opened.pairing.counts
    assert (pairing_counts.masks_not_used, pairing_counts.masks_without_image, pairing_counts.images) == (2, 0, 1)
    assert dict(pairing_counts.others) == {".md": 1}


def test_what_was_looked_for_and_seen_is_said(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg", "readme.md", "z.json")
    with pytest.raises(InvalidDocumentError) as nothing:
        pairs(objects, tmp_path)
    for word in (tmp_path.as_uri(), "3 images (a.jpg, b.jpg, ...)", "1 masks file (z.json)", "1 .md", "--masks"):
        assert word in str(nothing.value)
    touch(tmp_path, "masks/a.json", "empty/x")
    with pytest.raises(InvalidDocumentError, match=r"0 images; 1 masks file \(a.json\)"):
        pairs(objects, tmp_path / "empty", tmp_path / "masks")


def test_places_that_are_none(tmp_path: Path, objects: Objects) -> None:
    with pytest.raises(InvalidDocumentError, match="There is no folder"):
        pairs(objects, tmp_path / "nowhere")
    with pytest.raises(JobError, match="'https'"), Dataset("https://a/b").opened(objects):
        pass
    with pytest.raises(InvalidDocumentError, match=r"no folder and no dataset file .*nowhere\.json"):
        pairs(objects, tmp_path, tmp_path / "nowhere.json")


def test_the_table_of_sams_folders_is_no_other_file(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "i/a.jpg", "m/a/0.png", "m/a/metadata.csv", "m/notes.csv")
    with Dataset(str(tmp_path / "i"), str(tmp_path / "m")).opened(objects) as opened:
        assert dict(opened.pairing.counts.others) == {".csv": 1}


def coco(folder: Path, *names: str) -> Path:
    square = [[0, 0, 4, 0, 4, 4]]
    images = [{"id": n, "file_name": name, "width": 9, "height": 9} for n, name in enumerate(names)]
    annotations = [{"id": n, "image_id": n, "segmentation": square} for n in range(len(names))]
    file = folder / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return file


def test_a_dataset_file_finds_its_images_by_path_or_by_name(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "i/train/1.jpg", "i/val/1.jpg", "i/val/2.jpg", "i/3.jpg")
    file = coco(tmp_path, "val/1.jpg", "somewhere/2.jpg", "1.jpg", "4.jpg")
    with Dataset(str(tmp_path / "i"), str(file)).opened(objects) as opened:
        found = [(pair.image, pair.inline.image_id if pair.inline else None) for pair in opened.pairing]
        pairing_counts = opened.pairing.counts
    # `1.jpg` may be either.
    assert pairing_counts.ambiguous_masks == ["1.jpg"]
    assert found == [("val/1.jpg", 0), ("val/2.jpg", 1)]
    assert (pairing_counts.masks_without_image, pairing_counts.lonely_masks) == (2, ["1.jpg", "4.jpg"])
    assert (pairing_counts.images_without_masks, pairing_counts.lonely_images) == (2, ["3.jpg", "train/1.jpg"])


def test_results_that_have_nothing_but_cocos_id_find_its_image(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "i/000000397133.jpg", "i/7.jpg")
    square = [[0, 0, 4, 0, 4, 4]]
    entries = [{"image_id": n, "category_id": 1, "score": 0.5, "segmentation": square} for n in (397133, 7, 8)]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(entries))
    with Dataset(str(tmp_path / "i"), str(file), "detectron2").opened(objects) as opened:
        assert sorted(pair.image for pair in opened.pairing) == ["000000397133.jpg", "7.jpg"]
        assert opened.pairing.counts.lonely_masks == ["8"]


def test_a_damaged_dataset_file_is_said_before_anything_is_submitted(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "i/1.jpg")
    file = coco(tmp_path, "1.jpg")
    file.write_text(file.read_text()[:-40])
    with pytest.raises(InvalidDocumentError), Dataset(str(tmp_path / "i"), str(file)).opened(objects):
        pass


@pytest.mark.parametrize("dataset_file", [False, True])
def test_a_limit_takes_the_first(tmp_path: Path, objects: Objects, dataset_file: bool) -> None:
    names = [f"{n}.jpg" for n in range(9)]
    touch(tmp_path, *names, *(f"m/{n}.json" for n in range(9)))
    masks = coco(tmp_path, *names) if dataset_file else tmp_path / "m"
    with Dataset(str(tmp_path), str(masks)).opened(objects, limit=3) as opened:
        assert len(opened.pairing) == 3
        assert [pair.image for pair in opened.pairing] == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_limit_ends_the_listing_of_a_large_place(objects: Objects) -> None:
    seen: list[int] = []
    with Pairing(Generated(10**9, objects), limit=100, seen=seen.append) as pairing:
        assert len(list(pairing)) == 100
        assert pairing.counts.complete is False
    assert seen == [5000]


class Generated(FolderRoot):
    """A place with so many images and their masks, which takes no disk."""

    def __init__(self, count: int, objects: Objects) -> None:
        super().__init__(Path("/generated"), objects)
        self._count = count

    def entries(self) -> Iterator[ListedObject]:
        for n in range(self._count):
            name = f"sa_{n // 1000:06}/sa_{n:09}"
            yield ListedObject(f"{name}.jpg", 0, None)
            yield ListedObject(f"{name}.json", 0, None)


def peak_bytes(count: int, objects: Objects) -> int:
    tracemalloc.start()
    try:
        with Pairing(Generated(count, objects)) as pairing:
            assert sum(isinstance(pair, Pair) for pair in pairing) == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_images(objects: Objects) -> None:
    few, many = peak_bytes(6_000, objects), peak_bytes(24_000, objects)
    # A chunk of the listing is in memory, and no more of four times as many; SQLite's own cache is bounded, and other
    # threads of this process allocate a little, too.
    assert many < 2 * few, (few, many)


def test_a_name_says_what_a_file_is() -> None:
    naming = Naming()
    assert naming.of("a/b.png", masks_root=None).kind == "image"
    assert naming.of("a/b.png", masks_root=True).kind == "masks"
    assert naming.of("a/b.json", masks_root=False).kind == "other"
    assert naming.of("a/b", masks_root=None).kind == "other"
    assert naming.of("a.b/c.tar.JPEG", masks_root=None).key == "a.b/c.tar"


NFC, NFD = "caf\u00e9", "cafe\u0301"


def test_masks_of_an_images_whole_name_and_of_other_code_points(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "b.jpg", "b.jpg.json", "c.png", "c.png.json", "c.jpg", "c.json")
    assert pairs(objects, tmp_path) == {"b.jpg": "b.jpg.json", "c.png": "c.json", "c.jpg": "c.json"}
    touch(
        tmp_path, "i/x/d.jpg", "m/ann/d.jpg.json", f"i/{NFD}.jpg", f"m/{NFC}.json", f"i/{NFC}2.jpg", f"m/{NFD}2/0.png"
    )
    assert pairs(objects, tmp_path / "i", tmp_path / "m") == {
        "x/d.jpg": "ann/d.jpg.json",
        f"{NFD}.jpg": f"{NFC}.json",
        f"{NFC}2.jpg": f"{NFD}2/",
    }


def test_code_points_decide_where_both_are_there(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, f"{NFC}.jpg", f"{NFC}.json", f"{NFD}.jpg", f"{NFD}.json")
    assert pairs(objects, tmp_path) == {f"{form}.jpg": f"{form}.json" for form in (NFC, NFD)}


@pytest.mark.parametrize(
    "name",
    [
        "https://host/bucket/train/a%20b.jpg?X-Amz-Date=2026.1&X-Amz-Signature=1%2F2",
        "a b.jpg?X-Amz-Date=2026",
        r"C:\data\train\a b.jpg",
        "data%5Ctrain%5Ca%20b.jpg",
        "/home/somebody/data/train/a b.jpg",
        "/data/upload/1/0a1b2c3d-a%20b.jpg",
        "s3://bucket/train/a b.jpg",
        "./train/a b.jpg",
    ],
)
def test_a_dataset_file_names_images_as_other_tools_do(tmp_path: Path, objects: Objects, name: str) -> None:
    touch(tmp_path, "i/train/a b.jpg", "i/train/c.jpg")
    with Dataset(str(tmp_path / "i"), str(coco(tmp_path, "train/c.jpg", name))).opened(objects) as opened:
        assert [pair.image for pair in opened.pairing] == ["train/c.jpg", "train/a b.jpg"]


def test_folders_decide_between_images_of_one_name(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "i/train/a.jpg", "i/val/a.jpg", "i/old/train/a.jpg")
    file = coco(tmp_path, "/x/data/train/a.jpg", r"C:\x\val\a.jpg", "test/a.jpg", "old%5Ctrain%5Ca.jpg")
    with Dataset(str(tmp_path / "i"), str(file)).opened(objects) as opened:
        found = [(pair.image, pair.inline.image_id if pair.inline else None) for pair in opened.pairing]
        pairing_counts = opened.pairing.counts
    assert found == [("train/a.jpg", 0), ("val/a.jpg", 1), ("old/train/a.jpg", 3)]
    assert (pairing_counts.masks_without_image, pairing_counts.lonely_masks, pairing_counts.ambiguous_masks) == (
        1,
        ["test/a.jpg"],
        ["test/a.jpg"],
    )


def test_an_image_that_two_names_may_mean_is_given_to_none_of_them(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "i/a.jpg", "i/b.jpg")
    uploads = ("/data/upload/1/0a1b2c3d-a.jpg", "/data/upload/1/ffffffff-a.jpg")
    with Dataset(str(tmp_path / "i"), str(coco(tmp_path, *uploads, "x/b.jpg", "b.jpg"))).opened(objects) as opened:
        found = [(pair.image, pair.inline.image_id if pair.inline else None) for pair in opened.pairing]
        pairing_counts = opened.pairing.counts
    # `b.jpg` is the image's very name.
    assert found == [("b.jpg", 3)]
    assert (pairing_counts.pairs, pairing_counts.masks_without_image) == (1, 3)
    assert pairing_counts.ambiguous_masks == pairing_counts.lonely_masks == [*uploads, "x/b.jpg"]
    assert (pairing_counts.images_without_masks, pairing_counts.lonely_images) == (1, ["a.jpg"])


def test_packed_json_jpeg_masks_and_pictures_of_what_was_found(tmp_path: Path, objects: Objects) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.d.jpg", "images/c.jpg", "images/e.jpg")
    touch(tmp_path, "out/a.json.gz", "out/b.d.jsonl", "out/c.jpg", "out/preds/e.json", "out/vis/e.jpg")
    found = pairs(objects, tmp_path / "images", tmp_path / "out")
    assert found == {"a.jpg": "a.json.gz", "b.d.jpg": "b.d.jsonl", "c.jpg": "c.jpg", "e.jpg": "preds/e.json"}
