"""Shards as jobs of real workers: parts in S3; workers that are killed, tars that are replaced or cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Literal, cast

import boto3
import pytest
import redis

from command_line import run_command
from maskscore import Client, ClientSettings, Job, JobFailed, JobHandle, JobResult, ScoringOptions, results
from maskscore.dataset import RunOptions, run_shards, shards
from maskscore.devstack import LocalServices
from maskscore.errors import BatchNotFound, InvalidDocumentError
from maskscore.ledger import Claim, Ledger, ShardProgress
from maskscore.schema import Shard, TarSource
from maskscore_worker.demo.run import DEMO_WEIGHTS
from shard_tars import drawn_pair, drawn_pairs, write_tar
from waiting import until
from worker_process import WorkerProcess

BUCKET = "shard-jobs"
IMAGES, PER_PART = 12, 2
PLACES = 2


@pytest.fixture(scope="module")
def tar(services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> None:
    services.create_bucket(BUCKET)
    path = write_tar(tmp_path_factory.mktemp("tars") / "a.tar", drawn_pairs(IMAGES), order="apart")
    boto3.client("s3").upload_file(str(path), BUCKET, "a.tar")


@pytest.fixture(scope="module")
def environment(services: LocalServices) -> dict[str, str]:
    return {
        **services.environment(),
        "MASKSCORE_NAMESPACE": f"shard-jobs-{uuid.uuid4().hex[:8]}",
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_BUCKETS": "*",
        "MASKSCORE_RESULT_BUCKETS": "*",
        "MASKSCORE_LEASE_S": "8",
        "MASKSCORE_CONCURRENCY": str(PLACES),
        "MASKSCORE_RETRY_FIRST_S": "0.1",
    }


@pytest.fixture(scope="module")
def client(services: LocalServices, environment: dict[str, str], tar: None) -> Iterator[Client]:
    settings = ClientSettings(redis_url=services.redis.url, namespace=environment["MASKSCORE_NAMESPACE"])
    with Client(settings) as client:
        yield client


@pytest.fixture(scope="module")
def workers(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("workers")
    workers = Workers(folder, {**environment, "WORKER_DIED": str(folder)})
    yield workers
    workers.worker.stop()


class Workers:
    """One worker at a time, replaced when it has ended."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self._environment = folder, environment
        self.started = 0
        self.worker = self._start()

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess(self.folder / f"worker-{self.started}", Path(__file__).with_name("dying_worker.py"))
        worker.launch(self._environment)
        self.started += 1
        return worker

    def wait(self, handle: JobHandle) -> JobResult:
        """Replace the worker whenever it has ended, until the shard has."""

        def ended() -> bool:
            if not self.worker.alive():
                self.worker = self._start()
            return handle.status().state.ended

        until(ended, f"{handle.job_id} has ended", 300)
        return handle.wait()


def shard(name: str, **fields: Any) -> Shard:
    return Shard(
        name=name,
        output_uri=f"s3://{BUCKET}/{name}/",
        options=ScoringOptions(prompts="demo"),
        **{"source": TarSource(uri=f"s3://{BUCKET}/a.tar"), "part_images": PER_PART, **fields},
    )


def single_job(job_id: str) -> Job:
    boto3.client("s3").put_object(Bucket=BUCKET, Key="sa_1.jpg", Body=drawn_pair(1)[0][1])
    mask = {"id": "corner", "segmentation": [[0, 0, 40, 0, 40, 60, 0, 60]]}
    return Job.model_validate(
        {"job_id": job_id, "image": f"s3://{BUCKET}/sa_1.jpg", "masks": [mask], "options": {"prompts": "demo"}}
    )


