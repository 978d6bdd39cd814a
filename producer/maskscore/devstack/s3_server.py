"""A private S3 server: SeaweedFS in its single-process form."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskscore.devstack import binaries, ports
from maskscore.devstack.server import Server
from maskscore.devstack.server_process import ServerProcess

REGION = "us-east-1"
# Always the same (the secret key is random): SeaweedFS derives a bucket's owner from it, and a bucket must still
# belong to us when a server starts again in its directory.
ACCESS_KEY = "MASKSCORELOCAL"
PARTS = ("s3", "master", "volume", "filer", "admin")

# `weed mini` rather than `weed server`: it answers in 0.8 s instead of 3 s, and stops in 2 s instead of 25 s.
FLAGS = (
    "-dir=.",
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-metricsPort=0",
    "-master.telemetry=false",
    "-master.volumeSizeLimitMB=512",
    # Every bucket takes at least one volume; volumes are made when first written to.
    "-volume.max=1000",
    "-volume.preStopSeconds=0",
    "-s3.iam=false",
    # As any other S3: an upload to a bucket that is not there is an error, not a bucket of a misspelt name.
    "-s3.autoCreateBucket=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-webdav=false",
    "-admin.ui=false",
    # Relative, because the path of a Unix socket may have some 100 characters only.
    "-s3.localSocket=s3.sock",
    "-filer.localSocket=filer.sock",
)


@dataclass(frozen=True)
class LocalS3:
    """A running S3 server: ``http://127.0.0.1:port``, the only credentials it takes, its process id."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str
    pid: int


class S3Server(Server[LocalS3]):
    """Runs an S3 server in ``directory`` for the length of the block; its data stays there for the next one.

    Parameters
    ----------
    directory: holds the objects and ``s3.log``; made if absent.
    port: of the S3 endpoint; ``None`` for a free one.
    access_key, secret_key: ``None`` for a fixed key with a random secret.

    Raises `LocalServiceError`.
    """

    name = "SeaweedFS"
    port_taken = "port allocation failed"

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        super().__init__(ServerProcess(self.name, directory, "s3.log"), port)
        self._access_key = access_key or ACCESS_KEY
        self._secret_key = secret_key or secrets.token_hex(20)
        self._endpoint_url = ""
        self._sockets: list[Path] = []
        self._client: Any = None

    def launch(self) -> None:
        """Starts the process on five pairs of ports, one of them for S3."""
        program = binaries.weed()
        pairs = dict(zip(PARTS, ports.free_port_pairs(len(PARTS)), strict=True))
        if self._port is not None:
            pairs["s3"] = (self._port, pairs["s3"][1])
        flags = [f"-{part}.port={http}" for part, (http, _) in pairs.items()]
        flags += [f"-{part}.port.grpc={grpc}" for part, (_, grpc) in pairs.items()]
        # SeaweedFS has these paths built in and leaves some of the files behind.
        self._sockets = [Path(f"/tmp/seaweedfs-{part}-grpc-{grpc}.sock") for part, (_, grpc) in pairs.items()]
        self._endpoint_url = f"http://127.0.0.1:{pairs['s3'][0]}"
        self._client = None
        # Nothing of the caller's environment: WEED_…, S3_… and the home directory configure SeaweedFS too.
        environment = {
            "PATH": os.defpath,
            "HOME": ".",
            "AWS_ACCESS_KEY_ID": self._access_key,
            "AWS_SECRET_ACCESS_KEY": self._secret_key,
        }
        self._process.start([program, "-logdir=.", "mini", *FLAGS, *flags], environment)

    def _answers(self) -> bool:
        from maskscore.storage import S3_ERRORS

        if self._client is None:
            self._client = client(self._address(), timeout=2)
        try:
            self._client.list_buckets()
        except S3_ERRORS:
            return False
        return True

    def _address(self) -> LocalS3:
        return LocalS3(self._endpoint_url, self._access_key, self._secret_key, REGION, self._process.pid)

    def stop(self) -> None:
        """Ends the process and removes the sockets it leaves in ``/tmp``."""
        super().stop()
        if self._client is not None:
            self._client.close()
        for path in self._sockets:
            path.unlink(missing_ok=True)


def client(s3: LocalS3, *, timeout: float = 30) -> Any:
    """A boto3 client of ``s3`` that tries once, for ``timeout`` seconds, and uses no proxy."""
    from maskscore.storage import private_s3_client

    return private_s3_client(
        s3.endpoint_url, access_key=s3.access_key, secret_key=s3.secret_key, region=s3.region, timeout_s=timeout
    )
