"""Parts of a shard: two Parquet files, a table of masks and one of images. Needs ``maskscore[export]`` (pyarrow).

:func:`part_tables` makes the tables of :class:`ImageOutcome`, :func:`write_part` writes them whole or not at all.
docs/explanation/shards.md describes the columns.
"""

from __future__ import annotations

from maskscore.parts.coco_segmentation import CocoSegmentation, rle_of
from maskscore.parts.image_outcome import ImageOutcome
from maskscore.parts.part_files import CATEGORIES_FILE, PartNames, part_names, remove_parts, write_part
from maskscore.parts.table_building import PARTS_VERSION, PartTables, outcome_tables, part_tables, shard_counts
from maskscore.parts.upstream_columns import MOST_COLUMNS, UpstreamColumns

__all__ = [
    "CATEGORIES_FILE",
    "MOST_COLUMNS",
    "PARTS_VERSION",
    "CocoSegmentation",
    "ImageOutcome",
    "PartNames",
    "PartTables",
    "UpstreamColumns",
    "outcome_tables",
    "part_names",
    "part_tables",
    "remove_parts",
    "rle_of",
    "shard_counts",
    "write_part",
]
