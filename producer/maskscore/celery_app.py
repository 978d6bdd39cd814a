"""The Celery application with the settings of the environment, for Celery's own tools.

``celery -A maskscore.celery_app flower``, or ``inspect active``; workers and producers do not need it.
"""

from __future__ import annotations

from maskscore.broker import make_app
from maskscore.settings import ClientSettings, load_settings

__all__ = ["app"]

app = make_app(load_settings(ClientSettings))
