"""Leases: one thread renews those of all jobs in flight, and learns which were cancelled or lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

from maskscore.errors import FailureCode, JobError
from maskscore.ledger import Claim, Ledger

__all__ = ["JobStopped", "LeaseHolder", "Leases"]

log = logging.getLogger(__name__)


class JobStopped(Exception):  # noqa: N818 - not an error
    """The job must not go on here: ``cancelled`` by its submitter, its lease is ``lost``, or it was ``released``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LeaseHolder:
    """A claim in flight. The pipeline calls :meth:`check` between its steps."""

    def __init__(self, claim: Claim, *, timeout_s: float) -> None:
        self.claim = claim
        self.started = time.monotonic()
        self.computing = True
        """Whether the job still computes; after that, storing its outcome may take as long as Redis is away."""
        self.stop_reason: str | None = None
        self._timeout_s = timeout_s

    def extend(self) -> None:
        """Let the timeout count from now on: a part of a shard is committed."""
        self.started = time.monotonic()

    def check(self) -> None:
        """Raise :class:`JobStopped` if the job must not go on here, or ``job_timeout`` if it has taken too long."""
        if self.stop_reason is not None:
            raise JobStopped(self.stop_reason)
        if time.monotonic() - self.started > self._timeout_s:
            raise JobError(
                FailureCode.JOB_TIMEOUT,
                f"The job was not done after {self._timeout_s:g} s (MASKSCORE_JOB_TIMEOUT_S): its object store is "
                "slow, or it has too many masks for one job.",
            )


class Leases:
    """Renews the leases that are held, long before they lapse; a failed round is repeated.

    Parameters
    ----------
    lease_s: how long a renewed lease holds, in seconds.
    timeout_s: how long a job may take, in seconds.
    answered: called with the ledger's answer to each renewal.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        lease_s: float,
        timeout_s: float,
        answered: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        self._timeout_s = timeout_s
        self._answered = answered
        self._held: dict[str, LeaseHolder] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop renewing; call it when nothing is in flight any more."""
        self._closing.set()
        self._thread.join()

    def held(self) -> list[LeaseHolder]:
        """Return what is in flight."""
        with self._lock:
            return list(self._held.values())

    @contextmanager
    def hold(self, claim: Claim) -> Iterator[LeaseHolder]:
        """Keep the claim's lease alive inside the ``with`` block."""
        holder = LeaseHolder(claim, timeout_s=self._timeout_s)
        with self._lock:
            self._held[claim.token] = holder
        try:
            yield holder
        finally:
            with self._lock:
                self._held.pop(claim.token, None)

    def _run(self) -> None:
        # A cancellation should be noticed sooner than after a third of a long lease.
        while not self._closing.wait(min(1.0, self._lease_s / 3)):
            held = [holder for holder in self.held() if holder.stop_reason in (None, "cancelled")]
            if not held:
                continue
            try:
                answers = self._ledger.renew([holder.claim for holder in held], lease_s=self._lease_s)
            except redis.RedisError as error:
                log.warning("The leases of %d jobs could not be renewed, trying again: %s", len(held), error)
                continue
            for holder, answer in zip(held, answers, strict=True):
                self._answered(answer)
                if answer != "renewed" and holder.stop_reason != "released":
                    holder.stop_reason = answer
