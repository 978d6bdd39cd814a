"""Commands and Python that read the parts of shards in S3: of a prefix, and of a batch by its name."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest

from command_line import run_command
from maskscore import AsyncClient, Batch, Client, ClientSettings, Job, ScoringOptions, results
from maskscore.client import save_categories_of_parts
from maskscore.devstack import LocalServices
from maskscore.errors import InvalidDocumentError
from maskscore.formats.label_studio_brush import decode_brush
from maskscore.schema import Shard, TarSource
from reference import decode
from shard_tars import drawn_pairs, write_tar

BUCKET = "parts-commands"
PLACE = f"s3://{BUCKET}/run-1/"


@pytest.fixture(scope="module")
def client(demo_worker: dict[str, str]) -> Iterator[Client]:
    settings = ClientSettings(
        redis_url=demo_worker["MASKSCORE_REDIS_URL"], namespace=demo_worker["MASKSCORE_NAMESPACE"]
    )
    with Client(settings) as client:
        yield client


@pytest.fixture(scope="module")
def batch(client: Client, services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Two shards of two parts each, the second of a tar with an image that has no masks."""
    services.create_bucket(BUCKET)
    files = drawn_pairs(6)
    shards = []
    for number, own in enumerate((files[:6], [*files[6:], ("alone.jpg", files[0][1])])):
        path = write_tar(tmp_path_factory.mktemp("tars") / f"{number}.tar", own)
        boto3.client("s3").upload_file(str(path), BUCKET, path.name)
        source = TarSource(uri=f"s3://{BUCKET}/{path.name}")
        options = ScoringOptions(prompts="demo", embeddings=True)
        shards.append(Shard(name=f"sa_{number}", source=source, output_uri=PLACE, options=options, part_images=2))
    batch = client.submit_many(shards, batch_id=f"parts-commands-{uuid.uuid4().hex[:8]}")
    assert batch.wait(240).succeeded == 2
    return batch


def test_tables_of_a_batch_are_those_of_its_parts(batch: Batch, client: Client, demo_worker: dict[str, str]) -> None:
    masks, images = results.open(PLACE), results.open(PLACE, "images")
    assert batch.to_arrow().equals(masks.to_table())
    assert batch.to_arrow("images", columns=["image", "code"]).equals(images.to_table(columns=["image", "code"]))
    assert [row["code"] for row in images.to_table().to_pylist()] == [None] * 6 + ["masks_not_found"]

    async def table() -> int:
        async with AsyncClient(client.settings) as twin:
            return int((await twin.batch(batch.batch_id).to_arrow(columns=["s_pos"])).num_rows)

    assert asyncio.run(table()) == masks.count_rows()


@pytest.mark.needs("pandas", importlib.util.find_spec("pandas"))
def test_a_batch_is_a_data_frame(batch: Batch) -> None:
    frame = batch.to_pandas(columns=["image", "s_pos"])
    assert list(frame.columns) == ["image", "s_pos"]
    assert len(frame) == results.open(PLACE).count_rows()


def test_a_batch_of_jobs_has_the_same_tables(batch: Batch, client: Client) -> None:
    one = next(results.image_results(PLACE, segmentations=True))
    boto3.client("s3").put_object(Bucket=BUCKET, Key="a.jpg", Body=drawn_pairs(1)[0][1])
    masks = [
        {"id": component.id, "segmentation": segmentation, **component.upstream}
        for component, segmentation in zip(one.result.components, one.segmentations, strict=True)
    ]
    options = {"prompts": "demo", "embeddings": True}
    jobs = [
        Job.model_validate({"image": f"s3://{BUCKET}/{name}", "masks": masks, "options": options})
        for name in ("nowhere.jpg", "a.jpg")
    ]
    single = client.submit_many(jobs)
    single.wait(120)
    table, wanted = single.to_arrow(), batch.to_arrow()
    assert table.schema.names == wanted.schema.names
    assert {field.name for field in table.schema if field.type != wanted.schema.field(field.name).type} == set()
    assert table["s_pos"].to_pylist() == pytest.approx([one.s_pos for one in one.result.components], abs=1e-3)
    images = single.to_arrow("images", columns=["image", "state", "code"]).to_pylist()
    assert [(row["state"], row["code"]) for row in images] == [("failed", "image_not_found"), ("succeeded", None)]
    both = client.submit_many([client.shard(next(batch.job_ids())), *jobs])
    with pytest.raises(InvalidDocumentError, match="that of an image, among shards"):
        both.to_arrow()


