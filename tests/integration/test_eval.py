"""``maskscore eval`` with a real worker: drawn scenes, whose classes the demo model knows, and photos."""

from __future__ import annotations

import json
import subprocess
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from PIL import Image

from command_line import run_command
from maskscore.devstack import LocalServices
from maskscore.heads import write_head
from maskscore.ledger import Ledger
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from maskscore.schema import Head, PlattModel
from maskscore.storage import Objects
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import BACKGROUNDS, FRAGMENT, draw_scene
from worker_process import start_worker

DEMO = load_builtin("demo")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes as a COCO file, once with their backgrounds and fragments and once with the objects alone."""
    folder = tmp_path_factory.mktemp("scenes")
    names = sorted({*(text.split(" ", 1)[1] for text in DEMO.positive), *BACKGROUNDS, FRAGMENT})
    ids = {name: number for number, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(6):
        scene = draw_scene(660_001 + number)
        Image.fromarray(scene.image).save(folder / f"{number}.png")
        height, width = scene.image.shape[:2]
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        for mask in scene.masks:
            name = mask.label.split(" ", 1)[1] if mask.kind == "object" else mask.label
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": ids[name],
                    "segmentation": encode_mask(mask.mask).model_dump(),
                    "kind": mask.kind,
                }
            )
    categories = [{"id": number, "name": name, "isthing": int(name not in BACKGROUNDS)} for name, number in ids.items()]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "all.json").write_text(json.dumps(whole))
    objects = [annotation for annotation in annotations if annotation["kind"] == "object"]
    (folder / "objects.json").write_text(json.dumps({**whole, "annotations": objects}))
    return folder


@pytest.fixture(scope="module")
def environment(services: LocalServices, demo_worker: dict[str, str], scenes: Path) -> dict[str, str]:
    """What a command needs to reach a worker that may read the scenes, here and in a bucket."""
    services.create_bucket("eval")
    objects = Objects(buckets=None, result_buckets=None)
    for path in scenes.glob("*.png"):
        objects.write(f"s3://eval/scenes/{path.name}", path.read_bytes(), content_type="image/png")
    objects.close()
    return demo_worker


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("eval", *arguments, environment=environment)


def measurements(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def test_the_demo_model_knows_its_scenes(environment: dict[str, str], scenes: Path, tmp_path: Path) -> None:
    svg = tmp_path / "eval.svg"
    asked = ["--images", "s3://eval/scenes/", "--prompts", "demo", "--negatives", FRAGMENT, "--json", "--svg", str(svg)]
    answer = measurements(run(environment, str(scenes / "all.json"), *asked, "--view", "original+raw_crop/context"))
    assert (answer["images"], answer["negatives"], answer["unmapped"]) == (6, "of the file", {"demo": []})
    (entry,) = answer["figures"]
    assert entry["view"] == "original+raw_crop/context"
    assert entry["ranked"] == entry["objects"] > 12
    treated = measurements(run(environment, str(scenes / "all.json"), *asked))["figures"]
    assert [entry["view"] for entry in treated] == ["original", "raw_crop", "soft_mask", "blur", "mean_fill"]
    kinds = [annotation["kind"] for annotation in json.loads((scenes / "all.json").read_text())["annotations"]]
    for entry in treated:
        assert (entry["skipped"], entry["failed"]) == ({}, {})
        assert entry["objects"] == kinds.count("object")
        assert entry["backgrounds"] == kinds.count("background") + kinds.count("fragment")
        assert entry["digest"] == DEMO.digest
    # What it was trained on, it knows.
    for entry in treated[:3]:
        assert entry["top_1"]["value"] > 0.8
        assert entry["top_5"]["value"] >= entry["top_1"]["value"]
        assert entry["auroc"]["p_pos_sum"]["all"]["value"] > 0.8
        low, high = entry["auroc"]["p_pos_sum"]["all"]["low"], entry["auroc"]["p_pos_sum"]["all"]["high"]
        assert low < entry["auroc"]["p_pos_sum"]["all"]["value"] <= high
    # Two dots per view and the points of its curves.
    assert len(ET.parse(svg).findall(".//{http://www.w3.org/2000/svg}circle")) > 10


def test_a_table_of_80_columns_with_sampled_negatives_and_two_prompt_sets(
    environment: dict[str, str], scenes: Path, tmp_path: Path
) -> None:
    templated = {**DEMO.model_dump(mode="json"), "name": "sentences", "templates": ["{}", "a photo of {}"]}
    (tmp_path / "own.yaml").write_text(json.dumps(templated))
    ran = run(
        environment,
        *(str(scenes / "objects.json"), "--images", str(scenes), "--prompts", "demo"),
        *("--prompts", str(tmp_path / "own.yaml"), "--treatment", "original", "--treatment", "blur"),
        *("--frame", "cut", "--frame", "context", "--limit", "3", "--context", "0.5"),
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("3 images: ")
    assert "fragments (sampled)" in lines[0]
    end = next(number for number, line in enumerate(lines) if line.startswith("top-1"))
    rows = [line.split() for line in lines[:end] if line.startswith(("original", "blur"))]
    views = ["original", "blur", "original/context=0.5", "blur/context=0.5"]
    assert [row[:2] for row in rows] == [[view, name] for name in ("demo", "sentences") for view in views]
    # Two shares, and five measurements of areas.
    assert {len(row) for row in rows} == {9}
    # A half of a shape is what the demo model was trained to call a part.
    assert float(rows[0][7]) > 0.7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "."], "coco.json"),
        (["--images", ".", "--view", "smear"], "The view 'smear'"),
        (["--images", ".", "--view", "original+original"], "more than once"),
        (["--images", ".", "--prompts", "mine"], "no prompt set 'mine'"),
        (["--images", ".", "--prompts", "mine.yaml"], "mine.yaml cannot be read: there is no such file"),
        (["--images", ".", "--negatives", "tree"], "no category 'tree'"),
        ([], "--images"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    environment: dict[str, str], scenes: Path, arguments: list[str], words: str
) -> None:
    file = str(scenes / ("coco.json" if words == "coco.json" else "objects.json"))
    ran = run(environment, file, *arguments)
    assert (ran.returncode, "Traceback" in ran.stderr) == (2, False), ran.stderr
    assert words in ran.stderr


def test_images_that_the_workers_cannot_read_are_counted(environment: dict[str, str], scenes: Path) -> None:
    file = str(scenes / "objects.json")
    ran = run(environment, file, "--images", "s3://eval/elsewhere", "--prompts", "demo", "--treatment", "original")
    assert ran.returncode == 1
    assert "jobs failed: image_not_found 6" in ran.stdout


def test_what_is_not_awaited_is_cancelled(services: LocalServices, scenes: Path) -> None:
    namespace = f"eval-alone-{uuid.uuid4().hex[:8]}"  # where no worker is
    ran = run(
        {**services.environment(), "MASKSCORE_NAMESPACE": namespace},
        *(str(scenes / "objects.json"), "--images", "s3://eval/scenes", "--treatment", "blur", "--timeout", "0.5"),
    )
    assert ran.returncode == 3
    assert "its jobs are cancelled" in ran.stderr
    with redis.Redis.from_url(services.redis.url) as connection:
        assert Ledger(connection, namespace=namespace, ttl_s=60).backlog().waiting == 0


@pytest.fixture(scope="module")
def second_model(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker that serves the same weights under another name."""
    variables = {
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_MODEL_NAME": "second",
        "MASKSCORE_BUCKETS": "*",
        "MASKSCORE_FILE_ROOTS": str(tmp_path_factory.getbasetemp()),
    }
    with start_worker({**environment, **variables}):
        yield


