"""The gateway over real HTTP, with a real Redis, and a real worker where jobs run."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from PIL import Image

from gateway_process import TOKEN, Gateway, events, running_gateway
from maskscore import BatchNotFound, Client, ClientSettings, Job, Mask, MasksRef, ScoringOptions
from maskscore.devstack import LocalServices, RedisServer
from maskscore.devstack.ports import free_port
from maskscore.ledger import Claim, Ledger, new_token
from maskscore.masks import encode_mask
from maskscore.observability.metrics import METRICS
from maskscore.schema.result import Failure
from maskscore.settings import GatewaySettings
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from otlp import receive_traces
from scrape import get, scrape
from waiting import until
from worker_process import start_worker


@pytest.fixture(scope="module")
def settings(services: LocalServices) -> ClientSettings:
    """Of a namespace that no worker serves."""
    return ClientSettings(redis_url=services.redis.url, namespace=f"gateway-{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="module")
def gateway(
    services: LocalServices, settings: ClientSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": settings.namespace,
        "MASKSCORE_GATEWAY_MAX_BODY_BYTES": "20000",
        "MASKSCORE_GATEWAY_MAX_MASKS": "3",
        "MASKSCORE_GATEWAY_MAX_JOBS": "1000",
        "MASKSCORE_LOG_FORMAT": "json",
    }
    with running_gateway(tmp_path_factory.mktemp("gateway"), environment) as running:
        yield running


def job(job_id: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"image": "s3://b/a.png", "masks": [], **({"job_id": job_id} if job_id else {}), **fields}


def named() -> str:
    return uuid.uuid4().hex[:12]


def end(settings: ClientSettings, *job_ids: str) -> None:
    """Run jobs as a worker would, but for the scores."""
    with redis.Redis.from_url(settings.redis_url) as connection:
        ledger = Ledger(connection, namespace=settings.namespace, ttl_s=60)
        left, others = set(job_ids), []
        # All in one pass: the jobs of the tests before are the same tenant's, and come first.
        while left:
            claim = ledger.claim(token=new_token(), worker="w", lease_s=60)
            assert isinstance(claim, Claim), f"{left} are not among the jobs that may run: {claim}"
            if claim.job_id in left:
                left.remove(claim.job_id)
                ledger.finish(claim, error=Failure(code="image_not_found", message="no such image"))
            else:
                others.append(claim)
        for other in others:
            ledger.release(other)


def is_problem(response: httpx2.Response, status: int, code: str, words: str = "") -> dict[str, Any]:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    problem: dict[str, Any] = response.json()
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, "about:blank")
    assert words in problem["detail"]
    return problem


def test_from_the_submit_over_its_events_to_the_result(services: LocalServices, tmp_path: Path) -> None:
    scene = draw_scene(880_003)
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    masks = [Mask(id=mask.id, segmentation=encode_mask(mask.mask)) for mask in scene.masks]
    uri = f"file://{tmp_path}/scene.png"
    document = Job(job_id="one", image=uri, masks=masks, options=ScoringOptions(prompts="demo")).model_dump(mode="json")
    namespace = f"gateway-{uuid.uuid4().hex[:8]}"
    trace_id = uuid.uuid4().hex
    with receive_traces() as traces:
        environment = {
            **services.environment(),
            "MASKSCORE_NAMESPACE": namespace,
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        worker = {
            "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
            "MASKSCORE_PROMPTS": "demo",
            "MASKSCORE_FILE_ROOTS": str(tmp_path),
        }
        with (
            start_worker({**environment, **worker}, tmp_path / "worker"),
            running_gateway(tmp_path, environment) as running,
        ):
            http = running.http
            accepted = http.post("/v1/jobs", json=document, headers={"traceparent": f"00-{trace_id}-{'1' * 16}-01"})
            assert (accepted.status_code, accepted.json()) == (202, {"job_id": "one"})
            assert accepted.headers["location"] == "/v1/jobs/one"
            with http.stream("GET", "/v1/jobs/one/events") as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                (ended,) = list(events(stream))
            assert (ended.event, ended.data) == ("ended", {"job_id": "one", "state": "succeeded"})
            result = http.get("/v1/jobs/one/result")
            assert result.status_code == 200
            with Client(ClientSettings(redis_url=services.redis.url, namespace=namespace)) as client:
                assert result.json() == client.get("one").model_dump(mode="json")
            assert [component["id"] for component in result.json()["components"]] == [mask.id for mask in masks]
            lines = "\n".join(json.dumps({**document, "job_id": f"j{n}", "image": uri}) for n in range(25))
            batch = http.post(
                "/v1/batches?batch_id=many", content=lines, headers={"content-type": "application/x-ndjson"}
            )
            assert batch.json() == {"batch_id": "many", "submitted": 25}
            with http.stream("GET", "/v1/batches/many/events") as stream:
                *ends, done = list(events(stream))
            assert sorted(end.data["job_id"] for end in ends) == sorted(f"j{n}" for n in range(25))
            assert (done.event, done.data["succeeded"], done.id) == ("done", 25, ends[-1].id)
            read: list[str] = []
            page = "/v1/batches/many/results?limit=10"
            while page:
                answer = http.get(page)
                assert answer.headers["content-type"] == "application/x-ndjson"
                read += [json.loads(line)["job_id"] for line in answer.text.splitlines()]
                page = answer.links["next"]["url"] if "next" in answer.links else ""
            assert read == [end.data["job_id"] for end in ends]
            until(lambda: any(span.service == "maskscore-worker" for span in traces.spans), "the worker's span came")
            until(lambda: any(span.name == "maskscore submit" for span in traces.spans), "the submit's span came")
            mine = [span for span in list(traces.spans) if span.attributes.get("maskscore.job_id") == "one"]
            assert {span.trace_id for span in mine} == {trace_id}


def test_a_submit_may_be_repeated_but_not_with_another_document(gateway: Gateway) -> None:
    name = named()
    for _ in range(2):
        assert gateway.http.post("/v1/jobs", json=job(name)).status_code == 202
    other = gateway.http.post("/v1/jobs", json=job(name, options={"top_k": 1}))
    is_problem(other, 409, "job_conflict", name)
    by_content = {gateway.http.post("/v1/jobs?content_id=true", json=job()).json()["job_id"] for _ in range(2)}
    assert len(by_content) == 1
    assert by_content.pop().startswith("content-")


def test_ids_of_contents_touch_no_files_and_no_bucket_that_is_not_named(
    gateway: Gateway, services: LocalServices, tmp_path: Path
) -> None:
    """Otherwise whoever has a token could find out what there is on the gateway's machine, or in any bucket."""
    (tmp_path / "secret").write_text("one")
    uri = f"file://{tmp_path}/secret"
    before = gateway.http.post("/v1/jobs?content_id=true", json=job(image=uri)).json()
    (tmp_path / "secret").write_text("another")
    assert gateway.http.post("/v1/jobs?content_id=true", json=job(image=uri)).json() == before
    with Client(ClientSettings(redis_url=services.redis.url, namespace=_namespace_of(gateway))) as client:
        assert client.job(before["job_id"]).image.etag is None


