"""The command line without services: help, wrong input, exit codes, and the modules that it does not import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import run_command, without_settings
from maskscore.cli import progress
from maskscore.cli.exit_codes import Exit, exit_code_of
from maskscore.cli.progress import shown_progress
from maskscore.errors import FailureCode, JobError, MaskscoreError, SettingsError
from maskscore.settings import WorkerSettings

NOWHERE = "redis://user:secret@127.0.0.1:1/0"
# All of them, written down: one that is gone fails a test.
COMMANDS = [
    "batch",
    "cancel",
    "compare",
    "dead",
    "doctor",
    "eval",
    "export",
    "exporter",
    "gateway",
    "metrics",
    "plan",
    "pool",
    "prompts",
    "report",
    "rescore",
    "results",
    "run",
    "settings",
    "status",
    "submit",
    "top",
    "up",
    "wait",
    "weights",
    "worker",
]


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, stdin=stdin, environment={**without_settings(), **environment})


def run_code(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in an interpreter of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MASKSCORE_")}
    return subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=False)


def test_help_names_the_commands_and_the_exit_codes() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for command in COMMANDS:
        assert f"\n  {command}" in shown.stdout
    for code in Exit:
        assert f"{code.value:>3}  {code.meaning[:20]}" in shown.stdout
    assert run("--version").stdout.startswith("maskscore, version ")


def test_the_workers_help_explains_every_setting() -> None:
    shown = " ".join(run("worker", "--help").stdout.split())
    for name in WorkerSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in shown
        assert f"MASKSCORE_{name.upper()}" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    shown = run(command, "--help")
    assert (shown.returncode, max(map(len, shown.stdout.splitlines())) <= 80) == (0, True)


def test_importing_maskscore_loads_nothing_heavy() -> None:
    loaded = run_code("import sys; from maskscore import Client; print(*sys.modules)").stdout.split()
    assert "maskscore.client.sync_client" in loaded
    assert {"torch", "numpy", "open_clip", "fastapi", "maskscore_worker"}.isdisjoint(loaded)
    times = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from maskscore import Client"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "maskscore.client.sync_client" in times.stderr
    assert "torch" not in times.stderr


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("torch", "worker", "worker"),
        ("open_clip", "up", "worker"),
        ("torch", "pool", "worker"),
        ("huggingface_hub", "weights pull x", "worker"),
        ("PIL", "report x", "report"),
        ("sklearn", "fit x --judged y.csv -o z.json", "fit"),
        ("prometheus_client", "exporter", "metrics"),
        ("fastapi", "gateway", "gateway"),
        ("uvicorn", "gateway", "gateway"),
    ],
)
def test_a_missing_half_is_said_with_the_line_to_type(missing: str, command: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {command.split()!r}\n"
        "from maskscore.cli import main; main()"
    )
    ran = run_code(code)
    assert ran.returncode == 2
    assert f'pip install "maskscore[{extra}]"' in ran.stderr
    assert "Traceback" not in ran.stderr


JOB = '{"image": "s3://b/i.jpg", "masks": "s3://b/m.json"}\n'


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["submit"], "", "either FILEs"),
        (["submit", "--image", "s3://b/i.jpg"], "", "both --image and --masks"),
        (["submit", "x.jsonl", "--alpha", "0.5"], "", "in the documents"),
        (["submit", "nothing.json"], "", "no file nothing.json"),
        (["submit", "-"], '{"image": 1}\n', "standard input, line 1"),
        (["submit", "jobs.jsonl"], "", "jobs.jsonl, line 3: The job document is not valid"),
        (["submit", "--image", "i.jpg", "--masks", "m.txt"], "", "no masks file m.txt"),
        (["submit", "--image", "i.jpg", "--masks", "s3://b/m", "--alpha", "7"], "", "options.alpha"),
        (["submit", "--image", "i.jpg", "--masks", "s3://b/m", "--treatment", "smear"], "", "smear"),
        (["submit", "--image", "i.jpg", "--masks", "s3://b/m", "--frame", "stretch"], "", "stretch"),
        (["submit", "--image", "i.jpg", "--masks", "s3://b/m", "--average-with", "blur/x"], "", "The view 'blur/x'"),
        (["submit", "--image", "i.jpg", "--masks", "s3://b/m", "--average-with", "original"], "", "more than once"),
        (["status"], "", "BATCH|JOB"),
        (["status", "-"], "", "no job ids"),
        (["worker"], "", "MASKSCORE_WEIGHTS"),
        (["worker", "--max-batch", "0"], "", "MASKSCORE_MAX_BATCH"),
        (["pool", "--workers", "2", "--devices", "cpu"], "", "either --devices or --workers"),
        (["pool", "--workers", "2", "--min", "3"], "", "--min 3 and --max 2"),
        (["pool", "--devices", "gpu:0"], "", "'gpu:0' is no device"),
        (["pool", "--workers", "1", "--model", "siglip"], "", "write NAME=DIR"),
        (["pool", "--workers", "1", "--model", "a=demo", "--model", "a=x"], "", "given twice"),
        (["pool", "--workers", "1", "--model", "a=demo", "--weights", "x"], "", "either --weights or --model"),
        (["pool", "--workers", "1", "--model", "a=nowhere"], "", "nowhere is not a folder"),
        (["up", "--model", "default=x"], "", "that of --weights is default"),
        (["up", "--model", "a:b=x"], "", "MASKSCORE_MODEL_NAME"),
        (["up", "--model", "a=nowhere"], "", "there is no such folder"),
        (["plan", "--images", "5", "--masks-per-image", "2"], "", "--masks-per-s"),
        (["gateway", "--host", "0.0.0.0"], "", "without any token"),
        (["gateway", "--tokens-file", "nothing"], "", "nothing cannot be read"),
        (["fly"], "", "fly"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], stdin: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.jsonl").write_text(JOB + "\n" + JOB.replace("masks", "maks"))
    ran = run(*arguments, stdin=stdin, MASKSCORE_REDIS_URL=NOWHERE, MASKSCORE_REDIS_TIMEOUT_S="1")
    if arguments == ["worker"]:
        # Redis is looked for before anything is loaded; without it there is nothing to work for.
        assert ran.returncode == 4
        return
    assert (ran.returncode, "Traceback" in ran.stderr) == (2, False), ran.stderr
    assert words in ran.stderr


@pytest.mark.parametrize(
    "arguments", [["status", "x"], ["results", "x"], ["submit", "-"], ["worker", "--weights", "."]]
)
def test_a_redis_that_does_not_answer_is_exit_code_4(arguments: list[str]) -> None:
    ran = run(*arguments, stdin=JOB, MASKSCORE_REDIS_URL=NOWHERE, MASKSCORE_REDIS_TIMEOUT_S="1")
    assert (ran.returncode, "Traceback" in ran.stderr) == (4, False), ran.stderr
    assert "127.0.0.1:1" in ran.stderr
    assert "secret" not in ran.stderr


def test_a_misspelt_variable_is_a_warning_for_a_producer() -> None:
    ran = run("status", "x", MASKSCORE_REDIS_ULR="x", MASKSCORE_REDIS_URL=NOWHERE, MASKSCORE_REDIS_TIMEOUT_S="1")
    assert (
        "warning: MASKSCORE_REDIS_ULR is set but is no setting of maskscore; did you mean MASKSCORE_REDIS_URL?"
        in ran.stderr
    )


def test_errors_have_their_exit_codes() -> None:
    assert exit_code_of(JobError(FailureCode.STORAGE_UNAVAILABLE, "")) is Exit.UNAVAILABLE
    assert exit_code_of(SettingsError("")) is Exit.WRONG_INPUT
    assert exit_code_of(MaskscoreError("")) is Exit.NOT_SUCCEEDED
    assert exit_code_of(ValueError("")) is None


def test_progress_off_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(shown_progress(range(3), 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    # What this process does itself is said at once.
    assert list(shown_progress(range(1200), 1200, doing="drawing")) == list(range(1200))
    assert capsys.readouterr().err == "maskscore: drawing 1,200 jobs\n"
    monkeypatch.setattr(progress, "_PLAIN_EVERY_S", 0.0)
    assert list(shown_progress(range(2), 2, doing="drawing")) == [0, 1]
    assert capsys.readouterr().err.splitlines()[1:] == [
        "maskscore: drawing: 1 of 2 jobs",
        "maskscore: drawing: 2 of 2 jobs",
    ]


@pytest.mark.parametrize("content", [bytes(range(256)), b"[" * 100_000, b""], ids=["binary", "deep", "empty"])
@pytest.mark.parametrize(
    "command",
    [
        ["submit"],
        ["eval", "--images", "."],
        ["plan", "--images", "9", "--rates"],
        ["prompts", "check"],
    ],
    ids=lambda command: command[0],
)
def test_a_file_that_is_none_of_a_commands_is_one_sentence(command: list[str], content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "given.yaml"
    path.write_bytes(content)
    ran = run(*command, str(path), MASKSCORE_REDIS_URL=NOWHERE)
    # No line at all is no wrong line: what writes job documents may have had none.
    nothing = command == ["submit"] and not content
    assert (ran.returncode, "Traceback" in ran.stderr) == (0 if nothing else 2, False), ran.stderr
    assert ("0 jobs submitted" in ran.stderr) == nothing
    assert ran.stderr.strip()


def test_eval_says_where_parts_are_named(tmp_path: Path) -> None:
    for place in (str(tmp_path), "s3://scores/run-1/"):
        ran = run("eval", place, "--images", ".")
        assert (ran.returncode, "measured by --scores" in " ".join(ran.stderr.split())) == (2, True), ran.stderr


def test_an_evaluation_asks_first_whether_its_picture_can_be_written(tmp_path: Path) -> None:
    ran = run("eval", "none.json", "--images", ".", "--svg", str(tmp_path / "none" / "a.svg"))
    assert (ran.returncode, "There is no folder" in ran.stderr) == (2, True), ran.stderr


def test_the_page_lists_the_exit_codes_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `(\d+)` \| (.+) \|$", page, flags=re.MULTILINE))
    assert listed == {str(code.value): code.meaning for code in Exit}
