"""The feature cache on a local disk: one SQLite file, shared by the workers of a machine."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["SqliteFeatureStore"]

_NAME = "features-1.sqlite3"
# A few values of 2 KiB each fit a page without much waste.
_PAGE = 16 * 1024
_BUSY_S = 1.0
# Room is made for a while, not for one value at a time.
_EVICTED_SHARE = 20


class SqliteFeatureStore:
    """Values by key in ``folder``, in a file of at most ``max_bytes`` and a write-ahead log of some MiB beside it.

    Rows are in the order of their use: one that is read while in the older half moves to the end, and room is made at
    the beginning, so that whole pages become free. Safe to share between threads; several processes may have the same
    folder, which must not be on a network file system (https://sqlite.org/wal.html). Every method raises
    :class:`sqlite3.Error` or :class:`OSError`.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._db = sqlite3.connect(folder / _NAME, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute(f"PRAGMA page_size = {_PAGE}")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS features "
                "(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL)"
            )
        except sqlite3.Error:
            self._db.close()
            raise

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are there."""
        with self._lock:
            places = ", ".join("?" * len(keys))
            rows = self._db.execute(f"SELECT id, key, value FROM features WHERE key IN ({places})", keys).fetchall()
            if rows:
                first, last = self._span()
                old = [key for number, key, _ in rows if number < (first + last) // 2]
                # Another process is writing: then these stay where they are.
                with suppress(sqlite3.OperationalError):
                    self._move_to_end(old)
        return {key: value for _, key, value in rows}

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Store values, and evict the least recently used ones where there is no space."""
        with self._lock, self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO features (key, value) VALUES (?, ?)", values.items())
            while self._used() > self._max_bytes:
                first, last = self._span()
                if first > last:
                    break
                self._db.execute("DELETE FROM features WHERE id <= ?", (first + (last - first) // _EVICTED_SHARE,))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _move_to_end(self, keys: Sequence[bytes]) -> None:
        if not keys:
            return
        with self._transaction():
            self._db.executemany(
                "UPDATE features SET id = (SELECT max(id) + 1 FROM features) WHERE key = ?", [(key,) for key in keys]
            )

    def _span(self) -> tuple[int, int]:
        # One query each: SQLite finds a minimum or a maximum by the index only where it stands alone.
        (first,) = self._db.execute("SELECT min(id) FROM features").fetchone()
        (last,) = self._db.execute("SELECT max(id) FROM features").fetchone()
        return (1, 0) if first is None else (first, last)

    def _used(self) -> int:
        pages, free = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        return int(pages - free) * int(self._db.execute("PRAGMA page_size").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
