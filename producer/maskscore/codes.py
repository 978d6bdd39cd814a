"""Every stable code, declared once with its meaning and advice; ``docs/reference/codes.md`` is generated from here.

A new code is one entry here, and ``make docs``. One table, so it is longer than other modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Final, Literal

__all__ = ["About", "ClientCode", "FailureCode", "SkipCode", "StopsRun", "WarningCode", "advice_for", "codes_markdown"]

StopsRun = Literal["no", "if all fail", "at once"]


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a code. ``meaning`` and ``advice`` (may be empty) are Markdown.

    ``transient``: the same job may succeed later, so it is tried again. ``stops_run``: the cause is common to all jobs
    of a run (its options, rights or place), so the run stops where its first jobs all fail so, or at the first one.
    """

    meaning: str
    advice: str = ""
    transient: bool = False
    stops_run: StopsRun = "no"


class _Code(StrEnum):
    """Stable: scripts may compare the values; new ones may be added."""

    about: About

    # The default is for type checkers: a code is looked up by its value alone.
    def __new__(cls, value: str, about: About = About("")) -> _Code:
        code = str.__new__(cls, value)
        code._value_ = value
        code.about = about
        return code


class FailureCode(_Code):
    """Why a job failed."""

    IMAGE_NOT_FOUND = (
        "image_not_found",
        About(
            "there is no such object, bucket or file; or a masks file in a tar has no image, or the tar has neither",
            "check the URI, or list the images again",
            stops_run="if all fail",
        ),
    )
    IMAGE_FORBIDDEN = (
        "image_forbidden",
        About(
            "the worker's credentials do not allow reading it",
            "grant the worker's credentials read access",
            stops_run="if all fail",
        ),
    )
    IMAGE_CHANGED = (
        "image_changed",
        About(
            "the object's ETag is not the job's `image.etag`; or the tar of a shard was replaced since the shard was "
            "submitted, or since its first part",
            "submit again for the current object; for a run, use another `--batch-id`",
        ),
    )
    IMAGE_TOO_LARGE = (
        "image_too_large",
        About(
            "more bytes than `MASKSCORE_MAX_IMAGE_BYTES`, more pixels than `MASKSCORE_MAX_PIXELS`, or too "
            "much work to decode: a JPEG of more than 100 scans, or more than 100,000 chunks, segments, "
            "strips or tiles",
            "scale it down, save it again, or raise `MASKSCORE_MAX_IMAGE_BYTES` or `MASKSCORE_MAX_PIXELS`",
        ),
    )
    IMAGE_UNDECODABLE = (
        "image_undecodable",
        About(
            "not a supported image (JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, JPEG 2000, AVIF, TGA); the message "
            "says what the content looks like",
            "upload the image again",
        ),
    )
    IMAGE_TRUNCATED = (
        "image_truncated",
        About(
            "the image ends too early; or the tar of a shard is cut off or damaged where the message says",
            "upload the image or the tar again",
        ),
    )
    MASKS_NOT_FOUND = (
        "masks_not_found",
        About(
            "there is no such object, bucket or file of masks; or an image in a tar has no masks file",
            "check the URI, or list the images again",
            stops_run="if all fail",
        ),
    )
    MASKS_FORBIDDEN = (
        "masks_forbidden",
        About(
            "the worker's credentials do not allow reading the masks' object",
            "grant the worker's credentials read access",
            stops_run="if all fail",
        ),
    )
    MASKS_CHANGED = (
        "masks_changed",
        About(
            "the ETag of the masks' object is not the job's `masks.etag`; or the list of a shard, or the parts that "
            "it is scored from, were replaced",
            "submit again for the current object; for a run, use another `--batch-id`",
        ),
    )
    MASKS_TOO_LARGE = (
        "masks_too_large",
        About(
            "the masks' object has more bytes than `MASKSCORE_MAX_MASKS_BYTES`",
            "raise `MASKSCORE_MAX_MASKS_BYTES`, or use compressed RLE",
        ),
    )
    MASKS_INVALID = (
        "masks_invalid",
        About(
            "the masks' object has no known [format](formats/README.md), is damaged, or is a dataset file "
            "without this image",
            "look at the masks file; `--format` names another layout",
            stops_run="if all fail",
        ),
    )
    MASK_SIZE_MISMATCH = (
        "mask_size_mismatch",
        About("no mask of the job fits the image", "use the masks of this image, at its size"),
    )
    TOO_MANY_MASKS = (
        "too_many_masks",
        About("more masks or components than `MASKSCORE_MAX_MASKS`", "raise `MASKSCORE_MAX_MASKS`, or split the job"),
    )
    UPSTREAM_SCORE_MISSING = (
        "upstream_score_missing",
        About(
            "the job's `nms` is to keep the best of several copies, and no mask has `predicted_iou`, `score`, "
            "`confidence` or `stability_score`",
            "leave out `--nms`, and remove copies by the computed scores: `maskscore export --nms`",
            stops_run="if all fail",
        ),
    )
    URI_NOT_ALLOWED = (
        "uri_not_allowed",
        About(
            "the workers' settings do not allow jobs to use the bucket or folder",
            "add the bucket or folder to the workers' `MASKSCORE_BUCKETS` or `MASKSCORE_FILE_ROOTS`",
            stops_run="if all fail",
        ),
    )
    URI_INVALID = (
        "uri_invalid",
        About("neither `s3://bucket/key` nor `file:///path`", "correct the URI, or rename the file"),
    )
    PARTS_UNFIT = (
        "parts_unfit",
        About(
            "the parts that a shard is scored from have no embeddings, or those of other weights than the worker's",
            "use workers of the weights that the message names, or score the images again: `maskscore run`",
            stops_run="if all fail",
        ),
    )
    PROMPTS_INVALID = (
        "prompts_invalid",
        About("the workers' prompt set file is invalid", "correct the workers' prompt set", stops_run="if all fail"),
    )
    PROMPT_SET_UNKNOWN = (
        "prompt_set_unknown",
        About(
            "the worker has no prompt set with this name",
            "name a prompt set that the workers have, or include the prompts in the job (`--prompts FILE.yaml`)",
            stops_run="if all fail",
        ),
    )
    PROMPT_TOO_LONG = (
        "prompt_too_long",
        About("a prompt has more tokens than the model's context", "shorten the prompt", stops_run="if all fail"),
    )
    NO_LOGIT_BIAS = (
        "no_logit_bias",
        About(
            'the job asks for `method="sigmoid"`, and the worker\'s model has no `logit_bias`',
            "use `softmax`, or workers with a model that was trained with a sigmoid loss (SigLIP)",
            stops_run="if all fail",
        ),
    )
    HEAD_UNKNOWN = (
        "head_unknown",
        About(
            "there is no head with this name",
            "name a head of the workers' `MASKSCORE_HEADS_DIR`, or include it in the job (`--head FILE.json`)",
            stops_run="if all fail",
        ),
    )
    HEAD_INVALID = (
        "head_invalid",
        About(
            "the head's file cannot be read, or is no head",
            "`maskscore heads check FILE`",
            stops_run="if all fail",
        ),
    )
    HEAD_MISMATCH = (
        "head_mismatch",
        About(
            "the head was fitted to other weights, another view or other prompts, or reads what the masks do not have",
            "fit a head to masks scored in this way, or score as the head needs it (`maskscore heads show`)",
            stops_run="if all fail",
        ),
    )
    DOCUMENT_INVALID = (
        "document_invalid",
        About("the job document is invalid", "the message names the field"),
    )
    DOCUMENT_VERSION_UNSUPPORTED = (
        "document_version_unsupported",
        About(
            "producer and worker have different releases",
            "install the same release of maskscore on both sides",
            stops_run="if all fail",
        ),
    )
    FEATURES_NOT_FINITE = (
        "features_not_finite",
        About(
            "the model returned NaN or infinity",
            "check the weights (`maskscore weights check`), then report it",
            stops_run="if all fail",
        ),
    )
    OUT_OF_MEMORY = (
        "out_of_memory",
        About(
            "in every retry, a single crop did not fit the device's memory, or the worker's machine ran out of memory, "
            "disk (the temporary folder), processes or open files",
            "give the worker's machine what the message says that it lacks, then `maskscore dead requeue`",
            transient=True,
        ),
    )
    JOB_TIMEOUT = (
        "job_timeout",
        About(
            "one attempt, or a part of a shard, took longer than `MASKSCORE_JOB_TIMEOUT_S`",
            "raise `MASKSCORE_JOB_TIMEOUT_S`, split the job, or find the slow stage in the metrics",
        ),
    )
    STORAGE_UNAVAILABLE = (
        "storage_unavailable",
        About(
            "in every retry, the object store did not answer, had no room, or rejected the worker's credentials or "
            "clock",
            "remove the cause that the message names, then `maskscore dead requeue`",
            transient=True,
        ),
    )
    RESULT_FORBIDDEN = (
        "result_forbidden",
        About(
            "the worker may not write to `result_uri` or to the output of a shard",
            "add the bucket to the workers' `MASKSCORE_RESULT_BUCKETS`, or the folder to `MASKSCORE_RESULT_ROOTS`; "
            "check the bucket's policy, or the folder's rights",
            stops_run="at once",
        ),
    )
    RESULT_NOT_STORED = (
        "result_not_stored",
        About(
            "the bucket or folder of the result or of a shard's parts does not exist or refuses the object",
            "create the bucket, or the folder on the workers' machine",
            stops_run="at once",
        ),
    )
    RESULT_EXISTS = (
        "result_exists",
        About(
            "the object that `result_uri` names holds another job's result, or something else; or where a part of a "
            "shard belongs, there is no part of this shard. It is not overwritten",
            "give each job a `result_uri` of its own, such as a prefix that ends in `/`, and each run of shards an "
            "output of its own",
        ),
    )
    RESULT_EXPIRED = (
        "result_expired",
        About(
            "the job of a batch was not read before its record expired",
            "read results sooner, or raise `MASKSCORE_RESULT_TTL_S`",
        ),
    )
    WORKER_LOST = (
        "worker_lost",
        About(
            "only as a reason of a dead letter: the worker of an attempt was killed, crashed or was cut off",
            "look at the worker's log; see `poisoned`",
        ),
    )
    DEVICE_BROKEN = (
        "device_broken",
        About(
            "only as a reason of a dead letter: a device failed while it ran the job, possibly together with others",
            "look at the worker's log and the device; see `poisoned`",
        ),
    )
    INTERNAL_ERROR = (
        "internal_error",
        About("a defect of maskscore", "the worker's log has the details; report it"),
    )
    CANCELLED = "cancelled", About("the job was cancelled", "requeue it if you need it")
    EXPIRED = (
        "expired",
        About("the job was still queued after `expires_in`", "run more workers, or raise `--expires-in`"),
    )
    POISONED = (
        "poisoned",
        About(
            "the job, or an image of a shard, ended its worker `MASKSCORE_MAX_ATTEMPTS` times, or broke the device "
            "four times, the last time alone",
            "read the reasons with `maskscore dead show JOB`; check the image and the masks",
        ),
    )


