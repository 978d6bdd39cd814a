"""Checks of prompt sets before they are used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from command_line import run_command
from maskscore.cli.prompts import prompts_command
from maskscore.prompts import builtin_names, load_builtin
from maskscore.prompts.prompt_checks import check_prompts, find_repeated, find_too_long, weigh
from maskscore.prompts.prompt_tokens import TokenCounter, token_counter
from maskscore.schema.job import Thresholds
from maskscore.schema.prompt_set import PromptSet


def run(*arguments: str, folder: Path | None = None) -> Result:
    environment = {"MASKSCORE_PROMPTS_DIR": str(folder) if folder else None, "MASKSCORE_MODEL": None}
    return CliRunner(env=environment).invoke(prompts_command, arguments)


def write(folder: Path, name: str, **fields: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "positive": ["a dog"], "negative": ["sky"], **fields}))
    return path


WORDS = TokenCounter(5, lambda text: len(text.split()))


def test_repeated_prompts_are_found_within_groups_and_across() -> None:
    problems = find_repeated(
        {
            "positive": ["a dog", "a cat", "a dog", "A  Cat", "an owl", "  "],
            "negative": ["sky", "the owl", "a sky", "owls"],
            "neutral": ["a"],
        }
    )
    assert [(problem.code, problem.prompts) for problem in problems] == [
        ("blank", ()),
        ("repeated", ("a dog", "a dog")),
        ("repeated_but_for_case", ("a cat", "A  Cat")),
        ("repeated_but_for_article", ("an owl", "the owl")),
        ("repeated_but_for_article", ("sky", "a sky")),
    ]
    assert "2 times among the positives." in problems[1].sentence
    assert "'an owl', 'the owl', among the positives and negatives" in problems[3].sentence


def test_prompts_over_the_context_are_found() -> None:
    (problem,) = find_too_long(["one two three four five", "one two three four five six"], WORDS)
    assert (problem.code, problem.sentence) == (
        "too_long",
        "'one two three four five six' has 6 tokens; at most 5 fit.",
    )


def test_of_a_prompt_with_sentences_the_sentences_are_measured() -> None:
    fields = {"name": "x", "positive": ["a b"], "negative": ["c"], "templates": ["one two three four {}", "a {}"]}
    assert [problem.prompts for problem in check_prompts(fields, WORDS)] == [("one two three four a b",)]
    own = {"a b": ["one two three four five six"], "c": ["c"]}
    (problem,) = check_prompts({**fields, "sentences": own}, WORDS)
    assert problem.prompts == ("one two three four five six",)


def test_what_else_is_wrong_is_told_once() -> None:
    assert check_prompts({"name": "x", "positive": ["a"], "negative": ["b"]}, WORDS) == []
    fields = {"name": "x", "positive": ["a", "a"], "negative": ["b"]}
    assert [problem.code for problem in check_prompts(fields, WORDS)] == ["repeated"]
    fields = {"name": "x", "positive": ["a"], "negative": [], "colour": "red"}
    (problem,) = check_prompts(fields, WORDS)
    assert (problem.code, "negative" in problem.sentence, "colour" in problem.sentence) == ("invalid", True, True)
    assert [p.code for p in check_prompts({"name": "x", "positive": [1], "negative": "b"}, WORDS)] == ["invalid"]


def test_tokens_are_counted_as_the_model_counts_them() -> None:
    """77 fit: a start, 75 words of one token, an end."""
    counter = token_counter("ViT-B-32")
    assert (counter.context_length, counter.why_estimated) == (77, None)
    fits = " ".join(["dog"] * 75)
    assert [counter.count(fits), counter.count(fits + " dog")] == [77, 78]
    elsewhere = token_counter("ViT-B-16-SigLIP")
    assert elsewhere.context_length == 64
    assert elsewhere.why_estimated is not None


def test_the_estimate_is_near_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = token_counter("ViT-B-32").count
    monkeypatch.setitem(sys.modules, "open_clip", None)
    monkeypatch.delitem(sys.modules, "maskscore_worker.model.tokens", raising=False)
    estimate = token_counter("ViT-B-32")
    assert estimate.why_estimated == "open_clip is not installed here"
    texts = load_builtin("default").texts
    assert sum(map(estimate.count, texts)) == pytest.approx(sum(map(counted, texts)), rel=0.1)


def test_the_light_half_needs_no_torch_for_it() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "import maskscore.cli.prompts, maskscore.prompts.prompt_checks, maskscore.export\n"
        "assert 'maskscore_worker' not in sys.modules and 'open_clip' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("sizes", "pos", "multiplier"), [((80, 10), 8 / 9, 2.0), ((5, 5), 0.5, 1.0), ((3, 7), 0.3, 0.1)]
)
def test_sums_of_equal_similarities_follow_from_the_numbers(
    sizes: tuple[int, int], pos: float, multiplier: float
) -> None:
    balance = weigh(*sizes)
    assert [balance.p_pos_sum, balance.p_neg_sum] == pytest.approx([pos, 1 - pos])
    assert balance.multiplier == multiplier
    assert (balance.thresholds is None) == (sizes == (5, 5))


def test_neutrals_are_in_neither_sum() -> None:
    balance = weigh(4, 4, 2)
    assert (balance.p_pos_sum, balance.p_neg_sum, balance.multiplier) == (0.4, 0.4, 0.5)
    assert balance.thresholds is None


def test_the_thresholds_make_up_for_the_numbers() -> None:
    """A group of eight times as many equally similar prompts, judged by them, is judged as one of equal size."""
    moved = weigh(80, 10).thresholds
    assert moved is not None
    for mean in (0.05, 0.25, 0.39, 0.41, 0.55, 0.69, 0.71, 0.79, 0.81, 0.95):
        crowded = 80 * mean / (80 * mean + 10 * (1 - mean))
        assert moved.multiplier(crowded, 1 - crowded) == Thresholds().multiplier(mean, 1 - mean)


@pytest.mark.parametrize("name", builtin_names())
def test_the_built_in_sets_have_nothing_to_correct(name: str) -> None:
    done = run("check", name)
    assert (done.exit_code, "nothing to correct" in done.output) == (0, True)
    shown = run("show", name)
    again = PromptSet.model_validate(yaml.safe_load(shown.output))
    assert again == load_builtin(name)
    assert json.loads(run("show", name, "--json").output)["digest"] == again.digest


def test_check_says_what_the_numbers_mean(tmp_path: Path) -> None:
    path = write(
        tmp_path, "crowd", positive=[f"thing {n}" for n in range(80)], negative=[f"stuff {n}" for n in range(10)]
    )
    said = run("check", str(path))
    assert said.exit_code == 0
    flat = " ".join(said.output.split())
    assert "p_pos_sum 0.89 and p_neg_sum 0.11, which is the multiplier 2." in flat
    assert "2.08 in the logits (0.0208 in cosine" in flat
    assert (
        "--thresholds reject_neg_sum=0.1111,strong_pos_sum=0.9492,strong_neg_sum=0.0303,accept_pos_sum=0.8421" in flat
    )
    balance = json.loads(run("check", str(path), "--json").output)["balance"]
    assert (balance["multiplier"], balance["odds"]) == (2.0, 8.0)


def test_exit_codes_are_for_scripts(tmp_path: Path) -> None:
    wrong = write(tmp_path, "twice", positive=["a dog", "A dog", "x " * 90])
    done = run("check", str(wrong), "--json")
    assert done.exit_code == 1
    assert [problem["code"] for problem in json.loads(done.output)["problems"]] == ["repeated_but_for_case", "too_long"]
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "broken.yaml").write_text("name: [")
    for name in ("list.yaml", "broken.yaml", "nothing.yaml", "no-such-set"):
        refused = run_command("prompts", "check", name, folder=tmp_path)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "Traceback" not in refused.stderr


def test_the_folder_goes_before_what_is_built_in(tmp_path: Path) -> None:
    write(tmp_path, "demo", version=7)
    write(tmp_path, "mine", neutral=["a blur"])
    rows = [json.loads(line) for line in run("list", "--json", folder=tmp_path).output.splitlines()]
    assert [(row["name"], row["version"], row["path"]) for row in rows] == [
        ("default", 1, None),
        ("demo", 7, str(tmp_path / "demo.yaml")),
        ("mine", 1, str(tmp_path / "mine.yaml")),
    ]
    assert (rows[2]["positive"], rows[2]["negative"], rows[2]["neutral"]) == (1, 1, 1)
    assert "sky" in run("show", "mine", folder=tmp_path).output
    write(tmp_path, "spoiled", positive=[])
    done = run("list", folder=tmp_path)
    assert done.exit_code == 1
    assert "mine" in done.output
    assert "spoiled" in done.output
