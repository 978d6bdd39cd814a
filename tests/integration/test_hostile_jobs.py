"""One worker process is fed hostile jobs by the thousand: it survives, answers each with a code, and does not grow.

``HOSTILE_ROUNDS=20`` feeds it twenty times as many.
"""

from __future__ import annotations

import json
import re
import uuid
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fuzz_inputs import (
    ROUNDS,
    encoded,
    hostile_documents,
    hostile_segmentations,
    masks_documents,
    mutated_bytes,
    mutated_document,
    real_images,
)
from maskscore import Client, ClientSettings, JobResult, JobState
from maskscore.broker.redis_connection import connect
from maskscore.devstack import LocalServices
from maskscore.errors import FailureCode, SkipCode
from maskscore.ledger import Ledger, Submission
from maskscore_worker.demo.run import DEMO_WEIGHTS
from worker_process import start_worker

# Pillow will read the IM format no more one day; today it does.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

CODES = set(map(str, FailureCode)) - {"internal_error", "poisoned", "cancelled", "expired", "storage_unavailable"}
SKIPS = set(map(str, SkipCode))
# Memory is stable once the worker grows by less than GROWTH_KB in CALM_ROUNDS rounds on end: with a leak of 15 kB per
# job, it grows by more in any five rounds.
CALM_ROUNDS, GROWTH_KB = 5, 8 * 1024
MOST_ROUNDS = 40

Document = dict[str, Any] | bytes


@dataclass
class Supply:
    """Makes hostile jobs; files lie in ``folder``, which the worker may read."""

    folder: Path
    random: Random = field(default_factory=lambda: Random(11))

    def __post_init__(self) -> None:
        self.images = real_images()
        self.good_image = self.file(encoded("PNG"))
        self.layouts = masks_documents()
        self.documents = [json.dumps(document).encode() for document in self.layouts.values()]
        self.good_masks = self.layouts["list"]
        self.segmentations = list(hostile_segmentations().values())
        self.jobs = list(hostile_documents(self.good_image, self.good_masks).values())
        self.bomb = zlib.compress(bytes(100 << 20))

    def file(self, data: bytes) -> str:
        path = self.folder / uuid.uuid4().hex / "image"
        path.parent.mkdir()
        path.write_bytes(data)
        return path.as_uri()

    def good(self) -> dict[str, Any]:
        return {"image": self.good_image, "masks": self.good_masks, "options": {"prompts": "demo"}}

    def mutated_image(self) -> Document:
        data = mutated_bytes(self.random, self.random.choice(list(self.images.values())), list(self.images.values()))
        return {**self.good(), "image": self.file(data)}

    def mutated_masks(self) -> Document:
        return {
            **self.good(),
            "masks": self.file(mutated_bytes(self.random, self.random.choice(self.documents), self.documents)),
        }

    def mutated_entries(self) -> Document:
        document = mutated_document(self.random, {"d": self.random.choice(list(self.layouts.values()))}).get("d")
        return {**self.good(), "masks": self.file(json.dumps(document).encode())}

    def hostile_entries(self) -> Document:
        entries = [{"id": n, "segmentation": one} for n, one in enumerate(self.random.choices(self.segmentations, k=3))]
        masks = [self.good_masks[0], *entries]
        return {**self.good(), "masks": masks if self.random.random() < 0.5 else self.file(json.dumps(masks).encode())}

    def hostile_job(self) -> Document:
        return dict(self.random.choice(self.jobs))

    def mutated_job(self) -> Document:
        options = {"prompts": "demo", "alpha": 0.4, "treatment": "soft_mask", "top_k": 2, "split_components": True}
        return dict(mutated_document(self.random, {**self.good(), "version": 1, "options": options}))

    def mutated_bytes(self) -> Document:
        packed = zlib.compress(json.dumps(self.good()).encode())
        return self.bomb if self.random.random() < 0.05 else mutated_bytes(self.random, packed, [packed])

    def own_prompts(self) -> Document:
        words = [f"{self.random.getrandbits(64):x} {n}" for n in range(4)]
        prompts = {"name": "own", "positive": words[:2], "negative": words[2:]}
        return {**self.good(), "options": {"prompts": prompts}}

    def each(self) -> list[Document]:
        """Every hostile segmentation, document and bomb once: what takes the most memory is among them."""
        segmentations: list[Document] = [
            {**self.good(), "masks": self.file(json.dumps([{"id": 1, "segmentation": one}]).encode())}
            for one in self.segmentations
        ]
        return [*segmentations, *self.jobs, self.bomb]

    def next(self) -> Document:
        kinds: list[Callable[[], Document]] = [
            self.mutated_image,
            self.mutated_image,
            self.mutated_image,
            self.mutated_masks,
            self.mutated_entries,
            self.hostile_entries,
            self.hostile_job,
            self.mutated_job,
            self.mutated_bytes,
            self.own_prompts,
        ]
        return self.random.choice(kinds)()


