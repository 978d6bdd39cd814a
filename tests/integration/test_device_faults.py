"""A real worker whose device is out of memory, and one whose device breaks for good."""

from __future__ import annotations

import io
import os
import uuid
from pathlib import Path

import numpy as np
from PIL import Image

from maskscore import Client, ClientSettings, Job, JobState, Mask, PromptSet, ScoringOptions
from maskscore.devstack import LocalServices
from maskscore_worker.demo.run import DEMO_WEIGHTS
from waiting import until
from worker_process import WorkerProcess, start_worker

SQUARE = [[5.0, 5.0, 40.0, 5.0, 40.0, 40.0, 5.0, 40.0]]


def test_a_worker_whose_device_breaks_gives_its_jobs_back_and_ends(services: LocalServices, tmp_path: Path) -> None:
    namespace = f"broken-{uuid.uuid4().hex[:8]}"
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)).save(picture, "PNG")
    (tmp_path / "a.png").write_bytes(picture.getvalue())
    marker = tmp_path / "broken"
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_FILE_ROOTS": str(tmp_path),
        "MASKSCORE_RETRY_FIRST_S": "0.1",
    }
    sick = WorkerProcess(tmp_path / "sick", Path(__file__).with_name("breaking_device.py"))
    job = Job(
        image=(tmp_path / "a.png").as_uri(),
        masks=[Mask(id="1", segmentation=SQUARE)],
        options=ScoringOptions(prompts="demo"),
    )
    with Client(ClientSettings(redis_url=services.redis.url, namespace=namespace)) as client:
        try:
            sick.launch({**os.environ, **environment, "BREAK_DEVICE_WHILE": str(marker)})
            sick.wait()
            client.submit(job).wait(timeout=120)
            # Too little memory for the prompts: it is tried again.
            marker.write_text("memory")
            own = PromptSet(name="own", positive=("a cube",), negative=("air",))
            options = job.options.model_copy(update={"prompts": own})
            handle = client.submit(job.model_copy(update={"job_id": "own", "options": options}))
            until(lambda: "job own is tried again" in sick.log.read_text())
            marker.unlink()
            assert handle.wait(timeout=120).state is JobState.SUCCEEDED
            marker.touch()
            # Each of them is scored anew: another image, by its bytes.
            (tmp_path / "a.png").write_bytes(picture.getvalue() + b"\0")
            again = client.submit_many([job.model_copy(update={"job_id": f"k{n}"}) for n in range(12)])
            assert sick.exit_code(120) == os.EX_SOFTWARE, sick.log_tail()
        finally:
            sick.stop()
        written = sick.log.read_text()
        assert written.count("the worker ends itself: the device is broken") == 1
        assert "an illegal memory access was encountered" in written
        assert "at no cost of an attempt" in written
        assert not sick.ready_file.exists()
        counts = again.counts()
        assert counts.failed == 0
        with start_worker(environment):
            again.wait(timeout=120)
            statuses = [client.status(f"k{n}") for n in range(12)]
    assert {status.state for status in statuses} == {JobState.SUCCEEDED}
    assert {status.attempts for status in statuses} == {1}
