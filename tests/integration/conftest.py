"""What the integration tests share: one Redis, one S3 server and one worker for the whole run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskscore.devstack import LocalServices
from maskscore_worker.demo.run import DEMO_WEIGHTS
from process_environment import patched_environment
from required_parts import require_servers
from worker_process import start_worker


@pytest.fixture(scope="package", autouse=True)
def server_programs() -> None:
    """Redis's and S3's programs, which nearly all of these tests start."""
    require_servers()


@pytest.fixture(scope="package")
def services() -> Iterator[LocalServices]:
    """A private Redis and S3; the environment of this process points to them."""
    with LocalServices() as running, patched_environment(running.environment()):
        yield running


@pytest.fixture(scope="package")
def demo_prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of prompt sets of :func:`demo_worker`, empty at first."""
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture(scope="package")
def demo_worker(
    services: LocalServices, demo_prompts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """What reaches a worker with the demo model and the defaults, which may use all buckets and pytest's folders.

    Several modules use it: a job's or a batch's id that is not made up has the module's name in it.
    """
    environment = {**services.environment(), "MASKSCORE_NAMESPACE": f"shared-{uuid.uuid4().hex[:8]}"}
    worker = {
        **environment,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_PROMPTS_DIR": str(demo_prompts),
        "MASKSCORE_BUCKETS": "*",
        "MASKSCORE_RESULT_BUCKETS": "*",
        "MASKSCORE_FILE_ROOTS": str(tmp_path_factory.getbasetemp()),
        "MASKSCORE_RESULT_ROOTS": str(tmp_path_factory.getbasetemp()),
    }
    with start_worker(worker):
        yield environment
