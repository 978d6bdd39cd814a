"""How often the file of a dataset is read: once, however large it is and whatever is asked of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from maskscore.dataset import Dataset
from maskscore.errors import InvalidDocumentError
from maskscore.formats import DatasetFile, MasksDocumentError, detect, read_dataset
from maskscore.storage import Objects

# What the detection of the format may read before the file is read.
SNIFFED_BYTES = 3 << 20


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the bytes that are read of each file, by its name."""
    counts: dict[str, int] = {}
    open_path = Path.open

    class Counted(io.FileIO):
        def readinto(self, buffer: Any, /) -> int | None:
            count = super().readinto(buffer)
            name = Path(str(self.name)).name
            counts[name] = counts.get(name, 0) + (count or 0)
            return count

    def opened(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        return io.BufferedReader(Counted(path)) if mode == "rb" else open_path(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", opened)
    return counts


def coco(folder: Path, images: int, **parts: Any) -> Path:
    document = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 8, "width": 8, "x": "." * 1000} for n in range(images)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]], "x": "." * 1000}
            for n in range(images)
        ],
        "categories": [{"id": 1, "name": "a"}],
        **parts,
    }
    file = folder / "instances.json"
    file.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))
    return file


def test_a_run_reads_a_coco_file_once(tmp_path: Path, objects: Objects, read_bytes: dict[str, int]) -> None:
    (tmp_path / "images").mkdir()
    images = 6000
    for n in range(images):
        (tmp_path / "images" / f"{n}.jpg").touch()
    file = coco(tmp_path, images)
    size = file.stat().st_size
    assert size > 3 * SNIFFED_BYTES
    with Dataset(str(tmp_path / "images"), str(file)).opened(objects) as opened:
        pairs = list(opened.pairing)
        categories = list(opened.pairing.categories())
    assert len(pairs) == images
    assert categories == [{"id": 1, "name": "a"}]
    assert size <= read_bytes[file.name] <= size + SNIFFED_BYTES


def test_a_file_without_annotations_is_not_taken_for_coco_by_its_first_bytes(tmp_path: Path) -> None:
    file = coco(tmp_path, 3000, annotations=None)
    with pytest.raises(MasksDocumentError, match="no known layout"):
        list(read_dataset(file))
    with pytest.raises(MasksDocumentError, match="no known layout"):
        detect(file)
    assert len(list(read_dataset(coco(tmp_path, 3000, annotations=[])))) == 3000


def test_a_file_that_is_cut_off_has_no_part_that_a_second_reading_takes_for_the_whole(tmp_path: Path) -> None:
    file = coco(tmp_path, 3)
    file.write_bytes(file.read_bytes()[:-5])
    with DatasetFile(file, format="coco") as dataset:
        for _ in range(2):
            with pytest.raises(MasksDocumentError, match="not JSON that can be read"):
                list(dataset)
            with pytest.raises(MasksDocumentError, match="not JSON that can be read"):
                list(dataset.categories())


def test_a_file_that_is_cut_off_is_refused_before_a_job_is_made(tmp_path: Path, objects: Objects) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.jpg").touch()
    file = coco(tmp_path, 3000)
    file.write_bytes(file.read_bytes()[:-40])
    with (
        pytest.raises(InvalidDocumentError, match="not JSON that can be read"),
        Dataset(str(tmp_path / "images"), str(file)).opened(objects),
    ):
        pass
