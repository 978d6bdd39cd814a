"""Tar files and a list of small images, the tables of an undisturbed run, and how those of another run differ."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import boto3
import pytest
from PIL import Image

from chaos.jobs import BUCKET, TOLERANCE
from chaos.scenario import Outcome
from maskscore import Client, Job, JobState, ScoringOptions, results
from maskscore.parts import part_names
from maskscore.schema import ImageMasksPair, PairsSource, Shard, TarSource
from shard_tars import Files, Order, write_tar

__all__ = ["IMAGES", "PART_IMAGES", "TARS", "ShardCorpus", "make_shard_corpus", "objects_below"]

TARS: Final = "tars/sa_*.tar"
IMAGES: Final = 6
"""Pairs of each tar."""
PART_IMAGES: Final = 2
_ORDERS: Final[tuple[Order, ...]] = ("pairs", "apart", "shuffled")
_OWN: Final = {"job_id", "batch_id"}
_KEYS: Final = {"images": ("position",), "masks": ("position", "mask_index", "part")}

Table = Literal["masks", "images"]
Row = dict[str, Any]
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ShardCorpus:
    """The tar files, then the list, and each table's rows of the undisturbed run, by shard and place in it."""

    sources: dict[str, TarSource | PairsSource]
    expected: dict[Table, dict[Key, Row]]

    def shards(self, batch_id: str, tars: int | None = None) -> list[Shard]:
        """Return the shards of so many tar files and of the list, with parts below a prefix of the batch's name.

        Without ``tars``, those of all tar files and no other.
        """
        *of_tars, of_list = [_shard(name, source, batch_id) for name, source in self.sources.items()]
        return of_tars if tars is None else [*of_tars[:tars], of_list]

    def outcome(self, client: Client, shards: Sequence[Shard]) -> Outcome:
        """Compare the tables of ended shards with those of the undisturbed run; each row counts as a job does.

        A row beyond those is wrong, and so are a shard without a result and a file that belongs to no part of one.
        """
        outcome = Outcome()
        names = {shard.shard_id: shard.name for shard in shards}
        statuses = client.statuses(names)
        output = shards[0].output_uri
        files: set[str] = set()
        images = failed = 0
        for status in statuses:
            outcome.attempts[status.attempts] += 1
            result = client.get(status.job_id).shard if status.state is JobState.SUCCEEDED else None
            if result is None:
                outcome.wrong.append(f"{status.job_id} is {status.state}: {status.error}")
                continue
            files.update(name for part in range(result.parts) for name in part_names(result.name, part))
            images, failed = images + result.counts.images, failed + result.counts.failed
        outcome.wrong += [f"there is {name}" for name in sorted(objects_below(output) ^ files)]
        uploads = boto3.client("s3").list_multipart_uploads(Bucket=BUCKET, Prefix=_prefix(output)).get("Uploads", [])
        outcome.wrong += [f"the upload of {upload['Key']} was left" for upload in uploads]
        for table, expected in self.expected.items():
            wanted = {key: row for key, row in expected.items() if key[0] in names.values()}
            found = _rows(output, table, names)
            counts = Counter(key for key, _ in found)
            outcome.lost += [f"{table} {key}" for key in wanted if key not in counts]
            outcome.doubled += [f"{table} {key}" for key, count in counts.items() if count > 1]
            outcome.wrong += [
                f"{table} {key}: {_difference(row, wanted.get(key))}"
                for key, row in found
                if _difference(row, wanted.get(key))
            ]
            if table == "images":
                outcome.accepted = len(wanted)
                outcome.failed.update(row["code"] for _, row in found if row["state"] != "succeeded")
        outcome.succeeded = outcome.accepted - sum(outcome.failed.values())
        outcome.counted = images, images - failed, failed
        return outcome

    def failures(self, shards: Iterable[Shard]) -> Counter[str]:
        """Return the codes of images that fail in the undisturbed run, too."""
        names = {shard.name for shard in shards}
        rows = self.expected["images"].items()
        return Counter(row["code"] for key, row in rows if key[0] in names and row["state"] != "succeeded")


