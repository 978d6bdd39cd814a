"""The batcher with real threads: order, fairness, and errors that reach only the job that caused them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from maskscore.errors import JobError
from maskscore_worker.batching import Batcher
from maskscore_worker.model import cpu_threads
from maskscore_worker.model.cpu_threads import ComputeThreads
from maskscore_worker.model.device_check import DeviceBroken, DeviceCheck
from waiting import until

Array = npt.NDArray[Any]
PROJECTION = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)


def project(crops: Array) -> npt.NDArray[np.float32]:
    result: npt.NDArray[np.float32] = crops.reshape(len(crops), -1).astype(np.float32) @ PROJECTION
    return result


@contextmanager
def running(
    encode: Callable[[Array], Array], max_batch: int = 8, max_wait_s: float = 0.005, threads: int = 1
) -> Iterator[Batcher]:
    batcher = Batcher(encode, max_batch=max_batch, max_wait_s=max_wait_s, threads=threads)
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.close()


def crops(seed: int, count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (count, 2, 2, 3), dtype=np.uint8)


def test_every_caller_gets_its_own_features_in_order() -> None:
    sizes: list[int] = []

    def encode(batch: Array) -> Array:
        sizes.append(len(batch))
        return project(batch)

    requests = [crops(seed, 1 + seed * 7 % 30) for seed in range(60)]
    with running(encode) as batcher, ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(batcher.encode, requests))
        stats = batcher.stats()
    for request, answer in zip(requests, answers, strict=True):
        np.testing.assert_allclose(answer, project(request), rtol=1e-5)
    assert max(sizes) == 8
    assert sum(sizes) == stats.crops == sum(map(len, requests))
    assert stats.batches == len(sizes)
    assert stats.fill == pytest.approx(sum(sizes) / (8 * len(sizes)))
    assert stats.waiting_crops == 0
    assert batcher.stats().encoding_crops == 0


class Gate:
    """An encoder that waits before each batch until it is let through, and remembers what it saw."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Semaphore(0)
        self.batches: list[Array] = []

    def __call__(self, batch: Array) -> Array:
        self.entered.release()
        assert self.open.acquire(timeout=60)
        self.batches.append(batch)
        return project(batch)


def test_a_large_request_does_not_hold_up_small_ones() -> None:
    gate = Gate()
    with running(gate, max_batch=8, max_wait_s=0) as batcher, ThreadPoolExecutor(4) as threads:
        first = threads.submit(batcher.encode, crops(1, 1))
        assert gate.entered.acquire(timeout=60)
        large = threads.submit(batcher.encode, np.full((80, 2, 2, 3), 7, np.uint8))
        until(lambda: batcher.stats().waiting_crops == 80)
        small = threads.submit(batcher.encode, np.full((2, 2, 2, 3), 9, np.uint8))
        until(lambda: batcher.stats().waiting_crops == 82)
        for _ in range(40):
            gate.open.release()
        assert all(len(answer.result(20)) for answer in (first, large, small))
    marks = [{int(value) for value in np.unique(batch)} for batch in gate.batches]
    assert marks[1] == {7, 9}
    assert [len(batch) for batch in gate.batches[1:-1]] == [8] * (len(gate.batches) - 2)


def test_callers_take_turns_where_a_batch_holds_fewer_crops_than_there_are_callers() -> None:
    gate = Gate()
    with running(gate, max_batch=1, max_wait_s=0) as batcher, ThreadPoolExecutor(3) as threads:
        large = threads.submit(batcher.encode, np.full((20, 2, 2, 3), 7, np.uint8))
        assert gate.entered.acquire(timeout=60)
        assert batcher.stats().encoding_crops == 1
        small = threads.submit(batcher.encode, np.full((3, 2, 2, 3), 9, np.uint8))
        until(lambda: batcher.stats().waiting_crops == 22)
        for _ in range(23):
            gate.open.release()
        assert (len(large.result(20)), len(small.result(20))) == (20, 3)
    assert [int(batch[0, 0, 0, 0]) for batch in gate.batches[:7]] == [7, 7, 9, 7, 9, 7, 9]


