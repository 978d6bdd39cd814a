"""``maskscore run`` over photos with a real worker: several layouts, interruption, killing, resuming."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import numpy as np
import pytest
import redis
from PIL import Image
from pycocotools import mask as coco

from chaos.proxy import TcpProxy
from command_line import run_command
from maskscore import BatchNotFound, Client, ClientSettings, JobResult
from maskscore.devstack import LocalServices
from photo_dataset import IMAGES, MASKS, name_of

BUCKET = "run-photos"
FIRST, SECOND = name_of(0), name_of(1)

SA1B = ("run", "images", "--masks", "sa1b", "--prompts", "demo")


@pytest.fixture(scope="module")
def folder(photo_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(photo_dataset, tmp_path_factory.mktemp("run") / "dataset")


@pytest.fixture(scope="module")
def environment(services: LocalServices, demo_worker: dict[str, str]) -> dict[str, str]:
    services.create_bucket(BUCKET)
    return demo_worker


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[Client]:
    settings = ClientSettings(
        redis_url=environment["MASKSCORE_REDIS_URL"], namespace=environment["MASKSCORE_NAMESPACE"]
    )
    with Client(settings) as client:
        yield client


def start(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "maskscore", *arguments],
        env={**os.environ, **environment, "COLUMNS": "80"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, environment=environment, folder=folder)


def summary(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ran.stdout, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


def scores(client: Client, batch_id: str) -> dict[str, Any]:
    """What each image of a batch was scored as, by its name."""

    def of(result: JobResult) -> tuple[str, Any]:
        assert result.image is not None, result.error
        return result.image.uri.rsplit("/", 1)[-1], [component.model_dump() for component in result.components]

    return dict(of(result) for result in client.batch(batch_id).as_completed(60))


def assert_same(some: Any, others: Any) -> None:
    """Numbers depend a little on which crops share a batch."""
    if isinstance(some, float):
        assert some == pytest.approx(others, abs=1e-4)
    elif isinstance(some, dict | list):
        assert len(some) == len(others)
        for key, value in some.items() if isinstance(some, dict) else enumerate(some):
            assert_same(value, others[key])
    else:
        assert some == others


def test_the_layout_of_sa1b(environment: dict[str, str], folder: Path, client: Client) -> None:
    ran = run(environment, folder, *SA1B, "--batch-id", "sa1b", "--json")
    assert ran.returncode == 0, ran.stderr
    document = summary(ran)
    assert (document["images"], document["masks"] + sum(document["skipped"].values())) == (IMAGES, MASKS)
    assert sum(document["multipliers"].values()) == document["masks"] > 90
    assert document["states"]["succeeded"] == document["states"]["total"] == IMAGES
    assert document["complete"] is True
    shown = run(environment, folder, *SA1B, "--batch-id", "sa1b", "--resume")
    assert shown.returncode == 0
    assert "maskscore export sa1b" in shown.stdout
    assert "14 succeeded" in shown.stdout
    component = scores(client, "sa1b")[f"{FIRST}.jpg"][0]
    assert component["upstream"]["predicted_iou"] is not None


def test_copies_are_not_scored(environment: dict[str, str], folder: Path, client: Client, tmp_path: Path) -> None:
    """With ``--nms`` copies are skipped in favour of the best by the upstream score; all others score as without."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    copies = 0
    for number in range(2):
        name = name_of(number)
        shutil.copy(folder / "images" / f"{name}.jpg", tmp_path / "images")
        document = json.loads((folder / "sa1b" / f"{name}.json").read_text())
        for annotation in list(document["annotations"]):
            worse = {"id": annotation["id"] + 10**6, "predicted_iou": annotation["predicted_iou"] - 0.5}
            # The copy comes first, so that it is not the order that decides.
            document["annotations"].insert(0, {**annotation, **worse})
            copies += 1
        (tmp_path / "masks" / f"{name}.json").write_text(json.dumps(document))
    command = ("run", "images", "--masks", "masks", "--prompts", "demo")
    every, kept = (f"copies-{uuid.uuid4().hex[:8]}" for _ in range(2))
    assert run(environment, tmp_path, *command, "--batch-id", every).returncode == 0
    ran = run(environment, tmp_path, *command, "--batch-id", kept, "--nms", "0.999", "--json")
    assert ran.returncode == 0, ran.stderr
    document = summary(ran)
    assert document["skipped"] == {"duplicate_mask": copies}
    assert (document["masks"], document["forwards_saved"]) == (copies, 0.5)
    again = run(environment, tmp_path, *command, "--batch-id", kept, "--nms", "0.999", "--resume")
    assert f"nms       {copies} copies not scored: 50.0% of the forwards saved" in again.stdout
    before = scores(client, every)
    for name, components in scores(client, kept).items():
        for component, other in zip(components, before[name], strict=True):
            if int(component["id"]) < 10**6:
                assert_same(component, other)
            else:
                assert component["skipped"]["code"] == "duplicate_mask"
                assert repr(str(int(component["id"]) - 10**6)) in component["skipped"]["message"]
                assert component["area"] == other["area"]
    # Of two masks of the same pixels each is a part of the other; no scores are needed.
    wholes = run(environment, tmp_path, *command, "--batch-id", f"parts-{kept}", "--drop-parts", "0.999")
    parts = sum(
        (component["skipped"] or {}).get("code") == "part_of_mask"
        for components in scores(client, f"parts-{kept}").values()
        for component in components
    )
    assert parts >= copies
    assert f"parts     {parts} parts not scored: {parts / (2 * copies):.1%} of the forwards saved" in wholes.stdout


