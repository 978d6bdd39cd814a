"""Exports of real results, each format read by its own library, to the masks' pixels."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy import ndimage

from command_line import run_command
from maskscore import Batch, Client, ClientSettings, Job, JobResult, ScoringOptions
from maskscore.cli.export import export_command
from maskscore.devstack import LocalServices
from maskscore.errors import InvalidDocumentError, OutputError
from maskscore.export import (
    Labelling,
    Ranking,
    Selection,
    write_coco,
    write_jsonl,
    write_label_studio,
    write_parquet,
    write_sa1b,
    write_yolo,
)
from maskscore.formats import read_dataset, read_masks
from maskscore.masks import encode_mask, spans_of
from maskscore.schema import RLE, Mask
from maskscore_worker.demo.scenes import draw_scene
from photo_dataset import MASKS

DEMO = ScoringOptions(prompts="demo")
POLYGONS = [[10.0, 10.0, 60.5, 12.0, 40.0, 55.0], [80.0, 80.0, 120.0, 80.0, 120.0, 110.0]]
Bits = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def environment(services: LocalServices, demo_worker: dict[str, str]) -> dict[str, str]:
    services.create_bucket("export")
    return demo_worker


@pytest.fixture(scope="module")
def client(environment: dict[str, str]) -> Iterator[Client]:
    settings = ClientSettings(
        redis_url=environment["MASKSCORE_REDIS_URL"], namespace=environment["MASKSCORE_NAMESPACE"]
    )
    with Client(settings) as client:
        yield client


def put(key: str, data: bytes) -> str:
    boto3.client("s3").put_object(Bucket="export", Key=key, Body=data)
    return f"s3://export/{key}"


def scene_masks(seed: int) -> tuple[bytes, list[dict[str, Any]], dict[str, Bits]]:
    """A drawn scene as PNG, its masks with the fields that SAM gives, and their pixels by id."""
    scene = draw_scene(seed)
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, "PNG")
    masks = [
        {
            "id": mask.id,
            "segmentation": encode_mask(mask.mask).model_dump(),
            "predicted_iou": 1 - n / 10,
            "stability_score": 0.9,
            "crop_box": [0, 0, *scene.image.shape[1::-1]],
        }
        for n, mask in enumerate(scene.masks)
    ]
    return buffer.getvalue(), masks, {mask.id: mask.mask.astype(np.uint8) for mask in scene.masks}


def drawn(polygons: list[list[float]], size: tuple[int, int]) -> Bits:
    pixels: Bits = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *size)))
    return pixels


Truth = dict[tuple[str, str], Bits]


@pytest.fixture(scope="module")
def batch(client: Client, services: LocalServices) -> tuple[Batch, Truth]:
    """Five jobs: inline RLE and a bad mask, a masks object of SA-1B's layout, polygons, parts, and one that fails."""
    truth: Truth = {}
    jobs: list[dict[str, Any]] = []
    image, masks, pixels = scene_masks(880_001)
    masks.append({"id": "bad", "segmentation": {"size": [3, 3], "counts": "nothing"}})
    uri = put("a/scene.png", image)
    jobs.append({"job_id": "inline", "image": uri, "masks": masks})
    truth |= {("inline", mask_id): bits for mask_id, bits in pixels.items()}
    other, masks, pixels = scene_masks(880_002)
    uri = put("b/scene.png", other)
    document = {"image": {"image_id": 77, "width": 1, "height": 1, "file_name": "x.jpg"}, "annotations": masks}
    jobs.append({"job_id": "object", "image": uri, "masks": put("b/scene.json", json.dumps(document).encode())})
    size = next(iter(pixels.values())).shape
    truth |= {("object", mask_id): bits for mask_id, bits in pixels.items()}
    polygons = [{"id": "7", "segmentation": POLYGONS, "category_id": 3, "iscrowd": 0, "note": {"by": "hand"}}]
    jobs.append({"job_id": "polygons", "image": uri, "masks": polygons, "result_uri": "s3://export/results/"})
    truth["polygons", "7"] = drawn(POLYGONS, size)
    split = ScoringOptions(prompts="demo", split_components=True, top_k=2, embeddings=True)
    jobs.append({"job_id": "parts", "image": uri, "masks": polygons, "options": split})
    jobs.append({"job_id": "fails", "image": "s3://export/nowhere.png", "masks": polygons})
    batch = client.submit_many([Job.model_validate({"options": DEMO, **job}) for job in jobs], batch_id="export-mixed")
    counts = batch.wait(timeout=120)
    assert (counts.succeeded, counts.failed) == (4, 1)
    return batch, truth


def results(client: Client, batch: Batch) -> dict[str, JobResult]:
    return {job_id: client.get(job_id) for job_id in batch.job_ids()}


