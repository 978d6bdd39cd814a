"""Fits of heads: judgements from files, joined to results, kinds compared, and a precision that holds elsewhere."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskscore import Component, JobResult
from maskscore.errors import InvalidDocumentError
from maskscore.fitting import (
    FitOptions,
    JudgedMasks,
    Origin,
    draw_fit,
    fit_head,
    join,
    judged_image_test,
    read_judged,
)
from maskscore.heads import HeadApplication
from maskscore.parts import ImageOutcome, part_names, part_tables, write_part
from maskscore.results import image_results
from maskscore.review import Judgement
from maskscore.schema import Failure, HeadKind, JobState, PlattModel, ThresholdModel

ORIGIN = Origin("sha256:w", "original", "softmax", "sha256:p")


def drawn(seed: int, images: int, *, apart: float = 2.0, kept: float = 0.6, nonlinear: bool = False) -> JudgedMasks:
    """Return three masks per image; masks of an image are alike, and ``apart`` divides the kept from the dropped."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), 3)
    keep = rng.random(len(image)) < kept
    signal = np.where(keep, apart, -apart) + 0.5 * rng.normal(size=images)[image] + rng.normal(size=len(image))
    features = np.column_stack([signal, rng.normal(size=(len(image), 7))])
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float16).astype(float)
    score = rng.random(len(image)) if nonlinear else 1 / (1 + np.exp(-signal))
    decisions = ["keep" if one else "drop" for one in keep]
    names = [f"s3://b/{one}.png" for one in image]
    return JudgedMasks(ORIGIN, names, decisions, np.ones(len(keep), bool), {"s_pos": score}, features, Counter(), {})


def results_of(masks: JudgedMasks) -> list[JobResult]:
    """Return the results that have these masks; the id of a mask is its row."""
    assert masks.features is not None
    by_image: dict[str, list[Component]] = {}
    for row, image in enumerate(masks.images):
        embedding = base64.b64encode(masks.features[row].astype("<f2").tobytes()).decode()
        component = Component(id=str(row), index=0, s_pos=float(masks.scores["s_pos"][row]), embedding=embedding)
        by_image.setdefault(image, []).append(component)
    return [result(image, components) for image, components in by_image.items()]


def result(image: str, components: Sequence[Component], **changes: Any) -> JobResult:
    document: dict[str, Any] = {
        "job_id": f"job of {image}",
        "state": "succeeded",
        "image": {"uri": image, "width": 9, "height": 9, "format": "PNG"},
        "model": {
            "weights_digest": "sha256:w", "architecture": "a", "image_size": 9, "precision": "fp32", "crop_mode": "fast"
        },
        "prompts": {"name": "p", "digest": "sha256:p", "positive": 1, "negative": 1},
        "treatment": "original",
        "method": "softmax",
        "components": components,
    }  # fmt: skip
    return JobResult.model_validate({**document, **changes})


def joined(judgements: Sequence[Judgement], results: Iterable[JobResult], **options: Any) -> JudgedMasks:
    asked = {"by_class": False, "drop_classes": (), "features_only": False, **options}
    return join(judgements, results, views_of=lambda one: one.views_text, **asked)


def judgements_of(masks: JudgedMasks) -> list[Judgement]:
    return [
        Judgement(image.rsplit("/", 1)[-1], str(row), keep=decision == "keep")
        for row, (image, decision) in enumerate(zip(masks.images, masks.decisions, strict=True))
    ]


def decided(head: HeadApplication, masks: JudgedMasks) -> npt.NDArray[np.bool_]:
    assert masks.features is not None
    rows = zip(masks.scores["s_pos"].tolist(), masks.features, strict=True)
    blank = Component(id="", index=0)
    return np.array([head.decide(blank.model_copy(update={"s_pos": s_pos}), row).keep for s_pos, row in rows])


