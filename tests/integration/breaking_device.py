"""Makes every forward fail while a file exists; a worker's process runs this before it starts.

PyTorch's own hook for all modules raises inside the forward: as after a sticky CUDA error, or for want of
memory where the file says ``memory``. Nothing of the product is
changed or replaced.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

_marker = Path(os.environ["BREAK_DEVICE_WHILE"])


def _break(module: torch.nn.Module, _: Any) -> None:
    if _marker.exists():
        if _marker.read_text() == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


torch.nn.modules.module.register_module_forward_pre_hook(_break)
