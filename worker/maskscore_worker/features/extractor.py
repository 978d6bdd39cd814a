"""The features of one job's regions: each region once under each view, averaged over the views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from maskscore.schema import ModelIdentity, View
from maskscore_worker.features.cache import FeatureCache
from maskscore_worker.features.feature_keys import features_identity, region_key
from maskscore_worker.masks import Region, SkippedRegion
from maskscore_worker.telemetry import StageTimer

__all__ = ["FeatureExtractor", "ViewFeatures", "average_views", "region_portions"]

Features = npt.NDArray[np.float32]


class _Encode(Protocol):
    def __call__(self, crops: Any, *, last: bool) -> Features: ...


class FeatureExtractor:
    """Extracts the features of one job, a portion of its regions at a time.

    What is encoded under a view is cached by view, so that other jobs can average it with other views.

    Parameters
    ----------
    image: the image's bytes, as they were fetched; with ``orientation_applied`` a part of the cache's keys.
    cache: features of earlier jobs; ``None``: there is no cache.
    """

    def __init__(
        self,
        image: bytes,
        orientation_applied: bool,
        views: Sequence[View],
        model: ModelIdentity,
        cache: FeatureCache | None,
    ) -> None:
        def identity(view: View) -> bytes:
            if cache is None:
                return b""
            return features_identity(
                image, view, model, orientation_applied=orientation_applied, release=metadata.version("maskscore")
            )

        self._views = [
            (view, ViewFeatures(cache, identity(view), masked=view.treatment != "raw_crop")) for view in views
        ]
        self.cached = 0
        """Regions for which nothing was encoded, because the cache had their features."""

    @property
    def encoded(self) -> int:
        """Crops that were encoded for this job, of all views."""
        return sum(known.encoded for _, known in self._views)

    def extract(
        self,
        regions: Sequence[Region],
        *,
        crop: Callable[[Sequence[Region], View], Any],
        encode: _Encode,
        timer: StageTimer,
        last: bool,
    ) -> Features:
        """Return the ``(n, D)`` float32, L2-normalised features of at least one region.

        ``crop`` makes the crops of regions under a view, ``encode`` their features; ``last``: no regions follow.
        """
        per_view = []
        from_cache = np.ones(len(regions), bool)
        for number, (view, known) in enumerate(self._views, 1):
            with timer.stage("encode"):
                keys = known.keys(regions)
                missing = known.missing(keys)
            if missing:
                with timer.stage("crops"):
                    crops = crop([regions[position] for position in missing], view)
                with timer.stage("encode"):
                    encoded = encode(crops, last=last and number == len(self._views))
                    known.add([keys[position] for position in missing], encoded)
            with timer.stage("encode"):
                per_view.append(known.features(keys))
                from_cache &= known.from_cache(keys)
        self.cached += int(from_cache.sum())
        return average_views(per_view)


def region_portions(
    regions: Iterator[Region | SkippedRegion], size: int, check: Callable[[], None], timer: StageTimer
) -> Iterator[tuple[list[Region | SkippedRegion], bool]]:
    """Yield regions in their order, with at most ``size`` to score at a time, and whether no more regions follow.

    A portion fills a batch: so many crops are in memory at a time, however many masks the job has.
    """
    last = False
    while not last:
        portion: list[Region | SkippedRegion] = []
        to_score = 0
        with timer.stage("regions"):
            while not last and to_score < size:
                # Per region, since masks that are skipped, or slow to draw, fill no batch.
                check()
                region = next(regions, None)
                if region is None:
                    last = True
                else:
                    portion.append(region)
                    to_score += isinstance(region, Region)
        if portion:
            yield portion, last


class ViewFeatures:
    """One view's features of one job's regions: each is encoded once, and not at all if the cache has it.

    Parameters
    ----------
    cache: features of earlier jobs; ``None``: there is no cache.
    identity: what the cache's keys begin with, see :func:`features_identity`.
    masked: whether the treatment depends on the mask.
    """

    def __init__(self, cache: FeatureCache | None, identity: bytes, *, masked: bool) -> None:
        self._cache = cache
        self._identity = identity
        self._masked = masked
        self._features: dict[bytes, Features] = {}
        self._from_cache: set[bytes] = set()
        self.encoded = 0
        """Regions that were encoded for this job."""

    def keys(self, regions: Sequence[Region]) -> list[bytes]:
        """Return the regions' keys; regions with equal keys have equal features."""
        return [region_key(region, self._identity, masked=self._masked) for region in regions]

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Look the keys up, and return the positions of those to encode: the first position of each key."""
        unknown = [key for key in dict.fromkeys(keys) if key not in self._features]
        if self._cache is not None and unknown:
            found = self._cache.get(unknown)
            self._features.update(found)
            self._from_cache.update(found)
        first = {key: position for position, key in reversed(list(enumerate(keys)))}
        return [first[key] for key in unknown if key not in self._features]

    def add(self, keys: Sequence[bytes], features: Features) -> None:
        """Take the ``(n, D)`` features of regions that were missing."""
        new = dict(zip(keys, features, strict=True))
        self.encoded += len(new)
        self._features.update(new)
        if self._cache is not None:
            self._cache.put(new)

    def features(self, keys: Sequence[bytes]) -> Features:
        """Return the ``(n, D)`` float32 features of keys, none of which may be missing any more."""
        return np.concatenate([self._features[key] for key in keys]).reshape(len(keys), -1)

    def from_cache(self, keys: Sequence[bytes]) -> npt.NDArray[np.bool_]:
        """Return for each key whether its features came from the cache, ``(n,)`` bool."""
        return np.array([key in self._from_cache for key in keys], bool)


def average_views(per_view: Sequence[Features]) -> Features:
    """Return the L2-normalised mean of ``(n, D)`` L2-normalised features; those of a single view unchanged."""
    if len(per_view) == 1:
        return per_view[0]
    mean = np.mean([features.astype(np.float64) for features in per_view], axis=0)
    # Opposite features have no mean direction; they stay zero rather than become NaN.
    lengths = np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    normalised: Features = (mean / lengths).astype(np.float32)
    return normalised
