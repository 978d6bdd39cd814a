"""Every error of maskscore, each a type with a stable ``code`` of :mod:`maskscore.codes`.

:class:`JobError` ends a *job*: the worker translates it once into the state ``failed`` with this code and sentence. The
others reach the *caller* of the client, the command line or a server's start.
"""

from __future__ import annotations

from maskscore.codes import ClientCode, FailureCode, SkipCode, WarningCode

__all__ = [
    "BatchNotFound",
    "FailureCode",
    "HeadInvalid",
    "HeadMismatch",
    "HeadUnknown",
    "InvalidDocumentError",
    "JobConflict",
    "JobError",
    "JobFailed",
    "JobNotFound",
    "MaskscoreError",
    "NothingToScore",
    "OutputError",
    "PayloadTooLarge",
    "PretrainedUnset",
    "QueueFull",
    "ResultOfAnotherJob",
    "ResultUnavailable",
    "ServiceUnavailable",
    "SettingsError",
    "SkipCode",
    "TooManyBatches",
    "WaitTimeout",
    "WarningCode",
    "WeightsError",
]


class MaskscoreError(Exception):
    """Base of every error that maskscore raises on purpose. ``str(error)`` is a sentence to act on."""

    code: str = ClientCode.ERROR


LONGEST_MESSAGE = 2000


class JobError(MaskscoreError):
    """A job cannot be scored.

    Parameters
    ----------
    code: the stable :class:`FailureCode`.
    message: what was wrong, with which input, what to do; cut to :data:`LONGEST_MESSAGE` characters, since it may
        quote what it is about.
    transient: whether the same job may succeed later (an object store that does not answer), so that a retry is
        worth its cost; where it is not given, the code's entry in the table says so.
    of_worker: whether it is the fault of the process that tried, such as its credentials: another worker may succeed
        at once, and this one will not until it is put right.
    """

    def __init__(
        self, code: FailureCode, message: str, *, transient: bool | None = None, of_worker: bool = False
    ) -> None:
        message = message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 4] + " ..."
        super().__init__(message)
        self.code = str(code)
        self.about = code.about
        self.message = message
        self.transient = code.about.transient if transient is None else transient
        self.of_worker = of_worker

    @property
    def input_may_be_fine(self) -> bool:
        """Whether the fault is not the job's: a store that is away, or credentials of whoever asked."""
        return self.transient or self.of_worker


class InvalidDocumentError(MaskscoreError):
    """A job, prompt set or masks document that the caller gave does not fit the contract."""

    code: str = FailureCode.DOCUMENT_INVALID


class HeadInvalid(InvalidDocumentError):  # noqa: N818
    """A head's file cannot be read, or is no head."""

    code: str = FailureCode.HEAD_INVALID


class HeadUnknown(InvalidDocumentError):  # noqa: N818
    """There is no head of this name."""

    code: str = FailureCode.HEAD_UNKNOWN


class HeadMismatch(InvalidDocumentError):  # noqa: N818
    """A head was fitted to other weights, views or prompts than the masks were scored with, or reads what they lack."""

    code: str = FailureCode.HEAD_MISMATCH


class NothingToScore(MaskscoreError):  # noqa: N818
    """A file of masks was read, and not one of its entries is a mask; so no job is made of it."""

    code: str = WarningCode.NO_MASK_SCORED


class SettingsError(MaskscoreError):
    """A setting is missing, misspelt or has a value that cannot be used."""

    code: str = ClientCode.SETTINGS_INVALID


class OutputError(MaskscoreError):
    """What was asked to be written cannot be: no such folder, no room, something in the way."""

    code: str = ClientCode.OUTPUT_UNUSABLE


class WeightsError(MaskscoreError):
    """A weights folder is missing, incomplete or does not fit the architecture."""

    code: str = ClientCode.WEIGHTS_INVALID


class PretrainedUnset(WeightsError):  # noqa: N818
    """A folder of weights has no configuration, and which preprocessing they need depends on which they are."""

    code: str = ClientCode.PRETRAINED_UNSET


class ServiceUnavailable(MaskscoreError):  # noqa: N818 - a state of the world, named as users say it
    """Redis or the object store did not answer, after the client's own bounded retries."""

    code: str = ClientCode.SERVICE_UNAVAILABLE


class JobNotFound(MaskscoreError):  # noqa: N818
    """No job of this id is known: never submitted, or its record's time to live has passed."""

    code: str = ClientCode.JOB_NOT_FOUND


class BatchNotFound(JobNotFound):
    """No batch of this id is known: no job was submitted under it, or its time to live has passed."""

    code: str = ClientCode.BATCH_NOT_FOUND


class JobConflict(MaskscoreError):  # noqa: N818
    """The job id is taken by another document."""

    code: str = ClientCode.JOB_CONFLICT


class TooManyBatches(MaskscoreError):  # noqa: N818
    """The job is in as many batches as it may be; each of them hears of each of its changes."""

    code: str = ClientCode.TOO_MANY_BATCHES


class QueueFull(MaskscoreError):  # noqa: N818
    """The queue holds as many jobs as it may (``depth``); submit again later: what was submitted is not doubled.

    ``tenant`` is whose queue it is, where that is what is full; ``None``: the namespace's.
    """

    code: str = ClientCode.QUEUE_FULL

    def __init__(self, message: str, *, depth: int, tenant: str | None = None) -> None:
        super().__init__(message)
        self.depth = depth
        self.tenant = tenant


class PayloadTooLarge(MaskscoreError):  # noqa: N818
    """A job's document is larger than a queue message may be and no place to spill its masks is set."""

    code: str = ClientCode.PAYLOAD_TOO_LARGE


class ResultUnavailable(MaskscoreError):  # noqa: N818
    """The job has not ended yet, or its stored result cannot be read any more."""

    code: str = ClientCode.RESULT_UNAVAILABLE


class ResultOfAnotherJob(ResultUnavailable):
    """Where the job's result was stored, there is another job's: both were given the same ``result_uri``."""

    code: str = ClientCode.RESULT_OF_ANOTHER_JOB


class WaitTimeout(MaskscoreError, TimeoutError):  # noqa: N818
    """The job had not ended when the caller's time was over; it goes on, and can be waited for again."""

    code: str = ClientCode.WAIT_TIMEOUT


class JobFailed(MaskscoreError):  # noqa: N818
    """A waited-for job ended without a result: failed, cancelled or expired.

    ``code`` is the job's own :class:`FailureCode` (``cancelled`` and ``expired`` included), ``job_id`` its id.
    """

    def __init__(self, job_id: str, code: str, message: str) -> None:
        super().__init__(f"job {job_id}: {code}: {message}")
        self.job_id = job_id
        self.code = code
        self.message = message