def make_shard_corpus(client: Client, documents: Sequence[Job], folder: Path, count: int) -> ShardCorpus:
    """Upload ``count`` tar files of drawn images, some with something damaged, and score them undisturbed."""
    s3 = boto3.client("s3")
    pairs = [_pair(s3, job) for job in documents]
    sources: dict[str, TarSource | PairsSource] = {}
    for number in range(count):
        name = f"sa_{number:06d}"
        chosen = [pairs[(number + 5 * n) % len(pairs)] for n in range(IMAGES)]
        files: Files = [
            (f"{name}-{n}{ending}", data)
            for n, pair in enumerate(chosen)
            for ending, data in zip((".png", ".json"), pair, strict=True)
        ]
        if number % 4 == 1:
            files[4] = (files[4][0], files[4][1][:-200])
        if number % 4 == 2:
            files += [(f"{name}-lonely.json", files[1][1]), ("notes.md", b"no image")]
        data = write_tar(folder / f"{name}.tar", files, order=_ORDERS[number % len(_ORDERS)]).read_bytes()
        if number % 4 == 3:
            # Cut off within its last member.
            data = data[: len(data.rstrip(b"\0")) - 100]
        etag = s3.put_object(Bucket=BUCKET, Key=f"tars/{name}.tar", Body=data)["ETag"]
        sources[name] = TarSource(uri=f"s3://{BUCKET}/tars/{name}.tar", etag=etag)
    lines = [ImageMasksPair(image=job.image, masks=job.masks).model_dump_json() for job in documents[: 2 * IMAGES]]
    etag = s3.put_object(Bucket=BUCKET, Key="lists/pairs.jsonl", Body="\n".join([*lines, "no pair"]).encode())["ETag"]
    sources["pairs"] = PairsSource(uri=f"s3://{BUCKET}/lists/pairs.jsonl", etag=etag)
    shards = [_shard(name, source, "undisturbed") for name, source in sources.items()]
    for result in client.as_completed([client.submit_shard(shard) for shard in shards], timeout=300):
        assert result.state is JobState.SUCCEEDED, result.error
    names = {shard.shard_id: shard.name for shard in shards}
    output = shards[0].output_uri
    expected = {table: dict(_rows(output, table, names)) for table in _KEYS}
    corpus = ShardCorpus(sources, expected)  # type: ignore[arg-type]
    outcome = corpus.outcome(client, shards)
    outcome.check(failed=corpus.failures(shards))
    assert {"image_truncated", "image_not_found", "document_invalid"} <= outcome.failed.keys()
    assert outcome.succeeded > outcome.accepted / 2
    return corpus


def _pair(s3: Any, job: Job) -> tuple[bytes, bytes]:
    """Return the image of a job and a file of its masks, as SA-1B has it."""
    assert isinstance(job.masks, list)
    key = job.image.uri.removeprefix(f"s3://{BUCKET}/")
    image = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    width, height = Image.open(io.BytesIO(image)).size
    annotations = [{"id": n, "segmentation": mask.model_dump()["segmentation"]} for n, mask in enumerate(job.masks)]
    about = {"image_id": 1, "width": width, "height": height, "file_name": key}
    return image, json.dumps({"image": about, "annotations": annotations}).encode()


def _shard(name: str, source: TarSource | PairsSource, batch_id: str) -> Shard:
    return Shard(
        shard_id=f"{batch_id}-{name}",
        batch_id=batch_id,
        source=source,
        name=name,
        output_uri=f"s3://{BUCKET}/{batch_id}/",
        options=ScoringOptions(prompts="demo"),
        part_images=PART_IMAGES,
    )


def _rows(output: str, table: Any, names: dict[str, str]) -> list[tuple[Key, Row]]:
    rows = results.open(output, table).to_table().to_pylist()
    return [
        (
            (names.get(row["job_id"], row["job_id"]), *(row[name] for name in _KEYS[table])),
            {name: value for name, value in row.items() if name not in _OWN},
        )
        for row in rows
    ]


def _difference(row: Row, expected: Row | None) -> str:
    if expected is None:
        return "a row that is not expected"
    if row.keys() != expected.keys():
        return f"columns {sorted(row.keys() ^ expected.keys())}"
    # Scores of one crop differ by rounding with the size of the batch that it was in.
    different = [
        name
        for name, value in row.items()
        if (
            value != pytest.approx(expected[name], abs=TOLERANCE)
            if isinstance(value, float)
            else value != expected[name]
        )
    ]
    return "; ".join(f"{name} {row[name]!r}, not {expected[name]!r}" for name in different)


def objects_below(output: str) -> set[str]:
    """Return the names of all objects below ``s3://bucket/prefix/``."""
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=_prefix(output))
    return {item["Key"].removeprefix(_prefix(output)) for page in pages for item in page.get("Contents", ())}


def _prefix(output: str) -> str:
    return output.removeprefix(f"s3://{BUCKET}/")
