"""Every error of maskscore, each a type with a stable ``code``; nothing else in the package invents codes.

Three families:

- :class:`JobError` ends a *job*: raised in the worker's rooms, translated once, in the task, into the state
  ``failed`` with this code and sentence. Its codes are :class:`FailureCode`.
- :class:`SkipCode` ends one *mask*: the component says why it was skipped; the job goes on.
- The rest reach the *caller* of the client, the command line or a server's start.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "BatchNotFound",
    "FailureCode",
    "InvalidDocumentError",
    "JobConflict",
    "JobError",
    "JobFailed",
    "JobNotFound",
    "MaskscoreError",
    "NothingToScore",
    "OutputError",
    "PayloadTooLarge",
    "QueueFull",
    "ResultOfAnotherJob",
    "ResultUnavailable",
    "ServiceUnavailable",
    "SettingsError",
    "SkipCode",
    "TooManyBatches",
    "WaitTimeout",
    "WeightsError",
]


class FailureCode(StrEnum):
    """Why a job failed. Stable: scripts may compare them; new ones may be added."""

    IMAGE_NOT_FOUND = "image_not_found"
    IMAGE_FORBIDDEN = "image_forbidden"
    IMAGE_CHANGED = "image_changed"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_UNDECODABLE = "image_undecodable"
    IMAGE_TRUNCATED = "image_truncated"
    MASKS_NOT_FOUND = "masks_not_found"
    MASKS_FORBIDDEN = "masks_forbidden"
    MASKS_CHANGED = "masks_changed"
    MASKS_TOO_LARGE = "masks_too_large"
    MASKS_INVALID = "masks_invalid"
    MASK_SIZE_MISMATCH = "mask_size_mismatch"
    TOO_MANY_MASKS = "too_many_masks"
    URI_NOT_ALLOWED = "uri_not_allowed"
    URI_INVALID = "uri_invalid"
    PROMPTS_INVALID = "prompts_invalid"
    PROMPT_SET_UNKNOWN = "prompt_set_unknown"
    PROMPT_TOO_LONG = "prompt_too_long"
    DOCUMENT_INVALID = "document_invalid"
    DOCUMENT_VERSION_UNSUPPORTED = "document_version_unsupported"
    FEATURES_NOT_FINITE = "features_not_finite"
    OUT_OF_MEMORY = "out_of_memory"
    JOB_TIMEOUT = "job_timeout"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    RESULT_FORBIDDEN = "result_forbidden"
    RESULT_NOT_STORED = "result_not_stored"
    RESULT_EXISTS = "result_exists"
    RESULT_EXPIRED = "result_expired"
    WORKER_LOST = "worker_lost"
    INTERNAL_ERROR = "internal_error"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    POISONED = "poisoned"


class SkipCode(StrEnum):
    """Why one mask (or one connected component of it) has no score although its job succeeded."""

    MASK_INVALID = "mask_invalid"
    MASK_SIZE_MISMATCH = "mask_size_mismatch"
    EMPTY_MASK = "empty_mask"
    OUTSIDE_IMAGE = "outside_image"
    BELOW_MIN_AREA = "below_min_area"


class MaskscoreError(Exception):
    """Base of every error that maskscore raises on purpose. ``str(error)`` is a sentence to act on."""

    code: str = "error"


LONGEST_MESSAGE = 2000


class JobError(MaskscoreError):
    """A job cannot be scored.

    Parameters
    ----------
    code: the stable :class:`FailureCode`.
    message: what was wrong, with which input, what to do; cut to :data:`LONGEST_MESSAGE` characters, since it may
        quote what it is about.
    passing: whether the same job may succeed later (an object store that does not answer), so that a retry is
        worth its cost.
    of_worker: whether it is the fault of the process that tried, such as its credentials: another worker may succeed
        at once, and this one will not until it is put right.
    """

    def __init__(self, code: FailureCode, message: str, *, passing: bool = False, of_worker: bool = False) -> None:
        message = message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 4] + " ..."
        super().__init__(message)
        self.code = str(code)
        self.message = message
        self.passing = passing
        self.of_worker = of_worker

    @property
    def input_may_be_fine(self) -> bool:
        """Whether the fault is not the job's: a store that is away, or credentials of whoever asked."""
        return self.passing or self.of_worker


class InvalidDocumentError(MaskscoreError):
    """A job, prompt set or masks document that the caller gave does not fit the contract."""

    code = "document_invalid"


class NothingToScore(MaskscoreError):  # noqa: N818
    """A file of masks was read, and not one of its entries is a mask; so no job is made of it."""

    code = "no_mask_scored"


class SettingsError(MaskscoreError):
    """A setting is missing, misspelt or has a value that cannot be used."""

    code = "settings_invalid"


class OutputError(MaskscoreError):
    """What was asked to be written cannot be: no such folder, no room, something in the way."""

    code = "output_unusable"


class WeightsError(MaskscoreError):
    """A weights folder is missing, incomplete or does not fit the architecture."""

    code = "weights_invalid"


class ServiceUnavailable(MaskscoreError):  # noqa: N818 - a state of the world, named as users say it
    """Redis or the object store did not answer, after the client's own bounded retries."""

    code = "service_unavailable"


class JobNotFound(MaskscoreError):  # noqa: N818
    """No job of this id is known: never submitted, or its record's time to live has passed."""

    code = "job_not_found"


class BatchNotFound(JobNotFound):
    """No batch of this id is known: no job was submitted under it, or its time to live has passed."""

    code = "batch_not_found"


class JobConflict(MaskscoreError):  # noqa: N818
    """The job id is taken by another document."""

    code = "job_conflict"


class TooManyBatches(MaskscoreError):  # noqa: N818
    """The job is in as many batches as it may be; each of them hears of each of its changes."""

    code = "too_many_batches"


class QueueFull(MaskscoreError):  # noqa: N818
    """The queue holds as many jobs as it may (``depth``); submit again later: what was submitted is not doubled."""

    code = "queue_full"

    def __init__(self, message: str, *, depth: int) -> None:
        super().__init__(message)
        self.depth = depth


class PayloadTooLarge(MaskscoreError):  # noqa: N818
    """A job's document is larger than a queue message may be and no place to spill its masks is set."""

    code = "payload_too_large"


class ResultUnavailable(MaskscoreError):  # noqa: N818
    """The job has not ended yet, or its stored result cannot be read any more."""

    code = "result_unavailable"


class ResultOfAnotherJob(ResultUnavailable):
    """Where the job's result was stored, there is another job's: both were given the same ``result_uri``."""

    code = "result_of_another_job"


class WaitTimeout(MaskscoreError, TimeoutError):  # noqa: N818
    """The job had not ended when the caller's time was over; it goes on, and can be waited for again."""

    code = "wait_timeout"


class JobFailed(MaskscoreError):  # noqa: N818
    """A waited-for job ended without a result: failed, cancelled or expired.

    ``code`` is the job's own :class:`FailureCode` (``cancelled`` and ``expired`` included), ``job_id`` its id.
    """

    def __init__(self, job_id: str, code: str, message: str) -> None:
        super().__init__(f"job {job_id}: {code}: {message}")
        self.job_id = job_id
        self.code = code
        self.message = message
