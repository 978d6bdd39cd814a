"""A worker's metrics, probes, registry entry, logs and traces; ``top`` and the exporter."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from PIL import Image

from claims import claim_job
from command_line import run_command
from distinct_masks import distinct_masks
from maskscore import Client, ClientSettings, Job, JobState, Mask, ScoringOptions
from maskscore.devstack import LocalServices, RedisServer
from maskscore.devstack.ports import free_port
from maskscore.ledger import Ledger
from maskscore.ledger.worker_registry import WORKER_TTL_S, WorkerRegistry
from maskscore.masks import encode_mask
from maskscore.observability.metrics import METRICS
from maskscore.schema.result import Failure
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from otlp import Received, Span, receive_traces
from process_environment import ignoring_signal
from scrape import get, scrape
from waiting import until
from worker_process import WorkerProcess, start_worker


@dataclass
class Watched:
    worker: WorkerProcess
    port: int
    client: Client
    redis: redis.Redis
    namespace: str
    traces: Received
    job: Job
    masks: int


@pytest.fixture(scope="module")
def watched(services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A worker that has scored one job, failed one and cancelled none, watched in every way there is."""
    folder = tmp_path_factory.mktemp("watched")
    scene = draw_scene(880_001)
    Image.fromarray(scene.image).save(folder / "scene.png")
    masks = [Mask(id=mask.id, segmentation=encode_mask(mask.mask)) for mask in scene.masks]
    empty = Mask.model_validate({"id": "bad", "segmentation": {"size": list(scene.image.shape[:2]), "counts": [1]}})
    job = Job(image=f"file://{folder}/scene.png", masks=[*masks, empty], options=ScoringOptions(prompts="demo"))
    port, namespace = free_port(), f"watch-{uuid.uuid4().hex[:8]}"
    with receive_traces() as traces:
        environment = {
            **services.environment(),
            "MASKSCORE_NAMESPACE": namespace,
            "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
            "MASKSCORE_PROMPTS": "demo",
            "MASKSCORE_FILE_ROOTS": str(folder),
            "MASKSCORE_HTTP_PORT": str(port),
            "MASKSCORE_HTTP_HOST": "127.0.0.1",
            "MASKSCORE_CONCURRENCY": "4",
            "MASKSCORE_LOG_FORMAT": "json",
            "MASKSCORE_LEASE_S": "3",
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        settings = ClientSettings(redis_url=services.redis.url, namespace=namespace)
        with start_worker(environment, folder / "worker") as worker, Client(settings) as client:
            submit = [sys.executable, "-m", "maskscore", "submit", "-", "--wait"]
            missing = job.model_copy(
                update={"job_id": "missing", "image": job.image.model_copy(update={"uri": f"file://{folder}/none.png"})}
            )
            for each in (job, missing):
                subprocess.run(
                    submit, input=each.model_dump_json(), text=True, env={**os.environ, **environment}, check=False
                )
            connection = redis.Redis.from_url(services.redis.url)
            yield Watched(worker, port, client, connection, namespace, traces, job, len(masks))


def test_the_worker_counts_jobs_masks_and_stages(watched: Watched) -> None:
    samples = scrape(watched.port)
    assert samples["maskscore_jobs_finished_total{code=,outcome=succeeded}"] == 1
    assert samples["maskscore_jobs_finished_total{code=image_not_found,outcome=failed}"] == 1
    # What has not failed yet is there, or `rate` would not see the first failure.
    assert samples["maskscore_jobs_finished_total{code=masks_invalid,outcome=failed}"] == 0
    assert samples["maskscore_jobs_finished_total{code=storage_unavailable,outcome=retried}"] == 0
    assert samples["maskscore_masks_total{code=empty_mask,outcome=skipped}"] == 0
    assert samples["maskscore_masks_total{code=,outcome=scored}"] == watched.masks
    assert samples["maskscore_masks_total{code=mask_invalid,outcome=skipped}"] == 1
    assert samples["maskscore_queue_wait_seconds_count"] == 2
    for stage, attempts in {"fetch": 2, "decode": 1, "regions": 1, "crops": 1, "scoring": 1, "store": 2}.items():
        assert samples[f"maskscore_stage_seconds_count{{stage={stage}}}"] == attempts
        assert samples[f"maskscore_stage_seconds_sum{{stage={stage}}}"] > 0
    # The masks and the warm-up.
    assert samples["maskscore_batch_crops_sum"] == watched.masks + 1
    assert samples["maskscore_jobs_in_flight"] == 0
    (model,) = [name for name in samples if name.startswith("maskscore_model_info{")]
    assert "device=cpu" in model
    assert "weights_digest=sha256:" in model


def test_the_worker_serves_what_is_declared_and_nothing_else(watched: Watched) -> None:
    served = {line.split()[2] for line in get(watched.port, "/metrics")[1].splitlines() if line.startswith("# TYPE")}
    declared = {metric.name for metric in METRICS if metric.side in ("worker", "both")}
    ours = {name for name in served if name.startswith("maskscore_")}
    assert ours == {name for name in declared if not name.startswith("maskscore_device_")}
    assert "process_resident_memory_bytes" in served


def long_job(watched: Watched, job_id: str) -> Job:
    """A job that runs for long enough to be seen."""
    return watched.job.model_copy(update={"job_id": job_id, "masks": distinct_masks(5000)})


def test_leases_and_in_flight_are_seen_while_a_job_runs(watched: Watched) -> None:
    handle = watched.client.submit(long_job(watched, "long"))
    until(lambda: scrape(watched.port)["maskscore_jobs_in_flight"] == 1, "the job is in flight")
    until(lambda: scrape(watched.port)["maskscore_leases_total{outcome=renewed}"] > 0, "its lease was renewed")
    handle.cancel()
    until(lambda: handle.status().state is JobState.CANCELLED, "it was cancelled")
    until(
        lambda: scrape(watched.port)["maskscore_jobs_finished_total{code=,outcome=cancelled}"] == 1, "that was counted"
    )
    assert scrape(watched.port)["maskscore_leases_total{outcome=cancelled}"] >= 1


def test_a_lost_lease_is_counted_and_so_is_the_sweepers_work(watched: Watched) -> None:
    handle = watched.client.submit(long_job(watched, "lost"))
    until(lambda: handle.status().state is JobState.RUNNING, "the job runs")
    # As if another worker had taken it, and had been killed.
    watched.redis.hset(f"{watched.namespace}:job:lost", "token", "another")
    until(lambda: scrape(watched.port)["maskscore_leases_total{outcome=lost}"] == 1, "the loss is noticed")
    until(lambda: scrape(watched.port)["maskscore_jobs_finished_total{code=,outcome=dropped}"] == 1, "it is dropped")
    until(lambda: scrape(watched.port)["maskscore_keeper_lapsed_total"] == 1, "the sweeper finds the lapsed lease")
    handle.cancel()
    until(lambda: handle.status().state is JobState.CANCELLED, "it was cancelled")
    until(lambda: scrape(watched.port)["maskscore_jobs_in_flight"] == 0, "nothing is left of it")


def test_the_probes_of_a_worker_that_takes_jobs(watched: Watched) -> None:
    assert get(watched.port, "/livez") == (200, "ok\n")
    until(lambda: get(watched.port, "/readyz") == (200, "ok\n"), "the worker is ready")
    assert get(watched.port, "/nowhere")[0] == 404


def test_the_worker_is_in_the_registry(watched: Watched) -> None:
    registry = WorkerRegistry(watched.redis, namespace=watched.namespace)
    until(lambda: any(seen.report.jobs_done >= 2 for seen in registry.workers()), "the registry knows of both jobs")
    (worker,) = registry.workers()
    assert registry.count() == 1
    assert (worker.report.pid, worker.report.device, worker.report.concurrency) == (watched.worker.pid, "cpu", 4)
    assert worker.report.masks_done >= watched.masks + 1
    assert worker.report.name == watched.client.get(watched.job.job_id).worker
    assert 0 <= worker.age_s < WORKER_TTL_S
    assert 0 < watched.redis.pttl(f"{watched.namespace}:worker:{worker.report.name}") <= WORKER_TTL_S * 1000


def test_a_worker_that_is_gone_is_forgotten(watched: Watched) -> None:
    registry = WorkerRegistry(watched.redis, namespace=f"{watched.namespace}-other")
    (worker,) = WorkerRegistry(watched.redis, namespace=watched.namespace).workers()
    for name in ("a", "b", "c"):
        registry.write(worker.report.model_copy(update={"name": name}))
    registry.remove("b")
    assert [seen.report.name for seen in registry.workers()] == ["a", "c"]
    # As if it had been killed so long ago.
    watched.redis.zincrby(f"{watched.namespace}-other:workers", -WORKER_TTL_S * 1000, "a")
    assert [seen.report.name for seen in registry.workers()] == ["c"]
    assert registry.count() == 1
    # As if Redis's clock had been put back by an hour since.
    registry.write(worker.report.model_copy(update={"name": "e"}))
    watched.redis.zincrby(f"{watched.namespace}-other:workers", 3_600_000, "e")
    assert ([seen.report.name for seen in registry.workers()], registry.count()) == (["c"], 1)
    # Of a later release, and of one that nobody can read.
    for name, text in (("c", worker.report.model_dump_json()[:-1] + ', "new": 1}'), ("d", '{"name": "d"}')):
        watched.redis.set(f"{watched.namespace}-other:worker:{name}", text)
        watched.redis.zadd(f"{watched.namespace}-other:workers", {name: time.time() * 1000})
    assert len(registry.workers()) == 1


def test_top_prints_one_look(watched: Watched) -> None:
    registry = WorkerRegistry(watched.redis, namespace=watched.namespace)
    until(
        lambda: any(not seen.report.in_flight for seen in registry.workers()),
        "the worker has said that nothing is in flight",
    )
    shown = run_top(watched, "--once")
    assert "queue     0 waiting · 0 running · 0 delayed" in shown
    (row,) = [line for line in shown.splitlines() if str(watched.worker.pid) in line]
    assert row.split()[1:3] == ["cpu", "0/4"]
    assert "image_not_found 1" in shown
    assert "no dead letters" in shown
    assert max(map(len, shown.splitlines())) <= 80
    (document,) = [json.loads(line) for line in run_top(watched, "--once", "--json").splitlines()]
    assert document["jobs"] == {"waiting": 0, "running": 0, "delayed": 0}
    assert document["failures"] == {"image_not_found": 1}
    assert [worker["pid"] for worker in document["workers"]] == [watched.worker.pid]


def run_top(watched: Watched, *arguments: str) -> str:
    ran = run_command("top", *arguments, environment={"MASKSCORE_NAMESPACE": watched.namespace})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_top_is_live_on_a_terminal_until_q(watched: Watched) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(theirs)
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(ours, 65536):
                shown.extend(data)

    threading.Thread(target=read, daemon=True).start()
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "maskscore", "top", "--every", "0.2"],
        env={**environment, "TERM": "xterm-256color", "MASKSCORE_NAMESPACE": watched.namespace},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    try:
        until(lambda: shown.count(b"q ends") >= 3, "it has drawn the screen three times")
        assert str(watched.worker.pid).encode() in shown
        assert process.poll() is None
        os.write(ours, b"x")
        os.write(ours, b"q")
        assert process.wait(timeout=120) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(theirs)


