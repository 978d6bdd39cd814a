"""Parts: what is read back from the Parquet files is what the results said."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskscore import Component, JobResult, JobState, results
from maskscore.errors import OutputError, ResultUnavailable
from maskscore.export import ExportedMask
from maskscore.parts import ImageOutcome, PartTables, part_names, part_tables, write_part
from maskscore.schema import Failure, ImageInfo, Skipped

RLE = {"size": [4, 6], "counts": "02\\3"}


def outcome(name: str, *components: Component, shard: str = "one") -> ImageOutcome:
    image = ImageInfo(uri=name, width=6, height=4, format="JPEG")
    result = JobResult(job_id=shard, state=JobState.SUCCEEDED, image=image, components=list(components))
    return ImageOutcome(result, name, f"{name}.json", [RLE] * len(components), '"e"', 512, 99)


def failed(name: str | None, shard: str = "one") -> ImageOutcome:
    error = Failure(code="image_truncated", message="It ends too early.")
    return ImageOutcome(JobResult(job_id=shard, state=JobState.FAILED, error=error), name)


def scored(number: int, **upstream: Any) -> Component:
    embedding = base64.b64encode(np.full(3, number, "<f2").tobytes()).decode()
    return Component(
        id=str(number), index=number, box=(1, 2, 3, 2), area=5, s_pos=0.1 + number, semantic_multiplier=2.0,
        embedding=embedding, upstream=upstream,
    )  # fmt: skip


def tables() -> PartTables:
    left_out = Component(id="b", index=1, skipped=Skipped(code="empty_mask", message="No pixel."))
    outcomes = [outcome("a.jpg", scored(0, iou=0.5, crop=[1, 2]), left_out), failed("b.jpg"), failed(None)]
    return part_tables(outcomes, first_position=7, dimensions=3)


def test_rows_say_what_the_results_say(tmp_path: Path) -> None:
    write_part(tables(), part_names("sa", 3), tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "images/sa-00003.parquet",
        "masks/sa-00003.parquet",
    ]
    first, second = results.open(tmp_path).to_table().to_pylist()
    assert (first["image"], first["position"], first["box_width"], first["s_pos"]) == ("a.jpg", 7, 3, 0.1)
    assert json.loads(first["segmentation"]) == RLE
    assert (first["upstream_iou"], json.loads(first["upstream"])) == (0.5, {"crop": [1, 2]})
    assert first["embedding"] == [0, 0, 0]
    assert (second["skipped"], second["embedding"], second["upstream_iou"]) == ("empty_mask", None, None)
    images = results.open(tmp_path, "images").to_table().to_pylist()
    assert [(row["image"], row["position"], row["state"], row["code"]) for row in images] == [
        ("a.jpg", 7, "succeeded", None),
        ("b.jpg", 8, "failed", "image_truncated"),
        (None, 9, "failed", "image_truncated"),
    ]
    assert (images[0]["mask_rows"], images[0]["skipped_rows"], images[0]["image_offset"]) == (2, 1, 512)


def test_counts_are_those_of_the_rows() -> None:
    counts = tables().counts
    assert (counts.images, counts.failed, counts.masks, counts.skipped) == (3, 2, 2, 1)


def test_masks_have_every_column_of_an_export_that_does_not_depend_on_a_query() -> None:
    expected = set(ExportedMask.model_fields) - {"box", "rank_score", "label", "displaced"}
    assert expected <= set(tables().masks.column_names)


def test_equal_outcomes_are_equal_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_part(tables(), part_names("sa", 0), tmp_path / folder)
    for name in part_names("sa", 0):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_few_values_are_dictionaries_and_files_are_zstd(tmp_path: Path) -> None:
    write_part(tables(), part_names("sa", 0), tmp_path)
    group = pq.ParquetFile(tmp_path / "masks/sa-00000.parquet").metadata.row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert "RLE_DICTIONARY" in columns["image"].encodings
    assert "RLE_DICTIONARY" not in columns["segmentation"].encodings
    assert columns["position"].statistics.max == 7


def test_a_part_of_another_shard_is_not_replaced(tmp_path: Path) -> None:
    write_part(tables(), part_names("sa", 0), tmp_path)
    write_part(tables(), part_names("sa", 0), tmp_path)
    other = part_tables([outcome("a.jpg", shard="two")], first_position=0)
    with pytest.raises(OutputError, match="a part of the shard one"):
        write_part(other, part_names("sa", 0), tmp_path)


def test_a_part_of_another_document_says_so_before_it_is_replaced(tmp_path: Path) -> None:
    said: list[bytes] = []
    masks = tmp_path / "masks/sa-00000.parquet"

    def write(digest: str) -> None:
        part = part_tables([outcome("a.jpg")], first_position=0, digest=digest)
        write_part(part, part_names("sa", 0), tmp_path, replacing=lambda: said.append(masks.read_bytes()))

    write("one")
    before = masks.read_bytes()
    write("one")
    assert said == []
    write("two")
    assert said == [before, masks.read_bytes()], "before its masks, and before its images"


def test_masks_of_a_part_that_was_not_written_to_its_end_are_not_read(tmp_path: Path) -> None:
    for number in range(2):
        write_part(tables(), part_names("sa", number), tmp_path)
    (tmp_path / "images/sa-00001.parquet").unlink()
    assert results.open(tmp_path).count_rows() == 2


def test_parts_whose_upstream_types_differ_are_one_table(tmp_path: Path) -> None:
    for number, (score, name) in enumerate([(1, 5), (0.5, "five")]):
        part = part_tables([outcome("a.jpg", scored(0, score=score, name=name))], first_position=number)
        write_part(part, part_names("sa", number), tmp_path)
    dataset = results.open(tmp_path)
    assert dataset.schema.field("upstream_score").type == pa.float64()
    assert dataset.to_table(columns=["upstream_score", "upstream_name"]).to_pydict() == {
        "upstream_score": [1.0, 0.5],
        "upstream_name": ["5", "five"],
    }


@pytest.mark.parametrize(
    "tool", ["duckdb", pytest.param("pandas", marks=pytest.mark.needs("pandas", find_spec("pandas")))]
)
def test_the_query_of_the_page_takes_parts_with_embeddings_and_unlike_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    unlike: list[dict[str, Any]] = [{"name": 1}, {"name": "one", "more": 2}]
    for number, fields in enumerate(unlike):
        mask = scored(number, **fields).model_copy(update={"s_pos_text": "a dog"})
        part = part_tables([outcome("a.jpg", mask)], first_position=number, dimensions=3)
        write_part(part, part_names("sa", number), tmp_path / "scores")
    page = (Path(__file__).parents[2] / "docs/explanation/shards.md").read_text("utf-8")
    blocks = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    (block,) = (block for block in blocks if block.startswith(f"import {tool}"))
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert sorted(pq.read_table("best.parquet")["mask_id"].to_pylist()) == ["0", "1"]


def test_of_a_failed_image_that_was_scored_again_the_last_row_counts(tmp_path: Path) -> None:
    again, last = results.retry_name("sa", 0), results.retry_name("sa", 10)
    for name, outcomes in {
        # The first image is twice in the list, once with masks that can be read.
        "sa": [outcome("a.jpg", scored(0)), *map(failed, ("a.jpg", "b.jpg", "c.jpg", None, "d.jpg"))],
        last: [outcome("b.jpg", scored(1), shard="last"), failed("c.jpg", "last")],
        again: [outcome("a.jpg", scored(2), shard="again"), *(failed(name, "again") for name in ("b.jpg", "c.jpg"))],
    }.items():
        write_part(part_tables(outcomes, first_position=0, dimensions=3), part_names(name, 0), tmp_path)
    superseded = results.superseded_rows(results.open(tmp_path, "images"))
    assert superseded == {("one", 1), ("one", 2), ("one", 3), ("again", 1), ("again", 2)}
    found = [(one.image, one.result.job_id, one.result.error is None) for one in results.image_results(tmp_path)]
    assert sorted(found, key=str) == [
        ("a.jpg", "again", True),
        ("a.jpg", "one", True),
        ("b.jpg", "last", True),
        ("c.jpg", "last", False),
        ("d.jpg", "one", False),
        (None, "one", False),
    ]
    write_part(tables(), part_names("sa", 0), tmp_path / "plain")
    assert results.superseded_rows(results.open(tmp_path / "plain", "images")) == set()


def test_of_parts_without_a_wanted_image_the_masks_are_not_read(tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        own = part_tables([outcome(f"{name}.jpg", scored(number))], first_position=number, dimensions=3)
        write_part(own, part_names("sa", number), tmp_path)
    damaged = tmp_path / "masks/sa-00001.parquet"
    group = pq.ParquetFile(damaged).metadata.row_group(0)
    with damaged.open("r+b") as file:
        file.seek(4)
        file.write(bytes(sum(group.column(number).total_compressed_size for number in range(group.num_columns))))
    listed: list[tuple[str, int]] = []

    def listing(parts: Iterable[tuple[str, Any]], total: int) -> Iterator[tuple[str, Any]]:
        for path, part in parts:
            listed.append((Path(path).name, total))
            yield path, part

    found = results.image_results(tmp_path, wanted={"a.jpg", "c.jpg"}.__contains__, listing=listing)
    assert [(one.image, one.result.components[0].id) for one in found] == [("a.jpg", "0"), ("c.jpg", "2")]
    assert listed == [(f"sa-{number:05}.parquet", 3) for number in range(3)]
    assert list(results.image_results(tmp_path, wanted=lambda uri: False)) == []
    with pytest.raises(ResultUnavailable, match="cannot be read"):
        list(results.image_results(tmp_path, wanted="b.jpg".__eq__))


def test_masks_without_an_image_count_as_scored_again_by_their_own_name(tmp_path: Path) -> None:
    def lonely(name: str | None, shard: str = "one") -> ImageOutcome:
        return replace(failed(None, shard), masks=name)

    found = replace(outcome("a.jpg", scored(1), shard="again"), masks="a.json")
    for name, outcomes in {
        "sa": [*map(lonely, ("a.json", "b.json", "c.json", None)), replace(failed("d.jpg"), masks="b.json")],
        results.retry_name("sa", 0): [found, lonely("b.json", "again"), lonely(None, "again")],
    }.items():
        write_part(part_tables(outcomes, first_position=0, dimensions=3), part_names(name, 0), tmp_path)
    assert results.superseded_rows(results.open(tmp_path, "images")) == {("one", 0), ("one", 1)}


def test_a_folder_without_parts_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResultUnavailable, match="no parts"):
        results.open(tmp_path)


def test_a_damaged_part_says_so(tmp_path: Path) -> None:
    write_part(tables(), part_names("sa", 0), tmp_path)
    (tmp_path / "masks/sa-00000.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ResultUnavailable, match="sa-00000"):
        results.open(tmp_path)