@pytest.mark.parametrize(("kind", "seeds"), [("platt", 100), ("probe", 10)])
def test_the_precision_holds_on_other_images(kind: HeadKind, seeds: int) -> None:
    """The bound is of a 95 % interval, so that at most one in twenty fits may miss; the thresholds are of 300 masks."""
    missed = refused = 0
    for seed in range(seeds):
        fit = fit_head(drawn(seed, 100), FitOptions("a", kind, precision=0.95))
        if fit.refusal is not None:
            refused += 1
            continue
        others = drawn(10_000 + seed, 100)
        keep = decided(HeadApplication(fit.head), others)
        missed += bool((np.array(others.decisions)[keep] == "keep").mean() < 0.95)
    assert missed <= seeds * 0.05
    assert refused <= seeds * 0.1


def drawn_harder(
    seed: int, images: int, *, apart: float, kept: float, alike: float, wrong: float
) -> tuple[JudgedMasks, npt.NDArray[np.bool_]]:
    """Return one to five masks per image, and whether each is truly to be kept.

    The errors of an image's masks correlate by ``alike``; of the judgements a share is ``wrong``.
    """
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), rng.integers(1, 6, size=images))
    keep = rng.random(len(image)) < kept
    error = alike**0.5 * rng.normal(size=images)[image] + (1 - alike) ** 0.5 * rng.normal(size=len(image))
    score = 1 / (1 + np.exp(-np.where(keep, apart, -apart) - 1.12 * error))
    decisions = ["keep" if one else "drop" for one in keep ^ (rng.random(len(image)) < wrong)]
    names = [f"s3://b/{one}.png" for one in image]
    return JudgedMasks(ORIGIN, names, decisions, np.ones(len(image), bool), {"s_pos": score}, None, Counter(), {}), keep


@pytest.mark.parametrize(
    ("precision", "images", "setting", "most_refused"),
    [
        # 5 % are to be dropped, and 5 % are to be kept.
        (0.95, 150, {"apart": 1.5, "kept": 0.95, "alike": 0.2, "wrong": 0.0}, 0.1),
        (0.8, 300, {"apart": 2.0, "kept": 0.05, "alike": 0.2, "wrong": 0.0}, 0.6),
        (0.95, 100, {"apart": 2.0, "kept": 0.6, "alike": 0.7, "wrong": 0.0}, 0.2),
        # Some 200 judgements, of which a tenth is wrong, of masks that are alike.
        (0.8, 67, {"apart": 2.0, "kept": 0.6, "alike": 0.5, "wrong": 0.1}, 0.4),
    ],
)
def test_the_precision_holds_where_judgements_are_few_wrong_rare_or_alike(
    precision: float, images: int, setting: dict[str, float], most_refused: float
) -> None:
    seeds, missed, refused = 12, 0, 0
    for seed in range(seeds):
        fit = fit_head(drawn_harder(seed, images, **setting)[0], FitOptions("a", "platt", precision=precision))
        if fit.refusal is not None:
            refused += 1
            continue
        others, keep = drawn_harder(10_000 + seed, 700, **setting)
        model = fit.head.model
        assert isinstance(model, PlattModel)
        kept = 1 / (1 + np.exp(-model.slope * others.scores["s_pos"] - model.intercept)) >= fit.head.threshold
        missed += bool(keep[kept].mean() < precision)
    assert missed <= 1
    assert refused <= seeds * most_refused


def test_the_smallest_kind_is_chosen_unless_a_larger_one_is_better() -> None:
    assert fit_head(drawn(1, 100, nonlinear=True), FitOptions("a")).head.kind == "probe"
    fit = fit_head(drawn(1, 100), FitOptions("a"))
    assert [one.kind for one in fit.kinds] == ["threshold", "platt", "isotonic", "probe"]
    assert fit.kinds[0].auroc == fit.kinds[1].auroc == fit.kinds[2].auroc != fit.kinds[3].auroc
    best = min(one.brier for one in fit.kinds)
    chosen = next(one for one in fit.kinds if one.kind == fit.head.kind)
    assert chosen.brier <= best * 1.3
    assert fit.head.counts["judgements"] == 300
    assert 0.9 < fit.head.metrics["auroc"].low <= fit.head.metrics["auroc"].value <= 1


