"""Makes a forward hang while a file exists; a worker's process runs this before it starts.

PyTorch's own hook for all modules blocks the thread that computes, inside the forward, as a driver that does not return
does. Nothing of the product is changed or replaced.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

_marker = Path(os.environ["CHAOS_HANG_WHILE"])


def _hang(module: torch.nn.Module, _: Any) -> None:
    while _marker.exists():
        time.sleep(0.05)


torch.nn.modules.module.register_module_forward_pre_hook(_hang)
