"""How many masks of batches, jobs and parts a head keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from maskscore import results
from maskscore.client import Client, scored_results, views_text_of
from maskscore.errors import HeadMismatch
from maskscore.export import ExportCounts, Parts, Selection
from maskscore.heads import HeadApplication
from maskscore.results import PartsPlace, place_text

__all__ = ["HeadCounts", "count_kept"]


@dataclass(slots=True)
class HeadCounts:
    """Masks with scores that a head decides, those of them that it keeps, and those that it does not hold for.

    ``mismatches`` say why it does not, by the job or the place of parts. ``without_result`` counts the jobs and images
    without a result by code.
    """

    decided: int = 0
    kept: int = 0
    undecided: int = 0
    mismatches: dict[str, str] = field(default_factory=dict)
    without_result: Counter[str] = field(default_factory=Counter)


def count_kept(
    client: Client, application: HeadApplication, job_ids: Iterable[str], parts: Iterable[PartsPlace] = ()
) -> HeadCounts:
    """Apply a head to all masks of jobs and of parts, which need ``maskscore[export]``.

    A place of parts is decided as a whole: where the head does not hold for some of its masks, it decides none.
    """
    counts = HeadCounts()
    for result in scored_results(client, job_ids, counts.without_result):
        try:
            components = application.of_result(result, views=views_text_of(client, result)).components
        except HeadMismatch as error:
            counts.mismatches[f"job {result.job_id}"] = str(error)
            counts.undecided += sum(component.skipped is None for component in result.components)
            continue
        counts.decided += sum(component.keep is not None for component in components)
        counts.kept += sum(component.keep is True for component in components)
    for place in parts:
        _add_parts(counts, application, place)
    return counts


def _add_parts(counts: HeadCounts, application: HeadApplication, place: PartsPlace) -> None:
    import pyarrow.dataset as ds

    read = ExportCounts()
    try:
        with Parts(place).selected(Selection(head=application, keep=True), read, segmentations=False) as selected:
            counts.kept += selected.kept
            counts.decided += selected.kept + read.filtered["keep"]
    except HeadMismatch as error:
        counts.mismatches[f"the parts in {place_text(place)}"] = str(error)
        counts.undecided += results.open(place).count_rows(filter=ds.field("skipped").is_null())
    counts.without_result += read.without_result
