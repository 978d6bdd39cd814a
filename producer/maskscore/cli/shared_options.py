"""The scoring and job options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import click

from maskscore.heads import read_head
from maskscore.prompts import read_prompt_set
from maskscore.schema import (
    Frame,
    Head,
    Method,
    Orientation,
    Priority,
    PromptSet,
    SigmoidThresholds,
    Thresholds,
    Treatment,
    View,
    thresholds_by_method,
)
from maskscore.storage import path_of
from maskscore.text import did_you_mean

__all__ = [
    "check_prefix",
    "head_named",
    "job_options",
    "place_for_parts",
    "prompts_named",
    "scoring_options",
    "scoring_options_of",
    "taken_job_fields",
    "taken_scoring",
]

Command = Callable[..., Any]

_THRESHOLDS: Final = (*Thresholds.model_fields, *SigmoidThresholds.model_fields)


def _thresholds(_context: click.Context, _option: click.Parameter, text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    read: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name and name not in _THRESHOLDS:
            raise click.UsageError(
                f"--thresholds: there is no threshold {name!r:.60}{did_you_mean(name, _THRESHOLDS)} "
                f"({', '.join(_THRESHOLDS)})"
            )
        if name in read:
            raise click.UsageError(f"--thresholds: {name} is given twice")
        try:
            read[name] = float(value)
        except ValueError as error:
            message = f"--thresholds {text!r:.200}: write NAME=VALUE,..., such as reject_neg_sum=0.6"
            raise click.UsageError(message) from error
    return read


def prompts_named(text: str) -> str | PromptSet:
    """Return what ``--prompts`` means: the set of a file where the text is a path, else the name of a worker's set.

    Raises :class:`~maskscore.errors.InvalidDocumentError` for a file that cannot be read, or is no prompt set.
    """
    path = Path(text)
    is_path = path.suffix.lower() in (".yaml", ".yml") or len(path.parts) > 1
    return read_prompt_set(path) if is_path else text


def head_named(text: str) -> str | Head:
    """Return what ``--head`` means: the head of a file where the text is a path, else the name of a worker's head.

    Raises :class:`~maskscore.errors.HeadInvalid` for a file that cannot be read, or is no head.
    """
    path = Path(text)
    return read_head(path) if path.suffix.lower() == ".json" or len(path.parts) > 1 else text


_SCORING: Final = {
    "treatment": click.option(
        "--treatment", type=click.Choice(get_args(Treatment)), help="What happens outside the mask."
    ),
    "frame": click.option("--frame", type=click.Choice(get_args(Frame)), help="How the crop becomes a square."),
    "alpha": click.option("--alpha", type=float, help="Strength of soft_mask."),
    "blur": click.option("--blur", type=float, help="Strength of blur, in longer sides of the mask's box."),
    "context": click.option(
        "--context", type=float, help="Margin of the frame context on each side, in longer sides of the box."
    ),
    "average_with": click.option(
        "--average-with",
        multiple=True,
        metavar="VIEW",
        # No text at all is no option: commands tell what was given by None.
        callback=lambda _context, _option, texts: texts or None,
        help="A further view, TREATMENT[/FRAME], whose features are averaged with the first one's; repeatable.",
    ),
    "method": click.option(
        "--method",
        type=click.Choice(get_args(Method)),
        help="Probabilities of all prompts together (softmax), of each by itself (sigmoid: SigLIP), or cosines.",
    ),
    "thresholds": click.option(
        "--thresholds",
        metavar="NAME=VALUE,...",
        callback=_thresholds,
        help=f"Thresholds of the multiplier: some of {', '.join(Thresholds.model_fields)}; with --method sigmoid of "
        f"{', '.join(SigmoidThresholds.model_fields)}.",
    ),
    "prompts": click.option("--prompts", help="Name of a prompt set, or a YAML file of one."),
    "top_k": click.option("--top-k", type=int, help="How many best prompts to return per mask."),
    "min_area": click.option("--min-area", type=int, help="Skip masks of fewer pixels."),
    "nms": click.option(
        "--nms",
        type=click.FloatRange(min=0, min_open=True, max=1),
        help="Skip duplicates: masks whose IoU with a mask of better predicted_iou (or score, confidence) is at least "
        "this.",
    ),
    "drop_parts": click.option(
        "--drop-parts",
        type=click.FloatRange(min=0, min_open=True, max=1),
        help="Skip parts: masks of whose area at least this share lies in a larger mask that is not skipped.",
    ),
    "split_components": click.option(
        "--split-components", is_flag=True, default=None, help="Score each connected part by itself."
    ),
    "embeddings": click.option("--embeddings", is_flag=True, default=None, help="Return the image features."),
    "head": click.option(
        "--head", metavar="NAME|FILE.json", help="Decide with a fitted head: adds p_keep and keep to each mask."
    ),
    "model": click.option(
        "--model", metavar="NAME", help="Name of the model that scores; its workers have it as MASKSCORE_MODEL_NAME."
    ),
}
_JOB: Final = {
    "orientation": click.option(
        "--orientation", type=click.Choice(get_args(Orientation)), help="What to do with an EXIF orientation."
    ),
    "priority": click.option("--priority", type=click.Choice(get_args(Priority)), help="Which jobs go first."),
    "expires_in": click.option(
        "--expires-in", type=float, help="Seconds after which a job, if still queued, is given up."
    ),
}


def scoring_options(command: Command) -> Command:
    """Give a command the options of :class:`~maskscore.ScoringOptions`; what is not given arrives as ``None``."""
    return _with(command, _SCORING)


def scoring_options_of(*names: str) -> Callable[[Command], Command]:
    """Give a command some of these options, by their fields' names."""
    return lambda command: _with(command, {name: _SCORING[name] for name in names})


