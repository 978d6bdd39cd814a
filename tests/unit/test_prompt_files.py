"""Errors in prompt files are reported in plain words, with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import run_command
from maskscore.errors import InvalidDocumentError, JobError
from maskscore.prompts import read_prompt_set
from maskscore_worker.features.prompt_sets import resolve_prompt_set

WHOLE = "name: own\npositive:\n- a dog\nnegative:\n- sky\n"

WRONG = {
    "a misspelt field": (WHOLE.replace("positive:", "positives:"), ["line 2", "did you mean `positive`?"]),
    "a field of no likeness": (WHOLE + "colour: red\n", ["line 6", "`colour`", "sentences"]),
    "a missing field": (WHOLE.replace("negative:\n- sky\n", ""), ["`negative` is missing"]),
    "a field twice": (WHOLE + "positive:\n- a cat\n", ["line 6", "`positive`", "line 2"]),
    "a number": (WHOLE.replace("- a dog", "- 1984"), ["line 3", "reads as a number", "quotes"]),
    "no, which is false": (WHOLE.replace("- sky", "- no"), ["line 5", "true or false", "quotes"]),
    "nothing": (WHOLE.replace("- sky", "- "), ["line 5", "reads as nothing"]),
    "a colon": (WHOLE.replace("- sky", "- sky: blue"), ["line 5", "`sky: ...`", "colon"]),
    "two colons": (WHOLE.replace("- sky", "- sky: a: b"), ["line 5", "quotes"]),
    "one text": (WHOLE.replace("positive:\n- a dog", "positive: a dog"), ["line 2", "`- TEXT`"]),
    "an empty group": (WHOLE.replace("positive:\n- a dog", "positive: []"), ["line 2", "`positive`"]),
    "a blank": (WHOLE.replace("- sky", "- ' '"), ["line 4", "blank"]),
    "a prompt twice": (WHOLE + "- a dog\n", ["'a dog'", "more than once", "lines 3 and 6"]),
    "a name with spaces": (WHOLE.replace("own", "my own"), ["line 1", "`name`"]),
    "a tab": (WHOLE.replace("- sky", "\t- sky"), ["line 5"]),
    "an open bracket": ("name: [own\n", ["line 2"]),
    "an open quote": (WHOLE.replace("- sky", '- "sky'), ["not closed"]),
    "a list": ("- a dog\n- sky\n", ["a list", "`name`, `positive` and `negative`"]),
    "nothing at all": ("", ["empty"]),
    "deep": ("positive: " + "[" * 5000 + "]" * 5000, ["nested too deep"]),
    "deep mappings": ("".join(" " * n + "a:\n" for n in range(1500)), ["nested too deep"]),
    "itself": ("name: own\npositive: &a\n- *a\nnegative:\n- sky\n", ["line 2", "`positive`"]),
    "a date that is none": (WHOLE.replace("- sky", "- 2026-13-45"), ["quotes"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_by_its_line(case: str, tmp_path: Path) -> None:
    text, words = WRONG[case]
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(InvalidDocumentError) as caught:
        read_prompt_set(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(WHOLE.encode() + b"- caf\xe9\n")
    (tmp_path / "marked.yaml").write_bytes(b"\xef\xbb\xbf" + WHOLE.encode())
    for name, word in (("folder", "is a folder"), ("latin", "line 6 has the byte 0xe9"), ("nope", "no such file")):
        with pytest.raises(InvalidDocumentError, match=word):
            read_prompt_set(tmp_path / f"{name}.yaml")
    # What Windows' editors put at the start.
    assert read_prompt_set(tmp_path / "marked.yaml").name == "own"


def test_a_worker_answers_with_a_code_and_not_with_an_internal_error(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    (tmp_path / "deep.yaml").write_text("[" * 5000)
    for name in ("folder", "latin", "deep"):
        with pytest.raises(JobError) as caught:
            resolve_prompt_set(name, tmp_path)
        assert caught.value.code == "prompts_invalid"
    with pytest.raises(JobError, match="did you mean `default`") as caught:
        resolve_prompt_set("defualt", tmp_path)
    assert caught.value.code == "prompt_set_unknown"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "."),
        ("submit", "--image", "a.png", "--masks", "a.json"),
        ("compare", "a.png", "--masks", "a.json"),
        ("rescore", "batch"),
        ("eval", "coco.json", "--images", "."),
        ("prompts", "check"),
    ],
)
def test_every_command_says_which_file_it_cannot_read(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}], "categories": [{"id": 1, "name": "a"}],'
        '"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]}]}'
    )
    option = [] if arguments[0] == "prompts" else ["--prompts"]
    nowhere = {"MASKSCORE_REDIS_URL": "redis://127.0.0.1:9/0"}
    ran = run_command(*arguments, *option, "nope.yaml", environment=nowhere, folder=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "The prompt set nope.yaml cannot be read: there is no such file." in ran.stderr
    assert "Traceback" not in ran.stderr