def packed(document: Document, job_id: str) -> bytes:
    return (
        document if isinstance(document, bytes) else zlib.compress(json.dumps({**document, "job_id": job_id}).encode())
    )


def resident_kb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def scores(result: JobResult) -> list[float | None]:
    return [component.s_pos for component in result.components]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read from Linux's /proc")
def test_a_worker_survives_what_it_is_fed_and_does_not_grow(services: LocalServices, tmp_path: Path) -> None:
    namespace = f"hostile-{uuid.uuid4().hex[:8]}"
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_BUCKETS": "inputs",
        "MASKSCORE_FILE_ROOTS": str(tmp_path),
        "MASKSCORE_MAX_PIXELS": "1000000",
        "MASKSCORE_LOG_LEVEL": "WARNING",
    }
    services.create_bucket("inputs")
    settings = ClientSettings(redis_url=services.redis.url, namespace=namespace)
    supply = Supply(tmp_path)
    outcomes: Counter[str] = Counter()
    expected: list[float | None] = []
    with start_worker(environment) as worker, Client(settings) as client:
        ledger = Ledger(connect(settings), namespace=namespace, ttl_s=600)

        def feed(documents: list[Document]) -> None:
            good = {f"good-{uuid.uuid4().hex}": supply.good() for _ in range(5)}
            bad = {f"bad-{uuid.uuid4().hex}": document for document in documents}
            every = [*bad.items(), *good.items()]
            supply.random.shuffle(every)
            ledger.submit(
                [
                    Submission(job_id, packed(document, job_id), job_id, None, "normal", None)
                    for job_id, document in every
                ]
            )
            for result in client.as_completed([client.handle(job_id) for job_id, _ in every], timeout=600):
                if result.job_id in good:
                    assert result.state is JobState.SUCCEEDED, result.error
                    expected[:] = expected or scores(result)
                    assert None not in expected
                    assert scores(result) == pytest.approx(expected, abs=1e-5)
                elif result.state is JobState.SUCCEEDED:
                    outcomes["succeeded"] += 1
                    skips = [component.skipped.code for component in result.components if component.skipped]
                    outcomes.update(skips)
                    assert set(skips) <= SKIPS
                else:
                    assert result.state is JobState.FAILED
                    assert result.error is not None
                    outcomes[result.error.code] += 1
                    assert result.error.code in CODES, result.error
                    assert 10 < len(result.error.message) < 3000
            assert worker.alive(), worker.log_tail()

        # The allocator keeps what the largest inputs took that were ever worked on at the same time. How much that is
        # depends on chance, so the process grows by steps, rarer and rarer; one that leaks grows in every round.
        feed(supply.each() * 4)
        resident = [resident_kb(worker.pid)]
        for _ in range(MOST_ROUNDS * ROUNDS):
            feed([supply.next() for _ in range(100)])
            resident.append(resident_kb(worker.pid))
            fed = len(resident) - 1
            if fed >= 8 * ROUNDS and resident[-1] - resident[-1 - CALM_ROUNDS] < GROWTH_KB:
                break
        else:
            pytest.fail(f"the worker grows and grows; kB after each round: {resident}")
        print(f"{outcomes}; resident kB: {resident}")
        expected_codes = {
            "document_invalid",
            "image_truncated",
            "image_undecodable",
            "mask_invalid",
            "masks_invalid",
            "succeeded",
        }
        assert expected_codes <= set(outcomes)
        assert ledger.backlog().running == ledger.backlog().waiting == 0
        log = worker.log.read_text(errors="replace")
        assert "Traceback" not in log, log[-3000:]
