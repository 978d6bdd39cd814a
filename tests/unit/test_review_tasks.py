"""Masks to judge: which are chosen, in which order, and what Label Studio gets of each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from maskscore.errors import InvalidDocumentError
from maskscore.export import ExportCounts, ExportedMask, Parts, Selection
from maskscore.export.exported_mask import exported_mask
from maskscore.formats.label_studio_brush import decode_brush
from maskscore.masks import encode_mask
from maskscore.parts import ImageOutcome, part_names, part_tables, write_part
from maskscore.review.label_studio_tasks import labelling_configuration, shape_of, task_of
from maskscore.review.mask_sampling import DoubtMeasure, MaskSample, SampledMask, sample_masks
from maskscore.review.parts_sampling import sample_parts
from maskscore.review.review_run import _in_order
from maskscore.schema import Component, Head, ImageInfo, JobResult, JobState, Skipped

MARGIN = DoubtMeasure()


def scored(number: int, margin: float | None, **fields: Any) -> ExportedMask:
    image = number // 7
    given = {
        "image": f"s3://photos/{image}.jpg",
        "image_width": 60,
        "image_height": 40,
        "job_id": f"job-{image}",
        "mask_id": f"mask {number}",
        "mask_index": number % 7,
        "p_pos_sum": None if margin is None else 0.5 + margin / 2,
        "p_neg_sum": None if margin is None else 0.5 - margin / 2,
        **fields,
    }
    return ExportedMask(**given)


def many(count: int = 700) -> list[ExportedMask]:
    margins = np.random.default_rng(1).uniform(-1, 1, count)
    return [scored(number, float(margin)) for number, margin in enumerate(margins)]


def chosen(sample: MaskSample) -> list[list[str]]:
    return [[item.mask.mask_id for item in share] for share in (sample.doubtful, sample.random)]


def test_the_most_doubtful_come_first_and_are_not_of_the_random_share() -> None:
    masks = many()
    sample = sample_masks(masks, MARGIN, doubtful=50, random=30, seed=0)
    doubtful, random = chosen(sample)
    assert (len(doubtful), len(set(random)), sample.scored) == (50, 30, 700)
    assert not set(doubtful) & set(random)
    by_doubt = sorted(masks, key=lambda mask: abs((mask.p_pos_sum or 0) - (mask.p_neg_sum or 0)))
    assert doubtful == [mask.mask_id for mask in by_doubt if mask.mask_id not in random][:50]
    assert all(item.random for item in sample.random)
    assert not any(item.random for item in sample.doubtful)


def test_the_same_seed_draws_the_same_masks_whatever_the_order_and_the_jobs() -> None:
    masks = many()
    again = [mask.model_copy(update={"job_id": f"other-{mask.job_id}"}) for mask in reversed(masks)]
    first = chosen(sample_masks(masks, MARGIN, doubtful=50, random=30, seed=4))
    assert chosen(sample_masks(again, MARGIN, doubtful=50, random=30, seed=4)) == first
    assert chosen(sample_masks(masks, MARGIN, doubtful=50, random=30, seed=5)) != first


def test_every_mask_is_drawn_as_often_as_any_other() -> None:
    masks = many(40)
    drawn: Counter[str] = Counter()
    for seed in range(600):
        drawn.update(chosen(sample_masks(masks, MARGIN, doubtful=0, random=10, seed=seed))[1])
    # Of 600 draws with probability 1/4: 150, with a standard deviation of 11.
    assert len(drawn) == 40
    assert max(abs(count - 150) for count in drawn.values()) < 60


def test_fewer_masks_than_asked_for_are_all_taken() -> None:
    skipped = scored(90, None, skipped="empty_mask")
    sample = sample_masks([*many(20), skipped], MARGIN, doubtful=50, random=5, seed=0)
    assert [len(share) for share in chosen(sample)] == [15, 5]
    assert sample.scored == 20
    empty = sample_masks([skipped], MARGIN, doubtful=5, random=5, seed=0)
    assert (chosen(empty), empty.scored) == ([[], []], 0)


def test_doubt_is_by_any_number() -> None:
    values: list[Any] = [0.9, 0.86, None, math.nan, True, "0.88", 0.1]
    masks = [
        scored(number, 0.0, upstream={} if value is None else {"predicted_iou": value})
        for number, value in enumerate(values)
    ]
    measure = DoubtMeasure("predicted_iou", 0.88)
    sample = sample_masks(masks, measure, doubtful=7, random=0, seed=0)
    assert chosen(sample)[0] == ["mask 1", "mask 0", "mask 6"] or chosen(sample)[0] == ["mask 0", "mask 1", "mask 6"]
    assert (sample.scored, sample.measured) == (7, 3)
    cosine = scored(0, None, method="cosine", s_pos=0.3, s_neg=0.25)
    assert MARGIN.value_of(cosine) == pytest.approx(0.05)
    assert DoubtMeasure("s_pos", 0.2).value_of(cosine) == 0.3
    decided = scored(0, 0.0, p_keep=0.4, keep=False)
    assert DoubtMeasure("p_keep", 0.5).value_of(decided) == 0.4
    about: dict[str, Any] = {"name": "v1", "weights_digest": "w", "views": "original", "method": "softmax"}
    about |= {"prompts_digest": "p", "threshold": 0.3}
    threshold = {"kind": "threshold", "score": "s_pos - s_neg", "p_below": 0.1, "p_above": 0.9}
    by_threshold = DoubtMeasure.of_head(Head.model_validate({**about, "model": threshold}))
    assert by_threshold.threshold == 0.3
    assert by_threshold.value_of(cosine) == pytest.approx(0.05)
    platt = {"kind": "platt", "score": "s_pos", "slope": 1.0, "intercept": 0.0}
    assert DoubtMeasure.of_head(Head.model_validate({**about, "model": platt})) == DoubtMeasure("p_keep", 0.3)
    with pytest.raises(InvalidDocumentError, match=r"No mask has a number 'predicted_uio'.*predicted_iou"):
        sample_masks(masks, DoubtMeasure("predicted_uio", 0.5), doubtful=7, random=0, seed=0)
    with pytest.raises(InvalidDocumentError, match=r"'p_pos_sum'\. There are margin, s_neg, s_pos"):
        sample_masks([cosine], DoubtMeasure("p_pos_sum", 0.5), doubtful=7, random=0, seed=0)


def test_random_tasks_are_spread_evenly_among_the_doubtful() -> None:
    sample = sample_masks(many(), MARGIN, doubtful=60, random=20, seed=0)
    tasks = _in_order(sample, 0)
    assert sorted(item.mask.mask_id for task in tasks for item in task) == sorted(
        name for share in chosen(sample) for name in share
    )
    for task in tasks:
        assert len({(item.mask.job_id, item.random) for item in task}) == 1
    nearest = [task[0].doubt for task in tasks if not task[0].random]
    assert nearest == sorted(nearest, key=lambda doubt: doubt or 0)
    shares = [task[0].random for task in tasks]
    half = len(shares) // 2
    assert abs(sum(shares[:half]) - sum(shares[half:])) <= 1
    # Not by doubt: then those that a person judges before stopping would be the doubtful ones of the share.
    random = [task[0].doubt for task in tasks if task[0].random]
    assert random != sorted(random, key=lambda doubt: doubt or 0)


PHOTO = ImageInfo(uri="s3://photos/0.jpg", width=60, height=40, format="JPEG")


def blob() -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros((40, 60), np.bool_)
    mask[5:20, 10:50] = True
    mask[9:12, 20:30] = False
    return mask


def with_blob(**fields: Any) -> ExportedMask:
    rle = encode_mask(blob())
    return scored(0, 0.2, box=(10, 5, 40, 15), segmentation=rle.model_dump(), **fields)


def drawn_brush(image: ImageInfo) -> np.ndarray[Any, np.dtype[np.bool_]]:
    shape = shape_of(image, with_blob())
    assert (shape["type"], shape["value"]["brushlabels"], shape["value"]["format"]) == ("brushlabels", ["mask"], "rle")
    return decode_brush(bytes(shape["value"]["rle"]), shape["original_height"], shape["original_width"])


def test_a_mask_is_a_brush_with_its_pixels() -> None:
    np.testing.assert_array_equal(drawn_brush(PHOTO), blob())


def test_a_brush_is_turned_as_the_browser_turns_the_photo() -> None:
    # Orientation 6: the stored picture is turned clockwise to be seen.
    turned = PHOTO.model_copy(update={"exif_orientation": 6})
    np.testing.assert_array_equal(drawn_brush(turned), np.rot90(blob(), -1))
    # Scored the right way up already.
    upright = turned.model_copy(update={"orientation_applied": True})
    np.testing.assert_array_equal(drawn_brush(upright), blob())


def test_one_outline_is_a_polygon_and_several_are_a_brush() -> None:
    one = scored(0, 0.2, box=(6, 4, 30, 20), segmentation=[[6.0, 4.0, 36.0, 4.0, 36.0, 24.0]])
    shape = shape_of(PHOTO, one)
    assert shape["value"] == {
        "points": [[10.0, 10.0], [60.0, 10.0], [60.0, 60.0]],
        "closed": True,
        "polygonlabels": ["mask"],
    }
    both = [[6.0, 4.0, 36.0, 4.0, 36.0, 24.0, 6.0, 24.0], [40.0, 30.0, 50.0, 30.0, 50.0, 38.0, 40.0, 38.0]]
    two = scored(0, 0.2, box=(6, 4, 44, 34), segmentation=both)
    brush = shape_of(PHOTO, two)
    assert brush["type"] == "brushlabels"
    assert decode_brush(bytes(brush["value"]["rle"]), 40, 60).sum() == 30 * 20 + 10 * 8


def test_a_mask_of_another_size_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="another size"):
        shape_of(PHOTO.model_copy(update={"width": 61}), with_blob())


def test_a_task_says_which_mask_each_region_is() -> None:
    texts = {"s_pos": 0.6, "s_neg": 0.4, "s_pos_text": "a <dog>", "s_neg_text": "sky", "semantic_multiplier": 0.5}
    whole = SampledMask(with_blob(**texts), False, 0.2, 0.2, 1)
    part = SampledMask(with_blob(part=1), False, 0.1, 0.1, 2)
    shape = shape_of(PHOTO, with_blob())
    task = task_of(PHOTO, "http://x/0.jpg?sig", [(whole, shape), (part, shape)], MARGIN)
    assert task["data"]["image"] == "http://x/0.jpg?sig"
    about = task["data"]["maskscore"]
    assert (about["image"], about["job_id"]) == ("s3://photos/0.jpg", "job-0")
    assert about["regions"]["m0p1"] == {"mask_id": "mask 0", "part": 1, "random": False, "value": 0.1, "doubt": 0.1}
    [prediction] = task["predictions"]
    assert [result["id"] for result in prediction["result"]] == ["m0", "m0p1"] == list(about["regions"])
    assert prediction["score"] == 0.1
    [words] = prediction["result"][0]["meta"]["text"]
    assert words == "mask 0; a <dog> 0.600, sky 0.400; multiplier 0.5; margin +0.200, threshold 0"


def tags(classes: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    for element in ElementTree.fromstring(labelling_configuration(classes)).iter():
        yield element.tag, element.attrib


def test_the_configuration_has_the_choices() -> None:
    choices = [given for tag, given in tags(()) if tag == "Choice"]
    assert choices == [{"value": "keep", "hotkey": "1"}, {"value": "drop", "hotkey": "2"}]
    named = ("a <b> & \"c'", *map(str, range(9)))
    choices = [given for tag, given in tags(named) if tag == "Choice"]
    assert [given["value"] for given in choices] == list(named)
    assert [given.get("hotkey") for given in choices] == [*map(str, range(1, 10)), None]
    [control] = [given for tag, given in tags(named) if tag == "Choices"]
    assert (control["name"], control["perRegion"]) == ("class", "true")


def test_of_parts_the_same_masks_are_chosen(tmp_path: Path) -> None:
    """There are ties, masks without the number, parts of masks, skipped masks, and names with quotes and accents."""
    masks = []
    for number in range(60):
        margin = None if number % 9 == 4 else (number % 12) / 12
        part = None if number % 5 else number % 2
        skipped = Skipped(code="empty_mask", message="No pixel.") if number % 11 == 10 else None
        upstream = {"predicted_iou": [0.9, True, "0.5", 1][number % 4], "stability": 0.5} if number % 3 else {}
        masks.append(
            Component(
                id=f"it's {number}",
                index=number % 7,
                part=part,
                skipped=skipped,
                s_pos=None if margin is None or skipped else margin,
                s_neg=None if margin is None or skipped else 0.25,
                upstream=upstream,
            )
        )
    images = [f"s3://photos/é {number}.jpg" for number in range(9)]
    results = [
        JobResult(
            job_id="shard",
            state=JobState.SUCCEEDED,
            image=ImageInfo(uri=uri, width=6, height=4, format="JPEG"),
            components=masks[7 * number : 7 * number + 7],
        )
        for number, uri in enumerate(images)
    ]
    outcomes = [
        ImageOutcome(result, uri, segmentations=[None] * len(result.components))
        for result, uri in zip(results, images, strict=True)
    ]
    for number, some in enumerate((outcomes[:4], outcomes[4:])):
        write_part(part_tables(some, first_position=4 * number), part_names("shard", number), tmp_path)

    def sample_of_parts(measure: DoubtMeasure, **asked: int) -> MaskSample:
        with Parts(tmp_path).selected(Selection(), ExportCounts()) as selected:
            return sample_parts(selected, measure, **asked)

    exported = [
        exported_mask(result, component, rank_score=None, segmentation=None)
        for result in results
        for component in result.components
    ]
    for measure in (MARGIN, DoubtMeasure("s_pos - s_neg", 0.1), DoubtMeasure("predicted_iou", 0.95)):
        for asked in ({"doubtful": 20, "random": 9, "seed": 7}, {"doubtful": 0, "random": 99, "seed": -1}):
            found, wanted = sample_of_parts(measure, **asked), sample_masks(exported, measure, **asked)
            assert chosen(found) == chosen(wanted)
            for one, other in zip(found.doubtful + found.random, wanted.doubtful + wanted.random, strict=True):
                assert (one.key, one.random, one.mask.image) == (other.key, other.random, other.mask.image)
                assert (one.value, one.doubt) == pytest.approx((other.value, other.doubt))
                assert one.mask.s_pos == other.mask.s_pos
            assert (found.scored, found.measured) == (wanted.scored, wanted.measured)
    with pytest.raises(InvalidDocumentError, match=r"No mask has a number 'stabilty'; did you mean `stability`"):
        sample_of_parts(DoubtMeasure("stabilty", 0.5), doubtful=7, random=1, seed=0)
    with pytest.raises(InvalidDocumentError, match=r"'p_pos_sum'.*There are margin, .*s_neg, s_pos"):
        sample_of_parts(DoubtMeasure("p_pos_sum", 0.5), doubtful=7, random=1, seed=0)