def check_pixels(truth: Truth, rows: list[dict[str, Any]], decode: Any) -> None:
    """Hold every segmentation, box and area against the pixels that went in."""
    parts: dict[str, Bits] = {}
    for row in rows:
        bits = decode(row)
        assert bits.sum() == row["area"]
        ys, xs = np.nonzero(bits)
        box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert list(row["bbox"] if "bbox" in row else row["box"]) == box
        if row.get("part") is None:
            np.testing.assert_array_equal(bits, truth[row["job_id"], row["mask_id"]])
        else:
            parts[row["mask_id"]] = parts.get(row["mask_id"], 0 * bits) + bits
    np.testing.assert_array_equal(parts["7"], truth["polygons", "7"])


def test_json_lines(client: Client, batch: tuple[Batch, Truth], tmp_path: Path) -> None:
    jobs, truth = batch
    counts = write_jsonl(client, jobs, tmp_path / "masks.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "masks.jsonl").read_text().splitlines()]
    assert (counts.jobs, counts.kept, counts.masks) == (5, len(rows), len(rows) + 1)
    assert (counts.without_result, counts.filtered, counts.unwritable) == ({"image_not_found": 1}, {"skipped": 1}, 0)
    found = results(client, jobs)
    expected = [
        (job_id, c.id, c.part, c.s_pos, c.p_neg_sum, c.semantic_multiplier, c.upstream)
        for job_id, result in found.items()
        for c in result.components
        if not c.skipped
    ]
    names = ("job_id", "mask_id", "part", "s_pos", "p_neg_sum", "semantic_multiplier", "upstream")
    assert [tuple(row[name] for name in names) for row in rows] == expected
    first = rows[0]
    assert first.keys().isdisjoint({"label", "displaced"})
    assert first["rank_score"] == pytest.approx(first["semantic_multiplier"] * 1.0 * 0.9)
    assert found["inline"].prompts is not None
    assert first["prompts_digest"] == found["inline"].prompts.digest
    assert rows[-1]["top_k"][0].keys() == {"text", "group", "score"}

    def decode(row: dict[str, Any]) -> Bits:
        form, size = row["segmentation"], (row["image_height"], row["image_width"])
        return drawn(form, size) if isinstance(form, list) else coco_mask.decode(form)

    check_pixels(truth, rows, decode)
    assert next(row for row in rows if row["job_id"] == "polygons")["segmentation"] == POLYGONS


def test_parquet(client: Client, batch: tuple[Batch, Truth], tmp_path: Path) -> None:
    jobs, _ = batch
    lines, path = io.StringIO(), tmp_path / "masks.parquet"
    write_jsonl(client, jobs, lines, Selection(include_skipped=True))
    counts = write_parquet(client, jobs, path, Selection(include_skipped=True))
    expected = [json.loads(line) for line in lines.getvalue().splitlines()]
    table = pq.read_table(path)
    rows = table.to_pylist()
    assert (counts.kept, len(rows)) == (len(expected), len(expected))
    for row, line in zip(rows, expected, strict=True):
        for name in ("image", "job_id", "mask_id", "part", "area", "rank_score", "s_pos", "s_neg_text", "p_neg_sum"):
            assert row[name] == line[name]
        assert row["skipped"] == line["skipped"]
        assert (row["box_x"] is None) == (line["box"] is None)
        if line["box"] is not None:
            assert [row[f"box_{name}"] for name in ("x", "y", "width", "height")] == line["box"]
            assert json.loads(row["segmentation"]) == line["segmentation"]
        assert row["upstream_predicted_iou"] == line["upstream"].get("predicted_iou")
        assert row["upstream_category_id"] == line["upstream"].get("category_id")
        rest = {name: value for name, value in line["upstream"].items() if name in ("crop_box", "note")}
        assert json.loads(row["upstream"] or "{}") == rest
    result = results(client, jobs)["parts"]
    vector = result.components[0].embedding_vector()
    assert vector is not None
    embedding = next(row["embedding"] for row in rows if row["job_id"] == "parts")
    np.testing.assert_array_equal(np.frombuffer(embedding, "<f2"), vector)
    schema = pq.read_schema(path)
    assert {"label", "displaced"}.isdisjoint(schema.names)
    assert str(schema.field("upstream_predicted_iou").type) == "double"
    assert str(schema.field("upstream_iscrowd").type) == "int64"
    assert b"background" in schema.field("semantic_multiplier").metadata[b"description"]
    assert json.loads(schema.metadata[b"maskscore"])["columns"]["area"] == "Pixels in the mask."


def test_coco(client: Client, batch: tuple[Batch, Truth], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs, truth = batch
    counts = write_coco(client, jobs, tmp_path / "coco.json", Selection(include_skipped=True))
    assert counts.filtered == {"skipped": 1}
    coco = COCO(str(tmp_path / "coco.json"))
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) == counts.kept
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["scene.png", "x.jpg"]
    assert {image["uri"] for image in coco.dataset["images"]} == {"s3://export/a/scene.png", "s3://export/b/scene.png"}
    assert {category["id"]: category["name"] for category in coco.dataset["categories"]} == {3: "3", 4: "object"}
    assert {a["category_id"] for a in annotations if a["job_id"] in ("polygons", "parts")} == {3}
    check_pixels(truth, annotations, coco.annToMask)
    assert annotations[0]["predicted_iou"] == 1.0
    assert annotations[0]["p_pos_sum"] == results(client, jobs)["inline"].components[0].p_pos_sum


def test_sa1b(client: Client, batch: tuple[Batch, Truth], tmp_path: Path) -> None:
    jobs, truth = batch
    counts = write_sa1b(client, jobs, tmp_path / "sa1b")
    assert counts.complete is False
    paths = sorted((tmp_path / "sa1b").iterdir())
    documents = [json.loads(path.read_text()) for path in paths]
    assert len(paths) == 2
    assert [path.name[:5] for path in paths] == ["scene", "scene"]
    annotations = [annotation for document in documents for annotation in document["annotations"]]
    assert len(annotations) == counts.kept
    check_pixels(truth, annotations, lambda annotation: coco_mask.decode(annotation["segmentation"]))
    by_uri = {document["image"]["uri"]: document["image"] for document in documents}
    assert by_uri["s3://export/b/scene.png"]["file_name"] == "x.jpg"
    assert by_uri["s3://export/b/scene.png"]["height"] > 1
    assert annotations[0].keys() >= {"id", "segmentation", "bbox", "area", "predicted_iou", "crop_box", "rank_score"}
    again = client.submit_many(
        [Job.model_validate({"image": uri, "options": DEMO, "masks": put(f"again/{n}.json", path.read_bytes())})
         for n, (path, uri) in enumerate(zip(paths, [d["image"]["uri"] for d in documents], strict=True))]
    )  # fmt: skip
    scored = [component for result in again.as_completed(timeout=60) for component in result.components]
    assert len(scored) == counts.kept
    assert not any(component.skipped for component in scored)


def test_categories_fields_and_ids_that_other_tools_read(
    client: Client, batch: tuple[Batch, Truth], environment: dict[str, str], tmp_path: Path
) -> None:
    """Inline masks of a COCO file keep their categories' names, also scored again; others' files may not clash."""
    uri = "s3://export/a/scene.png"
    categories = [{"id": "18", "name": "dog"}, {"id": 2.0, "name": "cat"}]
    outline = [[20.0, 20.0, 60.0, 20.0, 60.0, 50.0, 20.0, 50.0]]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 18, "segmentation": outline, "label": "x", "confidence": 0.5},
        {"id": 2, "image_id": 1, "category_id": "2", "segmentation": outline, "polygon_convention": "opencv"},
        {"id": "third", "image_id": 1, "category_id": 18.0, "segmentation": outline},
    ]
    document = {"images": [{"id": 1, "file_name": "scene.png"}], "annotations": annotations, "categories": categories}
    (tmp_path / "coco.json").write_text(json.dumps(document))

    def submit(batch_id: str) -> None:
        arguments = ["--image", uri, "--masks", str(tmp_path / "coco.json"), "--prompts", "demo", "--wait"]
        ran = run_command("submit", *arguments, "--batch-id", batch_id, environment=environment)
        assert ran.returncode == 0, ran.stderr

    submit("named")
    again = client.rescore(client.batch("named"), prompts="demo", top_k=1, batch_id="named-again")
    assert again.wait(timeout=60).succeeded == 1
    for name in ("named", "named-again"):
        write_coco(client, client.batch(name), tmp_path / f"{name}.json")
        coco = COCO(str(tmp_path / f"{name}.json"))
        found = coco.loadAnns(coco.getAnnIds())
        assert [coco.cats[annotation["category_id"]]["name"] for annotation in found] == ["dog", "cat", "dog"]
        assert found[0]["upstream_label"] == "x"
        assert found[0]["upstream_confidence"] == 0.5
        assert found[0].keys().isdisjoint({"label", "confidence"})
        # An outline through the middles of pixels takes a row and a column more, also for who draws by COCO's rule.
        assert [coco.annToMask(annotation).sum() for annotation in found] == [40 * 30, 41 * 31, 40 * 30]
        assert [annotation["area"] for annotation in found] == [40 * 30, 41 * 31, 40 * 30]
        write_sa1b(client, client.batch(name), tmp_path / f"{name}-sa1b")
        (path,) = (tmp_path / f"{name}-sa1b").iterdir()
        ids = [(mask["id"], mask["mask_id"]) for mask in json.loads(path.read_text())["annotations"]]
        assert ids == [(1, "1"), (2, "2"), (3, "third")]
    document["categories"] = [{"id": 18, "name": "bird"}]
    (tmp_path / "coco.json").write_text(json.dumps(document))
    submit("named-else")
    both = [*client.batch("named").job_ids(), *client.batch("named-else").job_ids()]
    with pytest.raises(InvalidDocumentError, match="18 is 'dog' in one and 'bird' in another"):
        write_coco(client, both, tmp_path / "both.json")
    write_sa1b(client, batch[0], tmp_path / "parts")
    numbers = [
        mask["id"] for path in (tmp_path / "parts").iterdir() for mask in json.loads(path.read_text())["annotations"]
    ]
    assert all(isinstance(number, int) for number in numbers)


