"""The file names of a dataset in a temporary SQLite file, so that memory does not grow with their number.

Every query over all names is one SQL statement, or a cursor that is read row by row. The file is a cache of the
listing: what was submitted is stored in Redis. Each run makes its own file and removes it at the end.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from maskscore.formats import JPEG_RANK, best, composed, frame_of, last_part, likeness, spellings

__all__ = ["FileIndex", "Found", "IndexedImage"]

# The value of `images.folder` where the masks of an image lie in a folder per object.
_IN_FOLDERS = 2

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -16384;
PRAGMA temp_store = FILE;
CREATE TABLE images (
    key TEXT, name TEXT, base TEXT, etag TEXT, partner TEXT, partner_etag TEXT, folder INTEGER DEFAULT 0,
    PRIMARY KEY (key, name)
) WITHOUT ROWID;
CREATE TABLE masks (
    key TEXT, rank INTEGER, name TEXT, base TEXT, folder TEXT, etag TEXT, used INTEGER DEFAULT 0,
    PRIMARY KEY (key, rank, name)
) WITHOUT ROWID;
CREATE TABLE submitted (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE claims (
    image TEXT, called TEXT, exact INTEGER, count INTEGER DEFAULT 1, PRIMARY KEY (image, called)
) WITHOUT ROWID;
"""

# Exact: an image takes the masks file with the same key; of several, the first by rank.
_EXACT = """
UPDATE images SET (partner, partner_etag) =
    (SELECT name, etag FROM masks WHERE masks.key = images.key ORDER BY rank LIMIT 1);
UPDATE masks SET used = (SELECT MAX(CASE WHEN images.partner = masks.name THEN 1 ELSE 2 END)
                         FROM images WHERE images.key = masks.key)
WHERE EXISTS (SELECT 1 FROM images WHERE images.key = masks.key);
UPDATE masks SET used = 1 WHERE used = 2 AND EXISTS (
    SELECT 1 FROM images WHERE images.key = masks.key AND images.partner = masks.name);
"""
# A JPEG takes the PNG beside it as its masks, where neither has a masks file.
_PICTURE_BESIDE = """
INSERT OR IGNORE INTO masks (key, rank, name, base, folder, etag)
    SELECT key, 0, name, base, '', etag FROM images AS picture
    WHERE partner IS NULL AND name LIKE '%.png' AND EXISTS (
        SELECT 1 FROM images AS photo WHERE photo.key = picture.key AND photo.partner IS NULL
        AND (photo.name LIKE '%.jpg' OR photo.name LIKE '%.jpeg'));
DELETE FROM images WHERE partner IS NULL AND name LIKE '%.png'
    AND EXISTS (SELECT 1 FROM masks WHERE masks.key = images.key AND masks.name = images.name);
"""
# An image takes the folder whose path is its key, with a picture per mask.
_FOLDER = """
CREATE INDEX masks_by_folder ON masks (folder);
UPDATE images SET partner = key, folder = 1
    WHERE partner IS NULL AND key <> '' AND EXISTS (SELECT 1 FROM masks WHERE folder = images.key AND used = 0);
CREATE TABLE mask_folders (path TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT OR IGNORE INTO mask_folders SELECT partner FROM images WHERE folder = 1;
UPDATE masks SET used = 1 WHERE used = 0 AND folder IN (SELECT path FROM mask_folders);
"""
# The same, with names compared in Unicode's composed form (NFC).
_FOLDER_COMPOSED = """
CREATE TABLE composed_folders AS SELECT composed(folder) AS word, MIN(folder) AS folder FROM masks
    WHERE used = 0 AND folder <> '' GROUP BY word HAVING MIN(folder) = MAX(folder);
CREATE INDEX composed_folders_by_word ON composed_folders (word);
UPDATE images SET folder = 1, partner = (SELECT folder FROM composed_folders WHERE word = composed(images.key))
    WHERE partner IS NULL AND key <> '' AND composed(key) IN (SELECT word FROM composed_folders);
UPDATE masks SET used = 1 WHERE used = 0 AND folder IN (SELECT partner FROM images WHERE folder = 1);
"""
# The image of a video's frame takes the pictures `VIDEO/OBJECT/FRAME.png`, one per object.
_OBJECTS = f"""
CREATE TABLE frames AS SELECT frame_of(key) AS frame, name FROM masks
    WHERE used = 0 AND folder <> '' AND frame_of(key) IS NOT NULL;
CREATE INDEX frames_by_frame ON frames (frame, name);
UPDATE images SET partner = key, folder = {_IN_FOLDERS}
    WHERE partner IS NULL AND key IN (SELECT frame FROM frames);
UPDATE masks SET used = 1 WHERE used = 0 AND name IN (
    SELECT name FROM frames WHERE frame IN (SELECT key FROM images WHERE folder = {_IN_FOLDERS}));
"""
# A JPEG with the name of another masks file (`vis/a.jpg`, `preds/a.json`) is a visualisation, not a mask.
_SPARE_JPEGS = f"""
CREATE INDEX masks_by_base ON masks (base, rank);
UPDATE masks SET used = 2 WHERE used = 0 AND rank >= {JPEG_RANK}
    AND EXISTS (SELECT 1 FROM masks AS other WHERE other.base = masks.base AND other.rank < {JPEG_RANK});
"""
# A remaining image takes the remaining masks file with an equal word, where both words occur once.
_ONE_OF_A_WORD = """
DROP TABLE IF EXISTS one_masks;
DROP TABLE IF EXISTS one_image;
CREATE TABLE one_masks AS
    SELECT {masks} AS word, MIN(name) AS name, etag FROM masks WHERE used = 0 GROUP BY word HAVING COUNT(*) = 1;
CREATE TABLE one_image AS
    SELECT {images} AS word FROM images WHERE partner IS NULL GROUP BY word HAVING COUNT(*) = 1;
CREATE INDEX one_masks_by_word ON one_masks (word);
CREATE INDEX one_image_by_word ON one_image (word);
UPDATE images SET (partner, partner_etag) = (SELECT name, etag FROM one_masks WHERE one_masks.word = {images})
WHERE partner IS NULL AND EXISTS (SELECT 1 FROM one_image WHERE one_image.word = {images});
UPDATE masks SET used = 1 WHERE used = 0
    AND EXISTS (SELECT 1 FROM one_masks WHERE one_masks.word = {masks})
    AND EXISTS (SELECT 1 FROM one_image WHERE one_image.word = {masks});
"""
_STEPS = (
    # The image's whole name: `b.jpg.json` beside `b.jpg`.
    _ONE_OF_A_WORD.format(masks="composed(masks.key)", images="composed(images.name)"),
    # Names compared in Unicode's composed form (NFC).
    _ONE_OF_A_WORD.format(masks="composed(masks.key)", images="composed(images.key)"),
    _FOLDER,
    _FOLDER_COMPOSED,
    _OBJECTS,
    _SPARE_JPEGS,
    # The file name without folders.
    _ONE_OF_A_WORD.format(masks="masks.base", images="images.base"),
    _ONE_OF_A_WORD.format(masks="masks.base", images="composed(last_part(images.name))"),
)
_MOST_OF_A_NAME = 100


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """An image of the listing; ``partner`` is its masks file, or its folder of them (``folder``).

    ``pictures`` are the files of its masks where each lies in a folder of its own.
    """

    name: str
    etag: str | None
    partner: str
    partner_etag: str | None
    folder: bool
    pictures: tuple[str, ...] = ()


