"""What a run came to, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from maskscore.dataset.pairing_counts import Census
from maskscore.dataset.result_counts import Failures, Tally
from maskscore.dataset.submission import Submitted
from maskscore.ledger import BatchCounts

__all__ = ["Summary"]


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a run, or where it was stopped.

    ``counts`` and ``tally`` are of the whole batch, whichever run submitted the jobs; ``submitted``, ``seconds`` and
    ``jobs_per_s`` (jobs that ended, per second) of this run. ``complete``: all images were submitted, and their jobs
    have ended. ``stopped_by`` is the code with which the first jobs all failed, where the run was given up for it.
    """

    batch_id: str
    census: Census
    images: int
    submitted: Submitted
    counts: BatchCounts
    tally: Tally
    seconds: float
    jobs_per_s: float
    complete: bool
    stopped_by: str | None = None

    @property
    def failures(self) -> dict[str, Failures]:
        """Jobs that failed and images that could not be submitted, by code, the most frequent first."""
        both = dict(self.tally.failures)
        for code, refused in self.submitted.refused.items():
            known = both.get(code, Failures())
            both[code] = Failures(count=known.count + refused.count, examples=[*known.examples, *refused.examples])
        return dict(sorted(both.items(), key=lambda item: -item[1].count))

    @property
    def succeeded(self) -> bool:
        """Whether each image has a result, and of each that has masks one was scored."""
        return (
            self.complete
            and self.counts.succeeded == self.counts.total
            and not self.submitted.refused_count
            and not self.tally.unscored.count
        )

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        census = self.census
        return {
            "batch_id": self.batch_id,
            "complete": self.complete,
            "images": self.images,
            "images_without_masks": census.images_without_masks,
            "masks_without_image": census.masks_without_image,
            "annotations_without_image": census.orphans.count,
            "submitted": self.submitted.new,
            "submitted_before": self.submitted.known,
            "refused": self.submitted.refused_count,
            "states": {**asdict(self.counts), "total": self.counts.total},
            "masks": self.tally.masks,
            "multipliers": self.tally.multipliers,
            "masks_left_out": self.submitted.left_out.count,
            "left_out_examples": [reason for _, reason in self.submitted.left_out.examples],
            "skipped": self.tally.skipped,
            "warnings": self.tally.warnings,
            "no_mask_scored": self.tally.unscored.model_dump(),
            "failures": {code: failures.model_dump() for code, failures in self.failures.items()},
            "seconds": round(self.seconds, 3),
            "jobs_per_s": round(self.jobs_per_s, 3),
            **({"stopped_by": self.stopped_by} if self.stopped_by else {}),
        }
