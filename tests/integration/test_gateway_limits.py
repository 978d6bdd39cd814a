"""The gateway's limits per caller: connections, the event loop, slots, memory, time."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway_process import TOKEN, Gateway, events, running_gateway
from maskscore.devstack import LocalServices
from maskscore.devstack.ports import free_port
from scrape import get, scrape
from waiting import until

OTHER = "another-token-for-the-tests"
SQUARE = [1.5, 1, 9, 1, 9, 9]


@pytest.fixture(scope="module")
def probe_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    # Of the same tenant as the other one, so that both open the same jobs.
    file.write_text(f"revoked={OTHER} tenant=tests\n")
    return file


@pytest.fixture(scope="module")
def gateway(
    services: LocalServices, tmp_path_factory: pytest.TempPathFactory, tokens: Path, probe_port: int
) -> Iterator[Gateway]:
    """One that has few descriptors, little patience, and few slots for a token."""
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": f"limits-{uuid.uuid4().hex[:8]}",
        "MASKSCORE_GATEWAY_TOKENS_FILE": str(tokens),
        "MASKSCORE_GATEWAY_HEADER_TIMEOUT_S": "1",
        "MASKSCORE_GATEWAY_BODY_TIMEOUT_S": "1",
        "MASKSCORE_GATEWAY_MAX_REQUESTS_PER_TOKEN": "3",
        "MASKSCORE_GATEWAY_MAX_HELD_BYTES": "8000000",
        "MASKSCORE_GATEWAY_PROBE_PORT": str(probe_port),
    }
    with running_gateway(tmp_path_factory.mktemp("gateway"), environment, before=_few_descriptors) as running:
        yield running


def _few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))


def large_job(job_id: str) -> dict[str, Any]:
    """Too large for the gateway's own threads, and quickly read."""
    masks = [{"id": "1", "segmentation": [SQUARE] * 4000}]
    return {"job_id": job_id, "image": "s3://b/a.png", "masks": masks}


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_half_open_connections_shut_nobody_out_and_are_closed(gateway: Gateway) -> None:
    with ExitStack() as stack:
        halves = []
        for _ in range(150):
            half = stack.enter_context(closing(socket.create_connection(("127.0.0.1", gateway.port))))
            half.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ")
            halves.append(half)
        assert get(gateway.port, "/livez")[0] == 200
        assert code_of(gateway.http.get("/v1/jobs/nobody")) == (404, "job_not_found")
        for half in halves:
            half.settimeout(60)
            try:
                said = b"".join(iter(lambda half=half: half.recv(1000), b""))  # type: ignore[misc]
            except ConnectionResetError:
                continue
            assert said in (b"", b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    assert "Too many open files" not in gateway.log.read_text()


def test_a_head_without_end_is_cut_off(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
        caller.settimeout(60)
        # What it had not read yet when it closed may cost the caller the answer.
        with suppress(ConnectionResetError, BrokenPipeError):
            caller.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000)
            assert caller.recv(1000).startswith(b"HTTP/1.1 431 ")
            assert caller.recv(1000) == b""


def test_a_kept_connection_may_not_dawdle_either(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
        caller.settimeout(60)
        caller.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        said = caller.recv(1000)
        while b"ok\n" not in said:
            said += caller.recv(1000)
        caller.sendall(b"GET /livez")
        assert caller.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/jobs", "application/json"), ("/v1/batches", "application/json"), ("/v1/batches", "application/x-ndjson")],
)
def test_a_body_that_does_not_come_is_not_waited_for(gateway: Gateway, path: str, kind: str) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
        caller.settimeout(60)
        head = f"POST {path} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {kind}\r\n"
        caller.sendall(f'{head}Content-Length: 1000\r\n\r\n{{"image": '.encode())
        said = caller.recv(1000)
        while b"body_too_slow" not in said:
            more = caller.recv(1000)
            assert more, said
            said += more
        assert said.startswith(b"HTTP/1.1 408 ")


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_large_body_is_read_by_another_process_and_holds_nothing_up(gateway: Gateway) -> None:
    """That process is stopped, so that no clock is needed to see who waits for it."""
    assert gateway.http.post("/v1/jobs", json=large_job("first")).status_code == 202
    readers = _readers(gateway.process.pid)
    assert readers
    for reader in readers:
        os.kill(reader, signal.SIGSTOP)
    try:
        answers: list[httpx2.Response] = []
        held = threading.Thread(target=lambda: answers.append(gateway.http.post("/v1/jobs", json=large_job("second"))))
        held.start()
        until(lambda: scrape(gateway.port)["maskscore_gateway_requests_in_progress"] == 1, "it is held")
        assert get(gateway.port, "/livez")[0] == get(gateway.port, "/readyz")[0] == 200
        small = {**large_job("small"), "masks": []}
        assert gateway.http.post("/v1/jobs", json=small).status_code == 202
        assert not answers
    finally:
        for reader in readers:
            os.kill(reader, signal.SIGCONT)
    held.join()
    assert (answers[0].status_code, answers[0].json()) == (202, {"job_id": "second"})
    assert gateway.http.get("/v1/jobs/second").json()["state"] == "queued"
    # A reader that dies (of memory, say) costs its own caller an answer, and nobody else anything.
    for reader in _readers(gateway.process.pid):
        os.kill(reader, signal.SIGKILL)
    until(lambda: gateway.http.post("/v1/jobs", json=large_job("second")).status_code == 202, "others have taken over")


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_reader_outlives_its_gateway_or_keeps_it(
    services: LocalServices, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": f"limits-{uuid.uuid4().hex[:8]}",
        "MASKSCORE_GATEWAY_GRACE_S": "1",
    }
    with running_gateway(tmp_path, environment) as gateway:
        assert gateway.http.post("/v1/jobs", json=large_job("first")).status_code == 202
        (reader,) = _readers(gateway.process.pid)
        if number == signal.SIGTERM:
            # One that is at something that takes longer than the grace period.
            os.kill(reader, signal.SIGSTOP)
            held = threading.Thread(target=_ask_in_vain, args=(gateway,))
            held.start()
            until(lambda: scrape(gateway.port)["maskscore_gateway_requests_in_progress"] == 1, "it is held")
        gateway.process.send_signal(number)
        assert gateway.process.wait(timeout=120) == status
        until(lambda: not Path(f"/proc/{reader}").exists() or _is_zombie(reader), "the reader has ended")
        if number == signal.SIGTERM:
            held.join()


def _ask_in_vain(gateway: Gateway) -> None:
    with suppress(httpx2.HTTPError):
        gateway.http.post("/v1/jobs", json=large_job("second"))


def _is_zombie(process: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return "\nState:\tZ" in Path(f"/proc/{process}/status").read_text()
    return True


def _readers(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
            command = (status.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"\nPPid:\t{parent}\n" in text and b"spawn_main" in command:
            found.append(int(status.parent.name))
    return found


def test_large_documents_are_refused_as_small_ones_are(gateway: Gateway) -> None:
    wrong = {**large_job("wrong"), "maks": 1}
    answer = gateway.http.post("/v1/jobs", json=wrong)
    assert code_of(answer) == (422, "document_invalid")
    assert "maks" in answer.json()["detail"]
    listed = gateway.http.post("/v1/batches?batch_id=listed", json=[large_job("l0"), large_job("l1"), wrong])
    assert code_of(listed) == (422, "document_invalid")
    assert "Item 2: " in listed.json()["detail"]
    assert gateway.http.get("/v1/jobs/l0").status_code == 404
    lines = "\n".join(json.dumps(each) for each in (large_job("n0"), large_job("n1")))
    headers = {"content-type": "application/x-ndjson"}
    taken = gateway.http.post("/v1/batches?batch_id=lined", content=lines, headers=headers)
    assert taken.json() == {"batch_id": "lined", "submitted": 2}
    conflict = gateway.http.post("/v1/jobs", json={**large_job("n0"), "options": {"top_k": 1}})
    assert code_of(conflict) == (409, "job_conflict")
    by_content = gateway.http.post("/v1/jobs?content_id=true", json=large_job("n0")).json()["job_id"]
    assert by_content.startswith("content-")


def test_no_more_bytes_are_held_for_one_token_than_its_half(gateway: Gateway) -> None:
    answer = gateway.http.post("/v1/jobs", content=b" " * 5_000_000, headers={"content-type": "application/json"})
    assert code_of(answer) == (503, "overloaded")
    assert "MASKSCORE_GATEWAY_MAX_HELD_BYTES" in answer.json()["detail"]
    # What was held is given back.
    answer = gateway.http.post("/v1/jobs", content=b" " * 3_000_000, headers={"content-type": "application/json"})
    assert code_of(answer) == (422, "document_invalid")


def test_one_token_leaves_slots_for_the_others_and_a_revoked_ones_streams_end(gateway: Gateway, tokens: Path) -> None:
    ids = [uuid.uuid4().hex for _ in range(2)]
    assert gateway.http.post("/v1/batches?batch_id=b", json=[_job(each) for each in ids]).status_code == 202
    headers = {"Authorization": f"Bearer {OTHER}"}
    with httpx2.Client(base_url=gateway.url, headers=headers, timeout=60, trust_env=False) as other:
        waits: list[httpx2.Response] = []
        waiting = threading.Thread(target=lambda: waits.append(other.get(f"/v1/jobs/{ids[0]}/result?wait=60")))
        waiting.start()
        with (
            other.stream("GET", "/v1/batches/b/events") as one,
            other.stream("GET", f"/v1/jobs/{ids[0]}/events") as two,
        ):
            until(lambda: scrape(gateway.port)["maskscore_gateway_requests_in_progress"] == 3, "all slots are taken")
            busy = other.get(f"/v1/jobs/{ids[0]}")
            assert code_of(busy) == (429, "too_many_requests")
            assert busy.headers["retry-after"] == "1"
            assert gateway.http.get(f"/v1/jobs/{ids[0]}").status_code == 200
            tokens.write_text("")
            for stream in (one, two):
                (problem,) = list(events(stream))
                assert (problem.event, problem.data["code"]) == ("problem", "unauthorized")
        waiting.join()
        assert code_of(waits[0]) == (401, "unauthorized")
        assert code_of(other.get(f"/v1/jobs/{ids[0]}")) == (401, "unauthorized")


def _job(job_id: str) -> dict[str, Any]:
    return {"job_id": job_id, "image": "s3://b/a.png", "masks": []}


def test_probes_have_a_port_and_threads_of_their_own(gateway: Gateway, probe_port: int) -> None:
    assert get(probe_port, "/livez") == (200, "ok\n")
    until(lambda: get(probe_port, "/readyz")[0] == 200, "Redis has answered")
    assert "maskscore_gateway_requests_in_progress" in get(probe_port, "/metrics")[1]
    assert get(probe_port, "/v1/jobs/x")[0] == 404


def test_without_tokens_no_web_page_reaches_it(services: LocalServices, tmp_path: Path) -> None:
    environment = {**services.environment(), "MASKSCORE_GATEWAY_TOKENS": ""}
    with running_gateway(tmp_path, environment) as gateway:
        ask = partial(httpx2.request, trust_env=False, timeout=60)
        body: Any = {"json": _job("page")}
        own = f"127.0.0.1:{gateway.port}"
        assert ask("POST", f"{gateway.url}/v1/jobs", **body).status_code == 202
        assert ask("POST", f"{gateway.url}/v1/jobs", **body, headers={"Origin": f"http://{own}"}).status_code == 202
        for host in ("evil.example", f"evil.example:{gateway.port}", "localhost.evil.example", ""):
            answer = ask("GET", f"{gateway.url}/v1/jobs/page", headers={"Host": host})
            assert code_of(answer) == (421, "host_not_allowed")
        for headers in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://localhost:{gateway.port + 1}"},
            {"Sec-Fetch-Site": "cross-site"},
        ):
            answer = ask("POST", f"{gateway.url}/v1/jobs/page/cancel", headers=headers)
            assert code_of(answer) == (403, "cross_origin")
        assert ask("GET", f"{gateway.url}/livez", headers={"Host": "10.0.0.7"}).status_code == 200
        assert ask("GET", f"{gateway.url}/v1/jobs/page").json()["state"] == "queued"
