"""A stub in the place of workers: ``python -m bench.run_consumer REDIS_URL NAMESPACE``.

It takes messages from the queue's own lists, and claims and finishes their jobs through the real ledger, with a result
of a few masks that nobody has looked at: no image is fetched, no forward is made. What is measured is the producer.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import redis

from maskscore import ClientSettings, Component, JobResult, JobState
from maskscore.broker import queue_keys
from maskscore.ledger import Claim, Ledger, new_token
from maskscore.schema.document import pack

__all__ = ["main"]

_TAKEN_AT_ONCE = 100
_PAUSE_S = 0.02
MULTIPLIERS = (2.0, 1.0, 0.1)


def main() -> None:
    """Serve until the process is ended."""
    settings = ClientSettings(redis_url=sys.argv[1], namespace=sys.argv[2])
    server: Any = redis.Redis.from_url(settings.redis_url)
    ledger = Ledger(server, namespace=settings.namespace, ttl_s=settings.result_ttl_s)
    keys = queue_keys(settings.namespace)
    components = [
        Component(id=str(n), index=n, s_pos=0.5, s_neg=0.5, semantic_multiplier=value)
        for n, value in enumerate(MULTIPLIERS)
    ]
    while True:
        tickets = [ticket for key in keys for ticket in server.rpop(key, _TAKEN_AT_ONCE) or ()]
        for _ in tickets:
            claim = ledger.claim(token=new_token(), worker="stub", lease_s=60)
            if isinstance(claim, Claim):
                result = JobResult(job_id=claim.job_id, state=JobState.SUCCEEDED, components=components)
                ledger.finish(claim, result=pack(result))
        if not tickets:
            time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main()
