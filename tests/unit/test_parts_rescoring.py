"""Parts with embeddings are scored again without their images: as the images would be, to the precision of float16."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskscore import PromptSet, ScoringOptions, results
from maskscore.dataset import shards_of_parts
from maskscore.errors import InvalidDocumentError, JobError
from maskscore.heads import HeadApplication
from maskscore.ledger import Claim
from maskscore.parts import PartTables, part_names, write_part
from maskscore.schema import Head, PartsSource, Shard, ShardCursor, TarSource
from maskscore.settings import WorkerSettings
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.pipeline import Pipeline, load_pipeline
from maskscore_worker.shards import CommitPart, score_shard
from shard_tars import drawn_pairs, write_tar

NOW = datetime.now(UTC)
CLAIM = Claim("shard", "token", 1, 0, b"", NOW, NOW)
PROMPTS = PromptSet(name="other", positive=["a red circle", "a blue square"], negative=["grass", "a half of a thing"])
# CLIP multiplies cosines by 100, and float16 has eleven bits.
CLOSE: dict[str, Any] = {"abs": 2e-3}


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    settings = WorkerSettings(
        weights=DEMO_WEIGHTS, prompts="demo", device="cpu", concurrency=2, file_roots=(Path("/"),)
    )
    with load_pipeline(settings, worker="unit") as loaded:
        yield loaded


def run(
    pipeline: Pipeline, folder: Path, source: Any, cursor: ShardCursor | None = None, **options: Any
) -> ShardCursor:
    shard = Shard(
        shard_id=f"into-{folder.name}", source=source, name="a", output_uri="s3://o/", part_images=3,
        options=ScoringOptions.model_validate({"prompts": PROMPTS, "embeddings": True, **options}),
    )  # fmt: skip
    return score_shard(pipeline, shard, cursor or ShardCursor(), into(folder), claim=CLAIM)


def into(folder: Path) -> CommitPart:
    def commit(tables: PartTables, number: int, _: ShardCursor) -> None:
        write_part(tables, part_names("a", number), folder)

    return commit


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> TarSource:
    """Five images of masks, the third broken, one mask too small to be scored."""
    files = drawn_pairs(5)
    files[4] = (files[4][0], files[4][1][:300])
    return TarSource(uri=write_tar(tmp_path_factory.mktemp("tar") / "a.tar", files).as_uri())


@pytest.fixture(scope="module")
def earlier(pipeline: Pipeline, tar: TarSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    run(pipeline, folder, tar, prompts="demo", min_area=600)
    return folder


def source_of(folder: Path) -> PartsSource:
    return PartsSource(uri=f"{folder.as_uri()}/", parts=2)


@pytest.mark.parametrize("options", [{"top_k": 2}, {"method": "cosine"}])
def test_parts_are_those_of_a_run_with_these_prompts(
    pipeline: Pipeline, tar: TarSource, earlier: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    again, whole = tmp_path / "again", tmp_path / "whole"
    last = run(pipeline, again, source_of(earlier), **options)
    wanted = run(pipeline, whole, tar, min_area=600, **options)
    assert (last.counts, last.part, last.done) == (wanted.counts, wanted.part, True)
    assert last.counts.skipped
    assert last.counts.failed == 1
    for table in ("masks", "images"):
        found, expected = (results.open(folder, table).to_table() for folder in (again, whole))
        assert found.schema.equals(expected.schema)
        for row, own in zip(found.to_pylist(), expected.to_pylist(), strict=True):
            assert {row.pop("job_id"), own.pop("job_id")} == {"into-again", "into-whole"}
            best, wanted_best = row.pop("top_k", None), own.pop("top_k", None)
            assert row == {
                name: pytest.approx(value, **CLOSE) if isinstance(value, float) else value
                for name, value in own.items()
            }
            assert [(one["text"], one["group"]) for one in best or ()] == [
                (one["text"], one["group"]) for one in wanted_best or ()
            ]
    assert next(results.image_results(again)).result.prompts == next(results.image_results(whole)).result.prompts


def test_a_shard_goes_on_after_the_part_that_was_committed(pipeline: Pipeline, earlier: Path, tmp_path: Path) -> None:
    last = run(pipeline, tmp_path / "whole", source_of(earlier))
    first = run(pipeline, tmp_path / "torn", source_of(earlier).model_copy(update={"parts": 1}))
    (tmp_path / "torn/masks/a-00000.parquet").unlink()
    assert run(pipeline, tmp_path / "torn", source_of(earlier), first.model_copy(update={"done": False})) == last
    assert [path.name for path in (tmp_path / "torn/masks").iterdir()] == ["a-00001.parquet"]


def test_a_head_decides_on_the_embeddings_as_an_export_of_the_parts_does(
    pipeline: Pipeline, earlier: Path, tmp_path: Path
) -> None:
    scoring = next(iter(results.open_parts(earlier, "masks").scoring.values()))
    size = results.open(earlier).schema.field("embedding").type.list_size
    head = Head.model_validate(
        {
            "name": "probe",
            "weights_digest": scoring["model"]["weights_digest"],
            "views": "original",
            "threshold": 0.5,
            "model": {"kind": "probe", "weights": [[0.1 * number for number in range(size)]], "biases": [0.0]},
        }
    )
    run(pipeline, tmp_path, source_of(earlier), head=head)
    for row in results.open(tmp_path).to_table().to_pylist():
        decided = row["embedding"] and HeadApplication(head).decide(row, np.array(row["embedding"], np.float32))
        assert row["keep"] == (decided.keep if decided else None)
        assert row["p_keep"] == (pytest.approx(decided.p_keep) if decided else None)


def changed(earlier: Path, folder: Path, change: str) -> PartsSource:
    """Return a copy of the parts of which the second is changed."""
    shutil.copytree(earlier, folder)
    path = folder / "masks/a-00001.parquet"
    table = pq.read_table(path)
    if change == "embeddings":
        table = table.drop_columns(["embedding"])
    elif change == "one embedding":
        there = table["embedding"].combine_chunks()
        table = table.set_column(
            table.schema.get_field_index("embedding"), "embedding", pa.nulls(len(there), there.type)
        )
    elif change == "weights":
        other = pa.array(["sha256:other"] * len(table))
        table = table.set_column(table.schema.get_field_index("weights_digest"), "weights_digest", other)
    elif change == "document":
        about = json.loads(table.schema.metadata[b"maskscore"]) | {"digest": "other"}
        table = table.replace_schema_metadata({"maskscore": json.dumps(about)})
    else:
        table = table.replace_schema_metadata({})
    pq.write_table(table, path)
    return source_of(folder)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ("embeddings", "parts_unfit", "no embeddings"),
        ("one embedding", "parts_unfit", "lacks embeddings"),
        ("weights", "parts_unfit", "weights sha256:other"),
        ("document", "masks_changed", "was replaced"),
        ("metadata", "masks_invalid", "is no part"),
    ],
)
def test_what_cannot_be_scored_so_is_refused(
    pipeline: Pipeline, earlier: Path, tmp_path: Path, change: str, code: str, message: str
) -> None:
    source = changed(earlier, tmp_path / "changed", change)
    with pytest.raises(JobError, match=message) as caught:
        run(pipeline, tmp_path / "again", source)
    assert caught.value.code == code
    assert [path.name for path in (tmp_path / "again/masks").iterdir()] == ["a-00000.parquet"]


def test_shards_of_parts_say_how_their_embeddings_were_made(earlier: Path, tmp_path: Path) -> None:
    options = ScoringOptions(prompts=PROMPTS, top_k=3)
    (shard,) = shards_of_parts(earlier, "s3://scores/run-2/", options)
    about = json.loads(pq.read_schema(earlier / "masks/a-00000.parquet").metadata[b"maskscore"])
    assert shard.source == source_of(earlier).model_copy(update={"etag": about["digest"]})
    assert (shard.name, shard.options.prompts, shard.options.top_k) == ("a", PROMPTS, 3)
    assert [again.shard_id for again in shards_of_parts(earlier, "s3://scores/run-2/", options)] == [shard.shard_id]
    folder = tmp_path / "views"
    shutil.copytree(earlier, folder)
    for path in (folder / "masks").iterdir():
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[b"maskscore"])
        about["scoring"]["views"] = "blur=0.2/context+raw_crop"
        about["scoring"]["model"]["name"] = "large"
        pq.write_table(table.replace_schema_metadata({"maskscore": json.dumps(about)}), path)
    (other,) = shards_of_parts(folder, "s3://scores/run-2/", options)
    assert (other.options.views_text, other.options.model) == ("blur=0.2/context+raw_crop", "large")


@pytest.mark.parametrize(
    ("change", "message"), [("embeddings", "no embeddings"), ("document", "several documents"), ("missing", "Part 0")]
)
def test_parts_that_are_not_whole_make_no_shard(earlier: Path, tmp_path: Path, change: str, message: str) -> None:
    changed(earlier, tmp_path / "changed", change)
    if change == "missing":
        (tmp_path / "changed/masks/a-00000.parquet").unlink()
    with pytest.raises(InvalidDocumentError, match=message):
        list(shards_of_parts(tmp_path / "changed", "s3://scores/run-2/", ScoringOptions(prompts=PROMPTS)))
