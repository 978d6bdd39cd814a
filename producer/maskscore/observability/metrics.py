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
        """The names under which Prometheus stores it, by which queries are checked."""
        if self.kind == "histogram":
            return tuple(self.name + suffix for suffix in ("_bucket", "_sum", "_count"))
        return (self.name,)


JOBS: Final = Metric(
    "maskscore_jobs",
    "gauge",
    "exporter",
    "Jobs that have not ended, as the ledger counts them, of all models. Their sum is the load to scale by where there "
    "is one model.",
    {"state": "`waiting` in the queue, `running` on a worker, `delayed` until a retry is due"},
)
JOBS_ENDED: Final = Metric(
    "maskscore_jobs_ended_total",
    "counter",
    "exporter",
    "Jobs that have ended, as the ledger counts them; the count continues when workers and exporters are replaced.",
    {
        "state": "`succeeded`, `failed`, `cancelled` or `expired`",
        "code": "of the failure, for `failed`; every known code starts at 0; otherwise empty",
    },
)
DEAD_LETTERS: Final = Metric(
    "maskscore_dead_letters",
    "gauge",
    "exporter",
    "Jobs that were given up although their input may be valid, and were neither requeued nor dropped.",
)
OLDEST_WAITING: Final = Metric(
    "maskscore_oldest_waiting_seconds",
    "gauge",
    "exporter",
    "Age of the oldest waiting job; 0 when no job waits.",
)
WORKERS: Final = Metric(
    "maskscore_workers", "gauge", "exporter", "Workers that are taking jobs or draining, by their recent reports."
)
_OF_MODELS: Final = (
    'name of the model (`MASKSCORE_MODEL_NAME`), "default" for the one without; at most 50, those with workers first, '
    'and "_other" for all others together'
)
MODEL_JOBS: Final = Metric(
    "maskscore_model_jobs",
    "gauge",
    "exporter",
    "Jobs that have not ended, by the model that they ask for. Their sum over the states is the load to scale the "
    "workers of a model by.",
    {"model": _OF_MODELS, **JOBS.labels},
)
MODEL_WORKERS: Final = Metric(
    "maskscore_model_workers",
    "gauge",
    "exporter",
    "Workers that are taking jobs or draining, by the model that they serve.",
    {"model": _OF_MODELS},
)
TENANT_JOBS: Final = Metric(
    "maskscore_tenant_jobs",
    "gauge",
    "exporter",
    "Jobs that wait or run, by tenant.",
    {
        "tenant": "name of the tenant, empty for jobs without tenant and batch; the 20 with the most jobs, and "
        "`_other` for all others together",
        "state": "`waiting` or `running`",
    },
)
REDIS_UP: Final = Metric(
    "maskscore_redis_up",
    "gauge",
    "exporter",
    "1 if Redis answered during this scrape, otherwise 0, and the exporter's other gauges are absent.",
)
JOBS_FINISHED: Final = Metric(
    "maskscore_jobs_finished_total",
    "counter",
    "worker",
    "Attempts that ended, by the outcome for their job.",
    {
        "outcome": "`succeeded`, `failed`, `cancelled`, `expired`; `retried`: a transient fault, the job runs again "
        "later; `released`: unfinished at a shutdown; `dropped`: another attempt had become the current "
        "one",
        "code": "of the failure, for `failed` and `retried`; every known code starts at 0; otherwise empty",
    },
)
MASKS: Final = Metric(
    "maskscore_masks_total",
    "counter",
    "worker",
    "Masks (or connected components) of succeeded jobs.",
    {"outcome": "`scored` or `skipped`", "code": "of `skipped` masks; every known code starts at 0; otherwise empty"},
)
STAGE_SECONDS: Final = Metric(
    "maskscore_stage_seconds",
    "histogram",
    "worker",
    "Seconds that an attempt spent in a stage, including a stage in which it failed.",
    {
        "stage": "`fetch`, `decode`, `regions`, `crops`, `encode` (including the wait for the device), `scoring`, "
        "`store` (including the ledger's entry)"
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
    "Share of the batches' capacity that was used, over the last 10 s; 0 when there was no batch.",
)
IN_FLIGHT: Final = Metric("maskscore_jobs_in_flight", "gauge", "worker", "Jobs on which the worker holds a lease.")
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
    "Memory of the worker's GPU, used by all processes; absent on a CPU.",
    {"kind": "`used` or `total`"},
)
DEVICE_UTILIZATION: Final = Metric(
    "maskscore_device_utilization_ratio",
    "gauge",
    "worker",
    "Share of the driver's last sampling period in which the worker's GPU was busy; absent on a CPU, "
    "and if the driver does not report it.",
)
MODEL_INFO: Final = Metric(
    "maskscore_model_info",
    "gauge",
    "worker",
    "1, with the identity of the model as labels; absent until the model is loaded.",
    {
        "model": "the name under which the worker serves it; `default` without one",
        "architecture": "of open_clip",
        "weights_digest": "`sha256:...` of the weights file",
        "precision": "of the forward pass",
        "device": "`cpu` or `cuda:N`",
        "version": "of maskscore",
    },
)
STEPPED_DOWN: Final = Metric(
    "maskscore_stepped_down",
    "gauge",
    "worker",
    "1 for a part of the fast path that gave other values than the plain path, which is taken instead; otherwise 0.",
    {"part": "`crops`, `forward`, `graphs`, `precision` or `threads`"},
)
SPOT_CHECKS: Final = Metric(
    "maskscore_spot_checks_total",
    "counter",
    "worker",
    "Comparisons of the running fast path with the plain path (`MASKSCORE_SPOT_CHECK_SHARE`).",
    {"outcome": "`agreed` or `differed`"},
)
SWEEPER_LAPSED: Final = Metric(
    "maskscore_keeper_lapsed_total",
    "counter",
    "both",
    "Jobs whose lease lapsed because their worker was killed, crashed or was cut off. Counted by the "
    "process that sweeps.",
)
SWEEPER_POISONED: Final = Metric(
    "maskscore_keeper_poisoned_total",
    "counter",
    "both",
    "Jobs that were given up as `poisoned` when a lease lapsed.",
)
SWEEPER_MISSING: Final = Metric(
    "maskscore_keeper_stranded_total",
    "counter",
    "both",
    "Tickets that the sweeper sent, since fewer were queued than jobs: they were lost, or busy workers hold them.",
)
SWEEPER_STRAYS: Final = Metric(
    "maskscore_keeper_strays_total",
    "counter",
    "both",
    "Foreign entries and keys in the ledger's namespace that were set aside.",
)
MESSAGES_REJECTED: Final = Metric(
    "maskscore_messages_rejected_total",
    "counter",
    "worker",
    "Foreign or damaged messages that were dropped from the queue.",
)
GATEWAY_REQUESTS: Final = Metric(
    "maskscore_gateway_requests_total",
    "counter",
    "gateway",
    "Requests that were answered.",
    {"route": "such as `/v1/jobs/{job_id}`; `none` if no route matches", "method": "of HTTP", "status": "of HTTP"},
)
GATEWAY_SECONDS: Final = Metric(
    "maskscore_gateway_seconds",
    "histogram",
    "gateway",
    "Seconds from a request to the first byte of its response, including requested waits.",
    {"route": "as above"},
    _SECONDS,
)
GATEWAY_IN_PROGRESS: Final = Metric(
    "maskscore_gateway_requests_in_progress",
    "gauge",
    "gateway",
    "Requests in progress, including open event streams.",
)

METRICS: Final = (
    JOBS,
    JOBS_ENDED,
    DEAD_LETTERS,
    OLDEST_WAITING,
    WORKERS,
    MODEL_JOBS,
    MODEL_WORKERS,
    TENANT_JOBS,
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
    STEPPED_DOWN,
    SPOT_CHECKS,
    SWEEPER_LAPSED,
    SWEEPER_POISONED,
    SWEEPER_MISSING,
    SWEEPER_STRAYS,
    MESSAGES_REJECTED,
    GATEWAY_REQUESTS,
    GATEWAY_SECONDS,
    GATEWAY_IN_PROGRESS,
)
"""All of them, in the order of the page."""
