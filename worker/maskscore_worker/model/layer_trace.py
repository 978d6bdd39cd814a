"""Which layers a tower calls in a forward, and which of them take another's output as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import nn

__all__ = ["TOLERANCE", "LayerCall", "noted_largest", "replace_layer", "trace_layers", "unit_features"]

TOLERANCE: Final = 1e-5
"""By how much a number of unit features may differ between a tower and its faster form, in fp32."""


@dataclass(frozen=True, slots=True)
class LayerCall:
    """A layer that was called once.

    ``shape`` is its input's. ``follows`` names the layer under the same parent whose output was its input; whether
    others read that output, too, is not known.
    """

    name: str
    layer: Any
    shape: torch.Size
    follows: str | None


def trace_layers(tower: nn.Module, images: torch.Tensor, kinds: tuple[type[nn.Module], ...]) -> list[LayerCall]:
    """Run the tower once, and return its layers of exactly these ``kinds`` in the order of their calls.

    Layers whose weights the tower reads without calling them are not among them, nor those called more than once.
    """
    calls: dict[str, list[LayerCall]] = {}
    # The outputs are held: another tensor must not get the `id` of one. Nor may one have been added to in place.
    outputs: dict[int, tuple[str, torch.Tensor, int]] = {}

    def note_input(name: str, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        values = arguments[0]
        source, _, version = outputs.get(id(values), ("", None, 0))
        same = source and version == values._version and source.rpartition(".")[0] == name.rpartition(".")[0]
        calls.setdefault(name, []).append(LayerCall(name, layer, values.shape, source if same else None))

    def note_output(name: str, layer: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> None:
        outputs[id(output)] = (name, output, output._version)

    hooks = []
    for name, layer in tower.named_modules():
        if type(layer) in kinds:
            hooks.append(layer.register_forward_pre_hook(partial(note_input, name)))
            hooks.append(layer.register_forward_hook(partial(note_output, name)))
    try:
        # Inference tensors do not count what is done to them in place.
        with torch.inference_mode(False), torch.no_grad():
            tower(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [own[0] for own in calls.values() if len(own) == 1]


@contextmanager
def noted_largest(tower: nn.Module) -> Iterator[Callable[[], float]]:
    """Note what the tower's modules return meanwhile; yields what says the largest absolute value of it.

    It is no finite number where a value is none, and 0 where nothing ran.
    """
    largest = torch.zeros(())

    def note(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        for values in output if isinstance(output, tuple) else (output,):
            if isinstance(values, torch.Tensor) and values.is_floating_point():
                largest = torch.maximum(largest, values.abs().amax())  # a NaN stays

    hooks = [module.register_forward_hook(note) for module in tower.modules()]
    try:
        yield lambda: float(largest)
    finally:
        for hook in hooks:
            hook.remove()


def replace_layer(tower: nn.Module, name: str, layer: nn.Module) -> None:
    """Put ``layer`` where the tower has the layer ``name``."""
    parent, _, child = name.rpartition(".")
    setattr(tower.get_submodule(parent), child, layer)


def unit_features(tower: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the tower's L2-normalised features of normalised images, ``(N, D)`` float32."""
    with torch.inference_mode():
        features = tower(images)
        if isinstance(features, tuple):  # CoCa's: pooled, and tokens
            features = features[0]
        return nn.functional.normalize(features.float(), dim=-1)
