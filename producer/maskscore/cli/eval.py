"""``eval``: which treatment, frame and prompt set do best on labelled masks."""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click
from pydantic import ValidationError

from maskscore.cli.exit_codes import Exit
from maskscore.cli.job_tables import table
from maskscore.cli.optional_dependencies import needs_extra
from maskscore.cli.progress import shown_progress
from maskscore.cli.shared_options import prompts_named, scoring_options_of
from maskscore.cli.terminal import new_console
from maskscore.cli.worker_warnings import warn_of_demo_model
from maskscore.client import Client
from maskscore.errors import InvalidDocumentError
from maskscore.formats import Orphans
from maskscore.prompts import (
    builtin_names,
    load_builtin,
)
from maskscore.schema import (
    Frame,
    Method,
    PromptSet,
    Treatment,
    View,
    explain,
)
from maskscore.storage import check_output, write_text
from maskscore.text import did_you_mean

if TYPE_CHECKING:
    from maskscore.evaluation import Estimate, Measurement

__all__ = ["eval_command"]


@click.command("eval")
@click.argument("coco", type=click.Path(dir_okay=False, path_type=Path), metavar="COCO.json")
@click.option("--images", required=True, metavar="DIR|s3://...", help="Where the workers find the file's images.")
@click.option("--treatment", "treatments", multiple=True, type=click.Choice(get_args(Treatment)), help="Repeatable.")
@click.option("--frame", "frames", multiple=True, type=click.Choice(get_args(Frame)), help="Repeatable.")
@click.option(
    "--view", "views", multiple=True, metavar="VIEW[+VIEW...]", help="TREATMENT[/FRAME], or some averaged; repeatable."
)
@scoring_options_of("alpha", "blur", "context")
@click.option(
    "--prompts", "prompts", multiple=True, default=("default",), help="A built-in set's name, or a file; repeatable."
)
@click.option("--method", type=click.Choice(get_args(Method)), default="softmax", show_default=True)
@click.option("--classes", type=click.Path(dir_okay=False, path_type=Path), help="YAML of `category: prompt`.")
@click.option("--negatives", multiple=True, metavar="CATEGORY", help="A category that is background; repeatable.")
@click.option(
    "--crowds",
    type=click.Choice(["ignore", "objects"]),
    default="ignore",
    show_default=True,
    help="What `iscrowd` annotations are; CVAT marks every mask so.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Images at most, the file's first.")
