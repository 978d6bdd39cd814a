"""Logs: text for people, JSON for machines, with the job's id."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import logging, threading, warnings
from maskscore.logs import job_logged, log_to_stderr
log_to_stderr("INFO", {format!r})
log = logging.getLogger("maskscore_worker")
log.info("before")
with job_logged("a"):
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
logging.getLogger("botocore").info("chatter")
"""


def lines(format: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", CODE.format(format=format)], capture_output=True, text=True, check=True)
    return ran.stderr.splitlines()


def test_each_line_of_json_is_an_object_with_the_jobs_id() -> None:
    said = [json.loads(line) for line in lines("json")]
    assert [line["message"] for line in said[:5]] == ["before", "job a: inside", "broken", "another thread", "after"]
    assert [line.get("job_id") for line in said[:5]] == [None, "a", "a", None, None]
    assert said[2]["level"] == "ERROR"
    assert any("ZeroDivisionError" in line for line in said[2]["exc_info"])
    assert said[4]["count"] == 3
    assert "odd" in said[5]["message"]
    assert said[0]["logger"] == "maskscore_worker"
    assert said[0]["time"].endswith("+00:00")


def test_text_is_as_it_was() -> None:
    said = lines("text")
    assert said[0].endswith("INFO maskscore_worker: before")
    assert not any("chatter" in line for line in said)
