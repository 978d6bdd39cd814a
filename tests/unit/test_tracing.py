"""The settings under which traces are recorded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from maskscore.observability.tracing import tracing_configured


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_the_usual_variables_ask_for_traces(environment: dict[str, str], expected: bool) -> None:
    assert tracing_configured(environment) is expected


def opened(**environment: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from maskscore.observability.tracing import open_tracing\n"
        "tracing = open_tracing('here')\n"
        "print(tracing is not None)\n"
        "if tracing:\n"
        "    with tracing.submit({'maskscore.job_id': 'a'}) as parent: print(parent)\n"
        "    tracing.close()"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, check=True
    )


def test_an_exporter_is_found_by_its_name() -> None:
    ran = opened(OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="mine")
    assert ran.stdout.splitlines()[1].startswith("00-")
    assert '"name": "maskscore submit"' in ran.stdout
    assert '"service.name": "mine"' in ran.stdout


def test_a_missing_exporter_is_said_and_stops_nothing() -> None:
    ran = opened(OTEL_TRACES_EXPORTER="nonesuch")
    assert ran.stdout.split() == ["False"]
    assert "maskscore[otel]" in ran.stderr
