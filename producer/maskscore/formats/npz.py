"""NumPy's NPZ and NPY: a stack of masks, or a label map. Never a pickle.

The file format is NEP 1 (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). The header is checked
before any of the array is unpacked, and a stack is unpacked mask by mask.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from maskscore.formats.format import Format
from maskscore.formats.image_masks import MasksDocumentError, Size, UnreadableMask
from maskscore.formats.read_context import ReadContext
from maskscore.formats.segmenter_outputs import inside

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    _Array = npt.NDArray[Any]

__all__ = ["FORMAT"]

_MOST_BYTES = 1 << 32
# What cannot be unpacked mask by mask is in memory at once.
_MOST_WHOLE_BYTES = 1 << 30
_MOST_MEMBERS = 1000
_NAMES = ("masks", "mask", "segmentations", "segmentation", "pred_masks", "labels")


@dataclass(frozen=True, slots=True)
class _Stored:
    """An array that is not unpacked yet; ``file`` is at its first byte."""

    file: IO[bytes]
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def count_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def take(self, shape: tuple[int, ...]) -> _Array:
        """Return the next so many elements."""
        import numpy as np

        wanted = math.prod(shape) * self.dtype.itemsize
        with _reading():
            data = self.file.read(wanted)
        if len(data) < wanted:
            raise MasksDocumentError(f"The array of the shape {self.shape} ends early.")
        # A byte of booleans from elsewhere may be neither 0 nor 1.
        dtype = np.dtype(np.uint8) if self.dtype.kind == "b" else self.dtype
        return np.frombuffer(data, dtype).reshape(shape)

    def whole(self) -> _Array:
        """Return all of it."""
        if self.count_bytes > _MOST_WHOLE_BYTES:
            raise MasksDocumentError(
                f"The array of {self.count_bytes:,} bytes would be in memory at once; at most {_MOST_WHOLE_BYTES:,} "
                "are. Save booleans as (N, H, W), in C order."
            )
        return self.take(self.shape[::-1]).T if self.fortran else self.take(self.shape)


def _entries(data: bytes, context: ReadContext) -> list[Any]:
    """Return the entries of a stack ``(N, H, W)``, ``(N, 1, H, W)`` or ``(H, W, N)``, or of a map ``(H, W)``.

    Of booleans and integers what is not zero is inside, of floats what is above 0.0; each value but 0 of a map of
    integers is a mask. Of several arrays that named ``masks`` is taken, or the only one of two dimensions and more; one
    of a single dimension and N numbers gives each mask a field of its name, or its id, if it is called ``ids``.

    Raises :class:`~maskscore.formats.MasksDocumentError` for anything else, whatever the bytes are.
    """
    if data.startswith(b"\x93NUMPY"):
        return _of_array(_stored(io.BytesIO(data)), {}, context)
    with _reading():
        archive = zipfile.ZipFile(io.BytesIO(data))
    with archive:
        return _from_archive(archive, context)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except MasksDocumentError:
        raise
    except Exception as error:  # NumPy parses the header as Python, and each compression has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MasksDocumentError(f"The masks are an NPZ or NPY that cannot be read: {reason}.") from error


def _from_archive(archive: zipfile.ZipFile, context: ReadContext) -> list[Any]:
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    if not names or len(names) > _MOST_MEMBERS:
        raise MasksDocumentError(f"The archive has {len(names):,} arrays (.npy); one of them is to be the masks.")
    shapes = {}
    for name in names:
        shapes[name.removesuffix(".npy")] = _member(archive, name).shape
    chosen = _chosen(shapes)
    columns = {}
    for name, shape in shapes.items():
        if name != chosen and len(shape) == 1 and 0 < shape[0] <= 10 * _MOST_MEMBERS:
            stored = _member(archive, f"{name}.npy")
            if stored.dtype.kind in "biuf":
                columns[name] = stored.whole().astype(stored.dtype).tolist()
    return _of_array(_member(archive, f"{chosen}.npy"), columns, context)


def _member(archive: zipfile.ZipFile, name: str) -> _Stored:
    with _reading():
        file = archive.open(name)
    return _stored(file)


def _chosen(shapes: dict[str, tuple[int, ...]]) -> str:
    named = [name for name in _NAMES if name in shapes and len(shapes[name]) > 1]
    large = [name for name, shape in shapes.items() if len(shape) > 1]
    if named:
        return named[0]
    if len(large) != 1:
        raise MasksDocumentError(
            f"The archive has the arrays {', '.join(sorted(shapes))[:200]}; which are the masks? Name them `masks`."
        )
    return large[0]


def _stored(file: IO[bytes]) -> _Stored:
    from numpy.lib import format as npy

    with _reading():
        version = npy.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = npy.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = npy.read_array_header_2_0(file)
        else:
            raise MasksDocumentError("The array is of a structured type, which holds no masks.")
    if dtype.hasobject:
        raise MasksDocumentError(
            "The array holds Python objects (a pickle), which are never read: a pickle may run any program. Of SAM's "
            'records save the masks, np.savez(file, masks=np.stack([record["segmentation"] for record in records])), '
            "or the records as JSON, with RLE (docs/reference/formats/sam.md)."
        )
    if any(side < 0 for side in shape):
        raise MasksDocumentError(f"The array's shape is damaged: {shape}.")
    return _Stored(file, tuple(shape), fortran, dtype)


def _of_array(stored: _Stored, columns: dict[str, list[Any]], context: ReadContext) -> list[Any]:
    from maskscore.formats.label_maps import entries_of_labels, label_map_of

    shape, kind = stored.shape, stored.dtype.kind
    if kind not in "biuf":
        raise MasksDocumentError(f"The array is of the type {stored.dtype}; masks are booleans, integers or floats.")
    if stored.count_bytes > _MOST_BYTES:
        raise MasksDocumentError(f"The array has {stored.count_bytes:,} bytes; at most {_MOST_BYTES:,} are unpacked.")
    if not math.prod(shape):
        return []
    if len(shape) == 2:
        context.check_pixels(*shape)
        pixels = stored.whole()
        labels = pixels if kind in "iu" else label_map_of(pixels)
        return [_entry(pixels, 0, {})] if labels is None else entries_of_labels(labels, context)
    if len(shape) == 4 and shape[1] == 1:
        shape = (shape[0], *shape[2:])
    if len(shape) != 3:
        raise MasksDocumentError(f"The array has the shape {stored.shape}; known are (N, H, W), (H, W, N) and (H, W).")
    count, height, width = shape if _first(shape, context.size) else (shape[2], shape[0], shape[1])
    context.counted(count)
    context.check_pixels(height, width)
    own = {name: column for name, column in columns.items() if len(column) == count}
    masks = _masks(stored, shape, (height, width))
    if count == 1:
        masks = iter(only := list(masks))
        labels = label_map_of(only[0])
        if labels is not None:
            return entries_of_labels(labels, context)
    return [
        _entry(mask, index, {"id" if name == "ids" else name: column[index] for name, column in own.items()})
        for index, mask in enumerate(masks)
    ]


def _first(shape: tuple[int, ...], size: Size | None) -> bool:
    """Say whether the masks are along the first axis, by the image's size; along the first where that is not known."""
    if size is None:
        return True
    for frame in (size, size[::-1]):
        if shape[1:] == frame:
            return True
        if shape[:2] == frame:
            return False
    raise MasksDocumentError(
        f"The array has the shape {shape}, which is neither (N, H, W) nor (H, W, N) of an image of {size[1]} x "
        f"{size[0]} pixels (width x height)."
    )


def _masks(stored: _Stored, shape: tuple[int, ...], frame: Size) -> Iterator[_Array]:
    import numpy as np

    if shape[1:] == frame and not stored.fortran:
        for _ in range(shape[0]):
            yield stored.take(frame)
        return
    stack = stored.whole().reshape(shape)
    yield from stack if shape[1:] == frame else np.moveaxis(stack, 2, 0)


def _entry(mask: _Array, index: int, fields: dict[str, Any]) -> Any:
    from maskscore.masks.arrays import rle_of_mask

    try:
        return {**fields, "segmentation": rle_of_mask(inside(mask))}
    except ValueError as error:
        return UnreadableMask(str(fields.pop("id", index)), f"Mask {index} cannot be read: {error}.", fields)


FORMAT = Format(
    name="npz",
    scope="image",
    description="NumPy's NPZ or NPY: a stack of masks, or a label map",
    kinds=("npz", "npy"),
    entries=_entries,
)
