"""The parts of an evaluation: labels, classes, sampled negatives, statistics, the chart."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco
from scipy import stats

from maskscore.errors import InvalidDocumentError
from maskscore.evaluation import (
    Candidate,
    ClassPrompts,
    LabelledImage,
    LabelledMask,
    Measurement,
    draw,
    read_classes,
    read_coco,
)
from maskscore.evaluation.image_locations import image_uris
from maskscore.evaluation.measurements import ScoreCollector
from maskscore.evaluation.negative_sampling import encode_picture, sample_negatives
from maskscore.formats import Orphans
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from maskscore.schema import Method, View
from maskscore.schema.job import Mask
from maskscore.schema.prompt_set import PromptSet
from maskscore.schema.result import Component, PromptScore, Skipped
from maskscore.statistics import Estimate, Ranked, Scored, t_quantile
from maskscore.statistics.intervals import share_interval
from maskscore.storage import Objects
from maskscore.storage.uris import path_of
from photo_dataset import CATEGORIES
from reference import decode

# The first is the example of scikit-learn's documentation of roc_auc_score; the others are counted by hand.
AREAS = [
    ([0.35, 0.8], [0.1, 0.4], 0.75),
    ([0.8, 0.9], [0.1, 0.2], 1.0),
    ([0.1, 0.2], [0.8, 0.9], 0.0),
    ([0.5, 0.5], [0.5, 0.5, 0.5], 0.5),
    ([0.5, 0.9], [0.5, 0.1], 0.875),
    ([1.0, 2.0, 2.0, 3.0], [2.0, 2.0, 0.0], 8 / 12),
]


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float | None:
    """Return the area of masks that are of two images."""
    sides = (Ranked((score, row % 2) for row, score in enumerate(side)) for side in (positives, negatives))
    estimate = Estimate.of_auroc(*sides)
    return None if estimate is None else estimate.value


def auroc_interval(positives: Sequence[Scored], negatives: Sequence[Scored]) -> tuple[float, float]:
    estimate = Estimate.of_auroc(Ranked(positives), Ranked(negatives))
    assert estimate is not None
    return estimate.low, estimate.high


@pytest.mark.parametrize(("positives", "negatives", "area"), AREAS)
def test_auroc_of_hand_made_scores(positives: list[float], negatives: list[float], area: float) -> None:
    assert auroc(positives, negatives) == pytest.approx(area)


@given(
    positives=st.lists(st.integers(0, 6), min_size=1, max_size=30),
    negatives=st.lists(st.integers(0, 6), min_size=1, max_size=30),
)
def test_auroc_is_the_share_of_pairs_in_order(positives: list[int], negatives: list[int]) -> None:
    wins = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    assert auroc(positives, negatives) == pytest.approx(wins / (len(positives) * len(negatives)))


def test_auroc_of_one_side_alone_is_none() -> None:
    assert auroc([], [0.1]) is None
    assert auroc([0.1], []) is None


def simulated(rng: random.Random, correlation: float) -> tuple[list[Scored], list[Scored]]:
    """20 images of 5 objects and 5 backgrounds, whose scores are normal and one standard deviation apart.

    ``correlation`` is that between the objects of an image, and between its backgrounds.
    """
    sides: list[list[Scored]] = []
    for mean in (1.0, 0.0):
        shifts = [rng.gauss(mean, correlation**0.5) for _ in range(20)]
        sides.append([(rng.gauss(shifts[n % 20], (1 - correlation) ** 0.5), n % 20) for n in range(100)])
    return sides[0], sides[1]


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.5])
def test_intervals_hold_the_truth_about_as_often_as_they_say(correlation: float) -> None:
    # The area between two normal distributions one deviation apart is Φ(1/√2); Φ(1) of the objects are above 0.
    rng, rounds, area, share = random.Random(0), 250, 0.760250, 0.841345
    held = {"area": 0, "share": 0, "as if independent": 0}
    for _ in range(rounds):
        objects, backgrounds = simulated(rng, correlation)
        low, high = auroc_interval(objects, backgrounds)
        held["area"] += low <= area <= high
        hits = Counter(image for score, image in objects if score > 0)
        low, high = share_interval([(hits[image], 5) for image in range(20)])
        held["share"] += low <= share <= high
        low, high = share_interval([(int(score > 0), 1) for score, _ in objects])
        held["as if independent"] += low <= share <= high
    assert 0.92 <= held["area"] / rounds <= 0.995
    assert 0.92 <= held["share"] / rounds <= 0.995
    assert (held["as if independent"] / rounds < 0.9) == (correlation == 0.5)


def test_intervals_hold_the_truth_where_one_image_in_six_has_nearly_all_masks() -> None:
    rng, rounds = random.Random(0), 150
    held = {"area": 0, "share": 0}
    for _ in range(rounds):
        sides: list[list[Scored]] = [[], []]
        for image in range(20):
            masks = rng.choice([1, 1, 1, 2, 3, 60])
            for side, mean in zip(sides, (1.0, 0.0), strict=True):
                shift = rng.gauss(mean, 0.5**0.5)
                side += [(rng.gauss(shift, 0.5**0.5), image) for _ in range(masks)]
        low, high = auroc_interval(*sides)
        held["area"] += low <= 0.760250 <= high
        hits = Counter(image for score, image in sides[0] if score > 0)
        low, high = share_interval([(hits[image], n) for image, n in Counter(i for _, i in sides[0]).items()])
        held["share"] += low <= 0.841345 <= high
    assert held["area"] / rounds >= 0.92
    assert held["share"] / rounds >= 0.9


def test_intervals_of_masks_that_each_have_an_image_of_their_own() -> None:
    # Wilson's example, 0 of 10, with Student's t in place of 1.96: t² / (n + t²), t = 2.262.
    assert share_interval([(0, 1)] * 10) == pytest.approx((0.0, 2.262**2 / (10 + 2.262**2)), abs=1e-4)
    # As if independent, where there are many: Wilson's of 700 of 1,000.
    assert share_interval([(int(n < 700), 1) for n in range(1000)]) == pytest.approx((0.6709, 0.7276), abs=1e-4)
    # Far from the ends it is nearly Hanley and McNeil's own: about 1.96 × 0.032 on each side, with 51 and 58 images.
    objects = [(NormalDist(1.757, 1).inv_cdf((n + 0.5) / 51), n) for n in range(51)]
    others = [(NormalDist().inv_cdf((n + 0.5) / 58), 51 + n) for n in range(58)]
    area = auroc([score for score, _ in objects], [score for score, _ in others])
    assert area is not None
    assert area == pytest.approx(0.893, abs=0.01)
    assert auroc_interval(objects, others) == pytest.approx((area - 0.063, area + 0.063), abs=0.025)


def test_intervals_where_nothing_is_on_the_wrong_side_are_of_images() -> None:
    parted = [(1.0, n % 5) for n in range(50)], [(0.0, n % 5) for n in range(50)]
    low, high = auroc_interval(*parted)
    assert (low, high) == (auroc_interval([(1.0, n) for n in range(5)], [(0.0, n) for n in range(5)])[0], 1.0)
    assert 0.4 < low < 0.9
    assert auroc_interval(*reversed(parted)) == pytest.approx((0.0, 1 - low))
    assert share_interval([(10, 10)] * 5) == share_interval([(1, 1)] * 5)
    assert share_interval([(10, 10)] * 5)[1] == 1.0
    assert share_interval([(7, 7)] * 3)[1] == share_interval([(1, 1)] * 7)[1] == 1.0


def test_one_image_says_nothing_about_others() -> None:
    assert share_interval([(9, 10)]) == share_interval([(9, 10), (0, 0)]) == (0.0, 1.0)
    assert auroc_interval([(0.5, "a"), (0.7, "a")], [(0.6, "a")]) == (0.0, 1.0)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 30, 499])
def test_students_t(degrees: int) -> None:
    assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=1e-6)
    assert t_quantile(5000) == pytest.approx(1.96, abs=1e-3)


def document(**changes: Any) -> dict[str, Any]:
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
            {"id": 8, "file_name": "empty.jpg", "width": 100, "height": 80},
            {"id": 9, "file_name": "b.jpg", "width": 100, "height": 80},
        ],
        "categories": [
            {"id": 1, "name": "dog"},
            {"id": 2, "name": "sky", "isthing": 0},
            {"id": 3, "name": "hedge"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "segmentation": square},
            {"id": 2, "image_id": 7, "category_id": 2, "segmentation": square},
            {"id": 3, "image_id": 7, "category_id": 1, "segmentation": square, "iscrowd": 1},
            {"id": 4, "image_id": 7, "category_id": 1, "segmentation": None},
            {"id": 5, "image_id": 9, "category_id": 3, "segmentation": square},
        ],
        **changes,
    }


def written(tmp_path: Path, fields: Any) -> Path:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(fields))
    return path


def test_a_coco_file_says_what_is_object_background_and_crowd(tmp_path: Path) -> None:
    path = written(tmp_path, document())
    first, second = read_coco(path)
    assert [(mask.kind, mask.category) for mask in first.masks] == [
        ("object", "dog"),
        ("background", "sky"),
        ("crowd", "dog"),
    ]
    assert (first.id, first.file_name, first.unusable) == ("7", "a.jpg", 1)
    assert [mask.kind for mask in second.masks] == ["object"]
    (_, named) = read_coco(path, negatives=["hedge"])
    assert [mask.kind for mask in named.masks] == ["background"]
    assert len(read_coco(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ([], "not a COCO file"),
        ({"images": []}, "not a COCO file"),
        (document(categories=[]), "no object to measure.*5 cannot be used .*category 1 is not in `categories`"),
    ],
)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, fields: Any, why: str) -> None:
    with pytest.raises(InvalidDocumentError, match=why):
        read_coco(written(tmp_path, fields))


def test_a_file_of_crowds_alone_says_so_and_can_be_measured(tmp_path: Path) -> None:
    fields = document()
    crowds = [{**annotation, "iscrowd": 1} for annotation in fields["annotations"]]
    path = written(tmp_path, {**fields, "annotations": crowds})
    with pytest.raises(InvalidDocumentError, match=r"4 are crowds \(`iscrowd`\).*--crowds objects.*1 cannot be used"):
        read_coco(path)
    objects = [mask.kind for image in read_coco(path, crowds="objects") for mask in image.masks]
    assert objects == ["object", "background", "object", "object"]


def test_an_annotation_that_cannot_be_used_costs_the_others_nothing(tmp_path: Path) -> None:
    fields = document()
    fields["annotations"] += [
        {"id": 78, "image_id": 9, "category_id": 9, "segmentation": [[1, 1, 9, 1, 9, 9]]},
        {"id": 79, "image_id": 99, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]},
        {"id": 80, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]},
    ]
    orphans = Orphans()
    first, second = read_coco(written(tmp_path, fields), orphans=orphans)
    assert (len(first.masks), len(second.masks)) == (3, 1)
    assert second.reasons == ("annotation 78 of image 9: its category 9 is not in `categories`",)
    assert "annotation 4 of image 7: segmentation" in first.reasons[0]
    assert (orphans.count, orphans.images, orphans.without_image) == (2, {"99": 1}, 1)


def test_ids_are_equal_where_they_are_equal_as_numbers(tmp_path: Path) -> None:
    fields = document()
    for annotation in fields["annotations"]:
        annotation.update(image_id=str(annotation["image_id"]), category_id=float(annotation["category_id"]))
    assert [len(image.masks) for image in read_coco(written(tmp_path, fields))] == [3, 1]


def test_images_are_found_as_other_tools_spell_them(tmp_path: Path, objects: Objects) -> None:
    for name in ("a b.jpg", "val/a b.jpg", "cafe\u0301.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*names: str) -> list[str]:
        uris = image_uris(str(tmp_path), names, objects)
        return [path_of(uri).relative_to(tmp_path.resolve()).as_posix() for uri in uris]

    assert found(r"images\a b.jpg", r"C:\x\val\a b.jpg") == ["a b.jpg", "val/a b.jpg"]
    assert found("https://host/val/a%20b.jpg?X-Amz-Date=1", "caf\u00e9.jpg") == ["val/a b.jpg", "cafe\u0301.jpg"]
    assert found("nowhere.jpg") == ["nowhere.jpg"]
    with pytest.raises(InvalidDocumentError, match=r"both mean a b\.jpg"):
        found("train/a b.jpg", "test/a b.jpg")
    # A key is taken as it is, and nothing is asked.
    assert image_uris("s3://bucket/x/", ["val/a b.jpg"], objects) == ["s3://bucket/x/val/a b.jpg"]


def test_a_missing_file_and_a_category_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocumentError, match="no file"):
        read_coco(tmp_path / "none.json")
    with pytest.raises(InvalidDocumentError, match="no category 'tree'"):
        read_coco(written(tmp_path, document()), negatives=["tree"])
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(InvalidDocumentError, match="cannot be read as JSON"):
        read_coco(tmp_path / "text.json")


def test_all_of_cocos_categories_have_a_prompt_in_the_default_set() -> None:
    names = [category["name"] for category in CATEGORIES]
    assert len(names) == 80
    classes = ClassPrompts.of(names, load_builtin("default"), {})
    assert classes.unmapped == ()
    assert classes.prompts["scissors"] == {"a pair of scissors"}
    assert classes.prompts["orange"] == {"an orange"}
    assert "a woman" in classes.prompts["person"]
    assert all(len(prompts) == 1 for name, prompts in classes.prompts.items() if name != "person")


def test_classes_that_a_file_gives_go_before_names(tmp_path: Path) -> None:
    prompts = PromptSet(name="p", positive=("a dog", "a puppy", "The Eiffel Tower"), negative=("sky",))
    path = tmp_path / "classes.yaml"
    path.write_text("dog: [a dog, a puppy]\nwolf: a dog\n")
    classes = ClassPrompts.of(["dog", "wolf", "eiffel_tower", "cat"], prompts, read_classes(path))
    assert classes.prompts == {
        "dog": {"a dog", "a puppy"},
        "wolf": {"a dog"},
        "eiffel_tower": {"The Eiffel Tower"},
    }
    assert classes.unmapped == ("cat",)
    with pytest.raises(InvalidDocumentError, match="no positive prompt"):
        ClassPrompts.of(["dog"], prompts, {"dog": ("sky",)})
    for wrong in ("- dog", "dog: 5", "dog: []", "dog: [1]", ": :"):
        path.write_text(wrong)
        with pytest.raises(InvalidDocumentError, match=r"classes\.yaml"):
            read_classes(path)


@given(width=st.integers(1, 20), height=st.integers(1, 20), seed=st.integers(0, 99))
def test_a_picture_is_encoded_as_an_array_is(width: int, height: int, seed: int) -> None:
    bits = np.random.default_rng(seed).random((height, width)) < 0.5
    assert encode_picture(Image.fromarray(bits * np.uint8(255))) == encode_mask(bits)


def labelled_image() -> tuple[LabelledImage, np.ndarray]:
    """Two objects, a crowd, and a mask of another size; and what they cover."""
    height, width = 120, 160
    drawn = np.zeros((3, height, width), bool)
    drawn[0, 10:50, 10:60], drawn[1, 60:100, 100:140], drawn[2, 0:10, 100:160] = True, True, True
    masks = [
        LabelledMask(kind, name, Mask(id=name, segmentation=encode_mask(bits)))  # type: ignore[arg-type]
        for kind, name, bits in zip(("object", "object", "crowd"), "abc", drawn, strict=True)
    ]
    other = LabelledMask("object", "d", Mask(id="d", segmentation=encode_mask(np.ones((5, 5)))))
    return LabelledImage("1", "a.png", width, height, (*masks, other)), drawn


def test_sampled_negatives_are_what_they_are_called() -> None:
    image, drawn = labelled_image()
    covered = drawn.any(axis=0)
    for seed in range(20):
        sampled = sample_negatives(image, seed)
        bits = {entry.mask.id: decode(entry.mask.segmentation.model_dump(), 120, 160) for entry in sampled}  # type: ignore[union-attr]
        kinds = [(entry.kind, entry.category) for entry in sampled]
        assert kinds[0] == ("background", "rest")
        np.testing.assert_array_equal(bits[sampled[0].mask.id], ~covered)
        assert 1 <= kinds.count(("background", "rectangle")) <= 2
        assert kinds.count(("fragment", "half")) == 2
        for entry in sampled:
            own = bits[entry.mask.id]
            if entry.kind == "background":
                assert not (own & covered).any()
            else:
                halved = next(whole for whole in drawn[:2] if (own & whole).any())
                assert not (own & ~halved).any()
                assert own.sum() == halved.sum() / 2
        assert sample_negatives(image, seed) == sampled
    assert len({str(sample_negatives(image, seed)) for seed in range(20)}) == 20


def test_where_there_is_no_background_none_is_made_up() -> None:
    whole = LabelledMask("object", "all", Mask(id="m", segmentation=encode_mask(np.ones((30, 30)))))
    tiny = LabelledMask("object", "dot", Mask(id="n", segmentation=encode_mask(np.eye(30) * (np.arange(30) < 2))))
    assert [entry.category for entry in sample_negatives(LabelledImage("1", "", 30, 30, (whole, tiny)), 0)] == ["half"]


def component(best: list[str], **fields: Any) -> Component:
    groups = [PromptScore(text=text, group="negative" if text == "sky" else "positive", score=0.1) for text in best]
    return Component(id="m", index=0, s_pos=0.6, s_neg=0.2, top_k=groups, **fields)


def collector_of(
    classes: dict[str, frozenset[str]] | None = None, view: str = "original", method: Method = "softmax"
) -> ScoreCollector:
    prompts = PromptSet(name="p", positive=("a dog", "a puppy"), negative=("sky",))
    return ScoreCollector(Candidate((View.parse(view),), prompts, ClassPrompts(classes or {}, ()), method))


def measured(collector: ScoreCollector) -> Measurement:
    return collector.measurement(0.9, None)


def test_ranks_are_among_the_positive_prompts() -> None:
    collector = collector_of({"dog": frozenset({"a dog", "a puppy"})})
    others = [f"a thing {n}" for n in range(5)]
    for best in (["sky", "a puppy"], ["a cat", "sky", "a dog"], [*others, "a dog"], others):
        collector.add(component(best, p_pos_sum=0.7), image="1", kind="object", category="dog")
    collector.add(component(others, p_pos_sum=0.9), image="1", kind="object", category="cat")
    collector.add(
        Component(id="m", index=0, skipped=Skipped(code="empty_mask", message="")),
        image="1",
        kind="object",
        category="dog",
    )
    collector.add(component([], p_pos_sum=0.8), image="1", kind="background", category="rest")
    measurements = measured(collector)
    assert (measurements.objects, measurements.backgrounds, measurements.fragments, measurements.ranked) == (5, 1, 0, 4)
    assert measurements.top_1 is not None
    assert measurements.top_5 is not None
    assert (measurements.top_1.value, measurements.top_5.value) == (0.25, 0.5)
    assert measurements.skipped == {"empty_mask": 1}
    area = measurements.scores["p_pos_sum"].auroc["background"]
    assert area is not None
    assert area.value == 0.2
    assert measurements.scores["p_pos_sum"].auroc["fragment"] is None
    assert measurements.scores["s_pos - s_neg"].auroc["all"] is not None
    dogs, cats = measurements.classes["dog"], measurements.classes["cat"]
    assert (list(measurements.classes), dogs.objects, cats.objects) == (["dog", "cat"], 4, 1)
    assert (dogs.top_1 and dogs.top_1.value, cats.top_1) == (0.25, None)
    assert (dogs.auroc["p_pos_sum"], cats.auroc["p_pos_sum"]) == (Estimate(0.0, 0.0, 1.0), Estimate(1.0, 0.0, 1.0))


def test_cosines_have_no_sums() -> None:
    collector = collector_of(method="cosine")
    collector.add(component(["a dog"]), image="1", kind="object", category="dog")
    collector.add(component(["a dog"]), image="1", kind="fragment", category="half")
    measurements = measured(collector)
    assert (list(measurements.scores), measurements.main_scores) == (["s_pos - s_neg"], ["s_pos - s_neg"])
    assert measurements.scores["s_pos - s_neg"].auroc["fragment"] is not None
    # No probability, so nothing to be reliable.
    assert (measurements.scores["s_pos - s_neg"].brier, measurements.scores["s_pos - s_neg"].reliability) == (None, [])
    assert measurements.top_1 is None


def test_the_picture_shows_each_figure_that_there_is() -> None:
    classes = {"dog": frozenset({"a dog"})}
    averaged = "soft_mask=0.123456/context=0.123456"
    entries = []
    for view in ("blur/context", averaged):
        collector = collector_of(classes, view)
        for kind in ("object", "background"):
            collector.add(component(["a dog"], p_pos_sum=0.5), image="1", kind=kind, category="dog")
        entries.append(replace(measured(collector), prompts="<&>" if view == averaged else "p"))
    drawn = ET.fromstring(draw(entries))
    name = "{http://www.w3.org/2000/svg}"
    # No fragments: two of the three panels have a dot per row; a point of each curve, and one bin of reliability.
    assert len(drawn.findall(f".//{name}circle")) == 4 + 2 + 2
    texts = [text.text for text in drawn.findall(f".//{name}text")]
    assert "blur/context, p" in texts
    assert any("intervals by image" in (text or "") for text in texts)
    assert f"{averaged}, <&>" in texts
    assert f"{averaged}, <&>"[:37] + "…" in texts


def test_hand_made_masks_mean_what_cocos_code_says() -> None:
    image, drawn = labelled_image()
    rle = image.masks[0].mask.segmentation.model_dump()  # type: ignore[union-attr]
    assert coco.area(rle) == drawn[0].sum()


def test_independent_probabilities_are_measured_by_the_best_positive_one() -> None:
    collector = collector_of(method="sigmoid")
    for image, kind, s_pos, s_neg in (
        ("a", "object", 0.4, 0.39),
        ("b", "object", 0.2, 0.1),
        ("a", "background", 0.15, 0.0),
        ("b", "fragment", 0.3, 0.3),
    ):
        component = Component(id="m", index=0, s_pos=s_pos, s_neg=s_neg)
        collector.add(component, image=image, kind=kind, category="x")
    scores = measured(collector).scores
    assert {name: own.auroc["all"] and own.auroc["all"].value for name, own in scores.items()} == {
        "s_pos": 0.75,
        "s_pos - s_neg": 0.5,
    }
