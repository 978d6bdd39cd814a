"""What all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings

from photo_dataset import COCO_MINI, write_photo_dataset
from required_parts import require

# A slow machine is no failure.
settings.register_profile("maskscore", deadline=None)
settings.load_profile("maskscore")

# A thread of OpenMP that waits for another takes the processor meanwhile, unless it is told otherwise before PyTorch is
# loaded. Where more threads run than there are cores, as two processes of tests and their workers have, a small forward
# pass costs up to fifty times as much. Workers inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A parent that ignores Ctrl-C (a job in the background of a script) hands that down: to this process, and from here to
# every command that a test starts and interrupts. Python sets its own handler only where the signal was not ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


TESTS: Final = Path(__file__).parent
LONGEST_FIRST: Final = (
    "chaos",
    "integration/test_pool_under_load.py",
    "integration/test_scores_against_reference.py",
    "integration/test_sentinel.py",
    "integration/test_plan_memory.py",
    "integration/test_documentation.py",
    "integration/test_hostile_jobs.py",
    "integration/test_cli_with_services.py",
    "integration/test_doctor.py",
    "integration/test_worker_inputs.py",
    "integration/test_run.py",
    "integration/test_report_and_compare.py",
    "integration/test_async_client.py",
    "integration/test_device_faults.py",
    "integration/test_rescore.py",
    "integration/test_service.py",
    "integration",
    "unit/test_device_cropper.py",
    "unit/test_pairing.py",
    "unit/test_clip_model.py",
    "unit/test_report_browser.py",
)
"""What takes longest of the whole run, as measured (``make test ARGS=--durations=0``): a module or a folder's rest.

The integration tests are together, so that a process keeps their services and their worker until it has run its last.
"""


def _turn(path: Path) -> int:
    """Return the index in :data:`LONGEST_FIRST` of the module or of its folder; what is not there comes last."""
    inside = path.relative_to(TESTS)
    names = (str(inside), inside.parts[0])
    return next((LONGEST_FIRST.index(name) for name in names if name in LONGEST_FIRST), len(LONGEST_FIRST))


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--all-models``: see ``unit/test_every_architecture.py``."""
    parser.addoption(
        "--all-models",
        action="store_true",
        help="try every open_clip architecture whose image tower has less than 200 million parameters",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``-n``, start with what takes longest: at the end, one process waits a few seconds for another."""
    if hasattr(config, "workerinput"):
        if missing := [name for name in LONGEST_FIRST if not (TESTS / name).exists()]:
            raise pytest.UsageError(f"tests/conftest.py: LONGEST_FIRST names {missing}, which are not there.")
        items.sort(key=lambda item: _turn(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n``, the tests of a file stay in one process, and so do all chaos tests: they share fixtures."""
    from xdist.scheduler import LoadFileScheduling

    class ByFileAndDeployment(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> Any:
            return "chaos" if nodeid.startswith("tests/chaos/") else super()._split_scope(nodeid)

    return ByFileAndDeployment(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for what a test says that it needs, before its fixtures start anything."""
    for mark in item.iter_markers("needs"):
        require(*mark.args, **mark.kwargs)


@pytest.fixture(scope="session")
def photo_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``instances.json``, ``images/`` and ``sa1b/``; to be read alone."""
    folder = tmp_path_factory.mktemp("photos")
    write_photo_dataset(folder)
    return folder


@pytest.fixture(params=["made", *(["coco-mini"] if COCO_MINI.is_dir() else [])])
def photos(request: pytest.FixtureRequest, photo_dataset: Path) -> Path:
    """The same folder, and one with photos of COCO where it is there."""
    return photo_dataset if request.param == "made" else COCO_MINI
