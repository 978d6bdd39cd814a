"""Prompt features: encoded once per prompt set, kept by its digest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import numpy.typing as npt

from maskscore.schema import PromptSet

__all__ = ["PromptFeatureCache"]

Features = npt.NDArray[np.float32]


class TextEncoder(Protocol):
    """What the cache needs of a model."""

    def encode_texts(self, texts: tuple[str, ...]) -> Features:
        """Return ``(P, D)`` float32 features of the prompts."""


class PromptFeatureCache:
    """The features of the last ``capacity`` prompt sets; one that several threads ask for at once is encoded once.

    A set that is being encoded is never dropped, so for a moment there may be more than ``capacity`` of them.
    """

    def __init__(self, model: TextEncoder, capacity: int) -> None:
        self._model = model
        self._capacity = capacity
        self._kept: OrderedDict[str, Future[Features]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, prompt_set: PromptSet) -> Features:
        """Return the features of ``prompt_set.texts``, ``(P, D)`` float32, L2-normalised, not to be written to.

        Raises :class:`~maskscore.errors.JobError` where a prompt cannot be encoded; that is not kept.
        """
        digest = prompt_set.digest
        with self._lock:
            future = self._kept.get(digest)
            mine = future is None
            if future is None:
                future = self._kept[digest] = Future()
            self._kept.move_to_end(digest)
        if mine:
            self._encode(prompt_set, digest, future)
        return future.result()

    def _encode(self, prompt_set: PromptSet, digest: str, future: Future[Features]) -> None:
        try:
            features = _encoded(self._model, prompt_set)
            features.setflags(write=False)
        except BaseException as error:
            with self._lock:
                del self._kept[digest]
            future.set_exception(error)
            return
        future.set_result(features)
        with self._lock:
            encoded = [key for key, kept in self._kept.items() if kept.done()]
            for key in encoded[: max(0, len(self._kept) - self._capacity)]:
                del self._kept[key]


def _encoded(model: TextEncoder, prompt_set: PromptSet) -> Features:
    """Encode all sentences, and average those of each prompt: each L2-normalised, their mean L2-normalised."""
    sentences = [prompt_set.sentences_of(prompt) for prompt in prompt_set.texts]
    encoded = model.encode_texts(tuple(sentence for own in sentences for sentence in own))
    counts = [len(own) for own in sentences]
    if max(counts) == 1:
        return encoded
    starts = np.cumsum([0, *counts[:-1]])
    sums = np.add.reduceat(encoded.astype(np.float64), starts, axis=0)
    lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    features: Features = (sums / lengths).astype(np.float32)
    # Of a single sentence to the bit what the model gave.
    alone = np.array(counts) == 1
    features[alone] = encoded[starts[alone]]
    return features