def test_a_kind_that_may_be_chance_is_not_chosen_where_another_is_better() -> None:
    """A smaller kind is not significantly worse, but only the probe is certain to be better than chance."""
    masks = drawn(20, 30, apart=0.6)
    masks.scores["s_pos"] = np.random.default_rng(20).random(90)
    fit = fit_head(masks, FitOptions("a"))
    assert fit.head.kind == "probe"
    assert fit.refusal is None
    scores = fit_head(masks, FitOptions("a", "platt"))
    assert scores.refusal is not None
    assert "not better than chance" in scores.refusal


@pytest.mark.parametrize("kind", ["threshold", "platt", "isotonic", "probe"])
def test_every_kind_becomes_a_head_that_decides(kind: HeadKind) -> None:
    fit = fit_head(drawn(2, 60), FitOptions("a", kind))
    others = drawn(3, 60)
    right = decided(HeadApplication(fit.head), others) == (np.array(others.decisions) == "keep")
    assert right.mean() > 0.85
    assert draw_fit(fit).count("<circle") >= len(fit.curve)
    assert sum(one.masks for one in fit.reliability) == fit.measured == 180
    assert [point.kept for point in fit.curve] == sorted(point.kept for point in fit.curve)


def test_a_fit_by_class_tells_classes_apart() -> None:
    rng = np.random.default_rng(0)
    names = np.array(["cat", "dog", "junk"])[rng.integers(3, size=180)]
    features = np.eye(3)[np.searchsorted(["cat", "dog", "junk"], names)] + rng.normal(scale=0.3, size=(180, 3))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    images = [f"s3://b/{row // 3}.png" for row in range(180)]
    masks = JudgedMasks(ORIGIN, images, names.tolist(), np.zeros(180, bool), {}, features, Counter(), {})
    fit = fit_head(masks, FitOptions("a", "probe", by_class=True, drop_classes=["junk", "left out"]))
    assert fit.refusal is None
    assert fit.head.drop_classes == ("junk",)
    assert fit.head.classes == ("cat", "dog", "junk")
    application = HeadApplication(fit.head)
    classes = [application.decide(Component(id="", index=0), row.astype(np.float16)) for row in features]
    kept = [(one.head_class, name) for one, name in zip(classes, names, strict=True) if one.keep]
    assert len(kept) > 80
    assert sum(given == name for given, name in kept) > 0.9 * len(kept)


def test_chance_and_a_precision_out_of_reach_are_refused() -> None:
    fit = fit_head(drawn(4, 60, apart=0.0), FitOptions("a", precision=0.8))
    assert fit.refusal is not None
    assert "not better than chance" in fit.refusal
    assert fit.head.precision is None
    few = fit_head(drawn(5, 20), FitOptions("a", precision=0.95))
    assert few.refusal is not None
    assert "No threshold has a precision of 0.95" in few.refusal


