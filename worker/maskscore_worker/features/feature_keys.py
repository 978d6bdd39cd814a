"""The keys that features are cached by: hashes of everything that determines a feature."""

from __future__ import annotations

import hashlib
import json
import struct

from maskscore.schema import ModelIdentity, View
from maskscore_worker.masks import Region

__all__ = ["features_identity", "region_key"]


def features_identity(
    image: bytes, view: View, model: ModelIdentity, *, orientation_applied: bool, release: str
) -> bytes:
    """Return a SHA-256 of all that determines the features of an image's regions under a view, except the regions.

    ``image`` is the image's bytes: they are in memory anyway, and are safer than an ETag, which for a file is its size
    and time, and differs between copies. The ``release`` is part of it because another one may crop differently.
    """
    parts = [release, hashlib.sha256(image).hexdigest(), orientation_applied, view.recipe, model.model_dump()]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def region_key(region: Region, identity: bytes, *, masked: bool) -> bytes:
    """Return a SHA-256 of the region within its image: its box and, where the treatment depends on it, its mask.

    ``identity`` is :func:`features_identity`'s, or empty within one job. With ``masked=False`` (``raw_crop``) all
    masks of one box have the same key.
    """
    key = hashlib.sha256(identity + struct.pack("<4q", *region.box))
    if masked:
        # As runs, which most masks come as: for a known key no bits need to be drawn.
        key.update(region.runs.edges.data)
    return key.digest()
