"""One thread that renews the leases of all jobs in flight, and learns what their submitters want meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from maskscore.ledger import Claim, Ledger

__all__ = ["JobStopped", "LeaseHolder", "Leases"]

log = logging.getLogger(__name__)


class JobStopped(Exception):  # noqa: N818 - not an error: somebody wants it so
    """The job must not go on here: ``cancelled`` by its submitter, or its lease is ``lost``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LeaseHolder:
    """A claim in flight. The pipeline calls :meth:`check` between its steps."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.stop_reason: str | None = None

    def check(self) -> None:
        """Raise :class:`JobStopped` if the job was cancelled or its lease lost."""
        if self.stop_reason is not None:
            raise JobStopped(self.stop_reason)


class Leases:
    """Renews every third of ``lease_s`` seconds what is held; a failed round is tried again in the next."""

    def __init__(self, ledger: Ledger, *, lease_s: float) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
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

    @contextmanager
    def hold(self, claim: Claim) -> Iterator[LeaseHolder]:
        """Keep the claim's lease alive inside the ``with`` block."""
        holder = LeaseHolder(claim)
        with self._lock:
            self._held[claim.job_id] = holder
        try:
            yield holder
        finally:
            with self._lock:
                self._held.pop(claim.job_id, None)

    def _run(self) -> None:
        # Cancelling should not take a third of a long lease to be noticed.
        while not self._closing.wait(min(1.0, self._lease_s / 3)):
            with self._lock:
                held = list(self._held.values())
            if not held:
                continue
            try:
                answers = self._ledger.renew([holder.claim for holder in held], lease_s=self._lease_s)
            except redis.RedisError as error:
                log.warning("The leases of %d jobs could not be renewed, trying again: %s", len(held), error)
                continue
            for holder, answer in zip(held, answers, strict=True):
                if answer != "renewed":
                    holder.stop_reason = answer
