"""Objects by URI, ``s3://bucket/key`` and ``file:///path``: what is allowed, below a size, with errors to act on."""

from __future__ import annotations

from maskscore.objects.failures import What
from maskscore.objects.store import FetchedObject, ListedObject, Objects

__all__ = ["FetchedObject", "ListedObject", "Objects", "What"]
