"""``s3://`` with a real S3 server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from boto3.exceptions import RetriesExceededError
from botocore.client import BaseClient

from maskscore.devstack import LocalServices
from maskscore.errors import FailureCode, JobError, ResultOfAnotherJob, ResultUnavailable
from maskscore.ledger import JobRecord, JobStatus
from maskscore.schema.document import pack
from maskscore.schema.job import Job
from maskscore.schema.result import JobResult, JobState
from maskscore.storage import Objects
from maskscore.storage.failures import s3_errors
from maskscore.storage.results import StoredResult, load_result, load_result_or_error, store_result

KEYS = ["plain.jpg", "with space.jpg", "100%25.jpg", "a+b.jpg", "q?x=1#y.jpg", "ünï/日本.jpg"]


@pytest.fixture(scope="module")
def objects(services: LocalServices) -> Objects:
    for bucket in ("objects", "others"):
        services.create_bucket(bucket)
    return Objects(buckets=("objects", "gone-bucket"), result_buckets=("objects",))


@pytest.fixture
def boto3_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the operations that boto3 is asked for, as they come."""
    calls: list[str] = []
    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def recorded(self: BaseClient, operation_name: str, api_params: Any) -> Any:
        calls.append(operation_name)
        return call(self, operation_name, api_params)

    monkeypatch.setattr(BaseClient, "_make_api_call", recorded)
    return calls


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_taken_as_they_are_written(objects: Objects, key: str) -> None:
    def check() -> None:
        etag = objects.write(f"s3://objects/{key}", key.encode(), content_type="text/plain")
        fetched = objects.read(f"s3://objects/{key}", what="image", max_bytes=100)
        assert (fetched.data, fetched.etag) == (key.encode(), etag)
        assert objects.read(f"s3://objects/{key}", what="image", max_bytes=100, etag=etag).data == key.encode()
        assert objects.exists(f"s3://objects/{key}", what="image")
        assert not objects.exists(f"s3://objects/{key}.gone", what="image")

    # By boto3, then by obstore.
    check()
    _in_thread(check)


@pytest.mark.parametrize("key", KEYS)
def test_ordinary_objects_are_read_and_written_without_boto3(
    objects: Objects, key: str, boto3_calls: list[str]
) -> None:
    uri = f"s3://objects/by-obstore/{key}"
    objects.write(uri, b"0123456789", content_type="text/plain")
    del boto3_calls[:]

    def check() -> None:
        etag = objects.write(uri, b"0123456789", content_type="text/x-log")
        assert objects.write_new(f"{uri}.{uuid.uuid4().hex}", b"", content_type="text/plain", replaces=Mock())
        assert objects.read(uri, what="image", max_bytes=10, etag=etag).data == b"0123456789"
        assert objects.read_range(uri, 2, 3, what="image", etag=etag).data == b"234"

    _in_thread(check)
    assert boto3_calls == []


