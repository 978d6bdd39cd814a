"""The asynchronous client with a real Redis: many waits in few threads, and cancellation."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from PIL import Image

from claims import claim_job
from maskscore import (
    AsyncClient,
    Client,
    ClientSettings,
    Job,
    JobFailed,
    JobNotFound,
    JobState,
    Mask,
    QueueFull,
    ScoringOptions,
    ServiceUnavailable,
    WaitTimeout,
)
from maskscore.devstack import LocalServices, RedisServer
from maskscore.devstack.ports import free_port
from maskscore.ledger import Ledger
from maskscore.masks import encode_mask
from maskscore.schema.result import Failure
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from worker_process import start_worker


@pytest.fixture
def settings(services: LocalServices) -> ClientSettings:
    """Of a namespace that no worker serves."""
    return ClientSettings(redis_url=services.redis.url, namespace=f"async-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def _told_or_never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks again before the test's time is over: what is not told is never seen."""
    monkeypatch.setattr("maskscore.client.endings_watcher._CHECK_AGAIN_S", 1000.0)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    yield
    assert our_threads() == []


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("maskscore-")]


def jobs(count: int, prefix: str = "j") -> list[Job]:
    return [Job.model_validate({"image": "s3://b/a.png", "masks": [], "job_id": f"{prefix}{n}"}) for n in range(count)]


def end(settings: ClientSettings, *job_ids: str) -> None:
    """Run jobs as a worker would, but for the scores."""
    with redis.Redis.from_url(settings.redis_url) as connection:
        ledger = Ledger(connection, namespace=settings.namespace, ttl_s=60)
        for job_id in job_ids:
            claim = claim_job(ledger, job_id)
            ledger.finish(claim, error=Failure(code="image_not_found", message="no such image"))


async def until(met: Any, what: str) -> None:
    try:
        async with asyncio.timeout(60):
            while not met():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within a minute: {what}")


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 120))


def test_two_thousand_waits_share_one_watcher(settings: ClientSettings) -> None:
    async def main() -> None:
        async with AsyncClient(settings, threads=4) as client:
            batch = await client.submit_many(jobs(2000))
            waits = [asyncio.create_task(client.wait(f"j{n}", timeout=100)) for n in range(2000)]
            await until(lambda: len(client._watcher._waiters) == 2000, "all of them wait")
            assert our_threads().count("maskscore-watcher") == 1
            assert len(our_threads()) <= 5
            await asyncio.to_thread(end, settings, *(f"j{n}" for n in range(2000)))
            outcomes = await asyncio.gather(*waits, return_exceptions=True)
            assert len(our_threads()) <= 5
            assert {type(outcome) for outcome in outcomes} == {JobFailed}
            assert [outcome.job_id for outcome in outcomes if isinstance(outcome, JobFailed)] == [
                f"j{n}" for n in range(2000)
            ]
            assert client._watcher._waiters == {}
            assert (await batch.counts()).failed == 2000

    run(main())