class Found(NamedTuple):
    """An image that matches an entry of a dataset file; ``exact``: the entry has the image's path below the root."""

    name: str
    etag: str | None
    exact: bool


class FileIndex:
    """An index of images and masks files by name. Used by one thread at a time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="maskscore-run-")
        self._db = sqlite3.connect(
            Path(self._folder.name) / "listing.sqlite", isolation_level=None, check_same_thread=False
        )
        for function in (composed, frame_of, last_part):
            self._db.create_function(function.__name__, 1, function, deterministic=True)
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close and remove the file."""
        self._db.close()
        self._folder.cleanup()

    def add_images(self, rows: Iterable[tuple[str, str, str, str | None]]) -> None:
        """Add images: key, name, last part of the key, ETag."""
        self._many("INSERT OR IGNORE INTO images (key, name, base, etag) VALUES (?, ?, ?, ?)", rows)

    def add_masks(self, rows: Iterable[tuple[str, int, str, str, str, str | None]]) -> None:
        """Add masks files: key, rank, name, last part of the key, folder, ETag."""
        self._many("INSERT OR IGNORE INTO masks (key, rank, name, base, folder, etag) VALUES (?, ?, ?, ?, ?, ?)", rows)

    def add_submitted(self, ids: Iterable[str]) -> None:
        """Store ids of jobs that were submitted before."""
        self._many("INSERT OR IGNORE INTO submitted (id) VALUES (?)", ((job_id,) for job_id in ids))

    def prepare_look_ups(self) -> None:
        """Create the index that :meth:`look_up` needs; call it after all images are added."""
        self._db.execute("CREATE INDEX images_by_base ON images (base)")

    def pair(self, *, together: bool) -> None:
        """Pair images with masks files. ``together``: both lie in one root, so that a picture may be either."""
        self._db.executescript(_EXACT)
        if together and self._any("images WHERE partner IS NULL AND name LIKE '%.png'"):
            self._db.executescript(_PICTURE_BESIDE + _EXACT)
        for step in _STEPS:
            if self._any(_SETS["lonely_images"]) and self._any(_SETS["lonely_masks"]):
                self._db.executescript(step)

    def look_up(self, called: str, key_of: Callable[[str], str]) -> list[Found]:
        """Return the image with this path, or else the images whose paths match it best.

        ``key_of`` returns a path without its extension; a path without an extension matches images with any. Several
        images are returned where their names are equal and their folders do not decide.
        """
        key = key_of(called)
        row = self._db.execute("SELECT name, etag FROM images WHERE key = ? AND name = ?", (key, called)).fetchone()
        if row is not None:
            return [Found(row[0], row[1], exact=True)]
        found: list[tuple[str, str | None, str]] = []
        for base in dict.fromkeys(composed(last_part(key_of(spelling))) for spelling in spellings(called)):
            query = "SELECT name, etag, key FROM images WHERE base = ? LIMIT ?"
            found += self._db.execute(query, (base, _MOST_OF_A_NAME)).fetchall()
        any_ending = called == key
        likenesses = (
            likeness(called, name) or (likeness(called, stem) if any_ending else None) for name, _, stem in found
        )
        return [Found(found[position][0], found[position][1], exact=False) for position in best(likenesses)]

    def claim(self, claims: Iterable[tuple[str, str, bool]]) -> None:
        """Store matches of entries with images: the image's name, its name in the entry, whether the two are equal."""
        self._many(
            "INSERT INTO claims (image, called, exact) VALUES (?, ?, ?) "
            "ON CONFLICT (image, called) DO UPDATE SET count = count + 1",
            claims,
        )

    def is_contested(self, image: str, called: str) -> bool:
        """Return whether an entry with another name matches the same image, too."""
        query = "SELECT 1 FROM claims WHERE image = ? AND called <> ? LIMIT 1"
        return self._db.execute(query, (image, called)).fetchone() is not None

    def settle_claims(self) -> tuple[int, list[str]]:
        """Assign each image to the entry with its exact name, or to the only entry that matches it.

        Return the number of entries without an image, and the names that the first few of them have for it.
        """
        self._db.executescript(
            "CREATE TABLE contested AS SELECT image FROM claims GROUP BY image HAVING COUNT(*) > 1;"
            "CREATE INDEX contested_by_image ON contested (image);"
            "CREATE TABLE taken AS SELECT DISTINCT image FROM claims WHERE exact OR image NOT IN contested;"
            "CREATE INDEX taken_by_image ON taken (image);"
            "UPDATE images SET partner = '' WHERE name IN taken;"
        )
        rest = "claims WHERE NOT exact AND image IN contested"
        (count,) = self._db.execute(f"SELECT COALESCE(SUM(count), 0) FROM {rest}").fetchone()
        return int(count), [name for (name,) in self._db.execute(f"SELECT called FROM {rest} ORDER BY called LIMIT 5")]

    def count(self, what: str) -> int:
        """Return how many ``images``, ``masks``, ``pairs``, ``lonely_images``, ``lonely_masks`` or ``spare_masks``."""
        return int(self._db.execute(f"SELECT COUNT(*) FROM {_SETS[what]}").fetchone()[0])

    def count_exact(self, most: int) -> int:
        """Return how many images have a masks file of their own key so far, counted up to ``most``."""
        statement = (
            "SELECT COUNT(*) FROM (SELECT 1 FROM images WHERE EXISTS "
            "(SELECT 1 FROM masks WHERE masks.key = images.key) LIMIT ?)"
        )
        return int(self._db.execute(statement, (most,)).fetchone()[0])

    def some(self, what: str, limit: int) -> list[str]:
        """Return the first names of one of the sets of :meth:`count`."""
        order = "key, name" if "images" in _SETS[what] else "key, rank, name"
        rows = self._db.execute(f"SELECT name FROM {_SETS[what]} ORDER BY {order} LIMIT ?", (limit,))
        return [name for (name,) in rows]

    def images(self) -> Iterator[IndexedImage]:
        """Yield the images that have a partner, by key."""
        rows = self._db.execute(
            "SELECT name, etag, partner, partner_etag, folder FROM images WHERE partner IS NOT NULL ORDER BY key, name"
        )
        for name, etag, partner, partner_etag, folder in rows:
            pictures = self._pictures(partner) if folder == _IN_FOLDERS else ()
            yield IndexedImage(name, etag, partner, partner_etag, bool(folder), pictures)

    def _pictures(self, frame: str) -> tuple[str, ...]:
        rows = self._db.execute("SELECT name FROM frames WHERE frame = ? ORDER BY name", (frame,))
        return tuple(name for (name,) in rows)

    def submitted(self, ids: list[str]) -> set[str]:
        """Return which of these ids were submitted before."""
        marks = ",".join("?" * len(ids))
        rows = self._db.execute(f"SELECT id FROM submitted WHERE id IN ({marks})", ids)
        return {job_id for (job_id,) in rows}

    def _any(self, rows: str) -> bool:
        return self._db.execute(f"SELECT 1 FROM {rows} LIMIT 1").fetchone() is not None

    def _many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(statement, rows)
        self._db.execute("COMMIT")


_SETS = {
    "images": "images",
    "masks": "masks",
    "pairs": "images WHERE partner IS NOT NULL",
    "lonely_images": "images WHERE partner IS NULL",
    "lonely_masks": "masks WHERE used = 0",
    "spare_masks": "masks WHERE used = 2",
}
