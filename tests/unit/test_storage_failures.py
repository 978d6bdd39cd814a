"""Storage errors are the job's fault, transient, or the calling process's own."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    MetadataRetrievalError,
    NoCredentialsError,
    ProfileNotFound,
    UnauthorizedSSOTokenError,
)

from maskscore.errors import JobError
from maskscore.storage.failures import s3_errors


def failure_of(error: Exception) -> JobError:
    with pytest.raises(JobError) as caught, s3_errors("s3://b/a.jpg", "b", "image"):
        raise error
    assert "s3://b/a.jpg" in str(caught.value)
    return caught.value


def answered(status: int, name: str) -> ClientError:
    response = {"Error": {"Code": name, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetObject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "name", "code"),
    [
        (403, "AccessDenied", "image_forbidden"),
        (403, "403", "image_forbidden"),
        (404, "NoSuchKey", "image_not_found"),
        (400, "KeyTooLongError", "uri_invalid"),
        (412, "PreconditionFailed", "image_changed"),
    ],
)
def test_what_is_wrong_with_the_object_fails_its_job(status: int, name: str, code: str) -> None:
    error = failure_of(answered(status, name))
    assert (error.code, error.input_may_be_fine) == (code, False)


@pytest.mark.parametrize(
    ("status", "name"),
    [(403, "QuotaExceeded"), (400, "XMinioAdminBucketQuotaExceeded"), (507, "XMinioStorageFull")],
)
def test_a_store_without_room_may_have_some_later(status: int, name: str) -> None:
    error = failure_of(answered(status, name))
    assert (error.code, error.input_may_be_fine, error.of_worker) == ("storage_unavailable", True, False)
    assert f"no room for s3://b/a.jpg ({name})" in str(error)


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "ExpiredToken"),
        (400, "InvalidToken"),
        (403, "RequestTimeTooSkewed"),
        (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"),
        (400, "TokenRefreshRequired"),
        (400, "AuthorizationHeaderMalformed"),
    ],
)
def test_refused_credentials_and_clocks_are_the_fault_of_who_asks(status: int, name: str) -> None:
    error = failure_of(answered(status, name))
    assert (error.code, error.of_worker) == ("storage_unavailable", True)
    assert name in str(error)


@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError(),
        CredentialRetrievalError(provider="iam-role", error_msg="timed out"),
        MetadataRetrievalError(error_msg="no answer"),
        ProfileNotFound(profile="nobody"),
        UnauthorizedSSOTokenError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_credentials_that_cannot_be_had_are_the_fault_of_who_asks(error: Exception) -> None:
    assert failure_of(error).of_worker


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (503, "SlowDown"),
        (500, "InternalError"),
        (409, "OperationAborted"),
        (409, "ConditionalRequestConflict"),
        (408, ""),
    ],
)
def test_what_the_store_cannot_do_just_now_passes(status: int, name: str) -> None:
    error = failure_of(answered(status, name))
    assert (error.code, error.transient, error.of_worker) == ("storage_unavailable", True, False)
