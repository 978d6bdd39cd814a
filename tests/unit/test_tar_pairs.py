"""Tars: every member that can be read comes with its partner, once, and every damage is named."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from maskscore.errors import JobError
from maskscore.schema import ShardCounts, ShardCursor
from maskscore.shards import RangeStream, TarPair, member_pairs, tar_pairs
from maskscore.storage import Objects
from shard_tars import Files, Order, write_tar
from waiting import until

FILES: Files = [(f"sa_{n}{ending}", bytes([n]) * (600 + n)) for n in range(12) for ending in (".jpg", ".json")]
LARGE = 1 << 20


def read(objects: Objects, path: Path, cursor: ShardCursor | None = None, held_bytes: int = LARGE) -> list[TarPair]:
    start = cursor or ShardCursor()
    with tar_pairs(
        objects, path.as_uri(), start, max_bytes=LARGE, held_bytes=held_bytes, range_bytes=1000, ahead=3
    ) as (pairs, _):
        return list(pairs)


def names(pairs: list[TarPair]) -> list[tuple[str | None, str | None]]:
    members = [(pair.image, pair.masks) for pair in pairs if not pair.damage]
    return [(image.name if image else None, masks.name if masks else None) for image, masks in members]


def compressed(path: Path, kind: str) -> Path:
    other = path.with_name(f"{path.name}.{kind}")
    with pa.CompressedOutputStream(str(other), {"gz": "gzip", "zst": "zstd"}[kind]) as stream:
        stream.write(path.read_bytes())
    return other


def test_ranges_are_requested_ahead_and_no_more_than_stated() -> None:
    data = bytes(range(200))
    requested: list[int] = []

    def read_range(start: int, length: int) -> bytes:
        requested.append(start)
        return data[start : start + length]

    with RangeStream(read_range, len(data), range_bytes=10, ahead=3) as stream:
        for place in range(len(data)):
            assert stream.read(1) == data[place : place + 1]
            # The one that is read, and three.
            most = min(20, place // 10 + 4)
            until(lambda: len(requested) >= most, "the ranges ahead are requested")  # noqa: B023
            assert len(requested) == most
        assert stream.read(1) == b""
    assert sorted(requested) == list(range(0, 200, 10))


@pytest.mark.parametrize("kind", ["", "gz", "zst"])
@pytest.mark.parametrize("order", ["pairs", "masks first", "apart", "shuffled"])
def test_every_pair_comes_once_whatever_the_order(objects: Objects, tmp_path: Path, order: Order, kind: str) -> None:
    path = write_tar(tmp_path / "a.tar", FILES, order=order)
    pairs = read(objects, compressed(path, kind) if kind else path, held_bytes=2000)
    content = dict(FILES)
    assert sorted(names(pairs)) == sorted((f"sa_{n}.jpg", f"sa_{n}.json") for n in range(12))
    assert [pair.number for pair in pairs] == list(range(12))
    for pair in pairs:
        assert pair.image is not None
        assert pair.masks is not None
        assert (pair.image.data, pair.masks.data) == (content[pair.image.name], content[pair.masks.name])
        assert path.read_bytes()[pair.image.offset :][: pair.image.size] == pair.image.data


@pytest.mark.parametrize("kind", ["", "zst"])
@pytest.mark.parametrize("order", ["pairs", "apart", "shuffled"])
@pytest.mark.parametrize("damage", ["cut off", "header", "bytes"])
def test_a_cursor_goes_on_where_it_was_taken(
    objects: Objects, tmp_path: Path, order: Order, kind: str, damage: str
) -> None:
    files = [*FILES, ("lonely.jpg", b"x"), ("alone.json", b"{}")]
    path = write_tar(tmp_path / "a.tar", files, order=order)
    data = path.read_bytes()
    start = data.index(b"sa_5.jpg")
    damaged = {
        "cut off": data[: -9 * 512],
        "header": data[:start] + b"\xff" * 512 + data[start + 512 :],
        "bytes": data[: start + 612] + data[start + 712 :],
    }
    path.write_bytes(damaged[damage])
    path = compressed(path, kind) if kind else path
    whole = read(objects, path)
    for number in range(len(whole)):
        with tar_pairs(objects, path.as_uri(), ShardCursor(), max_bytes=LARGE, range_bytes=3000) as (pairs, _):
            # The reading is ahead of what is committed.
            for pair in pairs:
                if pair.number == min(number + 4, len(whole) - 1):
                    break
            offset, held, _ = pairs.cursor_after(number)
        cursor = ShardCursor(offset=offset, held=held, counts=ShardCounts(images=number + 1))
        assert read(objects, path, cursor) == whole[number + 1 :]


@pytest.mark.parametrize("kind", ["", "gz"])
@pytest.mark.parametrize("order", ["pairs", "apart", "shuffled"])
def test_pairs_that_are_asked_for_by_a_member_come_alone(
    objects: Objects, tmp_path: Path, order: Order, kind: str
) -> None:
    files = [*FILES, ("./x/\udce9.jpg", b"x"), ("./x/\udce9.json", b"{}"), ("notes.md", b"no"), ("lonely.jpg", b"x")]
    path = write_tar(tmp_path / "a.tar", files, order=order)
    path = compressed(path, kind) if kind else path
    asked = ["sa_3.jpg", "sa_7.json", "x/\ufffd.jpg", "lonely.jpg", "gone.jpg"]

    def some(cursor: ShardCursor) -> tuple[list[TarPair], list[tuple[int, str, int]]]:
        with tar_pairs(objects, path.as_uri(), cursor, max_bytes=LARGE, only=asked, range_bytes=1000) as (pairs, _):
            found = list(pairs)
            return found, [pairs.cursor_after(pair.number) for pair in found]

    found, cursors = some(ShardCursor())
    own = [(f"sa_{n}.jpg", f"sa_{n}.json") for n in (3, 7)]
    assert sorted(names(found)[:-1]) == [("./x/\udce9.jpg", "./x/\udce9.json"), *own]
    assert (names(found)[-1], found[0].number) == (("lonely.jpg", None), 0)
    for number, (offset, held, others) in enumerate(cursors):
        following, _ = some(ShardCursor(offset=offset, held=held, counts=ShardCounts(images=number + 1)))
        assert (following, others) == (found[number + 1 :], 0)


def test_a_tar_is_read_up_to_the_last_pair_that_is_asked_for(objects: Objects, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"sa_1.jpg")] + b"\xff" * 5000)
    with tar_pairs(objects, path.as_uri(), ShardCursor(), max_bytes=LARGE, only=["sa_0.jpg"]) as (pairs, _):
        assert names(list(pairs)) == [("sa_0.jpg", "sa_0.json")]
    with tar_pairs(objects, path.as_uri(), ShardCursor(), max_bytes=LARGE, only=["sa_9.jpg"]) as (pairs, _):
        assert list(pairs) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.jpg", "a.json"], ("a.jpg", "a.json")),
        (["a.png", "a.masks.npz"], ("a.png", "a.masks.npz")),
        (["a.png", "a.seg.png"], ("a.png", "a.seg.png")),
        (["a.jpg", "a.json", "a.masks.npz"], ("a.jpg", "a.masks.npz")),
        (["a.png", "a.jpg"], ("a.jpg", "a.png")),
        (["./x/a.jpg", "./x/a.json.gz"], ("./x/a.jpg", "./x/a.json.gz")),
        (["a.b.jpg", "a.b.txt"], ("a.b.jpg", "a.b.txt")),
        (["README.md", "a.jpg", "a.json"], ("a.jpg", "a.json")),
    ],
)
def test_names_make_pairs(objects: Objects, tmp_path: Path, files: list[str], expected: tuple[str, str]) -> None:
    path = write_tar(tmp_path / "a.tar", [(name, b"1") for name in files])
    assert names(read(objects, path)) == [expected]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_are_read_whole(objects: Objects, tmp_path: Path, format: int) -> None:
    folder = "d" * 90
    long = [f"{folder}/{'n' * 90}{ending}" for ending in (".jpg", ".json")]
    path = write_tar(tmp_path / "a.tar", [(name, b"1") for name in long], format=format)
    assert names(read(objects, path)) == [(long[0], long[1])]


def test_partners_that_are_missing_come_last(objects: Objects, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("b.json", b"1"), *FILES[:2], ("c.jpg", b"2")])
    assert names(read(objects, path)) == [("sa_0.jpg", "sa_0.json"), (None, "b.json"), ("c.jpg", None)]


def test_a_damaged_header_is_named_and_read_past(objects: Objects, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    data = bytearray(path.read_bytes())
    start = data.index(b"sa_5.jpg")
    data[start : start + 512] = b"\xff" * 512
    path.write_bytes(data)
    pairs = read(objects, path)
    (damage,) = [pair.damage for pair in pairs if pair.damage]
    assert damage.start == start
    assert "'sa_4.json'" in damage.message
    assert names(pairs)[-1] == (None, "sa_5.json")
    assert len(names(pairs)) == 12


def test_lost_bytes_damage_the_member_that_they_are_of(objects: Objects, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    data = path.read_bytes()
    start = data.index(b"sa_5.jpg")
    path.write_bytes(data[: start + 612] + data[start + 712 :])
    pairs = read(objects, path)
    (damage,) = [pair.damage for pair in pairs if pair.damage]
    assert (damage.name, damage.start) == ("sa_5.jpg", start)
    assert ("sa_6.jpg", "sa_6.json") in names(pairs)


@pytest.mark.parametrize("kind", ["", "gz", "zst"])
def test_a_tar_that_is_cut_off_is_read_up_to_there(objects: Objects, tmp_path: Path, kind: str) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"sa_5.json") + 600])
    pairs = read(objects, compressed(path, kind) if kind else path)
    (damage,) = [pair.damage for pair in pairs if pair.damage]
    assert damage.name == "sa_5.json"
    assert "cut off" in damage.message
    assert names(pairs) == [*((f"sa_{n}.jpg", f"sa_{n}.json") for n in range(5)), ("sa_5.jpg", None)]


def test_compressed_data_that_is_cut_off_is_read_up_to_there(objects: Objects, tmp_path: Path) -> None:
    noise = [(name, bytes(hash((name, n)) % 251 for n in range(20_000))) for name, _ in FILES]
    path = compressed(write_tar(tmp_path / "a.tar", noise), "gz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pairs = read(objects, path)
    assert [pair.damage for pair in pairs if pair.damage]
    assert 0 < len(names(pairs)) < 12


def test_a_member_that_is_too_large_has_no_bytes(objects: Objects, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.jpg", bytes(5000)), ("a.json", b"1")])
    with tar_pairs(objects, path.as_uri(), ShardCursor(), max_bytes=100) as (pairs, _):
        (pair,) = pairs
    assert pair.image is not None
    assert (pair.image.data, pair.image.size) == (None, 5000)


def test_bytes_that_wait_on_disk_leave_no_file(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "a.tar", FILES, order="apart")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with tar_pairs(objects, path.as_uri(), ShardCursor(), max_bytes=LARGE, held_bytes=0) as (pairs, _):
        for _ in pairs:
            # Also when its process is killed here.
            assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_an_error(objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tar", FILES, order="apart")
    with Path("/dev/full").open("w+b", buffering=0) as full:
        monkeypatch.setattr(member_pairs, "TemporaryFile", lambda **_: full)
        with pytest.raises(OSError, match="No space left"):
            read(objects, path, held_bytes=0)


def test_a_cursor_goes_on_in_the_tar_that_it_was_taken_from_alone(objects: Objects, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    with tar_pairs(objects, path.as_uri(), ShardCursor(), max_bytes=LARGE) as (pairs, etag):
        assert len(list(pairs)) == 12
    cursor = ShardCursor(part=1, etag=etag, offset=2048, counts=ShardCounts(images=1))
    assert len(read(objects, path, cursor)) == 11
    write_tar(path, FILES[2:])
    with pytest.raises(JobError) as raised:
        read(objects, path, cursor)
    assert raised.value.code == "image_changed"


def test_a_tar_that_is_replaced_while_it_is_read_is_refused(objects: Objects, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    with tar_pairs(objects, path.as_uri(), ShardCursor(), max_bytes=LARGE, range_bytes=1000, ahead=1) as (pairs, _):
        following = iter(pairs)
        next(following)
        write_tar(path, FILES[2:])
        with pytest.raises(JobError) as raised:
            list(following)
    assert raised.value.code == "image_changed"


def test_a_tar_that_was_replaced_is_refused(objects: Objects, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    with (
        pytest.raises(JobError) as raised,
        tar_pairs(objects, path.as_uri(), ShardCursor(), etag='"another"', max_bytes=LARGE),
    ):
        pass
    assert raised.value.code == "image_changed"