@click.option("--seed", type=int, default=0, show_default=True, help="For the negatives that are sampled.")
@click.option("--timeout", type=float, help="Seconds to wait at most.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture here.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def eval_command(
    coco: Path,
    images: str,
    treatments: tuple[Treatment, ...],
    frames: tuple[Frame, ...],
    views: tuple[str, ...],
    alpha: float | None,
    blur: float | None,
    context: float | None,
    prompts: tuple[str, ...],
    method: Method,
    classes: Path | None,
    negatives: tuple[str, ...],
    crowds: Literal["ignore", "objects"],
    limit: int | None,
    seed: int,
    timeout: float | None,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Measure treatments, frames and prompt sets on labelled masks.

    The running workers score the masks. The figures, for every --treatment with every --frame (without any: each
    treatment, cut), every --view, and every --prompts: whether a prompt of the true class is the best of the positive
    ones, or among the five best; and how well objects separate from background and from fragments (AUROC of p_pos_sum,
    and of s_pos - s_neg).

    Background is what the file calls so (--negatives, or categories with `isthing` 0). Where it has none, background
    and halves of objects are sampled.
    """
    with needs_extra("report"):
        from maskscore.evaluation import (
            Candidate,
            ClassPrompts,
            draw,
            evaluate,
            image_uris,
            read_classes,
            read_coco,
            sample_negatives,
        )
    if svg is not None:
        check_output(svg)
    orphans = Orphans()
    labelled = read_coco(coco, negatives=negatives, limit=limit, crowds=crowds, orphans=orphans)
    if not labelled:
        raise InvalidDocumentError(f"{coco} has no image with annotations.")
    categories = list(dict.fromkeys(mask.category for image in labelled for mask in image.of_kind("object")))
    given = read_classes(classes) if classes else {}
    numbers = {
        name: value for name, value in (("alpha", alpha), ("blur", blur), ("context", context)) if value is not None
    }
    sets = [_prompt_set(name) for name in prompts]
    try:
        candidates = [
            Candidate(averaged, prompt_set, ClassPrompts.of(categories, prompt_set, given), method)
            for prompt_set in sets
            for averaged in _views(treatments, frames, views, numbers)
        ]
    except ValidationError as error:
        raise InvalidDocumentError(f"The options are not valid: {explain(error)}.") from error
    has_own = any(image.of_kind("background") for image in labelled)
    with Client() as client:
        for prompt_set in sets:
            warn_of_demo_model(client, prompt_set)
        measurements = evaluate(
            client,
            list(
                zip(image_uris(images, [image.file_name for image in labelled], client.objects), labelled, strict=True)
            ),
            candidates,
            negatives=(lambda _: []) if has_own else (lambda image: sample_negatives(image, seed)),
            timeout=timeout,
            progress=partial(shown_progress, client=client),
        )
    about: dict[str, Any] = {
        "file": str(coco),
        "images": len(labelled),
        "negatives": "of the file" if has_own else "sampled",
        "seed": None if has_own else seed,
        "method": method,
        "crowds": sum(len(image.of_kind("crowd")) for image in labelled),
        "unusable_annotations": sum(image.unusable for image in labelled),
        "unusable_reasons": [reason for image in labelled for reason in image.reasons][:3],
        "orphans": orphans.count,
        "unmapped": {candidate.prompts.name: list(candidate.classes.unmapped) for candidate in candidates},
    }
    if as_json:
        click.echo(json.dumps({**about, "figures": [dataclasses.asdict(entry) for entry in measurements]}))
    else:
        _print(about, measurements)
    # After the measurements, which are not to be lost with a picture that cannot be written.
    if svg is not None:
        write_text(svg, draw(measurements))
    if orphans.count:
        click.echo(f"maskscore: {coco}: {orphans}; not measured", err=True)
    if any(entry.failed or not entry.objects for entry in measurements):
        sys.exit(Exit.NOT_SUCCEEDED)


def _views(
    treatments: tuple[Treatment, ...], frames: tuple[Frame, ...], texts: tuple[str, ...], numbers: dict[str, float]
) -> list[tuple[View, ...]]:
    crossed: list[tuple[View, ...]] = []
    if treatments or frames or not texts:
        for frame in frames or ("cut",):
            for treatment in treatments or get_args(Treatment):
                crossed.append((View.parse(f"{treatment}/{frame}", **numbers),))
    own = [tuple(View.parse(part, **numbers) for part in text.split("+")) for text in texts]
    return list(dict.fromkeys([*crossed, *own]))


def _prompt_set(name: str) -> PromptSet:
    named = prompts_named(name)
    if isinstance(named, PromptSet):
        return named
    if name not in builtin_names():
        known = builtin_names()
        raise InvalidDocumentError(
            f"There is no built-in prompt set {name!r:.60}{did_you_mean(name, known) or '.'} There are "
            f"{', '.join(known)}; give the file of another."
        )
    return load_builtin(name)


def _print(about: dict[str, Any], measurements: list[Measurement]) -> None:
    console = new_console()
    first = measurements[0]
    console.print(
        f"{about['images']:,} images: {first.objects:,} objects, {first.backgrounds:,} backgrounds and "
        f"{first.fragments:,} fragments ({about['negatives']})."
    )
    if about["crowds"]:
        console.print(f"Left out: {about['crowds']:,} crowds (`iscrowd`; --crowds objects takes them as objects).")
    if about["unusable_annotations"]:
        console.print(f"Left out: {about['unusable_annotations']:,} annotations that cannot be used:", soft_wrap=True)
        for reason in about["unusable_reasons"]:
            console.print(f"  {reason}", soft_wrap=True)
    for name, unmapped in about["unmapped"].items():
        if unmapped:
            console.print(f"Without a prompt in {name!r}, and so not ranked: {', '.join(unmapped)}.")
    console.print()
    rows = table("view", "prompts", "top-1", "top-5", "AUROC", "±", "bg", "frag", "diff")
    # Widths that fit 80 columns; nothing of a long view is lost.
    rows.padding = (0, 1, 0, 0)
    rows.columns[0].no_wrap, rows.columns[0].overflow = False, "fold"
    for column in rows.columns[2:]:
        column.justify = "right"
    for entry in measurements:
        sums, difference = entry.auroc.values()
        rows.add_row(
            entry.view,
            entry.prompts,
            _percent(entry.top_1),
            _percent(entry.top_5),
            _area(sums["all"]),
            "" if sums["all"] is None else f"{(sums['all'].high - sums['all'].low) / 2:.3f}",
            _area(sums["background"]),
            _area(sums["fragment"]),
            _area(difference["all"]),
        )
    console.print(rows)
    console.print(
        "\ntop-1, top-5: a prompt of the true class is the best positive one, or among the five best. AUROC of "
        "p_pos_sum, objects against all negatives with half of its 95 % interval by image (±), against backgrounds "
        "(bg) and fragments (frag) alone; diff: of s_pos - s_neg, against all."
    )
    for entry in measurements:
        for what, counts in (("masks skipped", entry.skipped), ("jobs failed", entry.failed)):
            if counts:
                listed = ", ".join(f"{code} {count:,}" for code, count in counts.items())
                console.print(f"{entry.view}, {entry.prompts}: {what}: {listed}", soft_wrap=True)


def _percent(share: Estimate | None) -> str:
    return "" if share is None else f"{share.value:.1%}"


def _area(share: Estimate | None) -> str:
    return "" if share is None else f"{share.value:.3f}"
