"""The one error of this package."""

from __future__ import annotations

from maskscore.errors import MaskscoreError


class LocalServiceError(MaskscoreError):
    """A local server is not installed, did not start, or died before it answered."""

    code = "local_service_failed"
