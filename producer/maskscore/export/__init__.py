"""Results as files that other tools read: one function per format.

>>> from maskscore import Client
>>> from maskscore.export import Selection, write_parquet
>>> with Client() as client:  # doctest: +SKIP
...     best = Selection(min_multiplier=1.0, top=1000)
...     print(write_parquet(client, client.batch("nightly"), "masks.parquet", best))

``write_jsonl``, ``write_coco``, ``write_sa1b``, ``write_parquet``, ``write_yolo`` and ``write_label_studio``
take a client, a batch, the ids of jobs or :class:`Parts`, the place to write to and a :class:`Selection`, and
return :class:`ExportCounts`. All but JSON Lines in the jobs' order need ``maskscore[export]``.
docs/reference/export.md describes the formats.
"""

from __future__ import annotations

from maskscore.export.coco_writer import write_coco
from maskscore.export.export_counts import ExportCounts
from maskscore.export.export_run import EXPORT_FORMATS, JobSource, export_format_of, write_export
from maskscore.export.exported_mask import ExportedMask
from maskscore.export.file_metadata import FileMetadata
from maskscore.export.job_reader import ExportedJob, read_jobs
from maskscore.export.jsonl_writer import write_jsonl
from maskscore.export.label_studio_writer import write_label_studio
from maskscore.export.labels import LABEL_SOURCES, Labelling, read_classes
from maskscore.export.parquet_writer import write_parquet
from maskscore.export.parts_source import Parts
from maskscore.export.ranking import DEFAULT_WEIGHTS, Ranking
from maskscore.export.sa1b_writer import write_sa1b
from maskscore.export.selected_parts import SelectedParts
from maskscore.export.selection import Selection
from maskscore.export.yolo_writer import write_yolo

__all__ = [
    "DEFAULT_WEIGHTS",
    "EXPORT_FORMATS",
    "LABEL_SOURCES",
    "ExportCounts",
    "ExportedJob",
    "ExportedMask",
    "FileMetadata",
    "JobSource",
    "Labelling",
    "Parts",
    "Ranking",
    "SelectedParts",
    "Selection",
    "export_format_of",
    "read_classes",
    "read_jobs",
    "write_coco",
    "write_export",
    "write_jsonl",
    "write_label_studio",
    "write_parquet",
    "write_sa1b",
    "write_yolo",
]
