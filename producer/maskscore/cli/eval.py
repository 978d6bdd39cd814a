"""``eval``: which model, treatment, frame, prompt set and head do best on labelled masks."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import click

from maskscore.cli.eval_tables import print_evaluation
from maskscore.cli.exit_codes import Exit
from maskscore.cli.local_heads import local_head
from maskscore.cli.optional_dependencies import needs_extra
from maskscore.cli.progress import shown_progress, shown_together
from maskscore.cli.scores_to_measure import is_given, prompt_set_of, refuse_scoring_options, scored_images
from maskscore.cli.shared_options import scoring_options_of
from maskscore.cli.worker_warnings import warn_of_workers
from maskscore.client import Client
from maskscore.errors import InvalidDocumentError, WaitTimeout
from maskscore.prompts import find_prompt_set
from maskscore.schema import DEFAULT_MODEL_NAME, Frame, JobResult, Method, Treatment
from maskscore.settings import WorkerSettings, load_settings
from maskscore.storage import check_output, write_text

if TYPE_CHECKING:
    from maskscore.evaluation import EvaluationResult

__all__ = ["eval_command"]

_LOOK_AGAIN_S: Final = 1.0


@click.command("eval")
@click.argument("coco", type=click.Path(path_type=Path), metavar="COCO.json")
@click.option("--images", metavar="DIR|s3://...", help="Where the workers find the file's images.")
@click.option(
    "--scores",
    "sources",
    multiple=True,
    metavar="BATCH|JOB|PARTS",
    help="Measure scores that are there already, instead of scoring --images; repeatable.",
)
@click.option(
    "--treatment",
    "treatments",
    multiple=True,
    type=click.Choice(get_args(Treatment)),
    help="Treatment to measure; repeatable.",
)
@click.option(
    "--frame", "frames", multiple=True, type=click.Choice(get_args(Frame)), help="Frame to measure; repeatable."
)
@click.option(
    "--view", "views", multiple=True, metavar="VIEW[+VIEW...]", help="TREATMENT[/FRAME], or some averaged; repeatable."
)
@scoring_options_of("alpha", "blur", "context")
@click.option(
    "--prompts",
    "prompts",
    multiple=True,
    default=("default",),
    help="Name of a prompt set, or a file; repeatable.",
)
@click.option(
    "--method", type=click.Choice(get_args(Method)), default="softmax", show_default=True, help="Scoring method."
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Model to measure, by the name of its workers (MASKSCORE_MODEL_NAME); repeatable.",
)
@click.option("--wait-for-workers", is_flag=True, help="Wait until every --model has a worker, instead of failing.")
@click.option(
    "--price-per-hour",
    "prices",
    multiple=True,
    metavar="[NAME=]PRICE",
    help="Price of an hour of all workers of a model together: adds the cost per million masks; repeatable.",
)
@click.option(
    "--head", "heads", multiple=True, metavar="NAME|FILE.json", help="Head to measure on the same masks; repeatable."
)
@click.option("--classes", type=click.Path(dir_okay=False, path_type=Path), help="YAML file of `category: prompt`.")
@click.option("--negatives", multiple=True, metavar="CATEGORY", help="Category that counts as background; repeatable.")
@click.option(
    "--crowds",
    type=click.Choice(["ignore", "objects"]),
    default="ignore",
    show_default=True,
    help="What `iscrowd` annotations count as; CVAT sets iscrowd on every mask.",
)
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    help="Recall at which the precision is printed.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number of images, from the start of the file.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampled negatives.")
@click.option("--timeout", type=float, help="Seconds to wait at most.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Also write the charts to this file.")
@click.option("--details", is_flag=True, help="Also print reliability, precision by recall, and the figures by class.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def eval_command(
    coco: Path,
    images: str | None,
    sources: tuple[str, ...],
    treatments: tuple[Treatment, ...],
    frames: tuple[Frame, ...],
    views: tuple[str, ...],
    alpha: float | None,
    blur: float | None,
    context: float | None,
    prompts: tuple[str, ...],
    method: Method,
    models: tuple[str, ...],
    wait_for_workers: bool,
    prices: tuple[str, ...],
    heads: tuple[str, ...],
    classes: Path | None,
    negatives: tuple[str, ...],
    crowds: Literal["ignore", "objects"],
    recall: float,
    limit: int | None,
    seed: int,
    timeout: float | None,
    svg: Path | None,
    details: bool,
    as_json: bool,
) -> None:
    """Measure models, treatments, frames, prompt sets and heads on labelled masks.

    The running workers score the masks. The figures, for every --model, every --treatment with every --frame (without
    any: each treatment, cut), every --view, and every --prompts: whether a prompt of the true class is the best of the
    positive ones, or among the five best; and how well objects separate from background and from fragments (AUROC,
    precision at a recall, Brier score) by p_pos_sum, with the method sigmoid by s_pos. Every --head decides on the same
    masks; without a view, those that the heads were fitted to are measured. Differences from the first are paired by
    mask. All intervals are by image.

    Background is what the file calls so (--negatives, or categories with `isthing` 0). Where it has none, background
    and halves of objects are sampled.

    With --scores nothing is scored: the file's masks are found among those of batches and jobs, and of PARTS, a folder
    or s3:// prefix with the parts of shards, by the image's URI or the end of its path, and by the annotation's id.
    Each --scores is a candidate. Negatives are then those of the file alone. Top-5 needs --top-k when scoring.
    """
    if coco.is_dir() or str(coco).startswith("s3:"):
        raise click.UsageError(
            f"{coco} is no file: give the COCO file that has the labels. Scores that are there already, such as parts, "
            f"are measured by --scores: `maskscore eval LABELS.json --scores {coco}`."
        )
    if (images is None) == (not sources):
        raise click.UsageError("give either --images, which workers score, or --scores, which are there already")
    if sources:
        refuse_scoring_options()
    with needs_extra("report"):
        from maskscore.evaluation import CocoEvaluation, draw, views_of
    if svg is not None:
        check_output(svg)
    numbers = {
        name: value for name, value in (("alpha", alpha), ("blur", blur), ("context", context)) if value is not None
    }
    prompts_dir = load_settings(WorkerSettings).prompts_dir
    named_prompts = not sources or is_given("prompts")
    sets = [find_prompt_set(name, prompts_dir).read() for name in prompts] if named_prompts else []
    listed_heads = [local_head(name) for name in heads]
    if listed_heads and not (treatments or frames or views or sources):
        views = tuple(head.head.views for head in listed_heads)
    asked = tuple(dict.fromkeys(models))
    evaluation = CocoEvaluation.read(
        coco,
        views=[] if sources else views_of(treatments, frames, views, numbers),
        prompt_sets=sets,
        method=method,
        models=[None if name == DEFAULT_MODEL_NAME else name for name in asked] or [None],
        heads=listed_heads,
        classes=classes,
        negatives=negatives,
        crowds=crowds,
        limit=limit,
        seed=seed,
    )
    costs = _prices(prices, asked or (DEFAULT_MODEL_NAME,))

    def progress(results: Iterable[JobResult], total: int, doing: str) -> Iterable[JobResult]:
        return shown_progress(results, total, doing=doing, client=client)

    with Client() as client:
        if images is None:
            finder = evaluation.image_finder
            probes = any(head.head.kind == "probe" for head in listed_heads)
            find = partial(prompt_set_of, sets, prompts_dir, named=named_prompts)
            with shown_together() as shown:
                scored = scored_images(client, dict.fromkeys(sources), finder, shown, embeddings=probes)
                evaluation, result = evaluation.measure_scores(finder, scored, find, recall=recall)
        else:
            if asked:
                _require_workers(client, asked, wait=wait_for_workers, timeout=timeout)
            for model in asked or (None,):
                for prompt_set in sets:
                    warn_of_workers(client, model, prompt_set)
            result = evaluation.measure(client, images, recall=recall, prices=costs, timeout=timeout, progress=progress)
    about = evaluation.document()
    if as_json:
        click.echo(json.dumps({**about, "recall": recall, **_document(result)}))
    else:
        print_evaluation(about, result, recall=recall, timed=bool(asked or costs), details=details)
    # After the measurements, which are not to be lost with a picture that cannot be written.
    if svg is not None:
        write_text(svg, draw(result.measurements))
    if evaluation.orphans.count:
        click.echo(f"maskscore: {coco}: {evaluation.orphans}; not measured", err=True)
    if any(entry.failed or not entry.objects for entry in result.measurements):
        sys.exit(Exit.NOT_SUCCEEDED)


def _prices(given: tuple[str, ...], models: tuple[str, ...]) -> dict[str, float]:
    """Return the price per hour by the model's name; one without a name is that of every model without its own."""
    named: dict[str, float] = {}
    for text in given:
        model, _, price = text.rpartition("=")
        try:
            value = float(price)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise click.UsageError(f"--price-per-hour {text!r:.100}: write PRICE or NAME=PRICE, a number above 0")
        if model and model not in models:
            raise click.UsageError(f"--price-per-hour {text!r:.100}: {model!r:.80} is none of {', '.join(models)}")
        named[model] = value
    prices = {model: named.get(model, named.get("")) for model in models}
    return {model: price for model, price in prices.items() if price is not None}


