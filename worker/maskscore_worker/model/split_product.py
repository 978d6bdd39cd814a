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
# With few rows, reading the weights and bringing them into MKL's layout takes most of the time.
_FEW_ROWS: Final = 128
_FEW_ROWS_OUTPUTS: Final = 1024


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
        weight = weight.detach()
        outs, width = weight.shape
        self._parts = torch.empty((outs, 2 * width), dtype=torch.bfloat16)
        high, low = self._parts[:, :width], self._parts[:, width:]
        _split(weight, high, low)
        # Eight bits of at most 24 are left: exact in bf16.
        self._remainder = (weight - high.float() - low.float()).bfloat16()

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
        initial = torch.zeros(()) if bias is None else bias
        if self._rounded:
            high = flat.to(torch.bfloat16, memory_format=torch.contiguous_format)
            product = torch.empty((len(flat), outs)).copy_(initial)
            _add_product(high, self._parts[:, :ins], product)
            return product.view(*values.shape[:-1], outs)
        # The low part before the high one, against the weight's high before its low one: one call for two products.
        parts = torch.empty((len(flat), 2 * ins), dtype=torch.bfloat16)
        _split(flat, parts[:, ins:], parts[:, :ins])
        if len(flat) <= _FEW_ROWS:
            product = self._product_of_few_rows(parts).add_(initial)
        else:
            product = torch.empty((len(flat), outs)).copy_(initial)
            _add_product(parts, self._parts, product)  # low · high + high · low
            _add_product(parts[:, ins:], self._parts[:, :ins], product)  # high · high
        return product.view(*values.shape[:-1], outs)

    def _product_of_few_rows(self, parts: torch.Tensor) -> torch.Tensor:
        """Return the sum of the three products; every number of the weight is read from memory once."""
        count, outs, ins = len(parts), len(self._parts), self._remainder.shape[1]
        rows = parts.view(2 * count, ins)  # in turn one of low parts and one of high ones
        product = torch.empty((count, outs))
        for start in range(0, outs, _FEW_ROWS_OUTPUTS):
            weight, out = self._parts[start : start + _FEW_ROWS_OUTPUTS], product[:, start : start + _FEW_ROWS_OUTPUTS]
            sums = torch.empty((2 * count, len(weight)))
            _add_product(rows, weight[:, :ins], sums, to=0.0)
            _add_product(rows[1::2], weight[:, ins:], sums[1::2])
            torch.add(sums[::2], sums[1::2], out=out)
        return product


def _add_product(left: torch.Tensor, right: torch.Tensor, product: torch.Tensor, *, to: float = 1.0) -> None:
    """Make ``product`` ``to * product + left @ right.T``, of bf16 matrices; the numbers of each row are contiguous."""
    (count, width), outs = left.shape, len(right)
    # Of a single row the stride may be anything, and MKL refuses one that is less than a row.
    strides = [max(matrix.stride(0), matrix.shape[1]) for matrix in (left, right, product)]
    _product()(
        *(_ROW_MAJOR, _PLAIN, _TRANSPOSED, count, outs, width, 1.0, left.data_ptr(), strides[0]),
        *(right.data_ptr(), strides[1], to, product.data_ptr(), strides[2]),
    )


def _split(values: torch.Tensor, high: torch.Tensor, low: torch.Tensor) -> None:
    """Write the two bf16 parts of float32 ``(N, I)``, whose sum is the value but for a part in 2**17."""
    count, width = values.shape
    at_once = _CACHED_VALUES if torch.get_num_threads() == 1 else _SHARED_VALUES
    rows = max(1, at_once // width)
    rest = torch.empty((min(rows, count), width))
    for start in range(0, count, rows):
        some, part = values[start : start + rows], high[start : start + rows]
        left = rest[: len(some)]
        part.copy_(some)
        left.copy_(part)
        torch.sub(some, left, out=left)
        low[start : start + rows].copy_(left)
