"""Commands that submit jobs have an option for each field of the scoring options."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from maskscore import ScoringOptions
from maskscore.cli.compare import compare_command
from maskscore.cli.rescore import rescore_command
from maskscore.cli.run import run_command
from maskscore.cli.shared_options import taken_scoring
from maskscore.cli.submit import submit_command
from maskscore.client.rescore import ScoringChanges


def options(command: click.Command) -> dict[str | None, click.Parameter]:
    return {option.name: option for option in command.params}


@pytest.mark.parametrize("command", [submit_command, run_command])
def test_there_is_an_option_for_every_field(command: click.Command) -> None:
    assert ScoringOptions.model_fields.keys() <= options(command).keys()


@pytest.mark.parametrize("command", [submit_command, run_command, rescore_command, compare_command])
def test_what_is_asked_otherwise_is_asked_alike_everywhere(command: click.Command) -> None:
    ours = options(command)
    for name in (*ScoringChanges.__dataclass_fields__, "min_area", "split_components"):
        if name in ours:
            assert ours[name].to_info_dict() == options(submit_command)[name].to_info_dict()
    assert {"prompts", "thresholds"} <= ours.keys()


def given(*arguments: str) -> dict[str, Any]:
    context = submit_command.make_context("submit", ["--image", "a", "--masks", "b", *arguments])
    return taken_scoring(dict(context.params))


def test_thresholds_that_are_not_given_stay_what_they_are() -> None:
    scoring = ScoringOptions.model_validate(given("--thresholds", "reject_neg_sum=0.6, strong_pos_sum=0.8"))
    assert scoring.thresholds.model_dump() == {
        "reject_neg_sum": 0.6,
        "strong_pos_sum": 0.8,
        "strong_neg_sum": 0.2,
        "accept_pos_sum": 0.4,
    }
    assert given() == {}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("reject_neg=0.6", "did you mean `reject_neg_sum`?"),
        ("reject_neg_sum", "NAME=VALUE"),
        ("reject_neg_sum=much", "NAME=VALUE"),
        ("reject_neg_sum=0.5,reject_neg_sum=0.6", "given twice"),
        ("", "NAME=VALUE"),
    ],
)
def test_thresholds_that_are_none(text: str, word: str) -> None:
    refused = CliRunner().invoke(submit_command, ["--image", "a", "--masks", "b", "--thresholds", text])
    assert refused.exit_code == 2
    assert word in " ".join(refused.output.split())
