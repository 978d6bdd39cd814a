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
from maskscore.schema import explain
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
Precision = Literal["fp32", "bf16", "auto"]
MIB = 1024 * 1024


def _parts(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_parts)]


_LOG_FORMAT: Any = Field("text", description="`json`: one JSON object per line, with job ids as a field.")
_LOG_LEVEL: Any = Field("INFO", description="Least level that is logged.")


class ClientSettings(BaseSettings):
    """What a producer needs, and a worker too."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        # It may hold a password.
        repr=False,
        description="Redis of the queue, the ledger and the results; `rediss://` for TLS, credentials in the URL; "
        "`?ssl_ca_certs=/etc/redis-ca.pem` where its certificate is of an authority of your own. With "
        "Sentinel: `sentinel://:password@host1:26379,host2:26379/0?master=NAME`, and `&sentinel_password=...` where "
        "the Sentinels have one of their own.",
    )
    namespace: str = Field(
        "maskscore",
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Prefix of all Redis keys and name of the queue; deployments that share a Redis need one each.",
    )
    redis_timeout_s: float = Field(
        10.0, gt=0, description="Seconds after which an unanswered Redis command counts as failed."
    )
    result_ttl_s: int = Field(
        7 * 24 * 3600, gt=0, description="Seconds that an ended job's state and result are kept in Redis."
    )
    queue_limit: int = Field(
        1_000_000, gt=0, description="Most jobs that may be queued; at more, `submit` raises `QueueFull`."
    )
    max_document_bytes: int = Field(
        1 * MIB,
        gt=0,
        description="Largest job document that goes into Redis; larger masks are spilled to S3.",
    )
    spill_uri: str | None = Field(
        None,
        pattern=r"^s3://[^/]+/(.*/)?$",
        description="`s3://bucket/prefix/` where a client puts masks too large for Redis; unset: they are refused.",
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
    device: str = Field(
        "auto",
        description="`cuda:N`, `cuda` or `cpu`; `auto`: `cuda:4` if it exists, else the first GPU, else the CPU.",
    )
    precision: Precision = Field(
        "fp32",
        description="What the image tower computes in. `bf16` is 2 to 4 times as fast where the processor has it, and "
        "moves a mask's probabilities: by up to 0.25 with the `logit_scale` of released CLIPs, for 1 mask in 40 by "
        "more than 0.03 (docs/explanation/performance.md). `auto` is the fastest that agrees with fp32 to 0.001: "
        "fp32, on every device.",
    )
    crop_mode: CropMode = Field(
        "fast", description="`reference` runs the specification's own per-mask code, for comparison."
    )
    crop_device: CropDevice = Field(
        "auto",
        description="Where crops are made: `cpu`, by the task threads; `device`, all of a batch at once where the "
        "model is; `auto`: `device` on a GPU, else `cpu`. The mode `reference` makes them on the CPU.",
    )
    concurrency: int = Field(6, ge=1, le=256, description="Task threads: jobs fetched, decoded and cropped at once.")
    torch_threads: int = Field(
        0, ge=0, description="Cores that the forward passes on a CPU share; 0: as many as PyTorch finds."
    )
    max_batch: int = Field(64, ge=1, le=4096, description="Crops per forward pass; on a CPU at most 8.")
    max_wait_ms: float = Field(
        5.0,
        ge=0,
        description="How long a batch waits for more crops after its first one, if there is a job that may bring some.",
    )
    prompts: str = Field("default", description="Prompt set encoded at the start, before the first job.")
    prompts_dir: Path | None = Field(
        None, description="Folder of `NAME.yaml` prompt sets that jobs may name beside the built-in ones."
    )
    prompt_cache: int = Field(32, ge=1, description="Prompt sets whose features are kept.")
    feature_cache: str | None = Field(
        None,
        pattern=r"^(redis|/.*)$",
        description="Where the features of masks are kept, so that scoring them again with other prompts costs no "
        "forward: `redis`, or an absolute path of a folder on a local disk; unset: nowhere.",
    )
    feature_cache_bytes: int = Field(
        1024 * MIB,
        ge=MIB,
        description="Bytes that the feature cache may take, some 2.4 KB per mask; the least recently used go first.",
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
    max_image_bytes: int = Field(64 * MIB, gt=0, description="Largest image object that is fetched.")
    max_masks_bytes: int = Field(64 * MIB, gt=0, description="Largest masks object that is fetched, also unpacked.")
    max_pixels: int = Field(
        100_000_000, gt=0, description="Largest image in pixels, checked in its header before it is decoded."
    )
    max_masks: int = Field(10_000, gt=0, description="Most masks (or components) in one job.")
    s3_timeout_s: float = Field(30.0, gt=0, description="Seconds that one S3 request may take to connect or to read.")
    lease_s: float = Field(
        30.0, gt=0, description="Seconds after which a job whose worker is gone runs again; renewed while it runs."
    )
    max_attempts: int = Field(
        3, ge=2, description="Attempts that may end with their worker before a job is given up as `poisoned`."
    )
    max_retries: int = Field(
        12, ge=0, description="Retries of a job that meets transient faults, such as an object store that is down."
    )
    retry_for_s: float = Field(
        900.0, ge=0, description="Seconds after its first transient fault in which a job is retried."
    )
    retry_first_s: float = Field(
        1.0, gt=0, description="Seconds before the first retry; doubled for each further one, with jitter."
    )
    retry_most_s: float = Field(60.0, gt=0, description="Most seconds between two retries.")
    job_timeout_s: float = Field(
        900.0, gt=0, description="Seconds that one attempt may take; after that the job fails as `job_timeout`."
    )
    grace_s: float = Field(
        25.0, ge=0, description="Seconds that running jobs have to finish after SIGTERM; then they are given back."
    )
    stranded_after_s: float = Field(
        10.0, gt=0, description="Seconds after which a job whose message was lost gets a new one."
    )
    watchdog_s: float = Field(
        120.0, gt=0, description="Seconds without progress, though there is work, after which a worker ends itself."
    )
    ready_file: Path | None = Field(
        None,
        description="File that is written when the model is loaded and jobs are being taken; removed at the end.",
    )
    http_port: int = Field(
        0, ge=0, le=65535, description="Port of `/metrics`, `/livez` and `/readyz`; 0: none is opened."
    )
    http_host: str = Field("0.0.0.0", description="Address that `MASKSCORE_HTTP_PORT` is opened on.")
    log_format: LogFormat = _LOG_FORMAT
    log_level: LogLevel = _LOG_LEVEL


class GatewaySettings(ClientSettings):
    """What the gateway needs beside the client's settings."""

    gateway_host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    gateway_port: int = Field(8080, ge=0, le=65535, description="Port that the gateway listens on; 0: a free one.")
    gateway_tokens: SecretStr | None = Field(
        None, description="Bearer tokens, `NAME=TOKEN`, separated by commas; the name is what the log shows."
    )
    gateway_tokens_file: Path | None = Field(
        None, description="File with a `NAME=TOKEN` per line; it is read again when it changes."
    )
    gateway_auth: bool = Field(
        True,
        description="`false`: whoever reaches the gateway may use it. Without tokens it is needed for every address "
        "but the loopback ones.",
    )
    gateway_max_body_bytes: int = Field(
        16 * MIB, gt=0, description="Largest body of a request, or line of one in JSON Lines."
    )
    gateway_max_jobs: int = Field(100_000, gt=0, description="Most jobs in one request.")
    gateway_max_masks: int = Field(10_000, gt=0, description="Most inline masks in one job.")
    gateway_max_requests: int = Field(
        2000, gt=0, description="Most requests, open streams of events included, that are answered at once."
    )
    gateway_max_requests_per_token: int = Field(
        1000,
        gt=0,
        description="Most requests of one token, open streams of events included, that are answered at once.",
    )
    gateway_max_held_bytes: int = Field(
        256 * MIB, gt=0, description="Most bytes of bodies that are held at once; one token gets half of them."
    )
    gateway_processes: int = Field(
        2, ge=1, description="Processes that read large bodies, started when the first one comes."
    )
    gateway_header_timeout_s: float = Field(
        10.0, gt=0, description="Seconds in which a connection's next request line and headers must have come."
    )
    gateway_body_timeout_s: float = Field(
        120.0, gt=0, description="Seconds in which a JSON body, or each line of JSON Lines, must have come."
    )
    gateway_allowed_hosts: Names = Field(
        (),
        description="Names that requests may have in `Host`, separated by commas; `*`: any. Unset: any where tokens "
        "are asked for, else, on a loopback address, `localhost` and loopback addresses.",
    )
    gateway_probe_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port on which `/livez`, `/readyz` and `/metrics` are answered by threads apart, too; 0: none.",
    )
    gateway_threads: int = Field(16, ge=1, description="Threads that call Redis and S3.")
    gateway_grace_s: float = Field(
        20.0, ge=0, description="Seconds that requests have to finish after SIGTERM; streams and waits end at once."
    )
    gateway_content_buckets: Names = Field(
        (),
        description="Buckets whose ETags the gateway asks for, to make ids of contents, separated by commas; objects "
        "elsewhere are known by their URI.",
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
