"""The parts of an export without services: upstream columns, selection, buffers, output."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from maskscore.errors import InvalidDocumentError, OutputError
from maskscore.export import ExportCounts, Labelling, Selection
from maskscore.export.exported_mask import ExportedMask
from maskscore.export.file_metadata import FileMetadata, image_id_of
from maskscore.export.job_reader import ExportedJob
from maskscore.export.mask_buffer import MaskBuffer, open_mask_buffer
from maskscore.export.parquet_writer import _schema
from maskscore.parts import MOST_COLUMNS, UpstreamColumns
from maskscore.schema.result import ImageInfo
from maskscore.storage import Objects
from maskscore.storage.output import output_file, output_folder


def columns(*masks: dict[str, Any]) -> UpstreamColumns:
    found = UpstreamColumns()
    for mask in masks:
        found.see(mask)
    return found


def test_fields_of_one_kind_are_columns_and_the_rest_stays_together() -> None:
    first = {"iou": 1, "name": "a", "crowd": False, "box": [1], "mixed": "x", "huge": 2**70, "none": None}
    second = {"iou": 0.5, "name": None, "crowd": True, "mixed": 3, "late": 7}
    found = columns(first, second)
    assert found.kinds == {"iou": "number", "name": "text", "crowd": "boolean", "late": "integer"}
    typed, rest = found.split(first)
    assert typed == {"iou": 1.0, "name": "a", "crowd": False}
    assert isinstance(typed["iou"], float)
    assert rest == {"box": [1], "mixed": "x", "huge": 2**70, "none": None}
    whole, others = found.columns([first, second])
    assert others == [rest, {"mixed": 3}]
    assert list(map(repr, whole["iou"])) == ["1.0", "0.5"]
    assert [whole[name] for name in ("name", "crowd", "late")] == [["a", None], [False, True], [None, 7]]


def test_what_was_mixed_once_stays_so() -> None:
    assert columns({"a": "x"}, {"a": 1}, {"a": 1}, {"a": 1.5}).kinds == {}
    assert columns({"a": True}, {"a": 1}).kinds == {}


def test_names_that_are_data_are_no_columns() -> None:
    found = columns(*({f"field-{n}": n} for n in range(2 * MOST_COLUMNS)))
    assert len(found.kinds) == MOST_COLUMNS
    assert found.split({f"field-{MOST_COLUMNS}": 1}) == ({}, {f"field-{MOST_COLUMNS}": 1})


def job(uri: str, *ranks: float | None) -> ExportedJob:
    image = ImageInfo(uri=uri, width=4, height=3, format="PNG")
    masks = [
        ExportedMask(
            image=uri, image_width=4, image_height=3, job_id="j", mask_id=str(n), mask_index=n, rank_score=rank
        )
        for n, rank in enumerate(ranks)
    ]
    return ExportedJob(image, None, FileMetadata(), masks)


def kept(selection: Selection, *jobs: ExportedJob) -> tuple[list[tuple[str, str]], dict[str, int]]:
    counts = ExportCounts()
    with open_mask_buffer(selection) as buffer:
        buffer.fill(jobs, counts)
        masks = [ExportedMask.model_validate_json(mask.json) for mask in buffer.masks()]
        assert counts.kept == len(masks)
        assert {image.uri for image in buffer.images()} == {mask.image for mask in masks}
    return [(mask.image, mask.mask_id) for mask in masks], dict(counts.filtered)


def test_the_best_are_kept_in_their_order_and_equal_ones_in_that_of_the_jobs() -> None:
    jobs = [job("a", 1.0, 2.0, None), job("b", 2.0), job("a", 3.0, 0.5)]
    assert kept(Selection(top=3), *jobs) == ([("a", "0"), ("a", "1"), ("b", "0")], {"top": 3})
    assert kept(Selection(sort=True), *jobs)[0][-1] == ("a", "2")
    assert kept(Selection(top_per_image=1), *jobs) == ([("b", "0"), ("a", "0")], {"top-per-image": 4})
    assert kept(Selection(top_per_image=1, top=1), *jobs) == ([("a", "0")], {"top-per-image": 4, "top": 1})


def test_the_best_of_very_many_are_found_while_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskscore.export.mask_buffer._SLACK", 10)
    most = 0
    add = MaskBuffer._add

    def counted(self: MaskBuffer, job: ExportedJob) -> None:
        nonlocal most
        add(self, job)
        most = max(most, self._rows)

    monkeypatch.setattr(MaskBuffer, "_add", counted)
    ranks = [float(n * 37 % 1000) for n in range(1000)]
    jobs = [job(f"i{n}", *ranks[n : n + 10]) for n in range(0, 1000, 10)]
    masks, filtered = kept(Selection(top=7), *jobs)
    best = sorted(range(1000), key=lambda n: -ranks[n])[:7]
    assert masks == [(f"i{n // 10 * 10}", str(n % 10)) for n in best]
    assert filtered == {"top": 993}
    assert most < 50


@pytest.mark.parametrize("count", [0, -1])
def test_a_top_of_nothing_is_refused(count: int) -> None:
    with pytest.raises(InvalidDocumentError, match="at least 1"):
        Selection(top=count)


def test_an_images_number_is_the_upstream_files() -> None:
    assert image_id_of(FileMetadata({"id": 7}), None, {"image_id": 8}) == 7
    assert image_id_of(FileMetadata({"image_id": 9}), None, {}) == 9
    assert image_id_of(FileMetadata(), None, {"image_id": "0012"}) == 12
    for value in (None, True, -1, 1.5, "x", "1" * 30, 2**63):
        assert image_id_of(FileMetadata(), None, {"image_id": value}) is None


NOWHERE = Objects(buckets=None, result_buckets=None)


def fill(path: Path) -> None:
    with output_file(path, NOWHERE, content_type="text/plain") as part:
        part.write_text("half")
        Path("/dev/full").write_text("x" * 10_000)


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"out\.txt cannot be written: No space left on device"):
        fill(tmp_path / "out.txt")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_used_and_a_missing_parent_is_said(tmp_path: Path) -> None:
    with output_folder(tmp_path / "new", NOWHERE, content_type="text/plain") as part:
        (part / "file").write_text("whole")
        assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    with output_folder(tmp_path / "empty", NOWHERE, content_type="text/plain") as part:
        (part / "file").write_text("whole")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("file")) == ["empty/file", "new/file"]
    with (
        pytest.raises(OutputError, match="no folder"),
        output_folder(tmp_path / "no" / "where", NOWHERE, content_type="text/plain"),
    ):
        pass


def kind_of(column: pa.DataType) -> str:
    """A column's type as the page says it."""
    if pa.types.is_list(column):
        return "list of " + ", ".join(field.name for field in column.value_type)
    return str(column)


def test_the_page_lists_the_columns_of_parquet_as_the_file_describes_them() -> None:
    schema = _schema({}, Selection(labelling=Labelling(), nms=0.5), left_out=set())
    page = (Path(__file__).parents[2] / "docs/reference/export.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", page.partition("## Parquet")[2].partition("\n## ")[0], re.M)
    assert listed == [(field.name, kind_of(field.type), field.metadata[b"description"].decode()) for field in schema]
