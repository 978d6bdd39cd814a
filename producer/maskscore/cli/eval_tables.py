"""What ``eval`` prints: candidates, their scores, differences between them, reliability and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from maskscore.cli.job_tables import table
from maskscore.cli.terminal import new_console
from maskscore.statistics import Difference, Estimate
from maskscore.text import counted

if TYPE_CHECKING:
    from maskscore.evaluation import CandidateDifference, Entry, EvaluationResult, Measurement

__all__ = ["print_evaluation"]


def print_evaluation(
    about: dict[str, Any], result: EvaluationResult, *, recall: float, timed: bool, details: bool
) -> None:
    """Print the tables for 80 columns; ``timed`` with the speeds, ``details`` with reliability and so on."""
    console, measurements = new_console(), result.measurements
    _print_data(console, about, measurements[0])
    console.print()
    _print_candidates(console, measurements, timed=timed)
    console.print()
    _print_scores(console, measurements, recall)
    if result.differences:
        console.print()
        _print_differences(console, result.differences)
    if details:
        for entry in measurements:
            _print_details(console, measurements, entry)
    for entry in measurements:
        name = _candidate_name(measurements, entry)
        failed = "jobs failed" if entry.source is None else "images without a score"
        for what, counts in (("masks skipped", entry.skipped), (failed, entry.failed)):
            if counts:
                listed = ", ".join(f"{code} {count:,}" for code, count in counts.items())
                console.print(f"{name}: {what}: {listed}", soft_wrap=True)
        if entry.unknown_top_5:
            console.print(
                f"{name}: top-5 is not known of {counted(entry.unknown_top_5, 'mask')}, whose scores name too few "
                "prompts: score with --top-k 100.",
                soft_wrap=True,
            )
        if len(entry.weights_digests) > 1:
            digests = ", ".join(digest[:19] for digest in entry.weights_digests)
            console.print(f"{name}: a mixture of several weights: {digests}", soft_wrap=True)


def _print_data(console: Console, about: dict[str, Any], first: Measurement) -> None:
    console.print(
        f"{counted(about['images'], 'image')}: {counted(first.objects, 'object')}, "
        f"{counted(first.backgrounds, 'background')} and {counted(first.fragments, 'fragment')} ({about['negatives']})."
    )
    if about["negatives"] == "none":
        console.print(
            "No negatives, and so no AUROC and no precision: the file has no background (--negatives), and scores that "
            "are there already have no sampled ones."
        )
    if about["crowds"]:
        console.print(
            f"Left out: {counted(about['crowds'], 'crowd')} (`iscrowd`; --crowds objects takes them as objects)."
        )
    if about["unusable_annotations"]:
        unusable = counted(about["unusable_annotations"], "annotation")
        console.print(f"Left out: {unusable} that cannot be used:", soft_wrap=True)
        for reason in about["unusable_reasons"]:
            console.print(f"  {reason}", soft_wrap=True)
    for name, unmapped in about["unmapped"].items():
        if unmapped:
            console.print(f"Without a prompt in {name!r}, and so not ranked: {', '.join(unmapped)}.")


def _print_candidates(console: Console, measurements: Sequence[Measurement], *, timed: bool) -> None:
    names = _varied(measurements) or ["view"]
    priced = any(entry.speed is not None and entry.speed.price_per_hour is not None for entry in measurements)
    columns = [*names, "top-1", "top-5", "AUROC", "±", "bg", "frag", "diff"]
    rows = _table(len(names), *columns, *(["masks/s"] if timed else []), *(["per 1M"] if priced else []))
    for entry in measurements:
        own, difference = entry.scores[entry.main_scores[0]].auroc, entry.scores["s_pos - s_neg"].auroc
        cells = [
            *(getattr(entry, name) for name in names),
            _percent(entry.top_1),
            _percent(entry.top_5),
            _number(own["all"]),
            "" if own["all"] is None else f"{(own['all'].high - own['all'].low) / 2:.3f}",
            _number(own["background"]),
            _number(own["fragment"]),
            _number(difference["all"]),
        ]
        if timed:
            rate = None if entry.speed is None else entry.speed.masks_per_s
            cells.append("?" if rate is None else f"{rate:,.1f}" if rate < 1000 else f"{rate:,.0f}")
        if priced:
            cost = None if entry.speed is None else entry.speed.cost_per_million
            cells.append("?" if cost is None else f"{cost:,.2f}")
        rows.add_row(*cells)
    console.print(rows)
    console.print(
        "\ntop-1, top-5: a prompt of the true class is the best positive one, or among the five best. AUROC of "
        f"{measurements[0].main_scores[0]}, objects against all negatives with half of its 95 % interval by image (±), "
        "against backgrounds (bg) and fragments (frag) alone; diff: of s_pos - s_neg, against all."
    )
    if timed:
        console.print(
            "masks/s: from the first submission until the last result was read, one row after the other, with all "
            "live workers of the model; the first images are not timed."
            + (" per 1M: price of a million masks." if priced else "")
        )
    for entry in measurements:
        if timed and entry.speed is not None and entry.speed.unusable is not None:
            console.print(f"{_candidate_name(measurements, entry)}: no speed: {entry.speed.unusable}", soft_wrap=True)


def _print_scores(console: Console, measurements: Sequence[Measurement], recall: float) -> None:
    several = len(measurements) > 1
    names = ["candidate", "score"] if several else ["score"]
    rows = _table(len(names), *names, "AUROC", "95 %", f"P at R={recall:g}", "95 %", "Brier", "95 %")
    for entry in measurements:
        for score in entry.main_scores:
            figures = entry.scores[score]
            at_recall = None if figures.at_recall is None else figures.at_recall.precision
            name = [_candidate_name(measurements, entry)] if several else []
            areas = (*_estimate(figures.auroc["all"]), *_estimate(at_recall), *_estimate(figures.brier))
            rows.add_row(*name, score, *areas)
    console.print(rows)
    console.print(
        f"\nP at R={recall:g}: precision at the highest threshold with this recall of objects, among these negatives. "
        "Brier: mean squared error of the probability."
    )
    for entry in measurements:
        for score in entry.main_scores:
            decision = entry.scores[score].decision
            if decision is not None:
                precision, kept = _estimate(decision.precision), _estimate(decision.recall)
                console.print(
                    f"{score.removeprefix('p_keep ')} keeps {counted(decision.kept, 'mask')}: precision {precision[0]} "
                    f"({precision[1]}), recall {kept[0]} ({kept[1]})."
                )


def _print_differences(console: Console, differences: Sequence[CandidateDifference]) -> None:
    baseline = differences[0].baseline
    entries = [baseline, *(one.entry for one in differences)]
    rows = _table(1, "compared", "AUROC", "95 %", "top-1", "95 %", "Brier", "95 %")
    for one in differences:
        cells = (*_difference(one.auroc), *_difference(one.top_1), *_difference(one.brier))
        rows.add_row(_entry_name(entries, one.entry), *cells)
    console.print(rows)
    console.print(
        f"\nDifferences from {_entry_name(entries, baseline)} on the same masks "
        f"({min(one.masks for one in differences):,} at least), paired, with 95 % intervals by image: an interval that "
        "holds 0 decides nothing."
    )


def _print_details(console: Console, measurements: Sequence[Measurement], entry: Measurement) -> None:
    for score in entry.main_scores:
        figures, name = entry.scores[score], f"{_candidate_name(measurements, entry)}, {score}"
        rows = _table(0, "threshold", "kept", "precision", "95 %", "recall", "95 %")
        for point in figures.curve[:: max(1, len(figures.curve) // 10)]:
            estimates = (*_estimate(point.precision), *_estimate(point.recall))
            rows.add_row(f"{point.threshold:.6g}", f"{point.kept:,}", *estimates)
        _print_titled(console, f"Precision by recall: {name}", rows)
        if figures.reliability:
            rows = _table(0, "probability", "masks", "objects", "95 %")
            for one in figures.reliability:
                rows.add_row(f"{one.p_keep:.3g}", f"{one.masks:,}", *_estimate(one.share))
            _print_titled(console, f"Reliability: {name}", rows)
    rows = _table(1, "class", "objects", "top-1", "95 %", *(("AUROC", "95 %") * len(entry.main_scores)))
    for category, own in entry.classes.items():
        areas = [text for score in entry.main_scores for text in _estimate(own.auroc[score])]
        rows.add_row(category, f"{own.objects:,}", *_estimate(own.top_1), *areas)
    _print_titled(
        console,
        f"Classes: {_candidate_name(measurements, entry)}, AUROC of {', '.join(entry.main_scores)} against all "
        "negatives",
        rows,
    )


def _print_titled(console: Console, title: str, rows: Table) -> None:
    console.print(f"\n{title}")
    console.print(rows)


def _table(names: int, *columns: str) -> Table:
    """Return a table whose first columns are names; its widths fit 80 columns, and nothing of a long name is lost."""
    rows = table(*columns)
    rows.padding = (0, 1, 0, 0)
    for column in rows.columns[:names]:
        column.no_wrap, column.overflow = False, "fold"
    for column in rows.columns[names:]:
        column.justify = "right"
    return rows


def _varied(listed: Sequence[Measurement | Entry]) -> list[str]:
    """Return which of model, view and prompts are not the same everywhere, and the source where these do not do."""
    names = [name for name in ("model", "view", "prompts") if len({getattr(one, name) for one in listed}) > 1]
    told = {tuple(getattr(one, name) for name in names) for one in listed}
    sources = {(one.source, *(getattr(one, name) for name in names)) for one in listed}
    return ["source", *names] if len(sources) > len(told) else names


def _candidate_name(measurements: Sequence[Measurement], entry: Measurement) -> str:
    return ", ".join(getattr(entry, name) for name in _varied(measurements) or ["view"])


def _entry_name(entries: Sequence[Entry], entry: Entry) -> str:
    names = [getattr(entry, name) for name in _varied(entries)]
    return ", ".join(names if len({one.score for one in entries}) == 1 else [*names, entry.score])


def _percent(share: Estimate | None) -> str:
    return "" if share is None else f"{share.value:.1%}"


def _number(share: Estimate | None) -> str:
    return "" if share is None else f"{share.value:.3f}"


def _estimate(estimate: Estimate | None) -> tuple[str, str]:
    return ("", "") if estimate is None else (_number(estimate), f"{estimate.low:.2f}-{estimate.high:.2f}")


def _difference(one: Difference | None) -> tuple[str, str]:
    return ("", "") if one is None else (f"{one.value:+.3f}", f"{one.low:+.2f} {one.high:+.2f}")
