"""The last line of ``rescore --wait``: what came of the jobs."""

from __future__ import annotations

from maskscore.cli.rescore import _Tally
from maskscore.schema import Component, Failure, JobResult, JobState, ShardCounts, ShardOutcome, Skipped

SCORED = JobResult(
    job_id="scored",
    state=JobState.SUCCEEDED,
    components=[
        Component(id="a", index=0),
        Component(id="b", index=1, skipped=Skipped(code="empty_mask", message="No pixel.")),
    ],
    encoded=1,
)
GONE = JobResult(
    job_id="gone", state=JobState.FAILED, error=Failure(code="image_not_found", message="There is no image.")
)
SHARD = JobResult(
    job_id="shard",
    state=JobState.SUCCEEDED,
    shard=ShardOutcome(
        name="a", output_uri="s3://b/out", parts=2, counts=ShardCounts(images=3, failed=0, masks=9, skipped=2)
    ),
)


def summary(*results: JobResult) -> str:
    tally = _Tally()
    assert list(tally.of(results)) == list(results)
    return str(tally)


def test_the_summary_says_what_came_of_the_jobs() -> None:
    assert summary(SCORED) == "1 mask scored: 0 from the cache, 1 encoded"
    assert summary(SHARD) == "7 masks scored, of shards into 2 parts"
    assert summary(GONE, GONE) == "no mask scored; 2 jobs without a result: image_not_found 2"
    assert summary(SCORED, GONE, SHARD) == (
        "1 mask scored: 0 from the cache, 1 encoded; 7 masks scored, of shards into 2 parts; "
        "1 job without a result: image_not_found 1"
    )