def _namespace_of(gateway: Gateway) -> str:
    (line,) = [json.loads(line) for line in gateway.log.read_text().splitlines() if "namespace" in line]
    return str(line["message"].split("namespace '")[1].rstrip("'"))


def test_where_a_job_is_and_that_it_has_no_result_yet(gateway: Gateway, settings: ClientSettings) -> None:
    name = named()
    gateway.http.post("/v1/jobs", json=job(name))
    status = gateway.http.get(f"/v1/jobs/{name}").json()
    assert (status["state"], status["attempts"], status["error"]) == ("queued", 0, None)
    early = gateway.http.get(f"/v1/jobs/{name}/result")
    is_problem(early, 409, "not_ended", "it is queued")
    assert early.headers["retry-after"] == "1"
    is_problem(gateway.http.get(f"/v1/jobs/{name}/result?wait=0.2"), 409, "not_ended")
    answers: list[httpx2.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(gateway.http.get(f"/v1/jobs/{name}/result?wait=60")))
    waiting.start()
    until(lambda: scrape(gateway.port)["maskscore_gateway_requests_in_progress"] == 1, "the wait has begun")
    end(settings, name)
    waiting.join()
    # A job that failed has a result, too.
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (200, "image_not_found")
    again = gateway.http.get(f"/v1/jobs/{name}/events", headers={"Last-Event-ID": "ended"})
    assert again.status_code == 204