def test_waits_that_are_cancelled_leave_nothing(settings: ClientSettings) -> None:
    async def main() -> None:
        async with AsyncClient(settings, threads=2) as client:
            batch = await client.submit_many(jobs(300))

            async def follow() -> None:
                async for _ in batch.as_completed():
                    raise AssertionError("none has ended")

            waits: list[asyncio.Task[Any]] = [asyncio.create_task(client.wait(f"j{n}")) for n in range(300)]
            waits += [asyncio.create_task(batch.wait()), asyncio.create_task(follow())]
            await until(lambda: len(client._watcher._waiters) == 301, "all of them wait")
            for wait in waits:
                wait.cancel()
            outcomes = await asyncio.gather(*waits, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
            assert client._watcher._waiters == {}
            await until(lambda: not client._load_status._requests, "nobody asks any more")
            await until(lambda: "maskscore-watcher" not in our_threads(), "the watcher has ended")
            await until(lambda: not client._under_way, "no call is under way")
            # And it begins anew.
            wait = asyncio.create_task(client.wait("j0"))
            await until(lambda: "maskscore-watcher" in our_threads(), "another watches")
            end(settings, "j0")
            with pytest.raises(JobFailed, match="image_not_found"):
                await wait

    run(main())


def test_a_wait_ends_with_its_time_and_unknown_jobs_are_said(settings: ClientSettings) -> None:
    async def main() -> None:
        async with AsyncClient(settings) as client:
            handle = await client.submit(jobs(1)[0])
            batch = await client.submit_many(jobs(3))
            with pytest.raises(WaitTimeout, match=r"j0 had not ended after 0\.1 s"):
                await handle.wait(timeout=0.1)
            with pytest.raises(WaitTimeout, match="3 of the 3 jobs"):
                await batch.wait(timeout=0.1)
            completed = client.as_completed([client.handle(f"j{n}") for n in range(3)], timeout=0.1)
            with pytest.raises(WaitTimeout, match="3 of the jobs waited for"):
                await anext(completed)
            for call in (client.wait("unknown"), client.status("unknown"), client.get("unknown")):
                with pytest.raises(JobNotFound, match="unknown"):
                    await call
            # One unknown job is nobody else's error.
            looked = await asyncio.gather(client.status("j0"), client.status("unknown"), return_exceptions=True)
            assert [type(each).__name__ for each in looked] == ["JobStatus", "JobNotFound"]

    run(main())


def test_many_are_submitted_from_an_asynchronous_source_that_is_not_read_ahead(settings: ClientSettings) -> None:
    taken = 0

    async def source() -> AsyncIterator[Job]:
        nonlocal taken
        for job in jobs(450):
            taken += 1
            yield job
            await asyncio.sleep(0)

    async def main() -> None:
        async with AsyncClient(settings.model_copy(update={"queue_limit": 200})) as client:
            with pytest.raises(QueueFull, match="200 jobs are queued"):
                await client.submit_many(source(), batch_id="b")
            assert taken == 400
            submitting = asyncio.create_task(client.submit_many(source(), batch_id="b", wait_for_room=True))
            batch = client.batch("b")
            for page in (range(200), range(200, 400)):
                await until(lambda page=page: taken > 600 + page.start, "the next ones were taken")
                await asyncio.to_thread(end, settings, *(f"j{n}" for n in page))
            assert (await submitting).batch_id == "b"
            # Room that comes while a page is submitted is for its next jobs; the refused ones follow.
            assert sorted([job_id async for job_id in batch.job_ids()]) == sorted(f"j{n}" for n in range(450))
            assert len([handle async for handle in batch]) == 450

    run(main())


@pytest.mark.usefixtures("_told_or_never")
def test_a_batch_is_followed_and_a_reader_goes_on_where_it_stopped(settings: ClientSettings) -> None:
    async def main() -> None:
        async with AsyncClient(settings) as client:
            batch = await client.submit_many(jobs(6))
            end(settings, "j3", "j1", "j4")
            results = batch.as_completed(reader="pipeline")
            assert [(await anext(results)).job_id for _ in range(2)] == ["j3", "j1"]
            await results.aclose()
            end(settings, "j0")
        async with AsyncClient(settings) as client:
            batch = client.batch(batch.batch_id)
            results = batch.as_completed(reader="pipeline")
            assert [(await anext(results)).job_id for _ in range(3)] == ["j1", "j4", "j0"]
            following = asyncio.create_task(anext(results))
            await asyncio.sleep(0.2)
            end(settings, "j5")
            assert (await following).job_id == "j5"
            # A job that had ended before joins the batch.
            await client.submit_many(jobs(1, "other"))
            end(settings, "other0")
            following = asyncio.create_task(anext(results))
            await asyncio.sleep(0.2)
            await client.submit_many(jobs(1, "other"), batch_id=batch.batch_id)
            assert (await following).job_id == "other0"
            assert (await batch.cancel()).cancelled == 1
            assert [result.state async for result in results] == [JobState.CANCELLED]

    run(main())


def test_a_batch_that_is_followed_no_longer_leaves_nothing(settings: ClientSettings) -> None:
    async def main() -> None:
        async with AsyncClient(settings) as client:
            batch = await client.submit_many(jobs(2))
            end(settings, "j1")
            results = client.as_completed(batch)
            assert (await anext(results)).job_id == "j1"
            assert client._watcher._waiters
            await results.aclose()
            assert client._watcher._waiters == {}

    run(main())


@pytest.mark.usefixtures("_told_or_never")
def test_endings_are_waited_for_and_notes_are_kept(settings: ClientSettings) -> None:
    async def main() -> None:
        async with AsyncClient(settings) as client:
            batch = client.batch("b")
            assert await batch.endings(wait_s=0.1) == []
            waiting = asyncio.create_task(batch.endings(wait_s=1000))
            await client.submit_many(jobs(2), batch_id="b")
            await until(lambda: client._watcher._waiters, "it waits")
            end(settings, "j1")
            (ending,) = await waiting
            result = await batch.result_of(ending)
            assert result is not None
            assert (result.job_id, result.state) == ("j1", JobState.FAILED)
            assert await batch.endings(after=ending.event.event_id) == []
            await batch.set_note("reader", "as far as j1")
            assert await batch.note("reader") == "as far as j1"

    run(main())


@pytest.mark.usefixtures("_told_or_never")
def test_an_end_is_heard_although_the_connection_broke(settings: ClientSettings) -> None:
    async def main() -> None:
        async with AsyncClient(settings) as client:
            await client.submit_many(jobs(2))
            waits = [asyncio.create_task(client.wait_for_end(f"j{n}")) for n in range(2)]
            await until(lambda: len(client._watcher._waiters) == 2, "both wait")
            with redis.Redis.from_url(settings.redis_url) as server:
                for _ in range(3):
                    server.client_kill_filter(_type="pubsub")
                    await asyncio.sleep(0.3)
            end(settings, "j0", "j1")
            ended = await asyncio.gather(*waits)
            assert [status.state for status in ended] == [JobState.FAILED] * 2

    run(main())


def test_a_redis_that_is_away_ends_all_waits_and_a_later_one_begins_anew(tmp_path: Path) -> None:
    port = free_port()
    settings = ClientSettings(redis_url=f"redis://127.0.0.1:{port}/0", redis_timeout_s=2)

    async def main() -> None:
        async with AsyncClient(settings) as client:
            with RedisServer(tmp_path, port=port, password=""):
                await client.submit_many(jobs(50))
                waits = [asyncio.create_task(client.wait(f"j{n}")) for n in range(50)]
                await until(lambda: len(client._watcher._waiters) == 50, "all of them wait")
            outcomes = await asyncio.gather(*waits, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {ServiceUnavailable}
            with pytest.raises(ServiceUnavailable, match="does not answer"):
                await client.wait("j0")
            with RedisServer(tmp_path, port=port, password=""):
                await client.submit_many(jobs(50))
                wait = asyncio.create_task(client.wait("j7"))
                await until(lambda: client._watcher._waiters, "it waits")
                end(settings, "j7")
                with pytest.raises(JobFailed, match="j7"):
                    await wait

    run(main())


def test_the_same_scores_as_from_the_other_client(services: LocalServices, tmp_path: Path) -> None:
    scene = draw_scene(880_002)
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    masks = [Mask(id=mask.id, segmentation=encode_mask(mask.mask)) for mask in scene.masks]
    job = Job(
        image=f"file://{tmp_path}/scene.png", masks=masks, options=ScoringOptions(prompts="demo", embeddings=True)
    )
    settings = ClientSettings(redis_url=services.redis.url, namespace=f"async-{uuid.uuid4().hex[:8]}")
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": settings.namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_FILE_ROOTS": str(tmp_path),
    }

    async def main() -> None:
        async with AsyncClient(settings) as client:
            handle = await client.submit(job, content_id=True)
            ours = await handle.wait(timeout=100)
            again = await client.rescore([handle.job_id], top_k=2)
            rescored = [result async for result in client.as_completed(again, timeout=100)]
            assert [len(component.top_k or ()) for component in rescored[0].components] == [2] * len(masks)
            assert (await client.job(handle.job_id)).masks == masks
            polled = [result async for result in client.as_completed([handle])]
            assert polled == [ours]
        with Client(settings) as other:
            assert other.get(handle.job_id) == ours
            assert [component.id for component in ours.components] == [mask.id for mask in masks]

    with start_worker(environment, tmp_path / "worker"):
        run(main())
