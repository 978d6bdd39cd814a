"""The device check: tells an error of one job from a device that is broken for this process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["DeviceBroken", "DeviceCheck", "is_out_of_memory"]

log = logging.getLogger(__name__)

# Allocation failures that torch does not report as OutOfMemoryError: by CUDA's own libraries, and on the CPU.
_OUT_OF_MEMORY_TEXTS = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
)


class DeviceBroken(Exception):  # noqa: N818 - a state of the device
    """The device no longer computes correctly; jobs in flight must be released."""


class DeviceCheck:
    """Encodes a known crop after an error; if that fails too, the device is broken and the job is not at fault.

    After a sticky CUDA error (an illegal address, a GPU that fell off the bus) every call of the process fails, and
    only a new process may be able to use the device again.

    Parameters
    ----------
    probe: returns the ``(1, D)`` features of a crop that was encoded before.
    """

    def __init__(self, probe: Callable[[], npt.NDArray[np.float32]]) -> None:
        self._probe = probe
        self._lock = threading.Lock()
        self.on_broken: Callable[[str], None] = lambda _: None
        """Called once, with the reason, by the thread that found the device broken."""
        self.reason: str | None = None
        """What is wrong with the device, as of the last probe; once set, it stays."""

    def probe_after(self, error: BaseException) -> None:
        """Probe the device; raise :class:`DeviceBroken` if it is broken. Any thread may call."""
        with self._lock:
            first = self.reason is None
            if first:
                self.reason = self._fault(error)
        if self.reason is None:
            return
        if first:
            self.on_broken(self.reason)
        raise DeviceBroken(self.reason) from error

    def declare_broken(self, reason: str) -> None:
        """Say that the device is broken, as something other than an error has shown."""
        with self._lock:
            first = self.reason is None
            self.reason = self.reason or reason
        if first:
            self.on_broken(reason)

    def _fault(self, error: BaseException) -> str | None:
        try:
            features = self._probe()
        except Exception as again:
            if is_out_of_memory(again):
                return None
            log.error("a probe of the device failed, too", exc_info=again)
            return (
                f"the device is broken: after an error ({_summary(error)}) a known crop failed, too: {_summary(again)}"
            )
        if np.isfinite(features).all():
            return None
        return f"the device is broken: after an error ({_summary(error)}) a known crop has no finite features"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that memory, the device's or the machine's, did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)


def _summary(error: BaseException) -> str:
    line = next(iter(str(error).splitlines()), "")[:200]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