def test_too_little_memory_halves_the_batch_for_good() -> None:
    sizes: list[int] = []

    def encode(batch: Array) -> Array:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return project(batch)

    with running(encode, max_batch=16) as batcher:
        np.testing.assert_allclose(batcher.encode(crops(1, 20)), project(crops(1, 20)), rtol=1e-5)
        np.testing.assert_allclose(batcher.encode(crops(2, 6)), project(crops(2, 6)), rtol=1e-5)
    assert sizes[:3] == [16, 8, 4]
    assert max(sizes[3:]) == 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["python", "driver", "cublas", "cpu"],
)
def test_every_way_of_saying_too_little_memory_is_understood(error: Exception) -> None:
    def encode(batch: Array) -> Array:
        if len(batch) > 2:
            raise error
        return project(batch)

    with running(encode, max_batch=8) as batcher:
        np.testing.assert_allclose(batcher.encode(crops(1, 8)), project(crops(1, 8)), rtol=1e-5)
        assert batcher.stats().max_batch == 2


def test_no_memory_for_a_single_crop_fails_with_its_code() -> None:
    def encode(batch: Array) -> Array:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with running(encode) as batcher, pytest.raises(JobError) as caught:
        batcher.encode(crops(1, 5))
    assert (caught.value.code, caught.value.transient) == ("out_of_memory", True)


@pytest.mark.parametrize(("fault", "code"), [("nan", "features_not_finite"), ("raise", "internal_error")])
def test_a_poisonous_crop_fails_only_its_own_caller(fault: str, code: str) -> None:
    def encode(batch: Array) -> Array:
        features = project(batch)
        poisoned = (batch.reshape(len(batch), -1) == 255).all(axis=1)
        if fault == "raise" and poisoned.any():
            raise ValueError("the kernel does not like this")
        features[poisoned] = np.nan
        return features

    poison = np.concatenate([crops(5, 3), np.full((1, 2, 2, 3), 255, np.uint8)])
    gate = threading.Barrier(9)
    with (
        running(encode, max_batch=64, max_wait_s=0.2) as batcher,
        ThreadPoolExecutor(9) as threads,
        batcher.source(),
    ):

        def ask(request: Array) -> Array:
            gate.wait(60)
            return batcher.encode(request)

        healthy = [threads.submit(ask, crops(seed, 4)) for seed in range(8)]
        sick = threads.submit(ask, poison)
        for seed, answer in enumerate(healthy):
            np.testing.assert_allclose(answer.result(20), project(crops(seed, 4)), rtol=1e-5)
        with pytest.raises(JobError) as caught:
            sick.result(20)
        assert caught.value.code == code
        np.testing.assert_allclose(batcher.encode(crops(9, 1)), project(crops(9, 1)), rtol=1e-5)