def test_celerys_own_tools_find_the_worker(watched: Watched) -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "maskscore.celery_app",
            "inspect",
            "ping",
            "--json",
            "--timeout",
            "30",
            "--destination",
            f"maskscore@{watched.client.get(watched.job.job_id).worker}",
        ],
        env={**os.environ, "MASKSCORE_NAMESPACE": watched.namespace},
        capture_output=True,
        text=True,
        check=True,
    )
    assert list(json.loads(ran.stdout).values()) == [{"ok": "pong"}]


def test_failures_are_counted_by_the_minute(watched: Watched) -> None:
    ledger = Ledger(watched.redis, namespace=watched.namespace, ttl_s=60)
    assert ledger.failures(minutes=60) == {"image_not_found": 1}


def test_the_log_is_json_with_the_jobs_id(watched: Watched) -> None:
    lines = [json.loads(line) for line in watched.worker.log.read_text().splitlines()]
    about = [line for line in lines if line.get("job_id") == "missing"]
    assert [line["level"] for line in about] == ["INFO"]
    assert "image_not_found" in about[0]["message"]
    assert {"time", "level", "logger", "message"} <= about[0].keys()
    assert all("job_id" not in line for line in lines if "taking jobs" in line["message"])


def spans_of(traces: Received, job_id: str) -> tuple[Span, list[Span]]:
    """The span of the attempt, and all spans of its trace."""
    until(lambda: any(span.attributes.get("maskscore.outcome") for span in _of(traces, job_id)), f"{job_id} is traced")
    (attempt,) = [span for span in _of(traces, job_id) if span.service == "maskscore-worker"]
    in_trace = [span for span in traces.spans if span.trace_id == attempt.trace_id]
    return attempt, in_trace


