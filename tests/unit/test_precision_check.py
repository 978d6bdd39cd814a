"""``weights check`` measures the precisions of a device with a folder's weights, and says what is stepped down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import run_command
from maskscore.doctor import Verdict
from maskscore.errors import SettingsError
from maskscore.prompts import load_builtin
from maskscore.settings import WorkerSettings
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from maskscore_worker.inputs import photos_in
from maskscore_worker.model import precisions_of
from maskscore_worker.model.split_product import can_split
from maskscore_worker.monitoring import doctor_checks
from maskscore_worker.pipeline import fast_path, precision_check
from maskscore_worker.pipeline.precision_check import compare_scores, measure_precisions
from maskscore_worker.pipeline.probe_crops import PROBE_VIEWS

SETTINGS = WorkerSettings(weights=DEMO_WEIGHTS, prompts="demo", device="cpu")
ENVIRONMENT = {"MASKSCORE_DEVICE": "cpu", "MASKSCORE_PROMPTS": "demo", "COLUMNS": "80"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(draw_scene(7).image).save(folder / "a.png")
    (folder / "notes.txt").write_text("no photo")
    return folder


def test_precisions_are_measured_on_the_photos_of_a_folder(photos: Path) -> None:
    checked = run_command(
        *("weights", "check", str(DEMO_WEIGHTS), "--precision", "--images", str(photos), "--json"),
        environment=ENVIRONMENT,
    )
    assert checked.returncode == 0, checked.stderr
    report = json.loads(checked.stdout)
    assert (report["stepped_down"], report["device"]) == ({}, "cpu")
    measured = report["precisions"]
    assert measured["photos"] == f"1 photo of {photos}"
    assert measured["crops"] > 0
    assert measured["crops"] % len(PROBE_VIEWS) == 0
    exact, *between, coarse = measured["precisions"]
    assert [row["precision"] for row in between] == ["mixed"] * can_split()
    for row in between:
        finer = (row["differences"][0]["largest"], coarse["differences"][0]["largest"])
        assert 0 <= finer[0] < finer[1]
    assert (exact["precision"], exact["differences"]) == ("fp32", [])
    assert (coarse["precision"], coarse["served"], coarse["why"]) == ("bf16", "bf16", "")
    own, clips = coarse["differences"]
    assert (round(own["logit_scale"]), clips["logit_scale"]) == (16, 100)
    for found in (own, clips):
        assert 0 < found["largest"] < 0.5
        assert measured["crops"] >= found["above_0_01"] >= found["above_0_03"] >= 0


def test_the_table_fits_a_terminal_and_names_what_is_served_instead(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fast_path.TOLERANCE, "bf16", 1e-6)
    folder, images = str(DEMO_WEIGHTS), str(photos)
    checked = run_command("weights", "check", folder, "--precision", "--images", images, environment=ENVIRONMENT)
    assert checked.returncode == 0, checked.stderr
    assert "fast path          on cpu, its values are those of the plain path\n" in checked.stdout
    table = checked.stdout.split("\n\n")[1]
    assert max(map(len, table.splitlines())) <= 80
    # Written over several lines.
    assert "bf16 is served as fp32: in bf16, features differ" in " ".join(table.split())


def test_photos_are_skimages_else_a_drawn_picture_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "of scikit-image" in precision_check._photos(None)[0]
    monkeypatch.setattr(precision_check, "find_spec", lambda _: None)
    source, pictures = precision_check._photos(None)
    assert "not installed" in source
    regions = list(precision_check._regions(pictures[0]))
    assert len(regions) == 20
    for region in regions:
        x, y, width, height = region.box
        assert x + width <= pictures[0].shape[1]
        assert y + height <= pictures[0].shape[0]
        assert region.bits.any()


def test_every_prompt_is_compared_however_many_a_set_has() -> None:
    prompts = load_builtin(WorkerSettings().prompts)
    texts = np.eye(len(prompts.texts), dtype=np.float32)
    first, last = texts[:1], texts[[len(prompts.positive)]]
    assert len(texts) > 100
    same, other = (
        compare_scores(np.concatenate([first, first]), np.concatenate(ours), texts, prompts, logit_scale=100)
        for ours in ((first, first), (first, last))
    )
    assert (same.largest, same.above_0_01, same.multipliers) == (0, 0, 0)
    assert other.largest > 0.99
    assert (other.above_0_01, other.above_0_03, other.multipliers) == (1, 1, 1)


def test_a_folder_without_images_and_images_without_precision_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="photos"):
        photos_in(tmp_path)
    alone = run_command("weights", "check", str(DEMO_WEIGHTS), "--images", str(tmp_path), environment=ENVIRONMENT)
    assert (alone.returncode, "--precision" in alone.stderr) == (2, True)


def test_what_is_stepped_down_is_a_line_a_warning_and_doctors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fast_path.TOLERANCE, "bf16", 1e-6)
    environment = {**ENVIRONMENT, "MASKSCORE_PRECISION": "bf16"}
    checked = run_command("weights", "check", str(DEMO_WEIGHTS), environment=environment)
    assert checked.returncode == 0
    assert "fast path          on cpu, stepped down in precision\n" in checked.stdout
    assert "warning: precision: the plain path is taken: in bf16, features differ" in checked.stderr
    deployment: Any = type("Deployment", (), {"settings": SETTINGS.model_copy(update={"precision": "bf16"})})
    finding = list(doctor_checks.EXAMINATIONS["weights"](deployment))[-1]
    assert (finding.name, finding.verdict) == ("fast path", Verdict.WARNING)
    assert "precision: in bf16" in finding.sentence


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_fp16_is_measured_and_nearer_than_bf16() -> None:
    assert precisions_of(torch.device("cuda")) == ("fp32", "fp16", "bf16")
    report = measure_precisions(SETTINGS.model_copy(update={"device": "cuda"}), None)
    exact, half, coarse = report.precisions
    assert [row.served for row in report.precisions] == ["fp32", "fp16", "bf16"]
    assert exact.differences == ()
    assert np.all([a.largest < b.largest for a, b in zip(half.differences, coarse.differences, strict=True)])
