"""An export from batches and jobs to a file, in the format that is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, Final

from maskscore.client import Batch, Client
from maskscore.export.coco_writer import write_coco
from maskscore.export.export_counts import ExportCounts
from maskscore.export.jsonl_writer import write_jsonl
from maskscore.export.label_studio_writer import write_label_studio
from maskscore.export.parquet_writer import write_parquet
from maskscore.export.parts_source import Parts
from maskscore.export.sa1b_writer import write_sa1b
from maskscore.export.selection import Selection
from maskscore.export.yolo_writer import write_yolo

__all__ = ["EXPORT_FORMATS", "JobSource", "export_format_of", "write_export"]

EXPORT_FORMATS: Final = ("jsonl", "parquet", "coco", "sa1b", "yolo", "label-studio")
_FORMATS: Final = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".json": "coco", "": "sa1b"}
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


class JobSource:
    """The ids of the jobs of batches, then of single jobs. Ids of a batch are read page by page, and not held."""

    def __init__(self, client: Client, batches: Sequence[Batch], job_ids: Iterable[str]) -> None:
        self._client, self._batches = client, batches
        self._job_ids = list(dict.fromkeys(job_ids))
        self.total = sum(map(len, batches)) + len(self._job_ids)

    def __iter__(self) -> Iterator[str]:
        for batch in self._batches:
            yield from batch.job_ids()
        yield from self._job_ids

    def wait(self, timeout: float | None, progress: Progress) -> None:
        """Wait until all jobs have ended; ``progress`` is given the results of a batch, and their number.

        Raises :class:`~maskscore.errors.WaitTimeout`.
        """
        handles = [self._client.handle(job_id) for job_id in self._job_ids]
        waits = [(batch.as_completed(timeout), len(batch)) for batch in self._batches]
        for results, count in [*waits, (self._client.as_completed(handles, timeout=timeout), len(handles))]:
            for _ in progress(results, count):
                pass


def export_format_of(output: str) -> str | None:
    """Return the format that the ending of a file's name says; ``-`` is stdout, which is JSON Lines."""
    return "jsonl" if output == "-" else _FORMATS.get(PurePath(output).suffix.lower())


def write_export(
    client: Client,
    source: Parts | Iterable[str],
    output: str,
    format_: str,
    selection: Selection,
    *,
    segmentations: bool,
) -> ExportCounts:
    """Write the selected masks of jobs or parts in a format of :data:`EXPORT_FORMATS`; raises as its writer does."""
    if format_ == "jsonl":
        place = sys.stdout if output == "-" else output
        return write_jsonl(client, source, place, selection, segmentations=segmentations)
    if format_ == "parquet":
        return write_parquet(client, source, output, selection, segmentations=segmentations)
    write = {"coco": write_coco, "sa1b": write_sa1b, "yolo": write_yolo, "label-studio": write_label_studio}[format_]
    return write(client, source, output, selection)
