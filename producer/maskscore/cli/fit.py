"""``fit``: a head from masks that people have judged."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from maskscore.cli.batch_or_job import job_ids_of, parts_named
from maskscore.cli.exit_codes import Exit
from maskscore.cli.head_counts import HeadCounts, count_kept
from maskscore.cli.job_tables import table
from maskscore.cli.optional_dependencies import check_installed, needs_extra
from maskscore.cli.progress import shown_progress
from maskscore.cli.terminal import new_console
from maskscore.client import Batch, Client, scored_results, views_text_of
from maskscore.errors import InvalidDocumentError
from maskscore.heads import HeadApplication, write_head
from maskscore.results import image_results
from maskscore.schema import HEAD_NAME_PATTERN, HeadKind, JobResult
from maskscore.statistics import Estimate
from maskscore.storage import check_output, write_text
from maskscore.text import counted

if TYPE_CHECKING:
    from maskscore.fitting import Fit, JudgedMasks

__all__ = ["fit_command"]


@click.command("fit")
@click.argument("names", nargs=-1, required=True, metavar="BATCH|JOB|PARTS...")
@click.option(
    "--judged",
    "judged_files",
    multiple=True,
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Judgements: CSV, Parquet, COCO, Label Studio's export of a review, or a report's saved file; repeatable.",
)
@click.option(
    "--kind",
    type=click.Choice(["auto", *get_args(HeadKind)]),
    default="auto",
    show_default=True,
    help="auto: the smallest kind that is not significantly worse than the best.",
)
@click.option("--by-class", is_flag=True, help="A probe that tells the judged classes apart.")
@click.option(
    "--embed",
    is_flag=True,
    help="Have workers give the features of judged masks that lack them: from their cache, else by the model.",
)
@click.option("--drop-class", "drop_classes", multiple=True, metavar="NAME", help="A class to be dropped; repeatable.")
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Keep as many as have this precision, by the lower bound of its interval.  [default: p_keep of 0.5]",
)
@click.option("--name", help="Name of the head.  [default: the file's]")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="HEAD.json", help="Where the head goes."
)
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the charts here.")
@click.option("--strict", is_flag=True, help="Fit nothing where a judgement cannot be used, or a job has no result.")
@click.option("--force", is_flag=True, help="Write a head that is not better than chance or misses the precision.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def fit_command(
    names: tuple[str, ...],
    judged_files: tuple[Path, ...],
    kind: str,
    by_class: bool,
    embed: bool,
    drop_classes: tuple[str, ...],
    precision: float | None,
    name: str | None,
    output: Path,
    svg: Path | None,
    strict: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Fit a head to masks that people have judged.

    The judged masks are found among those of the batches and jobs by image and mask id; their scores and, where the
    jobs had --embeddings, their features are in the results; --embed scores the other jobs with judged masks again,
    as a new batch, and waits for it. PARTS are a folder of parts of shards, s3://bucket/prefix/ or local, with a slash
    in its name. All figures are out of fold, and no fold divides the masks of an image.

    Exits with 1, and writes nothing, where the head is not better than chance or no threshold has the --precision
    (unless --force), where --embed cannot give all features (unless --force), and with --strict where judgements
    cannot be used or jobs have no result.
    """
    check_installed("sklearn", "fit")
    with needs_extra("fit"):
        from maskscore.fitting import FitOptions, draw_fit, fit_head, join, judged_image_test, read_judged
    if any(path.suffix.lower() == ".parquet" for path in judged_files):
        check_installed("pyarrow", "export")
    if by_class and kind not in ("auto", "probe"):
        raise click.UsageError(f"--by-class needs a probe; a {kind} does not tell classes apart")
    if embed and kind not in ("auto", "probe"):
        raise click.UsageError(f"--embed is for a probe; a {kind} head reads no features")
    name = name or output.stem
    if not re.fullmatch(HEAD_NAME_PATTERN, name):
        raise click.UsageError(f"{name!r:.120} cannot be a head's name: letters, digits, `.`, `_` and `-`; give --name")
    for path in filter(None, (output, svg)):
        check_output(path)
    judgements = [judgement for path in judged_files for judgement in read_judged(path)]
    kinds: tuple[HeadKind, ...] = get_args(HeadKind)
    wanted = "probe" if by_class else next((one for one in kinds if one == kind), None)
    options = FitOptions(name, wanted, by_class, drop_classes, precision)
    without_result: Counter[str] = Counter()
    judged_images = judged_image_test(judgements)
    with Client() as client:
        parts = parts_named(client, names)
        if parts and embed:
            raise click.UsageError("--embed is for jobs of images; shards have features if scored with --embeddings")
        jobs = [one for one in names if one not in parts]
        without_result += sum((one.codes for one in parts.values()), Counter())

        def scored() -> Iterator[JobResult]:
            yield from scored_results(client, job_ids_of(client, jobs), without_result)
            for one in parts.values():
                for image in image_results(one.place, wanted=judged_images, embeddings=kind in ("auto", "probe")):
                    if image.result.error is None:
                        yield image.result
                    else:
                        without_result[image.result.error.code] += 1

        joined = partial(
            join,
            judgements,
            views_of=lambda result: views_text_of(client, result),
            by_class=by_class,
            drop_classes=drop_classes,
            features_only=wanted == "probe",
        )
        try:
            masks = joined(scored())
        finally:
            # Also where no judged mask is found: it may be one of theirs.
            if without_result:
                listed = ", ".join(f"{code} {count:,}" for code, count in without_result.items())
                what = "jobs or images" if parts else "jobs"
                click.echo(f"maskscore: {what} without a result: {listed}", err=True)
        if embed and masks.jobs_without_features:
            origin, again = masks.origin, _embedded(client, masks, without_result)
            # What was scored again comes first, and is taken.
            earlier = scored_results(client, job_ids_of(client, names), Counter())
            masks = joined(chain(scored_results(client, again.job_ids(), Counter()), earlier))
            if masks.origin != origin:
                raise InvalidDocumentError(
                    f"The workers have other weights or prompts now than those that scored {', '.join(names)[:200]}, "
                    "and a head would not hold for it. Score it again as a whole: `maskscore rescore --embeddings`."
                )
        for sentence in masks.left_out():
            click.echo(f"maskscore: left out: {sentence}", err=True)
        if strict and (masks.problems or without_result):
            click.echo("maskscore: nothing was fitted (--strict)", err=True)
            sys.exit(Exit.NOT_SUCCEEDED)
        if embed and masks.jobs_without_features and not force:
            missing = counted(masks.jobs_without_features.total(), "judged mask")
            click.echo(
                f"maskscore: nothing was fitted: no features could be had for {missing}, such as of job "
                f"{next(iter(masks.jobs_without_features))}. Leave out --embed, or --force it, to fit to scores alone.",
                err=True,
            )
            sys.exit(Exit.NOT_SUCCEEDED)
        fit = fit_head(masks, options)
        # All masks are read once more for it, since features are large.
        kept = count_kept(
            client, HeadApplication(fit.head), job_ids_of(client, jobs), [one.place for one in parts.values()]
        )
    refused = fit.refusal is not None and not force
    if as_json:
        _print_json(fit, masks, kept, written=not refused)
    else:
        _print(fit, kept)
    for warning in fit.warnings:
        click.echo(f"maskscore: warning: {warning}", err=True)
    if fit.refusal is not None:
        click.echo(f"maskscore: {fit.refusal}", err=True)
    if refused:
        click.echo("maskscore: nothing was written; --force writes the head all the same", err=True)
        sys.exit(Exit.NOT_SUCCEEDED)
    write_head(fit.head, output)
    if svg is not None:
        write_text(svg, draw_fit(fit))
    click.echo(f"maskscore: wrote {' and '.join(map(str, filter(None, (output, svg))))}", err=True)


