"""The gateway's reference page lists each code, and its OpenAPI document each status."""

from __future__ import annotations

import json
import re
from pathlib import Path

import maskscore.gateway
from maskscore.gateway import problems
from maskscore.gateway.app import make_app
from maskscore.gateway.openapi import openapi_document
from maskscore.schema.job import Job
from maskscore.schema.result import Component, Failure, JobResult, JobState
from maskscore.settings import GatewaySettings

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "gateway.md").read_text("utf-8")
SOURCE = "".join(file.read_text("utf-8") for file in Path(maskscore.gateway.__file__).parent.glob("*.py"))
DOCUMENT = openapi_document(make_app(GatewaySettings(), None))


def test_every_code_is_on_the_page() -> None:
    raised = re.findall(r"ProblemError\(\s*(\d+),\s*\"(\w+)\"", SOURCE)
    assert len(raised) > 8
    ours = [(str(int(status)), kind.code) for kind, status in problems._STATUS]
    table = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for status, code in [*raised, *ours]:
        assert [line for line in table if status in line.split("|")[1] and f"`{code}`" in line], (status, code)


def test_every_problem_is_described() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                assert response["description"]
                if path.startswith("/v1") and int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_every_reference_leads_somewhere_and_the_example_is_a_job() -> None:
    for reference in re.findall(r"'\$ref': '#/(\w+)/(\w+)/([\w-]+)'", str(DOCUMENT)):
        place = DOCUMENT
        for step in reference:
            place = place[step]
    Job.model_validate(DOCUMENT["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["example"])


def test_the_document_is_openapi_3_1() -> None:
    import openapi_spec_validator

    assert DOCUMENT["openapi"] == "3.1.0"
    openapi_spec_validator.validate(DOCUMENT)
    assert "itemSchema" not in json.dumps(DOCUMENT)


def test_what_always_comes_is_required_and_what_is_never_null_is_not() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Problem"]["required"] == ["type", "title", "status", "detail", "code"]
    assert "null" not in json.dumps(schemas["Problem"])
    result = JobResult(job_id="a", state=JobState.FAILED, error=Failure(code="c", message="m"))
    sent = json.loads(result.model_dump_json())
    assert set(schemas["JobResult"]["required"]) == set(sent)
    assert "views" in schemas["JobResult"]["properties"]
    component = json.loads(Component(id="1", index=0).model_dump_json())
    assert set(schemas["Component"]["required"]) == set(component)
    # What is asked for has defaults.
    assert schemas["Job"]["required"] == ["image", "masks"]
    assert "required" not in schemas["ScoringOptions"]
    # A generator of clients makes a value of its own of what may be null: a parameter may not.
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            assert "null" not in json.dumps(operation.get("parameters", []))


def test_events_are_typed() -> None:
    for path, name, kinds in (
        ("/v1/jobs/{job_id}/events", "JobEvent", ["ended", "problem"]),
        ("/v1/batches/{batch_id}/events", "BatchEvent", ["ended", "done", "problem"]),
    ):
        content = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]
        assert content == {"text/event-stream": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        events = DOCUMENT["components"]["schemas"][name]["oneOf"]
        assert [event["properties"]["event"]["const"] for event in events] == kinds


def test_retry_after_is_declared_where_it_is_sent() -> None:
    declared = {
        (path, status)
        for path, methods in DOCUMENT["paths"].items()
        for operation in methods.values()
        for status, response in operation["responses"].items()
        if "Retry-After" in response.get("headers", {})
    }
    assert {status for _, status in declared} == {"409", "429", "503"}
    assert [path for path, status in declared if status == "409"] == ["/v1/jobs/{job_id}/result"]


def test_everything_but_probes_wants_a_token() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            assert operation.get("security", []) == ([{"HTTPBearer": []}] if path.startswith("/v1") else []), path
