"""Whole datasets: images paired with their masks, submitted as a batch, and followed to a summary.

:func:`run_dataset` is the one verb; the rest are its parts. ``names`` and ``roots`` know files, ``index`` and
``pairing`` which masks belong to which image, ``jobs`` what is asked, ``submission`` and ``collection`` the two halves
that run at the same time, ``tally`` and ``summary`` what came of it.
"""

from __future__ import annotations

from maskscore.dataset.open_dataset import (
    Dataset,
    Opened,
)
from maskscore.dataset.pairing import Pair, Pairing
from maskscore.dataset.pairing_counts import Census
from maskscore.dataset.result_counts import Failures, Tally
from maskscore.dataset.run_options import Order, default_batch_id, run_dataset
from maskscore.dataset.run_summary import Summary
from maskscore.dataset.runner import Progress

__all__ = [
    "Census",
    "Dataset",
    "Failures",
    "Opened",
    "Order",
    "Pair",
    "Pairing",
    "Progress",
    "Summary",
    "Tally",
    "default_batch_id",
    "run_dataset",
]
