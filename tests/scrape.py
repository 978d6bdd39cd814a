"""Reading what an exporter or a worker serves over HTTP."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["get", "scrape", "until"]


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and body; status 0 where nobody listens yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def scrape(port: int) -> dict[str, float]:
    """Return the samples as Prometheus's own parser reads them, ``name{label=value,...}`` with sorted labels."""
    status, text = get(port, "/metrics")
    assert status == 200
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def until(met: Callable[[], bool], what: str, timeout_s: float = 180) -> None:
    """Wait until it is so; fail after a time that no healthy run takes."""
    deadline = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < deadline, f"in {timeout_s:g} s it was not so that {what}"
        time.sleep(0.05)
