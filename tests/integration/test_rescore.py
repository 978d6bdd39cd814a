"""Scoring again gives a fresh job's scores, and with a cache encodes no crop."""

from __future__ import annotations

import io
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from command_line import run_command
from in_process_pipeline import in_process_pipeline
from maskscore import (
    Client,
    ClientSettings,
    Component,
    Job,
    JobNotFound,
    JobResult,
    Mask,
    PromptSet,
    ScoringOptions,
    Thresholds,
)
from maskscore.devstack import LocalServices
from maskscore.errors import InvalidDocumentError
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from maskscore.storage import Objects
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import Scene, draw_scene
from worker_process import start_worker

DEMO = load_builtin("demo")
OTHER = PromptSet(name="other", positive=DEMO.positive[:3], negative=DEMO.negative[1:], neutral=DEMO.positive[3:])


@pytest.fixture(scope="module")
def scene() -> Scene:
    return draw_scene(990_001)


@pytest.fixture(scope="module")
def image(services: LocalServices, scene: Scene) -> str:
    services.create_bucket("rescore")
    encoded = io.BytesIO()
    Image.fromarray(scene.image).save(encoded, "PNG")
    objects = Objects(buckets=None, result_buckets=None)
    objects.write("s3://rescore/scene.png", encoded.getvalue(), content_type="image/png")
    objects.close()
    return "s3://rescore/scene.png"


@pytest.fixture(scope="module")
def masks(scene: Scene) -> list[Mask]:
    """The scene's masks, and the first two of them again under other ids, as SAM's generators give them."""
    drawn = [
        Mask.model_validate({"id": m.id, "segmentation": encode_mask(m.mask), "kind": m.kind}) for m in scene.masks
    ]
    return [*drawn, *(mask.model_copy(update={"id": f"{mask.id}-again"}) for mask in drawn[:2])]


@pytest.fixture(scope="module", params=["disk", "redis", "none"])
def service(
    request: pytest.FixtureRequest,
    services: LocalServices,
    demo_worker: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Client, dict[str, str]]]:
    """A worker with each kind of cache, and one without."""
    kind: str = request.param
    if kind == "none":
        settings = ClientSettings(redis_url=services.redis.url, namespace=demo_worker["MASKSCORE_NAMESPACE"])
        with Client(settings) as client:
            yield kind, client, demo_worker
        return
    namespace = f"rescore-{kind}-{uuid.uuid4().hex[:8]}"
    place = {"disk": str(tmp_path_factory.mktemp("cache")), "redis": "redis"}[kind]
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_BUCKETS": "rescore",
        "MASKSCORE_RESULT_BUCKETS": "rescore",
        "MASKSCORE_MAX_BATCH": "4",
        "MASKSCORE_FEATURE_CACHE": place,
    }
    settings = ClientSettings(redis_url=services.redis.url, namespace=namespace)
    with start_worker(environment), Client(settings) as client:
        yield kind, client, environment


def scores(components: list[Component]) -> list[tuple[object, ...]]:
    return [
        (
            c.id,
            c.box,
            c.area,
            c.s_pos_text,
            c.s_neg_text,
            c.semantic_multiplier,
            [(p.text, p.group) for p in c.top_k or []],
        )
        for c in components
    ]


def numbers(components: list[Component]) -> list[float]:
    found = []
    for c in components:
        found += [value for value in (c.s_pos, c.s_neg, c.p_pos_sum, c.p_neg_sum) if value is not None]
        found += [entry.score for entry in c.top_k or []]
    return found


def only(results: Iterator[JobResult]) -> JobResult:
    (result,) = results
    return result


