"""The one Celery task. Nothing else in the worker knows Celery, but ``main``."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from maskscore.broker import TASK_NAME

__all__ = ["register"]


def register(app: Celery, run: Callable[[str], None]) -> None:
    """Register what is done with a job id under the name that producers send."""

    def score(job_id: str) -> None:
        run(job_id)

    app.task(name=TASK_NAME, ignore_result=True)(score)