class Breakable:
    """An encoder that works until it is broken, and never again; each batch that holds a crop of 255 fails anyway."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.broken = False

    def __call__(self, batch: Array) -> Array:
        if self.broken and self.way == "nan":
            return np.full((len(batch), 5), np.nan, np.float32)
        if self.broken or (batch == 255).all(axis=(1, 2, 3)).any():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return project(batch)


@pytest.mark.parametrize("way", ["raise", "nan"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_device_that_breaks_for_good_is_nobodys_fault(way: str, threads: int) -> None:
    encode = Breakable(way)
    check = DeviceCheck(lambda: encode(crops(0, 1)))
    reasons: list[str] = []
    check.on_broken = reasons.append
    batcher = Batcher(encode, max_batch=8, max_wait_s=0.005, threads=threads, check_device=check.probe_after)
    batcher.start()
    try:
        with pytest.raises(JobError) as caught:
            batcher.encode(np.full((1, 2, 2, 3), 255, np.uint8))
        assert (caught.value.code, caught.value.transient) == ("internal_error", False)
        np.testing.assert_allclose(batcher.encode(crops(9, 3)), project(crops(9, 3)), rtol=1e-5)
        assert (check.reason, reasons) == (None, [])
        encode.broken = True
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(batcher.encode, crops(seed, 5)) for seed in range(20)]
            for answer in answers:
                assert isinstance(answer.exception(20), DeviceBroken)
        assert reasons == [check.reason]
        assert "a known crop" in str(check.reason)
        # It stays so: what computes by chance once more is not trusted.
        with pytest.raises(DeviceBroken):
            check.probe_after(ValueError("anything"))
    finally:
        batcher.close()


def test_a_device_without_memory_for_the_probe_is_not_broken() -> None:
    def probe() -> Array:
        raise torch.OutOfMemoryError("CUDA out of memory")

    check = DeviceCheck(probe)
    check.probe_after(ValueError("the job's"))
    assert check.reason is None


def test_closing_finishes_what_waits_and_refuses_more() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=4, max_wait_s=10)
    batcher.start()
    with ThreadPoolExecutor(2) as threads, batcher.source():
        answer = threads.submit(batcher.encode, crops(1, 3))
        until(lambda: batcher.stats().waiting_crops == 3)
        gate.open.release()
        assert batcher.close()
        assert len(answer.result(20)) == 3
    with pytest.raises(RuntimeError, match="closed"):
        batcher.encode(crops(1, 1))


@pytest.mark.parametrize(
    "fault",
    [lambda f: f[:-1], lambda f: np.concatenate([f, f]), lambda f: f[:0], lambda f: f[:, 0]],
    ids=["one too few", "too many", "none", "flat"],
)
def test_features_that_do_not_fit_the_crops_fail_the_caller(fault: Callable[[Array], Array]) -> None:
    broken = threading.Event()
    broken.set()
    with running(lambda batch: fault(project(batch)) if broken.is_set() else project(batch)) as batcher:
        with pytest.raises(JobError, match="for 3 crops") as caught:
            batcher.encode(crops(1, 3))
        assert caught.value.code == "internal_error"
        broken.clear()
        assert len(batcher.encode(crops(2, 3))) == 3


def test_no_crops_are_refused_and_the_thread_lives() -> None:
    with running(project) as batcher:
        with pytest.raises(ValueError, match="no crops"):
            batcher.encode(crops(1, 1)[:0])
        assert len(batcher.encode(crops(2, 3))) == 3


def test_not_even_an_exit_inside_the_encoder_ends_the_thread() -> None:
    exits = iter([True, False])

    def encode(batch: Array) -> Array:
        if next(exits):
            raise SystemExit(1)
        return project(batch)

    with running(encode) as batcher:
        with pytest.raises(JobError, match="SystemExit"):
            batcher.encode(crops(1, 3))
        assert len(batcher.encode(crops(2, 3))) == 3


def test_a_device_that_hangs_does_not_hold_its_callers_when_closing() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=4, max_wait_s=0)
    batcher.start()
    with ThreadPoolExecutor(2) as threads:
        hanging = threads.submit(batcher.encode, crops(1, 3))
        assert gate.entered.acquire(timeout=60)
        waiting = threads.submit(batcher.encode, crops(2, 2))
        until(lambda: batcher.stats().waiting_crops == 2)
        assert not batcher.close(timeout_s=0)
        for answer in (hanging, waiting):
            with pytest.raises(JobError) as caught:
                answer.result(20)
            assert caught.value.transient
    gate.open.release()
    assert batcher.close()
    assert len(gate.batches) == 1


def test_threads_encode_at_once_and_the_order_stays() -> None:
    request = crops(1, 16)
    second_ended = threading.Event()
    meeting = threading.Barrier(2)

    def encode(batch: Array) -> Array:
        meeting.wait(60)  # fails unless both threads are here at once
        if np.array_equal(batch[0], request[0]):
            assert second_ended.wait(60)
        else:
            second_ended.set()
        return project(batch)

    with running(encode, threads=2) as batcher:
        np.testing.assert_allclose(batcher.encode(request), project(request), rtol=1e-5)
        stats = batcher.stats()
    assert (stats.batches, stats.crops, stats.encoding_crops) == (2, 16, 0)


def test_many_callers_over_several_threads_get_their_own() -> None:
    def encode(batch: Array) -> Array:
        if batch.min() == 255:
            raise ValueError("a crop that breaks the encoder")
        return project(batch)

    requests = [crops(seed, 1 + seed * 7 % 30) for seed in range(60)]
    with running(encode, threads=3) as batcher, ThreadPoolExecutor(16) as threads:
        broken = threads.submit(batcher.encode, np.full((20, 2, 2, 3), 255, np.uint8))
        answers = list(threads.map(batcher.encode, requests))
        with pytest.raises(JobError):
            broken.result(60)
    for request, answer in zip(requests, answers, strict=True):
        np.testing.assert_allclose(answer, project(request), rtol=1e-5)


def test_a_lane_that_hangs_shows_while_the_other_goes_on() -> None:
    hangs, release = threading.Event(), threading.Event()

    def encode(batch: Array) -> Array:
        if batch.min() == 255:
            hangs.set()
            assert release.wait(60)
        return project(batch)

    with running(encode, threads=2) as batcher, ThreadPoolExecutor(1) as threads:
        stuck = threads.submit(batcher.encode, np.full((3, 2, 2, 3), 255, np.uint8))
        assert hangs.wait(60)
        before = batcher.stats().last_progress
        for seed in range(5):
            batcher.encode(crops(seed, 9))
        during = batcher.stats()
        release.set()
        stuck.result(60)
        after = batcher.stats()
    assert (during.last_progress, during.encoding_crops) == (before, 3)
    assert after.last_progress > before


def test_compute_threads_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[int] = []
    both = threading.Barrier(2)

    def encode(batch: Array) -> Array:
        shares.append(torch.get_num_threads())
        if len(batch) == 2:
            both.wait(60)
        return project(batch)

    before = torch.get_num_threads()
    shared = ComputeThreads(encode, 4)
    try:
        with ThreadPoolExecutor(2) as threads:
            threads.submit(shared.encode, crops(1, 1)).result(60)
            list(threads.map(shared.encode, [crops(2, 2), crops(3, 2)]))
            # Others come again in a moment.
            threads.submit(shared.encode, crops(1, 1)).result(60)
            monkeypatch.setattr(cpu_threads, "_REMEMBERED_S", -1.0)
            threads.submit(shared.encode, crops(1, 1)).result(60)
    finally:
        torch.set_num_threads(before)
    assert shares[0] == 4
    assert sorted(shares[1:3]) == [2, 4]
    assert shares[3:] == [2, 4]


def test_a_batch_waits_only_while_more_may_come() -> None:
    sizes: list[int] = []

    def encode(batch: Array) -> Array:
        sizes.append(len(batch))
        return project(batch)

    # So long that a batch that waited for nothing would fail the test by its timeout.
    with running(encode, max_batch=8, max_wait_s=3000) as batcher, ThreadPoolExecutor(2) as threads:
        with batcher.source() as alone:
            assert len(alone.encode(crops(1, 3), last=False)) == 3
            assert len(alone.encode(crops(1, 2), last=True)) == 2
            assert len(batcher.encode(crops(1, 1))) == 1
        with batcher.source() as first, batcher.source() as second:
            early = threads.submit(first.encode, crops(2, 3), last=True)
            until(lambda: batcher.stats().waiting_crops == 3)
            late = second.encode(crops(3, 2), last=True)
            np.testing.assert_allclose(early.result(20), project(crops(2, 3)), rtol=1e-5)
            np.testing.assert_allclose(late, project(crops(3, 2)), rtol=1e-5)
        with batcher.source() as first:
            with batcher.source():
                early = threads.submit(first.encode, crops(4, 3), last=False)
                until(lambda: batcher.stats().waiting_crops == 3)
            # The other one has ended without any crops.
            assert len(early.result(20)) == 3
    assert sizes == [3, 2, 1, 5, 3]


def test_tensors_and_arrays_of_several_callers_share_a_batch() -> None:
    kinds: list[type] = []

    def encode(batch: Any) -> Array:
        kinds.append(type(batch))
        return project(np.asarray(batch))

    with running(encode, max_batch=8, max_wait_s=3000) as batcher, ThreadPoolExecutor(1) as threads:
        with batcher.source() as first, batcher.source() as second:
            early = threads.submit(first.encode, torch.from_numpy(crops(2, 3)), last=True)
            until(lambda: batcher.stats().waiting_crops == 3)
            late = second.encode(crops(3, 2), last=True)
            np.testing.assert_allclose(early.result(20), project(crops(2, 3)), rtol=1e-5)
        np.testing.assert_allclose(late, project(crops(3, 2)), rtol=1e-5)
    assert kinds == [torch.Tensor]
