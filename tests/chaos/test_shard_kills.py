"""Shards whose workers are killed at random moments, and whose run is killed, too, and resumed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from chaos import run_tars
from chaos.chaos_profile import PROFILE
from chaos.deployment import CONCURRENCY, Deployment
from chaos.fleet import bare_environment
from chaos.jobs import BUCKET
from chaos.scenario import Record, Row
from chaos.shard_corpus import IMAGES, PART_IMAGES, TARS, ShardCorpus
from chaos.shard_faults import RandomKills, ShardRun
from waiting import until

_KILLS = 5 if PROFILE.name == "short" else 20


@pytest.mark.timeout(3600)
def test_killed_workers_and_a_killed_run(deployment: Deployment, shard_corpus: ShardCorpus, record: Record) -> None:
    with ShardRun(deployment, shard_corpus, "shard-kills") as run:
        # Each part is two requests, beside those of the tar.
        kills = RandomKills(run, _KILLS, len(run.shards) * 2 * IMAGES // PART_IMAGES, seed=14)
        run.at = kills.at
        place, output = f"s3://{BUCKET}/{TARS}", run.shards[0].output_uri
        command = [sys.executable, run_tars.__file__, place, run.batch_id, output, str(PART_IMAGES)]
        environment = {
            **bare_environment(),
            "MASKSCORE_REDIS_URL": deployment.redis_url,
            "MASKSCORE_NAMESPACE": deployment.environment["MASKSCORE_NAMESPACE"],
        }
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as first:
            until(lambda: len(kills.pids) >= 2 or first.poll() is not None, "two workers are killed")
            assert first.poll() is None, "the run had ended before it could be killed"
            first.kill()
        deployment.say("the run was killed; it is started again with --resume")
        with subprocess.Popen([*command, "resume"], env=environment, stdout=subprocess.PIPE) as resumed:
            if not run.wait():
                resumed.kill()
            said, _ = resumed.communicate()
        outcome = run.outcome()
    temporary = [path for path in deployment.fleet.workers[0].directory.parent.glob("*/tmp/*") if "shard" in path.name]
    record(Row(f"{len(run.shards)} shards, {_KILLS} workers SIGKILLed, run", outcome))
    run.check(outcome)
    assert len(kills.pids) == _KILLS
    assert temporary == [], "killed workers left files"
    summary = json.loads(said)
    assert summary["states"] == {"succeeded": len(run.shards)}
    assert summary["images_failed"] == sum(outcome.failed.values())
    repeated = {file for file in run.replaced if "/masks/" in file}
    deployment.say(f"{len(repeated)} of {summary['parts']} parts were stored again")
    assert len(repeated) <= _KILLS * CONCURRENCY, "a kill repeats at most the part that each shard had not committed"
