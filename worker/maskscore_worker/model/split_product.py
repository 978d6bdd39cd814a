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
# Values that are split at a time. One thread: what is in between stays in its core's cache. Several threads: they wait
# for one another after each step, which on a busy machine takes longer than the cache saves.
_CACHED_VALUES: Final = 98_304
_SHARED_VALUES: Final = 1_048_576


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
        width = weight.shape[1]
        # One below the other in each row, so that one call makes two of the products.
        self._parts = _split(weight.detach())[:, width:].contiguous()
        # Eight bits of at most 24 are left: exact in bf16.
        self._remainder = (weight.detach() - self._parts[:, :width].float() - self._parts[:, width:].float()).bfloat16()

    def drop_remainder(self) -> None:
        """Free what only :meth:`whole` needs."""
        width = self._remainder.shape[1]
        self._remainder = self._remainder[:0]
        if self._rounded:
            self._parts = self._parts[:, :width].contiguous()

    def whole(self) -> torch.Tensor:
        """Return the weight, before :meth:`drop_remainder` to the bit."""
        width = self._remainder.shape[1]
        return self._parts[:, :width].float() + (self._parts[:, width:].float() + self._remainder.float())

    def multiply(self, values: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return ``values @ weight.T + bias`` ``(..., O)`` for float32 ``(..., I)``, on all of PyTorch's threads."""
        outs, ins = len(self._parts), self._remainder.shape[1]
        flat = values.reshape(-1, ins)
        product = torch.empty((len(flat), outs)).copy_(torch.zeros(()) if bias is None else bias)
        if self._rounded:
            high = flat.to(torch.bfloat16, memory_format=torch.contiguous_format)
            _add_product(high, self._parts[:, :ins], product)
        else:
            parts = _split(flat)
            _add_product(parts[:, : 2 * ins], self._parts, product)  # high · high + high · low
            _add_product(parts[:, 2 * ins :], self._parts[:, :ins], product)  # low · high
        return product.view(*values.shape[:-1], outs)


def _add_product(left: torch.Tensor, right: torch.Tensor, product: torch.Tensor) -> None:
    """Add ``left @ right.T`` to ``product``: bf16 matrices, and a contiguous float32 one."""
    (count, width), outs = left.shape, len(right)
    # Of a single row the stride may be anything, and MKL refuses one that is less than a row.
    strides = [max(matrix.stride(0), width) for matrix in (left, right)]
    _product()(
        *(_ROW_MAJOR, _PLAIN, _TRANSPOSED, count, outs, width, 1.0, left.data_ptr(), strides[0]),
        *(right.data_ptr(), strides[1], 1.0, product.data_ptr(), outs),
    )


def _split(values: torch.Tensor) -> torch.Tensor:
    """Return bf16 ``(N, 3 · I)`` of float32 ``(N, I)``: in each row the high parts twice, then the low ones.

    The sum of both parts is the value, but for a part in 2**17.
    """
    count, width = values.shape
    parts = torch.empty((count, 3 * width), dtype=torch.bfloat16)
    at_once = _CACHED_VALUES if torch.get_num_threads() == 1 else _SHARED_VALUES
    rows = max(1, at_once // width)
    rest = torch.empty((min(rows, count), width))
    for start in range(0, count, rows):
        some, part = values[start : start + rows], parts[start : start + rows]
        left, high = rest[: len(some)], part[:, :width]
        high.copy_(some)
        part[:, width : 2 * width].copy_(high)
        left.copy_(high)
        torch.sub(some, left, out=left)
        part[:, 2 * width :].copy_(left)
    return parts