def _require_workers(client: Client, models: tuple[str, ...], *, wait: bool, timeout: float | None) -> None:
    """Return once every model has a live worker; raise where one has none, with ``wait`` after ``timeout`` seconds."""
    end = time.monotonic() + (math.inf if timeout is None else timeout)
    said = False
    while (sentence := client.no_worker(*models)) is not None:
        if not wait:
            raise InvalidDocumentError(f"{sentence} --wait-for-workers waits for one.")
        if time.monotonic() >= end:
            raise WaitTimeout(f"No worker came within {timeout:g} s. {sentence}")
        if not said:
            said = True
            click.echo(f"maskscore: waiting for workers: {sentence}", err=True)
        time.sleep(_LOOK_AGAIN_S)


def _document(result: EvaluationResult) -> dict[str, Any]:
    figures = []
    for entry in result.measurements:
        document = dataclasses.asdict(entry)
        # Where earlier releases have it.
        document["auroc"] = {score: own.pop("auroc") for score, own in document["scores"].items()}
        if entry.source is None:
            del document["source"], document["unknown_top_5"]
        figures.append(document)
    differences = [dataclasses.asdict(one) for one in result.differences]
    for entry in (one[side] for one in differences for side in ("baseline", "entry")):
        if entry["source"] is None:
            del entry["source"]
    return {"figures": figures, "differences": differences}
