"""A private Redis server with an append-only file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from maskscore.devstack import binaries, ports
from maskscore.devstack.server import Server
from maskscore.devstack.server_process import LocalServiceError, ServerProcess

# Jobs must neither be evicted nor lost with the process; the append-only file makes snapshots superfluous.
DEFAULTS = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',
    "maxmemory-policy": "noeviction",
}


@dataclass(frozen=True)
class LocalRedis:
    """A running Redis: ``url`` with the password in it (``redis://:…@127.0.0.1:port/0``), and its ``pid``."""

    url: str
    pid: int

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1, for a restart on the same one."""
        return urlsplit(self.url).port or 0

    @property
    def password(self) -> str:
        """The password, empty when there is none."""
        return unquote(urlsplit(self.url).password or "")


class RedisServer(Server[LocalRedis]):
    """Runs a Redis in ``directory`` for the length of the block; its data stays there for the next one.

    Parameters
    ----------
    directory: holds the append-only file, ``redis.conf`` and ``redis.log``; made if absent.
    port: ``None`` for a free one. Giving back an earlier server's ``port`` and ``password`` is a restart.
    password: ``None`` for a random one, ``""`` for none; letters and digits only.
    config: further lines of ``redis.conf``, value in the file's own syntax; they win over the defaults.

    The block may kill the server (``os.kill(redis.pid, …)``) and start another in the same directory.
    Raises `LocalServiceError`.
    """

    name = "Redis"
    port_taken = "address already in use"

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        password: str | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        if password and not password.isalnum():
            raise LocalServiceError("a local Redis takes a password of letters and digits only: choose another.")
        super().__init__(ServerProcess(self.name, directory, "redis.log"), port)
        self._directory = directory.absolute()
        self._bound = port or 0
        self._password = secrets.token_hex(24) if password is None else password
        self._config = {**DEFAULTS, **(config or {})}

    def launch(self) -> None:
        """Writes ``redis.conf`` and starts the process."""
        program = binaries.redis_server()
        self._bound = self._port or ports.free_port()
        # A file, and not arguments: every local user can read a process's arguments.
        file = self._directory / "redis.conf"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_text(self._configuration(), encoding="utf-8")
        except OSError as error:
            raise LocalServiceError(
                f"{file} could not be written: {error}. Use a directory that can be written."
            ) from error
        self._process.start([program, file.name], {"PATH": os.defpath, "LC_ALL": "C"})

    def _configuration(self) -> str:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self._bound),
            "dir": "./",
            "daemonize": "no",
            **({"requirepass": f'"{self._password}"'} if self._password else {}),
            **self._config,
        }
        for key, value in settings.items():
            if "\n" in key + value or "\r" in key + value:
                raise LocalServiceError(f"the Redis setting {key!r} holds a line break: remove it.")
        return "".join(f"{key} {value}\n" for key, value in settings.items())

    def _answers(self) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = redis.Redis(
            host="127.0.0.1",
            port=self._bound,
            password=self._password or None,
            socket_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            # The process id tells our server from an older one that still holds the port.
            return bool(client.ping()) and client.info("server")["process_id"] == self._process.pid
        except redis.RedisError:
            return False
        finally:
            client.close()

    def _address(self) -> LocalRedis:
        credentials = f":{self._password}@" if self._password else ""
        return LocalRedis(url=f"redis://{credentials}127.0.0.1:{self._bound}/0", pid=self._process.pid)
