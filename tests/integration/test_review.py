"""``maskscore review`` of a real batch: the tasks, the images by their URLs, and judgements that come back."""

from __future__ import annotations

import json
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

from command_line import run_command
from in_memory_files import image_file
from maskscore import Client, Job
from maskscore.devstack import LocalServices
from maskscore.formats.label_studio_brush import decode_brush
from maskscore.masks import encode_mask
from maskscore.review import read_judgements
from maskscore_worker.demo.scenes import Scene, draw_scene
from process_environment import patched_environment

SCENES = [draw_scene(810_001 + number) for number in range(4)]
MASKS = sum(len(scene.masks) for scene in SCENES)


def masks_of(scene: Scene) -> list[dict[str, Any]]:
    return [{"id": mask.id, "segmentation": encode_mask(mask.mask).model_dump()} for mask in scene.masks]


@pytest.fixture(scope="module")
def environment(services: LocalServices, demo_worker: dict[str, str]) -> dict[str, str]:
    services.create_bucket("review")
    return demo_worker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review") / "more photos"
    folder.mkdir()
    for number, scene in enumerate(SCENES):
        Image.fromarray(scene.image).save(folder / f"scene {number}.png")
    return folder


@pytest.fixture(scope="module")
def in_s3(environment: dict[str, str]) -> str:
    jobs = []
    for number, scene in enumerate(SCENES):
        key = f"scene {number}+.png"
        boto3.client("s3").put_object(Bucket="review", Key=key, Body=image_file(scene.image))
        jobs.append({"image": f"s3://review/{key}", "masks": masks_of(scene), "options": {"prompts": "demo"}})
    with patched_environment(environment), Client() as client:
        client.submit_many(map(Job.model_validate, jobs), batch_id="review-s3").wait(120)
    return "review-s3"


@pytest.fixture(scope="module")
def in_files(environment: dict[str, str], folder: Path) -> str:
    jobs = [
        {"image": path.as_uri(), "masks": masks_of(scene), "options": {"prompts": "demo"}}
        for path, scene in zip(sorted(folder.iterdir()), SCENES, strict=True)
    ]
    with patched_environment(environment), Client() as client:
        client.submit_many(map(Job.model_validate, jobs), batch_id="review-files").wait(120)
    return "review-files"