class SkipCode(_Code):
    """Why one mask (or one connected component of it) has no score although its job succeeded."""

    MASK_INVALID = (
        "mask_invalid",
        About(
            "the segmentation is invalid: wrong run total, negative runs, not ASCII, fewer than three points, "
            "NaN, or an outline with excessive coordinates; or the entry of a masks' object is not a mask, or "
            "repeats an id"
        ),
    )
    MASK_SIZE_MISMATCH = (
        "mask_size_mismatch",
        About("the RLE's size is not the image's (other masks of the job fit)"),
    )
    EMPTY_MASK = "empty_mask", About("no pixel is set")
    OUTSIDE_IMAGE = "outside_image", About("the polygon lies outside the image")
    BELOW_MIN_AREA = (
        "below_min_area",
        About(
            "fewer pixels than the job's `min_area`; with `split_components`, all smaller parts of a mask in one entry"
        ),
    )
    DUPLICATE_MASK = (
        "duplicate_mask",
        About(
            "a copy of a mask with a better upstream score: their IoU is at least the job's `nms`; the message names "
            "that mask"
        ),
    )
    PART_OF_MASK = (
        "part_of_mask",
        About(
            "a part of a larger mask: the share of it inside that one is at least the job's `drop_parts`; the message "
            "names the larger mask"
        ),
    )