@pytest.mark.usefixtures("second_model")
def test_models_are_compared_on_the_same_masks(environment: dict[str, str], scenes: Path) -> None:
    asked = [str(scenes / "objects.json"), "--images", str(scenes), "--prompts", "demo", "--view", "original"]
    both = ["--model", "default", "--model", "second", "--price-per-hour", "2", "--price-per-hour", "second=1"]
    answer = measurements(run(environment, *asked, *both, "--json"))
    first, second = answer["figures"]
    assert [first["model"], second["model"]] == ["default", "second"]
    assert first["weights_digests"] == second["weights_digests"]
    assert first["top_1"] == second["top_1"]
    (difference,) = answer["differences"]
    assert difference["auroc"]["value"] == pytest.approx(0, abs=0.01)
    assert difference["masks"] == first["objects"] + first["backgrounds"] + first["fragments"]
    for entry, price in ((first, 2), (second, 1)):
        speed = entry["speed"]
        assert speed["workers"] == 1
        # Another test's job may be under way.
        if speed["unusable"] is None:
            assert speed["cost_per_million"] == pytest.approx(price / 3600 / speed["masks_per_s"] * 1e6)
    shown = run(environment, *asked, *both, "--details", "--limit", "3")
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, (line for line in shown.stdout.splitlines() if "no speed" not in line))) <= 80
    assert "per 1M" in shown.stdout
    assert "Differences from default" in shown.stdout
    unserved = run(environment, *asked, "--model", "second", "--model", "third")
    assert unserved.returncode == 2
    assert "No live worker serves the model 'third'" in unserved.stderr
    waited = run(environment, *asked, "--model", "third", "--wait-for-workers", "--timeout", "0.1")
    assert (waited.returncode, "No worker came within 0.1 s" in waited.stderr) == (3, True), waited.stderr
    for wrong in ("third=1", "0", "free"):
        ran = run(environment, *asked, "--price-per-hour", wrong)
        assert (ran.returncode, "--price-per-hour" in ran.stderr) == (2, True), ran.stderr


