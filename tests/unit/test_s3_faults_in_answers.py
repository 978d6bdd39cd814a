"""Answers of an S3 server that break off or are of an unusual form: what obstore does not take, boto3 is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from maskscore.errors import JobError
from maskscore.storage import Objects

DATA = b"0123456789" * 10


class Store(ThreadingHTTPServer):
    """Answers each request as the next word of ``plan`` says, at last always as its last one; ``agents`` has asked."""

    plan: list[str]
    agents: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Store
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        agent = str(self.headers["User-Agent"])
        self.server.agents.append("boto3" if "Boto3" in agent else "obstore")
        how = self.server.plan.pop(0) if len(self.server.plan) > 1 else self.server.plan[0]
        self.close_connection = True
        if how == "close":
            return
        if how == "slow down":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", '"e"')
        self.send_header("Connection", "close")
        if how == "chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(DATA), DATA))
            return
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA[: 50 if how == "cut" else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    server = Store(("127.0.0.1", 0), Handler)
    server.agents = []
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def read(objects: Objects, max_bytes: int = 1000, etag: str | None = None) -> bytes:
    """Read in a thread of its own, as workers do; obstore is not asked in the main thread."""
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(objects.read, "s3://b/k", what="image", max_bytes=max_bytes, etag=etag)
        return reading.result().data


@pytest.fixture
def objects() -> Objects:
    return Objects(buckets=None, result_buckets=None)


@pytest.mark.parametrize("fault", ["cut", "close", "slow down"])
def test_an_answer_that_breaks_off_is_asked_for_again(store: Store, objects: Objects, fault: str) -> None:
    store.plan = [fault, fault, "whole"]
    assert read(objects) == DATA
    assert store.agents == ["obstore", "boto3", "boto3"]
    assert read(objects) == DATA
    assert store.agents[3:] == ["obstore"]


@pytest.mark.parametrize("fault", ["cut", "close", "slow down"])
def test_one_that_always_breaks_off_is_a_store_that_is_away(store: Store, objects: Objects, fault: str) -> None:
    store.plan = [fault]
    with pytest.raises(JobError, match="does not answer") as caught:
        read(objects)
    assert (caught.value.code, caught.value.transient) == ("storage_unavailable", True)
    assert len(store.agents) >= 4


@pytest.mark.parametrize("how", ["whole", "chunks"])
def test_bytes_and_etags_are_checked_however_they_come(store: Store, objects: Objects, how: str) -> None:
    store.plan = [how]
    assert read(objects, etag='"e"') == DATA
    with pytest.raises(JobError) as large:
        read(objects, max_bytes=len(DATA) - 1)
    with pytest.raises(JobError) as changed:
        read(objects, etag='"other"')
    assert [large.value.code, changed.value.code] == ["image_too_large", "image_changed"]


def test_a_bucket_in_which_obstore_fails_again_and_again_is_left_to_boto3(store: Store, objects: Objects) -> None:
    store.plan = ["close", "whole"] * 3 + ["whole"]
    assert [read(objects) for _ in range(5)] == [DATA] * 5
    assert store.agents == ["obstore", "boto3"] * 3 + ["boto3"] * 2


def test_the_main_thread_is_left_to_boto3_which_ctrl_c_interrupts(store: Store, objects: Objects) -> None:
    store.plan = ["whole"]
    assert objects.read("s3://b/k", what="image", max_bytes=len(DATA)).data == DATA
    assert store.agents == ["boto3"]


def test_what_goes_through_a_proxy_is_left_to_boto3(
    store: Store, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.plan = ["whole"]
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{store.server_port}")
    monkeypatch.setenv("NO_PROXY", "elsewhere")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://store.example")
    assert read(objects) == DATA
    assert store.agents == ["boto3"]
