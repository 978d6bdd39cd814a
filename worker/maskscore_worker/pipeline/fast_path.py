"""The fast path of a worker: what makes and encodes its crops, compared with the plain path and stepped down to it.

The plain path is Pillow's crops and open_clip's own layers, in fp32 on the CPU. The comparison takes known crops
(:mod:`~maskscore_worker.pipeline.probe_crops`), at the start and, as spot checks, between the crops of jobs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from maskscore.errors import SettingsError
from maskscore.schema import View
from maskscore_worker.crops import Cropper, ImageCrops
from maskscore_worker.masks import Region
from maskscore_worker.model import CudaGraphEncoder, ImagePrecision, is_out_of_memory
from maskscore_worker.pipeline.probe_crops import PROBES, make_probe_crops

__all__ = ["ADVICE", "PARTS", "TOLERANCE", "FastPath", "Known", "PathDiffersError", "wrong_features"]

log = logging.getLogger(__name__)

ADVICE: Final = "The device does not compute what the CPU does. Set MASKSCORE_DEVICE=cpu, and check the device."

PARTS: Final = ("crops", "forward", "graphs", "precision", "threads")
"""The parts that can be stepped down, by the names in a result."""

TOLERANCE: Final[dict[ImagePrecision, float]] = {"fp32": 1e-4, "mixed": 0.04, "fp16": 0.02, "bf16": 0.1}
"""Most length of the difference of two L2-normalised features: some ten times what the precision's rounding makes."""

Features = npt.NDArray[np.float32]
Encode = Callable[[Any], Features]


class PathDiffersError(SettingsError):
    """The device gives other values than the CPU, whichever way it is used."""


@dataclass(frozen=True, slots=True)
class Known:
    """The plain path's values of the probe crops.

    ``crops`` are ``(n, …)`` as the batcher takes them, ``features`` ``(n, D)`` float32. Crops may differ from these by
    ``levels`` grey levels, features by the length ``tolerance``.
    """

    crops: npt.NDArray[Any]
    features: Features
    levels: int
    tolerance: float


def wrong_features(encode: Encode, crops: Any, expected: Features, tolerance: float) -> str:
    """Encode crops, and say in what their features differ from the ``expected`` ones, ``(n, D)``; empty if in nothing.

    ``tolerance`` is the most length of a difference. An error of ``encode`` is a difference, but not a lack of memory.
    """
    try:
        features = encode(crops)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return f"crops cannot be encoded: {type(error).__name__}: {error}"
    if features.shape != expected.shape:
        return f"features are {features.shape}, not {expected.shape}"
    if not np.isfinite(features).all():
        return "features are not finite"
    difference = float(np.linalg.norm(features.astype(np.float64) - expected, axis=1).max())
    if difference <= tolerance:
        return ""
    return f"features differ from open_clip's by {difference:.2g}, at most {tolerance:g} is allowed"


