"""Measures what a job, a shard and their results take: ``python -m maskscore.sizing.measure``.

A real Redis of its own is filled through the client, the jobs are ended through the ledger, and what ``used_memory``
of Redis's INFO grew by is divided by the number of jobs. Jobs with few and with many masks give the share of a mask.
Needs ``maskscore[local,export]``.
"""

from __future__ import annotations

import math
import random
import tempfile
import uuid
from pathlib import Path
from typing import Any

import redis

from maskscore.broker import connect
from maskscore.client import Client
from maskscore.devstack import RedisServer
from maskscore.ledger import Claim, Ledger, ShardProgress, new_token
from maskscore.parts import ImageOutcome, part_names, part_tables, write_part
from maskscore.prompts import load_builtin
from maskscore.schema import (
    RLE,
    Component,
    ImageInfo,
    Job,
    JobResult,
    JobState,
    Mask,
    ModelIdentity,
    PromptSet,
    PromptSetIdentity,
    Shard,
    ShardCounts,
    ShardCursor,
    ShardOutcome,
    TarSource,
    Timings,
    pack,
    text_from_counts,
)
from maskscore.settings import ClientSettings

__all__ = ["measure"]

_FEW, _MANY = 20, 100
_HEIGHT, _WIDTH = 1500, 2250
_EDGE_NOISE_PX = 3


def measure(jobs: int = 1000) -> dict[str, float]:
    """Return bytes by the names of :mod:`maskscore.sizing.job_bytes`, from ``jobs`` jobs of each kind.

    Raises :class:`~maskscore.devstack.LocalServiceError` where there is no Redis to start.
    """
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder), config={"appendonly": "no"}) as server:
        by_uri = [_fill(server.url, jobs, masks, inline=False) for masks in (_FEW, _MANY)]
        inline = [_fill(server.url, jobs, masks, inline=True) for masks in (_FEW, _MANY)]
        shards = _fill_shards(server.url, jobs)
    part, of_masks, of_images = _part_bytes(20, 1), _part_bytes(20, _MANY), _part_bytes(200, 1)
    part_mask = (of_masks - part) / (20 * (_MANY - 1))
    part_image = (of_images - part) / 180 - part_mask
    few, many = by_uri
    per_mask = _MANY - _FEW
    return {
        "QUEUED_JOB": many["queued"],
        "MASK_IN_REDIS": (inline[1]["queued"] - inline[0]["queued"]) / per_mask,
        "ENDED_JOB": many["ended"],
        "RESULT_MASK": ((many["stored"] - many["ended"]) - (few["stored"] - few["ended"])) / per_mask,
        "OBJECT_JOB": few["object"] - _FEW * (many["object"] - few["object"]) / per_mask,
        "OBJECT_MASK": (many["object"] - few["object"]) / per_mask,
        "QUEUED_SHARD": shards["queued"],
        "ENDED_SHARD": shards["ended"],
        "PART": part - 20 * (part_image + part_mask),
        "PART_IMAGE": part_image,
        "PART_MASK": part_mask,
    }


def _fill_shards(url: str, count: int) -> dict[str, float]:
    """Return bytes per shard: queued, and ended."""
    settings = ClientSettings(redis_url=url, namespace=f"maskscore-{uuid.uuid4().hex[:4]}")
    client = connect(settings)
    ledger = Ledger(client, namespace=settings.namespace, ttl_s=3600)
    counts = ShardCounts(images=11_186, masks=1_100_000)
    with Client(settings) as producer:
        before = _used(client)
        shards = [_shard(number) for number in range(count)]
        producer.submit_many(shards, batch_id="nightly")
        queued = (_used(client) - before) / count
    for shard in shards:
        claim = ledger.claim(token=new_token(), worker="gpu-node-17-12345", lease_s=600)
        assert isinstance(claim, Claim), claim
        cursor = ShardCursor(part=11, offset=10_000_000_000, done=True, counts=counts)
        progress = ShardProgress(counts.images, counts.masks, cursor.part)
        ledger.commit(claim, lease_s=600, cursor=cursor.model_dump_json().encode(), progress=progress)
        outcome = ShardOutcome(name=shard.name, output_uri=shard.output_uri, parts=cursor.part, counts=counts)
        result = JobResult(job_id=shard.shard_id, batch_id="nightly", state=JobState.SUCCEEDED, shard=outcome)
        ledger.finish(claim, result=pack(result))
    client.delete(*client.scan_iter(f"{settings.namespace}:celery:*"))
    return {"queued": queued, "ended": (_used(client) - before) / count}


def _shard(number: int) -> Shard:
    name = f"sa_{number:06d}"
    source = TarSource(uri=f"s3://sa-1b/{name}.tar", etag=f'"{uuid.uuid4().hex}-1200"')
    return Shard(shard_id=f"nightly-{name}", source=source, name=name, output_uri="s3://sa-1b-scores/run-1/")