def rows(name: str, table: Literal["masks", "images"], columns: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = results.open(f"s3://{BUCKET}/{name}/", table).to_table(columns=columns).to_pylist()
    assert found
    return found


def assert_equal_tables(name: str, undisturbed: str) -> None:
    columns = ["position", "image", "state", "code", "mask_rows"]
    assert rows(name, "images", columns) == rows(undisturbed, "images", columns)
    columns = ["position", "mask_id", "area", "segmentation"]
    assert rows(name, "masks", columns) == rows(undisturbed, "masks", columns)


def test_a_shard_is_a_job_and_its_parts_hold_what_became_of_each_image(client: Client, workers: Workers) -> None:
    handle = client.submit_shard(shard("undisturbed"))
    result = workers.wait(handle)
    assert result.shard is not None
    assert (result.shard.parts, result.shard.counts.images, result.components) == (IMAGES // PER_PART, IMAGES, [])
    assert handle.status().progress == ShardProgress(IMAGES, result.shard.counts.masks, IMAGES // PER_PART)
    assert client.shard(handle.job_id).name == "undisturbed"
    with pytest.raises(InvalidDocumentError, match="a shard"):
        client.job(handle.job_id)


def test_workers_that_are_killed_lose_no_row_and_double_none(client: Client, workers: Workers) -> None:
    before = workers.started
    result = workers.wait(client.submit_shard(shard("killed")))
    assert workers.started == before + 2
    assert result.shard is not None
    assert_equal_tables("killed", "undisturbed")


def test_a_rescore_by_embeddings_goes_on_where_its_producer_and_its_worker_were_killed(
    client: Client, workers: Workers, environment: dict[str, str]
) -> None:
    with_embeddings = {
        "options": ScoringOptions(prompts="demo", embeddings=True),
        "output_uri": f"s3://{BUCKET}/embedded/",
    }
    for earlier in (shard("alone", part_images=IMAGES), shard("embedded")):
        workers.wait(client.submit_shard(earlier.model_copy(update=with_embeddings)))

    def command(output: str) -> list[str]:
        asked = ["--from-embeddings", "--prompts", "demo", "--method", "cosine", "--batch-id", output]
        return ["rescore", f"s3://{BUCKET}/embedded/", "-o", f"s3://{BUCKET}/{output}/", *asked]

    undisturbed = run_command(*command("rescored-calm"), "--wait", environment=environment)
    assert undisturbed.returncode == 0, undisturbed.stderr
    # There is room for one of the two shards: so the producer is killed between them.
    os.kill(workers.worker.pid, signal.SIGSTOP)
    variables = {**os.environ, **environment, "MASKSCORE_QUEUE_LIMIT": "1"}

    def submitted_jobs() -> list[str]:
        try:
            return list(client.batch("rescored").job_ids())
        except BatchNotFound:
            return []

    with subprocess.Popen([sys.executable, "-m", "maskscore", *command("rescored")], env=variables) as producer:
        until(lambda: submitted_jobs() or producer.poll() is not None, "a shard is submitted")
        producer.kill()
    assert (producer.returncode, len(submitted_jobs())) == (-signal.SIGKILL, 1)
    before = workers.started
    os.kill(workers.worker.pid, signal.SIGCONT)
    submitted = run_command(*command("rescored"), environment=environment)
    assert submitted.returncode == 0, submitted.stderr
    for job_id in submitted.stdout.split():
        workers.wait(client.handle(job_id))
    assert (workers.started, len(submitted.stdout.split())) == (before + 1, 2)
    again = run_command(*command("rescored"), "--wait", environment=environment)
    assert again.returncode == 0, again.stderr
    for table in ("masks", "images"):
        calm, disturbed = (
            results.open(f"s3://{BUCKET}/{output}/", table).to_table().drop_columns(["job_id", "batch_id"]).to_pylist()
            for output in ("rescored-calm", "rescored")
        )
        assert len(calm) > IMAGES
        assert disturbed == [
            {name: pytest.approx(value, abs=1e-6) if isinstance(value, float) else value for name, value in row.items()}
            for row in calm
        ]


def test_an_image_that_kills_its_workers_is_marked_and_the_others_are_scored(client: Client, workers: Workers) -> None:
    result = workers.wait(client.submit_shard(shard("poison", shard_id="poison", part_images=IMAGES)))
    assert (workers.folder / "at-image").read_text() == "xxx"
    assert result.shard is not None
    assert result.shard.counts.failed == 1
    columns = ["position", "image", "code", "mask_rows"]
    expected = rows("undisturbed", "images", columns)
    for row in expected:
        if row["image"].endswith("sa_7.jpg"):
            row |= {"code": "poisoned", "mask_rows": 0}
    assert rows("poison", "images", columns) == expected


def test_shards_in_all_places_make_way_for_an_urgent_job_after_a_part(client: Client, workers: Workers) -> None:
    turns = workers.folder / "turns"
    shards = [client.submit_shard(shard(f"full-{number}", part_images=1)) for number in range(PLACES)]
    until(lambda: turns.exists() and len(turns.read_text().splitlines()) == PLACES, "shards have all places")
    handle = client.submit(single_job("urgent").model_copy(update={"priority": "high"}))
    (workers.folder / "go-on-full").touch()
    assert workers.wait(handle).components[0].s_pos is not None
    before = turns.read_text().partition("urgent")[0].splitlines()
    # A shard without a turn more than the part that it had in hand: another may have gone on meanwhile.
    assert min(before.count(f"masks/full-{n}-00001.parquet") for n in range(PLACES)) == 0
    for number, handle in enumerate(shards):
        assert workers.wait(handle).shard is not None
        assert_equal_tables(f"full-{number}", "undisturbed")


def test_a_shard_makes_way_after_a_part_for_a_job_that_must_run_alone(
    client: Client, workers: Workers, services: LocalServices
) -> None:
    turns, namespace = workers.folder / "turns", client.settings.namespace
    shards = [client.submit_shard(shard("short", part_images=IMAGES)), client.submit_shard(shard("beside"))]
    until(lambda: {"short", "beside"} <= {line[6:-14] for line in turns.read_text().split()}, "both places are taken")
    suspect = client.submit(single_job("suspect"))
    with redis.Redis.from_url(services.redis.url) as server:
        ledger = Ledger(server, namespace=namespace, ttl_s=60)
        until(lambda: isinstance(ledger.claim(token="lost", worker="lost", lease_s=0.001), Claim))

        def looked_at() -> float:
            return cast("float | None", server.zscore(f"{namespace}:suspects:", "suspect")) or 0

        until(lambda: looked_at() > 0, "the job is to run alone")
        at_first = looked_at()
        (workers.folder / "go-on-short").touch()
        until(lambda: looked_at() > at_first, "the worker waits until it is alone")
    (workers.folder / "go-on-beside").touch()
    assert workers.wait(suspect).components
    assert turns.read_text().partition("suspect")[0].count("masks/beside") == 1
    for name, handle in zip(("short", "beside"), shards, strict=True):
        assert workers.wait(handle).shard is not None
        assert_equal_tables(name, "undisturbed")


def test_a_replaced_tar_fails_its_shard_with_the_reason(client: Client, workers: Workers) -> None:
    source = TarSource(uri=f"s3://{BUCKET}/a.tar", etag="0" * 32)
    handle = client.submit_shard(shard("replaced", shard_id="replaced", source=source))
    with pytest.raises(JobFailed, match="image_changed"):
        workers.wait(handle)
    again = client.submit_shard(shard("replaced", shard_id="replaced"), retry_failed=True)
    assert workers.wait(again).shard is not None
    assert_equal_tables("replaced", "undisturbed")


def test_a_tar_that_is_cut_off_is_scored_up_to_there(client: Client, workers: Workers, tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", drawn_pairs(4)).read_bytes()
    boto3.client("s3").put_object(Bucket=BUCKET, Key="cut.tar", Body=whole[: len(whole) * 3 // 4])
    result = workers.wait(client.submit_shard(shard("cut", source=TarSource(uri=f"s3://{BUCKET}/cut.tar"))))
    assert result.shard is not None
    codes = [row["code"] for row in rows("cut", "images", ["code"])]
    assert 0 < result.shard.counts.failed < len(codes)
    assert "image_truncated" in codes


def test_run_scores_tars_into_tables_and_goes_on_with_what_was_added(
    client: Client, workers: Workers, environment: dict[str, str], tmp_path: Path
) -> None:
    def put(name: str, first: int) -> None:
        path = write_tar(tmp_path / name, [file for seed in (first, first + 1) for file in drawn_pair(seed)])
        boto3.client("s3").upload_file(str(path), BUCKET, f"run/{name}")

    def run(*more: str, pattern: str = "*") -> CompletedProcess[str]:
        tars = f"s3://{BUCKET}/run/{pattern}.tar"
        arguments = ("run", tars, "-o", f"s3://{BUCKET}/out/", "--prompts", "demo", "--batch-id", "tars", *more)
        return run_command(*arguments, environment=environment, folder=tmp_path)

    put("sa_000001.tar", 21)
    put("sa_000002.tar", 31)
    assert "2 shards would be submitted" in run("--dry-run").stdout
    done = run()
    assert done.returncode == 0, done.stderr
    assert "images    4 in 2 parts" in done.stdout
    assert "submitted" in done.stderr
    put("sa_000003.tar", 41)
    again = run()
    assert again.returncode == 2
    assert "--resume" in again.stderr
    resumed = run("--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["images"] == len(rows("out", "images", ["image"])) == 6
    assert run("--resume", pattern="sa_*").returncode == 2
    empty = write_tar(tmp_path / "empty.tar", [("notes.md", b"")]).read_bytes()
    boto3.client("s3").put_object(Bucket=BUCKET, Key="run/sa_000004.tar", Body=empty)
    failed = run("--resume")
    assert failed.returncode == 1
    assert f"s3://{BUCKET}/run/sa_000004.tar" in failed.stdout
    put("sa_000004.tar", 51)
    replaced = run("--resume")
    assert (replaced.returncode, "was replaced" in " ".join(replaced.stderr.split())) == (2, True)
    mended = run("--resume", "--retry-failed")
    assert mended.returncode == 0, mended.stderr
    assert len(rows("out", "images", ["image"])) == 8


def test_run_scores_loose_pairs_into_tables_and_goes_on_with_what_was_added(
    client: Client, workers: Workers, environment: dict[str, str], tmp_path: Path
) -> None:
    entries: dict[str, list[Any]] = {"images": [], "annotations": []}

    def add(seed: int) -> None:
        (_, jpeg), (_, masks) = drawn_pair(seed)
        boto3.client("s3").put_object(Bucket=BUCKET, Key=f"loose/{seed}.jpg", Body=jpeg)
        document = json.loads(masks)
        entries["images"].append({**document["image"], "id": seed, "file_name": f"{seed}.jpg"})
        entries["annotations"] += [{**entry, "image_id": seed} for entry in document["annotations"]]
        (tmp_path / "coco.json").write_text(json.dumps(entries))

    def run(*more: str, output: str = "loose-out", batch_id: str = "pairs") -> CompletedProcess[str]:
        places = (f"s3://{BUCKET}/loose/", "--masks", "coco.json", "-o", f"s3://{BUCKET}/{output}/")
        options = ("--prompts", "demo", "--batch-id", batch_id, "--shard-images", "2")
        return run_command("run", *places, *options, *more, environment=environment, folder=tmp_path)

    for seed in (61, 62, 63):
        add(seed)
    assert "3 images with masks would be submitted in 2 shards" in run("--dry-run").stdout
    done = run()
    assert done.returncode == 0, done.stderr
    assert "images    3 in 2 parts" in done.stdout
    assert "part of another run" in " ".join(run(batch_id="others").stderr.split())
    # The image's entry is doubled, with one mask: both of its pairs are scored.
    entries["images"].append({**entries["images"][0], "id": 99})
    entries["annotations"].append({**entries["annotations"][0], "image_id": 99})
    add(64)
    boto3.client("s3").delete_object(Bucket=BUCKET, Key="loose/64.jpg")
    resumed = run("--resume", "--retry-failed", "--json")
    assert resumed.returncode == 0, resumed.stderr
    summary = json.loads(resumed.stdout)
    assert (summary["shards"], summary["images"], summary["masks_without_image"]) == (3, 4, 1)
    images = rows("loose-out", "images", ["image", "mask_rows"])
    name = f"s3://{BUCKET}/loose/61.jpg"
    assert sorted(row["mask_rows"] for row in images if row["image"] == name)[0] == 1
    assert len(images) == 4
    assert sum(row["mask_rows"] for row in images) == len(rows("loose-out", "masks", ["image"]))


def test_the_shards_of_a_dataset_are_the_same_each_time(client: Client, tmp_path: Path) -> None:
    for name, data in [*drawn_pair(71), *drawn_pair(72), *drawn_pair(73)]:
        (tmp_path / name).write_bytes(data)
    (tmp_path / "sa_73.json").write_text("{")

    def found(known: list[Shard], upload: str | None = None) -> list[Shard]:
        options = RunOptions(ScoringOptions(prompts="demo"), {"priority": "low"}, upload=upload)
        place, output = str(tmp_path), f"s3://{BUCKET}/api/"
        return list(shards(place, output, client.objects, options, batch_id="api", pairs_per_list=2, known=known))

    first = found([])
    assert [(shard.shard_id, shard.priority) for shard in first] == [(f"api-{shard.name}", "low") for shard in first]
    assert len(first) == 2
    assert found([]) == first == found(first)
    (image, jpeg), (masks, document) = drawn_pair(70)
    (tmp_path / image).write_bytes(jpeg)
    (tmp_path / masks).write_bytes(document)
    added = found(first)
    assert (added[:2], len(added)) == (first, 3)
    body = boto3.client("s3").get_object(Bucket=BUCKET, Key=f"api/lists/{added[2].name}.jsonl")["Body"].read()
    assert [json.loads(line)["image"]["uri"] for line in body.splitlines()] == [(tmp_path / image).as_uri()]


def test_local_tar_files_are_uploaded_once(client: Client, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", drawn_pairs(1))
    options = RunOptions(upload=f"s3://{BUCKET}/uploaded/")

    def found(known: list[Shard]) -> list[Shard]:
        return list(shards(str(path), f"s3://{BUCKET}/api/", client.objects, options, batch_id="up", known=known))

    first = found([])
    assert first[0].source.uri == f"s3://{BUCKET}/uploaded/a.tar"
    assert first[0].source.etag == boto3.client("s3").head_object(Bucket=BUCKET, Key="uploaded/a.tar")["ETag"]
    write_tar(path, drawn_pairs(2))
    assert found(first) == first


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("s3://shard-jobs/none/*.tar", "-o", "s3://shard-jobs/o/"), "There is no tar file"),
        (("a.tar", "b.tar", "-o", "s3://shard-jobs/o/"), "put it in quotes"),
        (("*.tar.xz", "-o", "s3://shard-jobs/o/"), "no tar file by its ending"),
        (("a.tar", "-o", "a.tar.xz"), "is a file: -o takes the folder of the scores"),
        (("a.tar", "-o", "gs://scores/"), "write s3://bucket/prefix/ or a folder"),
        (("s3://shard-jobs/*.tar",), "which name some, go with -o"),
        (("images", "-o", "s3://shard-jobs/o/", "--content-id"), "--content-id does not go with -o"),
        (("s3://shard-jobs/loose/", "-o", "s3://shard-jobs/loose/o/"), "not apart from the dataset"),
        (("s3://shard-jobs/loose/", "--shard-images", "3"), "--shard-images goes with -o"),
        (("a.tar", "-o", "s3://shard-jobs/o"), "slash at its end"),
        (("a.tar", "-o", "s3://shard-jobs/o/", "--limit", "3"), "--limit does not go with tar files"),
        (("a.tar", "-o", "s3://shard-jobs/o/", "--shard-images", "3"), "--shard-images does not go with tar files"),
    ],
)
def test_run_says_what_is_wrong_with_tars(
    client: Client, environment: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "a.tar.xz").write_bytes(b"")
    done = run_command("run", *arguments, environment=environment, folder=tmp_path)
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.replace("│", " ").split())


def test_a_run_whose_records_are_gone_is_not_resumed_with_its_pairs_doubled(client: Client, tmp_path: Path) -> None:
    for name, data in drawn_pair(81):
        (tmp_path / name).write_bytes(data)
    arguments = (client, str(tmp_path), f"s3://{BUCKET}/gone/")
    run_shards(*arguments, batch_id="gone", follow=False)
    client._redis.delete(*client._redis.scan_iter(f"{client.settings.namespace}:job:gone-*"))
    with pytest.raises(InvalidDocumentError, match="record is gone"):
        run_shards(*arguments, batch_id="gone", follow=False, resume=True)
