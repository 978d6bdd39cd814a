"""The declared metrics are those of the reference page, and Prometheus accepts them."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from maskscore.cli.metrics import metrics_markdown
from maskscore.errors import SettingsError
from maskscore.exporter.http_endpoint import Endpoint
from maskscore.exporter.ledger_exporter import model_gauges, tenant_gauge
from maskscore.ledger import ModelBacklog, TenantLimits, TenantState, TenantStates
from maskscore.observability.metrics import METRICS
from scrape import get


def test_the_page_of_metrics_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
    assert page.read_text("utf-8") == metrics_markdown(), "run `make docs`"


def test_names_follow_prometheus_own_rules() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("maskscore_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(metric.buckets)
        assert metric.help.endswith(".")
        assert "|" not in metric.help + "".join(metric.labels.values())


def test_an_endpoint_answers_probes_and_refuses_what_it_does_not_know() -> None:
    reasons: list[str | None] = ["still loading"]
    endpoint = Endpoint("127.0.0.1", 0, CollectorRegistry(), {"/readyz": lambda: reasons[0]})
    endpoint.start()
    try:
        assert get(endpoint.port, "/readyz") == (503, "still loading\n")
        reasons[0] = None
        assert get(endpoint.port, "/readyz") == (200, "ok\n")
        assert get(endpoint.port, "/metrics") == (200, "")
        assert get(endpoint.port, "/secret") == (404, "there is /metrics, /readyz\n")
        with pytest.raises(SettingsError, match="MASKSCORE_HTTP_PORT"):
            Endpoint("127.0.0.1", endpoint.port, CollectorRegistry(), {})
    finally:
        endpoint.close()
    assert get(endpoint.port, "/readyz")[0] == 0


def test_models_that_anybody_names_are_few_series() -> None:
    asked = {f"model-{number}": ModelBacklog(waiting=number) for number in range(100)}
    jobs, workers = model_gauges({"default": ModelBacklog(1, 2, 3), **asked}, {"model-0": 2})
    shown = {sample.labels["model"] for sample in jobs.samples}
    assert len(shown) == 51
    assert {"default", "model-0", "model-99", "_other"} <= shown
    assert "model-1" not in shown
    assert sum(sample.value for sample in jobs.samples if sample.labels["state"] == "waiting") == 1 + sum(range(100))
    assert {sample.labels["model"]: sample.value for sample in workers.samples if sample.value} == {"model-0": 2}


def test_tenants_are_few_series() -> None:
    states = [TenantState(f"t{number}", 100 - number, 1, TenantLimits(), False, 0) for number in range(50)]
    samples = tenant_gauge(TenantStates(states, 7, 3)).samples
    shown = {sample.labels["tenant"] for sample in samples}
    assert len(shown) == 21
    assert {"t0", "t19", "_other"} <= shown
    assert sum(sample.value for sample in samples) == 7 + 3 + sum(100 - number for number in range(50)) + 50
