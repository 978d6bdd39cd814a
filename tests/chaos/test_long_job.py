"""A job that runs ten times as long as its lease runs once: the lease is renewed."""

from __future__ import annotations

from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image

from chaos.fleet import Fleet
from chaos.form import FORM
from chaos.jobs import BUCKET
from chaos.scenario import Load, Record, Row
from chaos.stage import Stage

_LEASE_S = 1.0
_LEASES = 10


@pytest.mark.timeout(600)
def test_job_of_ten_leases(stage: Stage, record: Record, tmp_path: Path) -> None:
    # An image that compresses to nothing much smaller, sent so slowly that fetching it takes twelve leases.
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    file = tmp_path / "noise.png"
    Image.fromarray(noise).save(file)
    boto3.client("s3").put_object(Bucket=BUCKET, Key="noise.png", Body=file.read_bytes())
    mask = {"id": "half", "segmentation": [[0, 0, 40, 0, 40, 60, 0, 60]]}
    slow = stage.documents[0].model_validate(
        {"image": f"s3://{BUCKET}/noise.png", "masks": [mask], "options": {"prompts": "demo"}}
    )
    namespace = f"{stage.environment['MASKSCORE_NAMESPACE']}-long"
    environment = {**stage.environment, "MASKSCORE_NAMESPACE": namespace, "MASKSCORE_LEASE_S": str(_LEASE_S)}
    with Fleet(environment, tmp_path / "fleet") as fleet, stage.new_client(namespace) as client:
        fleet.bring_to(1)
        stage.s3_proxy.trickle(file.stat().st_size / (1.2 * _LEASES * _LEASE_S))
        with Load(client, client, stage.server, stage.corpus, "long", special={0: slow}) as load:
            load.start(1)
            load.wait_accepted(1)
            outcome = load.finish(FORM.patience_s)
        status = client.status("long-0")
    assert status.claimed_at is not None
    assert status.finished_at is not None
    ran_s = (status.finished_at - status.claimed_at).total_seconds()
    stage.say(f"the job ran for {ran_s:.1f} s under a lease of {_LEASE_S:g} s, {status.attempts} time(s)")
    record(Row(f"a job of {ran_s / _LEASE_S:.0f} leases", outcome))
    outcome.check()
    assert ran_s > _LEASES * _LEASE_S
    assert status.attempts == 1
