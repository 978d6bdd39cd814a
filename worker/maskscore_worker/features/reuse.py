"""Less work: what makes a region's features, and which of a job's regions have none yet."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskscore.schema import ModelIdentity, View
from maskscore_worker.features.cache import FeatureCache
from maskscore_worker.masks import Region

__all__ = ["Reuse", "features_identity", "region_key"]

Features = npt.NDArray[np.float32]


def features_identity(
    data: bytes, view: View, model: ModelIdentity, *, orientation_applied: bool, release: str
) -> bytes:
    """Return a SHA-256 of all that makes the features of an image's regions under a view, but for the regions.

    ``data`` is the image's bytes. They are there anyway, and say more than an ETag: a file's is its size and time, and
    a copy under another name has the same features. The ``release`` is part of it because the next one may crop
    otherwise.
    """
    about = [release, hashlib.sha256(data).hexdigest(), orientation_applied, view.recipe, model.model_dump()]
    return hashlib.sha256(json.dumps(about).encode()).digest()


def region_key(region: Region, identity: bytes, *, masked: bool) -> bytes:
    """Return a SHA-256 of the region within its image: its box and, where the treatment looks at it, its mask.

    ``identity`` is :func:`features_identity`'s, or empty within one job. With ``masked=False`` (``raw_crop``) all
    masks of one box are the same.
    """
    digest = hashlib.sha256(identity)
    digest.update(struct.pack("<4q", *region.box))
    if masked:
        # As runs, which most masks come as: what is known needs no bits drawn.
        runs = region.runs
        digest.update(runs.starts.tobytes())
        digest.update(runs.stops.tobytes())
    return digest.digest()


class Reuse:
    """One view's features of one job's regions: each is encoded once, those in the cache are not encoded at all.

    Parameters
    ----------
    cache: where features of earlier jobs are; ``None``: nowhere.
    identity: what the keys in the cache begin with, see :func:`features_identity`.
    masked: whether the treatment looks at the mask.
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
        """Return the regions' keys; equal ones are of regions with the same features."""
        return [region_key(region, self._identity, masked=self._masked) for region in regions]

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Look the keys up, and return the positions of those to encode: the first one of each."""
        unknown = [key for key in dict.fromkeys(keys) if key not in self._features]
        if self._cache is not None and unknown:
            found = self._cache.get(unknown)
            self._features.update(found)
            self._from_cache.update(found)
        first = {key: position for position, key in reversed(list(enumerate(keys)))}
        return [first[key] for key in unknown if key not in self._features]

    def keep(self, keys: Sequence[bytes], features: Features) -> None:
        """Take the ``(n, D)`` features of regions that were missing."""
        new = dict(zip(keys, features, strict=True))
        self.encoded += len(new)
        self._features.update(new)
        if self._cache is not None:
            self._cache.put(new)

    def features(self, keys: Sequence[bytes]) -> Features:
        """Return the ``(n, D)`` float32 features of the keys, all of which are there by now."""
        return np.stack([self._features[key] for key in keys])

    def from_cache(self, keys: Sequence[bytes]) -> npt.NDArray[np.bool_]:
        """Return of which keys the features came from the cache, ``(n,)`` bool."""
        return np.array([key in self._from_cache for key in keys], bool)
