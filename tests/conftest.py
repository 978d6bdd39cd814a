"""What all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n``, a file's tests stay in one process, for their fixtures, and all chaos tests, for their stage."""
    from xdist.scheduler import LoadFileScheduling

    class ByFileAndStage(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> Any:
            return "chaos" if nodeid.startswith("tests/chaos/") else super()._split_scope(nodeid)

    return ByFileAndStage(config, log)


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
