"""The forward at fixed batch sizes gives the features of the plain forward, on the CPU and on a GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.model.clip import load_model
from maskscore_worker.model.cuda_graphs import CudaGraphEncoder, graph_batch_sizes

CPU = torch.device("cpu")
SHAPE = (4, 4, 3)


def crops(seed: int, count: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def sums(images: torch.Tensor) -> torch.Tensor:
    return torch.stack([images.float().sum(dim=(1, 2, 3)), images[:, 0, 0, 0].float()], dim=1)


def expected(images: Any) -> Any:
    return np.stack([images.sum(axis=(1, 2, 3)), images[:, 0, 0, 0]], axis=1)


@pytest.mark.parametrize("most", [1, 2, 7, 16, 64, 100, 256])
def test_sizes_go_up_to_the_largest_and_pad_a_third_at_most(most: int) -> None:
    sizes = graph_batch_sizes(most)
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (1, most)
    for count in range(17, most + 1):
        assert next(size for size in sizes if size >= count) <= 1.5 * count


def test_every_number_of_crops_gets_its_own_features() -> None:
    seen: list[int] = []

    def tower(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return sums(images)

    forward = CudaGraphEncoder(tower, shape=SHAPE, dtype=torch.uint8, device=CPU, sizes=[1, 4, 8])
    assert forward.sizes == [1, 4, 8]
    for count in (1, 2, 3, 4, 5, 8, 9, 21):
        images = crops(count, count)
        np.testing.assert_array_equal(forward.encode(images), expected(images))
        np.testing.assert_array_equal(forward.encode(torch.from_numpy(images)), expected(images))
    assert set(seen) == {1, 4, 8}


def test_threads_do_not_meet_in_a_sizes_memory() -> None:
    forward = CudaGraphEncoder(sums, shape=SHAPE, dtype=torch.uint8, device=CPU, sizes=[8])
    requests = [crops(seed, 1 + seed % 8) for seed in range(200)]
    with ThreadPoolExecutor(4) as threads:
        for images, features in zip(requests, threads.map(forward.encode, requests), strict=True):
            np.testing.assert_array_equal(features, expected(images))


def test_sizes_that_do_not_fit_the_memory_are_left_out() -> None:
    def tower(images: torch.Tensor) -> torch.Tensor:
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sums(images)

    forward = CudaGraphEncoder(tower, shape=SHAPE, dtype=torch.uint8, device=CPU, sizes=[1, 4, 8, 16])
    assert forward.sizes == [1, 4]
    np.testing.assert_array_equal(forward.encode(crops(1, 11)), expected(crops(1, 11)))
    with pytest.raises(torch.OutOfMemoryError):
        CudaGraphEncoder(tower, shape=SHAPE, dtype=torch.uint8, device=CPU, sizes=[8])


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")],
        ),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_models_features_are_the_plain_ones(device: str, precision: Any) -> None:
    model = load_model(DEMO_WEIGHTS, architecture="", device=torch.device(device), precision=precision)
    size = model.image_size
    forward = CudaGraphEncoder(
        model.image_tower, shape=(size, size, 3), dtype=torch.uint8, device=model.device, sizes=graph_batch_sizes(8)
    )
    images = np.random.default_rng(1).integers(0, 256, (11, size, size, 3), dtype=np.uint8)
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    on_device, plain = torch.from_numpy(images).to(model.device), model.encode_images(images)
    # Each graph alone, full; and more crops than the largest takes.
    for count in (*forward.sizes, len(images)):
        for given in (images[:count], on_device[:count]):
            np.testing.assert_allclose(forward.encode(given), plain[:count], atol=tolerance)
