"""A shard is scored into parts: every image has its row, and a shard that goes on from a cursor has the same rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Semaphore
from typing import Any
from weakref import ref

import pyarrow.compute as pc
import pytest

from maskscore import Job, JobResult, results
from maskscore.errors import FailureCode, JobError
from maskscore.formats import read_masks
from maskscore.ledger import Claim
from maskscore.parts import ImageOutcome, PartTables, part_names, part_tables, write_part
from maskscore.schema import Mask, PairsSource, ScoringOptions, Shard, ShardCursor, TarSource
from maskscore.settings import WorkerSettings
from maskscore_worker.batching import Batcher
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.pipeline import Pipeline, load_pipeline
from maskscore_worker.shards import CommitPart, score_shard, shard_stream
from maskscore_worker.telemetry import StageTimer
from shard_tars import drawn_pairs, write_tar
from waiting import until

NOW = datetime.now(UTC)
CLAIM = Claim("shard", "token", 1, 0, b"", NOW, NOW)


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    settings = WorkerSettings(
        weights=DEMO_WEIGHTS, prompts="demo", device="cpu", concurrency=2, file_roots=(Path("/"),)
    )
    with load_pipeline(settings, worker="unit") as loaded:
        yield loaded


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    files = drawn_pairs(6)
    files[4] = (files[4][0], files[4][1][:300])
    return write_tar(tmp_path / "a.tar", [*files, ("lonely.json", b"{}"), ("notes.md", b"")], order="apart")


def shard_of(tar: Path) -> Shard:
    options = ScoringOptions(prompts="demo", embeddings=True)
    return Shard(
        shard_id="shard",
        source=TarSource(uri=tar.as_uri()),
        name="a",
        output_uri="s3://o/",
        options=options,
        part_images=3,
    )


def into(folder: Path, cursors: list[ShardCursor], *, stop_at: int | None = None) -> CommitPart:
    def commit(tables: PartTables, number: int, cursor: ShardCursor) -> None:
        if number == stop_at:
            raise RuntimeError("killed")
        write_part(tables, part_names("a", number), folder)
        cursors.append(cursor)

    return commit


def test_every_image_has_its_row_and_the_scores_of_a_single_job(pipeline: Pipeline, tar: Path, tmp_path: Path) -> None:
    cursors: list[ShardCursor] = []
    last = score_shard(pipeline, shard_of(tar), ShardCursor(), into(tmp_path, cursors), claim=CLAIM)
    images = results.open(tmp_path, "images").to_table().to_pylist()
    assert [row["position"] for row in images] == list(range(7))
    assert {row["code"] for row in images} == {None, "image_truncated", "image_not_found"}
    assert (last.done, last.part, last.counts.images, last.counts.failed, last.counts.others) == (True, 3, 7, 2, 1)
    assert [cursor.done for cursor in cursors] == [False, False, True]
    masks = results.open(tmp_path).to_table().to_pylist()
    assert len(masks) == last.counts.masks == sum(row["mask_rows"] for row in images)
    row = next(row for row in images if row["image"].endswith("!/sa_1.jpg"))
    data = dict(drawn_pairs(1))
    (tmp_path / "sa_1.jpg").write_bytes(data["sa_1.jpg"])
    (tmp_path / "sa_1.json").write_bytes(data["sa_1.json"])
    job = Job(
        image=(tmp_path / "sa_1.jpg").as_uri(), masks=(tmp_path / "sa_1.json").as_uri(), options=shard_of(tar).options
    )
    single = pipeline.score(job, CLAIM, lambda: None, StageTimer())
    own = [mask for mask in masks if mask["position"] == row["position"]]
    assert [mask["mask_id"] for mask in own] == [component.id for component in single.components]
    assert [mask["s_pos"] for mask in own] == pytest.approx([c.s_pos for c in single.components], abs=1e-3)
    assert len(own[0]["embedding"]) == len(single.components[0].embedding_vector())  # type: ignore[arg-type]


def test_a_shard_goes_on_after_its_last_committed_part(pipeline: Pipeline, tar: Path, tmp_path: Path) -> None:
    cursors: list[ShardCursor] = []
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    score_shard(pipeline, shard_of(tar), ShardCursor(), into(whole, []), claim=CLAIM)
    with pytest.raises(RuntimeError, match="killed"):
        score_shard(pipeline, shard_of(tar), ShardCursor(), into(torn, cursors, stop_at=1), claim=CLAIM)
    assert len(cursors) == 1
    score_shard(pipeline, shard_of(tar), cursors[-1], into(torn, cursors), claim=CLAIM)
    assert cursors[-1].done
    columns = ["position", "image", "masks", "state", "code", "message", "mask_rows"]
    expected, found = (results.open(folder, "images").to_table(columns=columns) for folder in (whole, torn))
    assert found == expected
    columns = ["position", "mask_id", "area", "segmentation"]
    expected, found = (results.open(folder).to_table(columns=columns) for folder in (whole, torn))
    assert found == expected


def test_images_are_scored_while_the_tables_of_a_part_are_made(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [(f"{n}.{ending}", b"") for n in range(20) for ending in ("jpg", "json")]
    shard = shard_of(write_tar(tmp_path / "a.tar", files)).model_copy(update={"part_images": 6})
    begun: list[str] = []

    def fail(_: Pipeline, job: Job, *rest: object) -> None:
        begun.append(job.image.uri)
        raise JobError(FailureCode.IMAGE_UNDECODABLE, "empty")

    def make(part: Sequence[ImageOutcome], **options: Any) -> PartTables:
        # More than were begun if the images waited: the part's 6, one more, and 4 ahead.
        until(lambda: len(begun) >= min(20, options["first_position"] + 12), "the next images were begun")
        return part_tables(part, **options)

    monkeypatch.setattr(Pipeline, "score_fetched", fail)
    monkeypatch.setattr(shard_stream, "part_tables", make)
    last = score_shard(pipeline, shard, ShardCursor(), into(tmp_path, []), claim=CLAIM)
    assert (last.part, last.counts.images, last.counts.failed) == (4, 20, 20)


def test_a_part_is_in_memory_once(
    pipeline: Pipeline, tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[list[ref[JobResult]]] = []

    def noted_tables(outcomes: Sequence[ImageOutcome], **given: Any) -> PartTables:
        parts.append([ref(outcome.result) for outcome in outcomes])
        return part_tables(outcomes, **given)

    def commit(tables: PartTables, number: int, cursor: ShardCursor) -> None:
        # The last one may be what the stream has just counted.
        assert [result() for result in parts[number][:-1]] == [None] * (len(parts[number]) - 1)

    monkeypatch.setattr(shard_stream, "part_tables", noted_tables)
    score_shard(pipeline, shard_of(tar), ShardCursor(), commit, claim=CLAIM)
    assert len(parts) > 1


def test_a_check_that_raises_stops_the_shard(pipeline: Pipeline, tar: Path, tmp_path: Path) -> None:
    def check() -> None:
        raise KeyError("cancelled")

    with pytest.raises(KeyError, match="cancelled"):
        score_shard(pipeline, shard_of(tar), ShardCursor(), into(tmp_path, []), claim=CLAIM, check=check)


def test_a_tar_without_images_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [("notes.md", b"")])
    with pytest.raises(JobError, match="no image"):
        score_shard(pipeline, shard_of(tar), ShardCursor(), into(tmp_path, []), claim=CLAIM)


def test_a_list_of_pairs_has_the_rows_of_its_single_jobs_and_goes_on_in_its_middle(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = []
    for name, data in drawn_pairs(5):
        (folder / name).write_bytes(data)
    for number in range(1, 6):
        image, masks = folder / f"sa_{number}.jpg", folder / f"sa_{number}.json"
        if number == 2:
            image = folder / "none.jpg"
        own = read_masks(masks.read_bytes(), image_name=image.name)
        inline = [mask.model_dump() for mask in own if isinstance(mask, Mask)]
        lines.append(json.dumps({"image": image.as_uri(), "masks": inline if number % 2 else {"uri": masks.as_uri()}}))
    lines.insert(3, "{}")
    (folder / "list.jsonl").write_text("\n".join(lines))
    source = PairsSource(uri=(folder / "list.jsonl").as_uri())
    shard = shard_of(tmp_path).model_copy(update={"source": source, "part_images": 2})
    cursors: list[ShardCursor] = []
    last = score_shard(pipeline, shard, ShardCursor(), into(tmp_path, cursors), claim=CLAIM)
    assert (last.done, last.part, last.counts.images, last.counts.failed) == (True, 3, 6, 2)
    images = results.open(tmp_path, "images").to_table()
    assert images["code"].to_pylist() == [None, "image_not_found", None, "document_invalid", None, None]
    assert images["position"].to_pylist() == list(range(6))
    assert images["image"][1].as_py().endswith("none.jpg")
    assert images["etag"].null_count == 2
    whole = results.open(tmp_path).to_table(columns=["position", "mask_id", "s_pos", "segmentation"])
    score_shard(pipeline, shard, cursors[0], into(tmp_path / "again", []), claim=CLAIM)
    again = results.open(tmp_path / "again").to_table(columns=["position", "mask_id", "segmentation"])
    assert again == whole.filter(pc.field("position") >= 2).drop_columns(["s_pos"])
    job = Job(image=(folder / "sa_4.jpg").as_uri(), masks=(folder / "sa_4.json").as_uri(), options=shard.options)
    single = pipeline.score(job, CLAIM, lambda: None, StageTimer())
    own_scores = whole.filter(pc.field("position") == 4)["s_pos"].to_pylist()
    assert own_scores == pytest.approx([c.s_pos for c in single.components], abs=1e-3)


def test_a_cause_that_is_common_to_all_images_fails_the_shard(pipeline: Pipeline, tmp_path: Path) -> None:
    lines = [json.dumps({"image": f"s3://b/{number}.jpg", "masks": "s3://b/masks.json"}) for number in range(20)]
    path = tmp_path / "list.jsonl"
    shard = shard_of(tmp_path).model_copy(update={"source": PairsSource(uri=path.as_uri()), "part_images": 20})
    cursors: list[ShardCursor] = []
    path.write_text("\n".join(lines))
    with pytest.raises(JobError, match=r"All 20 images .* may not read the bucket 'b'") as raised:
        score_shard(pipeline, shard, ShardCursor(), into(tmp_path, cursors), claim=CLAIM)
    assert raised.value.code == "uri_not_allowed"
    path.write_text("\n".join([*lines, "{"]))
    score_shard(
        pipeline, shard.model_copy(update={"part_images": 21}), ShardCursor(), into(tmp_path, cursors), claim=CLAIM
    )
    assert [cursor.counts.failed for cursor in cursors] == [21]


def test_beside_a_shard_a_job_is_in_the_next_batch(pipeline: Pipeline, tar: Path, tmp_path: Path) -> None:
    batches = Semaphore(0)

    def encode(crops: Any) -> Any:
        batches.acquire()
        return pipeline.batcher.encode(crops)

    batcher = Batcher(encode, max_batch=8, max_wait_s=0)
    stepped = replace(pipeline, batcher=batcher)
    image, _ = drawn_pairs(1)
    (tmp_path / "one.jpg").write_bytes(image[1])
    mask = {"id": "corner", "segmentation": [[0, 0, 40, 0, 40, 60, 0, 60]]}
    job = Job.model_validate(
        {"image": (tmp_path / "one.jpg").as_uri(), "masks": [mask], "options": {"prompts": "demo"}}
    )
    batcher.start()
    with ThreadPoolExecutor(2) as threads:
        shard = threads.submit(score_shard, stepped, shard_of(tar), ShardCursor(), into(tmp_path, []), claim=CLAIM)
        try:
            # One image is on the device, and another waits: the shard's two threads have no more.
            until(lambda: batcher.stats().encoding_crops and batcher.stats().waiting_crops, "the shard is scored")
            before = batcher.stats().waiting_crops
            single = threads.submit(stepped.score, job, CLAIM, lambda: None, StageTimer())
            until(lambda: batcher.stats().waiting_crops > before, "the job waits for the device")
            for _ in ("the batch on the device", "the next one"):
                batches.release()
            assert single.result(180).components[0].s_pos is not None
        finally:
            batches.release(1000)
        assert shard.result().done
    batcher.close()
