"""The deployment that is examined: its settings and connections."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import redis

from maskscore.broker import connect
from maskscore.settings import WorkerSettings
from maskscore.storage import s3_client

__all__ = ["Deployment"]


class Deployment:
    """The settings and their services, connected when they are first needed.

    Parameters
    ----------
    settings: of a worker; a producer's are part of them.
    timeout_s: seconds to wait for each answer of Redis and S3.

    ``reached`` names the services that have answered: ``redis``, ``s3``.
    """

    def __init__(self, settings: WorkerSettings, *, timeout_s: float) -> None:
        self.settings = settings.model_copy(update={"redis_timeout_s": timeout_s})
        self.timeout_s = timeout_s
        self.reached: set[str] = set()

    @cached_property
    def redis(self) -> redis.Redis:
        """The client of both sides. Raises :class:`~maskscore.errors.SettingsError` for an unusable URL."""
        return connect(self.settings)

    @cached_property
    def s3(self) -> Any:
        """A boto3 client that tries once. Raises ValueError for an unusable AWS_ENDPOINT_URL."""
        return s3_client(timeout_s=self.timeout_s, attempts=1)

    @property
    def needs_s3(self) -> bool:
        """Whether any setting names a bucket."""
        settings = self.settings
        return bool(settings.buckets or settings.result_buckets or settings.spill_uri)
