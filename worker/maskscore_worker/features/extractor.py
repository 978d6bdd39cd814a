"""The features of one job's regions: made under each of its views, each one once, and averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from maskscore.schema import View
from maskscore_worker.batcher import Caller
from maskscore_worker.crops import ImageCrops
from maskscore_worker.features.cache import FeatureCache
from maskscore_worker.features.reuse import Reuse
from maskscore_worker.masks import Region
from maskscore_worker.telemetry import Stopwatch

__all__ = ["ViewedFeatures", "averaged"]

Features = npt.NDArray[np.float32]


class ViewedFeatures:
    """Takes portions of a job's regions; what one view has encoded stands in the cache for other jobs' averages, too.

    Parameters
    ----------
    cache: where features of earlier jobs are; ``None``: nowhere.
    identity: what the cache's keys begin with under a view; see :func:`~maskscore_worker.features.features_identity`.
    """

    def __init__(self, views: Sequence[View], cache: FeatureCache | None, identity: Callable[[View], bytes]) -> None:
        self._views = [
            (view, Reuse(cache, identity(view) if cache else b"", masked=view.treatment != "raw_crop"))
            for view in views
        ]
        self.cached = 0
        """Regions for which nothing was encoded, thanks to the cache."""

    @property
    def encoded(self) -> int:
        """Crops that were encoded for this job, of all views."""
        return sum(reuse.encoded for _, reuse in self._views)

    def of(
        self,
        regions: Sequence[Region],
        opened: ImageCrops,
        caller: Caller,
        watch: Stopwatch,
        check: Callable[[], None],
        *,
        last: bool,
    ) -> Features:
        """Return ``(n, D)`` L2-normalised features; ``last``: no regions come after these."""
        per_view = []
        from_cache = np.ones(len(regions), bool)
        for number, (view, reuse) in enumerate(self._views, 1):
            with watch.stage("encode"):
                keys = reuse.keys(regions)
                missing = reuse.missing(keys)
            if missing:
                with watch.stage("crops"):
                    crops = opened.make([regions[position] for position in missing], view, check)
                with watch.stage("encode"):
                    encoded = caller.encode(crops, last=last and number == len(self._views))
                    reuse.keep([keys[position] for position in missing], encoded)
            with watch.stage("encode"):
                per_view.append(reuse.features(keys))
                from_cache &= reuse.from_cache(keys)
        self.cached += int(from_cache.sum())
        return averaged(per_view)


def averaged(per_view: Sequence[Features]) -> Features:
    """Return the L2-normalised mean of ``(n, D)`` L2-normalised features; of one view's these are they themselves."""
    if len(per_view) == 1:
        return per_view[0]
    mean = np.mean([features.astype(np.float64) for features in per_view], axis=0)
    # Opposite features have no mean direction; they stay zero rather than become NaN.
    lengths = np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    normalised: Features = (mean / lengths).astype(np.float32)
    return normalised