class WarningCode(_Code):
    """What the reader of a successful result should know."""

    NO_MASKS = "no_masks", About("the job has no masks")
    NO_MASK_SCORED = (
        "no_mask_scored",
        About(
            "every mask of the job was skipped; the message counts the reasons. `JobResult.no_mask_scored` is "
            "true; `submit --wait`, `wait`, `results`, `run`, `batch wait`, `compare`, `report` and `rescore "
            "--wait` report it and exit with 1",
            "look at the masks file; `--format` names another layout",
        ),
    )
    ANNOTATIONS_WITHOUT_IMAGE = (
        "annotations_without_image",
        About(
            "the masks' file has annotations without a listed image, which are not scored; the message counts "
            "and names them"
        ),
    )
    POLYGONS_LEFT_OUT = (
        "polygons_left_out",
        About("masks have stray points or lines among their polygons, which are left out; the message names them"),
    )
    MASKS_DOUBTFUL = (
        "masks_doubtful",
        About(
            "the masks may have been read in the wrong format, such as a picture whose background is a mask",
            "`--format` names another layout",
        ),
    )
    FIRST_FRAME_ONLY = (
        "first_frame_only",
        About("an animation or a multi-page file: only the first frame was scored"),
    )
    ORIENTATION_AMBIGUOUS = (
        "orientation_ambiguous",
        About(
            "the image has an EXIF orientation, and the masks fit both frames or none, so the upright frame "
            "was used. (Polygons fit the frame whose size their file states; without a stated size, the frame "
            "that contains them)",
            "give `orientation`",
        ),
    )
    PROFILE_IGNORED = (
        "profile_ignored",
        About(
            "the image has an RGB colour profile other than sRGB (Display P3, Adobe RGB), which is not "
            "applied; or the profile of a CMYK image is damaged and was not used",
            "convert the image to sRGB if its colours matter",
        ),
    )


