"""``maskscore fit`` over a real batch with embeddings: judgements → head → the masks that an export keeps."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
import yaml

from command_line import run_command
from in_memory_files import image_file
from maskscore import Client, ImageRef, Job
from maskscore.devstack import LocalServices
from maskscore.masks import encode_mask
from maskscore.parts import ImageOutcome, part_names, part_tables, write_part
from maskscore.schema import Head
from maskscore_worker.demo.scenes import draw_scene
from process_environment import patched_environment

SCENES = [draw_scene(820_001 + number) for number in range(24)]
JUDGED = 16
"""The scenes that are judged where others are held out."""
BATCH = "fit"


@pytest.fixture(scope="module")
def environment(services: LocalServices, demo_worker: dict[str, str]) -> dict[str, str]:
    services.create_bucket("fit")
    jobs: list[dict[str, Any]] = []
    for number, scene in enumerate(SCENES):
        boto3.client("s3").put_object(Bucket="fit", Key=f"in/scene-{number}.png", Body=image_file(scene.image))
        masks = []
        for mask in scene.masks:
            masks.append({"id": mask.id, "segmentation": encode_mask(mask.mask).model_dump()})
        options = {"prompts": "demo", "embeddings": True}
        jobs.append({"image": f"s3://fit/in/scene-{number}.png", "masks": masks, "options": options})
    with patched_environment(demo_worker), Client() as client:
        client.submit_many(map(Job.model_validate, jobs), batch_id=BATCH).wait(240)
    return demo_worker


def judgements(folder: Path, scenes: int = len(SCENES)) -> Path:
    """Keep what is drawn as an object in the first scenes, and be wrong about every tenth mask."""
    rows: list[list[str]] = []
    for number, scene in enumerate(SCENES[:scenes]):
        for mask in scene.masks:
            keep = (mask.kind == "object") != (len(rows) % 10 == 9)
            rows.append([f"scene-{number}.png", mask.id, "keep" if keep else "drop"])
    path = folder / "judged.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "mask_id", "keep"], *rows])
    return path


def test_a_head_is_fitted_and_an_export_keeps_what_it_keeps(environment: dict[str, str], tmp_path: Path) -> None:
    judged = judgements(tmp_path)
    asked = ("fit", BATCH, "--judged", str(judged))
    shown = run_command(*asked, "-o", "keep-v1.json", "--svg", "fit.svg", environment=environment, folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "drawn at random" in shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert (tmp_path / "fit.svg").read_text("utf-8").startswith("<svg")
    for kind in ("threshold", "probe"):
        head = f"{kind}.json"
        fitted = run_command(*asked, "--kind", kind, "-o", head, "--json", environment=environment, folder=tmp_path)
        assert fitted.returncode == 0, fitted.stderr
        document = json.loads(fitted.stdout)
        assert document["head"]["kind"] == kind
        assert document["written"]
        assert document["to_halve"] == 3 * document["measured"]
        exported = run_command("export", BATCH, "--head", head, "--keep", environment=environment, folder=tmp_path)
        assert exported.returncode == 0, exported.stderr
        kept = [json.loads(line) for line in exported.stdout.splitlines()]
        assert len(kept) == document["batch"]["kept"] > 0
        assert all(mask["keep"] for mask in kept)
    checked = run_command("heads", "check", head, BATCH, environment=environment, folder=tmp_path)
    masks = document["batch"]["decided"]
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout == f"{masks} masks can be decided, {len(kept)} of them kept\n"
    # A second round of judgements goes where the head is least sure.
    every = run_command("export", BATCH, "--head", head, environment=environment, folder=tmp_path)
    p_keep = [json.loads(line)["p_keep"] for line in every.stdout.splitlines()]
    nearest = sorted(abs(one - document["head"]["threshold"]) for one in p_keep)[:7]
    asked_again = ("review", BATCH, "--head", head, "--doubtful", "7", "--random", "0")
    doubtful = run_command(*asked_again, environment=environment, folder=tmp_path)
    assert doubtful.returncode == 0, doubtful.stderr
    tasks = json.loads((tmp_path / "tasks.json").read_text("utf-8"))
    doubts = [mask["doubt"] for task in tasks for mask in task["data"]["maskscore"]["regions"].values()]
    assert sorted(doubts) == pytest.approx(nearest)
    square = {"id": "1", "segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]}
    lost = Job.model_validate({"image": "s3://fit/never.png", "masks": [square], "options": {"prompts": "demo"}})
    with patched_environment(environment), Client() as client:
        client.submit_many([lost], batch_id="lost").wait(240)
    unchecked = run_command("heads", "check", head, BATCH, "lost", environment=environment, folder=tmp_path)
    assert unchecked.stdout == checked.stdout
    assert (unchecked.returncode, "1 job without a result, not checked" in unchecked.stderr) == (1, True)
    nowhere = run_command("fit", "lost", *asked[2:], "-o", "none.json", environment=environment, folder=tmp_path)
    assert "jobs without a result: image_not_found 1" in nowhere.stderr
    assert (nowhere.returncode, "is of a scored mask" in nowhere.stderr) == (2, True)
    objects = {
        (f"scene-{number}.png", mask.id)
        for number, scene in enumerate(SCENES)
        for mask in scene.masks
        if mask.kind == "object"
    }
    names = {(mask["image"].rsplit("/", 1)[-1], mask["mask_id"]) for mask in kept}
    assert len(names & objects) > 0.7 * len(names | objects)


def test_the_recommended_head_has_its_precision_on_images_that_were_held_out(
    environment: dict[str, str], tmp_path: Path
) -> None:
    asked = ("fit", BATCH, "--judged", str(judgements(tmp_path, JUDGED)), "--precision", "0.6", "-o", "keep.json")
    fitted = run_command(*asked, "--json", environment=environment, folder=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    document = json.loads(fitted.stdout)
    brier = {one["kind"]: one["brier"] for one in document["kinds"]}
    assert list(brier) == ["threshold", "platt", "isotonic", "probe"]
    assert brier[document["head"]["kind"]] <= 1.3 * min(brier.values())
    kept_file = ("export", BATCH, "--head", "keep.json", "--keep", "-o", "kept.parquet")
    exported = run_command(*kept_file, environment=environment, folder=tmp_path)
    assert exported.returncode == 0, exported.stderr
    masks = pq.read_table(tmp_path / "kept.parquet", columns=["image", "mask_id"]).to_pylist()
    kept = {(mask["image"].rsplit("/", 1)[-1], mask["mask_id"]) for mask in masks}
    rightly = [
        mask.kind == "object"
        for number, scene in enumerate(SCENES[JUDGED:], JUDGED)
        for mask in scene.masks
        if (f"scene-{number}.png", mask.id) in kept
    ]
    assert len(rightly) > len(SCENES) - JUDGED
    assert sum(rightly) >= 0.6 * len(rightly)


def test_features_come_from_workers_where_results_have_none(environment: dict[str, str], tmp_path: Path) -> None:
    with patched_environment(environment), Client() as client:
        jobs = [client.job(job_id) for job_id in client.batch(BATCH).job_ids()]
        options = jobs[0].options.model_copy(update={"embeddings": False})
        plain = [job.model_copy(update={"job_id": f"plain-{job.job_id}", "options": options}) for job in jobs]
        s3 = boto3.client("s3")
        s3.put_object(Bucket="fit", Key="gone.png", Body=image_file(SCENES[0].image))
        plain.append(plain[0].model_copy(update={"job_id": "gone", "image": ImageRef(uri="s3://fit/gone.png")}))
        client.submit_many([job.model_copy(update={"batch_id": None}) for job in plain], batch_id="plain").wait(240)
        s3.delete_object(Bucket="fit", Key="gone.png")
    judged = ("--judged", str(judgements(tmp_path)), "--kind", "probe", "-o")
    (tmp_path / "gone.csv").write_text(f"image,mask_id,keep\ngone.png,{SCENES[0].masks[0].id},keep\n", "utf-8")
    asked = ("fit", "plain", *judged[:2], "--judged", "gone.csv", "--embed", "-o", "half.json")
    half = run_command(*asked, environment=environment, folder=tmp_path)
    assert (half.returncode, "no features could be had for 1 judged mask" in half.stderr) == (1, True), half.stderr
    assert "could not be scored again: image_not_found 1" in half.stderr
    assert not (tmp_path / "half.json").exists()
    bare = run_command("fit", "plain", *judged, "no.json", environment=environment, folder=tmp_path)
    assert (bare.returncode, "`fit --embed` has workers give them" in bare.stderr) == (2, True), bare.stderr
    embedded = run_command("fit", "plain", *judged, "a.json", "--embed", environment=environment, folder=tmp_path)
    assert embedded.returncode == 0, embedded.stderr
    masks = sum(len(scene.masks) for scene in SCENES)
    assert f"features: 0 of {masks} judged masks had them; for the others {len(SCENES)} jobs" in embedded.stderr
    assert f"0 from the cache, {masks} encoded" in embedded.stderr
    assert f"{masks + len(SCENES[0].masks)} masks cannot be decided" in " ".join(embedded.stdout.split())
    there = run_command("fit", BATCH, *judged, "b.json", "--embed", environment=environment, folder=tmp_path)
    assert (there.returncode, "scored again" in there.stderr) == (0, False), there.stderr
    with patched_environment(environment), Client() as client:
        by_job = {one.job_id: one for one in client.batch(BATCH).as_completed()}
    results = [by_job[job.job_id] for job in jobs]
    outcomes = [
        ImageOutcome(one.model_copy(update={"job_id": "sa"}), job.image.uri, None, [None] * len(one.components))
        for job, one in zip(jobs, results, strict=True)
    ]
    vector = results[0].components[0].embedding_vector()
    assert vector is not None
    tables = part_tables(outcomes, first_position=0, dimensions=len(vector))
    write_part(tables, part_names("sa", 0), tmp_path / "parts")
    parts = run_command("fit", "./parts", *judged, "c.json", environment=environment, folder=tmp_path)
    assert parts.returncode == 0, parts.stderr
    assert f" of {masks} masks in all" in " ".join(parts.stdout.split())
    assert "cannot be decided" not in parts.stdout
    heads = [Head.model_validate_json((tmp_path / name).read_bytes()) for name in ("a.json", "b.json", "c.json")]
    areas = [head.metrics["auroc"].value for head in heads]
    assert areas == pytest.approx([areas[0]] * 3, abs=0.01)
    unread = run_command("fit", "./nowhere", *judged, "d.json", environment=environment, folder=tmp_path)
    assert (unread.returncode, "There are no parts in ./nowhere/masks/" in unread.stderr) == (5, True), unread.stderr


def test_classes_that_a_head_names_are_labels_in_each_format(environment: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "kinds.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(f"scene-{number}.png", mask.id, mask.kind) for number, one in enumerate(SCENES) for mask in one.masks]
        csv.writer(file).writerows([("image", "mask_id", "class"), *rows])
    judged = ("fit", BATCH, "--judged", "kinds.csv", "--by-class", "--drop-class", "background", "-o", "kinds.json")
    fitted = run_command(*judged, environment=environment, folder=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    head = json.loads((tmp_path / "kinds.json").read_text("utf-8"))
    kept = [name for name in head["classes"] if name != "background"]
    asked = ("export", BATCH, "--head", "kinds.json", "--label-from", "head", "--min-score", "0.5")

    def export(*options: str) -> None:
        done = run_command(*asked, *options, environment=environment, folder=tmp_path)
        assert done.returncode == 0, done.stderr

    export("-o", "masks.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "masks.jsonl").read_text("utf-8").splitlines()]
    labels = [one["label"] for one in lines]
    assert labels == [one["head_class"] for one in lines]
    assert set(labels) <= set(kept)
    assert all(one["p_keep"] >= 0.5 for one in lines)
    export("-o", "masks.parquet")
    assert pq.read_table(tmp_path / "masks.parquet")["label"].to_pylist() == labels
    # All classes of the head, whichever the masks have, so that numbers mean the same in each export.
    export("-o", "coco.json")
    coco = json.loads((tmp_path / "coco.json").read_text("utf-8"))
    names = {entry["id"]: entry["name"] for entry in coco["categories"]}
    assert list(names.values()) == kept
    assert [names[one["category_id"]] for one in coco["annotations"]] == labels
    export("-f", "yolo", "-o", "yolo")
    assert list(yaml.safe_load((tmp_path / "yolo/data.yaml").read_text("utf-8"))["names"].values()) == kept
    export("-f", "label-studio", "-o", "tasks.json")
    results = [one for task in json.loads((tmp_path / "tasks.json").read_text("utf-8")) for one in task["predictions"]]
    brushes = [brush for one in results for brush in one["result"]]
    assert [brush["value"]["brushlabels"] for brush in brushes] == [[label] for label in labels]
    assert [brush["score"] for brush in brushes] == [one["p_keep"] for one in lines]
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump({**dict.fromkeys(kept, "thing"), "never": "thing"}))
    export("--classes", "classes.yaml", "-o", "things.jsonl")
    things = (tmp_path / "things.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["label"] for line in things} == {"thing"}
    unlabelled = run_command(
        "export", BATCH, "--label-from", "head", "-o", "none.json", environment=environment, folder=tmp_path
    )
    assert (unlabelled.returncode, "scored without a head" in unlabelled.stderr) == (2, True), unlabelled.stderr


def test_judgements_of_unknown_masks_are_said_and_refused_if_strict(
    environment: dict[str, str], tmp_path: Path
) -> None:
    judged = judgements(tmp_path)
    with judged.open("a", encoding="utf-8") as file:
        file.write("scene-0.png,nobody,keep\nnever.png,1,drop\n")
    asked = ("fit", BATCH, "--judged", str(judged), "-o", "head.json")
    refused = run_command(*asked, "--strict", environment=environment, folder=tmp_path)
    assert refused.returncode == 1, refused.stderr
    assert "1 judgement of masks that were not scored here: mask nobody of scene-0.png" in refused.stderr
    assert "1 judgement of images that were not scored here: mask 1 of never.png" in refused.stderr
    assert not (tmp_path / "head.json").exists()
    assert run_command(*asked, environment=environment, folder=tmp_path).returncode == 0
    unreachable = (*asked[:-1], "sure.json", "--precision", "0.999")
    wished = run_command(*unreachable, environment=environment, folder=tmp_path)
    assert (wished.returncode, "No threshold has a precision of 0.999" in wished.stderr) == (1, True), wished.stderr
    assert not (tmp_path / "sure.json").exists()
    assert run_command(*unreachable, "--force", environment=environment, folder=tmp_path).returncode == 0
    assert json.loads((tmp_path / "sure.json").read_text("utf-8"))["precision"] is None
