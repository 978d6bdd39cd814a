"""``eval --scores``: labelled masks measured by the scores of parts, which need no Redis."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from command_line import run_command
from maskscore.evaluation import Candidate, ClassPrompts
from maskscore.evaluation.measurements import ScoreCollector
from maskscore.heads import write_head
from maskscore.parts import ImageOutcome, part_names, part_tables, write_part
from maskscore.prompts import load_builtin
from maskscore.schema import (
    Component,
    Failure,
    Head,
    ImageInfo,
    JobResult,
    JobState,
    ModelIdentity,
    PlattModel,
    PromptScore,
    PromptSetIdentity,
    Skipped,
    View,
    ViewUsed,
    text_from_counts,
)

DEMO = load_builtin("demo")
KINDS = [prompt.split(" ", 1)[1] for prompt in DEMO.positive[:6]]
RLE = {"size": [4, 6], "counts": text_from_counts([6, 2, 2, 2, 2, 2, 8])}
NOWHERE = {"MASKSCORE_REDIS_URL": "redis://127.0.0.1:1/0"}
MODEL = ModelIdentity(architecture="ViT", weights_digest="sha256:w", image_size=32, precision="fp32", crop_mode="x")


def components(seed: int, *, top_k: int = 6) -> list[Component]:
    """Two objects and two backgrounds, called 10 to 13; objects have higher scores, mostly."""
    rng = random.Random(seed)
    made = []
    for index in range(4):
        s_pos = min(1.0, max(0.0, (0.7 if index < 2 else 0.4) + rng.gauss(0, 0.2)))
        texts = rng.sample(DEMO.positive[:6], 6)
        best = [PromptScore(text=text, group="positive", score=s_pos - n / 100) for n, text in enumerate(texts)]
        made.append(
            Component(
                id=str(10 + index),
                index=index,
                s_pos=s_pos,
                s_neg=1 - s_pos,
                s_pos_text=texts[0],
                p_pos_sum=s_pos,
                p_neg_sum=1 - s_pos,
                top_k=best[:top_k] or None,
            )
        )
    return made


def outcome(image: str, masks: list[Component], view: str = "original", shard: str = "shard") -> ImageOutcome:
    result = JobResult(
        job_id=shard,
        state=JobState.SUCCEEDED,
        image=ImageInfo(uri=image, width=6, height=4, format="PNG"),
        model=MODEL,
        prompts=PromptSetIdentity(name=DEMO.name, digest=DEMO.digest, positive=1, negative=1),
        method="softmax",
        treatment="original",
        views=[ViewUsed.model_validate(View.parse(view).recipe)],
        components=masks,
    )
    return ImageOutcome(result, image, segmentations=[RLE] * len(masks))


def write(folder: Path, outcomes: Sequence[ImageOutcome]) -> str:
    """Write a part of at most 8 images each."""
    for number, start in enumerate(range(0, len(outcomes), 8)):
        tables = part_tables(outcomes[start : start + 8], first_position=start)
        write_part(tables, part_names(outcomes[start].result.job_id, number), str(folder))
    return f"{folder}/"


def labels(path: Path, names: Sequence[str], **annotation: Any) -> str:
    categories = [{"id": number, "name": name} for number, name in enumerate(KINDS)]
    categories.append({"id": 99, "name": "ground", "isthing": 0})
    document = {
        "images": [{"id": n, "file_name": name, "width": 6, "height": 4} for n, name in enumerate(names)],
        "annotations": [
            {
                "id": 10 + index,
                "image_id": n,
                "category_id": (n + index) % 6 if index < 2 else 99,
                "segmentation": RLE,
                **annotation,
            }
            for n in range(len(names))
            for index in range(4)
        ],
        "categories": categories,
    }
    path.write_text(json.dumps(document))
    return str(path)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("eval", *arguments, environment=NOWHERE)


def answer_of(ran: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    assert ran.returncode == code, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


NAMES = [f"photos/{n:03}.png" for n in range(20)]


def uri(name: str) -> str:
    return f"s3://tars/a.tar!/{name}"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """20 labelled images, among others that nobody has labelled."""
    masks = {name: components(number) for number, name in enumerate(NAMES)}
    others = [outcome(uri(f"more/{n}.png"), components(1000 + n)) for n in range(10)]
    labelled = [outcome(uri(name), own) for name, own in masks.items()]
    mixed = [one for pair in zip(labelled[:10], others, strict=True) for one in pair] + labelled[10:]
    return write(tmp_path_factory.mktemp("parts"), mixed)


def test_the_figures_are_those_of_the_same_masks_one_by_one(parts: str, tmp_path: Path) -> None:
    file = labels(tmp_path / "labels.json", NAMES)
    answer = answer_of(run(file, "--scores", parts, "--json"))
    assert (answer["images"], answer["negatives"], answer["seed"]) == (20, "of the file", None)
    (entry,) = answer["figures"]
    assert (entry["source"], entry["view"], entry["prompts"]) == (parts, "original", "demo")
    assert (entry["objects"], entry["backgrounds"], entry["ranked"]) == (40, 40, 40)
    assert (entry["skipped"], entry["failed"], entry["unknown_top_5"], entry["speed"]) == ({}, {}, 0, None)
    collector = ScoreCollector(Candidate((View(),), DEMO, ClassPrompts.of(KINDS, DEMO, {})))
    for number in range(20):
        for index, component in enumerate(components(number)):
            kind, name = ("object", KINDS[(number + index) % 6]) if index < 2 else ("background", "ground")
            collector.add(component, image=str(number), kind=kind, category=name)
    wanted = collector.measurement(0.9, None)
    for name, share in (("top_1", wanted.top_1), ("top_5", wanted.top_5)):
        assert share is not None
        assert entry[name]["value"] == pytest.approx(share.value)
    area = wanted.scores["p_pos_sum"].auroc["all"]
    assert area is not None
    assert entry["auroc"]["p_pos_sum"]["all"] == pytest.approx(
        {"value": area.value, "low": area.low, "high": area.high}
    )
    assert 0.6 < area.value < 1
    assert entry["classes"].keys() == wanted.classes.keys()


def test_two_runs_are_compared_and_shown_in_80_columns(parts: str, tmp_path: Path) -> None:
    file = labels(tmp_path / "labels.json", NAMES)
    blurred = write(
        tmp_path / "blur", [outcome(uri(name), components(500 + n), "blur") for n, name in enumerate(NAMES)]
    )
    again = write(tmp_path / "again", [outcome(uri(name), components(n)) for n, name in enumerate(NAMES)])
    svg = tmp_path / "eval.svg"
    ran = run(file, "--scores", parts, "--scores", blurred, "--svg", str(svg))
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.startswith(("original ", "blur "))][:2] == ["original", "blur"]
    assert "Differences from original on the same masks (80 at least)" in " ".join(lines)
    # Scored alike, so that the names of the places tell them apart.
    answer = answer_of(run(file, "--scores", parts, "--scores", again, "--json"))
    assert [entry["source"] for entry in answer["figures"]] == [parts, again]
    assert answer["differences"][0]["auroc"]["value"] == pytest.approx(0)
    shown = run(file, "--scores", parts, "--scores", again).stdout
    assert "again/" in shown.replace("\n", "")


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    file = labels(tmp_path / "labels.json", ["a.png", "b.png", "c.png", "d.png"])
    failure = JobResult(
        job_id="shard", state=JobState.FAILED, error=Failure(code="image_truncated", message="It ends too early.")
    )
    skipped = components(1)
    skipped[0] = Component(id="10", index=0, skipped=Skipped(code="empty_mask", message="No pixel."))
    outcomes = [
        ImageOutcome(failure, uri("a.png")),
        outcome(uri("b.png"), skipped),
        # Its last mask is none of the scored ones, and one that is scored has no label.
        outcome(uri("c.png"), [*components(2)[:3], components(2)[3].model_copy(update={"id": "99"})]),
        ImageOutcome(failure, uri("else.png")),
    ]
    ran = run(file, "--scores", write(tmp_path / "parts", outcomes), "--json")
    (entry,) = answer_of(ran, 1)["figures"]
    assert entry["failed"] == {"image_truncated": 1, "not_scored": 1}
    assert entry["skipped"] == {"empty_mask": 1, "not_scored": 1}
    assert (entry["objects"], entry["backgrounds"]) == (3, 3)


def test_parts_of_masks_are_measured_where_their_label_says_which(tmp_path: Path) -> None:
    masks = [
        components(1)[index].model_copy(update={"id": mask_id, "part": part})
        for index, (mask_id, part) in enumerate([("10", 0), ("10", 1), ("11", 0), ("13", 0)])
    ]
    place = write(tmp_path / "parts", [outcome(uri("a.png"), masks)])
    # 10 has two parts, so that a label of all of it is of none.
    (entry,) = answer_of(run(labels(tmp_path / "whole.json", ["a.png"]), "--scores", place, "--json"))["figures"]
    assert (entry["objects"], entry["backgrounds"], entry["skipped"]) == (1, 1, {"not_scored": 2})
    own = labels(tmp_path / "own.json", ["a.png"], part=1)
    (entry,) = answer_of(run(own, "--scores", place, "--json"))["figures"]
    assert (entry["objects"], entry["backgrounds"], entry["skipped"]) == (1, 0, {"not_scored": 3})


def test_without_many_prompts_the_best_one_is_known_alone(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png"]
    place = write(tmp_path / "parts", [outcome(uri(name), components(n, top_k=0)) for n, name in enumerate(names)])
    file = labels(tmp_path / "labels.json", names)
    (entry,) = answer_of(run(file, "--scores", place, "--json"))["figures"]
    texts = [(components(n)[index].s_pos_text or "", KINDS[n + index]) for n in range(3) for index in range(2)]
    assert entry["top_1"]["value"] == pytest.approx(sum(text.endswith(name) for text, name in texts) / 6)
    assert (entry["top_5"], entry["unknown_top_5"] > 0) == (None, True)
    assert "score with --top-k 100" in run(file, "--scores", place).stdout


def test_a_file_without_background_has_no_negatives(parts: str, tmp_path: Path) -> None:
    file = Path(labels(tmp_path / "labels.json", NAMES))
    document = json.loads(file.read_text())
    document["annotations"] = [one for one in document["annotations"] if one["category_id"] != 99]
    file.write_text(json.dumps(document))
    ran = run(str(file), "--scores", parts)
    assert ran.returncode == 0, ran.stderr
    assert "No negatives, and so no AUROC" in " ".join(ran.stdout.split())
    answer = answer_of(run(str(file), "--scores", parts, "--json"))
    assert (answer["negatives"], answer["figures"][0]["auroc"]["p_pos_sum"]["all"]) == ("none", None)


def test_heads_decide_on_the_scores(parts: str, tmp_path: Path) -> None:
    head = Head(
        name="sums",
        model=PlattModel(score="p_pos_sum", slope=8.0, intercept=-4.0),
        threshold=0.5,
        weights_digest="sha256:w",
        views="original",
        method="softmax",
        prompts_digest=DEMO.digest,
    )
    write_head(head, tmp_path / "sums.json")
    asked = [labels(tmp_path / "labels.json", NAMES), "--head", str(tmp_path / "sums.json"), "--json", "--scores"]
    answer = answer_of(run(*asked, parts))
    (entry,) = answer["figures"]
    # A rising curve ranks as its score does.
    for group, interval in entry["auroc"]["p_pos_sum"].items():
        assert entry["auroc"]["p_keep sums"][group] == pytest.approx(interval)
    assert [one["entry"]["score"] for one in answer["differences"]] == ["p_pos_sum"]
    blurred = write(tmp_path / "blur", [outcome(uri(NAMES[0]), components(0), "blur")])
    refused = run(*asked, blurred)
    assert (refused.returncode, "was fitted to the view original" in refused.stderr) == (2, True), refused.stderr


def test_what_cannot_be_measured_is_one_sentence(parts: str, tmp_path: Path) -> None:
    file = labels(tmp_path / "labels.json", NAMES)
    elsewhere = labels(tmp_path / "elsewhere.json", ["photos/none.png"])
    called = labels(tmp_path / "called.json", ["000.png", "photos/000.png", "000.png"])
    ways = write(tmp_path / "ways", [outcome(uri(NAMES[0]), components(0))])
    write(tmp_path / "ways", [outcome(uri(NAMES[1]), components(1), "blur", shard="then")])
    alike = write(tmp_path / "alike", [outcome(f"s3://{bucket}/{NAMES[0]}", components(0)) for bucket in ("a", "b")])
    (tmp_path / "mine.yaml").write_text("name: mine\npositive: [a dog]\nnegative: [sky]\n")
    for arguments, words in [
        ([file], "either --images"),
        ([file, "--images", ".", "--scores", parts], "either --images"),
        ([file, "--scores", parts, "--view", "blur"], "--view goes with --images"),
        ([file, "--scores", parts, "--seed", "0"], "--seed goes with --images"),
        ([elsewhere, "--scores", parts], "no score of a labelled mask: of the 1 labelled image, 0 are there"),
        ([called, "--scores", parts], "are both called '000.png'"),
        ([file, "--scores", ways], "were scored in several ways: view original"),
        ([file, "--scores", alike], "could be s3://a/photos/000.png or s3://b/photos/000.png"),
        ([file, "--scores", parts, "--prompts", str(tmp_path / "mine.yaml")], "scored with the prompt set demo"),
        ([parts, "--scores", parts], "give the COCO file that has the labels"),
    ]:
        ran = run(*arguments)
        assert (ran.returncode, "Traceback" in ran.stderr) == (2, False), (arguments, ran.stderr)
        assert words in " ".join(ran.stderr.split()), (arguments, ran.stderr)
