"""The gateway for several teams: what a token opens, its share of requests, and the audit line of each write."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from claims import claim_job
from gateway_process import TOKEN, Gateway, running_gateway
from maskscore import Client, ClientSettings
from maskscore.devstack import LocalServices
from maskscore.ledger import TenantLimits
from maskscore.schema.result import Failure
from waiting import until

TOKENS = {name: f"{name}-{'x' * 16}" for name in ("team-a", "team-b", "root", "rotated", "slow", "narrow")}


@dataclass
class Teams:
    """A gateway with a client for each token."""

    gateway: Gateway
    settings: ClientSettings
    callers: dict[str, httpx2.Client]

    def __getitem__(self, name: str) -> httpx2.Client:
        return self.callers[name]


@pytest.fixture(scope="module")
def teams(services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Teams]:
    folder = tmp_path_factory.mktemp("gateway")
    options = {"root": "admin", "rotated": "tenant=team-a", "slow": "rate=0.001", "narrow": "requests=1"}
    lines = [f"{name}={token}  {options.get(name, '')}" for name, token in TOKENS.items()]
    (folder / "tokens").write_text("# the teams\n" + "\n".join(lines))
    settings = ClientSettings(redis_url=services.redis.url, namespace=f"teams-{uuid.uuid4().hex[:8]}")
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": settings.namespace,
        "MASKSCORE_GATEWAY_TOKENS_FILE": str(folder / "tokens"),
        "MASKSCORE_LOG_FORMAT": "json",
    }
    with running_gateway(folder, environment) as gateway, ExitStack() as stack:
        callers = {
            name: stack.enter_context(
                httpx2.Client(
                    base_url=gateway.url, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False
                )
            )
            for name, token in {**TOKENS, "tests": TOKEN}.items()
        }
        yield Teams(gateway, settings, callers)


def job(job_id: str, **fields: Any) -> dict[str, Any]:
    return {"job_id": job_id, "image": "s3://b/a.png", "masks": [], **fields}


def named() -> str:
    return uuid.uuid4().hex[:12]


def problem(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_a_token_opens_its_own_tenants_jobs_and_batches_alone(teams: Teams) -> None:
    one, batch = named(), named()
    assert teams["team-a"].post("/v1/jobs", json=job(one)).status_code == 202
    assert teams["team-a"].post(f"/v1/batches?batch_id={batch}", json=[job(named())]).status_code == 202
    document = httpx2.get(f"{teams.gateway.url}/openapi.json", trust_env=False).json()
    routes = [
        (method, path.replace("{job_id}", one).replace("{batch_id}", batch), path)
        for path, methods in document["paths"].items()
        for method in methods
        if "{" in path
    ]
    assert len(routes) == 8
    for method, path, template in routes:
        foreign = teams["team-b"].request(method, path)
        unknown = teams["team-b"].request(method, template.replace("{job_id}", "none").replace("{batch_id}", "none"))
        assert foreign.status_code == unknown.status_code == 404, path
        # Nothing tells the two apart.
        shown = foreign.text.replace(one, "none").replace(batch, "none")
        assert shown == unknown.text
    for caller in ("team-a", "rotated", "root"):
        assert teams[caller].get(f"/v1/jobs/{one}").json()["state"] == "queued"
        assert teams[caller].get(f"/v1/batches/{batch}").json()["queued"] == 1
    with Client(teams.settings) as client:
        assert (client.job_tenant(one), client.batch_tenant(batch)) == ("team-a", "team-a")


def test_ids_that_are_another_tenants_are_taken_and_show_nothing(teams: Teams) -> None:
    one, batch = named(), named()
    for path, document in (("/v1/jobs", job(one)), (f"/v1/batches?batch_id={batch}", [job(named())])):
        assert teams["team-a"].post(path, json=document).status_code == 202
    # Also with the very same document, which would be the same job otherwise.
    assert problem(teams["team-b"].post("/v1/jobs", json=job(one))) == (409, "job_conflict")
    refused = teams["team-b"].post(f"/v1/batches?batch_id={batch}", json=[job(named())])
    assert problem(refused) == (409, "job_conflict")
    assert "Choose another" in refused.json()["detail"]
    assert problem(teams["team-b"].post("/v1/jobs", json=job(named(), batch_id=batch))) == (409, "job_conflict")
    mine = named()
    assert teams["team-b"].post(f"/v1/batches?batch_id={mine}", json=[job(one)]).status_code == 409
    assert teams["team-a"].get(f"/v1/batches/{batch}").json()["total"] == 1
    # Of the same work, each has a job of its own.
    ids = {
        caller: teams[caller].post("/v1/jobs?content_id=true", json=job("x", image=f"s3://b/{one}.png")).json()
        for caller in ("team-a", "rotated", "team-b")
    }
    assert ids["team-a"] == ids["rotated"] != ids["team-b"]


def test_a_token_submits_for_its_own_tenant_and_an_admin_for_any(teams: Teams) -> None:
    assert problem(teams["team-b"].post("/v1/jobs", json=job(named(), tenant="team-a"))) == (403, "tenant_not_allowed")
    assert teams["team-b"].post("/v1/jobs", json=job(named(), tenant="team-b")).status_code == 202
    one = named()
    assert teams["root"].post("/v1/jobs", json=job(one, tenant="team-b")).status_code == 202
    assert teams["team-b"].get(f"/v1/jobs/{one}").status_code == 200
    assert teams["team-a"].get(f"/v1/jobs/{one}").status_code == 404


def test_the_result_is_its_tenants(teams: Teams) -> None:
    one = named()
    teams["team-b"].post("/v1/jobs", json=job(one, priority="high"))
    with Client(teams.settings) as client:
        claim = claim_job(client._ledger, one)
        client._ledger.finish(claim, error=Failure(code="image_not_found", message="no such image"))
    assert teams["team-b"].get(f"/v1/jobs/{one}/result").json()["error"]["code"] == "image_not_found"
    assert problem(teams["team-a"].get(f"/v1/jobs/{one}/result")) == (404, "job_not_found")


def test_a_full_tenant_is_told_to_come_again_and_others_are_not_held_up(teams: Teams) -> None:
    with Client(teams.settings) as client:
        client.set_tenant("tests", TenantLimits(most_queued=1))
    answers = [teams["tests"].post("/v1/jobs", json=job(named())) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 429]
    assert (answers[1].json()["code"], answers[1].headers["retry-after"]) == ("queue_full", "5")
    assert "'tests'" in answers[1].json()["detail"]
    assert teams["team-a"].post("/v1/jobs", json=job(named())).status_code == 202


def test_a_token_has_a_rate_and_slots_of_its_own(teams: Teams) -> None:
    answers = [teams["slow"].get("/v1/jobs/none") for _ in range(2)]
    assert [problem(answer) for answer in answers] == [(404, "job_not_found"), (429, "too_many_requests")]
    assert 900 < int(answers[1].headers["retry-after"]) <= 1000
    one = named()
    teams["narrow"].post("/v1/jobs", json=job(one))
    with teams["narrow"].stream("GET", f"/v1/jobs/{one}/events"):
        busy = teams["narrow"].get(f"/v1/jobs/{one}")
        assert (problem(busy), busy.headers["retry-after"]) == ((429, "too_many_requests"), "1")


def test_a_shard_is_a_job_of_its_tenant(teams: Teams) -> None:
    one, batch = named(), named()
    source = {"kind": "tar", "uri": "s3://b/a.tar"}
    document = {"document": "shard", "shard_id": one, "source": source, "name": "a", "output_uri": "s3://o/"}
    answer = teams["team-a"].post("/v1/jobs?content_id=true", json=document)
    assert (answer.status_code, answer.json()["job_id"], answer.headers["location"]) == (202, one, f"/v1/jobs/{one}")
    assert teams["team-a"].get(f"/v1/jobs/{one}").json()["state"] == "queued"
    assert teams["team-b"].get(f"/v1/jobs/{one}").status_code == 404
    with Client(teams.settings) as client:
        assert client.shard(one).tenant == "team-a"
    assert problem(teams["team-b"].post("/v1/jobs", json={**document, "tenant": "team-a"})) == (
        403,
        "tenant_not_allowed",
    )
    assert problem(teams["team-a"].post("/v1/jobs", json={**document, "name": "a/b"})) == (422, "document_invalid")
    mixed = [{**document, "shard_id": named()}, job(named())]
    assert teams["team-a"].post(f"/v1/batches?batch_id={batch}", json=mixed).json()["submitted"] == 2
    assert teams["team-a"].post(f"/v1/jobs/{one}/cancel").json()["state"] == "cancelled"


def test_each_write_has_an_audit_line(teams: Teams) -> None:
    one, batch = named(), named()
    teams["team-a"].post("/v1/jobs", json=job(one))
    teams["team-b"].post(f"/v1/jobs/{one}/cancel")
    teams["team-a"].post(f"/v1/batches?batch_id={batch}", json=[job(named()), job(named())])
    teams["team-a"].post(f"/v1/batches/{batch}/cancel")
    teams["team-a"].get(f"/v1/jobs/{one}")
    httpx2.post(f"{teams.gateway.url}/v1/jobs", json=job(one), trust_env=False)

    def lines() -> list[dict[str, Any]]:
        read = [json.loads(line) for line in teams.gateway.log.read_text().splitlines() if '"maskscore.audit"' in line]
        start = next(place for place, line in enumerate(read) if line["target"] == f"job {one}")
        return read[start:]

    until(lambda: len(lines()) >= 5)
    written = [tuple(line[name] for name in ("caller", "action", "target", "status", "code")) for line in lines()]
    assert written == [
        ("team-a", "submit_job", f"job {one}", 202, None),
        ("team-b", "cancel_job", one, 404, "job_not_found"),
        ("team-a", "submit_batch", f"batch {batch}, 2 jobs", 202, None),
        ("team-a", "cancel_batch", batch, 200, None),
        (None, "submit_job", None, 401, "unauthorized"),
    ]
    assert lines()[0]["message"] == f"submit_job by team-a: job {one}: 202"
    assert not any(token in teams.gateway.log.read_text() for token in TOKENS.values())