def ranked(client: Client, jobs: Batch, selection: Selection) -> list[dict[str, Any]]:
    lines = io.StringIO()
    counts = write_jsonl(client, jobs, lines, selection, segmentations=False)
    rows = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert counts.masks == counts.kept + counts.filtered.total()
    assert counts.kept == len(rows)
    return rows


def test_filters_and_order(client: Client, batch: tuple[Batch, Truth]) -> None:
    jobs, _ = batch
    every = ranked(client, jobs, Selection())
    assert every[0]["segmentation"] is None
    middle = sorted(row["p_neg_sum"] for row in every)[len(every) // 2]
    by_neg = ranked(client, jobs, Selection(max_neg=middle))
    assert by_neg == [row for row in every if row["p_neg_sum"] <= middle]
    assert 0 < len(by_neg) < len(every)
    area = sorted(row["area"] for row in every)[2]
    assert ranked(client, jobs, Selection(min_area=area)) == [row for row in every if row["area"] >= area]
    kept = ranked(client, jobs, Selection(at_least={"predicted_iou": 0.95}))
    assert kept == [row for row in every if row["upstream"].get("predicted_iou", 0) >= 0.95]
    good = ranked(client, jobs, Selection(min_multiplier=1.0))
    assert {row["semantic_multiplier"] for row in good} <= {1.0, 2.0}
    assert {row["semantic_multiplier"] for row in every} > {row["semantic_multiplier"] for row in good}
    ranking = Ranking({"p_pos_sum": 1, "area": 0.1})
    best = sorted(
        every,
        key=lambda row: -row["p_pos_sum"] * (row["area"] / row["image_width"] / row["image_height"]) ** 0.1,
    )
    names = [(row["job_id"], row["mask_id"], row["part"]) for row in best]

    def names_of(selection: Selection) -> list[tuple[Any, ...]]:
        return [(row["job_id"], row["mask_id"], row["part"]) for row in ranked(client, jobs, selection)]

    assert names_of(Selection(ranking=ranking, sort=True)) == names
    assert names_of(Selection(ranking=ranking, top=3)) == names[:3]
    with_skipped = names_of(Selection(ranking=ranking, sort=True, include_skipped=True))
    assert with_skipped == [*names, ("inline", "bad", None)]
    two = ranked(client, jobs, Selection(ranking=ranking, top_per_image=2))
    assert sorted(row["image"] for row in two) == ["s3://export/a/scene.png"] * 2 + ["s3://export/b/scene.png"] * 2
    best_of_b = [name for name, row in zip(names, best, strict=True) if row["image"].endswith("b/scene.png")][:2]
    assert {(r["job_id"], r["mask_id"], r["part"]) for r in two if r["image"].endswith("b/scene.png")} == {*best_of_b}


def run(
    environment: dict[str, str], folder: Path, *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return run_command("export", *arguments, environment=environment, folder=folder, stdin=stdin)


def test_the_command(client: Client, environment: dict[str, str], batch: tuple[Batch, Truth], tmp_path: Path) -> None:
    jobs, _ = batch
    for name in ("out.jsonl", "out.parquet", "out.json", "out"):
        done = run(environment, tmp_path, jobs.batch_id, "--wait", "-o", name, "--top", "4", "--json")
        assert done.returncode == 1, done.stderr
        counts = json.loads(done.stdout)
        assert (counts["kept"], counts["without_result"]) == (4, {"image_not_found": 1})
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 4
    assert len(COCO(str(tmp_path / "out.json")).anns) == 4
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.json", "out.jsonl", "out.parquet"]
    listed = run(environment, tmp_path, "--jobs", "-", "--rank-by", "p_pos_sum", "--sort", stdin="inline\npolygons\n")
    assert listed.returncode == 0, listed.stderr
    scores = [json.loads(line)["rank_score"] for line in listed.stdout.splitlines()]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) > 1
    assert "filtered out: skipped 1" in listed.stderr
    for option in ("--rank-by=multiplier,predicted_iuo", "--min=predicted_iuo=0.5"):
        misspelt = run(environment, tmp_path, "inline", option, "-o", "misspelt.jsonl")
        assert misspelt.returncode == 2, misspelt.stderr
        assert "No mask has a field 'predicted_iuo'; did you mean `predicted_iou`?" in misspelt.stderr
        assert not (tmp_path / "misspelt.jsonl").exists()
    assert "--max-neg" in run(environment, tmp_path, "inline", "--min", "p_neg_sum=0.5").stderr
    assert run(environment, tmp_path, "inline", "--rank-by", "multiplier,nothing=0").returncode == 0
    undecided = run(environment, tmp_path, "inline", "--rank-by", "p_keep", "--top", "1")
    assert (undecided.returncode, undecided.stdout) == (2, "")
    assert "have no p_keep: they were scored without a head" in undecided.stderr
    stored = run(environment, tmp_path, "inline", "-o", "s3://export/out/masks.parquet")
    assert stored.returncode == 0, stored.stderr
    body = boto3.client("s3").get_object(Bucket="export", Key="out/masks.parquet")["Body"].read()
    assert pq.read_table(io.BytesIO(body)).num_rows == len(client.get("inline").components) - 1
    for wrong in (
        ["nobody"],
        ["inline", "-o", "out"],
        ["inline", "-o", "nowhere/out.json"],
        ["inline", "--rank-by", "area=-1"],
        ["inline", "-o", "s3://nowhere.jsonl"],
    ):
        refused = run(environment, tmp_path, *wrong)
        assert refused.returncode == (5 if wrong == ["nobody"] else 2), (wrong, refused.stderr)
        assert refused.stdout == ""
        assert "Traceback" not in refused.stderr


def test_labels(client: Client, environment: dict[str, str], batch: tuple[Batch, Truth], tmp_path: Path) -> None:
    jobs, _ = batch
    every = ranked(client, jobs, Selection())
    prompts = sorted({row["s_pos_text"] for row in every})
    middle = sorted(row["s_pos"] for row in every)[len(every) // 2]
    labelled = ranked(client, jobs, Selection(labelling=Labelling(min_score=middle)))
    good = [row for row in every if row["s_pos"] >= middle]
    assert [{**row, "label": None} for row in labelled] == [{**row, "label": None} for row in good]
    assert [row["label"] for row in labelled] == [row["s_pos_text"] for row in good]

    # Several prompts are one class; the classes' order is that of the file, and one has no mask.
    of_category = {row["s_pos_text"] for row in every if "category_id" in row["upstream"]}
    unwanted = next(prompt for prompt in prompts if prompt not in of_category)
    classes: dict[str, str | None] = {"none like it": "unseen", **dict.fromkeys(prompts, "shape"), unwanted: None}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    options = ["--label-from", "s_pos_text", "--classes", "classes.json", "--include-skipped"]
    left = [row for row in every if row["s_pos_text"] != unwanted]
    ended = [jobs.batch_id, *options, "--json"]
    out = json.loads(run(environment, tmp_path, *ended, "-o", "coco.json").stdout)
    assert out["labels"] == {"shape": len(left)}
    assert out["unused_prompts"] == ["none like it"]
    assert out["filtered"] == {"classes": len(every) - len(left), "skipped": 1}
    coco = COCO(str(tmp_path / "coco.json"))
    assert {number: entry["name"] for number, entry in coco.cats.items()} == {1: "unseen", 2: "shape"}
    assert {annotation["category_id"] for annotation in coco.anns.values()} == {2}
    upstream = [annotation for annotation in coco.anns.values() if annotation["mask_id"] == "7"]
    assert {annotation["upstream_category_id"] for annotation in upstream} == {3}
    run(environment, tmp_path, *ended, "-o", "masks.parquet")
    labels = pq.read_table(tmp_path / "masks.parquet", columns=["label", "skipped"]).to_pylist()
    assert [row["label"] for row in labels] == [None if row["skipped"] else "shape" for row in labels]
    assert len(labels) == len(left) + 1

    (tmp_path / "few.yaml").write_text(f"{prompts[0][:-1]}: shape\n")
    refused = run(environment, tmp_path, jobs.batch_id, *options[:2], "--classes", "few.yaml", "-o", "few.json")
    assert refused.returncode == 2
    assert f"no entry for {len(prompts)} prompts" in refused.stderr
    assert repr(prompts[0]) in refused.stderr
    assert f"did you mean `{prompts[0][:-1]}`?" in refused.stderr
    assert not (tmp_path / "few.json").exists()


def test_copies_and_parts(client: Client, environment: dict[str, str], services: LocalServices, tmp_path: Path) -> None:
    image, masks, pixels = scene_masks(880_005)
    whole = max(masks, key=lambda mask: int(pixels[mask["id"]].sum()))
    half = pixels[whole["id"]].copy()
    half[: int(np.nonzero(half)[0].mean())] = 0
    size = half.shape
    outline = {"id": "outline", "segmentation": POLYGONS, "predicted_iou": 0.3, "stability_score": 0.9}
    copies = [
        {**whole, "id": "copy", "predicted_iou": 0.1},
        {**whole, "id": "half", "segmentation": encode_mask(half).model_dump()},
        outline,
        {**outline, "id": "filled", "segmentation": encode_mask(drawn(POLYGONS, size)).model_dump()},
    ]
    job = {"job_id": "copies", "image": put("copies.png", image), "masks": [*masks, *copies], "options": DEMO}
    client.submit(Job.model_validate(job)).wait(timeout=60)

    def exported(*options: str) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
        done = run(environment, tmp_path, "copies", *options, "-o", "copies.jsonl", "--json")
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in (tmp_path / "copies.jsonl").read_text().splitlines()]
        return {row["mask_id"]: row for row in rows}, json.loads(done.stdout)["filtered"]

    every, _ = exported()
    kept, filtered = exported("--nms", "0.9")
    # The skipped mask's scores are the same, so the better upstream quality wins; of equals, the first.
    assert every.keys() - kept.keys() == {"copy", "filled"}
    assert filtered == {"nms": 2}
    entry = {"job_id": "copies", "part": None, "rule": "nms", "overlap": 1.0}
    assert kept[whole["id"]]["displaced"] == [{**entry, "mask_id": "copy"}]
    assert kept["outline"]["displaced"] == [{**entry, "mask_id": "filled"}]
    assert kept["half"]["displaced"] == []
    assert {name: {**row, "displaced": 0} for name, row in kept.items()} == {
        name: {**row, "displaced": 0} for name, row in every.items() if name in kept
    }
    parts, filtered = exported("--nms", "0.9", "--drop-parts", "0.95")
    assert {"copy", "filled", "half"} <= every.keys() - parts.keys()
    found = {entry["mask_id"]: entry for row in parts.values() for entry in row["displaced"]}
    assert found["half"] == {"job_id": "copies", "mask_id": "half", "part": None, "rule": "drop-parts", "overlap": 1.0}
    assert len(found) == sum(filtered.values()) == len(every) - len(parts)
    wholes, _ = exported("--drop-wholes", "0.95")
    assert "half" in wholes
    assert whole["id"] not in wholes
    best, filtered = exported("--nms", "0.9", "--top", "2")
    assert filtered == {"nms": 2, "top": len(every) - 4}
    assert list(best) == sorted(kept, key=lambda name: -kept[name]["rank_score"])[:2]

    selection = Selection(nms=0.9)
    counts = write_parquet(client, ["copies"], tmp_path / "copies.parquet", selection)
    table = pq.read_table(tmp_path / "copies.parquet")
    assert {row["mask_id"]: row["displaced"] for row in table.to_pylist()} == {
        name: row["displaced"] for name, row in kept.items()
    }
    assert "nms 2" in str(counts)
    write_coco(client, ["copies"], tmp_path / "copies.json", selection)
    annotations = json.loads((tmp_path / "copies.json").read_text())["annotations"]
    assert {entry["mask_id"]: entry["displaced"] for entry in annotations} == {
        name: row["displaced"] for name, row in kept.items()
    }


def pixels_of(mask: object, size: tuple[int, int]) -> Bits:
    """What a mask of our own readers takes of an image."""
    assert isinstance(mask, Mask)
    flat = np.zeros(size[0] * size[1], np.uint8)
    for start, stop in spans_of(mask, *size):
        flat[start:stop] = 1
    return flat.reshape(size[::-1]).T


def test_yolo(client: Client, environment: dict[str, str], batch: tuple[Batch, Truth], tmp_path: Path) -> None:
    jobs, _ = batch
    lines = io.StringIO()
    write_jsonl(client, jobs, lines, Selection(labelling=Labelling()))
    rows = [json.loads(line) for line in lines.getvalue().splitlines()]
    done = run(environment, tmp_path, jobs.batch_id, "-f", "yolo", "-o", "yolo", "--label-from", "s_pos_text")
    assert done.returncode == 1, done.stderr
    assert sorted(path.name for path in (tmp_path / "yolo").iterdir()) == ["data.yaml", "labels"]
    names = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())["names"]
    assert names == dict(enumerate(sorted({row["label"] for row in rows})))
    files = sorted((tmp_path / "yolo/labels").iterdir())
    assert [path.name[:5] for path in files] == ["scene", "scene"]
    assert all(path.suffix == ".txt" for path in files)
    exact = 0
    for image in ("a", "b"):
        (path,) = (path for path in files if (path.stem == "scene") == (image == "a"))
        own = [row for row in rows if row["image"] == f"s3://export/{image}/scene.png"]
        size = (own[0]["image_height"], own[0]["image_width"])
        found = read_masks(path.read_bytes(), size=size, file_name=path.name)
        assert len(found) == len(own)
        for mask, row in zip(found, own, strict=True):
            assert isinstance(mask, Mask)
            assert names[mask.upstream["class"]] == row["label"]
            drawn_back = pixels_of(mask, size)
            form = row["segmentation"]
            bits = drawn(form, size) if isinstance(form, list) else coco_mask.decode(form)
            assert (drawn_back >= bits).all()
            if ndimage.label(bits, np.ones((3, 3)))[1] == 1:
                np.testing.assert_array_equal(drawn_back, bits)
                exact += 1
    assert exact > 4
    # Without labels, the classes are the upstream tool's categories.
    write_yolo(client, jobs, "s3://export/yolo/")
    stored = {entry["Key"] for entry in boto3.client("s3").list_objects_v2(Bucket="export", Prefix="yolo/")["Contents"]}
    assert stored == {"yolo/data.yaml", *(f"yolo/labels/{path.name}" for path in files)}
    body = boto3.client("s3").get_object(Bucket="export", Key="yolo/data.yaml")["Body"].read()
    assert yaml.safe_load(body)["names"] == {0: "3", 1: "object"}


