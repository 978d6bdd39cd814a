"""Claims of single jobs, by their ids: workers take whichever is next."""

from __future__ import annotations

from maskscore.ledger import Claim, Ledger, new_token

__all__ = ["claim_job"]


def claim_job(ledger: Ledger, job_id: str, *, worker: str = "w", alone: bool = False) -> Claim:
    """Claim this job; those that are taken before it are given back, which costs them no attempt."""
    others: list[Claim] = []
    try:
        while True:
            claim = ledger.claim(token=new_token(), worker=worker, lease_s=60, alone=alone)
            assert isinstance(claim, Claim), f"{job_id} is not among the jobs that may run: {claim}"
            if claim.job_id == job_id:
                return claim
            others.append(claim)
    finally:
        for other in others:
            ledger.release(other)
