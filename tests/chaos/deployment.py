"""The deployment of all chaos tests: Redis and S3 behind proxies, three workers, a client, the undisturbed results."""

from __future__ import annotations

import math
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import redis

from chaos.chaos_profile import PROFILE
from chaos.fleet import Fleet
from chaos.jobs import BUCKET, Corpus, make_corpus, make_documents
from chaos.proxy import TcpProxy
from chaos.s3_faults import S3FaultProxy
from chaos.scenario import Load, Redelivery, Resumption
from maskscore import Client, ClientSettings, Job
from maskscore.devstack import LocalRedis, LocalServices, RedisServer
from maskscore_worker.demo.run import DEMO_WEIGHTS
from process_environment import patched_environment

__all__ = ["CONCURRENCY", "WORKERS", "Deployment", "open_deployment", "own_worker"]

WORKERS: Final = 3
CONCURRENCY: Final = 4
"""Jobs that each of them has in hand at most."""

_DISTINCT = 24


class Deployment:
    """See :func:`open_deployment`. ``server`` and ``observer`` reach Redis directly, ``client`` and workers do not."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._services = stack.enter_context(LocalServices(directory / "services"))
        self._redis: LocalRedis = self._services.redis
        stack.enter_context(patched_environment(self._services.environment()))
        self._services.create_bucket(BUCKET)
        self.redis_proxy = stack.enter_context(TcpProxy(self._redis.port))
        self.s3_proxy = stack.enter_context(S3FaultProxy(urlsplit(self._services.s3.endpoint_url).port or 0))
        # Its annotations leave open whether an answer is to be awaited.
        self.server: Any = redis.Redis.from_url(self._redis.url, socket_timeout=60)
        stack.callback(self.server.close)
        self.environment = {
            **self._services.environment(),
            "MASKSCORE_REDIS_URL": self.redis_url,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.s3_proxy.port}",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.s3_proxy.port}",
            "MASKSCORE_NAMESPACE": f"chaos-{uuid.uuid4().hex[:8]}",
            "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
            "MASKSCORE_PROMPTS": "demo",
            "MASKSCORE_BUCKETS": BUCKET,
            "MASKSCORE_RESULT_BUCKETS": BUCKET,
            "MASKSCORE_CONCURRENCY": str(CONCURRENCY),
            "MASKSCORE_TORCH_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            **PROFILE.settings,
        }
        self.client = stack.enter_context(self.new_client())
        self.observer = stack.enter_context(self.new_client(url=self._redis.url))
        self.fleet = stack.enter_context(Fleet(self.environment, directory / "fleet"))
        self.fleet.bring_to(WORKERS)
        self.documents: list[Job] = make_documents(_DISTINCT)
        self.corpus: Corpus = make_corpus(self.client, self.documents)

    @property
    def redis_url(self) -> str:
        """Redis through the proxy."""
        return f"redis://:{self._redis.password}@127.0.0.1:{self.redis_proxy.port}/0"

    @property
    def redis_port(self) -> int:
        """Redis past the proxy."""
        return self._redis.port

    @property
    def redis_pid(self) -> int:
        """The Redis server's process."""
        return self._redis.pid

    def new_client(self, namespace: str | None = None, *, url: str | None = None) -> Client:
        """A client of the deployment's namespace or another one, through the proxy or to another URL."""
        return Client(
            ClientSettings(
                redis_url=url or self.redis_url,
                namespace=namespace or self.environment["MASKSCORE_NAMESPACE"],
                redis_timeout_s=PROFILE.redis_timeout_s,
            )
        )

    def load(
        self, name: str, *, ahead: int = 150, per_s: float = math.inf, special: Mapping[int, Job] | None = None
    ) -> Load:
        """A load of the deployment's corpus, in a batch of its own; see :class:`~chaos.scenario.Load`."""
        return Load(
            self.client,
            self.observer,
            self.server,
            self.corpus,
            f"{name}-{uuid.uuid4().hex[:6]}",
            ahead=ahead,
            per_s=per_s,
            special=special,
        )

    def redelivery(self, worker: str) -> Redelivery:
        """Start the clock for the jobs that this worker, just killed, has in hand."""
        return Redelivery(self.observer, self.server, worker)

    def resumption(self, load: Load) -> Resumption:
        """Start the clock, at the end of a fault, for all workers to take jobs again."""
        return Resumption(self.observer, self.server, load, [worker.name for worker in self.fleet.workers])

    def wait_redis_gone(self) -> None:
        """Wait for the end of a Redis that was signalled."""
        while Path(f"/proc/{self._redis.pid}").exists() and not _is_zombie(self._redis.pid):
            time.sleep(0.01)

    def start_redis_again(self, *, empty: bool = False) -> None:
        """Start Redis, which has ended, on its port, with its data or without any."""
        if empty:
            shutil.rmtree(self._directory / "services" / "redis" / "appendonlydir")
        again = RedisServer(
            self._directory / "services" / "redis", port=self._redis.port, password=self._redis.password
        )
        self._redis = self._stack.enter_context(again)

    def heal(self) -> None:
        """End every fault and have all workers back."""
        self.redis_proxy.pass_on()
        self.s3_proxy.pass_on()
        self.fleet.bring_to(WORKERS)

    def say(self, text: str) -> None:
        """Print what is done, with the time, for who reads along."""
        print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)


@contextmanager
def open_deployment(directory: Path) -> Iterator[Deployment]:
    """Start everything; at the end of the block nothing of it is left."""
    with ExitStack() as stack:
        yield Deployment(directory, stack)


def _is_zombie(pid: int) -> bool:
    # proc(5): the state follows the name, which is in parentheses.
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"


@contextmanager
def own_worker(deployment: Deployment, folder: Path, **settings: str) -> Iterator[tuple[Fleet, Client]]:
    """One worker with a namespace and settings of its own, and a client of it."""
    namespace = f"{deployment.environment['MASKSCORE_NAMESPACE']}-{folder.name[:20]}"
    environment = {**deployment.environment, "MASKSCORE_NAMESPACE": namespace, **settings}
    with Fleet(environment, folder / "fleet") as fleet, deployment.new_client(namespace) as client:
        fleet.bring_to(1)
        yield fleet, client