def test_whoever_waits_is_told_that_no_worker_is_alive(gateway: Gateway, settings: ClientSettings) -> None:
    job_id, batch_id = named(), named()
    gateway.http.post("/v1/batches", params={"batch_id": batch_id}, json=[job(job_id)])
    places = (f"/v1/jobs/{job_id}", f"/v1/batches/{batch_id}")
    for place in places:
        assert gateway.http.get(place).headers["maskscore-workers"] == "0"
        with gateway.http.stream("GET", f"{place}/events") as answer:
            assert answer.headers["maskscore-workers"] == "0"
    is_problem(gateway.http.get(f"/v1/jobs/{job_id}/result"), 409, "not_ended", "No worker is alive")
    end(settings, job_id)
    for place in places:
        assert "maskscore-workers" not in gateway.http.get(place).headers


def test_jobs_for_a_model_that_nobody_serves_are_accepted_with_a_warning(gateway: Gateway) -> None:
    asked = {"options": {"model": "absent"}}
    answer = gateway.http.post("/v1/jobs", json=job(named(), **asked))
    assert answer.status_code == 202
    assert "No live worker serves the model 'absent'" in answer.json()["warning"]
    assert gateway.http.get(f"/v1/jobs/{answer.json()['job_id']}").headers["maskscore-workers"] == "0"
    of_batch = gateway.http.post("/v1/batches", json=[job(named()), job(named(), **asked)])
    assert of_batch.status_code == 202
    assert "'absent'" in of_batch.json()["warning"]
    assert "warning" not in gateway.http.post("/v1/jobs", json=job(named())).json()
    is_problem(
        gateway.http.post("/v1/jobs", json=job(named(), options={"model": "a:b"})), 422, "document_invalid", "model"
    )


def test_what_is_not_there(gateway: Gateway) -> None:
    for path in ("", "/result", "/events"):
        is_problem(gateway.http.get(f"/v1/jobs/nobody{path}"), 404, "job_not_found", "nobody")
    is_problem(gateway.http.post("/v1/jobs/nobody/cancel"), 404, "job_not_found")
    for path in ("", "/results", "/events"):
        is_problem(gateway.http.get(f"/v1/batches/none{path}"), 404, "batch_not_found", "none")
    is_problem(gateway.http.post("/v1/batches/none/cancel"), 404, "batch_not_found")
    is_problem(gateway.http.get("/v2"), 404, "not_found")
    assert is_problem(gateway.http.delete("/v1/jobs"), 405, "method_not_allowed")
    # Of a job that is not the caller's, it is not even said what is wrong with the rest.
    one, batch = named(), named()
    assert gateway.http.post(f"/v1/batches?batch_id={batch}", json=[job(one)]).status_code == 202
    for path in (
        "/v1/jobs/-x",
        f"/v1/jobs/{one}/result?wait=61",
        f"/v1/batches/{batch}/results?after=x",
        f"/v1/batches/{batch}/results?limit=0",
    ):
        is_problem(gateway.http.get(path), 422, "request_invalid")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}])
def test_without_a_known_token_there_is_nothing_but_probes(gateway: Gateway, headers: dict[str, str]) -> None:
    routes = gateway.http.get("/openapi.json").json()["paths"]
    with httpx2.Client(base_url=gateway.url, headers=headers, trust_env=False) as stranger:
        for path, methods in routes.items():
            for method in methods:
                answer = stranger.request(method, path.replace("{job_id}", "j").replace("{batch_id}", "b"))
                if path.startswith("/v1"):
                    is_problem(answer, 401, "unauthorized")
                    assert answer.headers["www-authenticate"].startswith("Bearer")
                else:
                    assert answer.status_code == 200


