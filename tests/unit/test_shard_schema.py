"""The shard document and its cursor: what is read back is what was written, and nothing else is taken."""

from __future__ import annotations

import json

import pytest

from maskscore.errors import JobError
from maskscore.schema import PairsSource, Shard, ShardCounts, ShardCursor, TarSource, parse_shard

SHARD = Shard(
    shard_id="one", source=TarSource(uri="s3://sa-1b/sa_000003.tar"), name="sa_000003", output_uri="s3://scores/run-1/"
)


@pytest.mark.parametrize("source", [SHARD.source, PairsSource(uri="s3://lists/1.jsonl", etag='"a"')])
def test_a_document_is_read_as_it_was_written(source: TarSource | PairsSource) -> None:
    shard = SHARD.model_copy(update={"source": source})
    assert parse_shard(shard.model_dump_json()) == shard


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 2}, "document_version_unsupported"),
        ({"document": "job"}, "document_invalid"),
        ({"name": "a/b"}, "document_invalid"),
        ({"output_uri": "s3://scores/run-1"}, "document_invalid"),
        ({"part_images": 0}, "document_invalid"),
        ({"unknown": 1}, "document_invalid"),
    ],
)
def test_another_document_is_refused(change: dict[str, object], code: str) -> None:
    with pytest.raises(JobError) as raised:
        parse_shard(json.dumps(json.loads(SHARD.model_dump_json()) | change))
    assert raised.value.code == code


def test_members_are_written_where_they_are_given() -> None:
    assert "members" not in SHARD.model_dump_json()
    of_some = SHARD.model_copy(update={"source": TarSource(uri=SHARD.source.uri, members=["a.jpg"])})
    assert parse_shard(of_some.model_dump_json()) == of_some
    assert of_some.digest("") != SHARD.digest("")


def test_counts_add_up_field_by_field() -> None:
    cursor = ShardCursor(counts=ShardCounts(images=2, failed=1, masks=7))
    assert cursor.counts + ShardCounts(images=1, skipped=3) == ShardCounts(images=3, failed=1, masks=7, skipped=3)
