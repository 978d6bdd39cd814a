"""The feature cache on disk: hits, its limit in bytes, sharing, and errors that cost no job."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from maskscore_worker.features.cache import FeatureCache
from maskscore_worker.features.sqlite_cache import SqliteFeatureStore

MIB = 1 << 20


def values(start: int, stop: int) -> dict[bytes, bytes]:
    return {n.to_bytes(32, "big"): n.to_bytes(4, "big") * 512 for n in range(start, stop)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteFeatureStore]:
    file = SqliteFeatureStore(tmp_path / "new" / "folder", max_bytes=4 * MIB)
    yield file
    file.close()


def test_what_is_put_is_there_also_for_another_process_later(store: SqliteFeatureStore, tmp_path: Path) -> None:
    some = values(0, 300)
    store.put(some)
    store.put(values(290, 310))
    assert store.get([*some, b"unknown"]) == some
    later = SqliteFeatureStore(tmp_path / "new" / "folder", max_bytes=4 * MIB)
    assert later.get(list(values(305, 320))) == values(305, 310)
    later.close()


def test_the_least_recently_used_go_first_and_the_file_stays_within_its_bytes(
    store: SqliteFeatureStore, tmp_path: Path
) -> None:
    used = values(0, 50)
    for start in range(0, 20_000, 100):
        store.put(values(start, start + 100))
        assert store.get(list(used)) == used
    size = (tmp_path / "new" / "folder" / "features-1.sqlite3").stat().st_size
    assert size <= 4 * MIB + 64 * 2048 * 4
    kept = [start for start in range(50, 20_000, 50) if store.get(list(values(start, start + 50)))]
    assert kept == list(range(kept[0], 20_000, 50))
    # Most of the bytes are values.
    assert (20_000 - kept[0]) * 2048 > 0.7 * 4 * MIB


def test_two_workers_share_a_folder(tmp_path: Path) -> None:
    stores = [SqliteFeatureStore(tmp_path, max_bytes=16 * MIB) for _ in range(2)]

    def work(number: int) -> None:
        for start in range(number * 1000, number * 1000 + 1000, 50):
            stores[number % 2].put(values(start, start + 50))
            assert len(stores[number % 2].get(list(values(start, start + 50)))) == 50

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores[0].get(list(values(0, 4000))) == values(0, 4000)
    for store in stores:
        store.close()


def cache_of(folder: Path, rest_s: float = 3600.0) -> FeatureCache:
    return FeatureCache(
        lambda: SqliteFeatureStore(folder, max_bytes=MIB), place=str(folder), dimensions=3, rest_s=rest_s
    )


FEATURE = np.array([0.25, -0.5, 1e-7], np.float32)


def test_features_come_back_to_the_bit(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    cache.put({b"a": FEATURE})
    np.testing.assert_array_equal(cache.get([b"a"])[b"a"], FEATURE)
    cache.close()


def test_a_damaged_value_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    store = SqliteFeatureStore(tmp_path, max_bytes=MIB)
    nan = np.array([1, np.nan, 0], "<f4").tobytes()
    store.put({b"short": b"1234", b"nan": nan, b"good": FEATURE.tobytes()})
    store.close()
    cache = cache_of(tmp_path)
    assert list(cache.get([b"short", b"nan", b"good"])) == [b"good"]
    cache.close()


def test_a_file_that_is_no_database_costs_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "features-1.sqlite3").write_bytes(os.urandom(100_000))
    cache = cache_of(tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert cache.get([b"a"]) == {}
            cache.put({b"a": FEATURE})
    assert len(caplog.records) == 1
    assert f"the feature cache in {tmp_path} failed" in caplog.text
    cache.close()


def test_a_folder_that_cannot_be_made_costs_a_line_in_the_log_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "file"
    place.write_text("in the way")
    cache = cache_of(place, rest_s=0.0)
    assert cache.get([b"a"]) == {}
    assert f"feature cache in {place} failed" in caplog.text
    place.unlink()
    cache.put({b"a": FEATURE})
    assert list(cache.get([b"a"])) == [b"a"]
    cache.close()


def test_a_full_disk_costs_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def full() -> SqliteFeatureStore:
        store = SqliteFeatureStore(tmp_path, max_bytes=MIB)
        # SQLite answers SQLITE_FULL, as it does on a full disk.
        store._db.execute("PRAGMA max_page_count = 3")
        return store

    cache = FeatureCache(full, place="disk", dimensions=3, rest_s=0.0)
    cache.put({n.to_bytes(32, "big"): FEATURE for n in range(2000)})
    assert "full" in caplog.text
    assert cache.get([(1).to_bytes(32, "big")]) == {}
    cache.put({b"a": FEATURE})
    assert list(cache.get([b"a"])) == [b"a"]
    cache.close()


def test_another_process_that_writes_for_long_costs_no_read(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    cache.put({n.to_bytes(32, "big"): FEATURE for n in range(100)})
    other = sqlite3.connect(tmp_path / "features-1.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert len(cache.get([(1).to_bytes(32, "big")])) == 1
    other.execute("ROLLBACK")
    other.close()
    cache.close()
