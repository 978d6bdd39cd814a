"""The producer is killed in the middle of ``submit_many`` and run again, with the same ids and the same batch."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos import produce
from chaos.chaos_profile import PROFILE
from chaos.deployment import Deployment
from chaos.fleet import bare_environment
from chaos.proxy import TcpProxy
from chaos.scenario import Record, Row

_JOBS = 400 if PROFILE.name == "short" else 1000
_LINE_S = 0.02


@pytest.mark.timeout(600)
def test_killed_producer(deployment: Deployment, record: Record, tmp_path: Path) -> None:
    namespace = deployment.environment["MASKSCORE_NAMESPACE"]
    load = deployment.load("producer")
    file = tmp_path / "jobs.jsonl"
    file.write_text("".join(f"{load.job(n).model_dump_json()}\n" for n in range(_JOBS)), "utf-8")
    command = [sys.executable, produce.__file__, str(file), load.batch_id]
    # A slow line of its own, so that the kill falls into the middle.
    with TcpProxy(deployment.redis_port) as line:
        line.delay(_LINE_S)
        environment = {
            **bare_environment(),
            "MASKSCORE_REDIS_URL": deployment.redis_url.replace(f":{deployment.redis_proxy.port}/", f":{line.port}/"),
            "MASKSCORE_NAMESPACE": namespace,
        }
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as producer:
            submitted = 0
            while submitted < _JOBS // 4 and producer.poll() is None:
                submitted = sum(1 for _ in deployment.server.scan_iter(f"{namespace}:job:{load.batch_id}-*", 1000))
                time.sleep(0.01)
            assert producer.poll() is None, "the producer was through before it could be killed"
            producer.kill()
        deployment.say(f"producer killed when {submitted} of {_JOBS} jobs were submitted")
        line.delay(0)
        again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stdout.split() == [str(_JOBS)]
    outcome = load.count(range(_JOBS), PROFILE.patience_s)
    record(Row("producer killed in submit_many", outcome))
    outcome.check()
    assert set(outcome.attempts) == {1}