def _of(traces: Received, job_id: str) -> list[Span]:
    return [span for span in list(traces.spans) if span.attributes.get("maskscore.job_id") == job_id]


def test_a_job_is_one_trace_from_the_submit_to_the_store(watched: Watched) -> None:
    attempt, trace = spans_of(watched.traces, watched.job.job_id)
    (submit,) = [span for span in trace if span.name == "maskscore submit"]
    assert submit.service == "maskscore-producer"
    assert (submit.parent_id, attempt.parent_id) == ("", submit.span_id)
    stages = {span.name: span for span in trace if span.parent_id == attempt.span_id}
    assert sorted(stages) == sorted(["claim", "encode", "fetch", "decode", "regions", "crops", "scoring", "store"])
    for span in stages.values():
        assert attempt.begin <= span.begin <= span.end <= attempt.end
        assert 0 < span.attributes["maskscore.seconds"] <= (span.end - span.begin) / 1e9 + 1e-6
    assert stages["claim"].end <= stages["fetch"].begin <= stages["decode"].begin <= stages["store"].begin
    assert attempt.attributes["maskscore.outcome"] == "succeeded"
    assert not any(span.failed for span in trace)


def test_a_failed_jobs_trace_says_why(watched: Watched) -> None:
    attempt, trace = spans_of(watched.traces, "missing")
    assert attempt.failed
    assert attempt.attributes["maskscore.code"] == "image_not_found"
    assert "decode" not in {span.name for span in trace}
    assert [span.name for span in trace if span.parent_id == attempt.span_id and span.failed] == ["fetch"]


