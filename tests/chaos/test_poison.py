"""One job among 200 that kills the process that touches its image, every time.

Nothing in the product is changed for it: the proxy before S3 sees who asks for the poisoned image, finds the process by
its end of the connection, and that process is killed (SIGKILL) before the image is on its way: what a crash in a
decoder or the kernel's out-of-memory killer looks like from outside.
"""

from __future__ import annotations

import signal
import time

import boto3
import pytest

from chaos.chaos_profile import PROFILE
from chaos.deployment import WORKERS, Deployment
from chaos.jobs import BUCKET
from chaos.scenario import Record, Row

_JOBS = 200
_POISONED = 70
_KEY = "poison.png"
_ATTEMPTS = 3


@pytest.mark.timeout(1800)
def test_poison(deployment: Deployment, record: Record) -> None:
    healthy = boto3.client("s3").get_object(Bucket=BUCKET, Key="scene-0.png")["Body"].read()
    boto3.client("s3").put_object(Bucket=BUCKET, Key=_KEY, Body=healthy)
    image = deployment.documents[0].image.model_copy(update={"uri": f"s3://{BUCKET}/{_KEY}"})
    poison = deployment.documents[0].model_copy(update={"image": image})
    killed: list[tuple[float, int]] = []

    def kill_who_asks(request: str, port: int) -> bool:
        if _KEY not in request:
            return True
        worker = deployment.fleet.owner_of(port)
        if worker is not None:
            worker.signal(signal.SIGKILL)
            killed.append((time.monotonic(), worker.pid))
        return False

    with deployment.load("poison", special={_POISONED: poison}) as load:
        deployment.s3_proxy.watch = kill_who_asks
        load.start(_JOBS)
        load.wait_accepted(_JOBS)
        moved = time.monotonic()
        seen = -1
        while (now := load.ended() + len(killed)) < _JOBS + _ATTEMPTS and time.monotonic() - moved < PROFILE.patience_s:
            if now != seen:
                seen, moved = now, time.monotonic()
            for worker in list(deployment.fleet.workers):
                if not worker.alive():
                    deployment.fleet.replace(worker)
            time.sleep(0.05)
        ended = time.monotonic()
        outcome = load.finish(PROFILE.patience_s)
        deployment.say(f"the poisoned image killed {len(killed)} workers: {', '.join(str(pid) for _, pid in killed)}")
        after = [ended - killed[-1][0]] if killed else []
        record(Row(f"1 poison job among {_JOBS}", outcome, after))
        outcome.check(failed={"poisoned": 1})
        assert len(killed) == _ATTEMPTS
        poisoned = load.job_id(_POISONED)
        assert [letter.status.job_id for letter in deployment.client.dead_letters()] == [poisoned]
        # The cause is gone: requeued, the very same job succeeds.
        deployment.s3_proxy.pass_on()
        deployment.fleet.bring_to(WORKERS)
        deployment.client.requeue(poisoned)
        result = deployment.client.wait(poisoned, timeout=120)
        assert not deployment.corpus.wrong(0, result)
        assert list(deployment.client.dead_letters()) == []
    deployment.say("requeued, it succeeded")
