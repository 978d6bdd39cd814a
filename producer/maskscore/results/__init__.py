"""The results of shards: tables of Arrow, and images one by one. Needs ``maskscore[export]`` (pyarrow).

>>> from maskscore import results
>>> results.open("s3://scores/run-1/").to_table(columns=["image", "s_pos"])  # doctest: +SKIP

:func:`open` gives the tables to whoever queries them, :func:`image_results` each image with its masks,
:func:`open_parts` a table with what its files say of how its masks were scored.
"""

from __future__ import annotations

from maskscore.results.parts_dataset import (
    OpenedParts,
    PartsPlace,
    Table,
    categories_of,
    concatenated,
    is_parts_folder,
    open,
    open_parts,
    place_text,
)
from maskscore.results.results_by_image import ImageResult, Listing, box_of, image_results, top_k_of, upstream_of
from maskscore.results.superseded_rows import RETRY, retry_name, retry_number, superseded_rows

__all__ = [
    "RETRY",
    "ImageResult",
    "Listing",
    "OpenedParts",
    "PartsPlace",
    "Table",
    "box_of",
    "categories_of",
    "concatenated",
    "image_results",
    "is_parts_folder",
    "open",
    "open_parts",
    "place_text",
    "retry_name",
    "retry_number",
    "superseded_rows",
    "top_k_of",
    "upstream_of",
]
