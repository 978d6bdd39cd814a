"""``maskscore run`` with local tar files: damaged, cut off, compressed; into folders; parts of others in the output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from command_line import run_command
from maskscore import Client, ClientSettings, JobFailed, results
from maskscore.devstack import LocalServices
from maskscore.schema import Shard, TarSource
from shard_tars import drawn_pairs, write_tar

BUCKET = "local-tars"
FILES = drawn_pairs(3)


@pytest.fixture(scope="module")
def client(services: LocalServices, demo_worker: dict[str, str]) -> Iterator[Client]:
    services.create_bucket(BUCKET)
    settings = ClientSettings(redis_url=services.redis.url, namespace=demo_worker["MASKSCORE_NAMESPACE"])
    with Client(settings) as client:
        yield client


def rows(output: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of ``images`` by tar."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in results.open(output, "images").to_table().to_pylist():
        found.setdefault(row["job_id"].rpartition("-")[2], []).append(row)
    return found


def test_what_is_damaged_has_rows_and_a_sentence_and_all_else_is_scored(
    client: Client, demo_worker: dict[str, str], tmp_path: Path
) -> None:
    write_tar(tmp_path / "whole.tar.gz", FILES)
    for name in ("middle", "cut"):
        write_tar(tmp_path / f"{name}.tar", FILES)
    data = (tmp_path / "middle.tar").read_bytes()
    header = data.index(b"sa_2.jpg")
    (tmp_path / "middle.tar").write_bytes(data[:header] + b"\xff" * 512 + data[header + 512 :])
    last = data.index(b"sa_3.json")
    (tmp_path / "cut.tar").write_bytes(data[: last + 600])
    output = f"s3://{BUCKET}/damaged/"
    arguments = ("run", "*.tar*", "-o", output, "--prompts", "demo", "--batch-id", "local-tars")
    done = run_command(*arguments, environment=demo_worker, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    assert "3 succeeded" in said
    assert "failed" in said
    assert "image_truncated" in said
    found = rows(output)
    assert [row["code"] for row in found["whole"]] == [None] * 3
    assert [(row["image"] or "").rpartition("/")[2] for row in found["middle"] if row["code"] is None] == [
        "sa_1.jpg",
        "sa_3.jpg",
    ]
    (damage,) = [row["message"] for row in found["middle"] if row["code"] == "image_truncated"]
    assert f"at byte {header:,}" in damage
    assert "'sa_1.json'" in damage
    (damage,) = [row["message"] for row in found["cut"] if row["code"] == "image_truncated"]
    assert f"cut off in 'sa_3.json', which starts at byte {last:,}" in damage
    assert [row["code"] for row in found["cut"]].count(None) == 2
    again = run_command(*arguments, "--resume", "--retry-failed", "--json", environment=demo_worker, folder=tmp_path)
    summary = json.loads(again.stdout)
    assert (again.returncode, summary["images"], summary["images_failed"]) == (1, sum(map(len, found.values())), 4)
    said = " ".join(again.stderr.split())
    assert "2 damaged places of tar files are left" in said
    assert "2 images that failed are scored again" in said


def test_what_is_no_part_of_the_shard_stays(client: Client, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", FILES)

    def shard(shard_id: str) -> Shard:
        output = f"s3://{BUCKET}/exists/"
        source = TarSource(uri=tar.as_uri())
        return Shard(shard_id=shard_id, source=source, name="a", output_uri=output, options={"prompts": "demo"})

    assert client.submit_shard(shard("local-tars-one")).wait().shard is not None
    before = boto3.client("s3").get_object(Bucket=BUCKET, Key="exists/masks/a-00000.parquet")["ETag"]
    other = client.submit_shard(shard("local-tars-two"))
    with pytest.raises(JobFailed, match="holds a part of the shard local-tars-one, which is not overwritten") as failed:
        other.wait()
    assert failed.value.code == "result_exists"
    assert boto3.client("s3").get_object(Bucket=BUCKET, Key="exists/masks/a-00000.parquet")["ETag"] == before


def test_parts_in_a_folder_are_those_in_a_bucket(demo_worker: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    (tmp_path / "pairs").mkdir()
    write_tar(tmp_path / "tars" / "a.tar", FILES)
    for name, data in FILES:
        (tmp_path / "pairs" / name).write_bytes(data)
    masks = {}
    for number, (images, output) in enumerate(
        [("tars/a.tar", "scores #1/"), ("tars/a.tar", f"s3://{BUCKET}/same/"), ("pairs/", "./scores-2")]
    ):
        asked = ("--prompts", "demo", "--batch-id", f"local-tars-{number}")
        done = run_command("run", images, "-o", output, *asked, environment=demo_worker, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        place = output if "://" in output else str(tmp_path / output)
        columns = ["mask_id", "s_pos", "semantic_multiplier", "segmentation"]
        masks[output] = results.open(place).to_table(columns=columns).sort_by("mask_id").to_pylist()
    local, remote, listed = masks.values()
    assert len(local) > 3
    for rows_of in (remote, listed):
        assert [row["segmentation"] for row in rows_of] == [row["segmentation"] for row in local]
        assert [row["s_pos"] for row in rows_of] == pytest.approx([row["s_pos"] for row in local], abs=1e-3)
    # The batch stands for its parts in the folder, too.
    exported = run_command("export", "local-tars-2", "-o", "best.jsonl", environment=demo_worker, folder=tmp_path)
    assert (exported.returncode, len((tmp_path / "best.jsonl").read_text().splitlines())) == (0, len(local))
    # Another run's parts stay where they are.
    other = ("run", "tars/a.tar", "-o", "scores #1", "--prompts", "demo", "--batch-id", "local-tars-other")
    refused = run_command(*other, environment=demo_worker, folder=tmp_path)
    assert (refused.returncode, "is a part of another run" in " ".join(refused.stderr.split())) == (2, True)


def test_a_folder_that_workers_may_not_write_to_is_named(client: Client, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", FILES)
    for output, code, words in (
        ("file:///root-of-others/scores/", "result_forbidden", "MASKSCORE_RESULT_ROOTS"),
        (f"{(tmp_path / 'elsewhere').as_uri()}/", "result_not_stored", "There is no folder"),
    ):
        shard = Shard(source=TarSource(uri=tar.as_uri()), name="a", output_uri=output, options={"prompts": "demo"})
        with pytest.raises(JobFailed, match=words) as failed:
            client.submit_shard(shard).wait(60)
        assert failed.value.code == code
