"""``maskscore doctor`` with real services, healthy and faulty."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis

from claims import claim_job
from maskscore import Client, Job, Mask
from maskscore.devstack import LocalServices, RedisServer
from maskscore.devstack.ports import free_port, free_port_pairs
from maskscore.doctor import Cause, Finding, Verdict, examine
from maskscore.ledger import Ledger
from maskscore.schema.result import Failure
from maskscore.settings import WorkerSettings
from maskscore_worker.demo.run import DEMO_WEIGHTS
from worker_process import start_worker

FAILED, WARNING, OK, SKIPPED = Verdict.FAILED, Verdict.WARNING, Verdict.OK, Verdict.SKIPPED
MASK = Mask.model_validate({"id": "1", "segmentation": [[0, 0, 8, 0, 8, 8]]})


@pytest.fixture(autouse=True)
def buckets(services: LocalServices) -> None:
    for bucket in ("doctor-photos", "doctor-results"):
        services.create_bucket(bucket)


def settings_of(services: LocalServices, **given: Any) -> WorkerSettings:
    return WorkerSettings(
        **{"redis_url": services.redis.url, "namespace": f"doctor-{uuid.uuid4().hex[:8]}", "weights": None, **given}
    )


def examined(settings: WorkerSettings, *, as_worker: bool | None = False, timeout_s: float = 5) -> list[Finding]:
    return list(examine(settings, as_worker=as_worker, timeout_s=timeout_s))


def named(findings: list[Finding], name: str) -> Finding:
    found = [finding for finding in findings if finding.name == name]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MASKSCORE_")}
    return subprocess.run(
        [sys.executable, "-m", "maskscore", "doctor", *arguments],
        env={**inherited, "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_healthy_deployment(services: LocalServices, tmp_path: Path) -> None:
    environment = {
        "MASKSCORE_REDIS_URL": services.redis.url,
        "MASKSCORE_NAMESPACE": f"doctor-{uuid.uuid4().hex[:8]}",
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_DEVICE": "cpu",
        "MASKSCORE_BUCKETS": "doctor-photos",
        "MASKSCORE_RESULT_BUCKETS": "doctor-results",
        "MASKSCORE_SPILL_URI": "s3://doctor-results/spill/",
        "MASKSCORE_FILE_ROOTS": str(tmp_path),
    }
    # Each imports PyTorch: side by side they take half as long.
    with start_worker(environment) as worker, ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(run, *options, **environment) for options in (["--json"], [])]
        ran, shown = (each.result() for each in asked)
    assert (ran.returncode, ran.stderr) == (0, "")
    findings = {finding["name"]: finding for finding in map(json.loads, ran.stdout.splitlines())}
    assert {name: finding["verdict"] for name, finding in findings.items() if finding["verdict"] != "ok"} == {}
    assert list(findings) == [
        "settings",
        "versions",
        "redis",
        "redis rights",
        "redis version",
        "redis role",
        "eviction",
        "persistence",
        "memory",
        "clock",
        "jobs",
        "dead letters",
        "foreign entries",
        "workers",
        "s3 credentials",
        "s3",
        "s3 clock",
        "bucket",
        "result bucket",
        "spill",
        "file roots",
        "worker versions",
        "device",
        "prompts",
        "weights",
        "fast path",
    ]
    assert "1 worker answers" in findings["workers"]["sentence"]
    assert str(worker.pid) in findings["workers"]["sentence"]
    assert "demo" in findings["prompts"]["sentence"]
    assert boto3.client("s3").list_objects_v2(Bucket="doctor-results").get("KeyCount") == 0

    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert lines[-1] == "0 failed, 0 warnings, 26 ok, 0 skipped."
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line != line.rstrip()] == []
    for secret in (services.redis.password, services.s3.secret_key, services.s3.access_key):
        assert secret not in ran.stdout + shown.stdout


def test_a_redis_that_is_down(services: LocalServices) -> None:
    ran = run(
        "--json",
        "--no-worker",
        MASKSCORE_REDIS_URL=f"redis://someone:secret@127.0.0.1:{free_port()}/0",
        MASKSCORE_BUCKETS="doctor-photos",
    )
    assert (ran.returncode, ran.stderr) == (4, "")
    assert "secret" not in ran.stdout
    findings = {finding["name"]: finding for finding in map(json.loads, ran.stdout.splitlines())}
    assert (findings["redis"]["verdict"], findings["redis"]["cause"]) == ("failed", "unavailable")
    assert "refused" in findings["redis"]["sentence"]
    assert "MASKSCORE_REDIS_URL" in findings["redis"]["advice"]
    assert [findings[name]["verdict"] for name in ("redis setup", "clock", "jobs")] == ["skipped"] * 3
    assert findings["bucket"]["verdict"] == "ok"


def test_a_redis_that_takes_the_connection_and_never_answers(services: LocalServices) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        found = named(examined(settings_of(services, redis_url=url), timeout_s=0.3), "redis")
    assert (found.verdict, found.cause) == (FAILED, Cause.UNAVAILABLE)


@pytest.mark.parametrize(("password", "words"), [(":secret@", "invalid username-password"), ("", "required")])
def test_a_wrong_password(password: str, words: str, services: LocalServices) -> None:
    url = f"redis://{password}127.0.0.1:{services.redis.port}/0"
    found = named(examined(settings_of(services, redis_url=url)), "redis")
    assert (found.verdict, found.cause) == (FAILED, Cause.SETTINGS)
    assert words in found.sentence
    assert "secret" not in found.sentence
    assert "PASSWORD" in (found.advice or "")
    assert run("--no-worker", MASKSCORE_REDIS_URL=url).returncode == 2


def test_a_redis_that_would_lose_jobs(services: LocalServices, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", config={"appendonly": "no"}) as server:
        settings = settings_of(services, redis_url=server.url)
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            # Much more than the buffers of connections, which come and go.
            client.setrange("much", (32 << 20) - 1, b"x")
            client.config_set("maxmemory", int(client.info("memory")["used_memory"] / 0.9))
            findings = examined(settings)
            ran = run("--no-worker", MASKSCORE_REDIS_URL=server.url)
            client.config_set("maxmemory", 1000)
            full = named(examined(settings), "memory")
    eviction = named(findings, "eviction")
    assert (eviction.verdict, eviction.cause) == (FAILED, Cause.DEPLOYMENT)
    assert "allkeys-lru" in eviction.sentence
    assert "noeviction" in (eviction.advice or "")
    assert named(findings, "persistence").verdict is WARNING
    assert "appendonly yes" in (named(findings, "persistence").advice or "")
    assert named(findings, "memory").verdict is WARNING
    assert full.verdict is FAILED
    assert ran.returncode == 1
    assert "→ Set maxmemory-policy noeviction" in ran.stdout


def test_a_redis_that_cannot_write_to_its_disk(services: LocalServices, tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path / "redis", config={"appendonly": "no"}) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        shutil.rmtree(tmp_path / "redis")
        client.bgsave()
        deadline = time.monotonic() + 60
        while client.info("persistence")["rdb_bgsave_in_progress"] and time.monotonic() < deadline:
            time.sleep(0.05)
        found = named(examined(settings_of(services, redis_url=server.url)), "persistence")
    assert found.verdict is FAILED
    assert "rdb_last_bgsave_status is err" in found.sentence


def test_a_replica_and_a_cluster_take_no_jobs(services: LocalServices, tmp_path: Path) -> None:
    follow = {"replicaof": f"127.0.0.1 {services.redis.port}", "masterauth": services.redis.password}
    with RedisServer(tmp_path / "replica", config=follow) as replica:
        found = named(examined(settings_of(services, redis_url=replica.url)), "redis role")
    assert found.verdict is FAILED
    assert f"127.0.0.1:{services.redis.port}" in found.sentence
    # The nodes of a cluster talk on the port 10,000 above.
    port = free_port_pairs(1)[0][0]
    with RedisServer(tmp_path / "cluster", port=port, config={"cluster-enabled": "yes"}) as cluster:
        findings = examined(settings_of(services, redis_url=cluster.url))
    assert named(findings, "redis role").verdict is FAILED
    assert "cluster mode" in named(findings, "redis role").sentence
    assert not any("unexpected" in finding.sentence for finding in findings)


def test_a_redis_that_keeps_its_setup_to_itself(services: LocalServices, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as client:
        client.acl_setuser(
            "worker", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], commands=["+@all", "-info"]
        )
        findings = examined(settings_of(services, redis_url=f"redis://worker:pw@127.0.0.1:{server.port}/0"))
    assert named(findings, "redis").verdict is OK
    assert named(findings, "redis setup").verdict is WARNING
    assert named(findings, "clock").verdict is OK


def test_jobs_that_wait_for_a_worker_that_is_not_there(services: LocalServices) -> None:
    settings = settings_of(services)
    assert named(examined(settings), "workers").verdict is OK
    with Client(redis_url=settings.redis_url, namespace=settings.namespace) as client:
        batch = client.submit_many([Job(image="s3://doctor-photos/x", masks=[MASK]) for _ in range(3)])
        ledger = Ledger(client._redis, namespace=settings.namespace, ttl_s=60)
        claim = claim_job(ledger, next(batch.job_ids()))
        ledger.finish(claim, error=Failure(code="storage_unavailable", message="The store is away."), dead_letter=True)
    findings = examined(settings)
    assert "2 waiting" in named(findings, "jobs").sentence
    assert named(findings, "dead letters").verdict is WARNING
    assert "1 job was given up" in named(findings, "dead letters").sentence
    assert named(findings, "foreign entries").verdict is OK
    assert named(findings, "workers").verdict is WARNING
    assert "maskscore worker" in (named(findings, "workers").advice or "")


def test_entries_that_are_not_maskscores(services: LocalServices) -> None:
    settings = settings_of(services)
    with redis.Redis.from_url(settings.redis_url) as client:
        ledger = Ledger(client, namespace=settings.namespace, ttl_s=60)
        client.zadd(f"{settings.namespace}:dead", {"nobody": 1})
        client.set(f"{settings.namespace}:running", "text")
        ledger.sweep(sweeper="s", lock_s=0.001, max_attempts=3, limit=9)
    found = named(examined(settings), "foreign entries")
    assert found.verdict is WARNING
    assert "2 were put aside" in found.sentence
    assert "'nobody': it has no record" in found.sentence
    assert f"{settings.namespace}:stray:*" in (found.advice or "")


def test_buckets_that_are_forbidden_or_missing(services: LocalServices, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(services, buckets="doctor-photos, gone-bucket,*", result_buckets="gone-results")
    findings = examined(settings)
    read = [finding for finding in findings if finding.name == "bucket"]
    assert [finding.verdict for finding in read] == [OK, FAILED, SKIPPED]
    assert "no bucket 'gone-bucket'" in read[1].sentence
    assert "no bucket 'gone-results'" in named(findings, "result bucket").sentence
    # SeaweedFS makes the bucket of whatever is written to it.
    names = [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]
    assert "gone-results" not in names

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    findings = examined(settings_of(services, buckets="doctor-photos", result_buckets="doctor-results"))
    for name in ("s3", "bucket", "result bucket"):
        found = named(findings, name)
        assert (found.verdict, found.cause) == (FAILED, Cause.SETTINGS)
        assert "SignatureDoesNotMatch" in found.sentence
    assert "forbidden" in named(findings, "bucket").sentence
    assert named(findings, "s3 clock").verdict is OK


def test_an_s3_that_is_down_or_has_no_credentials(
    services: LocalServices, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = settings_of(services, buckets="doctor-photos")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, f"http://someone:secret@127.0.0.1:{free_port()}")
    findings = examined(settings)
    assert (named(findings, "s3").verdict, named(findings, "s3").cause) == (FAILED, Cause.UNAVAILABLE)
    assert "secret" not in named(findings, "s3").sentence
    assert named(findings, "bucket").verdict is SKIPPED

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found = named(examined(settings), "s3 credentials")
    assert (found.verdict, found.cause) == (FAILED, Cause.SETTINGS)
    assert "AWS_ACCESS_KEY_ID" in (found.advice or "")


def test_folders_that_are_not_there(services: LocalServices, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    roots = (tmp_path, tmp_path / "gone", tmp_path / "file")
    found = [f for f in examined(settings_of(services, file_roots=roots)) if f.name == "file roots"]
    assert [finding.verdict for finding in found] == [OK, FAILED, FAILED]
    found = [f for f in examined(settings_of(services, result_roots=roots)) if f.name == "result roots"]
    assert [finding.verdict for finding in found] == [OK, FAILED, FAILED]


def test_a_worker_that_could_not_start(services: LocalServices, tmp_path: Path) -> None:
    gone = settings_of(services, weights=tmp_path / "weights", device="cuda:77", prompts="unheard-of")
    findings = examined(gone, as_worker=True)
    weights, device, prompts = (named(findings, name) for name in ("weights", "device", "prompts"))
    assert {finding.verdict for finding in (weights, device, prompts)} == {FAILED}
    assert {finding.cause for finding in (weights, device, prompts)} == {Cause.SETTINGS}
    assert f"maskscore weights pull {tmp_path / 'weights'}" in (weights.advice or "")
    assert "'cuda:77'" in device.sentence
    assert "there are cpu" in device.sentence
    assert "'unheard-of'" in prompts.sentence
    assert "default, demo" in (prompts.advice or "")
    unset = named(examined(settings_of(services), as_worker=True), "weights")
    assert unset.verdict is FAILED
    assert "weights pull" in (unset.advice or "")
    assert named(examined(settings_of(services), as_worker=None), "worker").verdict is SKIPPED
    assert named(examined(settings_of(services), as_worker=None), "worker").sentence.endswith("WEIGHTS is unset.")


def test_wrong_settings_do_not_keep_the_rest_from_being_examined(services: LocalServices) -> None:
    ran = run(
        "--json",
        "--no-worker",
        MASKSCORE_REDIS_URL=services.redis.url,
        MASKSCORE_MAX_BACH="3",
        MASKSCORE_MAX_BATCH="many",
        MASKSCORE_CROP_MODE="exact",
    )
    assert (ran.returncode, ran.stderr) == (2, "")
    findings = [json.loads(line) for line in ran.stdout.splitlines()]
    wrong = [finding for finding in findings if finding["verdict"] == "failed"]
    assert [finding["name"] for finding in wrong] == ["settings", "settings"]
    assert "MASKSCORE_CROP_MODE, MASKSCORE_MAX_BATCH" in wrong[0]["sentence"]
    assert "MASKSCORE_MAX_BACH" in wrong[1]["sentence"]
    assert "MASKSCORE_MAX_BATCH?" in wrong[1]["advice"]
    assert any(finding["name"] == "workers" for finding in findings)
