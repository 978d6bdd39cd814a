"""Settings of all sides, read from ``MASKSCORE_…`` variables; ``docs/reference/settings.md`` is generated from here.

S3's address and credentials are the usual ``AWS_…`` variables and files, read by boto3 itself. All settings are
declared in this one module, so it is longer than others.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from maskscore.errors import SettingsError
from maskscore.schema import ModelName, explain
from maskscore.text import closest

__all__ = [
    "ALL_FIELDS",
    "PREFIX",
    "ClientSettings",
    "GatewaySettings",
    "WorkerSettings",
    "default_text",
    "load_settings",
    "unknown_variables",
    "warn_of_unknown_variables",
]

PREFIX = "MASKSCORE_"

LogFormat = Literal["text", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
CropMode = Literal["fast", "reference"]
CropDevice = Literal["auto", "cpu", "device"]
Precision = Literal["fp32", "mixed", "fp16", "bf16", "auto"]
MIB = 1024 * 1024


def _parts(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_parts)]


_LOG_FORMAT: Any = Field("text", description="`json`: one JSON object per line, with job ids as a field.")
_LOG_LEVEL: Any = Field("INFO", description="Minimum level of logged messages.")


class ClientSettings(BaseSettings):
    """What a producer needs, and a worker too."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        # It may hold a password.
        repr=False,
        description="URL of the Redis for queue, ledger and results, with credentials; `rediss://` for TLS; "
        "`?ssl_ca_certs=/etc/redis-ca.pem` for a private certificate authority. With Sentinel: "
        "`sentinel://:password@host1:26379,host2:26379/0?master=NAME`, and `&sentinel_password=...` if "
        "the Sentinels have their own password.",
    )
    namespace: str = Field(
        "maskscore",
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Prefix of all Redis keys, and name of the queue. Deployments that share a Redis need different "
        "namespaces.",
    )
    redis_timeout_s: float = Field(
        10.0, gt=0, description="Seconds after which an unanswered Redis command counts as failed."
    )
    result_ttl_s: int = Field(
        7 * 24 * 3600, gt=0, description="Seconds for which Redis keeps an ended job's state and result."
    )
    queue_limit: int = Field(
        1_000_000, gt=0, description="Maximum number of queued jobs; beyond it, `submit` raises `QueueFull`."
    )
    tenant_max_queued: int | None = Field(
        None,
        gt=0,
        description="Maximum number of queued jobs of a tenant without a limit of its own (`maskscore tenants`); "
        "beyond it, `submit` raises `QueueFull`. A batch without a tenant is one. Unset: no limit.",
    )
    tenant_max_running: int | None = Field(
        None,
        gt=0,
        description="Maximum number of running jobs of a tenant without a limit of its own. To be the same for all "
        "workers. Unset: no limit.",
    )
    tenant_masks_per_second: float | None = Field(
        None,
        gt=0,
        description="Maximum number of masks per second of a tenant without a limit of its own, on average. To be the "
        "same for all workers. Unset: no limit.",
    )
    max_document_bytes: int = Field(
        1 * MIB,
        gt=0,
        description="Maximum size of a job document in Redis, in bytes; larger masks go to `MASKSCORE_SPILL_URI`.",
    )
    spill_uri: str | None = Field(
        None,
        pattern=r"^s3://[^/]+/(.*/)?$",
        description="`s3://bucket/prefix/` where clients put masks that are too large for Redis; unset: they are "
        "refused.",
    )


