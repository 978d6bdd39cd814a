"""The progress and the summary of a run of shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maskscore import results
from maskscore.dataset.pairing_counts import PairingCounts
from maskscore.dataset.result_counts import FailureCounts
from maskscore.ledger import JobStatus
from maskscore.schema import Failure, JobState, ShardCounts, ShardOutcome

__all__ = ["ShardProgressCounts", "ShardRunSummary", "image_failures", "images_scored_again", "progress_of"]


@dataclass(frozen=True, slots=True)
class ShardProgressCounts:
    """How many shards were submitted and have ended, and what their committed parts hold.

    ``complete``: no more are to be submitted. ``trouble`` says why it does not go on, and the run waits.
    """

    shards: int
    ended: int
    images: int
    masks: int
    parts: int
    complete: bool = True
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class ShardRunSummary:
    """The outcome of a run of shards that has ended or was stopped.

    ``states`` counts shards; ``counts`` is over those that have succeeded. ``failures`` are by the URI of the tar or of
    the list; ``image_failures`` are of shards that have succeeded, by code. ``pairing_counts``, ``refused`` and
    ``left_out``: as those of :class:`OpenShards`.
    """

    batch_id: str
    output_uri: str
    states: dict[str, int]
    progress: ShardProgressCounts
    counts: ShardCounts
    seconds: float
    failures: dict[str, Failure]
    image_failures: dict[str, FailureCounts]
    pairing_counts: PairingCounts | None
    refused: dict[str, FailureCounts]
    left_out: FailureCounts

    @property
    def succeeded(self) -> bool:
        """Whether all shards have succeeded, and no image of them failed, and not all masks were skipped."""
        counts = self.counts
        every = self.progress.complete and self.states.get("succeeded", 0) == self.progress.shards and not self.refused
        return every and not counts.failed and counts.masks > counts.skipped

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        pairing = self.pairing_counts
        of_pairs = (
            {}
            if pairing is None
            else {
                "images_without_masks": pairing.images_without_masks,
                "masks_without_image": pairing.masks_without_image,
                "annotations_without_image": pairing.orphans.count,
                "refused": {code: failures.model_dump() for code, failures in self.refused.items()},
                "masks_left_out": self.left_out.count,
            }
        )
        return {
            "batch_id": self.batch_id,
            "output": self.output_uri,
            "complete": self.progress.complete,
            "shards": self.progress.shards,
            "states": self.states,
            "parts": self.progress.parts,
            "images": self.progress.images,
            "images_failed": self.counts.failed,
            "image_failures": {code: failures.model_dump() for code, failures in self.image_failures.items()},
            "masks": self.progress.masks,
            "masks_skipped": self.counts.skipped,
            "other_members": self.counts.others,
            **of_pairs,
            "failures": {uri: failure.model_dump() for uri, failure in self.failures.items()},
            "seconds": round(self.seconds, 3),
        }


def image_failures(outcomes: list[ShardOutcome]) -> dict[str, FailureCounts]:
    """Return the failed images of shards by code, the most frequent first; none where pyarrow is not installed.

    What was scored again counts as what came of it.
    """
    try:
        images = results.open(outcomes, "images")
    except ModuleNotFoundError:
        return {}
    import pyarrow.compute as pc

    found: dict[str, FailureCounts] = {}
    superseded = results.superseded_rows(images)
    columns = ["code", "message", "image", "masks", "job_id", "position"]
    for batch in images.to_batches(columns=columns, filter=pc.field("state") == str(JobState.FAILED)):
        for row in batch.to_pylist():
            if (row["job_id"], row["position"]) in superseded:
                continue
            name = row["image"] or row["masks"] or ""
            found.setdefault(row["code"], FailureCounts()).add(lambda name=name: name, row["message"])  # type: ignore[misc]
    return dict(sorted(found.items(), key=lambda item: -item[1].count))


def images_scored_again(outcomes: list[ShardOutcome]) -> int:
    """Return how many failed images of shards have a later row, of those of them that score images again."""
    if not any(results.retry_number(outcome.name) is not None for outcome in outcomes):
        return 0
    try:
        return len(results.superseded_rows(results.open(outcomes, "images")))
    except ModuleNotFoundError:
        return 0


def progress_of(statuses: list[JobStatus], complete: bool, trouble: str | None = None) -> ShardProgressCounts:
    """Return the counts over shards."""
    found = [status.progress for status in statuses if status.progress is not None]
    return ShardProgressCounts(
        shards=len(statuses),
        ended=sum(status.state.ended for status in statuses),
        images=sum(progress.images for progress in found),
        masks=sum(progress.masks for progress in found),
        parts=sum(progress.parts for progress in found),
        complete=complete,
        trouble=trouble,
    )
