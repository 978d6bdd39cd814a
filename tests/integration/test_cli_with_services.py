"""The command line with all services running, for scripts and for people."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import uuid
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import redis
from PIL import Image

from command_line import run_command
from maskscore.masks import encode_mask
from maskscore_worker.demo.scenes import draw_scene
from process_environment import ignoring_signal
from waiting import until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene as a user has it: an image file, and its masks in a file beside it."""
    folder = tmp_path_factory.mktemp("user")
    scene = draw_scene(550_001)
    Image.fromarray(scene.image).save(folder / "scene.png")
    masks = [{"id": mask.id, "segmentation": encode_mask(mask.mask).model_dump()} for mask in scene.masks]
    masks.append({"id": "bad", "segmentation": {"size": list(scene.image.shape[:2]), "counts": [1]}})
    (folder / "masks.json").write_text(json.dumps(masks))
    return folder


@pytest.fixture(scope="module")
def environment(demo_worker: dict[str, str]) -> dict[str, str]:
    return demo_worker


def run(
    environment: dict[str, str], folder: Path, *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, environment=environment, folder=folder, stdin=stdin)


ONE = ("submit", "--image", "scene.png", "--masks", "masks.json", "--prompts", "demo")


def test_submit_wait_results_report(environment: dict[str, str], folder: Path) -> None:
    submitted = run(environment, folder, *ONE, "--top-k", "2", "--job-id", "my-job")
    assert (submitted.returncode, submitted.stdout) == (0, "my-job\n")
    waited = run(environment, folder, "wait", "-", "--timeout", "240", stdin=submitted.stdout)
    assert waited.returncode == 0
    assert "succeeded" in waited.stdout
    assert waited.stderr == ""
    results = run(environment, folder, "results", "my-job")
    assert results.returncode == 0
    assert all(len(line) <= 80 for line in results.stdout.splitlines()[1:]), results.stdout
    assert "mask_invalid" in results.stdout
    document = json.loads(run(environment, folder, "results", "my-job", "--json").stdout)
    assert document["state"] == "succeeded"
    assert len(document["components"][0]["top_k"]) == 2
    status = json.loads(run(environment, folder, "status", "my-job", "--json").stdout)
    assert (status["job_id"], status["state"], status["attempts"]) == ("my-job", "succeeded", 1)
    report = run(environment, folder, "report", "my-job", "-o", "out.html", "--title", "<b>Mine</b>")
    assert report.returncode == 0
    page = Page()
    page.feed((folder / "out.html").read_text())
    assert page.rows == len(document["components"])
    assert page.pictures == 1 + 2 * (page.rows - 1)
    assert page.foreign == []
    assert "&lt;b&gt;Mine&lt;/b&gt;" in (folder / "out.html").read_text()


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows = self.pictures = 0
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.rows += tag == "tr" and "data-mask" in given
        # Those of the contact sheet's cards stand in links, and describe themselves otherwise.
        self.pictures += tag == "img" and not str(given["alt"]).startswith("mask ")
        links = [str(value) for name, value in attrs if name in ("src", "href")]
        self.foreign += [link for link in links if not link.startswith(("data:", "#"))]


def test_submit_and_wait_in_one(environment: dict[str, str], folder: Path) -> None:
    ran = run(environment, folder, *ONE, "--wait", "--json")
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["state"] == "succeeded"


def test_many_documents_and_a_job_that_fails(environment: dict[str, str], folder: Path) -> None:
    image = (folder / "scene.png").as_uri()
    good = {"image": image, "masks": (folder / "masks.json").as_uri(), "options": {"prompts": "demo"}}
    bad = {**good, "image": (folder / "nothing.png").as_uri()}
    (folder / "jobs.jsonl").write_text("\n".join(json.dumps(job) for job in (good, bad, good)))
    submitted = run(environment, folder, "submit", "jobs.jsonl", "--json")
    ids = [json.loads(line)["job_id"] for line in submitted.stdout.splitlines()]
    assert len(ids) == 3
    waited = run(environment, folder, "wait", *ids, "--json")
    assert waited.returncode == 1
    states = [json.loads(line) for line in waited.stdout.splitlines()]
    assert [state["state"] for state in states] == ["succeeded", "failed", "succeeded"]
    assert states[1]["error"]["code"] == "image_not_found"
    shown = run(environment, folder, "results", ids[1])
    assert (shown.returncode, "image_not_found" in shown.stdout) == (1, True)


def test_exit_codes_of_unknown_cancelled_and_late_jobs(environment: dict[str, str], folder: Path) -> None:
    idle = {**environment, "MASKSCORE_NAMESPACE": f"idle-{uuid.uuid4().hex[:8]}"}
    for command in ("status", "results", "cancel", "wait", "report"):
        ran = run(idle, folder, command, "nobody")
        assert (ran.returncode, "nobody" in ran.stderr) == (5, True), ran.stderr
    job = run(idle, folder, *ONE).stdout.strip()
    assert run(idle, folder, "results", job).returncode == 5
    late = run(idle, folder, "wait", job, "--timeout", "0.1")
    assert (late.returncode, job in late.stderr) == (3, True)
    assert "cancelled" in run(idle, folder, "cancel", job).stdout
    assert run(idle, folder, "wait", job).returncode == 1


