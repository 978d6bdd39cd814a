"""Every Prometheus metric of both sides, declared once; ``docs/reference/metrics.md`` is generated from here.

Base units: seconds, bytes, ratios from 0 to 1. Nothing of Prometheus is imported here, so that the list can be read
wherever maskscore is installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["METRICS", "Metric", "Side"]

Kind = Literal["counter", "gauge", "histogram"]
Side = Literal["exporter", "worker", "both", "gateway"]

# From a mask drawn in no time to a job that takes as long as it may (MASKSCORE_JOB_TIMEOUT_S).
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
# A queue may be hours long.
_WAITS: Final = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_CROPS: Final = tuple(2**power for power in range(13))


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its full name, what it counts or measures, and what each of its labels says.

    ``side`` is the process that serves it. ``buckets`` are a histogram's upper bounds.
    """

    name: str
    kind: Kind
    side: Side
    help: str
    labels: dict[str, str] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()

    @property
    def samples(self) -> tuple[str, ...]:
        """The names under which Prometheus stores it, for whoever checks queries."""
        if self.kind == "histogram":
            return tuple(self.name + suffix for suffix in ("_bucket", "_sum", "_count"))
        return (self.name,)


JOBS: Final = Metric(
    "maskscore_jobs",
    "gauge",
    "exporter",
    "Jobs that have not ended, as the ledger counts them. Their sum is the load to scale by.",
    {"state": "`waiting` in the queue, `running` on a worker, `delayed` until a retry is due"},
)
JOBS_ENDED: Final = Metric(
    "maskscore_jobs_ended_total",
    "counter",
    "exporter",
    "Jobs that have ended, as the ledger counts them: it goes on when workers and exporters come and go.",
    {
        "state": "`succeeded`, `failed`, `cancelled` or `expired`",
        "code": "of the failure, for `failed`; every known one begins at 0; else empty",
    },
)
DEAD_LETTERS: Final = Metric(
    "maskscore_dead_letters",
    "gauge",
    "exporter",
    "Jobs given up although their input may be fine, and not yet seen to.",
)
OLDEST_WAITING: Final = Metric(
    "maskscore_oldest_waiting_seconds",
    "gauge",
    "exporter",
    "How long the oldest message in the queue has been there; 0 when no job waits.",
)
WORKERS: Final = Metric(
    "maskscore_workers", "gauge", "exporter", "Workers that are taking jobs, or draining, by their signs of life."
)
REDIS_UP: Final = Metric(
    "maskscore_redis_up",
    "gauge",
    "exporter",
    "1 if Redis answered this scrape, else 0; the exporter's other gauges are absent then.",
)
JOBS_FINISHED: Final = Metric(
    "maskscore_jobs_finished_total",
    "counter",
    "worker",
    "Attempts that ended, by what became of their job.",
    {
        "outcome": "`succeeded`, `failed`, `cancelled`, `expired`; `retried` later after a transient fault; `released` "
        "unfinished by a shutdown; `dropped`, since another attempt had become the current one",
        "code": "of the failure, for `failed` and `retried`, where every known one begins at 0; else empty",
    },
)
MASKS: Final = Metric(
    "maskscore_masks_total",
    "counter",
    "worker",
    "Masks (or connected components) of succeeded jobs.",
    {"outcome": "`scored` or `skipped`", "code": "why it was skipped, where every known one begins at 0; else empty"},
)
STAGE_SECONDS: Final = Metric(
    "maskscore_stage_seconds",
    "histogram",
    "worker",
    "Seconds that one attempt spent in a stage, also where the attempt failed there.",
    {
        "stage": "`fetch`, `decode`, `regions`, `crops`, `encode` (with the wait for the device), `scoring`, `store` "
        "(with the entry in the ledger)"
    },
    _SECONDS,
)
QUEUE_WAIT: Final = Metric(
    "maskscore_queue_wait_seconds",
    "histogram",
    "worker",
    "Seconds from a job's submission to its first claim.",
    {},
    _WAITS,
)
BATCH_CROPS: Final = Metric(
    "maskscore_batch_crops", "histogram", "worker", "Crops per forward pass of the model.", {}, _CROPS
)
BATCH_FILL: Final = Metric(
    "maskscore_batch_fill_ratio",
    "gauge",
    "worker",
    "Share of a batch's places that was used, over the last 10 s; 0 when there was no batch.",
)
IN_FLIGHT: Final = Metric("maskscore_jobs_in_flight", "gauge", "worker", "Jobs that the worker holds a lease on.")
LEASES: Final = Metric(
    "maskscore_leases_total",
    "counter",
    "worker",
    "Renewals of leases, by the ledger's answer.",
    {"outcome": "`renewed`, `lost` (another attempt is the current one), `cancelled` (by the submitter)"},
)
DEVICE_MEMORY: Final = Metric(
    "maskscore_device_memory_bytes",
    "gauge",
    "worker",
    "Memory of the worker's GPU, by all processes on it; absent on a CPU.",
    {"kind": "`used` or `total`"},
)
DEVICE_UTILIZATION: Final = Metric(
    "maskscore_device_utilization_ratio",
    "gauge",
    "worker",
    "Share of the last moments in which the worker's GPU was busy; absent on a CPU and where the driver does not say.",
)
MODEL_INFO: Final = Metric(
    "maskscore_model_info",
    "gauge",
    "worker",
    "1, with the identity of what computes the scores; absent until the model is loaded.",
    {
        "architecture": "of open_clip",
        "weights_digest": "`sha256:...` of the weights file",
        "precision": "of the forward pass",
        "device": "`cpu` or `cuda:N`",
        "version": "of maskscore",
    },
)
SWEEPER_LAPSED: Final = Metric(
    "maskscore_keeper_lapsed_total",
    "counter",
    "both",
    "Jobs whose lease had lapsed: their worker was killed, crashed or was cut off. Counted by the process that swept.",
)
SWEEPER_POISONED: Final = Metric(
    "maskscore_keeper_poisoned_total",
    "counter",
    "both",
    "Those of them that were given up as `poisoned` after their last attempt.",
)
SWEEPER_STRANDED: Final = Metric(
    "maskscore_keeper_stranded_total", "counter", "both", "Jobs whose message was lost and was sent again."
)
SWEEPER_STRAYS: Final = Metric(
    "maskscore_keeper_strays_total",
    "counter",
    "both",
    "Entries and keys in the ledger's namespace that the ledger did not write, and that were put aside.",
)
MESSAGES_REJECTED: Final = Metric(
    "maskscore_messages_rejected_total",
    "counter",
    "worker",
    "Messages in the queue that were not maskscore's, or damaged, and were dropped.",
)
GATEWAY_REQUESTS: Final = Metric(
    "maskscore_gateway_requests_total",
    "counter",
    "gateway",
    "Requests that were answered.",
    {"route": "such as `/v1/jobs/{job_id}`; `none` where there is none", "method": "of HTTP", "status": "of HTTP"},
)
GATEWAY_SECONDS: Final = Metric(
    "maskscore_gateway_seconds",
    "histogram",
    "gateway",
    "Seconds from a request to the first byte of its answer, waits that it asks for included.",
    {"route": "as above"},
    _SECONDS,
)
GATEWAY_IN_PROGRESS: Final = Metric(
    "maskscore_gateway_requests_in_progress",
    "gauge",
    "gateway",
    "Requests that are being answered, open streams of events included.",
)

METRICS: Final = (
    JOBS,
    JOBS_ENDED,
    DEAD_LETTERS,
    OLDEST_WAITING,
    WORKERS,
    REDIS_UP,
    JOBS_FINISHED,
    MASKS,
    STAGE_SECONDS,
    QUEUE_WAIT,
    BATCH_CROPS,
    BATCH_FILL,
    IN_FLIGHT,
    LEASES,
    DEVICE_MEMORY,
    DEVICE_UTILIZATION,
    MODEL_INFO,
    SWEEPER_LAPSED,
    SWEEPER_POISONED,
    SWEEPER_STRANDED,
    SWEEPER_STRAYS,
    MESSAGES_REJECTED,
    GATEWAY_REQUESTS,
    GATEWAY_SECONDS,
    GATEWAY_IN_PROGRESS,
)
"""All of them, in the order of the page."""