def test_the_layout_of_coco(environment: dict[str, str], folder: Path, client: Client) -> None:
    ran = run(
        environment, folder, "run", "images", "--masks", "instances.json", "--prompts", "demo", "--batch-id", "coco",
        "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    document = summary(ran)
    assert (document["images"], document["masks"] + sum(document["skipped"].values())) == (IMAGES, MASKS)
    assert document["images_without_masks"] == 0
    by_image = {
        image["file_name"]: sorted(
            str(annotation["id"]) for annotation in annotations if annotation["image_id"] == image["id"]
        )
        for annotations in [json.loads((folder / "instances.json").read_text())["annotations"]]
        for image in json.loads((folder / "instances.json").read_text())["images"]
    }
    found = {name: sorted(component["id"] for component in parts) for name, parts in scores(client, "coco").items()}
    assert found == by_image
    # Through a batch, whose jobs have their masks inline, the categories keep their names.
    exported = run(environment, folder, "export", "coco", "-o", "exported.json")
    assert exported.returncode == 0, exported.stderr
    given, written = (json.loads((folder / name).read_text()) for name in ("instances.json", "exported.json"))
    used = {annotation["category_id"] for annotation in given["annotations"]}
    names = {entry["id"]: (entry["name"], entry["supercategory"]) for entry in given["categories"]}
    assert {entry["id"]: (entry["name"], entry["supercategory"]) for entry in written["categories"]} == {
        number: names[number] for number in used
    }


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_what_was_interrupted_is_gone_on_with(
    environment: dict[str, str], folder: Path, client: Client, end: signal.Signals
) -> None:
    whole = f"whole-{end.name}"
    assert run(environment, folder, *SA1B, "--batch-id", whole).returncode == 0
    # So that it has to wait for room in the queue, and is met in the middle.
    narrow = {**environment, "MASKSCORE_QUEUE_LIMIT": "1"}
    part = f"part-{end.name}"
    with start(narrow, folder, *SA1B, "--batch-id", part) as process:
        while submitted(client, part) < 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(end)
        _, err = process.communicate(timeout=60)
    before = submitted(client, part)
    assert before < IMAGES, "it was through before it could be interrupted"
    again = shlex.join(["maskscore", *SA1B, "--batch-id", part, "--resume"])
    if end is signal.SIGINT:
        assert process.returncode == 130
        assert again in err
        assert f"{before} of {IMAGES}" in err
    refused = run(environment, folder, *SA1B, "--batch-id", part)
    assert (refused.returncode, "--resume" in refused.stderr) == (2, True)
    resumed = run(environment, folder, *shlex.split(again)[1:], "--json")
    assert resumed.returncode == 0, resumed.stderr
    document = summary(resumed)
    assert document["submitted"] == IMAGES - before
    assert document["submitted_before"] == before
    assert document["states"]["succeeded"] == document["states"]["total"] == IMAGES
    assert document["masks"] + sum(document["skipped"].values()) == MASKS
    assert_same(scores(client, part), scores(client, whole))
    # Each image has ended once, in one attempt.
    assert [status.attempts for status in client.statuses(client.batch(part).job_ids())] == [1] * IMAGES
    server = redis.Redis.from_url(environment["MASKSCORE_REDIS_URL"])
    assert server.xlen(f"{environment['MASKSCORE_NAMESPACE']}:batch:events:{part}") == IMAGES


def submitted(client: Client, batch_id: str) -> int:
    try:
        return client.batch(batch_id).counts().total
    except BatchNotFound:
        return 0


def test_a_batch_goes_on_with_other_options_for_the_rest(environment: dict[str, str], folder: Path) -> None:
    assert run(environment, folder, *SA1B, "--batch-id", "same", "--limit", "2").returncode == 0
    rest = run(environment, folder, *SA1B, "--treatment", "raw_crop", "--batch-id", "same", "--resume", "--json")
    assert (rest.returncode, summary(rest)["submitted"], summary(rest)["submitted_before"]) == (0, IMAGES - 2, 2)
    assert "treatment: none → raw_crop" in rest.stderr


def test_uploaded_then_read_from_the_bucket(environment: dict[str, str], folder: Path, client: Client) -> None:
    results = f"s3://{BUCKET}/results/"
    ran = run(
        environment, folder, *SA1B, "--upload", f"s3://{BUCKET}/up/", "--result-uri", results, "--batch-id", "up",
        "--json",
    )  # fmt: skip
    assert (ran.returncode, summary(ran)["masks"] > 90) == (0, True), ran.stderr
    s3 = boto3.client("s3")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix="up/")["Contents"]]
    assert len(keys) == 2 * IMAGES
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="results/")["KeyCount"] == IMAGES
    there = ("run", f"s3://{BUCKET}/up/images", "--masks", f"s3://{BUCKET}/up/masks/", "--prompts", "demo")
    ran = run(environment, folder, *there, "--content-id", "--batch-id", "there", "--json")
    assert (ran.returncode, summary(ran)["states"]["succeeded"]) == (0, IMAGES), ran.stderr
    assert_same(scores(client, "there"), scores(client, "up"))
    ran = run(
        environment, folder, "run", f"s3://{BUCKET}/up/images", "--masks", "sa1b", "--prompts", "demo", "--batch-id",
        "mixed", "--json",
    )  # fmt: skip
    assert (ran.returncode, summary(ran)["states"]["succeeded"]) == (0, IMAGES), ran.stderr
    assert_same(scores(client, "mixed"), scores(client, "up"))
    # A report of which everything is missing is none: it says that the store is away.
    away = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"), "http://127.0.0.1:1")
    for batch_id in ("up", "mixed"):
        report = run({**environment, **away}, folder, "report", batch_id, "-o", "away.html")
        assert (report.returncode, "does not answer" in report.stderr) == (4, True), report.stderr
        assert not (folder / "away.html").exists()
    # The same content under another batch is the same jobs.
    ran = run(environment, folder, *there, "--content-id", "--batch-id", "once-more", "--json")
    assert (ran.returncode, summary(ran)["states"]["succeeded"]) == (0, IMAGES), ran.stderr
    assert list(client.batch("once-more").job_ids()) == list(client.batch("there").job_ids())