def test_tokens_are_never_logged(gateway: Gateway) -> None:
    httpx2.get(
        f"{gateway.url}/v1/jobs/x", headers={"Authorization": "Bearer a-wrong-one-that-is-secret"}, trust_env=False
    )
    gateway.http.get("/v1/jobs/x")
    until(lambda: "by tests" in gateway.log.read_text(), "the request was logged, with the name")
    log = gateway.log.read_text()
    assert TOKEN not in log
    assert "a-wrong-one" not in log
    assert all(json.loads(line) for line in log.splitlines() if not line.startswith("http://"))


@pytest.mark.parametrize(
    ("document", "status", "code", "words"),
    [
        ("{", 422, "document_invalid", "not JSON"),
        ("[]", 422, "document_invalid", "must be a JSON object"),
        (json.dumps(job(maks=[])), 422, "document_invalid", "maks"),
        (json.dumps(job(version=2)), 422, "document_version_unsupported", "version 2"),
        (json.dumps(job(masks=[{"id": n, "segmentation": []} for n in range(4)])), 422, "too_many_masks", "4 masks"),
        (json.dumps(job(image="x" * 20_000)), 413, "body_too_large", "20,000 bytes"),
        ("[" * 10_000, 422, "document_invalid", "not JSON"),
    ],
)
def test_documents_that_do_not_fit(gateway: Gateway, document: str, status: int, code: str, words: str) -> None:
    headers = {"content-type": "application/json"}
    is_problem(gateway.http.post("/v1/jobs", content=document, headers=headers), status, code, words)
    lines = f"{json.dumps(job())}\n\n{document}\n"
    answer = gateway.http.post("/v1/batches", content=lines, headers={"content-type": "application/x-ndjson"})
    problem = is_problem(answer, status, code)
    assert problem.get("submitted", 0) == 0
    assert status == 413 or "Line 3: " in problem["detail"]
    assert gateway.http.post("/v1/jobs", content=document).status_code == 415


def test_a_request_for_another_protocol_is_told_why_its_body_is_lost(gateway: Gateway) -> None:
    headers = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"}
    is_problem(gateway.http.post("/v1/jobs", json=job(), headers=headers), 400, "request_invalid", "HTTP/1.1")


def test_a_list_is_checked_whole_and_lines_as_they_come(gateway: Gateway) -> None:
    wrong = [*[job() for _ in range(230)], {}]
    answer = gateway.http.post("/v1/batches?batch_id=listed", json=wrong)
    is_problem(answer, 422, "document_invalid", "Item 230: ")
    is_problem(gateway.http.get("/v1/batches/listed"), 404, "batch_not_found")
    # Longer than a body may be: no more than a line is held.
    lines = "\n".join(json.dumps(document) for document in wrong) + "\n"
    ndjson = {"content-type": "application/x-ndjson"}
    answer = gateway.http.post("/v1/batches?batch_id=lined", content=lines * 2, headers=ndjson)
    problem = is_problem(answer, 422, "document_invalid", "Line 231: ")
    assert (problem["submitted"], problem["batch_id"]) == (200, "lined")
    assert gateway.http.get("/v1/batches/lined").json()["queued"] == 200
    too_many = gateway.http.post("/v1/batches", content=(json.dumps(job()) + "\n") * 1001, headers=ndjson)
    is_problem(too_many, 422, "too_many_jobs", "1,000 jobs")
    for nothing in ("", "\n\n"):
        is_problem(
            gateway.http.post("/v1/batches", content=nothing, headers=ndjson), 422, "document_invalid", "no jobs"
        )
    is_problem(gateway.http.post("/v1/batches", json=[]), 422, "document_invalid", "no jobs")


def test_lines_are_submitted_while_the_others_are_still_on_their_way(
    gateway: Gateway, settings: ClientSettings
) -> None:
    batch = named()
    line = json.dumps(job()).encode() + b"\n"

    def body() -> Iterator[bytes]:
        with Client(settings) as client:
            for total in (200, 400, 600):
                # More than a round trip's, in pieces that end anywhere.
                text = line * 200
                yield text[:1234]
                yield text[1234:]
                until(partial(has, client, total), "what was sent is in the ledger")

    def has(client: Client, total: int) -> bool:
        try:
            return client.batch(batch).counts().total == total
        except BatchNotFound:
            return False

    answer = gateway.http.post(
        f"/v1/batches?batch_id={batch}", content=body(), headers={"content-type": "application/x-ndjson"}
    )
    assert (answer.status_code, answer.json()) == (202, {"batch_id": batch, "submitted": 600})