class ClientCode(_Code):
    """Why a call of the client, a command or a server's start ended with an error of its own, beside those of jobs."""

    ERROR = "error", About("another error; the message describes it")
    SETTINGS_INVALID = (
        "settings_invalid",
        About("a setting is missing, misspelt or has an invalid value", "the message names it"),
    )
    OUTPUT_UNUSABLE = (
        "output_unusable",
        About("the output cannot be written: no such folder, no space, or the path is occupied"),
    )
    WEIGHTS_INVALID = (
        "weights_invalid",
        About(
            "a weights folder is missing, incomplete or does not match the architecture",
            "`maskscore weights check FOLDER`",
        ),
    )
    PRETRAINED_UNSET = (
        "pretrained_unset",
        About(
            "a weights folder has no configuration, and the preprocessing of its architecture depends on the weights",
            "set `MASKSCORE_PRETRAINED` to the tag of the weights, or fetch them with "
            "`maskscore weights pull NAME:TAG DIR`",
        ),
    )
    SERVICE_UNAVAILABLE = (
        "service_unavailable",
        About("Redis or the object store did not answer", "`maskscore doctor` says which, and why"),
    )
    JOB_NOT_FOUND = (
        "job_not_found",
        About("no job with this id was submitted, or its record has expired", "submit it again"),
    )
    BATCH_NOT_FOUND = (
        "batch_not_found",
        About("no job was submitted with this batch id, or the batch has expired", "submit it again"),
    )
    JOB_CONFLICT = "job_conflict", About("another document has this job id", "give the job another id")
    TOO_MANY_BATCHES = "too_many_batches", About("the job is in the maximum number of batches")
    QUEUE_FULL = (
        "queue_full",
        About("the queue holds `MASKSCORE_QUEUE_LIMIT` jobs", "submit again later; jobs are not submitted twice"),
    )
    PAYLOAD_TOO_LARGE = (
        "payload_too_large",
        About(
            "a job document exceeds `MASKSCORE_MAX_DOCUMENT_BYTES`, and `MASKSCORE_SPILL_URI` is unset",
            "set `MASKSCORE_SPILL_URI=s3://bucket/prefix/`",
        ),
    )
    RESULT_UNAVAILABLE = (
        "result_unavailable",
        About(
            "the job has not ended yet, or its stored result can no longer be read",
            "check the credentials, then export again",
        ),
    )
    RESULT_OF_ANOTHER_JOB = (
        "result_of_another_job",
        About(
            "the object of the job's result holds another job's result: both had the same `result_uri`",
            "give each job a `result_uri` of its own",
        ),
    )
    WAIT_TIMEOUT = (
        "wait_timeout",
        About("the job did not end within the timeout; it continues", "wait again, or cancel the job"),
    )