def test_what_fails_is_named_and_can_be_run_again(environment: dict[str, str], folder: Path, tmp_path: Path) -> None:
    broken = folder.parent / f"broken-{uuid.uuid4().hex[:8]}"
    broken.mkdir()
    for name in (FIRST, SECOND):
        shutil.copy(folder / "images" / f"{name}.jpg", broken)
        shutil.copy(folder / "sa1b" / f"{name}.json", broken)
    (broken / "alone.jpg").write_bytes(b"without masks")
    whole = (broken / f"{FIRST}.jpg").read_bytes()
    (broken / f"{FIRST}.jpg").write_bytes(b"no image at all")
    command = ("run", str(broken), "--prompts", "demo", "--batch-id", broken.name)
    ran = run(environment, folder, *command)
    assert ran.returncode == 1
    assert "image_undecodable: 1 → " in ran.stdout
    assert f"{FIRST}.jpg" in ran.stdout
    assert "1 image without masks: alone.jpg" in ran.stdout
    (broken / f"{FIRST}.jpg").write_bytes(whole)
    assert run(environment, folder, *command, "--resume").returncode == 1
    again = run(environment, folder, *command, "--resume", "--retry-failed", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    document = summary(again)
    assert (document["states"]["succeeded"], document["failures"]) == (2, {})


def test_masks_too_large_for_redis_cost_their_own_image(environment: dict[str, str], folder: Path) -> None:
    narrow = {**environment, "MASKSCORE_MAX_DOCUMENT_BYTES": "3000"}
    command = ("run", "images", "--masks", "instances.json", "--prompts", "demo", "--batch-id", "large", "--json")
    ran = run(narrow, folder, *command)
    document = summary(ran)
    assert ran.returncode == 1
    assert 0 < document["refused"] < IMAGES
    assert document["states"]["succeeded"] == IMAGES - document["refused"]
    assert document["failures"]["payload_too_large"]["count"] == document["refused"]
    spilled = {**narrow, "MASKSCORE_SPILL_URI": f"s3://{BUCKET}/spill/"}
    ran = run(spilled, folder, *command, "--resume")
    assert (ran.returncode, summary(ran)["states"]["succeeded"]) == (0, IMAGES), ran.stderr


def test_only_submitting_and_a_dry_run(environment: dict[str, str], folder: Path, client: Client) -> None:
    dry = run(environment, folder, *SA1B, "--dry-run", "--json", "--batch-id", "dry")
    assert (dry.returncode, json.loads(dry.stdout)["images"], submitted(client, "dry")) == (0, IMAGES, 0)
    ran = run(environment, folder, *SA1B, "--no-follow", "--batch-id", "later")
    assert (ran.returncode, "--batch-id later --resume" in ran.stderr, submitted(client, "later")) == (0, True, IMAGES)


def test_places_that_cannot_be_read(environment: dict[str, str], folder: Path, tmp_path: Path) -> None:
    for arguments, word in (
        ((f"s3://{uuid.uuid4().hex}/a/",), "there is no bucket"),
        ((f"s3://{BUCKET}/nothing/here/",), "0 images"),
        ((str(tmp_path / "nowhere"),), "There is no folder"),
        (("instances.json",), "is a file"),
        (("images", "--masks", "nowhere.json"), "no dataset file nowhere.json"),
        (("images",), "--masks"),
        (("http://a/b",), "'http'"),
    ):
        ran = run(environment, folder, "run", *arguments)
        assert (ran.returncode, word in ran.stderr) == (2, True), ran.stderr
    wrong = {**environment, "AWS_SECRET_ACCESS_KEY": "wrong"}
    ran = run(wrong, folder, "run", f"s3://{BUCKET}/up/images/")
    assert (ran.returncode, "the secret key does not belong" in ran.stderr) == (2, True), ran.stderr


def test_a_folder_of_masks_per_image_in_the_bucket(environment: dict[str, str], folder: Path, client: Client) -> None:
    s3 = boto3.client("s3")
    name = FIRST
    s3.upload_file(str(folder / "images" / f"{name}.jpg"), BUCKET, f"sam/images/{name}.jpg")
    entries = json.loads((folder / "sa1b" / f"{name}.json").read_text())["annotations"]
    lines = ["id,area,predicted_iou", *(f"{n},{entry['area']},0.5" for n, entry in enumerate(entries))]
    s3.put_object(Bucket=BUCKET, Key=f"sam/masks/{name}/metadata.csv", Body="\n".join(lines).encode())
    for number, entry in enumerate(entries):
        picture = io.BytesIO()
        Image.fromarray(coco.decode(entry["segmentation"]) * 255).save(picture, "PNG")
        s3.put_object(Bucket=BUCKET, Key=f"sam/masks/{name}/{number}.png", Body=picture.getvalue())
    there = ("run", f"s3://{BUCKET}/sam/images/", "--masks", f"s3://{BUCKET}/sam/masks/", "--prompts", "demo")
    ran = run(environment, folder, *there, "--batch-id", "sam", "--json")
    assert (ran.returncode, summary(ran)["states"]["succeeded"]) == (0, 1), ran.stderr
    assert run(environment, folder, *SA1B, "--batch-id", "of-sam").returncode == 0
    numbers = ("box", "area", "s_pos", "s_neg", "semantic_multiplier")
    some, others = scores(client, "sam")[f"{name}.jpg"], scores(client, "of-sam")[f"{name}.jpg"]
    for one, other in zip(some, others, strict=True):
        assert_same({key: one[key] for key in numbers}, {key: other[key] for key in numbers})


def test_masks_on_this_machine_that_need_the_size_of_an_image_in_the_bucket(
    environment: dict[str, str], folder: Path, client: Client, tmp_path: Path
) -> None:
    names = (name_of(IMAGES - 1), FIRST)
    for name in names:
        boto3.client("s3").upload_file(str(folder / "images" / f"{name}.jpg"), BUCKET, f"far/{name}.jpg")
    (tmp_path / f"{names[0]}.txt").write_text("0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n")
    with Image.open(folder / "images" / f"{names[1]}.jpg") as photo:
        stack = np.zeros((photo.height, photo.width, 2), dtype=bool)
    stack[20:60, 30:90] = True
    np.savez(tmp_path / f"{names[1]}.npz", stack)
    far = ("run", f"s3://{BUCKET}/far/", "--masks", str(tmp_path), "--prompts", "demo", "--batch-id", "far", "--json")
    ran = run(environment, folder, *far)
    assert (ran.returncode, summary(ran)["states"]["succeeded"]) == (0, 2), ran.stdout
    boxes = {name: [part["box"] for part in parts] for name, parts in scores(client, "far").items()}
    # Outlines of Ultralytics run through the centres of the pixels on the border.
    assert boxes[f"{names[0]}.jpg"] == [(160, 120, 321, 241)]
    assert boxes[f"{names[1]}.jpg"] == [(30, 20, 60, 40)] * 2


def test_a_redis_that_is_away_for_a_while_is_waited_for(
    environment: dict[str, str], folder: Path, client: Client
) -> None:
    url = urlsplit(environment["MASKSCORE_REDIS_URL"])
    assert url.port is not None
    with TcpProxy(url.port) as line:
        there = {
            **environment,
            "MASKSCORE_REDIS_URL": environment["MASKSCORE_REDIS_URL"].replace(f":{url.port}/", f":{line.port}/"),
            "MASKSCORE_QUEUE_LIMIT": "1",
        }
        with start(there, folder, *SA1B, "--batch-id", "away", "--json") as process:
            while submitted(client, "away") < 3:
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            line.cut()
            before = submitted(client, "away")
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(3)
            assert submitted(client, "away") == before < IMAGES
            line.pass_on()
            out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert (document["states"]["succeeded"], document["masks"] + sum(document["skipped"].values())) == (IMAGES, MASKS)