def judged(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the export of Label Studio in which every region is kept."""
    exported = []
    for number, task in enumerate(tasks):
        result = []
        for region in task["predictions"][0]["result"]:
            choice = {"from_name": "keep", "type": "choices", "value": {**region["value"], "choices": ["keep"]}}
            result += [region, {**region, **choice}]
        exported.append({**task, "id": number, "annotations": [{"result": result}]})
    return exported


def test_tasks_have_the_masks_and_urls_of_their_images(environment: dict[str, str], in_s3: str, tmp_path: Path) -> None:
    shown = run_command("review", in_s3, "--random", "9", environment=environment, folder=tmp_path)
    assert (shown.returncode, shown.stdout) == (0, f"{tmp_path / 'tasks.json'}\n"), shown.stderr
    assert f"of {MASKS} scored masks: {MASKS - 9} doubtful, with a margin within" in shown.stderr
    assert "paste tasks.xml" in shown.stderr
    assert f"maskscore fit {in_s3} --judged EXPORT.json -o HEAD.json" in shown.stderr
    tasks = json.loads((tmp_path / "tasks.json").read_text("utf-8"))
    assert {path.name for path in tmp_path.iterdir()} == {"tasks.json", "tasks.xml"}
    seen = []
    for task in tasks:
        about = task["data"]["maskscore"]
        scene = SCENES[int(about["image"].removeprefix("s3://review/scene ")[0])]
        with urllib.request.urlopen(task["data"]["image"]) as answer:
            assert answer.read() == image_file(scene.image)
        drawn = {mask.id: mask.mask for mask in scene.masks}
        for region in task["predictions"][0]["result"]:
            mask_id = about["regions"][region["id"]]["mask_id"]
            size = region["original_height"], region["original_width"]
            np.testing.assert_array_equal(decode_brush(bytes(region["value"]["rle"]), *size), drawn[mask_id] > 0)
            seen.append((about["image"], mask_id))
    assert len(set(seen)) == len(seen) == MASKS
    (tmp_path / "export.json").write_text(json.dumps(judged(tasks)))
    judgements = list(read_judgements(tmp_path / "export.json"))
    assert sorted((one.image, one.mask_id) for one in judgements) == sorted(seen)
    assert sum(one.random for one in judgements) == 9
    assert all(one.keep for one in judgements)


def test_the_tasks_are_the_same_for_the_same_seed(environment: dict[str, str], in_s3: str, tmp_path: Path) -> None:
    asked = ("review", in_s3, "--doubtful", "6", "--random", "6", "--s3-uris")
    for seed, output in (("3", "a.json"), ("3", "b.json"), ("4", "c.json")):
        shown = run_command(*asked, "--seed", seed, "-o", output, environment=environment, folder=tmp_path)
        assert shown.returncode == 0, shown.stderr
    texts = [(tmp_path / name).read_text("utf-8") for name in ("a.json", "b.json", "c.json")]
    assert texts[0] == texts[1] != texts[2]
    assert {task["data"]["image"] for task in json.loads(texts[0])} <= {f"s3://review/scene {n}+.png" for n in range(4)}


def test_local_files_have_urls_below_label_studios_root(
    environment: dict[str, str], in_files: str, folder: Path, tmp_path: Path
) -> None:
    asked = ("review", in_files, "--doubtful", "5", "--random", "0", "--by", "p_pos_sum=0.7")
    rooted = {**environment, "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(folder.parent)}
    shown = run_command(*asked, environment=rooted, folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert f"with the path {folder}" in shown.stderr
    tasks = json.loads((tmp_path / "tasks.json").read_text("utf-8"))
    urls = {f"/data/local-files/?d=more%20photos/scene%20{number}.png" for number in range(4)}
    assert {task["data"]["image"] for task in tasks} <= urls
    elsewhere = run_command(*asked, "--document-root", "/srv", "-o", "x.json", environment=environment, folder=tmp_path)
    assert (elsewhere.returncode, "is not below /srv" in elsewhere.stderr) == (2, True), elsewhere.stderr
    assert not (tmp_path / "x.json").exists()


def test_files_that_are_there_are_not_replaced_unasked(environment: dict[str, str], in_s3: str, tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text("mine")
    asked = ("review", in_s3, "--doubtful", "2", "--random", "0")
    refused = run_command(*asked, environment=environment, folder=tmp_path)
    assert (refused.returncode, "tasks.json exists. Give `-o tasks.json`" in refused.stderr) == (2, True)
    assert (tmp_path / "tasks.json").read_text() == "mine"
    assert run_command(*asked, "-o", "tasks.json", environment=environment, folder=tmp_path).returncode == 0
    classes = ("--class", "cat", "--class", "dog", "-o", "tasks.json")
    other = run_command(*asked, *classes, environment=environment, folder=tmp_path)
    assert (other.returncode, "tasks.xml exists, and is not" in other.stderr) == (2, True), other.stderr


def test_what_cannot_be_shown_is_left_out_and_said(environment: dict[str, str], tmp_path: Path) -> None:
    bucket = boto3.client("s3")
    jobs = []
    for number, scene in enumerate(SCENES[:3]):
        bucket.put_object(Bucket="review", Key=f"gone-{number}.png", Body=image_file(scene.image))
        jobs.append(
            {"image": f"s3://review/gone-{number}.png", "masks": masks_of(scene), "options": {"prompts": "demo"}}
        )
    jobs.append({**jobs[0], "image": "s3://review/never.png"})
    with patched_environment(environment), Client() as client:
        client.submit_many(map(Job.model_validate, jobs), batch_id="review-gone").wait(120)
    bucket.delete_object(Bucket="review", Key="gone-0.png")
    bucket.put_object(Bucket="review", Key="gone-1.png", Body=image_file(SCENES[3].image))
    shown = run_command("review", "review-gone", environment=environment, folder=tmp_path)
    assert shown.returncode == 1
    assert "jobs without a result: image_not_found 1" in shown.stderr
    assert f"left out: {sum(len(scene.masks) for scene in SCENES[:2])} chosen masks" in shown.stderr
    assert "s3://review/gone-1.png is not the image any more that was scored" in shown.stderr
    tasks = json.loads((tmp_path / "tasks.json").read_text("utf-8"))
    assert {task["data"]["maskscore"]["image"] for task in tasks} == {"s3://review/gone-2.png"}
    bucket.delete_object(Bucket="review", Key="gone-2.png")
    nothing = run_command("review", "review-gone", "-o", "nothing.json", environment=environment, folder=tmp_path)
    assert (nothing.returncode, "no chosen mask can be shown" in nothing.stderr) == (1, True)
    assert not (tmp_path / "nothing.json").exists()


def test_a_batch_without_scores_or_of_no_jobs_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    unknown = run_command("review", "review-unknown", environment=environment, folder=tmp_path)
    assert (unknown.returncode, "review-unknown" in unknown.stderr) == (5, True), unknown.stderr
    idle = {**environment, "MASKSCORE_NAMESPACE": f"idle-{uuid.uuid4().hex[:8]}"}
    job = {"image": "s3://review/scene 0+.png", "masks": masks_of(SCENES[0]), "options": {"prompts": "demo"}}
    with patched_environment(idle), Client() as client:
        client.submit_many([Job.model_validate(job)], batch_id="review-idle")
    waiting = run_command("review", "review-idle", environment=idle, folder=tmp_path)
    assert waiting.returncode == 1
    assert "jobs without a result: not_ended 1" in waiting.stderr
    assert "no mask of batch review-idle has a score" in waiting.stderr
    assert not list(tmp_path.iterdir())
    for arguments, words in (
        (("--by", "s_pos"), "write NAME=THRESHOLD"),
        (("--doubtful", "0", "--random", "0"), "no mask to judge"),
        (("--class", "a", "--class", "a"), "a name of its own"),
        (("-o", "tasks.xml"), "ending of the labelling configuration"),
        (("-o", "nowhere/tasks.json"), "There is no folder"),
    ):
        refused = run_command("review", "review-idle", *arguments, environment=idle, folder=tmp_path)
        assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr


def test_a_number_that_no_mask_has_is_refused(environment: dict[str, str], in_s3: str, tmp_path: Path) -> None:
    refused = run_command("review", in_s3, "--by", "p_pos_sun=0.5", environment=environment, folder=tmp_path)
    assert (refused.returncode, "did you mean" in refused.stderr) == (2, True), refused.stderr
    assert not list(tmp_path.iterdir())