class WorkerSettings(ClientSettings):
    """What a worker needs beside the client's settings."""

    weights: Path | None = Field(
        None, description="Folder with `open_clip_model.safetensors` (or `open_clip_pytorch_model.bin`)."
    )
    model: str = Field(
        "ViT-B-32",
        description="open_clip architecture; a folder with its own `open_clip_config.json` overrides it.",
    )
    pretrained: str | None = Field(
        None,
        description="open_clip's tag of the weights (`maskscore weights list`), which gives a folder without "
        "`open_clip_config.json` its preprocessing. Needed only where the architecture's weights differ in it.",
    )
    model_name: ModelName | None = Field(
        None,
        description="Name of the model that this worker serves: it takes the jobs whose `options.model` is this name, "
        "and no others. Unset, or `default`: the jobs that ask for no model.",
    )
    device: str = Field(
        "auto",
        description="`cuda:N`, `cuda` or `cpu`; `auto`: `cuda:4` if it exists, else the first GPU, else the CPU.",
    )
    precision: Precision = Field(
        "fp32",
        description="Precision of the image tower. `bf16` is 2 to 4 times as fast on processors that support it, and "
        "changes probabilities: by up to 0.3 with the `logit_scale` of released CLIPs, and by more than "
        "0.03 for 1 mask in 40 (docs/explanation/performance.md). `mixed`, of CPUs with AMX "
        "alone, rounds the factors of large products to bf16 and keeps all else in fp32: nearly twice as fast as "
        "fp32, with a third of the error of bf16. `fp16`, of GPUs alone, rounds eight times as finely as "
        "bf16. Weights that do not bear `mixed` or `fp16` are served in fp32, with a warning. `auto` "
        "is fp16 on GPUs and fp32 on CPUs. `maskscore weights check --precision` measures all "
        "of them with the weights at hand.",
    )
    spot_check_share: float = Field(
        0.0005,
        ge=0,
        le=0.1,
        description="Share of the encoded crops that are spot checks: known crops, made and encoded beside the jobs', "
        "whose values are compared with those of the plain path. 0: only at the start.",
    )
    crop_mode: CropMode = Field(
        "fast", description="`reference` runs the specification's own per-mask code, for comparison."
    )
    crop_device: CropDevice = Field(
        "auto",
        description="Where crops are made. `cpu`: in the task threads. `device`: on the model's device, a batch at a "
        "time. `auto`: `device` on a GPU, otherwise `cpu`. The crop mode `reference` always uses the CPU.",
    )
    concurrency: int = Field(
        6,
        ge=1,
        le=256,
        description="Number of task threads: jobs that are fetched, decoded and cropped at the same time.",
    )
    torch_threads: int = Field(0, ge=0, description="Cores for forward passes on a CPU; 0: all that PyTorch finds.")
    max_batch: int = Field(
        64, ge=1, le=4096, description="Maximum number of crops per forward pass; on a CPU at most 8."
    )
    max_wait_ms: float = Field(
        5.0,
        ge=0,
        description="Milliseconds that a batch waits for more crops after its first one, if another job is about to "
        "deliver some.",
    )
    prompts: str = Field("default", description="Prompt set that is encoded at the start, before the first job.")
    prompts_dir: Path | None = Field(
        None, description="Folder of prompt sets `NAME.yaml` that jobs may name, in addition to the built-in ones."
    )
    heads_dir: Path | None = Field(None, description="Folder of heads `NAME.json` that jobs and exports may name.")
    prompt_cache: int = Field(32, ge=1, description="Number of prompt sets whose features are kept in memory.")
    feature_cache: str | None = Field(
        None,
        pattern=r"^(redis|/.*)$",
        description="Cache of mask features, so that scoring again with other prompts needs no forward pass: `redis`, "
        "or the absolute path of a folder on a local disk; unset: no cache.",
    )
    feature_cache_bytes: int = Field(
        1024 * MIB,
        ge=MIB,
        description="Maximum size of the feature cache in bytes, about 2.4 KB per mask; the least recently used "
        "features are removed first.",
    )
    buckets: Names = Field(
        (), description="Buckets that jobs may read, separated by commas; `*` allows all; unset: none."
    )
    result_buckets: Names = Field(
        (), description="Buckets that jobs may write results to, separated by commas; unset: none."
    )
    file_roots: Paths = Field(
        (), description="Folders whose files jobs may read as `file://`, separated by commas; unset: none."
    )
    result_roots: Paths = Field(
        (), description="Folders that shards may write their parts to, as `file://`, separated by commas; unset: none."
    )
    max_image_bytes: int = Field(64 * MIB, gt=0, description="Maximum size of an image object in bytes.")
    max_masks_bytes: int = Field(
        64 * MIB, gt=0, description="Maximum size of a masks object in bytes, also after unpacking."
    )
    max_pixels: int = Field(
        100_000_000, gt=0, description="Maximum size of an image in pixels, checked in its header before decoding."
    )
    max_masks: int = Field(10_000, gt=0, description="Maximum number of masks (or components) in one job.")
    s3_timeout_s: float = Field(
        30.0, gt=0, description="Timeout of an S3 request in seconds, for connecting and for reading."
    )
    lease_s: float = Field(
        30.0,
        gt=0,
        description="Duration of a job's lease in seconds. The worker renews it; when it lapses, the job runs again.",
    )
    max_attempts: int = Field(
        3,
        ge=2,
        description="Number of attempts that may end with the loss of their worker before a job is given up as "
        "`poisoned`.",
    )
    max_retries: int = Field(
        12, ge=0, description="Maximum number of retries after transient faults, such as an unavailable object store."
    )
    retry_for_s: float = Field(
        900.0, ge=0, description="Seconds after the first transient fault during which a job is retried."
    )
    retry_first_s: float = Field(
        1.0, gt=0, description="Seconds before the first retry; doubled for each further retry, with jitter."
    )
    retry_most_s: float = Field(60.0, gt=0, description="Maximum seconds between two retries.")
    job_timeout_s: float = Field(
        900.0,
        gt=0,
        description="Maximum duration of an attempt in seconds; after that, the job fails as `job_timeout`.",
    )
    grace_s: float = Field(
        25.0, ge=0, description="Seconds for running jobs to finish after SIGTERM; then they go back to the queue."
    )
    watchdog_s: float = Field(
        120.0, gt=0, description="Seconds without progress on available work after which a worker ends itself."
    )
    ready_file: Path | None = Field(
        None,
        description="File that is written when the worker starts taking jobs, and removed when it ends.",
    )
    http_port: int = Field(0, ge=0, le=65535, description="Port of `/metrics`, `/livez` and `/readyz`; 0: none.")
    http_host: str = Field("0.0.0.0", description="Address on which `MASKSCORE_HTTP_PORT` is opened.")
    log_format: LogFormat = _LOG_FORMAT
    log_level: LogLevel = _LOG_LEVEL


