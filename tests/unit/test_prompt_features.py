"""Features of prompts are encoded once per prompt set, kept by digest, and dropped in order of use."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from maskscore.errors import JobError
from maskscore.schema.prompt_set import PromptSet
from maskscore_worker.features.prompt_features import PromptFeatureCache
from maskscore_worker.model.clip import ClipModel

SETS = [PromptSet(name=f"s{n}", positive=(f"thing {n}",), negative=("sky",)) for n in range(3)]


class CountingEncoder:
    """The real encoder, which counts how often it is asked, and begins when it is let."""

    def __init__(self, model: ClipModel) -> None:
        self.model = model
        self.asked: list[str] = []
        self.begun = threading.Semaphore(0)
        self.gate = threading.Event()

    def encode_texts(self, texts: tuple[str, ...]) -> Any:
        self.asked.append(texts[0])
        self.begun.release()
        assert self.gate.wait(60)
        return self.model.encode_texts(texts)


def test_a_set_that_many_threads_want_is_encoded_once(demo: ClipModel) -> None:
    encoder = CountingEncoder(demo)
    cache = PromptFeatureCache(encoder, capacity=2)
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(cache.get, SETS[0]) for _ in range(8)]
        encoder.gate.set()
        for answer in answers:
            np.testing.assert_array_equal(answer.result(20), demo.encode_texts(SETS[0].texts))
    assert encoder.asked == ["thing 0"]
    cache.get(SETS[0].model_copy(update={"name": "renamed"}))
    assert encoder.asked == ["thing 0"]


def test_the_set_unused_for_longest_is_forgotten(demo: ClipModel) -> None:
    encoder = CountingEncoder(demo)
    encoder.gate.set()
    cache = PromptFeatureCache(encoder, capacity=2)
    for number in (0, 1, 0, 2, 0, 1):
        cache.get(SETS[number])
    assert encoder.asked == ["thing 0", "thing 1", "thing 2", "thing 1"]


def test_a_set_that_is_being_encoded_is_not_forgotten(demo: ClipModel) -> None:
    encoder = CountingEncoder(demo)
    cache = PromptFeatureCache(encoder, capacity=1)
    with ThreadPoolExecutor(3) as threads:
        answers = []
        for number in (0, 1):
            answers.append(threads.submit(cache.get, SETS[number]))
            assert encoder.begun.acquire(timeout=60)
        answers.append(threads.submit(cache.get, SETS[0]))
        encoder.gate.set()
        first, second, again = (answer.result(20) for answer in answers)
    assert encoder.asked[:2] == ["thing 0", "thing 1"]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(second, demo.encode_texts(SETS[1].texts))


def test_features_that_jobs_share_cannot_be_written_to(demo: ClipModel) -> None:
    features = PromptFeatureCache(demo, capacity=1).get(SETS[0])
    with pytest.raises(ValueError, match="read-only"):
        features[0, 0] = 0


def test_a_set_that_cannot_be_encoded_is_not_kept(demo: ClipModel) -> None:
    cache = PromptFeatureCache(demo, capacity=2)
    for _ in range(2):
        with pytest.raises(JobError, match="tokens"):
            cache.get(PromptSet(name="x", positive=("cat " * 99,), negative=("sky",)))
    assert cache.get(SETS[0]).shape == (2, 64)
