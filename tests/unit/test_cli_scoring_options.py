"""Commands that submit jobs have an option for each field of the scoring options."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from maskscore import ScoringOptions, SigmoidThresholds, Thresholds
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
    # Thresholds of both methods are given by the same option.
    assert ScoringOptions.model_fields.keys() - {"sigmoid_thresholds"} <= options(command).keys()


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


def test_thresholds_go_to_the_method_that_they_are_of() -> None:
    scoring = ScoringOptions.model_validate(given("--method", "sigmoid", "--thresholds", "fit=0.02"))
    assert (scoring.sigmoid_thresholds.fit, scoring.sigmoid_thresholds.strong_pos) == (0.02, 0.1)
    for method, name, of in (("sigmoid", "reject_neg_sum", "softmax"), ("cosine", "fit", "sigmoid")):
        with pytest.raises(ValidationError, match=f"those of the method {of}"):
            ScoringOptions.model_validate(given("--method", method, "--thresholds", f"{name}=0.3"))


def test_rescoring_by_another_method_leaves_the_thresholds_of_the_one_before() -> None:
    softmax = ScoringOptions(thresholds=Thresholds(reject_neg_sum=0.6))
    sigmoid = ScoringChanges(method="sigmoid", thresholds={"fit": 0.02}).applied_to(softmax)
    assert sigmoid == ScoringOptions(method="sigmoid", sigmoid_thresholds=SigmoidThresholds(fit=0.02))
    stricter = ScoringChanges(thresholds={"strong_pos": 0.3}).applied_to(sigmoid)
    assert stricter.sigmoid_thresholds == SigmoidThresholds(fit=0.02, strong_pos=0.3)
    assert ScoringChanges(method="cosine").applied_to(stricter) == ScoringOptions(method="cosine")
    assert ScoringChanges(top_k=2).applied_to(softmax).thresholds == softmax.thresholds
    own = ScoringChanges(method="sigmoid", thresholds=SigmoidThresholds(fit=0.5)).applied_to(softmax)
    assert own.sigmoid_thresholds.fit == 0.5


def test_rescoring_keeps_the_model_unless_another_is_named() -> None:
    named = ScoringOptions(model="large")
    assert ScoringChanges(top_k=2).applied_to(named).model == "large"
    assert ScoringChanges(model="small").applied_to(named).model == "small"
    assert ScoringChanges(model="default").applied_to(named) == ScoringOptions()


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