@pytest.mark.usefixtures("services")
def test_nothing_of_opentelemetry_is_loaded_where_nothing_asks_for_it() -> None:
    # redis-py imports parts of it by itself, where it is installed.
    code = (
        "import sys, redis; before = set(sys.modules)\n"
        "from maskscore import Client, Job\n"
        "Client(namespace='untraced').submit(Job(image='s3://b/i', masks='s3://b/m'))\n"
        "print(*[name for name in sys.modules.keys() - before if 'opentelemetry' in name or 'prometheus' in name])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    ran = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_a_producer_with_traces_of_its_own_gets_its_submits_into_them(
    watched: Watched, services: LocalServices
) -> None:
    code = (
        "import sys\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from maskscore import Client, Job\n"
        "trace.set_tracer_provider(TracerProvider())\n"
        "with trace.get_tracer('app').start_as_current_span('request') as span, Client() as client:\n"
        "    client.submit(Job.model_validate_json(sys.stdin.read()))\n"
        "    print(trace.format_trace_id(span.get_span_context().trace_id))"
    )
    job = watched.job.model_copy(update={"job_id": "within"})
    environment = {**os.environ, **services.environment(), "MASKSCORE_NAMESPACE": watched.namespace}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        input=job.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
    )
    attempt, _ = spans_of(watched.traces, "within")
    assert attempt.trace_id == ran.stdout.strip()


