"""Heads: documents, files, decisions of each kind, and a worker that refuses what a head does not hold for."""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from pydantic import ValidationError

from in_process_pipeline import Score, in_process_pipeline
from maskscore import Component, Job, JobResult, ScoringOptions
from maskscore.cli.heads import heads_command
from maskscore.cli.job_tables import print_results
from maskscore.errors import HeadInvalid, HeadMismatch, HeadUnknown, InvalidDocumentError, JobError
from maskscore.export import Ranking, Selection
from maskscore.heads import HeadApplication, find_head, head_files, read_head, write_head
from maskscore.prompts import load_builtin
from maskscore.schema import Head, ModelIdentity, PromptSetIdentity

SCORES = {"s_pos": 0.6, "s_neg": 0.1, "p_pos_sum": 0.8, "p_neg_sum": 0.2}


def head(model: dict[str, Any], **changes: Any) -> Head:
    about: dict[str, Any] = {"weights_digest": "sha256:w", "views": "original"}
    if model["kind"] != "probe":
        about |= {"method": "softmax", "prompts_digest": "sha256:p"}
    return Head.model_validate({"name": "keep-v1", "threshold": 0.5, "model": model, **about, **changes})


PLATT = {"kind": "platt", "score": "s_pos - s_neg", "slope": 4.0, "intercept": -1.0}
THRESHOLD = {"kind": "threshold", "score": "-p_neg_sum", "p_below": 0.1, "p_above": 0.9}
ISOTONIC = {"kind": "isotonic", "score": "p_pos_sum", "scores": [0.4, 0.9], "probabilities": [0.0, 1.0]}
PROBE = {"kind": "probe", "weights": [[1.0, 0.0, 2.0]], "biases": [0.5]}
CLASSES = {"kind": "probe", "weights": [[5.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], "biases": [0.0, 0.0, 0.0]}


def result(*components: Component, **changes: Any) -> JobResult:
    identity = {"architecture": "a", "image_size": 32, "precision": "fp32", "crop_mode": "fast"}
    about: dict[str, Any] = {
        "model": ModelIdentity(weights_digest="sha256:w", **identity),
        "prompts": PromptSetIdentity(name="p", digest="sha256:p", positive=1, negative=1),
        "treatment": "original",
        "method": "softmax",
    }
    fields = {"job_id": "j", "state": "succeeded", "components": components, **about, **changes}
    return JobResult.model_validate(fields)


def component(**fields: Any) -> Component:
    return Component.model_validate({"id": "1", "index": 0, **SCORES, **fields})


def test_decisions_of_each_kind() -> None:
    mask = component()
    platt = HeadApplication(head(PLATT)).decide(mask, None)
    assert platt.p_keep == pytest.approx(1 / (1 + math.exp(-1.0)))
    assert platt.keep
    assert HeadApplication(head(THRESHOLD, threshold=-0.2)).decide(mask, None).fields() == {
        "p_keep": 0.9,
        "keep": True,
    }
    assert HeadApplication(head(THRESHOLD, threshold=-0.1)).decide(mask, None).p_keep == 0.1
    assert HeadApplication(head(ISOTONIC)).decide(mask, None).p_keep == pytest.approx(0.8)
    feature = np.array([0.6, 0.0, -0.8], np.float32)
    probe = HeadApplication(head(PROBE)).decide(mask, feature)
    assert probe.p_keep == pytest.approx(1 / (1 + math.exp(0.5)), abs=1e-3)
    assert not probe.keep


@pytest.mark.parametrize(("score", "p_keep"), [(0.1, 0.0), (0.4, 0.0), (0.65, 0.5), (0.9, 1.0), (1.0, 1.0)])
def test_isotonic_points_are_joined_by_lines_and_constant_outside(score: float, p_keep: float) -> None:
    decided = HeadApplication(head(ISOTONIC)).decide(component(p_pos_sum=score), None)
    assert decided.p_keep == pytest.approx(p_keep)


def test_a_head_by_class_names_the_most_probable_class_that_is_kept() -> None:
    by_class = head(CLASSES, classes=["nothing", "dog", "cat"], drop_classes=["nothing"])
    decided = HeadApplication(by_class).decide(component(), np.array([0.0, 0.0, 1.0], np.float32))
    e = math.e
    assert decided.head_class == "cat"
    assert decided.p_keep == pytest.approx(e / (e + 2))
    decided = HeadApplication(by_class).decide(component(), np.array([1.0, 0.0, 0.0], np.float32))
    assert decided.head_class == "dog"
    assert not decided.keep


def test_embeddings_of_a_result_decide_as_the_feature_does() -> None:
    features = np.random.default_rng(0).normal(size=3).astype(np.float32)
    embedding = base64.b64encode(features.astype("<f2").tobytes()).decode()
    application = HeadApplication(head(PROBE))
    of_result = application.of_result(result(component(embedding=embedding)), views="original").components[0]
    assert of_result.p_keep == application.decide(component(), features).p_keep
    with pytest.raises(HeadMismatch, match="rescore --head"):
        application.of_result(result(component()), views="original")


@pytest.mark.parametrize(
    ("model", "changes", "views", "named"),
    [
        (
            PLATT,
            {"prompts": PromptSetIdentity(name="p", digest="sha256:x", positive=1, negative=1)},
            "original",
            "prom",
        ),
        (PLATT, {"method": "cosine"}, "original", "method"),
        (PLATT, {}, "blur", "view"),
        (PROBE, {"model": None}, "original", "weights"),
    ],
)
def test_a_head_is_refused_where_masks_were_scored_otherwise(
    model: dict[str, Any], changes: dict[str, Any], views: str, named: str
) -> None:
    with pytest.raises(HeadMismatch, match=f"was fitted to the {named}") as caught:
        HeadApplication(head(model)).of_result(result(component(), **changes), views=views)
    assert caught.value.code == "head_mismatch"


def test_tables_of_results_have_the_decisions(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = Component.model_validate({"id": "9", "index": 1, "skipped": {"code": "empty_mask", "message": ""}})
    scored = result(component(id="7"), skipped)
    print_results([HeadApplication(head(PLATT)).of_result(scored, views="original"), scored], as_json=False)
    decided, plain = capsys.readouterr().out.split("\n\n")
    assert re.search(r"mask +p_keep +keep +mult .*\n7 +0\.\d{3} +(keep|drop) .*\n9 +skip", decided)
    assert "p_keep" not in plain
    named = result(component(p_keep=0.7, keep=True, head_class="dog"), head=head(PLATT).identity)
    print_results([named], as_json=False)
    assert re.search(r"p_keep +keep +class +mult .*\n\S+ +0\.700 +keep +dog ", capsys.readouterr().out)


def test_a_probe_holds_for_any_prompts_and_numbers_of_another_length_are_refused() -> None:
    application = HeadApplication(head(PROBE))
    with pytest.raises(HeadMismatch, match="embeddings of 3 numbers; the mask's has 4"):
        application.decide(component(), np.zeros(4, np.float32))
    assert application.head.prompts_digest is None


@pytest.mark.parametrize(
    "broken",
    [
        {"model": {**PROBE, "biases": [0.0, 1.0]}},
        {"model": {**PROBE, "weights": [[1.0], [2.0]], "biases": [0.0, 1.0]}},
        {"model": {**ISOTONIC, "scores": [0.9, 0.4]}},
        {"model": {**PLATT, "slope": float("nan")}},
        {"classes": ["a", "b"]},
        {"name": "../x"},
        {"method": None},
    ],
)
def test_what_is_no_head_is_refused(broken: dict[str, Any]) -> None:
    model = broken.pop("model", PLATT)
    with pytest.raises(ValidationError):
        head(model, **broken)


def test_files_of_heads(tmp_path: Path) -> None:
    made = head(PLATT)
    write_head(made, tmp_path / "keep-v1.json")
    assert find_head("keep-v1", tmp_path) == made
    assert [name for name, _ in head_files(tmp_path)] == ["keep-v1"]
    with pytest.raises(HeadUnknown, match=r"did you mean 'keep-v1'|keep-v1"):
        find_head("keep-v2", tmp_path)
    with pytest.raises(HeadUnknown, match="MASKSCORE_HEADS_DIR, the folder of heads with names, is not set"):
        find_head("keep-v1", None)
    (tmp_path / "bad.json").write_text((tmp_path / "keep-v1.json").read_text("utf-8")[:99], "utf-8")
    with pytest.raises(HeadInvalid, match=r"bad.json is not valid: Invalid JSON: EOF [^(]*$"):
        read_head(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(HeadInvalid, match="not valid"):
        read_head(tmp_path / "bad.json")
    with pytest.raises(HeadInvalid, match="cannot be read"):
        read_head(tmp_path / "none.json")


def test_heads_are_listed_shown_and_checked(tmp_path: Path) -> None:
    auroc = {"value": 0.9, "low": 0.8, "high": 0.95}
    write_head(head(PLATT, metrics={"auroc": auroc}, precision=0.95), tmp_path / "keep-v1.json")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(heads_command, arguments, env={"MASKSCORE_HEADS_DIR": str(tmp_path)})

    assert run("list").exit_code == 0
    assert re.search(r"keep-v1 +platt +0\.95 +original", run("list").stdout)
    assert json.loads(run("show", "keep-v1", "--json").stdout)["digest"] == head(PLATT).digest
    assert "0.900 (95 % interval by image: 0.800 to 0.950)" in run("show", str(tmp_path / "keep-v1.json")).stdout
    assert "a valid head of the kind platt" in run("check", "keep-v1").stderr
    with pytest.raises(HeadUnknown, match="MASKSCORE_HEADS_DIR, the folder of heads with names, is not set"):
        find_head("keep-v1", None)
    (tmp_path / "bad.json").write_text((tmp_path / "keep-v1.json").read_text("utf-8")[:99], "utf-8")
    with pytest.raises(HeadInvalid, match=r"bad.json is not valid: Invalid JSON: EOF [^(]*$"):
        read_head(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text("{}")
    listed = run("list", "--json")
    assert (listed.exit_code, json.loads(listed.stdout)["name"]) == (1, "keep-v1")
    assert "bad.json is not valid" in listed.stderr
    assert isinstance(run("check", "bad").exception, HeadInvalid)


def test_the_digest_is_of_what_decides_and_not_of_the_name() -> None:
    assert head(PLATT).digest == head(PLATT, name="other", metrics={}).digest
    assert head(PLATT).digest != head(PLATT, threshold=0.6).digest


def test_documents_without_a_head_are_what_they_were() -> None:
    assert "head" not in json.loads(ScoringOptions().model_dump_json())
    assert not {"p_keep", "keep", "head_class"} & json.loads(component().model_dump_json()).keys()
    assert "head" not in json.loads(result(component()).model_dump_json())


def test_a_selection_by_what_a_head_says() -> None:
    kept, dropped = component(p_keep=0.9, keep=True), component(p_keep=0.6, keep=False)
    assert Selection(keep=True).refused_by(dropped) == "keep"
    assert Selection(keep=True).refused_by(kept) is None
    assert Selection(min_p_keep=0.7).refused_by(dropped) == "min-p-keep"
    assert Selection(min_p_keep=0.6).refused_by(dropped) is None
    assert Selection(min_p_keep=0.1).refused_by(component()) == "min-p-keep"
    needing = Selection(keep=True), Selection(min_p_keep=0.1), Selection(ranking=Ranking({"p_keep": 1}))
    assert all(selection.needs_decisions for selection in needing)
    assert not Selection(ranking=Ranking({"p_keep": 0})).needs_decisions
    with pytest.raises(InvalidDocumentError, match="--min-p-keep is for it"):
        Selection(at_least={"p_keep": 0.5}).check_fields({}, [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("heads")


@pytest.fixture(scope="module")
def score(folder: Path) -> Any:
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    Image.fromarray(picture).save(folder / "a.png")
    with in_process_pipeline(file_roots=(folder,), heads_dir=folder) as pipeline:
        yield pipeline


def job(folder: Path, **options: Any) -> Job:
    square = [[5, 5, 40, 5, 40, 40, 5, 40]]
    masks = [{"id": "1", "segmentation": square}]
    return Job.model_validate(
        {"image": f"file://{folder}/a.png", "masks": masks, "options": {"prompts": "demo", **options}}
    )


def test_a_worker_decides_as_an_export_of_its_result_does(score: Score, folder: Path) -> None:
    plain = score(job(folder, embeddings=True))
    assert plain.model is not None
    feature = plain.components[0].embedding_vector()
    assert feature is not None
    weights = [np.random.default_rng(1).normal(size=len(feature)).tolist()]
    probe = head({"kind": "probe", "weights": weights, "biases": [0.0]}, weights_digest=plain.model.weights_digest)
    write_head(probe, folder / "probe-1.json")
    named, inline = score(job(folder, head="probe-1")), score(job(folder, head=probe))
    assert named.head == inline.head == probe.identity
    assert named.components == inline.components
    exported = HeadApplication(probe).of_result(plain, views="original").components[0]
    decided = named.components[0]
    assert (decided.p_keep, decided.keep) == (exported.p_keep, exported.keep)
    assert decided.embedding is None
    # Beside the specified scores, never instead.
    assert decided.model_dump(exclude={"p_keep", "keep"}) == plain.components[0].model_copy(
        update={"embedding": None}
    ).model_dump(exclude={"p_keep", "keep"})


def test_a_worker_refuses_heads_that_it_does_not_have_or_that_do_not_hold(score: Score, folder: Path) -> None:
    (folder / "broken.json").write_text("{")
    digest = load_builtin("demo").digest
    for named, code in (
        ("keep-v9", "head_unknown"),
        ("broken", "head_invalid"),
        (head(PLATT, prompts_digest=digest), "head_mismatch"),
    ):
        with pytest.raises(JobError) as caught:
            score(job(folder, head=named))
        assert caught.value.code == code
        assert not caught.value.transient