def _part_bytes(images: int, masks: int) -> int:
    """Return the bytes of the files of a part of so many images with so many masks each."""
    rng = random.Random(1)
    prompts = load_builtin("default")
    outcomes = []
    for number in range(images):
        result = _result(_job(number, masks, rng, inline=False), masks, prompts, rng)
        own = [_mask(index, rng).model_dump()["segmentation"] for index in range(masks)]
        name = f"s3://sa-1b/sa_000003.tar!/sa_{number}"
        outcomes.append(
            ImageOutcome(
                result.model_copy(update={"job_id": "nightly-sa_000003"}),
                f"{name}.jpg",
                f"{name}.json",
                own,
                "etag",
                number * 1_000_000,
                950_000,
            )
        )
    with tempfile.TemporaryDirectory() as folder:
        write_part(part_tables(outcomes, first_position=0), part_names("sa_000003", 3), folder)
        return sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))


def _fill(url: str, count: int, masks: int, *, inline: bool) -> dict[str, float]:
    """Return bytes per job: queued, ended with the result elsewhere, ended with it in Redis; and the result's JSON."""
    settings = ClientSettings(redis_url=url, namespace=f"maskscore-{uuid.uuid4().hex[:4]}")
    client = connect(settings)
    ledger = Ledger(client, namespace=settings.namespace, ttl_s=3600)
    rng = random.Random(1)
    prompts = load_builtin("default")
    found = {}
    for kind in ("stored", "ended"):
        with Client(settings) as producer:
            before = _used(client)
            jobs = [_job(number, masks, rng, inline=inline) for number in range(count)]
            producer.submit_many(jobs, batch_id=f"nightly-{kind}")
            found["queued"] = (_used(client) - before) / count
        document = b""
        for job in jobs:
            result = _result(job, masks, prompts, rng)
            claim = ledger.claim(token=new_token(), worker="gpu-node-17-12345", lease_s=600)
            assert isinstance(claim, Claim), claim
            document = result.model_dump_json().encode()
            if kind == "stored":
                ledger.finish(claim, result=pack(result))
            else:
                ledger.finish(claim, result_uri=f"s3://sa-1b-scores/run-1/{job.job_id}.json")
        # Messages count for queued jobs only, and no worker has taken these.
        client.delete(*client.scan_iter(f"{settings.namespace}:celery:*"))
        found[kind] = (_used(client) - before) / count
        found["object"] = float(len(document))
    return found


def _used(client: redis.Redis) -> int:
    facts: Any = client.info("memory")
    # A client's buffers come and go.
    return int(facts["used_memory"]) - int(facts["mem_clients_normal"])


def _job(number: int, masks: int, rng: random.Random, *, inline: bool) -> Job:
    name = f"sa_{number + 1_000_000}"
    listed = [_mask(index, rng) for index in range(masks)] if inline else f"s3://sa-1b/masks/{name}.json"
    return Job.model_validate({"image": f"s3://sa-1b/images/{name}.jpg", "masks": listed})


def _mask(index: int, rng: random.Random) -> Mask:
    """A blob with a rough edge: some 350 characters of COCO RLE, which compress as the masks of COCO's photos do."""
    radius = rng.randint(30, 150)
    x, y = rng.randint(radius, _WIDTH - radius - 1), rng.randint(radius, _HEIGHT - radius - 1)
    counts, filled = [], 0
    for column in range(x - radius + 1, x + radius):
        half = math.sqrt(radius**2 - (column - x) ** 2)
        above, below = (max(1, round(half - rng.random() * _EDGE_NOISE_PX)) for _ in range(2))
        top = column * _HEIGHT + y - above
        counts += [top - filled, above + below]
        filled = top + above + below
    counts.append(_HEIGHT * _WIDTH - filled)
    rle = RLE(size=(_HEIGHT, _WIDTH), counts=text_from_counts(counts))
    return Mask.model_validate({"id": str(index), "segmentation": rle, **_upstream(rng)})


def _upstream(rng: random.Random) -> dict[str, float]:
    return {"predicted_iou": rng.random(), "stability_score": rng.random()}


def _result(job: Job, masks: int, prompts: PromptSet, rng: random.Random) -> JobResult:
    components = [
        Component(
            id=str(index),
            index=index,
            box=(rng.randrange(_WIDTH), rng.randrange(_HEIGHT), rng.randrange(500), rng.randrange(500)),
            area=rng.randrange(250_000),
            s_pos=rng.random(),
            s_neg=rng.random(),
            s_pos_text=rng.choice(prompts.positive),
            s_neg_text=rng.choice(prompts.negative),
            p_pos_sum=rng.random(),
            p_neg_sum=rng.random(),
            semantic_multiplier=rng.choice((0.1, 1.0, 2.0)),
            upstream=_upstream(rng),
        )
        for index in range(masks)
    ]
    return JobResult(
        job_id=job.job_id,
        batch_id="nightly",
        state=JobState.SUCCEEDED,
        image=ImageInfo(uri=job.image.uri, width=_WIDTH, height=_HEIGHT, etag=uuid.uuid4().hex, format="JPEG"),
        model=ModelIdentity(
            architecture="ViT-B-32",
            weights_digest=f"sha256:{'0a' * 32}",
            image_size=224,
            precision="bf16",
            crop_mode="fast",
        ),
        prompts=PromptSetIdentity(name=prompts.name, digest=prompts.digest, positive=90, negative=60),
        components=components,
        timings=Timings(**{name: rng.random() for name in Timings.model_fields}),
        attempts=1,
        worker="gpu-node-17-12345",
    )


if __name__ == "__main__":
    for name, size in measure().items():
        print(f"{name} {size:.0f}")
