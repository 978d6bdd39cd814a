"""An export of parts: the query keeps, ranks and labels masks as a selection does one by one, in every format."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow.dataset import dataset
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from command_line import run_command
from maskscore import Client, ClientSettings, Component, JobResult, JobState
from maskscore.cli.head_counts import count_kept
from maskscore.client import save_categories_of_parts
from maskscore.errors import HeadMismatch, InvalidDocumentError, ResultUnavailable
from maskscore.export import (
    EXPORT_FORMATS,
    Labelling,
    Parts,
    Ranking,
    Selection,
    write_export,
    write_jsonl,
    write_parquet,
)
from maskscore.heads import HeadApplication
from maskscore.parts import ImageOutcome, part_names, part_tables, write_part
from maskscore.schema import (
    Failure,
    Head,
    ImageInfo,
    ModelIdentity,
    PromptScore,
    PromptSetIdentity,
    Skipped,
    text_from_counts,
)

RLE = {"size": [4, 6], "counts": text_from_counts([6, 2, 2, 2, 2, 2, 8])}
SIZE = 24


def component(number: int) -> Component:
    """Masks whose values repeat, so that there are ties, and lack some of their fields."""
    if number % 7 == 6:
        return Component(id=str(number), index=number, skipped=Skipped(code="empty_mask", message="No pixel."))
    upstream: dict[str, Any] = {"predicted_iou": [0.5, 0.9, 1][number % 3], "category_id": number % 2 + 1}
    if number % 4:
        upstream["odd/~'\""] = -number if number % 5 == 0 else number
    return Component(
        id=str(number),
        index=number,
        box=(1, 2, 3, 2),
        area=number % 5 + 1,
        s_pos=(number % 4) / 4,
        s_pos_text=["a dog", 'a cat\'s "paw"'][number % 2],
        p_neg_sum=(number % 6) / 10,
        semantic_multiplier=[2.0, 1.0, 0.1][number % 3],
        embedding="AAA8" if number % 2 else None,
        top_k=[PromptScore(text="a dog", group="positive", score=0.5)] if number % 3 else None,
        upstream=upstream,
    )


IMAGES = {f"s3://photos/{name}.jpg": [component(start + n) for n in range(9)] for name, start in (("b", 0), ("a", 5))}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("parts")
    for number, (uri, components) in enumerate(IMAGES.items()):
        if number:
            # In this part, the field is of mixed kinds.
            components[0].upstream["odd/~'\""] = "text"
        image = ImageInfo(uri=uri, width=6, height=4, format="JPEG")
        result = JobResult(job_id="shard", state=JobState.SUCCEEDED, image=image, components=components)
        segmentations = [None if one.skipped else RLE for one in components]
        failure = Failure(code="image_truncated", message="It ends too early.")
        failed = ImageOutcome(JobResult(job_id="shard", state=JobState.FAILED, error=failure), None)
        outcomes = [ImageOutcome(result, uri, segmentations=segmentations), failed]
        write_part(part_tables(outcomes, first_position=2 * number), part_names("shard", number), folder)
    return str(folder)


@pytest.fixture(scope="module")
def client() -> Client:
    """Its Redis does not answer, and is not asked."""
    return Client(ClientSettings(redis_url="redis://127.0.0.1:1/0"))


CLASSES = {"a dog": "dog", 'a cat\'s "paw"': None}
SELECTIONS = [
    Selection(),
    Selection(include_skipped=True, sort=True),
    Selection(min_multiplier=1.0, max_neg=0.3, min_area=2),
    Selection(at_least={"odd/~'\"": 3, "predicted_iou": 0.6}),
    Selection(ranking=Ranking({"s_pos": 0.5, "area": 2, "odd/~'\"": 1, "predicted_iou": 400}), sort=True),
    Selection(top=5),
    Selection(top=100),
    Selection(top_per_image=2, include_skipped=True),
    Selection(top_per_image=3, top=4),
    Selection(labelling=Labelling(min_score=0.2), top_per_image=3),
    Selection(labelling=Labelling(classes=CLASSES)),
]


def expected(selection: Selection) -> list[tuple[str, str, float | None]]:
    rows = []
    for uri, components in IMAGES.items():
        for one in components:
            labelling = selection.labelling
            text = labelling.text_of(one) if labelling else "any"
            unlabelled = text is None or (labelling is not None and labelling.label_of(text) is None)
            if selection.refused_by(one) is None and not (unlabelled and one.skipped is None):
                rows.append((uri, one.id, selection.ranking.score(one, pixels=SIZE)))
    best = sorted(rows, key=lambda row: -1.0 if row[2] is None else row[2], reverse=True)
    if (most := selection.top_per_image) is not None:
        taken: dict[str, int] = {}
        for row in list(best):
            taken[row[0]] = taken.get(row[0], 0) + 1
            if taken[row[0]] > most:
                best.remove(row)
    return best[: selection.top] if selection.best_first else [row for row in rows if row in best]


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_query_says_what_a_selection_says(client: Client, parts: str, tmp_path: Path, selection: Selection) -> None:
    stream = io.StringIO()
    counts = write_jsonl(client, Parts(parts), stream, selection)
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    wanted = expected(selection)
    assert [(row["image"], row["mask_id"]) for row in found] == [row[:2] for row in wanted]
    assert {(row["image"], row["mask_id"]): row["rank_score"] for row in found} == {
        row[:2]: pytest.approx(row[2]) for row in wanted
    }
    assert (counts.kept, counts.masks, counts.jobs) == (len(wanted), 18, 4)
    assert counts.kept + sum(counts.filtered.values()) == counts.masks
    assert counts.without_result == {"image_truncated": 2}
    assert "4 images" in str(counts)
    table = tmp_path / "masks.parquet"
    assert write_parquet(client, Parts(parts), table, selection) == counts
    rows = pq.read_table(table).to_pylist()
    assert [(row["image"], row["mask_id"], row["rank_score"]) for row in rows] == [
        (row["image"], row["mask_id"], row["rank_score"]) for row in found
    ]
    assert [row.get("label") for row in rows] == [row.get("label") for row in found]
    assert all(field.nullable for field in pq.read_schema(table))


def test_a_mask_is_exported_as_its_result_says(client: Client, parts: str, tmp_path: Path) -> None:
    stream = io.StringIO()
    write_jsonl(client, Parts(parts), stream)
    row = json.loads(stream.getvalue().splitlines()[1])
    one = component(1)
    assert (row["box"], row["segmentation"], row["upstream"]) == (list(one.box or ()), RLE, one.upstream)
    assert (row["s_pos_text"], row["part"], row["image_width"]) == (one.s_pos_text, None, 6)
    assert row["top_k"] == [{"text": "a dog", "group": "positive", "score": 0.5}]


@pytest.mark.parametrize("format_", EXPORT_FORMATS)
@pytest.mark.parametrize("selection", [Selection(top=3), Selection(nms=0.5)])
def test_every_format(client: Client, parts: str, tmp_path: Path, format_: str, selection: Selection) -> None:
    done: list[int] = []
    source = Parts(parts, progress=lambda masks, total: done.append(masks))
    counts = write_export(client, source, str(tmp_path / "out"), format_, selection, segmentations=True)
    assert counts.kept == 3 if selection.top else counts.filtered["nms"] > 0
    assert done[-1] >= counts.kept
    assert (tmp_path / "out").exists()


def test_categories_have_the_names_that_are_kept_with_the_parts(client: Client, parts: str, tmp_path: Path) -> None:
    folder = shutil.copytree(parts, tmp_path / "parts")

    def names() -> list[tuple[int, str]]:
        write_export(client, Parts(str(folder)), str(tmp_path / "out.json"), "coco", Selection(), segmentations=True)
        document = json.loads((tmp_path / "out.json").read_text())
        return [(entry["id"], entry["name"]) for entry in document["categories"]]

    assert names() == [(1, "1"), (2, "2")]
    save_categories_of_parts(client.objects, f"{folder.as_uri()}/", [{"id": 2, "name": "cat"}, {"id": 7, "name": "x"}])
    assert names() == [(1, "1"), (2, "cat")]
    # Of a further file for the same place.
    save_categories_of_parts(
        client.objects, f"{folder.as_uri()}/", [{"id": 2, "name": "cat"}, {"id": 1, "name": "dog"}]
    )
    assert names() == [(1, "dog"), (2, "cat")]
    save_categories_of_parts(client.objects, f"{folder.as_uri()}/", [{"id": 2, "name": "lion"}])
    with pytest.raises(InvalidDocumentError, match="different categories: 2 is 'cat' in one and 'lion'"):
        names()
    (folder / "categories.json").write_text("{")
    with pytest.raises(ResultUnavailable, match="cannot be read"):
        names()


def test_the_command_takes_a_folder_with_a_slash(parts: str, tmp_path: Path) -> None:
    environment = {"MASKSCORE_REDIS_URL": "redis://127.0.0.1:1/0"}
    done = run_command("export", parts, "-o", "top.parquet", "--top", "2", environment=environment, folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "2 of 18 masks kept; 4 images" in done.stderr
    assert "images without a result: image_truncated 2" in done.stderr
    assert pq.read_table(tmp_path / "top.parquet").num_rows == 2
    both = run_command("export", parts, "job", environment=environment, folder=tmp_path)
    assert both.returncode == 2
    assert "parts are exported alone" in both.stderr


HEADS: list[dict[str, Any]] = [
    {"kind": "threshold", "score": "-p_neg_sum", "p_below": 0.1, "p_above": 0.9},
    {"kind": "platt", "score": "s_pos - s_neg", "slope": 4.0, "intercept": -1.0},
    {"kind": "isotonic", "score": "s_pos", "scores": [0.2, 0.9], "probabilities": [0.0, 1.0]},
    {"kind": "probe", "weights": [[1.0, -2.0]], "biases": [0.1]},
    {"kind": "probe", "weights": [[3.0, 0.0], [0.0, 3.0]], "biases": [0.0, 0.1]},
    {"kind": "probe", "weights": [[1.0, -1.0]], "biases": [0.0]},
]


def head(model: dict[str, Any], **changes: Any) -> HeadApplication:
    about: dict[str, Any] = {"weights_digest": "sha256:w", "views": "soft_mask=0.6", "threshold": 0.45}
    if model["kind"] != "probe":
        about |= {"method": "softmax", "prompts_digest": "sha256:p"}
    about["threshold"] = -0.25 if model["kind"] == "threshold" else 0.45
    if model in HEADS[4:]:
        about |= {"classes": ["thing", "stuff"], "drop_classes": ["stuff"] if model == HEADS[4] else []}
    return HeadApplication(Head.model_validate({"name": "own", "model": model, **about, **changes}))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, JobResult]:
    """Parts of one image, and its result; embeddings of two numbers, as the scored masks of results have them."""
    random = np.random.default_rng(3)
    components = [component(number).model_copy(update={"embedding": None}) for number in range(14)]
    for number, one in enumerate(components):
        if one.skipped is None:
            feature = random.standard_normal(2).astype("<f2")
            update = {"s_neg": random.random() / 2, "embedding": base64.b64encode(feature.tobytes()).decode()}
            components[number] = one.model_copy(update=update)
    model = {"architecture": "a", "image_size": 32, "precision": "fp32", "crop_mode": "fast"}
    result = JobResult(
        job_id="shard",
        state=JobState.SUCCEEDED,
        image=ImageInfo(uri="s3://photos/a.jpg", width=6, height=4, format="JPEG"),
        components=components,
        model=ModelIdentity(weights_digest="sha256:w", **model),
        prompts=PromptSetIdentity(name="p", digest="sha256:p", positive=2, negative=1),
        treatment="soft_mask",
        method="softmax",
    )
    folder = tmp_path_factory.mktemp("scored")
    outcome = ImageOutcome(result, "s3://photos/a.jpg", segmentations=[None] * len(components))
    tables = part_tables([outcome], first_position=0, dimensions=2, views="soft_mask=0.6")
    write_part(tables, part_names("shard", 0), folder)
    return str(folder), result


@pytest.mark.parametrize("model", HEADS)
def test_a_head_decides_on_masks_of_parts_as_on_those_of_results(
    client: Client, scored: tuple[str, JobResult], tmp_path: Path, model: dict[str, Any]
) -> None:
    parts, result = scored
    application = head(model)
    table = tmp_path / "masks.parquet"
    counts = write_parquet(client, Parts(parts), table, Selection(head=application, include_skipped=True))
    rows = pq.read_table(table).to_pylist()
    wanted = application.of_result(result, views="soft_mask=0.6").components
    assert [row["p_keep"] for row in rows] == pytest.approx([one.p_keep for one in wanted])
    assert [(row["keep"], row.get("head_class")) for row in rows] == [(one.keep, one.head_class) for one in wanted]
    assert {row["head"] for row in rows if row["keep"] is not None} == {f"own@{application.head.identity.digest}"}
    assert [row["embedding"] for row in rows] == [
        None if one.embedding is None else base64.b64decode(one.embedding) for one in wanted
    ]
    best = Selection(head=application, keep=True)
    lines, through_arrow = io.StringIO(), io.StringIO()
    kept = write_jsonl(client, Parts(parts), lines, best).kept
    assert 0 < kept == sum(one.keep is True for one in wanted) < counts.kept
    remote = Parts(parts)
    remote.masks = dataset(
        remote.masks.files, schema=remote.masks.schema, filesystem=SubTreeFileSystem("/", LocalFileSystem())
    )
    assert write_jsonl(client, remote, through_arrow, best).kept == kept
    assert through_arrow.getvalue() == lines.getvalue()


def test_what_a_head_keeps_of_parts_is_counted(client: Client, scored: tuple[str, JobResult]) -> None:
    parts, result = scored
    application = head(HEADS[0])
    wanted = application.of_result(result, views="soft_mask=0.6").components
    counts = count_kept(client, application, [], [parts])
    assert (counts.decided, counts.kept) == (12, sum(one.keep is True for one in wanted))
    other = count_kept(client, head(HEADS[0], views="soft_mask"), [], [parts])
    assert (other.decided, other.kept, other.undecided) == (0, 0, 12)
    assert "fitted to the view soft_mask" in other.mismatches[f"the parts in {parts}"]


def test_a_head_that_does_not_hold_for_the_parts_is_refused(client: Client, scored: tuple[str, JobResult]) -> None:
    parts, _ = scored
    with pytest.raises(HeadMismatch, match="fitted to the view soft_mask, and these masks were scored with soft_mask"):
        write_jsonl(client, Parts(parts), io.StringIO(), Selection(head=head(HEADS[0], views="soft_mask")))
    unread = Selection(head=head({**HEADS[0], "score": "p_pos_sum"}))
    with pytest.raises(HeadMismatch, match="reads p_pos_sum, which 12 masks"):
        write_jsonl(client, Parts(parts), io.StringIO(), unread)
    narrow = Selection(head=head({"kind": "probe", "weights": [[1.0]], "biases": [0.1]}), keep=True)
    with pytest.raises(HeadMismatch, match="of 1 numbers; the mask's has 2"):
        write_jsonl(client, Parts(parts), io.StringIO(), narrow)


def test_a_part_that_is_there_twice_is_no_quiet_success(
    client: Client, scored: tuple[str, JobResult], tmp_path: Path
) -> None:
    shutil.copytree(scored[0], tmp_path, dirs_exist_ok=True)
    for table in ("masks", "images"):
        shutil.copy(tmp_path / table / "shard-00000.parquet", tmp_path / table / "copy.parquet")
    with pytest.raises(ResultUnavailable, match="or a mask twice"):
        write_parquet(client, Parts(tmp_path), tmp_path / "best.parquet", Selection(top=20))
    assert not (tmp_path / "best.parquet").exists()


def test_a_field_that_is_a_flag_in_one_part_and_a_number_in_another_is_text(client: Client, tmp_path: Path) -> None:
    for number, value in enumerate((True, 7)):
        masks = [component(number).model_copy(update={"upstream": {"mixed": value}})]
        result = JobResult(
            job_id="shard",
            state=JobState.SUCCEEDED,
            image=ImageInfo(uri=f"s3://photos/{number}.jpg", width=6, height=4, format="JPEG"),
            components=masks,
        )
        outcome = ImageOutcome(result, f"s3://photos/{number}.jpg", segmentations=[RLE])
        write_part(part_tables([outcome], first_position=number), part_names("shard", number), tmp_path)
    write_parquet(client, Parts(tmp_path), tmp_path / "masks.parquet")
    assert pq.read_table(tmp_path / "masks.parquet")["upstream_mixed"].to_pylist() == ["true", "7"]


def test_many_parts_with_different_columns_take_little_memory_each(parts: str, tmp_path: Path) -> None:
    code = (
        "import sys; from maskscore.export import ExportCounts, Parts, Selection\n"
        "def used(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "parts = Parts(sys.argv[1]); before = used()\n"
        "with parts.selected(Selection(), ExportCounts()) as found: print(found.kept, used() - before)\n"
    )

    def read(count: int) -> tuple[int, int]:
        folder = tmp_path / str(count)
        for table in ("masks", "images"):
            (folder / table).mkdir(parents=True)
            for number in range(count):
                os.link(Path(parts, table, f"shard-{number % 2:05}.parquet"), folder / table / f"{number:05}.parquet")
        ran = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
        kept, used = map(int, ran.stdout.split())
        return kept, used

    few, many = read(10), read(1010)
    assert many[0] == 101 * few[0] > 0
    # DuckDB's own union of columns keeps 95 kB of each of these files.
    assert many[1] - few[1] < 1000 * 40_000


def test_what_parts_cannot_say_is_refused(client: Client, parts: str) -> None:
    with pytest.raises(HeadMismatch, match="scored without a head"):
        write_jsonl(client, Parts(parts), io.StringIO(), Selection(keep=True))
    with pytest.raises(InvalidDocumentError, match="did you mean `predicted_iou`"):
        write_jsonl(client, Parts(parts), io.StringIO(), Selection(at_least={"predicted_iuo": 1}))
    with pytest.raises(InvalidDocumentError, match="no entry for 1 prompt"):
        write_jsonl(client, Parts(parts), io.StringIO(), Selection(labelling=Labelling(classes={"a dog": "dog"})))
    with pytest.raises(ResultUnavailable, match="no parts"):
        Parts(f"{parts}/nowhere")