def job_options(command: Command) -> Command:
    """Give a command ``--orientation``, ``--priority`` and ``--expires-in``."""
    return _with(command, _JOB)


def taken_scoring(given: dict[str, Any]) -> dict[str, Any]:
    """Take what :func:`scoring_options` added out of a command's arguments, as fields of ``ScoringOptions``.

    Raises :class:`~maskscore.errors.InvalidDocumentError` for a prompt set's file that cannot be read, and for a view
    that is none.
    """
    scoring = _taken(given, _SCORING)
    if "prompts" in scoring:
        scoring["prompts"] = prompts_named(scoring["prompts"])
    if "thresholds" in scoring:
        scoring |= thresholds_by_method(scoring.pop("thresholds"))
    if "head" in scoring:
        scoring["head"] = head_named(scoring["head"])
    if "average_with" in scoring:
        numbers = {name: scoring[name] for name in ("alpha", "blur", "context") if name in scoring}
        scoring["average_with"] = [View.parse(text, **numbers) for text in scoring["average_with"]]
    return scoring


def taken_job_fields(given: dict[str, Any]) -> dict[str, Any]:
    """Take what :func:`job_options` added out of a command's arguments; only what was given."""
    return _taken(given, _JOB)


def _with(command: Command, options: Mapping[str, Callable[[Command], Command]]) -> Command:
    for option in reversed(list(options.values())):
        command = option(command)
    return command


def _taken(given: dict[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name in names if (value := given.pop(name, None)) is not None}


def place_for_parts(option: str, text: str) -> str:
    """Return ``s3://bucket/prefix/`` as it is, and a folder's path or URI as a URI that ends with a slash.

    Raises a usage error for anything else; the folder need not be there.
    """
    if text.startswith("s3://"):
        check_prefix(option, text)
        return text
    if "://" in text and not text.startswith("file:///"):
        raise click.UsageError(f"{option} {text!r}: write s3://bucket/prefix/ or a folder")
    folder = path_of(text) if text.startswith("file:") else Path(text).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise click.UsageError(
            f"{option} {text!r} is a file: {option} takes the folder of the scores. `maskscore export` writes one file "
            "of them"
        )
    return f"{folder.as_uri().rstrip('/')}/"


def check_prefix(option: str, uri: str | None) -> None:
    """Raise a usage error for what is not ``s3://bucket/prefix/``; ``None`` is fine."""
    if uri is not None and not (uri.startswith("s3://") and uri.endswith("/") and len(uri) > len("s3:///")):
        raise click.UsageError(f"{option} {uri!r}: write s3://bucket/prefix/, with the slash at its end")