class GatewaySettings(ClientSettings):
    """What the gateway needs beside the client's settings."""

    gateway_host: str = Field("127.0.0.1", description="Address on which the gateway listens.")
    gateway_port: int = Field(8080, ge=0, le=65535, description="Port on which the gateway listens; 0: a free port.")
    gateway_tokens: SecretStr | None = Field(
        None,
        description="Bearer tokens, `NAME=TOKEN`, separated by commas; behind each, its options: `admin`, "
        "`tenant=NAME`, `rate=N`, `requests=N`. The log shows the names only.",
    )
    gateway_tokens_file: Path | None = Field(
        None, description="File with one `NAME=TOKEN`, and its options, per line; it is read again when it changes."
    )
    gateway_auth: bool = Field(
        True,
        description="`false` disables authentication. Required without tokens on every address except loopback "
        "addresses.",
    )
    gateway_max_body_bytes: int = Field(
        16 * MIB, gt=0, description="Maximum size of a request body, or of one of its JSON Lines, in bytes."
    )
    gateway_max_jobs: int = Field(100_000, gt=0, description="Maximum number of jobs in one request.")
    gateway_max_masks: int = Field(10_000, gt=0, description="Maximum number of inline masks in one job.")
    gateway_max_requests: int = Field(
        2000, gt=0, description="Maximum number of concurrent requests, including open event streams."
    )
    gateway_max_requests_per_token: int = Field(
        1000,
        gt=0,
        description="Maximum number of concurrent requests per token, including open event streams; `requests=N` "
        "behind a token is its own.",
    )
    gateway_requests_per_second: float | None = Field(
        None,
        gt=0,
        description="Maximum number of requests per second and token, of each gateway process; `rate=N` behind a token "
        "is its own. Unset: no limit.",
    )
    gateway_max_held_bytes: int = Field(
        256 * MIB, gt=0, description="Maximum bytes of request bodies in memory; one token gets at most half of them."
    )
    gateway_processes: int = Field(
        2, ge=1, description="Number of processes that parse large bodies, started with the first such body."
    )
    gateway_header_timeout_s: float = Field(
        10.0, gt=0, description="Timeout in seconds for a connection's next request line and headers."
    )
    gateway_body_timeout_s: float = Field(
        120.0, gt=0, description="Timeout in seconds for a JSON body, or for each line of JSON Lines."
    )
    gateway_allowed_hosts: Names = Field(
        (),
        description="Accepted values of the `Host` header, separated by commas; `*`: any. Unset: any if tokens are "
        "required; otherwise, on a loopback address, `localhost` and loopback addresses.",
    )
    gateway_probe_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Additional port on which separate threads serve `/livez`, `/readyz` and `/metrics`; 0: none.",
    )
    gateway_threads: int = Field(16, ge=1, description="Number of threads that call Redis and S3.")
    gateway_grace_s: float = Field(
        20.0, ge=0, description="Seconds for requests to finish after SIGTERM; streams and waits end at once."
    )
    gateway_content_buckets: Names = Field(
        (),
        description="Buckets whose ETags the gateway may request for content ids, separated by commas; other objects "
        "are identified by URI.",
    )
    log_format: LogFormat = _LOG_FORMAT
    log_level: LogLevel = _LOG_LEVEL


