"""``run -o --resume --retry-failed`` scores the images again that failed in shards that have succeeded."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import pytest

from command_line import run_command
from maskscore import Client, ClientSettings, JobFailed, results
from maskscore.devstack import LocalServices
from maskscore.schema import Shard, TarSource
from shard_tars import drawn_pairs, write_tar


def test_images_that_failed_are_scored_again_alone(demo_worker: dict[str, str], tmp_path: Path) -> None:
    files = dict(drawn_pairs(5))
    (tmp_path / "pairs").mkdir()
    for name, data in files.items():
        (tmp_path / "pairs" / name).write_bytes(data)
    # One is cut off, one will never be read.
    for name in ("sa_2.jpg", "sa_4.jpg"):
        (tmp_path / "pairs" / name).write_bytes(files[name][:700])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, environment=demo_worker, folder=tmp_path)

    begun = ("run", "pairs/", "-o", "scores/", "--prompts", "demo", "--batch-id", "run-retries", "--shard-images", "3")
    first = run(*begun, "--json")
    document = json.loads(first.stdout)
    assert (first.returncode, document["shards"], document["images"], document["images_failed"]) == (1, 2, 5, 2)
    failed = run(*begun, "--resume")
    assert (failed.returncode, "--retry-failed" in failed.stderr) == (1, True)

    (tmp_path / "pairs" / "sa_2.jpg").write_bytes(files["sa_2.jpg"])
    again = run(*begun, "--resume", "--retry-failed", "--json")
    document = json.loads(again.stdout)
    assert "2 images that failed are scored again" in again.stderr
    assert (again.returncode, document["shards"], document["images"], document["images_failed"]) == (1, 3, 5, 1)
    (failures,) = document["image_failures"].values()
    assert (failures["count"], failures["examples"][0][0].endswith("sa_4.jpg")) == (1, True)
    masks = results.open(str(tmp_path / "scores")).to_table(columns=["image"])["image"].to_pylist()
    wanted = {name: len(json.loads(files[name])["annotations"]) for name in files if name.endswith(".json")}
    counts = {name: sum(image.endswith(name.replace(".json", ".jpg")) for image in masks) for name in wanted}
    assert counts == {**wanted, "sa_4.json": 0}

    # What reads parts counts each image once, of a folder and of the batch.
    for name in ("scores/", "run-retries"):
        exported = run("export", name, "-o", "out.jsonl")
        assert (exported.returncode, "images without a result: image_truncated 1" in exported.stderr) == (1, True)
        assert "; 5 images" in exported.stderr
    report = run("report", "scores/", "-o", "report.html")
    assert report.returncode == 1
    assert (tmp_path / "report.html").read_text().count("<section") == 5

    (tmp_path / "pairs" / "sa_4.jpg").write_bytes(files["sa_4.jpg"])
    last = run(*begun, "--resume", "--retry-failed")
    assert last.returncode == 0, last.stderr
    assert "1 image that failed is scored again" in last.stderr
    done = run(*begun, "--resume", "--retry-failed", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["shards"], document["images"], document["images_failed"]) == (0, 4, 5, 0)
    assert run("export", "scores/", "-o", "out.jsonl").returncode == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == sum(wanted.values())
    # Scored again by their images, these are in the shards that they were in first.
    rescored = run("rescore", "run-retries", "--prompts", "demo", "-o", "again/", "--wait")
    assert rescored.returncode == 0, rescored.stderr
    assert results.open(str(tmp_path / "again")).count_rows() == sum(wanted.values())
    assert f"{sum(wanted.values())} masks scored" in " ".join(rescored.stderr.split())


@pytest.mark.parametrize("place", ["local", "s3"])
def test_images_of_a_tar_that_failed_are_scored_again_from_what_it_is_now(
    demo_worker: dict[str, str], services: LocalServices, tmp_path: Path, place: str
) -> None:
    files = dict(drawn_pairs(5))
    name = "a #1.tar.gz" if place == "local" else "a.tar"
    batch_id = f"run-retries-tar-{place}"
    if place == "s3":
        services.create_bucket("retries")

    def write(**changed: bytes | None) -> None:
        """Write the tar with other members, and without those that are none."""
        own = {**files, **{name.replace("_j", ".j"): data for name, data in changed.items()}}
        path = write_tar(tmp_path / name, [(inner, data) for inner, data in own.items() if data is not None])
        if place == "s3":
            boto3.client("s3").upload_file(str(path), "retries", name)

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        images = f"s3://retries/{name}" if place == "s3" else name
        command = ("run", images, "-o", "scores/", "--prompts", "demo", "--batch-id", batch_id, "--json", *arguments)
        done = run_command(*command, environment=demo_worker, folder=tmp_path)
        return done.returncode, json.loads(done.stdout or "{}"), " ".join(done.stderr.split())

    # One is cut off, one has masks that cannot be read, one has none, and one has no image.
    broken = {"sa_1_jpg": None, "sa_2_jpg": files["sa_2.jpg"][:700], "sa_4_json": b"{", "sa_5_json": None}
    write(**broken)
    code, document, said = run()
    assert (code, document["images"], document["images_failed"]) == (1, 5, 4)
    assert "--retry-failed" in said
    # It is as it was: the same images fail again, and are there once.
    code, document, said = run("--resume", "--retry-failed")
    assert (code, document["shards"], document["images"], document["images_failed"]) == (1, 2, 5, 4)
    assert ("4 images that failed are scored again" in said, "was replaced" in said) == (True, False)

    write(sa_4_json=b"{", sa_3_jpg=None)
    if place == "s3":
        code, _, said = run("--resume")
        assert (code, "was replaced since it was submitted" in said) == (2, True)
    code, document, said = run("--resume", "--retry-failed")
    assert (code, document["shards"], document["images"], document["images_failed"]) == (1, 3, 5, 1)
    assert f"{name} was replaced since it was scored" in unquote(said)
    (failures,) = document["image_failures"].values()
    assert failures["examples"][0][0].endswith("sa_4.jpg")
    # An image that had succeeded is not looked for; and the version that failed images came from needs no more words.
    code, document, said = run("--resume")
    assert (code, document["images_failed"], "was replaced" in said) == (1, 1, False)

    write()
    if place == "s3":
        # As if the tar had been replaced before a worker read it.
        source = TarSource(uri=f"s3://retries/{name}", etag='"another"', members=["sa_4.jpg"])
        output = f"{(tmp_path / 'scores').as_uri()}/"
        stale = Shard(shard_id=f"{batch_id}-a.retry-00002", name="a.retry-00002", source=source, output_uri=output)
        settings = ClientSettings(
            redis_url=demo_worker["MASKSCORE_REDIS_URL"], namespace=demo_worker["MASKSCORE_NAMESPACE"]
        )
        with Client(settings) as client:
            client.submit_many([stale], batch_id=batch_id)
            with pytest.raises(JobFailed, match="image_changed"):
                client.handle(stale.shard_id).wait(60)
    code, document, _ = run("--resume", "--retry-failed")
    assert (code, document["shards"], document["images"], document["images_failed"]) == (0, 4, 5, 0)
    if place == "s3":
        write(sa_3_jpg=None)
        code, _, said = run("--resume", "--retry-failed")
        assert (code, "was replaced since it was submitted" in said) == (2, True)
    exported = run_command("export", "scores/", "-o", "out.jsonl", environment=demo_worker, folder=tmp_path)
    assert exported.returncode == 0, exported.stderr
    wanted = {name: len(json.loads(files[name])["annotations"]) for name in files if name.endswith(".json")}
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert Counter(Path(json.loads(line)["image"]).stem for line in lines) == {
        name.removesuffix(".json"): count for name, count in wanted.items()
    }
