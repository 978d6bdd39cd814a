"""The summary of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from maskscore.dataset.pairing_counts import PairingCounts
from maskscore.dataset.result_counts import FailureCounts, ResultCounts
from maskscore.dataset.submission import Submitted
from maskscore.ledger import BatchCounts

__all__ = ["RunSummary"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The outcome of a run that has ended or was stopped.

    ``counts`` and ``result_counts`` cover the whole batch, whichever run submitted the jobs; ``submitted``,
    ``seconds`` and ``jobs_per_s`` (jobs that ended, per second) cover this run. ``complete``: all images were
    submitted, and their jobs have ended. ``stopped_by`` is the failure code of the first jobs, where the run stopped
    because all of them failed with it.
    """

    batch_id: str
    pairing_counts: PairingCounts
    images: int
    submitted: Submitted
    counts: BatchCounts
    result_counts: ResultCounts
    seconds: float
    jobs_per_s: float
    complete: bool
    stopped_by: str | None = None

    @property
    def failures(self) -> dict[str, FailureCounts]:
        """Jobs that failed and images that could not be submitted, by code, the most frequent first."""
        both = dict(self.result_counts.failures)
        for code, refused in self.submitted.refused.items():
            known = both.get(code, FailureCounts())
            both[code] = FailureCounts(count=known.count + refused.count, examples=[*known.examples, *refused.examples])
        return dict(sorted(both.items(), key=lambda item: -item[1].count))

    @property
    def succeeded(self) -> bool:
        """Whether each image has a result, and of each that has masks one was scored."""
        return (
            self.complete
            and self.counts.succeeded == self.counts.total
            and not self.submitted.refused_count
            and not self.result_counts.no_mask_scored.count
        )

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        pairing_counts = self.pairing_counts
        saved = self.result_counts.copies + self.result_counts.parts
        return {
            "batch_id": self.batch_id,
            "complete": self.complete,
            "images": self.images,
            "images_without_masks": pairing_counts.images_without_masks,
            "masks_without_image": pairing_counts.masks_without_image,
            "annotations_without_image": pairing_counts.orphans.count,
            "submitted": self.submitted.new,
            "submitted_before": self.submitted.known,
            "refused": self.submitted.refused_count,
            "states": {**asdict(self.counts), "total": self.counts.total},
            "masks": self.result_counts.masks,
            "multipliers": self.result_counts.multipliers,
            "masks_left_out": self.submitted.left_out.count,
            "left_out_examples": [reason for _, reason in self.submitted.left_out.examples],
            "skipped": self.result_counts.skipped,
            **({"forwards_saved": round(self.result_counts.share_of_forwards(saved), 4)} if saved else {}),
            "warnings": self.result_counts.warnings,
            "no_mask_scored": self.result_counts.no_mask_scored.model_dump(),
            "failures": {code: failures.model_dump() for code, failures in self.failures.items()},
            "seconds": round(self.seconds, 3),
            "jobs_per_s": round(self.jobs_per_s, 3),
            **({"stopped_by": self.stopped_by} if self.stopped_by else {}),
        }
