"""The demo model is recognised by its weights, and prompts that it does not know are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import run_command, without_settings
from maskscore.cli.worker import with_demo_model
from maskscore.prompts import load_builtin
from maskscore.prompts.demo_model import DEMO_DIGEST, demo_warning
from maskscore.schema.prompt_set import PromptSet
from maskscore.settings import WorkerSettings
from maskscore_worker.demo import train
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.pipeline import check_weights
from maskscore_worker.weights import CONFIG_FILE, digest_of

OTHER = "sha256:" + "0" * 64


def test_its_digest_is_that_of_its_weights() -> None:
    assert digest_of(DEMO_WEIGHTS / "open_clip_model.safetensors") == DEMO_DIGEST


def test_it_can_be_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_accuracy", lambda *_: 0.0)  # over hundreds of crops
    train.train(tmp_path, scenes=1, epochs=1, seed=1)
    assert check_weights(WorkerSettings(weights=tmp_path, device="cpu")).details["stored_as"] == "float16"
    assert (tmp_path / CONFIG_FILE).read_text("utf-8") == (DEMO_WEIGHTS / CONFIG_FILE).read_text("utf-8")


def test_what_it_does_not_know_is_said_where_that_can_be_known() -> None:
    demo = load_builtin("demo")
    some = PromptSet(name="some", positive=demo.positive[:3], negative=demo.negative[:2])
    dogs = PromptSet(name="dogs", positive=("a dog",), negative=("sky",))
    for prompts in ("default", dogs):
        assert "knows drawn shapes only" in str(demo_warning(prompts, [DEMO_DIGEST, DEMO_DIGEST]))
    for prompts in ("demo", demo, some, "a-set-of-the-workers"):
        assert demo_warning(prompts, [DEMO_DIGEST]) is None
    for digests in ([], [OTHER], [OTHER, DEMO_DIGEST]):
        assert demo_warning("default", digests) is None


def test_weights_of_the_name_demo_are_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = with_demo_model(WorkerSettings(weights=Path("demo")))
    assert (settings.weights, settings.prompts) == (DEMO_WEIGHTS, "demo")
    assert with_demo_model(WorkerSettings(weights=Path("demo"), prompts="own")).prompts == "own"
    (tmp_path / "demo").mkdir()
    assert with_demo_model(WorkerSettings(weights=Path("demo"))).weights == Path("demo")
    assert with_demo_model(WorkerSettings()).weights is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "No weights are set. Give their folder with --weights or MASKSCORE_WEIGHTS; "),
        (["--weights", "missing"], "missing is not a folder. Fetch some with `maskscore weights pull missing`."),
        (["--weights", "."], ". holds no weights. Fetch some with `maskscore weights pull .`."),
    ],
)
def test_a_pool_without_weights_says_so_once(tmp_path: Path, options: list[str], sentence: str) -> None:
    environment = {**without_settings(), "MASKSCORE_REDIS_URL": "redis://127.0.0.1:1/0"}
    ran = run_command("pool", "--workers", "1", *options, environment=environment, folder=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.count(sentence) == 1