def test_a_caller_that_goes_away_leaves_nothing_waiting(gateway: Gateway) -> None:
    name = named()
    gateway.http.post("/v1/jobs", json=job(name))
    for path in (f"/v1/jobs/{name}/result?wait=60", f"/v1/jobs/{name}/events"):
        with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
            caller.sendall(f"GET {path} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            until(lambda: scrape(gateway.port)["maskscore_gateway_requests_in_progress"] == 1, "it waits")
        until(lambda: scrape(gateway.port)["maskscore_gateway_requests_in_progress"] == 0, "it waits no more")


def test_no_caller_overwrites_the_masks_of_anothers_job(services: LocalServices, tmp_path: Path) -> None:
    services.create_bucket("spilled")
    settings = ClientSettings(redis_url=services.redis.url, namespace=f"gateway-{uuid.uuid4().hex[:8]}")
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": settings.namespace,
        "MASKSCORE_SPILL_URI": "s3://spilled/masks/",
        "MASKSCORE_MAX_DOCUMENT_BYTES": "1000",
    }

    def polygons(seed: int) -> list[dict[str, Any]]:
        numbers = random.Random(seed)
        return [{"id": n, "segmentation": [[numbers.random() for _ in range(6)]]} for n in range(50)]

    with running_gateway(tmp_path, environment) as running, Client(settings) as client:
        assert running.http.post("/v1/jobs", json=job("j", masks=polygons(1))).status_code == 202
        is_problem(running.http.post("/v1/jobs", json=job("j", masks=polygons(2))), 409, "job_conflict")
        masks = client.job("j").masks
        assert isinstance(masks, MasksRef)
        # Under its ETag, it is still the first one's.
        kept = client.objects.read(masks.uri, what="masks", max_bytes=100_000, etag=masks.etag)
        assert json.loads(kept.data)["masks"][0]["segmentation"] == polygons(1)[0]["segmentation"]


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
def test_hundreds_of_streams_take_no_threads(gateway: Gateway, settings: ClientSettings) -> None:
    names = [named() for _ in range(300)]
    assert gateway.http.post("/v1/batches", json=[job(name) for name in names]).status_code == 202
    with ExitStack() as callers:
        streams = []
        for name in names:
            stream = callers.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
            head = f"GET /v1/jobs/{name}/events HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            stream.sendall(head.encode())
            streams.append(stream.makefile("rb"))
        until(lambda: scrape(gateway.port)["maskscore_gateway_requests_in_progress"] == 300, "all of them wait")
        status = Path(f"/proc/{gateway.process.pid}/status").read_text()
        (threads,) = re.findall(r"^Threads:\s+(\d+)$", status, re.MULTILINE)
        # The loop's, those that call Redis, the watcher, and a few of libraries.
        assert int(threads) <= 1 + GatewaySettings().gateway_threads + 1 + 4
        end(settings, *names)
        for name, lines in zip(names, streams, strict=True):
            said = b"".join(iter(lines.readline, b"0\r\n"))
            assert f'"job_id":"{name}","state":"failed"'.encode() in said
    until(lambda: scrape(gateway.port)["maskscore_gateway_requests_in_progress"] == 0, "none waits any more")


