"""The feature extractor encodes each region of a job once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from maskscore.masks import encode_mask
from maskscore.schema.job import Frame, Mask, Treatment, View
from maskscore.schema.result import ModelIdentity
from maskscore_worker.batching import Batcher
from maskscore_worker.features.cache import FeatureCache
from maskscore_worker.features.extractor import Features, ViewFeatures
from maskscore_worker.features.feature_keys import features_identity, region_key
from maskscore_worker.features.sqlite_cache import SqliteFeatureStore
from maskscore_worker.masks.regions import Region, find_regions

MODEL = ModelIdentity(architecture="A", weights_digest="sha256:1", image_size=8, precision="fp32", crop_mode="fast")


def regions_of(*drawn: np.ndarray) -> list[Region]:
    masks = [Mask.model_validate({"id": str(n), "segmentation": encode_mask(mask)}) for n, mask in enumerate(drawn)]
    height, width = drawn[0].shape
    found = find_regions(masks, height=height, width=width, min_area=1, split_components=False)
    return [region for region in found if isinstance(region, Region)]


@pytest.fixture
def regions() -> list[Region]:
    """Five masks: 0, 2 and 4 are the same; 1 has their box and area but other bits; 3 lies elsewhere."""
    first = np.zeros((20, 30), bool)
    first[2:8, 3:9] = True
    other = first.copy()
    first[4, 4] = other[5, 5] = False
    return regions_of(first, other, first.copy(), np.roll(first, 5, axis=1), first.copy())


@contextmanager
def running() -> Iterator[Batcher]:
    """A batcher whose features are the mean and the sum of each crop."""

    def encode(crops: np.ndarray) -> Features:
        flat = crops.reshape(len(crops), -1).astype(np.float32)
        return np.stack([flat.mean(axis=1), flat.sum(axis=1)], axis=1)

    batcher = Batcher(encode, max_batch=4, max_wait_s=0)
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.close()


def encoded_through(known: ViewFeatures, batcher: Batcher, regions: list[Region]) -> Features:
    keys = known.keys(regions)
    missing = known.missing(keys)
    if missing:
        crops = np.stack([np.full((2, 2), regions[n].box[0] * 100 + regions[n].bits[2, 1]) for n in missing])
        known.add([keys[n] for n in missing], batcher.encode(crops))
    return known.features(keys)


def test_equal_masks_are_encoded_once_and_each_gets_its_features(regions: list[Region]) -> None:
    known = ViewFeatures(None, b"", masked=True)
    with running() as batcher:
        features = encoded_through(known, batcher, regions)
        again = encoded_through(known, batcher, regions[2:])
        assert batcher.stats().crops == 3
    assert features[:, 0].tolist() == [300.0, 301.0, 300.0, 800.0, 300.0]
    np.testing.assert_array_equal(again, features[2:])
    assert known.encoded == 3
    assert not known.from_cache(known.keys(regions)).any()


def test_a_treatment_that_does_not_look_at_the_mask_needs_one_crop_per_box(regions: list[Region]) -> None:
    known = ViewFeatures(None, b"", masked=False)
    with running() as batcher:
        encoded_through(known, batcher, regions)
        assert batcher.stats().crops == 2


def test_the_next_job_finds_the_features_in_the_cache(regions: list[Region], tmp_path: Path) -> None:
    cache = FeatureCache(lambda: SqliteFeatureStore(tmp_path, max_bytes=1 << 20), place="disk", dimensions=2)
    with running() as batcher:
        first = ViewFeatures(cache, b"image", masked=True)
        features = encoded_through(first, batcher, regions[:2])
        second = ViewFeatures(cache, b"image", masked=True)
        np.testing.assert_array_equal(encoded_through(second, batcher, regions)[:3], features[[0, 1, 0]])
        assert batcher.stats().crops == 3
        third = ViewFeatures(cache, b"another image", masked=True)
        encoded_through(third, batcher, regions)
        assert batcher.stats().crops == 6
    cache.close()
    # Four of five components, of which two are equal to the first, came from the cache.
    assert [first.encoded, second.encoded, third.encoded] == [2, 1, 3]
    counts = [int(known.from_cache(known.keys(regions)).sum()) for known in (first, second, third)]
    assert counts == [0, 4, 0]


def test_whatever_changes_the_features_changes_the_key(regions: list[Region]) -> None:
    def identity(data: bytes = b"x", turned: bool = False, release: str = "1", model: ModelIdentity = MODEL) -> bytes:
        return features_identity(data, View(), model, orientation_applied=turned, release=release)

    others = [
        identity(b"y"),
        identity(turned=True),
        identity(release="2"),
        *(
            identity(model=MODEL.model_copy(update=change))
            for change in (
                {"architecture": "B"},
                {"weights_digest": "sha256:2"},
                {"precision": "bf16"},
                {"crop_mode": "reference"},
                {"image_size": 9},
            )
        ),
    ]
    assert len({identity(), *others}) == 9
    assert region_key(regions[0], identity(), masked=True) == region_key(regions[2], identity(), masked=True)
    keys = {region_key(region, identity(), masked=True) for region in regions}
    keys |= {region_key(regions[0], other, masked=True) for other in others}
    assert len(keys) == 3 + 8


def test_each_number_of_a_view_counts_only_where_it_is_used() -> None:
    def identity(**view: object) -> bytes:
        return features_identity(b"x", View.model_validate(view), MODEL, orientation_applied=False, release="1")

    for treatment, frame, name in (
        ("soft_mask", "cut", "alpha"),
        ("blur", "cut", "blur"),
        ("raw_crop", "context", "context"),
    ):
        used: dict[str, object] = {"treatment": treatment, "frame": frame}
        assert identity(**used, **{name: 0.15}) != identity(**used, **{name: 0.2})
        assert identity(**{name: 0.15}) == identity(**{name: 0.2}) == identity()
    views = [{"treatment": treatment, "frame": frame} for treatment in get_args(Treatment) for frame in get_args(Frame)]
    assert len({identity(**view) for view in views}) == 15
