"""Settings: their sources, errors about wrong ones, and the reference page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from maskscore import Client
from maskscore.cli.settings import settings_command, settings_markdown
from maskscore.errors import SettingsError
from maskscore.settings import ALL_FIELDS, ClientSettings, WorkerSettings, load_settings, unknown_variables


def test_the_page_of_settings_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    assert page.read_text("utf-8") == settings_markdown(), "run `make docs`"


def test_given_values_go_before_the_environment_and_that_before_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKSCORE_MAX_BATCH", "17")
    monkeypatch.setenv("MASKSCORE_CONCURRENCY", "9")
    monkeypatch.setenv("MASKSCORE_BUCKETS", "a, b,,c")
    monkeypatch.setenv("MASKSCORE_FILE_ROOTS", "")
    settings = load_settings(WorkerSettings, max_batch="3", device=None)
    assert (settings.max_batch, settings.concurrency, settings.device) == (3, 9, "auto")
    assert (settings.buckets, settings.file_roots) == (("a", "b", "c"), ())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_batch", "0", "MASKSCORE_MAX_BATCH: max_batch: Input should be greater"),
        ("crop_mode", "exact", "'fast' or 'reference'"),
        ("spill_uri", "s3://bucket", "MASKSCORE_SPILL_URI"),
    ],
)
def test_wrong_values_are_named(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(WorkerSettings, **{name: value})
    assert words in str(caught.value)


def test_misspelt_variables_are_found_and_kubernetes_own_are_not() -> None:
    environment = {
        "MASKSCORE_CONCURENCY": "8",
        "MASKSCORE_XYZ": "1",
        "MASKSCORE_REDIS_URL": "redis://x",
        "MASKSCORE_REDIS_SERVICE_HOST": "10.0.0.1",
        "MASKSCORE_REDIS_SERVICE_PORT": "6379",
        "MASKSCORE_REDIS_PORT": "tcp://10.0.0.1:6379",
        "MASKSCORE_REDIS_PORT_6379_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
    }
    assert unknown_variables(environment) == {"MASKSCORE_CONCURENCY": "MASKSCORE_CONCURRENCY", "MASKSCORE_XYZ": None}


def test_a_client_warns_of_a_misspelt_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKSCORE_REDIS_ULR", "redis://x")
    with pytest.warns(UserWarning, match="did you mean MASKSCORE_REDIS_URL"):
        Client(redis_url="redis://127.0.0.1:1").close()


def test_a_url_that_cannot_be_used_is_not_shown_with_its_password() -> None:
    with pytest.raises(SettingsError, match="MASKSCORE_REDIS_URL") as caught:
        Client(ClientSettings(redis_url="http://user:secret@host"))
    assert "secret" not in str(caught.value)


def test_the_command_shows_what_is_set_and_no_secret() -> None:
    environment = {
        "MASKSCORE_REDIS_URL": "redis://:hunter2@there:6379/3",
        "MASKSCORE_GATEWAY_TOKENS": "a=hunter2hunter2hunter2hunter2hunter2",
        "MASKSCORE_MAX_BATCH": "7",
        "MASKSCORE_BUCKETS": "",
    }
    shown = CliRunner(env=environment).invoke(settings_command, ["--json"])
    rows = {row["variable"]: row for row in map(json.loads, shown.stdout.splitlines())}
    assert shown.exit_code == 0, shown.output
    assert rows.keys() == {f"MASKSCORE_{name.upper()}" for name in ALL_FIELDS}
    assert (rows["MASKSCORE_MAX_BATCH"]["value"], rows["MASKSCORE_MAX_BATCH"]["from"]) == ("7", "environment")
    assert (rows["MASKSCORE_BUCKETS"]["value"], rows["MASKSCORE_BUCKETS"]["from"]) == ("unset", "default")
    assert rows["MASKSCORE_REDIS_URL"]["value"] == "redis://there:6379/3"
    assert rows["MASKSCORE_GATEWAY_TOKENS"]["value"] == "***"
    table = CliRunner(env={**environment, "COLUMNS": "100"}).invoke(settings_command, ["--set"]).output
    assert "set to 7" in " ".join(table.split())
    assert "MASKSCORE_MAX_MASKS" not in table
    assert "hunter2" not in shown.output + table


def test_the_command_says_which_value_cannot_be_used() -> None:
    wrong = CliRunner(env={"MASKSCORE_MAX_BATCH": "many", "MASKSCORE_BUKETS": "a"}).invoke(settings_command, [])
    assert wrong.exit_code == 2
    assert "MASKSCORE_MAX_BATCH: " in wrong.stderr
    assert "MASKSCORE_BUKETS is set but is no setting; did you mean MASKSCORE_BUCKETS?" in wrong.stderr