def _embedded(client: Client, masks: JudgedMasks, without_result: Counter[str]) -> Batch:
    """Score jobs again with embeddings, say where the features came from, and count jobs that have no result now."""
    missing = masks.jobs_without_features
    batch = client.rescore(list(missing), embeddings=True, wait_for_room=True)
    scored = cached = encoded = 0
    failed: Counter[str] = Counter()
    for result in shown_progress(batch.as_completed(), len(batch), client=client, of=batch.job_ids()):
        scored += sum(component.skipped is None for component in result.components)
        cached += result.cached
        encoded += result.encoded
        if result.error is not None:
            failed[result.error.code] += 1
    click.echo(
        f"maskscore: features: {len(masks.decisions) - missing.total():,} of "
        f"{counted(len(masks.decisions), 'judged mask')} had them; for the others {counted(len(missing), 'job')} with "
        f"{counted(scored, 'mask')} scored again as batch {batch.batch_id}: {cached:,} from the cache, {encoded:,} "
        "encoded",
        err=True,
    )
    if failed:
        listed = ", ".join(f"{code} {count:,}" for code, count in failed.items())
        click.echo(f"maskscore: jobs that could not be scored again: {listed}", err=True)
        without_result += failed
    return batch


def _print_json(fit: Fit, masks: JudgedMasks, kept: HeadCounts, *, written: bool) -> None:
    document = dataclasses.asdict(dataclasses.replace(fit, head=None))  # type: ignore[arg-type]
    document["head"] = fit.head.model_dump(mode="json", exclude={"model"}) | {"kind": fit.head.kind}
    document["to_halve"] = fit.to_halve
    document["written"] = written
    document["left_out"] = {kind: problem.count for kind, problem in masks.problems.items()}
    document["batch"] = {"decided": kept.decided, "kept": kept.kept, "undecided": kept.undecided}
    click.echo(json.dumps(document))