def test_a_fit_takes_features_from_the_cache_and_encodes_what_it_lacks(
    service: tuple[str, Client, dict[str, str]], image: str, tmp_path: Path
) -> None:
    kind, client, environment = service
    scenes = [draw_scene(991_001 + number) for number in range(6)]
    rows = ["image,mask_id,keep"]
    jobs: list[Job] = []
    for number, scene in enumerate(scenes):
        encoded = io.BytesIO()
        Image.fromarray(scene.image).save(encoded, "PNG")
        uri = image.replace("scene", f"fit-{kind}-{number}")
        client.objects.write(uri, encoded.getvalue(), content_type="image/png")
        own = [Mask.model_validate({"id": m.id, "segmentation": encode_mask(m.mask)}) for m in scene.masks]
        rows += [f"{uri},{mask.id},{int(mask.kind == 'object')}" for mask in scene.masks]
        jobs.append(Job(image=uri, masks=own, options=ScoringOptions(prompts="demo")))
    batch = client.submit_many(jobs)
    batch.wait(60)
    # The last image has other bytes now, of which nothing is in a cache.
    client.objects.write(uri, encoded.getvalue() + b"\0", content_type="image/png")
    (tmp_path / "judged.csv").write_text("\n".join(rows), "utf-8")
    asked = (
        "fit",
        batch.batch_id,
        "--judged",
        "judged.csv",
        "--embed",
        "--kind",
        "probe",
        "-o",
        "head.json",
        "--force",
    )
    fitted = run_command(*asked, environment=environment, folder=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    masks, fresh = (sum(len(scene.masks) for scene in some) for some in (scenes, scenes[-1:]))
    cached, encoding = (0, masks) if kind == "none" else (masks - fresh, fresh)
    assert f"{cached} from the cache, {encoding} encoded" in fitted.stderr


def test_a_rescore_gives_a_fresh_jobs_scores(
    service: tuple[str, Client, dict[str, str]], image: str, masks: list[Mask]
) -> None:
    kind, client, _ = service
    first = client.submit(Job(image=image, masks=masks, options=ScoringOptions(prompts="demo"))).wait(timeout=60)
    # Two of the masks were there twice.
    assert (first.encoded, first.cached) == (len(masks) - 2, 0)
    assert numbers(first.components[-2:]) == numbers(first.components[:2])
    limits = Thresholds(reject_neg_sum=0.4, strong_pos_sum=0.9)
    batch = client.rescore([first.job_id], prompts=OTHER, thresholds=limits, top_k=3)
    again = only(batch.as_completed(timeout=60))
    assert (again.encoded, again.cached) == ((len(masks) - 2, 0) if kind == "none" else (0, len(masks)))
    options = ScoringOptions(prompts=OTHER, thresholds=limits, top_k=3, treatment="original")
    # The same masks over an image of other bytes: nothing of it is in a cache.
    padded = image.replace("scene", "padded")
    objects = client.objects
    data = objects.read(image, what="image", max_bytes=1 << 24).data + b"\0"
    objects.write(padded, data, content_type="image/png")
    fresh = client.submit(Job(image=padded, masks=masks, options=options)).wait(timeout=60)
    assert (fresh.encoded, fresh.cached) == (len(masks) - 2, 0)
    assert scores(again.components) == scores(fresh.components)
    assert numbers(again.components) == pytest.approx(numbers(fresh.components), abs=1e-5)
    assert numbers(again.components) != pytest.approx(numbers(first.components), abs=1e-2)
    assert [c.upstream for c in again.components] == [mask.upstream for mask in masks]
    assert again.prompts is not None
    assert again.prompts.digest == OTHER.digest


def test_a_batch_is_rescored_whole_and_the_same_question_is_the_same_job(
    service: tuple[str, Client, dict[str, str]], image: str, masks: list[Mask]
) -> None:
    kind, client, _ = service
    options = ScoringOptions(
        prompts="demo", treatment="soft_mask", alpha=0.7, thresholds=Thresholds(accept_pos_sum=0.3)
    )
    jobs = [Job(image=image, masks=masks[n : n + 3], options=options, result_uri="s3://rescore/out/") for n in range(5)]
    batch = client.submit_many(jobs)
    batch.wait(timeout=60)
    again = client.rescore(batch, thresholds={"reject_neg_sum": 0.9}, batch_id=f"rescore-again-{kind}")
    results = list(again.as_completed(timeout=60))
    assert len(results) == 5
    assert all(result.treatment == "soft_mask" for result in results)
    if kind != "none":
        assert [(result.encoded, result.cached) for result in results] == [(0, 3)] * 5
    asked = client.job(results[0].job_id).options
    assert asked == options.model_copy(update={"thresholds": Thresholds(accept_pos_sum=0.3, reject_neg_sum=0.9)})
    once_more = client.rescore(batch, thresholds={"reject_neg_sum": 0.9}, batch_id=f"rescore-again-{kind}")
    assert sorted(once_more.job_ids()) == sorted(result.job_id for result in results)
    assert len(once_more) == 5


def test_another_treatment_or_alpha_is_not_taken_from_the_cache(
    service: tuple[str, Client, dict[str, str]], image: str, masks: list[Mask]
) -> None:
    _, client, _ = service
    for options in (
        {"treatment": "soft_mask", "alpha": 0.11},
        {"treatment": "soft_mask", "alpha": 0.12},
        {"treatment": "raw_crop"},
    ):
        job = Job(image=image, masks=masks[:1], options=ScoringOptions(prompts="demo", **options))
        assert client.submit(job).wait(timeout=60).encoded == 1


def test_what_cannot_be_rescored_is_said(
    service: tuple[str, Client, dict[str, str]], image: str, masks: list[Mask]
) -> None:
    kind, client, _ = service
    with pytest.raises(JobNotFound, match="nobody"):
        client.rescore(["nobody"], top_k=1)
    # What one kind's job has written, another's does not overwrite.
    place = f"s3://rescore/{kind}.json"
    job = Job(image=image, masks=masks[:1], options=ScoringOptions(prompts="demo"), result_uri=place)
    client.submit(job).wait(timeout=60)
    with pytest.raises(InvalidDocumentError, match=re.escape(place)):
        client.rescore([job.job_id], top_k=1)
    result = only(client.rescore([job.job_id], top_k=1, result_uri="s3://rescore/two/").as_completed(timeout=60))
    assert client.objects.etag(f"s3://rescore/two/{result.job_id}.json", what="result")


def test_the_command(
    service: tuple[str, Client, dict[str, str]], image: str, masks: list[Mask], tmp_path: Path
) -> None:
    kind, client, environment = service
    batch = client.submit_many([Job(image=image, masks=masks, options=ScoringOptions(prompts="demo"))])
    batch.wait(timeout=60)
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(OTHER.model_dump()))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command("rescore", *arguments, environment=environment, folder=tmp_path)

    done = run(batch.batch_id, "--prompts", "other.yaml", "--thresholds", "strong_pos_sum=0.5", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    result = JobResult.model_validate_json(done.stdout)
    assert result.prompts is not None
    assert result.prompts.name == "other"
    if kind == "none":
        expected = f"{len(masks)} masks scored: 0 from the cache, {len(masks) - 2} encoded"
    else:
        expected = f"{len(masks)} masks scored: {len(masks)} from the cache, 0 encoded"
    assert expected in done.stderr
    embedded = run(batch.batch_id, "--embeddings", "--wait", "--json")
    assert expected in embedded.stderr
    assert all(one.embedding for one in JobResult.model_validate_json(embedded.stdout).components)
    listed = run(next(batch.job_ids()), "--top-k", "2", "--batch-id", f"rescore-listed-{kind}")
    assert listed.stdout.split() == list(client.batch(f"rescore-listed-{kind}").job_ids())
    assert run(batch.batch_id).returncode == 2
    assert run(batch.batch_id, "--thresholds", "reject").returncode == 2
    assert run(batch.batch_id, "--thresholds", "nothing=1").returncode == 2
    assert run("nobody", "--top-k", "2").returncode == 5


@pytest.mark.usefixtures("services")
def test_another_worker_finds_what_the_first_one_kept_in_redis(image: str, masks: list[Mask]) -> None:
    settings = {"namespace": f"rescore-{uuid.uuid4().hex[:8]}", "buckets": ("rescore",), "feature_cache": "redis"}
    options = ScoringOptions(prompts="demo", embeddings=True)
    with in_process_pipeline(**settings) as score:
        first = score(Job(image=image, masks=masks, options=options))
    with in_process_pipeline(**settings) as score:
        again = score(Job(image=image, masks=masks, options=options.model_copy(update={"method": "cosine"})))
    assert (first.encoded, first.cached) == (len(masks) - 2, 0)
    assert (again.encoded, again.cached) == (0, len(masks))
    assert [c.embedding for c in again.components] == [c.embedding for c in first.components]


@pytest.mark.usefixtures("services")
def test_a_cache_that_cannot_be_written_costs_no_job(
    image: str, masks: list[Mask], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    job = Job(image=image, masks=masks, options=ScoringOptions(prompts="demo"))
    with in_process_pipeline(buckets=("rescore",), feature_cache=str(tmp_path / "cache")) as score:
        results = [score(job) for _ in range(2)]
    assert caplog.text.count("the feature cache in") == 1
    assert [(result.encoded, result.cached) for result in results] == [(len(masks) - 2, 0)] * 2
