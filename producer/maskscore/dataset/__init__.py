"""Scoring a whole dataset: list its files, pair images with masks, submit a batch, collect the results.

:func:`run_dataset` does all of it with a job per image and returns a :class:`RunSummary`; :func:`run_shards` does it
with shards, into Parquet. :func:`shards` yields these shards for a batch of one's own. :func:`shards_of_parts` yields
those that score earlier parts again by their embeddings.
"""

from __future__ import annotations

from maskscore.dataset.dataset_shards import shards
from maskscore.dataset.job_documents import job_of_image, read_jobs
from maskscore.dataset.open_dataset import Dataset, OpenDataset
from maskscore.dataset.pair_list_shards import PAIRS_PER_LIST
from maskscore.dataset.pairing import Pair, Pairing
from maskscore.dataset.pairing_counts import PairingCounts
from maskscore.dataset.result_counts import FailureCounts, ResultCounts
from maskscore.dataset.run_options import RunOptions, default_batch_id
from maskscore.dataset.run_progress import RunProgress
from maskscore.dataset.run_summary import RunSummary
from maskscore.dataset.runner import run_dataset
from maskscore.dataset.shard_run import make_output_folder, run_shards
from maskscore.dataset.shard_run_summary import ShardProgressCounts, ShardRunSummary
from maskscore.dataset.shards_from_embeddings import shards_of_parts
from maskscore.dataset.tar_files import find_tars, is_tar

__all__ = [
    "PAIRS_PER_LIST",
    "Dataset",
    "FailureCounts",
    "OpenDataset",
    "Pair",
    "Pairing",
    "PairingCounts",
    "ResultCounts",
    "RunOptions",
    "RunProgress",
    "RunSummary",
    "ShardProgressCounts",
    "ShardRunSummary",
    "default_batch_id",
    "find_tars",
    "is_tar",
    "job_of_image",
    "make_output_folder",
    "read_jobs",
    "run_dataset",
    "run_shards",
    "shards",
    "shards_of_parts",
]
