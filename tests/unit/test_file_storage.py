"""``file://`` reads only regular files inside the allowed roots."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest

from maskscore.errors import JobError
from maskscore.storage import ObjectRole, Objects
from maskscore.storage.uris import path_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    (folder / "a photo#1.bin").write_bytes(b"0123456789")
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "inner").symlink_to(folder / "a photo#1.bin")
    os.mkfifo(folder / "pipe")
    return folder


def read(root: Path, uri: str, max_bytes: int = 100, etag: str | None = None) -> bytes:
    objects = Objects(buckets=(), result_buckets=(), file_roots=[root])
    return objects.read(uri, what="image", max_bytes=max_bytes, etag=etag).data


def test_files_inside_the_root_are_read(root: Path) -> None:
    path = root / "a photo#1.bin"
    assert read(root, path.as_uri()) == b"0123456789"
    assert read(root, (root / "inner").as_uri()) == b"0123456789"
    assert read(root, path.as_uri().replace("file://", "file://localhost")) == b"0123456789"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nothing", "image_not_found"),
        ("pipe", "image_not_found"),
        (".", "image_not_found"),
        ("../secret", "uri_not_allowed"),
        ("%2e%2e/secret", "uri_not_allowed"),
        ("link", "uri_not_allowed"),
        ("../not there either", "uri_not_allowed"),
        ("a%00b", "uri_invalid"),
    ],
)
def test_everything_else_is_refused(root: Path, name: str, code: str) -> None:
    with pytest.raises(JobError) as caught:
        read(root, f"file://{root}/{name}")
    assert caught.value.code == code


def test_whether_a_file_exists_is_said_of_every_role(root: Path) -> None:
    objects = Objects(buckets=(), result_buckets=(), file_roots=[root])
    for role in get_args(ObjectRole):
        assert objects.exists((root / "a photo#1.bin").as_uri(), what=role)
        assert not objects.exists((root / "nothing").as_uri(), what=role)
        with pytest.raises(JobError) as caught:
            objects.exists((root / "link").as_uri(), what=role)
        assert caught.value.code == "uri_not_allowed"


@pytest.mark.parametrize(
    "uri", ["a.jpg", "", "file://server/share/a.jpg", "ftp://h/a", "s3://", "s3://b", "s3://b/", "s3:///k"]
)
def test_what_is_no_uri_of_ours_is_said_to_be_none(root: Path, uri: str) -> None:
    with pytest.raises(JobError) as caught:
        read(root, uri)
    assert caught.value.code == "uri_invalid"


def test_too_large_and_changed_files(root: Path) -> None:
    uri = (root / "a photo#1.bin").as_uri()
    with pytest.raises(JobError, match=r"10 bytes; at most 9 .*MASKSCORE_MAX_IMAGE_BYTES") as caught:
        read(root, uri, max_bytes=9)
    assert caught.value.code == "image_too_large"
    objects = Objects(buckets=(), result_buckets=(), file_roots=[root])
    etag = objects.read(uri, what="image", max_bytes=10).etag
    assert read(root, uri, etag=etag) == b"0123456789"
    (root / "a photo#1.bin").write_bytes(b"012345678")
    with pytest.raises(JobError) as changed:
        read(root, uri, etag=etag)
    assert changed.value.code == "image_changed"


def test_nothing_is_open_by_default() -> None:
    with pytest.raises(JobError) as caught:
        Objects(buckets=(), result_buckets=()).read("file:///etc/hostname", what="masks", max_bytes=1)
    assert caught.value.code == "uri_not_allowed"


@pytest.mark.parametrize("swapped", ["allowed/a", "allowed/a/b", "allowed/a/b/photo"])
def test_a_link_that_takes_a_folders_place_is_not_followed(
    tmp_path: Path, swapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside = tmp_path / "allowed", tmp_path / "outside"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "photo").write_bytes(b"fine")
    for folder in (outside, outside / "b"):
        folder.mkdir()
        (folder / "photo").write_bytes(b"secret")
    uri = (root / "a" / "b" / "photo").as_uri()
    assert read(root, uri) == b"fine"

    def resolve_then_swap(uri: str) -> Path:
        path = path_of(uri)
        place = tmp_path / swapped
        place.rename(tmp_path / "away")
        place.symlink_to({"a": outside, "b": outside, "photo": outside / "photo"}[place.name])
        return path

    monkeypatch.setattr("maskscore.storage.files.path_of", resolve_then_swap)
    with pytest.raises(JobError) as caught:
        read(root, uri)
    assert caught.value.code == "image_not_found"


def test_a_folder_that_may_be_entered_and_not_listed_is_passed_through(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "photo").write_bytes(b"fine")
    before = sum(1 for _ in Path("/dev/fd").iterdir())
    inner.chmod(0o311)
    try:
        assert read(tmp_path, (inner / "photo").as_uri()) == b"fine"
    finally:
        inner.chmod(0o755)
    for _ in range(3):
        with pytest.raises(JobError):
            read(tmp_path, (inner / "nothing" / "photo").as_uri())
    assert sum(1 for _ in Path("/dev/fd").iterdir()) == before


def written(root: Path, uri: str, data: bytes = b"new", *, stays: bool = False) -> bytes:
    """Write a result below the root, and return what was there before."""
    there = [b""]

    def replaces(found: bytes) -> None:
        there.append(found)
        if stays:
            raise ValueError("stays")

    objects = Objects(buckets=(), result_buckets=(), result_roots=[root])
    etag = objects.write_new(uri, data, content_type="", replaces=replaces)
    assert etag == objects.etag(uri, what="result")
    return there[-1]


def test_results_are_written_whole_below_their_root(root: Path) -> None:
    path = root / "new" / "folder" / "part #1"
    assert written(root, path.as_uri()) == b""
    assert written(root, path.as_uri(), b"newer") == b"new"
    with pytest.raises(ValueError, match="stays"):
        written(root, path.as_uri(), b"newest", stays=True)
    assert path.read_bytes() == b"newer"
    assert [entry.name for entry in path.parent.iterdir()] == ["part #1"]
    objects = Objects(buckets=(), result_buckets=(), result_roots=[root])
    objects.check_output(f"{path.parent.as_uri()}/")
    for _ in range(2):
        objects.remove(path.as_uri())
        assert not objects.exists(path.as_uri(), what="result")
    with pytest.raises(JobError) as caught:
        objects.check_output(f"{(root / 'none').as_uri()}/")
    assert caught.value.code == "result_not_stored"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("../outside", "result_forbidden"),
        ("link", "result_forbidden"),
        ("folder", "result_not_stored"),
        ("a photo%231.bin/below", "result_not_stored"),
    ],
)
def test_results_are_written_nowhere_else(root: Path, name: str, code: str) -> None:
    (root / "folder").mkdir()
    uri = f"{root.as_uri()}/{name}"
    with pytest.raises(JobError) as caught:
        written(root, uri)
    assert caught.value.code == code
    # Roots to read from are none to write to.
    with pytest.raises(JobError) as caught:
        Objects(buckets=(), result_buckets=(), file_roots=[root]).write(uri, b"", content_type="")
    assert caught.value.code == "result_forbidden"
    assert (root.parent / "secret").read_bytes() == b"secret"
    assert [entry.name for entry in root.iterdir() if entry.name.startswith(".")] == []


def test_no_result_is_written_through_a_link_that_takes_a_folders_place(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.parent / "elsewhere").mkdir()
    (root / "late").symlink_to(root.parent / "elsewhere")
    # As if the link had come after the path was resolved.
    monkeypatch.setattr("maskscore.storage.file_writing.path_of", lambda uri: Path(uri.removeprefix("file://")))
    with pytest.raises(JobError) as caught:
        written(root, f"file://{root}/late/part")
    assert caught.value.code == "result_not_stored"
    assert list((root.parent / "elsewhere").iterdir()) == []
