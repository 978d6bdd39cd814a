"""The output of ``run``: the summary, or the pairs of a dry run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice

import click

from maskscore.cli.terminal import new_console
from maskscore.codes import WarningCode, advice_for
from maskscore.dataset import FailureCounts, OpenDataset, Pair, PairingCounts, RunSummary
from maskscore.text import counted, one_line

__all__ = ["failure_lines", "left_out_lines", "pairing_lines", "print_dry_run", "print_summary"]

_PAIRS = 10
_BAR = 40
_MULTIPLIERS = ("2.0", "1.0", "0.5", "0.1")


def print_summary(summary: RunSummary, *, as_json: bool, follow: bool) -> None:
    """Print the end of a run."""
    if as_json:
        click.echo(json.dumps(summary.document()))
        return
    console = new_console()
    for line in _summary_lines(summary, follow=follow):
        console.print(one_line(line), soft_wrap=True)


def print_dry_run(opened: OpenDataset, *, as_json: bool, pairs_per_list: int | None = None) -> None:
    """Print the first pairs and the counts; with ``pairs_per_list``, they are to become shards."""
    pairs = list(islice(opened.pairing, _PAIRS))
    counts = opened.pairing.counts
    if as_json:
        shown = [{"image": opened.images.uri_of(pair.image), "masks": _masks_of(pair)} for pair in pairs]
        click.echo(json.dumps({"images": len(opened.pairing), "pairs": shown, "census": counts.document()}))
        return
    console = new_console()
    console.print(f"images in {opened.images.uri}", soft_wrap=True)
    console.print(f"masks  in {getattr(opened.masks, 'uri', opened.masks) or opened.images.uri}", soft_wrap=True)
    console.print()
    for pair in pairs:
        console.print(one_line(f"{pair.image}  ←  {_masks_of(pair)}"), soft_wrap=True)
    if len(opened.pairing) > len(pairs):
        console.print(f"... and {len(opened.pairing) - len(pairs):,} more")
    console.print()
    shards = "" if pairs_per_list is None else f" in {counted(-(-len(opened.pairing) // pairs_per_list), 'shard')}"
    console.print(f"{counted(len(opened.pairing), 'image')} with masks would be submitted{shards}.")
    for line in pairing_lines(counts):
        console.print(one_line(line), soft_wrap=True)


def _masks_of(pair: Pair) -> str:
    if pair.inline is not None:
        return f"{counted(len(pair.inline.masks), 'mask')} in the dataset file"
    if pair.pictures:
        more = len(pair.pictures) - 1
        return pair.pictures[0] + (f" and {more} more" if more else "")
    return f"{pair.masks}/" if pair.folder else str(pair.masks)


def pairing_lines(counts: PairingCounts) -> Iterator[str]:
    """Yield what was found without a partner, or not used."""
    if not counts.complete:
        yield "--limit ended the listing, so what follows is of its beginning."
    if counts.images_without_masks:
        yield _unpaired(counts.images_without_masks, "image", "without masks", counts.lonely_images)
    if counts.masks_without_image:
        yield _unpaired(counts.masks_without_image, "masks entry", "without an image", counts.lonely_masks)
    if counts.ambiguous_masks:
        yield f"of these, {', '.join(counts.ambiguous_masks)} may mean several images, or share one with another name"
    if counts.orphans.count:
        yield f"{counts.orphans}; not scored"
    if counts.masks_not_used:
        yield f"{counted(counts.masks_not_used, 'masks file')} not used: another one of the same image goes first"
    if counts.others:
        some = ", ".join(f"{count:,} {name}" for name, count in counts.others.most_common(5))
        yield f"{counted(counts.others.total(), 'other file')}: {some}"


def _unpaired(count: int, what: str, how: str, names: list[str]) -> str:
    return f"{counted(count, what)} {how}: {', '.join(names)}{', ...' if count > len(names) else ''}"


def _summary_lines(summary: RunSummary, *, follow: bool) -> Iterator[str]:
    counts, result_counts = summary.counts, summary.result_counts
    states = [f"{count:,} {state}" for state, count in asdict(counts).items() if count]
    images = counted(max(summary.images, counts.total), "image")
    yield f"batch {summary.batch_id}: {counts.total:,} of {images} submitted"
    yield f"jobs      {', '.join(states) or 'none'}"
    if summary.jobs_per_s:
        yield f"rate      {summary.jobs_per_s:,.1f} jobs/s over {summary.seconds:,.1f} s"
    if follow:
        yield f"masks     {result_counts.masks:,} scored{_by_code(result_counts.skipped, '; skipped: ')}"
        for name, what, skipped in (("nms", "copy", result_counts.copies), ("parts", "part", result_counts.parts)):
            if skipped:
                saved = f"{result_counts.share_of_forwards(skipped):.1%} of the forwards saved"
                yield f"{name:9} {counted(skipped, what)} not scored: {saved}"
        if result_counts.warnings:
            yield f"warnings  {_by_code(result_counts.warnings, '')}"
        if result_counts.masks:
            yield ""
            yield from _histogram(result_counts.multipliers)
    yield from left_out_lines(summary.submitted.left_out)
    lonely = list(pairing_lines(summary.pairing_counts))
    if lonely:
        yield ""
        yield from lonely
    for code, failures in summary.failures.items():
        yield ""
        yield from failure_lines(code, failures)
    if result_counts.no_mask_scored.count:
        yield ""
        yield from failure_lines(WarningCode.NO_MASK_SCORED, result_counts.no_mask_scored)
    if counts.succeeded:
        yield ""
        yield f"Export: maskscore export {summary.batch_id} --format jsonl -o scores.jsonl --min-multiplier 1"


def left_out_lines(left_out: FailureCounts) -> Iterator[str]:
    """Yield the lines about masks that were left out, if there are some."""
    if left_out.count:
        yield f"left out  {counted(left_out.count, 'entry')} of masks files that cannot be used as masks"
        yield from (f"  {reason}" for _, reason in left_out.examples)
        if left_out.count > len(left_out.examples):
            yield "  ..."


def failure_lines(code: str, failures: FailureCounts) -> Iterator[str]:
    """Yield a code with its advice, and examples of what it was said of."""
    advice = advice_for(code)
    yield f"{code}: {failures.count:,}{f' → {advice}' if advice else ''}"
    for name, message in failures.examples[:3]:
        yield f"  {name}: {message}" if name not in message else f"  {message}"


def _histogram(multipliers: dict[str, int]) -> Iterator[str]:
    total = sum(multipliers.values())
    yield "multiplier      masks"
    for name in (*_MULTIPLIERS, *sorted(set(multipliers) - set(_MULTIPLIERS))):
        count = multipliers.get(name, 0)
        if not count and name not in _MULTIPLIERS:
            continue
        bar = "█" * round(_BAR * count / total) or ("▏" if count else "")
        yield f"{name:<10} {count:>10,} {count / total:>6.1%}  {bar}".rstrip()


def _by_code(counts: dict[str, int], before: str) -> str:
    some = ", ".join(f"{count:,} {code}" for code, count in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{before}{some}" if some else ""
