"""Jobs that failed for a cause that was then removed are run again; with a real worker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis
from PIL import Image

from claims import claim_job
from command_line import run_command
from maskscore import AsyncClient, BatchCounts, Client, ClientSettings, Job, JobState, WaitTimeout
from maskscore.devstack import LocalServices
from maskscore.ledger import Ledger
from maskscore.prompts import load_builtin
from maskscore.schema.result import Failure

IMAGES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    square = [[4, 4, 20, 4, 20, 20, 4, 20]]
    for number in range(IMAGES):
        Image.new("RGB", (32, 24), (number, 90, 90)).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.json").write_text(json.dumps([{"id": "1", "segmentation": square}]))
    return folder


@pytest.fixture
def alone(services: LocalServices) -> dict[str, str]:
    """The environment of a namespace that no worker serves."""
    return {**services.environment(), "MASKSCORE_NAMESPACE": f"alone-{uuid.uuid4().hex[:8]}"}


def client_of(environment: dict[str, str]) -> Client:
    return Client(
        ClientSettings(redis_url=environment["MASKSCORE_REDIS_URL"], namespace=environment["MASKSCORE_NAMESPACE"])
    )


def maskscore(environment: dict[str, str], *arguments: str, expect: int) -> subprocess.CompletedProcess[str]:
    ran = run_command(*arguments, environment=environment)
    assert ran.returncode == expect, (ran.stdout, ran.stderr)
    return ran


def own_prompts(folder: Path, name: str) -> None:
    document: dict[str, Any] = load_builtin("demo").model_dump(mode="json", exclude_defaults=True)
    # JSON is YAML.
    (folder / f"{name}.yaml").write_text(json.dumps({**document, "name": name}))


def jobs(count: int) -> list[Job]:
    document = {"image": "s3://some/a.png", "masks": []}
    return [Job.model_validate({**document, "job_id": f"j{n}"}) for n in range(count)]


def end(environment: dict[str, str], code: str, *job_ids: str) -> None:
    """End jobs as a worker would that cannot score them."""
    ledger = Ledger(
        redis.Redis.from_url(environment["MASKSCORE_REDIS_URL"]),
        namespace=environment["MASKSCORE_NAMESPACE"],
        ttl_s=60,
    )
    for job_id in job_ids:
        claim = claim_job(ledger, job_id)
        ledger.finish(claim, error=Failure(code=code, message="as the test wants it"))


def test_a_run_with_a_wrong_prompt_name_stops_early_and_goes_on_when_that_is_mended(
    demo_worker: dict[str, str], folder: Path, demo_prompts: Path
) -> None:
    run = ("run", str(folder), "--prompts", "shapes", "--batch-id", "requeue-shapes", "--json")
    ran = maskscore({**demo_worker, "MASKSCORE_QUEUE_LIMIT": "25"}, *run, expect=1)
    summary = json.loads(ran.stdout)
    assert summary["stopped_by"] == "prompt_set_unknown"
    assert summary["states"]["succeeded"] == 0
    assert "stopped early" in ran.stderr
    assert "--resume --retry-failed" in ran.stderr
    own_prompts(demo_prompts, "shapes")
    document = json.loads(maskscore(demo_worker, *run, "--resume", "--retry-failed", expect=0).stdout)
    assert document["states"]["succeeded"] == document["states"]["total"] == document["masks"] == IMAGES
    assert document["complete"] is True
    assert document["failures"] == {}


def test_a_run_goes_on_with_other_options_for_what_was_not_scored(demo_worker: dict[str, str], folder: Path) -> None:
    place = folder / "other"
    place.mkdir()
    line = "0 0.1 0.1 0.6 0.1 0.6 0.8\n"
    for name, labels in (("a", line), ("b", line), ("background", "")):
        Image.new("RGB", (32, 24), (90, 90, 9)).save(place / f"{name}.png")
        (place / f"{name}.txt").write_text(labels)
    run = ("run", str(place), "--prompts", "demo", "--batch-id", "requeue-other", "--json")
    first = json.loads(maskscore(demo_worker, *run, "--limit", "1", expect=0).stdout)
    # An empty label file is an image without objects; a wrong format fails what is left.
    ran = maskscore(demo_worker, *run, "--format", "sa1b", "--resume", expect=1)
    assert "format: none → sa1b" in ran.stderr
    summary = json.loads(ran.stdout)
    assert (summary["submitted"], summary["submitted_before"]) == (2, 1)
    assert summary["failures"]["masks_invalid"]["count"] == 2
    ran = maskscore(demo_worker, *run, "--format", "yolo", "--treatment", "raw_crop", "--resume", expect=0)
    assert "format: sa1b → yolo; treatment: none → raw_crop" in ran.stderr
    summary = json.loads(ran.stdout)
    assert (summary["states"]["succeeded"], summary["states"]["total"], summary["masks"]) == (3, 3, 2)
    assert summary["failures"] == {}
    with client_of(demo_worker) as client:
        results = {
            str(result.image and result.image.uri)[-5:]: result
            for result in client.batch("requeue-other").as_completed()
        }
    assert {name: result.treatment for name, result in results.items()} == {
        "a.png": "original",
        "b.png": "raw_crop",
        "d.png": "raw_crop",
    }
    assert first["masks"] == 1
    other = maskscore(demo_worker, "run", str(folder), "--batch-id", "requeue-other", "--resume", expect=2)
    assert "is of other images" in other.stderr


def test_a_run_scores_again_what_was_read_in_a_wrong_way(demo_worker: dict[str, str], folder: Path) -> None:
    place = folder / "wrong"
    place.mkdir()
    Image.new("RGB", (32, 24), (90, 90, 9)).save(place / "a.png")
    (place / "a.txt").write_text("0 0.5 0.5 0.2 0.3\n")
    polygon = [{"id": "1", "segmentation": [[4, 4, 20, 4, 20, 20]]}]
    run = ("run", str(place), "--prompts", "demo", "--batch-id", "requeue-wrong", "--json")
    # Boxes are no masks; and a masks file that is corrected is read as it is now.
    summary = json.loads(maskscore(demo_worker, *run, expect=1).stdout)
    assert (summary["states"]["succeeded"], summary["no_mask_scored"]["count"]) == (1, 1)
    (place / "right").mkdir()
    (place / "right" / "a.json").write_text(json.dumps(polygon))
    again = (*run, "--masks", str(place / "right"), "--resume")
    summary = json.loads(maskscore(demo_worker, *again, expect=0).stdout)
    assert (summary["states"]["total"], summary["masks"], summary["no_mask_scored"]["count"]) == (1, 1, 0)


def test_jobs_whose_cause_is_mended_run_again_under_their_ids(
    demo_worker: dict[str, str], folder: Path, demo_prompts: Path
) -> None:
    documents = [
        {
            "image": (folder / f"0{n}.png").as_uri(),
            "masks": (folder / f"0{n}.json").as_uri(),
            "job_id": f"requeue-again-{n}",
        }
        for n in range(3)
    ]
    jobs = folder.parent / "jobs.jsonl"
    jobs.write_text("".join(json.dumps({**each, "options": {"prompts": "late"}}) + "\n" for each in documents))
    submit = ("submit", str(jobs), "--batch-id", "requeue-again", "--wait", "--json")
    maskscore(demo_worker, *submit, expect=1)
    own_prompts(demo_prompts, "late")
    # The same jobs, submitted again, are what became of them; unless they shall run again.
    maskscore(demo_worker, *submit, expect=1)
    asked = maskscore(demo_worker, "requeue", "requeue-again-0", "requeue-again", "--code", "expired", expect=1)
    assert "requeue-again-0 stays as it is: failed, prompt_set_unknown" in asked.stdout
    assert "batch requeue-again: 0 of 3 jobs queued again" in asked.stdout
    asked = maskscore(demo_worker, "requeue", "requeue-again-0", "--code", "prompt_set_unknown", expect=0)
    assert "requeue-again-0 is queued again" in asked.stdout
    ran = maskscore(demo_worker, *submit, "--retry-failed", expect=0)
    assert [json.loads(line)["state"] for line in ran.stdout.splitlines()] == ["succeeded"] * 3
    with client_of(demo_worker) as client:
        assert client.batch("requeue-again").counts() == BatchCounts(succeeded=3)
    maskscore(demo_worker, "requeue", "requeue-again-0", expect=1)
    maskscore(demo_worker, "requeue", "nothing-of-this-name", expect=5)
    # Somebody waits, and there is a worker: nothing is said of workers.
    assert "worker" not in ran.stderr


def test_requeued_jobs_are_counted_and_told_of_once_more(alone: dict[str, str]) -> None:
    with client_of(alone) as client:
        batch = client.submit_many(jobs(5), batch_id="b")
        end(alone, "image_not_found", "j0", "j1")
        end(alone, "prompt_set_unknown", "j2")
        client.cancel("j3")
        assert batch.requeue(codes=["image_not_found"]) == 2
        assert batch.counts() == BatchCounts(queued=3, failed=1, cancelled=1)
        assert client.requeue_many(["j0", "j2", "j3", "unknown"], codes=["cancelled", "prompt_set_unknown"]) == [
            "j2",
            "j3",
        ]
        assert batch.requeue() == 0
        assert client.status("j2").error is None
        end(alone, "image_not_found", *(f"j{n}" for n in range(5)))
        assert batch.counts() == BatchCounts(failed=5)
        assert sorted(result.job_id for result in batch.as_completed(timeout=60)) == [f"j{n}" for n in range(5)]
        # A submit that retries runs what has failed, and only that: what waits gets no second attempt.
        client.submit_many(jobs(2), batch_id="b", retry_failed=True)
        assert batch.counts() == BatchCounts(queued=2, failed=3)
        assert client.submit(jobs(1)[0], retry_failed=True).status().state is JobState.QUEUED


def test_the_asynchronous_client_requeues_and_says_that_no_worker_is_alive(alone: dict[str, str]) -> None:
    async def main() -> None:
        async with AsyncClient(
            redis_url=alone["MASKSCORE_REDIS_URL"], namespace=alone["MASKSCORE_NAMESPACE"]
        ) as client:
            batch = await client.submit_many(jobs(3), batch_id="b")
            end(alone, "image_not_found", "j0", "j1")
            assert await client.requeue_many(["j0"]) == ["j0"]
            assert await batch.requeue(codes=["image_not_found"]) == 1
            assert await client.workers() == []
            assert "No worker is alive" in str(await client.no_worker())
            for waited in (client.wait("j2", timeout=0.01), batch.wait(timeout=0.01)):
                with pytest.raises(WaitTimeout, match="No worker is alive"):
                    await waited

    asyncio.run(asyncio.wait_for(main(), 120))


def test_whoever_waits_is_told_that_no_worker_is_alive(alone: dict[str, str], tmp_path: Path) -> None:
    with client_of(alone) as client:
        batch = client.submit_many(jobs(2), batch_id="b")
        with pytest.raises(WaitTimeout, match="No worker is alive in the namespace 'alone-"):
            client.wait("j0", timeout=0.01)
        with pytest.raises(WaitTimeout, match="No worker is alive"):
            batch.wait(timeout=0.01)
        with pytest.raises(WaitTimeout, match="No worker is alive"):
            list(client.as_completed([client.handle("j0")], timeout=0.01))
    image = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    (tmp_path / "a.json").write_text("[]")
    submit = ("submit", "--image", str(image), "--masks", str(tmp_path / "a.json"), "--wait")
    for waiting in (submit, ("wait", "j0"), ("batch", "wait", "b"), ("batch", "results", "b")):
        assert "No worker is alive" in maskscore(alone, *waiting, "--timeout", "0.1", expect=3).stderr
