"""Parts that several unit tests share: the demo model, and storage with files alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from maskscore.storage import Objects

if TYPE_CHECKING:
    from maskscore_worker.model.clip import ClipModel


@pytest.fixture(scope="session")
def demo() -> ClipModel:
    """The demo model on the CPU in single precision; tests leave it as it is."""
    # Here, because most modules' tests need no PyTorch, which takes seconds to import.
    import torch

    from maskscore_worker.demo.run import DEMO_WEIGHTS
    from maskscore_worker.model.clip import load_model

    return load_model(DEMO_WEIGHTS, architecture="ViT-B-32", device=torch.device("cpu"))


@pytest.fixture
def objects() -> Iterator[Objects]:
    """Storage that may read every file and every bucket."""
    objects = Objects(buckets=None, result_buckets=None, file_roots=[Path("/")])
    yield objects
    objects.close()
