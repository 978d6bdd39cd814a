"""Logs as text and as JSON, with the job's id."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CODE = """
import logging, sys, threading, warnings
from maskscore.observability import job_id_logged, log_to_stderr
log_to_stderr("INFO", {format!r})
log = logging.getLogger("maskscore_worker")
log.info("before")
with job_id_logged("a"):
    log.info("job %s: inside", "a")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("broken")
    thread = threading.Thread(target=log.info, args=["another thread"])
    thread.start()
    thread.join()
log.info("after", extra={{"count": 3}})
warnings.warn("odd")
print("of a library that prints", file=sys.stderr)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
logging.getLogger("botocore").info("chatter")
raise ValueError("the end")
"""


def lines(format: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", CODE.format(format=format)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    return ran.stderr.splitlines()


def test_each_line_of_json_is_an_object_with_the_jobs_id() -> None:
    said = [json.loads(line) for line in lines("json")]
    assert [line["message"] for line in said[:5]] == ["before", "job a: inside", "broken", "another thread", "after"]
    assert [line.get("job_id") for line in said[:5]] == [None, "a", "a", None, None]
    assert said[2]["level"] == "ERROR"
    assert any("ZeroDivisionError" in line for line in said[2]["exc_info"])
    assert said[4]["count"] == 3
    assert "odd" in said[5]["message"]
    assert (said[6]["message"], said[6]["level"]) == ("of a library that prints", "ERROR")
    assert [line["exc_info"][-1] for line in said[7:]] == ["ZeroDivisionError: division by zero", "ValueError: the end"]
    assert said[0]["logger"] == "maskscore_worker"
    assert said[0]["time"].endswith("+00:00")


def test_text_is_as_it_was() -> None:
    said = lines("text")
    assert said[0].endswith("INFO maskscore_worker: before")
    assert not any("chatter" in line for line in said)


FORGED = """
import logging
from maskscore.observability import log_to_stderr
log_to_stderr("INFO", {format!r})
log = logging.getLogger("maskscore_worker")
evil = "x\\r\\n2026-11-27 00:00:00,000 CRITICAL maskscore_worker: FORGED \\x1b]0;owned\\x07\\x9b2J\\u2028\\u202e"
log.warning("no object %s", evil)
try:
    raise ValueError(evil)
except ValueError:
    log.exception("broken: %s", "redis://:hunter2@s3cret/tail@h:1/0")
logging.getLogger("celery").error("Cannot connect to %s", "redis://:hunter2@s3cret/tail@h:1/0")
log.info("stack", stack_info=True)
log.info("count", extra={{"url": "redis://:hunter2@h/0"}})
"""


def test_nothing_that_is_logged_forges_a_line_moves_the_cursor_or_shows_a_password() -> None:
    for format in ("text", "json"):
        code = FORGED.format(format=format)
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        own = [line for line in ran.stderr.split("\n") if line and not line.startswith("  ")]
        assert len(own) == 5, own
        assert all(line.startswith("{") or " maskscore_worker: " in line or " celery: " in line for line in own)
        assert not [line for line in ran.stderr.split("\n") if line.startswith("2026-11-27 00:00:00,000")]
        assert not set(ran.stderr) & set("\r\x1b\x07\x9b\u2028\u202e")
        assert "FORGED" in ran.stderr
        assert "ValueError: x" in ran.stderr
        assert not [secret for secret in ("hunter2", "s3cret", "tail@") if secret in ran.stderr]
        assert format == "text" or all(json.loads(line) for line in own)


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (["worker", "--log-format", "json"], {"MASKSCORE_MISSPELT": "x"}),
        (["worker"], {"MASKSCORE_LEASE_S": "soon"}),
        (["pool"], {"MASKSCORE_MISSPELT": "x"}),
        (["exporter"], {"MASKSCORE_MISSPELT": "x", "MASKSCORE_HTTP_PORT": "99999999"}),
        (["gateway"], {"MASKSCORE_GATEWAY_PORT": "99999999"}),
    ],
)
def test_wrong_settings_are_json_too(command: list[str], variables: dict[str, str]) -> None:
    environment = {**os.environ, "MASKSCORE_LOG_FORMAT": "json", **variables}
    if "--log-format" in command:
        del environment["MASKSCORE_LOG_FORMAT"]
    ran = subprocess.run(
        [sys.executable, "-m", "maskscore", *command], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    said = [json.loads(line) for line in ran.stderr.splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in said)
    for name in variables:
        assert any(name in line["message"] for line in said)