def test_figures_are_of_the_random_share() -> None:
    masks = drawn(6, 100)
    masks.random = np.arange(300) % 3 == 0
    # Of the others each second one is judged wrongly, which the measured errors do not know.
    other = ~masks.random & (np.arange(300) % 2 == 0)
    swapped = {"keep": "drop", "drop": "keep"}
    wrong = [swapped[one] if row else one for one, row in zip(masks.decisions, other, strict=True)]
    fit = fit_head(dataclasses.replace(masks, decisions=wrong), FitOptions("a", "platt"))
    everything = dataclasses.replace(masks, decisions=wrong, random=np.ones(300, bool))
    assert fit.measured == 100
    assert fit.kinds[0].brier < 0.8 * fit_head(everything, FitOptions("a", "platt")).kinds[0].brier
    # So are the shares on both sides of a threshold.
    alone = fit_head(dataclasses.replace(masks, decisions=wrong), FitOptions("a", "threshold")).head.model
    assert isinstance(alone, ThresholdModel)
    assert alone.p_below < 0.15 < 0.85 < alone.p_above
    masks.random = np.arange(300) < 10
    fit = fit_head(masks, FitOptions("a"))
    assert fit.measured == 300
    assert any("Only 10 of the masks were drawn at random" in warning for warning in fit.warnings)
    masks.random = np.zeros(300, bool)
    masks.images = ["s3://b/one.png" if row < 200 else image for row, image in enumerate(masks.images)]
    warnings = fit_head(masks, FitOptions("a")).warnings
    assert any("No judgement says" in warning for warning in warnings)
    assert any("One image holds 67% of the judged masks: s3://b/one.png" in warning for warning in warnings)
    rarely_kept = fit_head(drawn(7, 60, apart=0.3, kept=0.1), FitOptions("a", "platt"))
    assert rarely_kept.point is None
    assert any("No measured mask reaches the threshold 0.5" in warning for warning in rarely_kept.warnings)
    rare = fit_head(drawn(7, 60, kept=0.95), FitOptions("a")).warnings
    assert any("Too few negatives" in warning for warning in rare)


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"decisions": ["keep"] * 90}, FitOptions("a"), "All 90 judged masks are judged keep"),
        ({"images": ["s3://b/1.png"] * 90}, FitOptions("a"), "are of one image"),
        ({"features": None}, FitOptions("a", "probe"), "A probe reads embeddings"),
        ({"scores": {}}, FitOptions("a", "platt"), "no score that a head can read"),
        ({}, FitOptions("a", "probe", by_class=True, drop_classes=["keep", "drop"]), "names every class"),
    ],
)
def test_what_cannot_be_fitted_is_said(change: dict[str, Any], options: FitOptions, said: str) -> None:
    masks = drawn(8, 30)
    for name, value in change.items():
        setattr(masks, name, value)
    with pytest.raises(InvalidDocumentError, match=said):
        fit_head(masks, options)


def test_too_few_judgements_are_said() -> None:
    with pytest.raises(InvalidDocumentError, match="18 judged masks with scores; a fit needs 20"):
        fit_head(drawn(8, 6), FitOptions("a"))


def test_judgements_are_joined_by_the_end_of_the_images_path() -> None:
    masks = drawn(9, 10)
    found = joined(judgements_of(masks), results_of(masks))
    assert (found.images, found.decisions, found.problems) == (masks.images, masks.decisions, {})
    assert found.origin == ORIGIN
    np.testing.assert_array_equal(found.scores["s_pos"], masks.scores["s_pos"])
    assert found.features is not None
    np.testing.assert_array_equal(found.features, masks.features)


def test_masks_of_parts_are_joined_as_those_of_results_are(tmp_path: Path) -> None:
    masks = drawn(9, 12)
    results = results_of(masks)
    # Two parts of a shard, the second with an image that failed and a mask without a score and feature.
    skipped = Component.model_validate({"id": "x", "index": 3, "skipped": {"code": "empty_mask", "message": ""}})
    results[9] = results[9].model_copy(update={"components": [*results[9].components, skipped]})
    outcomes = [
        ImageOutcome(one.model_copy(update={"job_id": "sa"}), one.image.uri, None, [None] * len(one.components))
        for one in results
        if one.image is not None
    ]
    error = Failure(code="image_truncated", message="It ends too early.")
    outcomes.append(ImageOutcome(JobResult(job_id="sa", state=JobState.FAILED, error=error), "s3://b/12.png"))
    for number, some in enumerate((outcomes[:5], outcomes[5:])):
        write_part(part_tables(some, first_position=5 * number, dimensions=8), part_names("sa", number), tmp_path)
    said = [*judgements_of(masks)[:-3], Judgement("9.png", "x", keep=True), Judgement("12.png", "0", keep=True)]
    read = [one.result for one in image_results(tmp_path, wanted=judged_image_test(said), embeddings=True)]
    assert [one.error.code for one in read if one.error] == ["image_truncated"]
    found = joined(said, [one for one in read if not one.error])
    assert (found.images, found.decisions, found.origin) == (masks.images[:-3], masks.decisions[:-3], ORIGIN)
    assert {kind: str(problem) for kind, problem in found.problems.items()} == {
        "not scored": "mask x of 9.png (empty_mask)",
        "of images that were not scored here": "mask 0 of 12.png",
    }
    np.testing.assert_array_equal(found.scores["s_pos"], masks.scores["s_pos"][:-3])
    assert masks.features is not None
    np.testing.assert_array_equal(found.features, masks.features[:-3])
    every = [one.result for one in image_results(tmp_path)]
    assert [len(one.components) for one in every] == [*(len(one.components) for one in results), 0]
    assert all(component.embedding is None for one in every for component in one.components)