def test_waiting_can_be_interrupted(environment: dict[str, str], folder: Path) -> None:
    idle = {**os.environ, **environment, "MASKSCORE_NAMESPACE": f"idle-{uuid.uuid4().hex[:8]}"}
    job = run(idle, folder, *ONE).stdout.strip()
    # What Redis is asked shows when it waits, however long it takes to start.
    server: Any = redis.Redis.from_url(idle["MASKSCORE_REDIS_URL"])
    with server.monitor() as monitor:
        waiting = subprocess.Popen(
            [sys.executable, "-m", "maskscore", "wait", job],
            env=idle,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: job in monitor.next_command()["command"], "it asks for the job")
    assert waiting.poll() is None
    waiting.send_signal(signal.SIGINT)
    _, errors = waiting.communicate(timeout=120)
    assert (waiting.returncode, errors.splitlines()[-1]) == (130, "interrupted")


def test_up_runs_everything_until_it_is_told_to_stop(folder: Path, tmp_path: Path) -> None:
    with (folder / "up.log").open("w") as log:
        up = subprocess.Popen(
            # As a script starts it in the background: Ctrl-C is to end it there, too.
            ignoring_signal("INT", sys.executable, "-m", "maskscore", "up", "--bucket", "pictures"),
            env={**os.environ, "TMPDIR": str(tmp_path)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert up.stdout is not None
        exported = {}
        for line in up.stdout:
            name, _, value = line.removeprefix("export ").strip().partition("=")
            exported[name] = value.strip("'")
            if name == "MASKSCORE_BUCKETS":
                break
        said = (folder / "up.log").read_text()
        assert said.startswith("maskscore: starting Redis, S3 and a worker ...\n")
        doctor = run({**exported, "MASKSCORE_NAMESPACE": ""}, folder, "doctor", "--no-worker")
        assert (doctor.returncode, "0 failed" in doctor.stdout) == (0, True), doctor.stdout
        ran = run({**exported, "MASKSCORE_NAMESPACE": ""}, folder, *ONE, "--wait", "--timeout", "240")
        assert (ran.returncode, "mask_invalid" in ran.stdout) == (0, True), ran.stderr
        up.send_signal(signal.SIGINT)
        assert up.wait(120) == 130
        assert list(tmp_path.iterdir()) == []
        assert "jobs, results and objects are removed (--dir DIR keeps them)" in (folder / "up.log").read_text()
    finally:
        up.kill()
        up.wait()
        assert up.stdout is not None
        up.stdout.close()


def test_the_demo_can_be_interrupted_and_leaves_nothing(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        ignoring_signal("INT", sys.executable, "-m", "maskscore_worker.demo", "--images", "200"),
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert demo.stdout is not None
    seen = io.BytesIO()
    while b"photos" not in seen.getvalue():
        piece = demo.stdout.read(1)
        assert piece, seen.getvalue()
        seen.write(piece)
    until(lambda: any(tmp_path.glob("maskscore-worker-*")), "its services are there, and it starts a worker")
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130
    assert b"Traceback" not in output
    assert list(tmp_path.iterdir()) == []


def test_a_job_of_which_no_mask_was_scored_is_no_success(environment: dict[str, str], folder: Path) -> None:
    place = folder / "unscored"
    place.mkdir()
    (place / "scene.png").write_bytes((folder / "scene.png").read_bytes())
    (place / "scene.json").write_text(json.dumps([{"id": n, "segmentation": "none"} for n in "12"]))
    one = ("submit", "--image", "unscored/scene.png", "--prompts", "demo")
    left_out = run(environment, folder, *one, "--masks", "unscored/scene.json", "--wait")
    assert (left_out.returncode, "all 2 entries are left out" in left_out.stderr) == (1, True), left_out.stderr
    by_uri = (*one, "--masks", (place / "scene.json").as_uri(), "--batch-id", "unscored", "--job-id", "unscored")
    submitted = run(environment, folder, *by_uri, "--wait", "--json")
    assert submitted.returncode == 1
    assert [warning["code"] for warning in json.loads(submitted.stdout)["warnings"]] == ["no_mask_scored"]
    for command in (
        ("wait", "unscored"),
        ("results", "unscored"),
        ("batch", "wait", "unscored"),
        ("batch", "results", "unscored"),
        ("rescore", "unscored", "--top-k", "2", "--wait"),
        ("compare", "unscored/scene.png", "--masks", (place / "scene.json").as_uri(), "--prompts", "demo"),
        ("report", "unscored", "-o", "unscored.html"),
    ):
        said = run(environment, folder, *command)
        assert (said.returncode, "None of the 2 masks was scored: 2 mask_invalid" in said.stderr) == (1, True), said
    ran = run(environment, folder, "run", "unscored", "--prompts", "demo")
    assert (ran.returncode, "no_mask_scored: 1" in ran.stdout) == (1, True), ran