def test_label_studio(client: Client, environment: dict[str, str], batch: tuple[Batch, Truth], tmp_path: Path) -> None:
    jobs, _ = batch
    options = ["-f", "label-studio", "-o", "tasks.json", "--label-from", "s_pos_text"]
    assert run(environment, tmp_path, jobs.batch_id, *options).returncode == 1
    lines = io.StringIO()
    write_jsonl(client, jobs, lines)
    rows = [json.loads(line) for line in lines.getvalue().splitlines()]
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"] for task in tasks] == [{"image": f"s3://export/{name}/scene.png"} for name in ("a", "b")]
    assert [prediction["model_version"][:10] for task in tasks for prediction in task["predictions"]] == [
        "maskscore "
    ] * 2
    for image, task in zip(read_dataset(tmp_path / "tasks.json"), tasks, strict=True):
        own = [row for row in rows if row["image"] == image.image]
        assert len(own) == len(image.masks)
        size = (own[0]["image_height"], own[0]["image_width"])
        assert image.size == size
        assert task["predictions"][0]["score"] == pytest.approx(sum(row["s_pos"] for row in own) / len(own))
        for mask, row in zip(image.masks, own, strict=True):
            assert isinstance(mask, Mask)
            assert isinstance(mask.segmentation, RLE)
            form = row["segmentation"]
            bits = drawn(form, size) if isinstance(form, list) else coco_mask.decode(form)
            np.testing.assert_array_equal(pixels_of(mask, size), bits)
            assert (mask.upstream["labels"], mask.upstream["score"]) == ([row["s_pos_text"]], row["s_pos"])
            assert mask.id == row["mask_id"] + ("" if row["part"] is None else f".{row['part']}")
    write_label_studio(client, ["fails"], tmp_path / "none.json")
    assert json.loads((tmp_path / "none.json").read_text()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("x -o x.txt", "--format"),
        ("x -f coco", "-o NAME"),
        ("x --json", "-o NAME"),
        ("x --min area", "'area' is not NAME=NUMBER"),
        ("x --rank-by area=large", "'area=large' is not NAME=NUMBER"),
        ("x -o x.json --no-segmentations", "--no-segmentations"),
        ("x --min-score 0.5", "--label-from"),
        ("x --drop-parts 0.9 --drop-wholes 0.9", "give one of them"),
        ("x --nms 0.9 --no-segmentations", "leave out --no-segmentations"),
        ("x --nms 0", "0<x<=1"),
        ("", "no batch and no job"),
    ],
)
def test_wrong_usage_is_said(environment: dict[str, str], arguments: str, said: str) -> None:
    refused = CliRunner(env=environment).invoke(export_command, arguments.split())
    assert refused.exit_code == 2
    assert said in refused.output


