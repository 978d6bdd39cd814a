"""Redis and S3 together."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from maskscore.devstack.redis_server import LocalRedis, RedisServer
from maskscore.devstack.s3_server import LocalS3, S3Server, client
from maskscore.devstack.server_process import LocalServiceError
from maskscore.processes import deferred_signals

_ADDRESSES = "services.json"


def write_for_owner(file: Path, text: str) -> None:
    """Write a file that only its owner can read. Raises `LocalServiceError`."""
    try:
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(text, "utf-8")
    except OSError as error:
        raise LocalServiceError(f"{file} could not be written: {error}.") from error


class LocalServices:
    """A context manager that runs a private Redis and a private S3 server side by side.

    Parameters
    ----------
    directory: their data stays there, in ``redis/`` and ``s3/``; ``None``: a temporary one, removed by `close`.
    same_address: keep ports and credentials in the directory, too (``services.json``, for its owner only), and take
        those of an earlier start, so that what was exported then is still right.
    """

    def __init__(self, directory: Path | None = None, *, same_address: bool = False) -> None:
        self._given = directory
        self._same_address = same_address
        self._directory: Path | None = None
        self._servers: tuple[RedisServer, S3Server] | None = None
        self._redis: LocalRedis | None = None
        self._s3: LocalS3 | None = None

    def start(self) -> None:
        """Starts both and returns when both answer; on any exception, nothing is left running.

        Raises `LocalServiceError`.
        """
        if self._servers is not None:
            raise LocalServiceError("these local services run already: close them before starting again.")
        try:
            with deferred_signals():
                self._directory = self._given or Path(tempfile.mkdtemp(prefix="maskscore-"))
            known = self._known_addresses()
            redis = RedisServer(
                self._directory / "redis", port=known.get("redis_port"), password=known.get("redis_password")
            )
            s3 = S3Server(self._directory / "s3", port=known.get("s3_port"), secret_key=known.get("s3_secret_key"))
            self._servers = (redis, s3)
            s3.launch()
            redis.launch()
            self._redis = redis.wait()
            self._s3 = s3.wait()
            if self._same_address:
                self._keep_addresses()
        except BaseException:
            self.close()
            raise

    @property
    def directory(self) -> Path:
        """Where the data lies. Raises `LocalServiceError` when they were not started."""
        if self._directory is None:
            raise LocalServiceError("the local services are not running: use LocalServices in a with statement.")
        return self._directory

    def _known_addresses(self) -> dict[str, Any]:
        file = self.directory / _ADDRESSES
        if not self._same_address or not file.is_file():
            return {}
        try:
            known = json.loads(file.read_text("utf-8"))
            if isinstance(known, dict) and known.keys() >= {"redis_port", "redis_password", "s3_port", "s3_secret_key"}:
                return known
        except (OSError, ValueError) as error:
            raise LocalServiceError(f"{file} cannot be read: {error}. Remove it to get new ports.") from error
        raise LocalServiceError(f"{file} does not hold ports and passwords. Remove it to get new ones.")

    def _keep_addresses(self) -> None:
        document = {
            "redis_port": self.redis.port,
            "redis_password": self.redis.password,
            "s3_port": urlsplit(self.s3.endpoint_url).port,
            "s3_secret_key": self.s3.secret_key,
        }
        write_for_owner(self.directory / _ADDRESSES, json.dumps(document) + "\n")

    @property
    def redis(self) -> LocalRedis:
        """The Redis server. Raises `LocalServiceError` when it was not started."""
        if self._redis is None:
            raise LocalServiceError("the local Redis is not running: use LocalServices in a with statement.")
        return self._redis

    @property
    def s3(self) -> LocalS3:
        """The S3 server. Raises `LocalServiceError` when it was not started."""
        if self._s3 is None:
            raise LocalServiceError("the local S3 is not running: use LocalServices in a with statement.")
        return self._s3

    def environment(self) -> dict[str, str]:
        """The variables that make a client or worker use these services, to be laid over the present ones.

        Besides the address and the credentials they switch off what would get in between: a session token, an
        endpoint for S3 alone, a proxy.
        """
        past_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        direct = ",".join(filter(None, [past_proxy, "127.0.0.1"]))
        return {
            "MASKSCORE_REDIS_URL": self.redis.url,
            "AWS_ENDPOINT_URL": self.s3.endpoint_url,
            "AWS_ENDPOINT_URL_S3": self.s3.endpoint_url,
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
            "AWS_ACCESS_KEY_ID": self.s3.access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret_key,
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": self.s3.region,
            "AWS_REGION": self.s3.region,
            "NO_PROXY": direct,
            "no_proxy": direct,
        }

    def create_bucket(self, name: str) -> None:
        """Makes the bucket ``name`` (three characters or more), unless it is there already.

        Raises `LocalServiceError` when the server refuses.
        """
        from maskscore.storage import S3_ERRORS

        s3 = client(self.s3)
        try:
            s3.create_bucket(Bucket=name)
        except s3.exceptions.BucketAlreadyOwnedByYou:
            return
        except S3_ERRORS as error:
            raise LocalServiceError(
                f"the bucket {name!r} could not be made: {error}. "
                "Use 3 to 63 lower-case letters, digits, dots and hyphens."
            ) from error
        finally:
            s3.close()

    def close(self) -> None:
        """Stops both servers and removes the temporary directory. Safe to repeat."""
        with deferred_signals():
            for server in self._servers or ():
                server.terminate()
            for server in self._servers or ():
                server.stop()
            self._servers = self._redis = self._s3 = None
            if self._given is None and self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> LocalServices:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