@pytest.mark.parametrize("by_name", [False, True])
def test_an_export_of_parts_in_s3(batch: Batch, demo_worker: dict[str, str], tmp_path: Path, by_name: bool) -> None:
    name = batch.batch_id if by_name else PLACE
    best_five = ("-o", "best.parquet", "--top", "5", "--rank-by", "multiplier")
    done = run_command("export", name, *best_five, environment=demo_worker, folder=tmp_path)
    assert done.returncode == 1
    assert "images without a result: masks_not_found 1" in done.stderr
    best = pq.read_table(tmp_path / "best.parquet").to_pylist()
    masks = results.open(PLACE).to_table().to_pylist()
    ranked = sorted((row["semantic_multiplier"] or 0.0 for row in masks), reverse=True)[:5]
    assert [row["rank_score"] for row in best] == pytest.approx(ranked)
    embeddings = {(row["image"], row["mask_id"]): row["embedding"] for row in masks}
    for row in best:
        assert len(row["embedding"]) == 2 * len(embeddings[row["image"], row["mask_id"]])


@pytest.mark.parametrize("by_name", [False, True])
def test_a_report_of_parts(batch: Batch, demo_worker: dict[str, str], tmp_path: Path, by_name: bool) -> None:
    name = batch.batch_id if by_name else PLACE
    done = run_command("report", name, "-o", "report.html", environment=demo_worker, folder=tmp_path)
    assert done.returncode == 1
    assert "images without a result: masks_not_found 1" in done.stderr
    page = (tmp_path / "report.html").read_text()
    scored = sum(row["skipped"] is None for row in results.open(PLACE).to_table(columns=["skipped"]).to_pylist())
    assert page.count('alt="crop of mask') == scored
    assert page.count("<section") == 7
    assert f"s3://{BUCKET}/1.tar!/" in page.replace("<wbr>", "")


def test_shards_are_scored_again_into_other_parts(batch: Batch, demo_worker: dict[str, str], tmp_path: Path) -> None:
    again = f"s3://{BUCKET}/run-2/"
    change = ("--thresholds", "reject_neg_sum=0,strong_neg_sum=0")
    for name, place in ((PLACE, PLACE), (PLACE, again.rstrip("/")), (batch.batch_id, None), (PLACE, again)):
        to = ("--result-uri", place) if place else ()
        done = run_command("rescore", name, *change, *to, "--wait", environment=demo_worker, folder=tmp_path)
        if place != again:
            assert (done.returncode, "a place of their own" in done.stderr) == (2, True), done.stderr
    assert done.returncode == 0, done.stderr
    scored = sum(one is None for one in results.open(PLACE).to_table(columns=["skipped"])["skipped"].to_pylist())
    assert f"{scored} masks scored, of shards into 4 parts" in " ".join(done.stderr.split())
    new = results.open(again).to_table(columns=["image", "semantic_multiplier"])
    assert new["image"].equals(results.open(PLACE).to_table(columns=["image"])["image"])
    assert set(new["semantic_multiplier"].to_pylist()) - {None} == {0.1}
    unknown = run_command(
        "rescore", PLACE, *change, "--result-uri", again, environment={**demo_worker, "MASKSCORE_NAMESPACE": "other"}
    )
    assert (unknown.returncode, "Redis does not know any more" in " ".join(unknown.stderr.split())) == (5, True)


def test_a_review_of_parts_takes_its_images_out_of_their_tars(
    batch: Batch, demo_worker: dict[str, str], tmp_path: Path
) -> None:
    files = dict(drawn_pairs(6))
    masks = {one.image: one for one in results.image_results(PLACE, segmentations=True)}
    scored = sum(component.skipped is None for one in masks.values() for component in one.result.components)
    tasks = {}
    for name, output in ((PLACE, "a.json"), (batch.batch_id, "b.json")):
        shown = run_command("review", name, "--random", "9", "-o", output, environment=demo_worker, folder=tmp_path)
        # One image has no masks.
        assert (shown.returncode, "images without a result: masks_not_found 1" in shown.stderr) == (1, True)
        assert f"of {scored} scored masks: {scored - 9} doubtful" in shown.stderr
        assert f"with the path {tmp_path / output.replace('.json', '-images')}" in shown.stderr
        tasks[output] = json.loads((tmp_path / output).read_text("utf-8"))
    assert [task["data"]["maskscore"] for task in tasks["a.json"]] == [
        task["data"]["maskscore"] for task in tasks["b.json"]
    ]
    seen = []
    for task in tasks["a.json"]:
        about = task["data"]["maskscore"]
        path = Path("/", task["data"]["image"].removeprefix("/data/local-files/?d="))
        assert path.parent == tmp_path / "a-images"
        assert path.read_bytes() == files[about["image"].rpartition("!/")[2]]
        one = masks[about["image"]]
        rles = {
            component.id: decode(found, *found["size"])
            for component, found in zip(one.result.components, one.segmentations, strict=True)
        }
        for region in task["predictions"][0]["result"]:
            mask_id = about["regions"][region["id"]]["mask_id"]
            size = region["original_height"], region["original_width"]
            np.testing.assert_array_equal(decode_brush(bytes(region["value"]["rle"]), *size), rles[mask_id])
            seen.append((about["image"], mask_id))
    assert len(set(seen)) == len(seen) == scored