def test_what_is_gone_is_counted(client: Client, services: LocalServices, tmp_path: Path) -> None:
    image, masks, _ = scene_masks(880_003)
    uri = put("gone.png", image)
    documents = [put(f"gone-{n}.json", json.dumps(masks).encode()) for n in range(3)]
    pinned = boto3.client("s3").head_object(Bucket="export", Key="gone-2.json")["ETag"]
    refs = [{"uri": documents[0]}, {"uri": documents[1]}, {"uri": documents[2], "etag": pinned}]
    jobs: list[dict[str, Any]] = [
        {"job_id": f"gone-{n}", "image": uri, "masks": ref, "options": DEMO} for n, ref in enumerate(refs)
    ]
    elsewhere = {"masks": documents[0], "result_uri": "s3://export/gone.json"}
    jobs.append({"job_id": "gone-result", "image": uri, "options": DEMO, **elsewhere})
    submitted = client.submit_many([Job.model_validate(job) for job in jobs])
    submitted.wait(timeout=60)
    storage = boto3.client("s3")
    storage.delete_object(Bucket="export", Key="gone-0.json")
    shifted = [{**mask, "segmentation": {**mask["segmentation"], "counts": "0"}} for mask in masks]
    put("gone-1.json", json.dumps(shifted).encode())
    put("gone-2.json", json.dumps(masks[::-1]).encode())
    storage.delete_object(Bucket="export", Key="gone.json")
    ids = [*submitted.job_ids(), "never-there"]
    counts = write_jsonl(client, ids, tmp_path / "gone.jsonl")
    assert counts.without_result == {"result_unavailable": 1, "result_expired": 1}
    assert (counts.kept, counts.unwritable) == (3 * len(masks), 3 * len(masks))
    assert "gone-0.json" in str(counts.example)
    rows = [json.loads(line) for line in (tmp_path / "gone.jsonl").read_text().splitlines()]
    assert all(row["segmentation"] is None and row["s_pos"] is not None for row in rows)
    counts = write_coco(client, ids, tmp_path / "gone.json")
    assert (counts.kept, counts.unwritable) == (0, 3 * len(masks))
    assert json.loads((tmp_path / "gone.json").read_text())["annotations"] == []


