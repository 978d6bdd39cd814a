"""A list of pairs is read line by line, from any pair on; a line that is none says which one, and the others follow."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from maskscore.errors import JobError
from maskscore.schema import ImageMasksPair, MasksRef, ShardCursor
from maskscore.shards import ListedPair, listed_pairs
from maskscore.storage import Objects

INLINE = '{"image": "s3://b/2.jpg", "masks": [{"id": 1, "segmentation": [[1, 2, NaN, 4, 5, 6]]}]}'
LINES = ['{"image": "s3://b/1.jpg", "masks": "s3://b/1.json"}', "", INLINE, "{", '{"image": "s3://b/3.jpg"}', INLINE]


def read(path: Path, done: int = 0, *, max_bytes: int = 1000, range_bytes: int = 7) -> list[ListedPair]:
    objects = Objects(buckets=(), result_buckets=(), file_roots=[path.parent])
    cursor = ShardCursor(offset=done)
    with listed_pairs(objects, path.as_uri(), cursor, max_bytes=max_bytes, range_bytes=range_bytes) as (pairs, _):
        return list(pairs)


def said(pair: ListedPair) -> str:
    assert isinstance(pair.pair, JobError)
    return f"{pair.pair.code}: {pair.pair.message}"


@pytest.mark.parametrize("end", ["", "\n"])
def test_lines_are_pairs_as_in_jobs_or_say_why_not(tmp_path: Path, end: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(LINES) + end)
    pairs = read(path)
    assert [pair.number for pair in pairs] == [0, 1, 2, 3, 4]
    first, inline = pairs[0].pair, pairs[1].pair
    assert isinstance(first, ImageMasksPair)
    assert isinstance(first.masks, MasksRef)
    assert isinstance(inline, ImageMasksPair)
    assert ImageMasksPair.model_validate_json(inline.model_dump_json()).image == inline.image
    assert "document_invalid" in said(pairs[2])
    assert "line 4" in said(pairs[2])
    assert "masks: Field required" in said(pairs[3])
    assert [pair.number for pair in read(path, 3)] == [3, 4]
    assert read(path, 5) == []


def test_a_line_that_is_too_long_is_read_past(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join([LINES[0], " " * 2_500_000 + LINES[0], LINES[0]]))
    pairs = read(path, range_bytes=1 << 20)
    assert [isinstance(pair.pair, ImageMasksPair) for pair in pairs] == [True, False, True]
    assert "masks_too_large" in said(pairs[1])


def test_damage_of_a_compressed_list_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl.gz"
    data = gzip.compress("\n".join(f'{{"image": "s3://b/{n}.jpg", "masks": []}}' for n in range(9000)).encode())
    path.write_bytes(data)
    assert len(read(path, range_bytes=999)) == 9000
    path.write_bytes(data[:-2000] + bytes(900) + data[-1100:])
    *whole, damaged = read(path, range_bytes=999)
    assert all(isinstance(pair.pair, ImageMasksPair) for pair in whole)
    assert "damaged" in said(damaged)
    assert damaged.number == len(whole) < 9000


def test_equal_mask_ids_are_refused_as_in_jobs() -> None:
    mask = {"id": "a", "segmentation": [[1, 2, 3, 4, 5, 6]]}
    with pytest.raises(ValueError, match="unique"):
        ImageMasksPair.model_validate({"image": "s3://b/1.jpg", "masks": [mask, mask]})