def test_parts_are_scored_again_by_their_embeddings(
    batch: Batch, client: Client, demo_worker: dict[str, str], tmp_path: Path
) -> None:
    """Other workers would not know the shards: only the parts are read."""
    lines = ["name: other", "positive: [a red circle, a blue square]", "negative: [grass]"]
    (tmp_path / "other.yaml").write_text("\n".join(lines), "utf-8")
    places = [f"s3://{BUCKET}/{name}/" for name in ("run-3", "run-4")]
    categories = [{"id": 1, "name": "dog"}]
    save_categories_of_parts(client.objects, PLACE, categories)
    ways = (("--from-embeddings", "-o"), ("--result-uri",))
    for place, way in zip(places, ways, strict=True):
        command = ("rescore", PLACE, "--prompts", "other.yaml", *way, place, "--wait")
        done = run_command(*command, environment=demo_worker, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "of shards into 4 parts" in " ".join(done.stderr.split())
        assert results.categories_of(place) == categories
    for table in ("masks", "images"):
        found, wanted = (results.open(place, table).to_table().to_pylist() for place in places)
        for row, own in zip(found, wanted, strict=True):
            for name in ("job_id", "batch_id"):
                assert row.pop(name) != own.pop(name)
            assert row == {
                name: pytest.approx(value, abs=2e-3) if isinstance(value, float) else value
                for name, value in own.items()
            }
    assert {row["prompts_digest"] for row in results.open(places[0]).to_table().to_pylist()} != {
        row["prompts_digest"] for row in results.open(PLACE).to_table().to_pylist()
    }
    for wrong, message in (
        ((batch.batch_id, "-o", places[0]), "places of parts"),
        ((PLACE, "-o", PLACE), "their own"),
        ((PLACE, "-o", PLACE.rstrip("/")), "the slash at its end"),
    ):
        done = run_command(
            "rescore", *wrong, "--from-embeddings", "--prompts", "other.yaml", environment=demo_worker, folder=tmp_path
        )
        assert (done.returncode, message in " ".join(done.stderr.split())) == (2, True), done.stderr


def test_a_head_is_fitted_to_parts_and_checked_by_their_batch(
    batch: Batch, demo_worker: dict[str, str], tmp_path: Path
) -> None:
    masks = results.open(PLACE).to_table(columns=["image", "mask_id", "p_pos_sum"]).to_pylist()
    middle = sorted(mask["p_pos_sum"] for mask in masks)[len(masks) // 2]
    lines = [f"{mask['image']},{mask['mask_id']},{int(mask['p_pos_sum'] >= middle)}" for mask in masks]
    (tmp_path / "judged.csv").write_text("\n".join(["image,mask_id,keep", *lines]), "utf-8")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return run_command(*command, environment=demo_worker, folder=tmp_path)

    asked = ("--judged", "judged.csv", "-o", "own.json", "--force", "--json")
    for kind in ("threshold", "probe"):
        fitted = run("fit", PLACE, *asked, "--kind", kind)
        assert fitted.returncode == 0, fitted.stderr
        counts = json.loads(fitted.stdout)["batch"]
        assert (counts["decided"], counts["undecided"]) == (len(masks), 0)
        checked = run("heads", "check", "own.json", batch.batch_id)
        assert f"{len(masks)} masks can be decided, {counts['kept']} of them kept" in checked.stdout
        assert "1 job or image without a result" in checked.stderr
        assert checked.returncode == 1
    assert run("fit", batch.batch_id, *asked, "--embed").returncode == 2