ALL_FIELDS: Final[dict[str, FieldInfo]] = {**WorkerSettings.model_fields, **GatewaySettings.model_fields}
"""Every setting by its name."""


_KUBERNETES_LINK = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_.+)?)?)$")
Settings = TypeVar("Settings", bound=ClientSettings)


def unknown_variables(environment: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Return each ``MASKSCORE_…`` variable that is no setting, with the setting it may have been meant for.

    The variables that Kubernetes sets for a Service named ``maskscore-…`` are left out.
    """
    environment = os.environ if environment is None else environment
    known = [name.upper() for name in ALL_FIELDS]
    unknown = {}
    for name in environment:
        own = name.upper().removeprefix(PREFIX)
        if name.startswith(PREFIX) and own not in known and not _KUBERNETES_LINK.match(name):
            meant = closest(own, known)
            unknown[name] = PREFIX + meant if meant else None
    return unknown


def warn_of_unknown_variables() -> None:
    """Warn (:class:`UserWarning`) of each ``MASKSCORE_…`` variable that is no setting: it is probably misspelt."""
    for name, meant in unknown_variables().items():
        hint = f"; did you mean {meant}?" if meant else ". `maskscore settings` lists them all."
        warnings.warn(f"{name} is set but is no setting of maskscore{hint}", UserWarning, stacklevel=3)


def default_text(field: FieldInfo) -> str:
    """Return a setting's default as the help and the documentation show it."""
    default = field.default
    if default is None or default == ():
        return "unset"
    return f"{default:g}" if isinstance(default, float) else str(default)


def load_settings(kind: type[Settings], **given: Any) -> Settings:
    """Build settings from the given values, then the environment, then the defaults.

    Raises :class:`~maskscore.errors.SettingsError` that names the variable and what is wrong with its value. Values
    are shown, except those of URLs, which may hold a password.
    """
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        names = ", ".join(PREFIX + str(problem["loc"][0]).upper() for problem in error.errors() if problem["loc"])
        if "URL" in names:
            raise SettingsError(f"{names}: the value cannot be used.") from None
        raise SettingsError(f"{names}: {explain(error)}.") from error
