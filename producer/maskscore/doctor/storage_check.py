"""Checks what jobs read and write: S3, each bucket as the settings use it, and the folders of file URIs."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from maskscore.broker import public_url
from maskscore.doctor.clock_check import judge_clock
from maskscore.doctor.deployment import Deployment
from maskscore.doctor.finding import Cause, Finding, failed, ok, skipped, warning
from maskscore.storage import S3_ERRORS, S3_UNREACHABLE, S3Refusal, credentials_source

__all__ = [
    "examine_file_roots",
    "examine_read_buckets",
    "examine_result_buckets",
    "examine_result_roots",
    "examine_s3",
    "examine_spill",
]

# What a wrong or outdated key is answered with; AccessDenied is said of a right one, too.
_CREDENTIALS_REFUSED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
}
_SET_CREDENTIALS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or another of boto3's sources."


def examine_s3(deployment: Deployment) -> Iterator[Finding]:
    """Find credentials, ask the endpoint, and compare its clock with this machine's."""
    if not deployment.needs_s3:
        yield skipped("s3", "No bucket is set: MASKSCORE_BUCKETS, MASKSCORE_RESULT_BUCKETS, MASKSCORE_SPILL_URI.")
        return
    try:
        source = credentials_source()
        where = public_url(deployment.s3.meta.endpoint_url)
    except S3_ERRORS as error:
        yield failed("s3 credentials", Cause.SETTINGS, f"boto3 cannot be set up: {_short(error)}.", _SET_CREDENTIALS)
        return
    except ValueError as error:
        yield failed(
            "s3", Cause.SETTINGS, f"{_short(error)}.", "Set AWS_ENDPOINT_URL to http://host:port or https://host."
        )
        return
    if source is None:
        yield failed("s3 credentials", Cause.SETTINGS, "boto3 finds no AWS credentials.", _SET_CREDENTIALS)
        return
    yield ok("s3 credentials", f"Found by boto3's source {source!r}.")
    before = time.time()
    try:
        answer: Mapping[str, Any] = deployment.s3.list_buckets()
        refused = ""
    except S3Refusal as error:
        answer, refused = error.response, _code(error)
    except S3_UNREACHABLE as error:
        yield failed("s3", Cause.UNAVAILABLE, f"{where} does not answer: {_short(error)}.", _CHECK_ENDPOINT)
        return
    middle = (before + time.time()) / 2
    deployment.reached.add("s3")
    if refused in _CREDENTIALS_REFUSED:
        yield failed(
            "s3",
            Cause.SETTINGS,
            f"{where} answers, but refuses the credentials: {refused}.",
            f"Correct them, where boto3's source {source!r} has them.",
        )
    elif answer["ResponseMetadata"]["HTTPStatusCode"] >= 500:
        yield failed("s3", Cause.UNAVAILABLE, f"{where} answers with an error: {refused}.", _CHECK_ENDPOINT)
    else:
        yield ok("s3", f"{where} answers.")
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    if date:
        # The header is cut to whole seconds.
        yield judge_clock("s3 clock", "S3", parsedate_to_datetime(date).timestamp() + 0.5 - middle, resolution_s=0.5)


_CHECK_ENDPOINT = (
    "Check that it runs, and AWS_ENDPOINT_URL (unset, it is Amazon's); a proxy may be in between (NO_PROXY)."
)


def examine_read_buckets(deployment: Deployment) -> Iterator[Finding]:
    """Look into each of ``MASKSCORE_BUCKETS``."""
    buckets = deployment.settings.buckets
    if not buckets:
        yield skipped("bucket", "MASKSCORE_BUCKETS is unset: jobs read no objects.")
    for bucket in buckets:
        if bucket == "*":
            yield skipped("bucket", "MASKSCORE_BUCKETS allows every bucket; none is looked into.")
            continue
        trouble = _look_into(deployment, "bucket", bucket)
        yield trouble or ok("bucket", f"{bucket} can be read.")


def examine_result_buckets(deployment: Deployment) -> Iterator[Finding]:
    """Write a tiny object to each of ``MASKSCORE_RESULT_BUCKETS``, and remove it again."""
    buckets = deployment.settings.result_buckets
    if not buckets:
        yield skipped("result bucket", "MASKSCORE_RESULT_BUCKETS is unset: results stay in Redis.")
    for bucket in buckets:
        if bucket == "*":
            yield skipped("result bucket", "MASKSCORE_RESULT_BUCKETS allows every bucket; none is written to.")
            continue
        yield _write_into(deployment, "result bucket", bucket, "")


