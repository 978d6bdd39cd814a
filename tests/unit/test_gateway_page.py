"""The gateway's page lists every code that it answers with, and its OpenAPI document every status."""

from __future__ import annotations

import re
from pathlib import Path

import maskscore.gateway
from maskscore.gateway import problems
from maskscore.gateway.app import make_app, openapi_document
from maskscore.job import Job
from maskscore.settings import GatewaySettings

PAGE = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text("utf-8")
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


def test_everything_but_probes_wants_a_token() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            assert operation.get("security", []) == ([{"HTTPBearer": []}] if path.startswith("/v1") else []), path
