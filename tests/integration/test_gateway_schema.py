"""The gateway's answers fit its OpenAPI document, whatever is sent (schemathesis)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi import checks

from gateway_process import TOKEN, Gateway, running_gateway
from maskscore.devstack import LocalServices
from maskscore.gateway.app import make_app
from maskscore.gateway.openapi import openapi_document
from maskscore.settings import GatewaySettings


def _operations() -> Iterator[Any]:
    yield from schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()


DOCUMENT = openapi_document(make_app(GatewaySettings(), None))
OPERATIONS: list[Any] = [each.ok() for each in _operations()]
EXCLUDED = [
    # What JSON Schema cannot say: that the ids of a job's masks differ, and that a version may be too new.
    checks.positive_data_acceptance,
    # pydantic takes "1" for 1, and the gateway parameters that it does not know.
    checks.negative_data_rejection,
]


@pytest.fixture(scope="module")
def gateway(services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    environment = {**services.environment(), "MASKSCORE_NAMESPACE": f"schema-{uuid.uuid4().hex[:8]}"}
    with running_gateway(tmp_path_factory.mktemp("gateway"), environment) as running:
        # The examples of the document.
        for batch, job in (("nightly-2026-11-25", "photo-1"), ("photo-1", "nightly-2026-11-25")):
            lines = [{"job_id": job, "image": "s3://b/a.png", "masks": []}]
            assert running.http.post(f"/v1/batches?batch_id={batch}", json=lines).status_code == 202
            # So that its streams end.
            assert running.http.post(f"/v1/batches/{batch}/cancel").status_code == 200
        yield running


def test_all_operations_are_tried() -> None:
    assert len(OPERATIONS) == sum(len(methods) for methods in DOCUMENT["paths"].values()) == 13


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_every_answer_is_one_that_is_described(operation: Any, gateway: Gateway) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answered: set[int] = set()

    @settings(max_examples=25, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def examine(case: Any) -> None:
        # A job that was submitted by chance goes on, since nobody runs it; who asks to wait for it waits.
        waits = case.path.endswith("/events") or "wait" in (case.query or {})
        try:
            response = case.call(base_url=gateway.url, headers=headers, timeout=3 if waits else 60)
        except requests.exceptions.ReadTimeout:
            assert waits
            return
        answered.add(response.status_code)
        case.validate_response(response, excluded_checks=EXCLUDED, headers=headers)

    examine()
    assert answered