def test_heads_are_compared_on_the_same_masks(environment: dict[str, str], scenes: Path, tmp_path: Path) -> None:
    asked = [str(scenes / "objects.json"), "--images", str(scenes), "--prompts", "demo"]
    (scored,) = measurements(run(environment, *asked, "--view", "original", "--json"))["figures"]
    heads: list[str] = []
    for name, score, slope in (("sums", "p_pos_sum", 8.0), ("best", "s_pos - s_neg", 4.0)):
        head = Head(
            name=name,
            model=PlattModel(score=score, slope=slope, intercept=-slope / 2),
            threshold=0.5,
            weights_digest=scored["weights_digests"][0],
            views="original",
            method="softmax",
            prompts_digest=DEMO.digest,
        )
        write_head(head, tmp_path / f"{name}.json")
        heads += ["--head", str(tmp_path / f"{name}.json")]
    # The view is the heads'.
    answer = measurements(run(environment, *asked, *heads, "--json"))
    (entry,) = answer["figures"]
    assert entry["view"] == "original"
    assert entry["main_scores"] == ["p_pos_sum", "p_keep sums", "p_keep best"]
    # A rising curve ranks as its score does.
    for group, interval in scored["auroc"]["p_pos_sum"].items():
        assert entry["auroc"]["p_pos_sum"][group] == pytest.approx(interval)
        assert entry["auroc"]["p_keep sums"][group] == pytest.approx(interval)
    assert entry["scores"]["p_keep sums"]["decision"]["threshold"] == 0.5
    assert [one["baseline"]["score"] for one in answer["differences"]] == ["p_keep sums"] * 2
    assert answer["differences"][0]["auroc"]["value"] == pytest.approx(0)
    shown = run(environment, *asked, *heads)
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "Differences from p_keep sums" in " ".join(shown.stdout.split())
    elsewhere = run(environment, *asked, *heads, "--view", "blur")
    assert elsewhere.returncode == 2
    assert "was fitted to the view original" in elsewhere.stderr


def test_scores_that_are_there_have_the_figures_of_an_evaluation(
    environment: dict[str, str], scenes: Path, tmp_path: Path
) -> None:
    file, prompts = str(scenes / "all.json"), ["--prompts", "demo"]
    place, batch = f"s3://eval/{uuid.uuid4().hex[:8]}/", f"eval-{uuid.uuid4().hex[:8]}"
    for output in (["-o", place], ["--batch-id", batch]):
        asked = ["s3://eval/scenes/", "--masks", file, "--top-k", "100", *prompts, *output]
        done = run_command("run", *asked, environment=environment)
        assert done.returncode == 0, done.stderr
    answer = measurements(run(environment, file, "--scores", place, "--scores", batch, "--json"))
    asked = ["--images", "s3://eval/scenes/", "--view", "original", *prompts, "--json"]
    (wanted,) = measurements(run(environment, file, *asked))["figures"]
    same = ("view", "digest", "weights_digests", "objects", "backgrounds", "ranked", "skipped", "failed", "main_scores")
    for entry in answer["figures"]:
        assert {name: entry[name] for name in same} == {name: wanted[name] for name in same}
        assert entry["top_1"] == pytest.approx(wanted["top_1"])
        assert entry["top_5"] == pytest.approx(wanted["top_5"])
        for score, areas in wanted["auroc"].items():
            for group, interval in areas.items():
                close = None if interval is None else pytest.approx(interval, abs=0.01)
                assert entry["auroc"][score][group] == close
        assert entry["classes"].keys() == wanted["classes"].keys()
    (difference,) = answer["differences"]
    assert difference["masks"] == wanted["objects"] + wanted["backgrounds"]
    assert difference["auroc"]["value"] == pytest.approx(0, abs=0.01)
    # Both have the names of the file's categories.
    exported = []
    for name in (place, batch):
        done = run_command(
            "export", name, "-o", "out.json", "--format", "coco", environment=environment, folder=tmp_path
        )
        assert done.returncode == 0, done.stderr
        exported.append(json.loads((tmp_path / "out.json").read_text()))
    assert exported[0]["categories"] == exported[1]["categories"]
    assert FRAGMENT in {category["name"] for category in exported[0]["categories"]}


def test_photos(environment: dict[str, str], photo_dataset: Path) -> None:
    file = str(photo_dataset / "instances.json")
    asked = ["--images", str(photo_dataset / "images"), "--limit", "3", "--treatment", "blur", "--frame", "pad"]
    answer = measurements(run(environment, file, *asked, "--json"))
    (entry,) = answer["figures"]
    assert answer["negatives"] == "sampled"
    assert answer["unmapped"] == {"default": []}
    assert entry["objects"] == entry["ranked"] > 5
    assert entry["backgrounds"] >= 3
    assert entry["fragments"] > 0