def examine_spill(deployment: Deployment) -> Iterator[Finding]:
    """Write a tiny object to ``MASKSCORE_SPILL_URI``, and remove it again."""
    uri = deployment.settings.spill_uri
    if uri is None:
        yield skipped("spill", "MASKSCORE_SPILL_URI is unset: masks too large for Redis are refused.")
        return
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    yield _write_into(deployment, "spill", bucket, prefix)


def examine_file_roots(deployment: Deployment) -> Iterator[Finding]:
    """Look whether each of ``MASKSCORE_FILE_ROOTS`` is a folder that this user can read."""
    if not deployment.settings.file_roots:
        yield skipped("file roots", "MASKSCORE_FILE_ROOTS is unset: jobs read no files.")
    for root in deployment.settings.file_roots:
        yield _look_at("file roots", "MASKSCORE_FILE_ROOTS", root, os.R_OK | os.X_OK, "read", "r and x")


def examine_result_roots(deployment: Deployment) -> Iterator[Finding]:
    """Look whether each of ``MASKSCORE_RESULT_ROOTS``, which few deployments have, is a folder that can be written."""
    for root in deployment.settings.result_roots:
        yield _look_at("result roots", "MASKSCORE_RESULT_ROOTS", root, os.W_OK | os.X_OK, "written to", "w and x")


def _look_at(name: str, setting: str, root: Path, needed: int, verb: str, rights: str) -> Finding:
    if not root.is_dir():
        there = "is a file, not a folder" if root.exists() else "does not exist"
        return failed(name, Cause.SETTINGS, f"{root} {there}.", f"Correct {setting}, or mount the folder.")
    if not os.access(root, needed):
        sentence = f"{root} cannot be {verb} by this user."
        return failed(name, Cause.DEPLOYMENT, sentence, f"Give it the rights {rights} on it.")
    return ok(name, f"{root} can be {verb}.")


def _look_into(deployment: Deployment, name: str, bucket: str) -> Finding | None:
    try:
        deployment.s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except S3_ERRORS as error:
        return _trouble(name, f"{bucket} cannot be read", bucket, error, "s3:ListBucket and s3:GetObject")
    return None


def _write_into(deployment: Deployment, name: str, bucket: str, prefix: str) -> Finding:
    # SeaweedFS makes a bucket that it does not know when it is written to.
    trouble = _look_into(deployment, name, bucket)
    if trouble is not None and trouble.sentence.startswith("There is no bucket"):
        return trouble
    key = f"{prefix}.maskscore-doctor-{secrets.token_hex(8)}"
    try:
        deployment.s3.put_object(Bucket=bucket, Key=key, Body=b"maskscore doctor", ContentType="text/plain")
    except S3_ERRORS as error:
        return _trouble(name, f"s3://{bucket}/{prefix} cannot be written to", bucket, error, "s3:PutObject")
    try:
        deployment.s3.delete_object(Bucket=bucket, Key=key)
    except S3_ERRORS as error:
        why = _code(error) if isinstance(error, S3Refusal) else _short(error)
        return warning(
            name,
            f"s3://{bucket}/{prefix} can be written to, but s3://{bucket}/{key} could not be removed: {why}.",
            "Remove it by hand. Workers themselves remove nothing.",
        )
    return ok(name, f"s3://{bucket}/{prefix} can be written to.")


def _trouble(name: str, what: str, bucket: str, error: Exception, rights: str) -> Finding:
    if not isinstance(error, S3Refusal):
        unavailable = isinstance(error, S3_UNREACHABLE)
        cause = Cause.UNAVAILABLE if unavailable else Cause.SETTINGS
        return failed(name, cause, f"{what}: {_short(error)}.", _CHECK_ENDPOINT if unavailable else "Correct the name.")
    code, status = _code(error), int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _CREDENTIALS_REFUSED:
        return failed(name, Cause.SETTINGS, f"{what}: forbidden, {code}.", "See s3, above.")
    if status in (401, 403):
        return failed(name, Cause.SETTINGS, f"{what}: forbidden, {code}.", f"Allow {rights} in the policy.")
    if status == 404:
        return failed(
            name, Cause.SETTINGS, f"There is no bucket {bucket!r}.", "Make it, or correct the name in the setting."
        )
    if status in (301, 307, 400):
        advice = "Check the bucket's name, and that AWS_DEFAULT_REGION is the bucket's region."
        return failed(name, Cause.SETTINGS, f"{what}: {status} {code}.", advice)
    return failed(name, Cause.UNAVAILABLE, f"{what}: the store answers {status} {code}.", _CHECK_ENDPOINT)


def _code(error: S3Refusal) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
