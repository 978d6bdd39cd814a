"""What to do about each code of a failure, in a few words; docs/reference/codes.md has more."""

from __future__ import annotations

from typing import Final

from maskscore.errors import FailureCode, InvalidDocumentError, NothingToScore, PayloadTooLarge, ResultUnavailable

__all__ = ["advice_for"]

_ADVICE: Final[dict[str, str]] = {
    FailureCode.IMAGE_NOT_FOUND: "the image is gone: list again",
    FailureCode.IMAGE_FORBIDDEN: "grant the worker's credentials read access",
    FailureCode.IMAGE_CHANGED: "the image was replaced: run again under another --batch-id",
    FailureCode.IMAGE_TOO_LARGE: "scale it down, or raise MASKSCORE_MAX_IMAGE_BYTES or MASKSCORE_MAX_PIXELS",
    FailureCode.IMAGE_UNDECODABLE: "no image that can be read: upload it again",
    FailureCode.IMAGE_TRUNCATED: "the image ends too early: upload it again",
    FailureCode.MASKS_NOT_FOUND: "the masks are gone: list again",
    FailureCode.MASKS_FORBIDDEN: "grant the worker's credentials read access",
    FailureCode.MASKS_CHANGED: "the masks were replaced: run again under another --batch-id",
    FailureCode.MASKS_TOO_LARGE: "raise MASKSCORE_MAX_MASKS_BYTES, or use compressed RLE",
    FailureCode.MASKS_INVALID: "the masks file is damaged or of no known layout; --format names one",
    FailureCode.MASK_SIZE_MISMATCH: "the masks are of another image, or of one of another size",
    FailureCode.TOO_MANY_MASKS: "raise MASKSCORE_MAX_MASKS, or split the masks",
    FailureCode.URI_NOT_ALLOWED: "add the place to the workers' MASKSCORE_BUCKETS or MASKSCORE_FILE_ROOTS",
    FailureCode.URI_INVALID: "rename the file",
    FailureCode.PROMPTS_INVALID: "correct the workers' prompt set",
    FailureCode.PROMPT_SET_UNKNOWN: "name a prompt set that the workers have, or give --prompts FILE.yaml",
    FailureCode.PROMPT_TOO_LONG: "shorten the prompt",
    FailureCode.DOCUMENT_INVALID: "the sentence names the field",
    FailureCode.DOCUMENT_VERSION_UNSUPPORTED: "install the same release of maskscore on both sides",
    FailureCode.FEATURES_NOT_FINITE: "check the weights: maskscore weights check",
    FailureCode.OUT_OF_MEMORY: "free the worker's memory",
    FailureCode.JOB_TIMEOUT: "raise MASKSCORE_JOB_TIMEOUT_S, or look at what is slow",
    FailureCode.STORAGE_UNAVAILABLE: "the object store was away for too long",
    FailureCode.RESULT_FORBIDDEN: "add the bucket to the workers' MASKSCORE_RESULT_BUCKETS; check its policy",
    FailureCode.RESULT_NOT_STORED: "create the bucket of --result-uri",
    FailureCode.RESULT_EXISTS: "give each job a result_uri of its own, such as a prefix that ends in a slash",
    FailureCode.RESULT_EXPIRED: "read results sooner, or raise MASKSCORE_RESULT_TTL_S",
    FailureCode.WORKER_LOST: "look at the worker's log",
    FailureCode.INTERNAL_ERROR: "a defect: the worker's log has the details",
    FailureCode.CANCELLED: "it was cancelled by somebody",
    FailureCode.EXPIRED: "more workers, or a longer --expires-in",
    FailureCode.POISONED: "it ended its worker time and again: maskscore dead show JOB",
    PayloadTooLarge.code: "set MASKSCORE_SPILL_URI=s3://bucket/prefix/",
    ResultUnavailable.code: "the result's object cannot be read: check the credentials, then export again",
    NothingToScore.code: "look at the masks file; --format names another layout",
    InvalidDocumentError.code: "the sentence names the field",
}


def advice_for(code: str) -> str:
    """Return what to do about a code; empty for one of another release."""
    return _ADVICE.get(code, "")