def test_judgements_that_cannot_be_used_are_counted_and_named() -> None:
    masks = drawn(9, 3)
    results = results_of(masks)
    skipped = Component.model_validate({"id": "3", "index": 0, "skipped": {"code": "empty_mask", "message": ""}})
    nan = base64.b64encode(np.array([np.nan] * 8, "<f2").tobytes()).decode()
    unusable = results[1].components[1].model_copy(update={"embedding": nan})
    results[1] = result(results[1].image.uri, [skipped, unusable])  # type: ignore[union-attr]
    more = [
        Judgement("nowhere.png", "1", keep=True),
        Judgement("0.png", "77", keep=True),
        Judgement("0.png", "0", keep=masks.decisions[0] != "keep"),
        Judgement("2.png", "6", keep=masks.decisions[6] == "keep"),
        Judgement("s3://b/2.png", "7", keep=masks.decisions[7] != "keep"),
    ]
    found = joined([*judgements_of(masks), *more], results)
    assert len(found.decisions) == 4
    assert str(found.problems["contradictory"]).startswith("mask 0 of 0.png: drop and keep; mask 7 of s3://b/2.png: ")
    assert {kind: (problem.count, str(problem)) for kind, problem in found.problems.items()} == {
        "contradictory": (2, ANY),
        "not scored": (1, "mask 3 of 1.png (empty_mask)"),
        "with scores or a feature that are not numbers": (1, "mask 4 of 1.png"),
        "of masks that were not scored here": (2, "mask 5 of 1.png; mask 77 of 0.png"),
        "of images that were not scored here": (1, "mask 1 of nowhere.png"),
    }


def test_parts_are_judged_each() -> None:
    parts = [Component(id="a", index=0, part=part, s_pos=0.1 * part) for part in range(3)]
    alone = Component(id="b", index=1, part=0, s_pos=0.9)
    said = [Judgement("s3://b/x.png", "a", 1, keep=True), Judgement("s3://b/x.png", "b", keep=False)]
    found = joined(said, [result("s3://b/x.png", [*parts, alone])])
    assert (found.decisions, found.scores["s_pos"].tolist()) == (["keep", "drop"], [0.1, 0.9])
    unsaid = Judgement("s3://b/x.png", "a", keep=True)
    found = joined([*said, unsaid], [result("s3://b/x.png", [*parts, alone])])
    assert len(found.decisions) == 2
    assert {kind: str(problem) for kind, problem in found.problems.items()} == {
        "that do not say which part of a mask": "mask a of s3://b/x.png"
    }
    with pytest.raises(InvalidDocumentError, match="None of 1 judgement is of a scored mask"):
        joined([unsaid], [result("s3://b/x.png", parts)])


def test_results_that_do_not_go_together_are_refused() -> None:
    masks = drawn(9, 4)
    results = results_of(masks)
    other = {"name": "p", "digest": "sha256:q", "positive": 1, "negative": 1}
    mixed = [*results[:3], results[3].model_copy(update={"prompts": result("x", [], prompts=other).prompts})]
    with pytest.raises(InvalidDocumentError, match="were scored in 2 ways"):
        joined(judgements_of(masks), mixed)
    assert len(joined(judgements_of(masks), mixed, features_only=True).decisions) == 12
    twice = [*results, result("s3://other/0.png", results[0].components)]
    with pytest.raises(InvalidDocumentError, match="could be several"):
        joined(judgements_of(masks), twice)