@pytest.mark.needs("curl", shutil.which("curl"))
def test_the_pages_own_lines_work(gateway: Gateway, settings: ClientSettings, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "gateway.md").read_text()
    (one,) = re.findall(r"## One job\n\n.*\n\n((?:    .*\n)+)", page)
    (many,) = re.findall(r"## Many jobs\n\n((?:    .*\n)+)", page)
    one = one.replace("http://127.0.0.1:8080", gateway.url)
    names = [named() for _ in range(3)]
    (tmp_path / "evening.jsonl").write_text("".join(json.dumps(job(name)) + "\n" for name in names))
    ender = threading.Thread(target=_end_when_there, args=(settings, ["photo-1", *names]))
    ender.start()
    done = subprocess.run(
        ["bash", "-ec", one + many],
        env={**os.environ, "TOKEN": TOKEN, "no_proxy": "*"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    ender.join()
    assert done.returncode == 0, done.stderr
    for said in (
        '{"job_id":"photo-1"}',
        '"state":"failed"',
        '"submitted":3',
        "event: done",
        '"code":"image_not_found"',
    ):
        assert said in done.stdout
    assert done.stdout.count("event: ended") == 4
    assert "maskscore-cursor: " in (tmp_path / "headers.txt").read_text()


def _end_when_there(settings: ClientSettings, job_ids: list[str]) -> None:
    with Client(settings) as client:
        for job_id in job_ids:
            until(partial(_is_there, client, job_id), "the job was submitted")
            end(settings, job_id)


def _is_there(client: Client, job_id: str) -> bool:
    return client.records([job_id])[0] is not None


def test_a_stream_goes_on_where_it_broke_off_and_ends_when_all_have_ended(
    gateway: Gateway, settings: ClientSettings
) -> None:
    batch, ids = named(), [named() for _ in range(4)]
    assert gateway.http.post(f"/v1/batches?batch_id={batch}", json=[job(each) for each in ids]).status_code == 202
    with gateway.http.stream("GET", f"/v1/batches/{batch}/events") as stream:
        end(settings, ids[0], ids[1])
        coming = events(stream)
        first, second = next(coming), next(coming)
        assert [first.data["job_id"], second.data["job_id"]] == ids[:2]
        assert scrape(gateway.port)["maskscore_gateway_requests_in_progress"] == 1
    until(lambda: scrape(gateway.port)["maskscore_gateway_requests_in_progress"] == 0, "nothing is left of the stream")
    end(settings, ids[2])
    with gateway.http.stream("GET", f"/v1/batches/{batch}/events", headers={"Last-Event-ID": first.id}) as stream:
        coming = events(stream)
        assert [next(coming).data["job_id"] for _ in range(2)] == ids[1:3]
        view = gateway.http.post(f"/v1/batches/{batch}/cancel").json()
        assert (view["failed"], view["cancelled"], view["ended"], view["total"]) == (3, 1, 4, 4)
        last, done = list(coming)
    assert (last.data, done.event) == ({"job_id": ids[3], "state": "cancelled"}, "done")
    again = gateway.http.get(f"/v1/batches/{batch}/events", headers={"Last-Event-ID": done.id})
    assert again.status_code == 204
    with gateway.http.stream("GET", f"/v1/batches/{batch}/events?after={last.id}") as stream:
        assert [event.event for event in events(stream)] == ["done"]


def test_a_page_of_results_that_is_not_the_last(gateway: Gateway, settings: ClientSettings) -> None:
    batch, ids = named(), [named() for _ in range(3)]
    gateway.http.post(f"/v1/batches?batch_id={batch}", json=[job(each) for each in ids])
    empty = gateway.http.get(f"/v1/batches/{batch}/results")
    assert (empty.text, empty.headers["maskscore-cursor"]) == ("", "0")
    end(settings, *ids[:2])
    page = gateway.http.get(empty.links["next"]["url"])
    assert [json.loads(line)["job_id"] for line in page.text.splitlines()] == ids[:2]
    end(settings, ids[2])
    page = gateway.http.get(page.links["next"]["url"])
    assert [json.loads(line)["job_id"] for line in page.text.splitlines()] == ids[2:]
    assert "next" not in page.links


def test_it_serves_the_metrics_that_are_declared(gateway: Gateway) -> None:
    gateway.http.get("/v1/jobs/nobody")
    served = {line.split()[2] for line in get(gateway.port, "/metrics")[1].splitlines() if line.startswith("# TYPE")}
    assert {name for name in served if name.startswith("maskscore_")} == {
        m.name for m in METRICS if m.side == "gateway"
    }
    assert scrape(gateway.port)["maskscore_gateway_requests_total{method=GET,route=/v1/jobs/{job_id},status=404}"] >= 1


def test_a_full_queue_and_a_redis_that_is_away_say_when_to_come_again(tmp_path: Path) -> None:
    port = free_port()
    environment = {
        "MASKSCORE_REDIS_URL": f"redis://127.0.0.1:{port}/0",
        "MASKSCORE_QUEUE_LIMIT": "3",
        "MASKSCORE_REDIS_TIMEOUT_S": "2",
    }
    # It begins without Redis.
    with running_gateway(tmp_path / "gateway", environment) as gateway:
        assert get(gateway.port, "/readyz")[0] == 503
        away = gateway.http.post("/v1/jobs", json=job("a"))
        is_problem(away, 503, "service_unavailable", "does not answer")
        assert int(away.headers["retry-after"]) > 0
        # Where Redis is, and what was asked of it, is in the log alone.
        for said in (away.text, get(gateway.port, "/readyz")[1]):
            assert not [secret for secret in ("127.0.0.1", str(port), "maskscore:") if secret in said], said
        assert f"127.0.0.1:{port}" in gateway.log.read_text()
        with RedisServer(tmp_path / "redis", port=port, password=""):
            until(lambda: get(gateway.port, "/readyz") == (200, "ok\n"), "it is ready")
            assert gateway.http.post("/v1/batches?batch_id=b", json=[job(each) for each in "abc"]).status_code == 202
            for full in (
                gateway.http.post("/v1/jobs", json=job("d")),
                gateway.http.post("/v1/batches?batch_id=b", json=[job(each) for each in "cde"]),
            ):
                is_problem(full, 429, "queue_full", "3 jobs are queued")
                assert int(full.headers["retry-after"]) > 0
            stream = gateway.http.send(gateway.http.build_request("GET", "/v1/batches/b/events"), stream=True)
            assert stream.status_code == 200
        with closing(stream):
            (problem,) = list(events(stream))
            assert (problem.event, problem.data["code"]) == ("problem", "service_unavailable")
        assert get(gateway.port, "/livez")[0] == 200
        assert "does not answer" in get(gateway.port, "/readyz")[1]
        with RedisServer(tmp_path / "redis", port=port, password=""):
            until(lambda: get(gateway.port, "/readyz")[0] == 200, "it is ready again")
            assert gateway.http.post("/v1/jobs/a/cancel").json() == {"job_id": "a", "state": "cancelled"}
            assert gateway.http.post("/v1/jobs", json=job("d")).status_code == 202


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_streams_and_waits_and_the_gateway(
    services: LocalServices, tmp_path: Path, number: signal.Signals
) -> None:
    environment = {**services.environment(), "MASKSCORE_NAMESPACE": f"gateway-{uuid.uuid4().hex[:8]}"}
    with running_gateway(tmp_path, environment) as gateway:
        gateway.http.post("/v1/batches?batch_id=b", json=[job("j")])
        answers: list[httpx2.Response] = []
        waiting = threading.Thread(target=lambda: answers.append(gateway.http.get("/v1/jobs/j/result?wait=60")))
        waiting.start()
        with (
            gateway.http.stream("GET", "/v1/batches/b/events") as stream,
            gateway.http.stream("GET", "/v1/jobs/j/events") as other,
        ):
            until(lambda: scrape(gateway.port)["maskscore_gateway_requests_in_progress"] == 3, "all three wait")
            gateway.process.send_signal(number)
            assert list(events(stream)) == list(events(other)) == []
        waiting.join()
        is_problem(answers[0], 409, "not_ended")
        assert gateway.process.wait(timeout=120) == 0
        assert "Traceback" not in gateway.log.read_text()


def test_more_requests_than_may_be_are_told_to_come_again_and_probes_are_answered(
    services: LocalServices, tmp_path: Path
) -> None:
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": f"gateway-{uuid.uuid4().hex[:8]}",
        "MASKSCORE_GATEWAY_MAX_REQUESTS": "1",
    }
    with running_gateway(tmp_path, environment) as gateway:
        gateway.http.post("/v1/jobs", json=job("j"))
        with gateway.http.stream("GET", "/v1/jobs/j/events"):
            busy = gateway.http.get("/v1/jobs/j")
            is_problem(busy, 503, "overloaded")
            assert busy.headers["retry-after"] == "1"
            assert get(gateway.port, "/readyz")[0] == 200
        until(lambda: gateway.http.get("/v1/jobs/j").status_code == 200, "there is room again")