_ALL: Final = {str(code): code.about for code in chain(ClientCode, SkipCode, WarningCode, FailureCode)}


def advice_for(code: str) -> str:
    """Return what to do about a code, as plain text; empty where there is none, or for one of another release."""
    return _ALL[code].advice.replace("`", "") if code in _ALL else ""


def codes_markdown() -> str:
    """Return ``docs/reference/codes.md``."""
    return "\n".join(chain.from_iterable(_section(*section) for section in _SECTIONS)) + "\n"


_SECTIONS: Final[tuple[tuple[str, type[_Code]], ...]] = (
    (
        """\
# Codes

Codes are stable: scripts may compare them. New codes may be added. `make docs` generates this page.

## Why a job has no result

In `JobResult.error.code`, in `JobFailed.code`, and in `maskscore status`. After a *transient* failure, the job is
retried (`MASKSCORE_MAX_RETRIES`). A cause that concerns all jobs *stops a run* early: `if all fail`, when the run's
first jobs all fail with it; `at once`, at the first image that cannot be submitted because of it.""",
        FailureCode,
    ),
    (
        """
## Why a mask has no score

In `Component.skipped.code`; the job's other masks are scored.""",
        SkipCode,
    ),
    (
        """
## Warnings of a successful result

In `JobResult.warnings[].code`.""",
        WarningCode,
    ),
    (
        """
## Why a call or a command ended

In `code` of the exception (`maskscore.MaskscoreError`) that the client raises. It may also be a code of a job.""",
        ClientCode,
    ),
)


def _section(introduction: str, codes: type[_Code]) -> Iterator[str]:
    columns = {
        "code": [f"`{code}`" for code in codes],
        "meaning": [code.about.meaning for code in codes],
        "what to do": [code.about.advice for code in codes],
    }
    if codes is FailureCode:
        columns["transient"] = ["yes" if code.about.transient else "no" for code in codes]
        columns["stops a run"] = [code.about.stops_run for code in codes]
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    yield introduction
    yield ""
    for row in (shown, ["---"] * len(shown), *zip(*shown.values(), strict=True)):
        yield f"| {' | '.join(row)} |"