@contextmanager
def exporter(url: str, namespace: str, log: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    environment = {
        **os.environ,
        "MASKSCORE_REDIS_URL": url,
        "MASKSCORE_NAMESPACE": namespace,
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "maskscore", "exporter", "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: get(port, "/healthz")[0] == 200, "the exporter answers")
        yield port, process
    finally:
        process.kill()
        process.wait()


def test_the_exporter_counts_and_keeps_without_any_worker(services: LocalServices, tmp_path: Path) -> None:
    namespace = f"exporter-{uuid.uuid4().hex[:8]}"
    connection = redis.Redis.from_url(services.redis.url)
    ledger = Ledger(connection, namespace=namespace, ttl_s=60)
    with (
        Client(ClientSettings(redis_url=services.redis.url, namespace=namespace)) as client,
        exporter(services.redis.url, namespace, tmp_path / "log") as (port, process),
    ):
        for name in ("lapses", "waits"):
            client.submit(Job(job_id=name, image="s3://b/i", masks="s3://b/m"))
        claim_job(ledger, "lapses", worker="gone")
        # A burst between two scrapes, of workers that nobody scrapes.
        before = scrape(port)
        for number in range(6):
            name = f"ends-{number}"
            client.submit(Job(job_id=name, image="s3://b/i", masks="s3://b/m"))
            claim = claim_job(ledger, name, worker="gone")
            error = Failure(code="image_not_found", message="gone") if number % 2 else None
            ledger.finish(claim, **({"error": error} if error else {"result": b""}))
        after = scrape(port)
        for labels, ended in {
            "code=image_not_found,state=failed": 3,
            "code=,state=succeeded": 3,
            "code=masks_invalid,state=failed": 0,
            "code=,state=cancelled": 0,
        }.items():
            series = f"maskscore_jobs_ended_total{{{labels}}}"
            assert (before[series], after[series]) == (0, ended)
        samples = scrape(port)
        assert samples["maskscore_redis_up"] == 1
        assert samples["maskscore_jobs{state=waiting}"] == 1
        assert samples["maskscore_jobs{state=running}"] == 1
        assert samples["maskscore_jobs{state=delayed}"] == 0
        assert samples["maskscore_dead_letters"] == 0
        assert samples["maskscore_workers"] == 0
        until(
            lambda: scrape(port)["maskscore_oldest_waiting_seconds"] > 0.5, "the oldest job is older than half a second"
        )
        served = {line.split()[2] for line in get(port, "/metrics")[1].splitlines() if line.startswith("# TYPE")}
        declared = {metric.name for metric in METRICS if metric.side in ("exporter", "both")}
        assert {name for name in served if name.startswith("maskscore_")} == declared
        # The worker is gone: its lease ends now, and only the exporter is there to notice.
        connection.zadd(f"{namespace}:running", {"lapses": 1})
        until(lambda: scrape(port)["maskscore_jobs{state=waiting}"] == 2, "the lapsed job waits again")
        assert scrape(port)["maskscore_keeper_lapsed_total"] == 1
        # The tickets are lost; the jobs are not.
        for key in connection.scan_iter(f"{namespace}:celery:{namespace}*"):
            connection.delete(key)
        until(lambda: scrape(port)["maskscore_keeper_stranded_total"] >= 1, "the tickets that are missing are sent")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0


def test_the_exporter_outlives_redis(tmp_path: Path) -> None:
    port = free_port()
    with exporter(f"redis://127.0.0.1:{port}/0", "outlive", tmp_path / "log") as (served, _):
        assert scrape(served)["maskscore_redis_up"] == 0
        for _ in range(2):
            with RedisServer(tmp_path / "redis", port=port, password=""):
                until(lambda: scrape(served)["maskscore_redis_up"] == 1, "the exporter has found Redis")
                assert scrape(served)["maskscore_jobs{state=waiting}"] == 0
            samples = scrape(served)
            assert samples["maskscore_redis_up"] == 0
            assert "maskscore_jobs{state=waiting}" not in samples
            assert get(served, "/healthz") == (200, "ok\n")


def test_a_worker_is_not_ready_while_it_loads_or_drains_or_redis_is_away(tmp_path: Path) -> None:
    port, redis_port = free_port(), free_port()
    environment = {
        **os.environ,
        "MASKSCORE_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_HTTP_PORT": str(port),
        "MASKSCORE_GRACE_S": "60",
    }
    with (tmp_path / "log").open("wb") as log:
        with RedisServer(tmp_path / "redis", port=redis_port, password=""):
            worker = subprocess.Popen(
                ignoring_signal("HUP", sys.executable, "-m", "maskscore", "worker"),
                env=environment,
                stdout=log,
                stderr=log,
            )
            seen: list[tuple[int, str]] = []
            while not seen or seen[-1][0] != 200:
                seen.append(get(port, "/readyz"))
                time.sleep(0.02)
                assert worker.poll() is None
            assert (503, "the model is being loaded\n") in seen
            # Started by `nohup`, it does not end with the terminal.
            worker.send_signal(signal.SIGHUP)
        until(lambda: "Redis has not answered for" in get(port, "/readyz")[1], "it is not ready without Redis")
        assert get(port, "/livez") == (200, "ok\n")
        with RedisServer(tmp_path / "redis", port=redis_port, password=""):
            until(lambda: get(port, "/readyz")[0] == 200, "it is ready again")
            worker.terminate()
            until(lambda: "draining" in get(port, "/readyz")[1] or worker.poll() is not None, "it drains")
            assert worker.wait(timeout=120) == 0
            registry = WorkerRegistry(redis.Redis(port=redis_port), namespace="maskscore")
            assert registry.count() == 0
