"""All masks of an export in a buffer, for the formats that are written only when every mask is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from maskscore.client import Batch, Client
from maskscore.export.export_counts import ExportCounts
from maskscore.export.job_reader import read_jobs
from maskscore.export.mask_buffer import MaskBuffer, open_mask_buffer
from maskscore.export.parts_source import Parts
from maskscore.export.selection import Selection
from maskscore.results import categories_of

__all__ = ["buffered_masks"]


@contextmanager
def buffered_masks(
    client: Client,
    jobs: Batch | Parts | Iterable[str],
    selection: Selection | None,
    output: AbstractContextManager[Path],
    *,
    segmentations: bool = True,
    segmentation_required: bool = True,
    with_file_metadata: bool = True,
) -> Iterator[tuple[Path, MaskBuffer, ExportCounts]]:
    """Open the output, read the selected masks, and yield the output's path, the masks and the counts.

    ``output`` is entered first, so that one that cannot be written is refused before anything is read. The further
    options, and the errors while masks are read, are those of :func:`maskscore.export.read_jobs` and
    :meth:`Parts.selected`. Raises
    :class:`~maskscore.errors.OutputError` as well, where ``output`` does or the temporary folder is full.
    """
    selection = selection or Selection()
    counts = ExportCounts()
    with output as path, open_mask_buffer(selection) as buffer, ExitStack() as reading:
        if isinstance(jobs, Parts):
            selected = jobs.selected(
                selection, counts, segmentations=segmentations, segmentation_required=segmentation_required
            )
            found = reading.enter_context(selected).jobs(source_order=True)
        else:
            found = read_jobs(
                client,
                jobs,
                selection,
                counts,
                segmentations=segmentations,
                segmentation_required=segmentation_required,
                with_file_metadata=with_file_metadata,
            )
        buffer.fill(found, counts)
        reading.close()
        if isinstance(jobs, Parts):
            # Of a batch they are kept in Redis, which an export of parts does without.
            buffer.batches.clear()
            buffer.add_categories(categories_of(jobs.place))
        yield path, buffer, counts