def _in_thread(check: Callable[[], None]) -> None:
    """Call it outside the main thread, where obstore is used."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(check).result()


@pytest.mark.parametrize("key", ["a//b", "/a", "tab\there"])
def test_keys_that_obstore_would_change_are_read_by_boto3(objects: Objects, key: str, boto3_calls: list[str]) -> None:
    etag = objects.write(f"s3://objects/{key}", key.encode(), content_type="text/plain")
    read = objects.read(f"s3://objects/{key}", what="image", max_bytes=100, etag=etag)
    assert (read.data, boto3_calls) == (key.encode(), ["PutObject", "GetObject"])


def test_whether_an_object_exists_is_not_guessed(objects: Objects) -> None:
    with pytest.raises(JobError, match="MASKSCORE_BUCKETS"):
        objects.exists("s3://others/x", what="masks")


@pytest.mark.parametrize(
    ("uri", "code", "words"),
    [
        ("s3://objects/nothing", "masks_not_found", "no object s3://objects/nothing"),
        ("s3://gone-bucket/x", "masks_not_found", "no bucket 'gone-bucket'"),
        ("s3://others/x", "uri_not_allowed", "MASKSCORE_BUCKETS"),
    ],
)
def test_what_cannot_be_read(objects: Objects, uri: str, code: str, words: str) -> None:
    with pytest.raises(JobError) as caught:
        objects.read(uri, what="masks", max_bytes=10)
    assert (caught.value.code, caught.value.transient) == (code, False)
    assert words in str(caught.value)


def test_size_and_etag_are_held(objects: Objects) -> None:
    objects.write("s3://objects/ten", b"0123456789", content_type="text/plain")
    with pytest.raises(JobError, match="10 bytes; at most 9"):
        objects.read("s3://objects/ten", what="masks", max_bytes=9)
    with pytest.raises(JobError) as caught:
        objects.read("s3://objects/ten", what="masks", max_bytes=10, etag='"0123"')
    assert caught.value.code == "masks_changed"


def test_parts_of_an_object_are_of_the_version_that_was_asked_for(objects: Objects, tmp_path: Path) -> None:
    uri = "s3://objects/parts"
    data = bytes(range(256)) * 20_000
    etag = objects.write(uri, data, content_type="application/x-tar")
    (tmp_path / "parts").write_bytes(data)
    local = Objects(buckets=(), result_buckets=(), file_roots=[tmp_path])

    def parts(objects: Objects, uri: str, etag: str) -> list[bytes]:
        def read(start: int, length: int) -> bytes:
            found = objects.read_range(uri, start, length, what="image", etag=etag)
            assert (found.size, found.etag) == (len(data), etag)
            return found.data

        starts = range(0, len(data) + 1_000_001, 1_000_000)
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda start: read(start, 1_000_000), starts))

    file = (tmp_path / "parts").as_uri()
    for read in (parts(objects, uri, etag), parts(local, file, local.etag(file, what="image"))):
        assert [len(part) for part in read] == [1_000_000] * 5 + [120_000, 0]
        assert b"".join(read) == data
    objects.write(uri, data[1:], content_type="application/x-tar")
    with pytest.raises(JobError) as caught:
        objects.read_range(uri, 0, 10, what="image", etag=etag)
    assert caught.value.code == "image_changed"
    objects.write("s3://objects/empty", b"", content_type="text/plain")
    assert objects.read_range("s3://objects/empty", 0, 10, what="image").size == 0
    with pytest.raises(JobError) as missing:
        objects.read_range("s3://objects/nothing", 0, 10, what="image")
    assert missing.value.code == "image_not_found"


def test_results_go_only_where_they_may(objects: Objects) -> None:
    with pytest.raises(JobError, match="MASKSCORE_RESULT_BUCKETS") as caught:
        objects.write("s3://others/r", b"x", content_type="text/plain")
    assert caught.value.code == "result_forbidden"


@pytest.mark.parametrize(
    ("variables", "transient", "of_worker"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, False, True),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, False, True),
        ({"AWS_PROFILE": "nobody"}, False, True),
        ({"AWS_ENDPOINT_URL": "nonsense", "AWS_ENDPOINT_URL_S3": "nonsense"}, False, True),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, True, False),
    ],
)
def test_wrong_credentials_and_a_dead_store(
    services: LocalServices,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    transient: bool,
    of_worker: bool,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(JobError) as caught:
        Objects(buckets=None, result_buckets=None).read("s3://objects/ten", what="image", max_bytes=10)
    error = caught.value
    assert (error.code, error.transient, error.of_worker) == ("storage_unavailable", transient, of_worker)
    assert os.environ["AWS_ACCESS_KEY_ID"] not in str(caught.value)


def test_a_listing_of_several_pages_has_every_key_and_its_etag(objects: Objects, tmp_path: Path) -> None:
    names = [*KEYS, *(f"many/{n:04}.jpg" for n in range(1010))]

    def put(name: str) -> str:
        return objects.write(f"s3://objects/listed/{name}", name.encode(), content_type="text/plain")

    with ThreadPoolExecutor(8) as pool:
        etags = dict(zip(names, pool.map(put, names), strict=True))
    objects.write("s3://objects/listed-not", b"x", content_type="text/plain")
    listed = list(objects.list("s3://objects/listed/"))
    assert {entry.name: entry.etag for entry in listed} == etags
    assert sum(entry.size for entry in listed) == sum(len(name.encode()) for name in names)
    objects.download("s3://objects/listed/a+b.jpg", tmp_path / "a", what="masks")
    assert (tmp_path / "a").read_bytes() == b"a+b.jpg"


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("s3://gone-bucket/x/", "image_not_found"),
        ("s3://objects/no-slash", "uri_invalid"),
        ("s3://objects", "uri_invalid"),
        ("file:///tmp/", "uri_invalid"),
    ],
)
def test_what_cannot_be_listed(objects: Objects, uri: str, code: str) -> None:
    with pytest.raises(JobError) as caught:
        list(objects.list(uri))
    assert caught.value.code == code


def test_a_download_keeps_to_the_buckets_and_says_when_it_was_cut_off(tmp_path: Path) -> None:
    objects = Objects(buckets=["mine"], result_buckets=())
    with pytest.raises(JobError, match="MASKSCORE_BUCKETS") as refused:
        objects.download("s3://theirs/a.json", tmp_path / "a", what="masks")
    assert refused.value.code == FailureCode.URI_NOT_ALLOWED
    with pytest.raises(JobError, match="does not answer") as cut_off, s3_errors("s3://mine/a.json", "mine", "masks"):
        raise RetriesExceededError(ConnectionResetError("by peer"))  # type: ignore[arg-type]
    assert (cut_off.value.code, cut_off.value.transient) == (FailureCode.STORAGE_UNAVAILABLE, True)


def test_a_result_is_written_where_there_is_none_or_an_earlier_one_of_the_same_job(objects: Objects) -> None:
    def result_of(job_id: str, worker: str) -> JobResult:
        return JobResult(job_id=job_id, state=JobState.SUCCEEDED, worker=worker)

    def store(job_id: str, uri: str, worker: str = "w") -> StoredResult:
        job = Job(job_id=job_id, image="s3://mine/a.jpg", masks="s3://mine/a.json", result_uri=uri)
        return store_result(job, result_of(job_id, worker), objects)

    one = f"s3://objects/{uuid.uuid4().hex}.json"
    assert store("a", one).uri == one
    # A second attempt of the same job, perhaps after one that stored it and was killed then.
    store("a", one, "second")
    with pytest.raises(JobError, match=r"holds the result of job a, .* ends in '/'") as caught:
        store("b", one)
    assert (caught.value.code, caught.value.transient) == ("result_exists", False)
    kept = JobResult.model_validate_json(objects.read(one, what="result", max_bytes=9999).data)
    assert (kept.job_id, kept.worker) == ("a", "second")
    objects.write(one, b"notes of mine", content_type="text/plain")
    with pytest.raises(JobError, match="an object that is no result"):
        store("a", one)
    folder = f"s3://objects/{uuid.uuid4().hex}/"
    assert [store(job_id, folder).uri for job_id in "aab"] == [f"{folder}{name}.json" for name in "aab"]


def test_a_stored_result_of_another_job_is_not_given_out(objects: Objects) -> None:
    uri = f"s3://objects/{uuid.uuid4().hex}.json"
    other = JobResult(job_id="b", state=JobState.SUCCEEDED)
    objects.write(uri, other.model_dump_json().encode(), content_type="application/json")
    now = datetime.now(UTC)
    status = JobStatus("a", JobState.SUCCEEDED, 1, 0, now, now, now, "w", None, None)
    with pytest.raises(ResultOfAnotherJob, match="holds that of job b"):
        load_result(JobRecord(status, None, uri), objects)
    with pytest.raises(ResultOfAnotherJob, match="its record holds"):
        load_result(JobRecord(status, pack(other), None), objects)
    lost = load_result_or_error(JobRecord(status, None, uri), objects)
    assert (lost.job_id, lost.state, lost.components) == ("a", JobState.SUCCEEDED, [])
    assert lost.error is not None
    assert lost.error.code == "result_of_another_job"
    gone = load_result_or_error(JobRecord(status, None, f"{uri}.gone"), objects)
    assert gone.error is not None
    assert gone.error.code == "result_unavailable"


def test_a_result_whose_store_is_away_is_not_lost(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    status = JobStatus("a", JobState.SUCCEEDED, 1, 0, now, now, now, "w", None, None)
    away = JobError(FailureCode.STORAGE_UNAVAILABLE, "The store does not answer.")
    monkeypatch.setattr(Objects, "read", Mock(side_effect=away))
    with pytest.raises(ResultUnavailable, match="Try again later"):
        load_result_or_error(JobRecord(status, None, "s3://objects/a.json"), objects)
