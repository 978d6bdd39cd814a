"""The device that a worker uses, on machines with and without GPUs."""

from __future__ import annotations

import pytest
import torch

from maskscore.errors import SettingsError
from maskscore_worker.model.device import choose_device


def machine_with(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test machine has five GPUs: what PyTorch counts is set, the choice is the real one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


@pytest.mark.parametrize(
    ("gpus", "setting", "device"),
    [
        (0, "auto", "cpu"),
        (1, "auto", "cuda:0"),
        (4, "auto", "cuda:0"),
        (5, "auto", "cuda:4"),
        (8, "auto", "cuda:4"),
        (8, "cpu", "cpu"),
        (8, "cuda", "cuda:0"),
        (8, "cuda:7", "cuda:7"),
    ],
)
def test_the_device_is_what_the_setting_means(
    gpus: int, setting: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_with(gpus, monkeypatch)
    assert str(choose_device(setting)) == device


@pytest.mark.parametrize(
    ("gpus", "setting", "there"),
    [
        (0, "cuda", "cpu"),
        (0, "cuda:0", "cpu"),
        (2, "cuda:2", "cpu, cuda:0, cuda:1"),
        (2, "tpu", "cpu, cuda:0, cuda:1"),
        (0, "cpu:7", "cpu"),
        (0, "mps", "cpu"),
        (0, "", "cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    gpus: int, setting: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_with(gpus, monkeypatch)
    with pytest.raises(SettingsError) as caught:
        choose_device(setting)
    assert f"no device {setting!r}" in str(caught.value)
    assert f"there are {there}." in str(caught.value)
