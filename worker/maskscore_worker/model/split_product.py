"""fp32 products on a processor's bf16 units: each number is the sum of two bf16 numbers, and three products are added.

With ``a = a1 + a2`` and ``w = w1 + w2``, each part in bf16, ``a · w`` is ``a1 · w1 + a2 · w1 + a1 · w2`` but for a
part in 2**17: sixteen bits of each factor, added up in fp32 (Henry, Tang and Heinecke, "Leveraging the bfloat16
Artificial Intelligence Datatype For Higher-Precision Computations", 2019). A core with AMX multiplies bf16 eight times
as fast as fp32. PyTorch has no such product with an fp32 result on a CPU, but it carries MKL, which has:
``cblas_gemm_bf16bf16f32``.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, Final

import torch

__all__ = ["SplitWeight", "can_split"]

_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112  # of CBLAS
# Values that are split at a time: what is in between stays in a core's cache.
_CACHED_VALUES: Final = 98_304


@functools.cache
def _product() -> Any:
    """Return MKL's function, or ``None`` where this PyTorch does not carry it or the processor has no AMX."""
    # Asks the system for AMX's registers, too.
    if not (torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx()):
        return None
    try:
        function = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).cblas_gemm_bf16bf16f32
    except (OSError, AttributeError):
        return None
    whole, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    function.argtypes = [*[whole] * 6, real, pointer, whole, pointer, whole, real, pointer, whole]
    function.restype = None
    return function


def can_split() -> bool:
    """Return whether this process can multiply so, and faster than in fp32."""
    return _product() is not None


class SplitWeight:
    """The weight ``(O, I)`` float32 of a linear layer, as two bf16 matrices of together the same size.

    What the two leave of it is kept until :meth:`drop_remainder`, so that :meth:`whole` is exact. ``rounded`` takes the
    first of the three products alone, of factors that are rounded to bf16; it is added up in fp32, too.
    """

    def __init__(self, weight: torch.Tensor, *, rounded: bool = False) -> None:
        self._rounded = rounded
        self._high, self._low = _split(weight.detach())
        # Eight bits of at most 24 are left: exact in bf16.
        self._remainder = (weight.detach() - self._high.float() - self._low.float()).bfloat16()

    def drop_remainder(self) -> None:
        """Free what only :meth:`whole` needs."""
        self._remainder = torch.empty(0)
        if self._rounded:
            self._low = torch.empty(0)

    def whole(self) -> torch.Tensor:
        """Return the weight, before :meth:`drop_remainder` to the bit."""
        return self._high.float() + (self._low.float() + self._remainder.float())

    def multiply(self, values: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return ``values @ weight.T + bias`` ``(..., O)`` for float32 ``(..., I)``, on all of PyTorch's threads."""
        outs, ins = self._high.shape
        flat = values.reshape(-1, ins)
        if self._rounded:
            high = flat.bfloat16()
            pairs = [(high, self._high)]
        else:
            high, low = _split(flat)
            pairs = [(high, self._high), (low, self._high), (high, self._low)]
        count = len(high)
        product = torch.empty((count, outs)).copy_(torch.zeros(()) if bias is None else bias)
        for left, right in pairs:
            _product()(
                *(_ROW_MAJOR, _PLAIN, _TRANSPOSED, count, outs, ins, 1.0, left.data_ptr(), ins),
                *(right.data_ptr(), ins, 1.0, product.data_ptr(), outs),
            )
        return product.view(*values.shape[:-1], outs)


def _split(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two contiguous bf16 matrices whose sum is the float32 matrix ``values``, but for a part in 2**17."""
    count, width = values.shape
    high, low = (torch.empty((count, width), dtype=torch.bfloat16) for _ in range(2))
    rows = max(1, _CACHED_VALUES // width)
    rest = torch.empty((min(rows, count), width))
    for start in range(0, count, rows):
        some, part = values[start : start + rows], high[start : start + rows]
        left = rest[: len(some)]
        part.copy_(some)
        left.copy_(part)
        torch.sub(some, left, out=left)
        low[start : start + rows].copy_(left)
    return high, low