def test_classes_and_decisions_go_with_their_options() -> None:
    masks = drawn(9, 3)
    classes = [
        Judgement(image, str(row), class_name="cat" if row % 2 else "junk") for row, image in enumerate(masks.images)
    ]
    results = results_of(masks)
    with pytest.raises(InvalidDocumentError, match="--drop-class"):
        joined(classes, results)
    assert joined(classes, results, drop_classes=["junk"]).decisions[:2] == ["drop", "keep"]
    assert joined(classes, results, by_class=True).decisions[:2] == ["junk", "cat"]
    with pytest.raises(InvalidDocumentError, match=r"no mask is judged cow\. There are cat, junk"):
        joined(classes, results, by_class=True, drop_classes=["junk", "cow"])
    with pytest.raises(InvalidDocumentError, match=r"no mask is judged cow\. There are no classes"):
        joined(judgements_of(masks), results, drop_classes=["cow"])
    with pytest.raises(InvalidDocumentError, match="The files have no judgement"):
        joined([], results)
    with pytest.raises(InvalidDocumentError, match="leave out --by-class"):
        joined(judgements_of(masks), results, by_class=True)


ROWS = [Judgement("a.png", "1", keep=True, random=True), Judgement("a.png", "2", 3, keep=False)]


def test_judgements_are_read_from_tables_and_coco(tmp_path: Path) -> None:
    table = tmp_path / "judged.csv"
    table.write_text("image,mask_id,part,keep,random\na.png,1,,yes,1\na.png,2,3,drop,\na.png,3,,,\n", "utf-8")
    assert read_judged(table) == ROWS
    columns = {"image": ["a.png"] * 3, "mask_id": [1, 2, 3], "part": [None, 3, None], "keep": [True, False, None]}
    pq.write_table(pa.table({**columns, "random": [True, False, None], "more": [1, 2, 3]}), tmp_path / "judged.parquet")
    assert read_judged(tmp_path / "judged.parquet") == ROWS
    coco: dict[str, Any] = {
        "images": [{"id": 5, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "keep"}, {"id": 2, "name": "drop"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 1, "random": True},
            {"id": 9, "mask_id": 2, "part": 3, "image_id": 5, "category_id": 2},
            {"id": 4, "image_id": 5, "category_id": 3},
            {"id": 6, "image_id": 5, "category_id": 3, "keep": 0},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco), "utf-8")
    assert read_judged(tmp_path / "coco.json") == [
        *ROWS,
        Judgement("a.png", "4", class_name="cat"),
        Judgement("a.png", "6", keep=False, class_name="cat"),
    ]

    saved = {"job_id": "j", "image": "s3://b/a.png", "mask_id": "1", "keep": True}
    page = {"kind": "maskscore-judgements", "version": 1, "judgements": [saved]}
    (tmp_path / "page.json").write_text(json.dumps(page), "utf-8")
    assert read_judged(tmp_path / "page.json") == [Judgement("s3://b/a.png", "1", keep=True, job_id="j")]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "image,keep\na,1\n", "needs the columns"),
        ("a.csv", "image,mask_id,keep\na,1,perhaps\n", "row 2: `keep` is 'perhaps'"),
        ("a.csv", "image,mask_id,keep\n,1,1\n", "row 2 has no image"),
        ("a.csv", "image,mask_id,keep,part\na,1,1,x\n", "the part 'x' is not a number"),
        ("a.parquet", "PAR0", "cannot be read as Parquet"),
        ("a.json", "{", "is not JSON"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1}]}', "is not COCO"),
        ("a.json", "{}", "neither an export of Label Studio"),
    ],
)
def test_files_that_are_no_judgements_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(InvalidDocumentError, match=said):
        read_judged(tmp_path / name)
    with pytest.raises(InvalidDocumentError, match="cannot be read"):
        read_judged(tmp_path / f"none-{name}")
