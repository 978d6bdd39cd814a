"""S3's errors → failure codes, by the role that the object has for its job: image, masks, or result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from boto3.exceptions import RetriesExceededError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from urllib3.exceptions import HTTPError

from maskscore.broker import redacted
from maskscore.errors import FailureCode, JobError

__all__ = [
    "ATTEMPTS",
    "CODES",
    "CUT_OFF",
    "REFUSED_CREDENTIALS",
    "ObjectRole",
    "changed",
    "check_size",
    "error_code",
    "s3_errors",
]

ObjectRole = Literal["image", "masks", "result"]

ATTEMPTS: Final = 3
# What reading an answer's body may raise; botocore does not try again by itself once the answer has begun.
CUT_OFF: Final = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError, HTTPError)
# The credentials or the clock of whoever asks are at fault, not the object: another worker may read it at once. Amazon
# and other stores answer with 400, 401 or 403, as if the request were malformed or the object closed.
REFUSED_CREDENTIALS: Final = {
    "AuthorizationHeaderMalformed": "the request's signature is for another region; check AWS_DEFAULT_REGION",
    "AuthFailure": "the credentials are not accepted",
    "ExpiredToken": "the session token has expired",
    "ExpiredTokenException": "the session token has expired",
    "InvalidAccessKeyId": "the access key is not known there",
    "InvalidClientTokenId": "the access key is not known there",
    "InvalidSecurity": "the credentials are not accepted",
    "InvalidToken": "the session token is not valid",
    "RequestExpired": "the request is too old; set this machine's clock",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the store's; set it",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "TokenRefreshRequired": "the session token has to be renewed",
    "UnrecognizedClientException": "the credentials are not accepted",
}
# Answered with 4xx, and gone the next time.
_TRANSIENT: Final = {
    "ConditionalRequestConflict",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeoutException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
}
# What MinIO and Ceph answer where the disks are full or a quota is used up, with 400, 403 or 507.
_NO_ROOM: Final = {"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}
_BAD_NAMES = ("InvalidBucketName", "InvalidURI", "KeyTooLongError")


@dataclass(frozen=True, slots=True)
class _Codes:
    not_found: FailureCode
    forbidden: FailureCode
    changed: FailureCode
    too_large: FailureCode


CODES: dict[ObjectRole, _Codes] = {
    "image": _Codes(
        FailureCode.IMAGE_NOT_FOUND,
        FailureCode.IMAGE_FORBIDDEN,
        FailureCode.IMAGE_CHANGED,
        FailureCode.IMAGE_TOO_LARGE,
    ),
    "masks": _Codes(
        FailureCode.MASKS_NOT_FOUND,
        FailureCode.MASKS_FORBIDDEN,
        FailureCode.MASKS_CHANGED,
        FailureCode.MASKS_TOO_LARGE,
    ),
    "result": _Codes(
        FailureCode.RESULT_NOT_STORED,
        FailureCode.RESULT_FORBIDDEN,
        FailureCode.RESULT_NOT_STORED,
        FailureCode.RESULT_NOT_STORED,
    ),
}


def check_size(uri: str, what: ObjectRole, size: int, max_bytes: int) -> None:
    """Raise ``…_too_large`` for more bytes than are read."""
    if size > max_bytes:
        limit = f" (MASKSCORE_MAX_{what.upper()}_BYTES)" if what != "result" else ""
        raise JobError(CODES[what].too_large, f"{uri} has {size:,} bytes; at most {max_bytes:,} are read{limit}.")


def changed(uri: str, what: ObjectRole, wanted: str, found: str | None) -> JobError:
    """Return the error of an object that has another ETag than the one ``wanted``."""
    there = f" (it has {found} now)" if found else ""
    return JobError(
        CODES[what].changed,
        f"{uri} is not the object that the job was submitted for: its ETag is not {wanted}{there}. Submit again for "
        "the present object.",
    )


@contextmanager
def s3_errors(uri: str, bucket: str, what: ObjectRole) -> Iterator[None]:
    """Translate boto3's errors into :class:`~maskscore.errors.JobError`; nothing above sees boto3's."""
    codes = CODES[what]
    try:
        yield
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        name = error_code(error)
        if name in REFUSED_CREDENTIALS:
            raise _refused(uri, f"{REFUSED_CREDENTIALS[name]} ({name})") from error
        if name in _NO_ROOM:
            raise JobError(
                FailureCode.STORAGE_UNAVAILABLE,
                f"The store has no room for {uri} ({name}). Delete what is not needed, or raise the bucket's quota.",
            ) from error
        if name == "NoSuchBucket":
            raise JobError(codes.not_found, f"{uri}: there is no bucket {bucket!r}.") from error
        if name == "NoSuchVersion":
            raise JobError(codes.not_found, f"{uri} has no such version.") from error
        if status == 412 or name == "PreconditionFailed":
            raise changed(uri, what, "the job's", None) from error
        if status == 404:
            raise JobError(codes.not_found, f"There is no object {uri}.") from error
        if name in _BAD_NAMES:
            raise JobError(FailureCode.URI_INVALID, f"The store refuses the name {uri!r}: {name}.") from error
        if name == "InvalidObjectState":
            raise JobError(codes.forbidden, f"{uri} is archived; restore it first.") from error
        if status in (401, 403):
            raise JobError(
                codes.forbidden,
                f"The store refuses access to {uri} ({name}). Check the AWS credentials and the bucket's policy.",
            ) from error
        if status >= 500 or status in (408, 429) or name in _TRANSIENT:
            raise _unavailable(uri, f"it answered {status} {name}") from error
        raise JobError(codes.not_found, f"The store refuses {uri}: {status} {name}: {error}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise _refused(
            uri,
            "no AWS credentials are set. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or one of boto3's other "
            "sources",
        ) from error
    except ParamValidationError as error:
        raise JobError(FailureCode.URI_INVALID, f"{uri!r} is not an object's URI: {error}") from error
    except (ConnectionError, HTTPClientError, RetriesExceededError, *CUT_OFF) as error:
        raise _unavailable(uri, redacted(str(error))) from error
    except BotoCoreError as error:
        # Where the credentials come from does not answer (a metadata service, a login), or boto3's settings are wrong.
        raise _refused(uri, redacted(str(error)).rstrip(".")) from error


def error_code(error: ClientError) -> str:
    """Return the name that the store gives an error, such as ``NoSuchKey``; a status where it gives none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _refused(uri: str, why: str) -> JobError:
    return JobError(
        FailureCode.STORAGE_UNAVAILABLE,
        f"{uri} cannot be asked for from here: {why}. Correct the AWS credentials and settings of the process that "
        "asks; the object may be fine.",
        transient=False,
        of_worker=True,
    )


def _unavailable(uri: str, why: str) -> JobError:
    return JobError(
        FailureCode.STORAGE_UNAVAILABLE,
        f"The object store does not answer for {uri} after {ATTEMPTS} attempts or more: {why}. Check AWS_ENDPOINT_URL, "
        "or try again later.",
    )