class FastPath:
    """Makes and encodes crops; a :class:`~maskscore_worker.crops.Cropper` that threads share.

    Parameters
    ----------
    cropper, encode: the fast ones; ``plain_cropper`` and ``plain_encode`` are those that they are replaced by.
    graphs: the graphs behind ``encode``, where there are any; a size that differs is run without its graph.
    known: the plain path's values.
    stepped_down: parts that were stepped down before, with the reason.
    spot_check_share: share of the encoded crops that are spot checks, 0 to 1.
    """

    def __init__(
        self,
        *,
        cropper: Cropper,
        encode: Encode,
        plain_cropper: Cropper,
        plain_encode: Encode,
        graphs: CudaGraphEncoder | None,
        known: Known,
        stepped_down: dict[str, str],
        spot_check_share: float,
    ) -> None:
        self._cropper = cropper
        self._encode = encode
        self._plain_cropper = plain_cropper
        self._plain_encode = plain_encode
        self._graphs = graphs
        self._known = known
        self.reasons = dict(stepped_down)
        """The parts that are stepped down, and why."""
        self._turn: AbstractContextManager[Any] = nullcontext()
        self._every = round(PROBES / spot_check_share) if spot_check_share else 0
        self._since = 0
        self._lock = threading.Lock()
        self._spot_check: threading.Thread | None = None
        self.through: Encode = self.encode
        """What spot checks encode with: the batcher, so that they go the way of the jobs' crops."""
        self.on_spot_check: Callable[[bool], None] = lambda _: None
        """Called with whether a spot check agreed."""
        self.on_broken: Callable[[str], None] = lambda _: None
        """Called where a spot check differs and stepping down does not help."""

    @property
    def stepped_down(self) -> tuple[str, ...]:
        """The parts that are stepped down, sorted."""
        return tuple(sorted(self.reasons))

    def memory(self, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
        """See :class:`~maskscore_worker.crops.Cropper`."""
        return self._cropper.memory(shape)

    def open(self, pixels: npt.NDArray[np.uint8]) -> ImageCrops:
        """See :class:`~maskscore_worker.crops.Cropper`."""
        with self._turn:
            return _InTurn(self._cropper.open(pixels), self._turn)

    def encode(self, crops: Any) -> Features:
        """Return the ``(n, D)`` float32 features of crops; any thread may call."""
        with self._turn:
            features = self._encode(crops)
        if self._every:
            self._count(len(crops))
        return features

    def check(self) -> None:
        """Compare all parts with the plain path, and step down those that differ.

        Raises :class:`PathDiffersError` where that does not help.
        """
        if wrong := self._wrong_crops():
            self._step_down("crops", wrong)
            self._cropper = self._plain_cropper
        if self._graphs is not None:
            self._check_graphs(self._graphs)
        elif wrong := self._wrong_features(self._encode, self._known.crops):
            self._replace_forward(wrong)
        if wrong := self._wrong_in_two_threads(self._encode):
            self._step_down("threads", wrong)
            self._turn = threading.RLock()
            if wrong := self._wrong_in_two_threads(self.encode):
                raise PathDiffersError(f"With one thread at a time, too, {wrong}. {ADVICE}")

    def wait_for_spot_check(self) -> None:
        """Wait until a spot check that runs has ended."""
        thread = self._spot_check
        if thread is not None:
            thread.join()

    def _count(self, crops: int) -> None:
        with self._lock:
            self._since += crops
            if self._since < self._every or (self._spot_check is not None and self._spot_check.is_alive()):
                return
            self._since = 0
            # A thread of its own: the caller is the batcher's, and the crops are to pass through the batcher.
            self._spot_check = threading.Thread(target=self._check_spot, name="spot-check", daemon=True)
            self._spot_check.start()

    def _check_spot(self) -> None:
        try:
            wrong = self._wrong_crops() or self._wrong_features(self.through, make_probe_crops(self))
        except Exception as error:  # the worker stops, or its memory is full: the jobs' own errors say so
            log.info("a spot check was left out: %s: %s", type(error).__name__, error)
            return
        self.on_spot_check(not wrong)
        if not wrong:
            return
        log.warning("a spot check differs: %s; up to %d crops since the last one may be wrong", wrong, self._every)
        try:
            self.check()
        except PathDiffersError as error:
            self.on_broken(str(error))

    def _check_graphs(self, graphs: CudaGraphEncoder) -> None:
        wrong_sizes = []
        for size in graphs.sizes:
            # As many as the graph takes, so that no smaller one runs, and every place of it is seen.
            crops = np.resize(self._known.crops, (size, *self._known.crops.shape[1:]))
            if self._wrong_features(graphs.encode, crops):
                graphs.run_plainly(size)
                wrong_sizes.append(size)
                if wrong := self._wrong_features(graphs.encode, crops):
                    self._replace_forward(wrong)
                    return
        if wrong_sizes:
            self._step_down(
                "graphs", f"the graphs of batches of {', '.join(map(str, wrong_sizes))} give other features"
            )

    def _replace_forward(self, wrong: str) -> None:
        self._step_down("forward", wrong)
        self._encode, self._graphs = self._plain_encode, None
        if wrong := self._wrong_features(self._encode, self._known.crops):
            raise PathDiffersError(f"The plain forward, too: {wrong}. {ADVICE}")

    def _wrong_crops(self) -> str:
        try:
            with self._turn:
                made = make_probe_crops(self._cropper)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return f"crops cannot be made: {type(error).__name__}: {error}"
        crops = made.cpu().numpy() if isinstance(made, torch.Tensor) else made
        if crops.shape != self._known.crops.shape:
            return f"crops are {crops.shape}, not {self._known.crops.shape}"
        difference = float(np.abs(crops.astype(np.float64) - self._known.crops).max())
        # A NaN is not within it either.
        if difference <= self._known.levels:
            return ""
        return f"crops differ from Pillow's by {difference:g}, at most {self._known.levels} are allowed"

    def _wrong_features(self, encode: Encode, crops: Any) -> str:
        expected = np.resize(self._known.features, (len(crops), self._known.features.shape[1]))
        return wrong_features(encode, crops, expected, self._known.tolerance)

    def _wrong_in_two_threads(self, encode: Encode) -> str:
        """Make and encode the crops in two threads at once, as task threads and the batcher's do."""
        found: list[str] = []
        together = threading.Barrier(2)

        def work() -> None:
            try:
                together.wait()
                with self._turn:
                    crops = make_probe_crops(self._cropper)
                if wrong := self._wrong_features(encode, crops):
                    found.append(wrong)
            except Exception as error:
                found.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=work, name=f"check-{number}") for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return f"in two threads at once, {found[0]}" if found else ""

    def _step_down(self, part: str, why: str) -> None:
        log.warning("%s: the plain path is taken instead of the fast one: %s", part, why)
        self.reasons[part] = why


@dataclass(frozen=True, slots=True)
class _InTurn:
    crops: ImageCrops
    turn: AbstractContextManager[Any]

    def make(self, regions: Sequence[Region], view: View, check: Callable[[], None]) -> Any:
        """See :class:`~maskscore_worker.crops.ImageCrops`."""
        with self.turn:
            return self.crops.make(regions, view, check)