@pytest.mark.parametrize("name", ["half.jsonl", "half.parquet", "half.json", "half"])
def test_an_interrupted_export_leaves_nothing(
    client: Client, batch: tuple[Batch, Truth], tmp_path: Path, name: str
) -> None:
    jobs, _ = batch
    write = {".jsonl": write_jsonl, ".parquet": write_parquet, ".json": write_coco}.get(Path(name).suffix, write_sa1b)
    if name != "half":
        (tmp_path / name).write_text("what was there")

    def ids() -> Iterator[str]:
        yield from list(jobs.job_ids()) * 10
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(client, ids(), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ([] if name == "half" else [name])
    if name != "half":
        assert (tmp_path / name).read_text() == "what was there"


def test_ctrl_c_leaves_nothing(environment: dict[str, str], batch: tuple[Batch, Truth], tmp_path: Path) -> None:
    """It comes while a store that does not answer is asked for masks, half of the jobs being read."""
    (tmp_path / "temporary").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        surroundings = {"AWS_ENDPOINT_URL": address, "AWS_ENDPOINT_URL_S3": address, "TMPDIR": "temporary"}
        process = subprocess.Popen(
            [sys.executable, "-m", "maskscore", "export", "inline", "object", "-o", "out.json"],
            env={**os.environ, **environment, **surroundings},
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        asking, _ = silent.accept()
        assert len(list((tmp_path / "temporary").iterdir())) == 1
        process.send_signal(signal.SIGINT)
        # Far less than it takes until the store's answer is given up.
        _, said = process.communicate(timeout=45)
        asking.close()
    assert (process.returncode, said.strip()) == (130, "interrupted")
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(
    client: Client, batch: tuple[Batch, Truth], tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="no empty folder"):
        write_sa1b(client, batch[0], tmp_path)
    with pytest.raises(OutputError, match="is a folder"):
        write_coco(client, batch[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_photos_come_back_with_their_categories_and_every_pixel(
    client: Client, photo_dataset: Path, tmp_path: Path
) -> None:
    truth = COCO(str(photo_dataset / "instances.json"))
    jobs = [
        Job.model_validate(
            {
                "image": (photo_dataset / "images" / image["file_name"]).as_uri(),
                "masks": {"uri": (photo_dataset / "instances.json").as_uri(), "image_id": image["id"]},
                "options": DEMO,
            }
        )
        for image in truth.dataset["images"]
    ]
    batch = client.submit_many(jobs)
    batch.wait(timeout=120)
    counts = write_coco(client, batch, tmp_path / "scored.json")
    assert counts.complete
    scored = COCO(str(tmp_path / "scored.json"))
    assert len(scored.anns) == len(truth.anns) == MASKS
    for annotation in scored.anns.values():
        original = truth.anns[int(annotation["mask_id"])]
        assert annotation["image_id"] == original["image_id"]
        assert annotation["category_id"] == original["category_id"]
        assert annotation["iscrowd"] == original["iscrowd"]
        np.testing.assert_array_equal(scored.annToMask(annotation), truth.annToMask(original))
        if isinstance(original["segmentation"], list):
            assert annotation["segmentation"] == original["segmentation"]
    names = {category["id"]: category["name"] for category in truth.dataset["categories"]}
    assert all(category["name"] == names[category["id"]] for category in scored.dataset["categories"])
    assert {number: image["coco_url"] for number, image in scored.imgs.items()} == {
        number: image["coco_url"] for number, image in truth.imgs.items()
    }
    assert scored.dataset["licenses"] == truth.dataset["licenses"]
    write_sa1b(client, batch, tmp_path / "sa1b")
    for path in photo_dataset.joinpath("sa1b").glob("*.json"):
        theirs = {entry["id"]: entry for entry in json.loads(path.read_text())["annotations"]}
        ours = json.loads((tmp_path / "sa1b" / path.name).read_text())
        assert ours["image"]["image_id"] == int(path.stem)
        for entry in ours["annotations"]:
            assert entry["area"] == theirs[entry["id"]]["area"]
            np.testing.assert_array_equal(
                coco_mask.decode(entry["segmentation"]), coco_mask.decode(theirs[entry["id"]]["segmentation"])
            )


def test_masks_need_no_extra_for_json_lines(environment: dict[str, str], tmp_path: Path) -> None:
    """Without pyarrow, Parquet says what to install, and the other formats work."""
    code = (
        "import sys; sys.modules['pyarrow'] = None; sys.argv = ['maskscore', 'export', 'x', '-o', sys.argv[1]]\n"
        "from maskscore.cli import main; main()"
    )
    for name, expected, status in (
        ("x.parquet", "maskscore[export]", 2),
        ("x.jsonl", "no batch and no job x", 5),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, name],
            env={**os.environ, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert expected in done.stderr


def test_jobs_that_have_not_ended_are_counted(client: Client, services: LocalServices, tmp_path: Path) -> None:
    settings = ClientSettings(redis_url=services.redis.url, namespace=f"idle-{uuid.uuid4().hex[:8]}")
    with Client(settings) as idle:
        handle = idle.submit(Job.model_validate({"image": "s3://export/a.png", "masks": [], "options": DEMO}))
        counts = write_jsonl(idle, [handle.job_id], tmp_path / "none.jsonl", Selection(top=5))
        write_parquet(idle, [handle.job_id], tmp_path / "none.parquet")
        write_sa1b(idle, [handle.job_id], tmp_path / "none")
    assert (counts.kept, counts.complete, counts.without_result) == (0, False, {"not_ended": 1})
    assert (tmp_path / "none.jsonl").read_text() == ""
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    assert list((tmp_path / "none").iterdir()) == []
