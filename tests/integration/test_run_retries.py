"""``run -o --resume --retry-failed`` scores the images again that failed in shards that have succeeded."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from command_line import run_command
from maskscore import results
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


def test_images_of_tars_are_not_scored_again_alone(demo_worker: dict[str, str], tmp_path: Path) -> None:
    files = drawn_pairs(2)
    write_tar(tmp_path / "a.tar", [*files[:2], (files[2][0], b"none"), files[3]])
    begun = ("run", "a.tar", "-o", "scores/", "--prompts", "demo", "--batch-id", "run-retries-tar")
    for more in ((), ("--resume", "--retry-failed")):
        ran = run_command(*begun, *more, environment=demo_worker, folder=tmp_path)
        assert ran.returncode == 1
    assert "images of tar files that failed are not scored again" in " ".join(ran.stderr.split())