def _print(fit: Fit, kept: HeadCounts) -> None:
    console, head = new_console(), fit.head
    counts = head.counts
    console.print(
        f"{counted(counts['judgements'], 'judged mask')} of {counted(counts['images'], 'image')}: {counts['keep']:,} "
        f"to keep, {counts['drop']:,} to drop; the figures are of {fit.measured:,}.\n"
    )
    rows = table("kind", "Brier", "AUROC", "95 %", "")
    for one in fit.kinds:
        area = ("", "") if one.auroc is None else _estimate(one.auroc)
        rows.add_row(one.kind, f"{one.brier:.4f}", *area, "chosen" if one.kind == head.kind else "")
    console.print(rows)
    rows = table("threshold", "kept", "precision", "95 %", "recall", "95 %", "")
    step = max(1, len(fit.curve) // 10)
    points = [*fit.curve[::step], *([fit.point] if fit.point is not None else [])]
    for point in sorted({one.threshold: one for one in points}.values(), key=lambda one: -one.threshold):
        mark = "chosen" if fit.point is not None and point.threshold == head.threshold else ""
        rows.add_row(
            f"{point.threshold:.6g}", f"{point.kept:,}", *_estimate(point.precision), *_estimate(point.recall), mark
        )
    console.print()
    console.print(rows)
    rows = table("p_keep", "masks", "named rightly" if head.classes else "to be kept", "95 %")
    for one_bin in fit.reliability:
        rows.add_row(f"{one_bin.p_keep:.3f}", f"{one_bin.masks:,}", *_estimate(one_bin.share))
    console.print()
    console.print(rows)
    undecided = ""
    if kept.undecided:
        undecided = f" {counted(kept.undecided, 'mask')} cannot be decided: scored otherwise, or without --embeddings."
    if head.classes:
        console.print("\nBy class, a kept mask counts as right, and a mask as found, where its class is named.")
    console.print(
        f"\nThe head keeps {kept.kept:,} of {counted(kept.decided, 'mask')} in all."
        f"{undecided} Some {fit.to_halve:,} more judgements would halve the intervals."
    )


def _estimate(estimate: Estimate) -> tuple[str, str]:
    return f"{estimate.value:.3f}", f"{estimate.low:.3f}-{estimate.high:.3f}"
