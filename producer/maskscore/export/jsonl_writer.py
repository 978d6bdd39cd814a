"""JSON Lines: a mask per line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from maskscore.client import Batch, Client
from maskscore.export.export_counts import ExportCounts
from maskscore.export.job_reader import ExportedJob, read_jobs
from maskscore.export.mask_buffer import open_mask_buffer
from maskscore.export.parts_source import Parts
from maskscore.export.selection import Selection
from maskscore.storage import Output, output_file

__all__ = ["write_jsonl"]


def write_jsonl(
    client: Client,
    jobs: Batch | Parts | Iterable[str],
    output: Output | IO[str],
    selection: Selection | None = None,
    *,
    segmentations: bool = True,
) -> ExportCounts:
    """Write one JSON object per mask and line, :class:`~maskscore.export.ExportedMask`'s fields.

    ``output`` may be an open text file, too, such as ``sys.stdout``: lines go there as they come. ``segmentations``
    can be left out; then the masks are not read again.

    Raises :class:`~maskscore.errors.OutputError` when the output cannot be written, and as
    :meth:`maskscore.Client.get` does, but for jobs without a result, which are counted.
    """
    selection = selection or Selection()
    counts = ExportCounts()
    with _opened(output, client) as file, ExitStack() as reading:
        # Parts are sorted and cut off as they are read.
        as_they_come = not selection.needs_all
        if isinstance(jobs, Parts):
            selected = reading.enter_context(jobs.selected(selection, counts, segmentations=segmentations))
            as_they_come = not selection.compares_masks
            found = selected.jobs(source_order=False)
        else:
            found = read_jobs(client, jobs, selection, counts, segmentations=segmentations)
        for line in _as_they_come(found, counts) if as_they_come else _of_all(found, selection, counts):
            file.write(line + "\n")
    return counts


def _as_they_come(jobs: Iterator[ExportedJob], counts: ExportCounts) -> Iterator[str]:
    for job in jobs:
        counts.kept += len(job.masks)
        counts.labels.update(mask.label for mask in job.masks if mask.label is not None)
        yield from (mask.model_dump_json() for mask in job.masks)


def _of_all(jobs: Iterator[ExportedJob], selection: Selection, counts: ExportCounts) -> Iterator[str]:
    with open_mask_buffer(selection) as buffer:
        buffer.fill(jobs, counts)
        yield from (mask.json for mask in buffer.masks())


@contextmanager
def _opened(output: Output | IO[str], client: Client) -> Iterator[IO[str]]:
    if not isinstance(output, Output):
        yield output
        return
    with (
        output_file(output, client.objects, content_type="application/x-ndjson") as path,
        path.open("w", encoding="utf-8") as file,
    ):
        yield file
