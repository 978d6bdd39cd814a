"""A worker with the least rights in Redis, foreign messages in its queue, and Celery's remote control."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from PIL import Image

from maskscore import AsyncClient, Client, ClientSettings, Job, JobState, Mask, ScoringOptions
from maskscore.broker.celery_queue import make_app
from maskscore.broker.redis_rights import acl_rule, missing_right
from maskscore.devstack import RedisServer
from maskscore.devstack.ports import free_port
from maskscore.doctor.examination import examine
from maskscore.ledger import Ledger, Submission
from maskscore.schema.document import pack
from maskscore.settings import WorkerSettings
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.jobs.message_filter import rejection_reason
from scrape import get, scrape
from waiting import until
from worker_process import WorkerProcess, start_worker

NAMESPACE = "ops"


@dataclass
class Site:
    admin: Any
    settings: ClientSettings
    environment: dict[str, str]
    worker: WorkerProcess
    client: Client
    app: Celery
    port: int
    job: Job

    def score(self) -> JobState:
        job = self.job.model_copy(update={"job_id": uuid.uuid4().hex})
        return self.client.submit(job).wait(timeout=60).state

    def put_only(self) -> str:
        """A job that is queued by the ledger alone."""
        job = self.job.model_copy(update={"job_id": uuid.uuid4().hex})
        ledger = Ledger(self.admin, namespace=NAMESPACE, ttl_s=60)
        ledger.submit([Submission(job.job_id, pack(job), job.job_id, None, "normal", None)])
        return job.job_id

    def control(self, command: str, **arguments: Any) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []

        def asked() -> bool:
            answers.extend(self.app.control.broadcast(command, arguments=arguments, reply=True, timeout=5, limit=1))
            return bool(answers)

        until(asked, f"the worker answers {command}")
        return [answer for each in answers for answer in each.values()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    Image.new("RGB", (64, 48), (200, 30, 30)).save(folder / "a.png")
    job = Job(
        image=f"file://{folder}/a.png",
        masks=[Mask(id="1", segmentation=[[10, 10, 40, 10, 40, 30, 10, 30]])],
        options=ScoringOptions(prompts="demo"),
    )
    with RedisServer(folder / "redis") as server, redis.Redis.from_url(server.url) as admin:
        untyped: Any = admin
        untyped.execute_command("ACL", "SETUSER", "ops", "on", ">pw", *acl_rule(NAMESPACE).split())
        port = free_port()
        environment = {
            "MASKSCORE_REDIS_URL": f"redis://ops:pw@127.0.0.1:{server.port}/0",
            "MASKSCORE_NAMESPACE": NAMESPACE,
            "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
            "MASKSCORE_PROMPTS": "demo",
            "MASKSCORE_FILE_ROOTS": str(folder),
            "MASKSCORE_HTTP_PORT": str(port),
            "MASKSCORE_HTTP_HOST": "127.0.0.1",
        }
        settings = ClientSettings(redis_url=environment["MASKSCORE_REDIS_URL"], namespace=NAMESPACE)
        app = make_app(settings)
        with start_worker(environment, folder / "worker") as worker, Client(settings) as client:
            until(lambda: get(port, "/readyz")[0] == 200, "the worker is ready")
            yield Site(admin, settings, environment, worker, client, app, port, job)
        app.close()


def message(args: Any = None, *, body: bytes | None = None, **changes: Any) -> bytes:
    """A message as Celery sends it, with changes: of its envelope, or of its headers or properties by name."""
    if body is None:
        body = json.dumps([["x"] if args is None else args, {}, {"callbacks": None, "errbacks": None}]).encode()
    headers: dict[str, Any] = {
        "lang": "py",
        "task": "maskscore.score",
        "id": uuid.uuid4().hex,
        "root_id": "x",
        "parent_id": None,
    }
    headers |= {"group": None, "argsrepr": "", "retries": 0, "eta": None, "expires": None, "timelimit": [None, None]}
    properties: dict[str, Any] = {
        "correlation_id": "x",
        "reply_to": "x",
        "delivery_mode": 2,
        "priority": 3,
        "body_encoding": "base64",
    }
    properties |= {
        "delivery_info": {"exchange": "", "routing_key": NAMESPACE},
        "delivery_tag": uuid.uuid4().hex,
    }
    envelope = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    for name, value in changes.items():
        place = next((part for part in (headers, properties) if name in part), envelope)
        place[name.replace("_type", "-type") if name == "content_type" else name] = value
    return json.dumps(envelope).encode()


FOREIGN: dict[str, bytes] = {
    "pickle": message(body=b"cos\nsystem\n(S'true'\ntR.", content_type="application/x-python-serialize"),
    "unknown content type": message(content_type="application/x-foo"),
    "YAML": message(body=b"!!python/object/apply:os.system ['true']", content_type="application/x-yaml"),
    "unknown task": message(task="os.system"),
    "a task that is a list": message(task=["maskscore.score"]),
    "an object for an id": message([{"a": 1}]),
    "a list for an id": message([["x"]]),
    "null for an id": message([None]),
    "a path for an id": message(["../../x"]),
    "three arguments": message(["x", "y", "z"]),
    "no arguments": message([]),
    "a long id": message(["x" * 100_000]),
    "a body that is not base64": message().replace(b'"body": "', b'"body": "!!!'),
    "a body that is not JSON": message(body=b"hello"),
    "a body that is a number": message(body=b"7"),
    "a deep body": message(body=b"[" * 100_000),
    "no body": message(body=b"").replace(b'"body": ""', b'"body": null'),
    "headers that are a list": message(headers=[]),
    "headers without an id": message(id=None),
    "retries that are no number": message(retries="x"),
    "a limit of its own": message(timelimit=5),
    "a time of its own": message(eta="garbage"),
    "no delivery tag": message(delivery_tag=None),
    "no delivery info": message(delivery_info=None),
    "an unknown body encoding": message(body_encoding="rot13"),
    "garbage": b"garbage",
    "bytes": b"\xff\xfe\0",
    "deep": b"[" * 100_000,
    "{}": b"{}",
    "[]": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "a number": b"1",
    "only a body": b'{"body":"x"}',
}


def test_our_own_messages_are_ours() -> None:
    assert rejection_reason(json.loads(message())) is None
    assert rejection_reason(json.loads(message(["content-0123456789abcdef"]))) is None


def test_a_worker_works_with_the_least_rights_and_lacks_none(site: Site) -> None:
    assert site.score() is JobState.SUCCEEDED

    async def score() -> JobState:
        async with AsyncClient(site.settings) as client:
            batch = await client.submit_many([site.job.model_copy(update={"job_id": "async"})], batch_id="b")
            await batch.wait(timeout=60)
            return (await client.wait("async", timeout=60)).state

    assert asyncio.run(score()) is JobState.SUCCEEDED
    assert site.client.batch("b").counts().succeeded == 1
    findings = {found.name: found for found in examine(WorkerSettings(**dict(site.settings)), as_worker=False)}
    assert findings["redis rights"].verdict.name == "OK"
    assert site.admin.execute_command("ACL", "LOG") == []


def test_messages_that_are_not_ours_are_dropped_and_counted_and_end_nothing(site: Site) -> None:
    before = scrape(site.port)["maskscore_messages_rejected_total"]
    for text in FOREIGN.values():
        site.admin.lpush(f"{NAMESPACE}:celery:{NAMESPACE}", text)
    assert site.score() is JobState.SUCCEEDED
    until(
        lambda: scrape(site.port)["maskscore_messages_rejected_total"] == before + len(FOREIGN),
        "all are dropped",
    )
    assert site.worker.alive()
    log = site.worker.log.read_text()
    assert log.count("a message in the queue was dropped") == len(FOREIGN)
    assert max(map(len, log.splitlines())) < 1000
    assert "Traceback" not in log


def test_remote_control_that_is_no_message_ends_nothing(site: Site) -> None:
    for text in (b"garbage", b"[]", b"{}", b'{"body":"x"}', b"null"):
        site.admin.publish(f"{NAMESPACE}:celery:/0.celery.pidbox", text)
    assert site.score() is JobState.SUCCEEDED
    assert site.control("ping") == [{"ok": "pong"}]


@pytest.mark.parametrize(
    ("command", "more"), [("revoke", {}), ("revoke", {"terminate": True}), ("terminate", {"signal": "KILL"})]
)
def test_revoking_a_job_is_cancelling_it(site: Site, command: str, more: dict[str, Any]) -> None:
    site.control("cancel_consumer", queue=NAMESPACE)
    until(lambda: get(site.port, "/readyz")[0] == 503, "the worker takes nothing")
    waits = site.put_only()
    (answer,) = site.control(command, task_id=[waits, "nobody"], **more)
    assert f"{waits} is cancelled, nobody is unknown" in answer["ok"]
    assert site.client.status(waits).state is JobState.CANCELLED
    site.control("add_consumer", queue=NAMESPACE)
    # Queued again, it runs: Celery has not noted the id.
    assert site.client.requeue(waits) is JobState.QUEUED
    assert site.client.wait(waits, timeout=60).state is JobState.SUCCEEDED


def test_a_worker_whose_consumer_was_cancelled_is_not_ready_until_it_is_added_again(site: Site) -> None:
    site.control("cancel_consumer", queue=NAMESPACE)
    until(lambda: get(site.port, "/readyz")[0] == 503, "the worker is not ready")
    assert "add_consumer ops" in get(site.port, "/readyz")[1]
    assert get(site.port, "/livez")[0] == 200
    handle = site.client.submit(site.job.model_copy(update={"job_id": "later"}))
    site.control("add_consumer", queue=NAMESPACE)
    until(lambda: get(site.port, "/readyz")[0] == 200, "the worker is ready again")
    assert handle.wait(timeout=60).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (f"resetkeys ~{NAMESPACE}:*", "a script on the key 'ops'"),
        ("-zadd", "'zadd'"),
        ("-brpop", "'brpop'"),
        ("-evalsha -eval", "'eval'"),
        ("resetchannels &ops:*", "ops:ended:*"),
    ],
)
def test_a_right_that_is_missing_is_named_by_the_worker_and_by_doctor(site: Site, rule: str, words: str) -> None:
    whole = acl_rule(NAMESPACE).split()
    site.admin.execute_command("ACL", "SETUSER", "poor", "on", ">pw", *whole, *rule.split())
    url = site.settings.redis_url.replace("//ops:", "//poor:")
    with redis.Redis.from_url(url) as poor:
        assert words in str(missing_right(poor, NAMESPACE))
    found = {each.name: each for each in examine(WorkerSettings(redis_url=url, namespace=NAMESPACE), as_worker=False)}
    assert found["redis rights"].verdict.name == "FAILED"
    assert "docs/how-to/redis.md" in str(found["redis rights"].advice)


def test_a_worker_without_its_rights_does_not_start(site: Site) -> None:
    whole = acl_rule(NAMESPACE).split()
    site.admin.execute_command("ACL", "SETUSER", "poor", "on", ">pw", *whole, "resetkeys", f"~{NAMESPACE}:*")
    environment = {**os.environ, **site.environment, "MASKSCORE_HTTP_PORT": "0"}
    environment["MASKSCORE_REDIS_URL"] = site.settings.redis_url.replace("//ops:", "//poor:")
    command = [sys.executable, "-m", "maskscore", "worker"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "lacks a right" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_documented_rule_is_the_one_that_was_tried() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "redis.md").read_text("utf-8")
    assert acl_rule("maskscore") in " ".join(page.replace("\\\n", " ").split())
