"""``prompts``: which prompt sets there are, what is in one, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from maskscore.cli.exit_codes import Exit
from maskscore.cli.job_tables import table
from maskscore.cli.terminal import new_console
from maskscore.errors import InvalidDocumentError
from maskscore.prompts import (
    Balance,
    TokenCounter,
    check_prompts,
    find_prompt_set,
    groups_of,
    prompt_sets,
    token_counter,
    weigh,
)
from maskscore.settings import WorkerSettings, load_settings

__all__ = ["prompts_command"]

# exp(logit_scale) of CLIP and OpenCLIP is at its limit of 100.
_CLIP_SCALE = 100
_json = click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")


@click.group("prompts")
def prompts_command() -> None:
    """List, show and check prompt sets.

    Known are those of the package, and those in the folder MASKSCORE_PROMPTS_DIR.
    """


@prompts_command.command("list")
@_json
def list_command(as_json: bool) -> None:
    """List the prompt sets that jobs can name, with their sizes. Exits with 1 if one cannot be used."""
    rows = table("name", "version", "positive", "negative", "neutral", "digest", "from")
    wrong = False
    for source in prompt_sets(load_settings(WorkerSettings).prompts_dir):
        try:
            found = source.read()
        except InvalidDocumentError as error:
            wrong = True
            click.echo(f"maskscore: {error}", err=True)
            continue
        sizes = [len(found.positive), len(found.negative), len(found.neutral)]
        if as_json:
            about = {"name": source.name, "version": found.version, "digest": found.digest}
            groups = dict(zip(("positive", "negative", "neutral"), sizes, strict=True))
            click.echo(json.dumps({**about, **groups, "path": str(source.path) if source.path else None}))
        place = "folder" if source.path else "built-in"
        rows.add_row(source.name, str(found.version), *map(str, sizes), found.digest[:19], place)
    if not as_json:
        new_console().print(rows)
    if wrong:
        sys.exit(Exit.NOT_SUCCEEDED)


@prompts_command.command("show")
@click.argument("name", metavar="NAME|FILE")
@_json
def show_command(name: str, as_json: bool) -> None:
    """Print a prompt set as YAML, as a file for MASKSCORE_PROMPTS_DIR would have it."""
    found = find_prompt_set(name, load_settings(WorkerSettings).prompts_dir).read()
    if as_json:
        click.echo(json.dumps({**found.model_dump(mode="json"), "digest": found.digest}, ensure_ascii=False))
        return
    fields = {field: value for field, value in found.model_dump(mode="json").items() if value not in ([], "", None)}
    click.echo(f"# {found.digest}")
    click.echo(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100), nl=False)


@prompts_command.command("check")
@click.argument("name", metavar="NAME|FILE")
@click.option("--model", help="Architecture whose tokens are counted.  [MASKSCORE_MODEL]")
@click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of weights whose own tokenizer counts; its configuration overrides --model.",
)
@click.option("--pretrained", help="Tag of these weights, as for a worker.  [MASKSCORE_PRETRAINED]")
@_json
def check_command(name: str, model: str | None, weights: Path | None, pretrained: str | None, as_json: bool) -> None:
    """Say what is wrong with a prompt set, and what the number of its prompts does to the sums.

    Blank and repeated prompts, also such that differ in case, spaces or the article alone, and prompts that are too
    long for the model. Exits with 1 when there are any, with 2 when the set cannot be read.
    """
    settings = load_settings(WorkerSettings, model=model, pretrained=pretrained)
    source = find_prompt_set(name, settings.prompts_dir)
    fields = source.fields()
    counter = token_counter(settings.model, weights, settings.pretrained)
    problems = check_prompts(fields, counter)
    if not problems:
        # Misspelt fields, and whatever else no worker would take.
        source.read()
    sizes = {group: len(prompts) for group, prompts in groups_of(fields).items()}
    balance = None
    if sizes.get("positive") and sizes.get("negative"):
        balance = weigh(sizes["positive"], sizes["negative"], sizes.get("neutral", 0))
    if as_json:
        document: dict[str, Any] = {
            "source": str(source),
            "problems": [dataclasses.asdict(problem) for problem in problems],
            "prompts": sizes,
            "context_length": counter.context_length,
            "estimated": counter.why_estimated,
            "balance": None,
        }
        if balance is not None:
            thresholds = balance.thresholds.model_dump() if balance.thresholds else None
            document["balance"] = {**dataclasses.asdict(balance), "thresholds": thresholds}
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        for problem in problems:
            _say(f"{problem.code}: {problem.sentence}")
        if problems:
            click.echo()
        _say(f"{source}: " + ", ".join(f"{count} {group}" for group, count in sizes.items()) + _verdict(len(problems)))
        _say(_about_tokens(counter))
        if balance is not None:
            _say(_about_balance(balance))
            if balance.thresholds is not None:
                # In one piece, to be copied.
                values = ",".join(f"{name}={value:g}" for name, value in balance.thresholds.model_dump().items())
                click.echo(f"--thresholds {values}")
    if problems:
        sys.exit(Exit.NOT_SUCCEEDED)


def _say(text: str) -> None:
    new_console().print(text)


def _verdict(problems: int) -> str:
    return f"; {problems} to correct." if problems else "; nothing to correct."


def _about_tokens(counter: TokenCounter) -> str:
    if counter.why_estimated is None:
        return f"Tokens were counted; at most {counter.context_length} fit."
    return f"Tokens were estimated by words, since {counter.why_estimated}; at most {counter.context_length} fit."


def _about_balance(balance: Balance) -> str:
    said = (
        f"A mask that is equally similar to every prompt gets p_pos_sum {balance.p_pos_sum:.2f} and p_neg_sum "
        f"{balance.p_neg_sum:.2f}, which is the multiplier {balance.multiplier:g}."
    )
    if balance.odds == 1:
        return said
    ahead, behind = ("positives", "negatives") if balance.odds > 1 else ("negatives", "positives")
    # With equal cosines a group is ahead by the logarithm of its share.
    lead = abs(math.log(balance.odds))
    said += (
        f" The {ahead} are ahead by their number: to be even, the {behind} must be more similar by "
        f"{lead:.2f} in the logits ({lead / _CLIP_SCALE:.4f} in cosine, with CLIP's scale of {_CLIP_SCALE}). To "
        f"balance the set, give both groups as many prompts"
    )
    return said + ("." if balance.thresholds is None else ", or score with thresholds that make up for it:")
