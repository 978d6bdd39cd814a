"""The events: jobs arrive and end, pods are asked for, become ready and drain, the scaler looks."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from simulation.autoscaler import SYNC_S, Autoscaler, Scaling
from simulation.day import DAY_S, Arrival

__all__ = ["Outcome", "Sample", "simulate"]

SCRAPE_S = 15.0
"""How old the metric that the scaler sees may be: Prometheus' scrape interval."""
_SAMPLE_S = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment: the jobs that have not ended, the age of the oldest that waits in seconds, the pods paid for."""

    at: float
    jobs: int
    oldest_s: float
    pods: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a day was like. ``waits_s``: of each job from its arrival to its start; ``pod_s``: paid for, drains too."""

    scaling: Scaling
    arrived: int
    ended: int
    waits_s: list[float]
    busy_s: float
    pod_s: float
    starts: int
    samples: list[Sample]

    def wait_s(self, share: float) -> float:
        """Return the wait that this share of the jobs did not exceed."""
        ordered = sorted(self.waits_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass(eq=False)
class _Pod:
    asked_at: float
    ready: bool = False
    busy: bool = False
    draining: bool = False


@dataclass
class _World:
    scaling: Scaling
    masks_per_s: float
    cold_start_s: float
    dice: random.Random
    now: float = 0.0
    queue: deque[Arrival] = field(default_factory=deque)
    pods: list[_Pod] = field(default_factory=list)
    idle: list[_Pod] = field(default_factory=list)
    running: int = 0
    ended: int = 0
    metric: int = 0
    starts: int = 0
    busy_s: float = 0.0
    pod_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        self.at(self.now + seconds, event)

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def run(self, arrivals: Sequence[Arrival]) -> None:
        scaler = Autoscaler(self.scaling)
        self.scale_to(self.scaling.least)
        self._every(SCRAPE_S, self._scrape)
        self._every(self.scaling.polling_s, lambda: self.scale_to(scaler.poll(self.now, self.metric, self._wanted())))
        self._every(SYNC_S, lambda: self.scale_to(scaler.sync(self.now, self.metric, self._wanted())))
        self._every(_SAMPLE_S, self._sample)
        rest = iter(arrivals)
        self._next_arrival(rest)
        # After the day, until everything has ended.
        while self._events and (self.now < DAY_S or self.ended < len(arrivals)):
            self.now, _, event = heapq.heappop(self._events)
            event()
        for pod in self.pods:
            self.pod_s += self.now - pod.asked_at

    def _next_arrival(self, rest: Iterator[Arrival]) -> None:
        arrival = next(rest, None)
        if arrival is not None:
            # At its own time to the last digit: the time left, added again, may be a moment before it.
            self.at(arrival.at, lambda: self._arrive(arrival, rest))

    def _arrive(self, arrival: Arrival, rest: Iterator[Arrival]) -> None:
        self.queue.append(arrival)
        self._serve()
        self._next_arrival(rest)

    def _every(self, seconds: float, event: Callable[[], None]) -> None:
        def again() -> None:
            event()
            self.later(seconds, again)

        # Nobody's clocks are in step.
        self.later(self.dice.random() * seconds, again)

    def _scrape(self) -> None:
        self.metric = len(self.queue) + self.running

    def _sample(self) -> None:
        oldest_s = self.now - self.queue[0].at if self.queue else 0.0
        self.samples.append(Sample(self.now, len(self.queue) + self.running, oldest_s, len(self.pods)))

    def _wanted(self) -> int:
        return sum(not pod.draining for pod in self.pods)

    def scale_to(self, number: int) -> None:
        staying = [pod for pod in self.pods if not pod.draining]
        for _ in range(number - len(staying)):
            pod = _Pod(self.now)
            self.pods.append(pod)
            self.starts += 1
            self.later(self.cold_start_s, lambda pod=pod: self._become_ready(pod))  # type: ignore[misc]
        # A ReplicaSet gives up pods that are not ready first, and of the others any.
        self.dice.shuffle(staying)
        staying.sort(key=lambda pod: pod.ready)
        for pod in staying[: max(0, len(staying) - number)]:
            pod.draining = True
            if not pod.busy:
                self._remove(pod)

    def _become_ready(self, pod: _Pod) -> None:
        if pod in self.pods and not pod.draining:
            pod.ready = True
            self.idle.append(pod)
            self._serve()

    def _serve(self) -> None:
        while self.queue and self.idle:
            pod, job = self.idle.pop(), self.queue.popleft()
            pod.busy = True
            self.running += 1
            self.waits_s.append(self.now - job.at)
            seconds = job.masks / self.masks_per_s
            self.busy_s += seconds
            self.later(seconds, lambda pod=pod: self._end(pod))  # type: ignore[misc]

    def _end(self, pod: _Pod) -> None:
        self.running -= 1
        self.ended += 1
        pod.busy = False
        if pod.draining:
            self._remove(pod)
        else:
            self.idle.append(pod)
            self._serve()

    def _remove(self, pod: _Pod) -> None:
        self.pods.remove(pod)
        if pod in self.idle:
            self.idle.remove(pod)
        self.pod_s += self.now - pod.asked_at


def simulate(
    arrivals: Sequence[Arrival], scaling: Scaling, *, masks_per_s: float, cold_start_s: float, seed: int = 1
) -> Outcome:
    """Let a day pass, and go on until its last job has ended.

    Parameters
    ----------
    arrivals: in the order of time.
    masks_per_s: rate of one worker.
    cold_start_s: seconds from asking for a pod until its worker takes jobs: node, image, weights, warm-up.
    """
    world = _World(scaling, masks_per_s, cold_start_s, random.Random(seed))
    world.run(arrivals)
    return Outcome(
        scaling=scaling,
        arrived=len(arrivals),
        ended=world.ended,
        waits_s=world.waits_s,
        busy_s=world.busy_s,
        pod_s=world.pod_s,
        starts=world.starts,
        samples=world.samples,
    )
