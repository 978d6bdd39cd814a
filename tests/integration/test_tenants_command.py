"""Tenants as a user sees them: `maskscore tenants`, a full tenant at `submit`, and those that wait for room."""

from __future__ import annotations

import json
import threading
import uuid

import pytest

from command_line import run_command, without_settings
from maskscore import Client, Job, Mask, QueueFull
from maskscore.devstack import LocalServices
from maskscore.ledger import Claim, TenantLimits, new_token
from maskscore.settings import ClientSettings, load_settings
from waiting import until

SQUARE = [[1, 1, 8, 1, 8, 8, 1, 8]]


@pytest.fixture
def environment(services: LocalServices) -> dict[str, str | None]:
    namespace = f"tenants-{uuid.uuid4().hex[:8]}"
    return {**without_settings(), "MASKSCORE_REDIS_URL": services.redis.url, "MASKSCORE_NAMESPACE": namespace}


@pytest.fixture
def settings(environment: dict[str, str | None]) -> ClientSettings:
    return load_settings(
        ClientSettings, redis_url=environment["MASKSCORE_REDIS_URL"], namespace=environment["MASKSCORE_NAMESPACE"]
    )


def job(name: str, tenant: str, masks: int = 1) -> Job:
    some = [Mask(id=str(number), segmentation=SQUARE) for number in range(masks)]
    return Job(job_id=name, image="s3://photos/a.jpg", masks=some, tenant=tenant)


def claim(client: Client) -> Claim:
    claim = client._ledger.claim(token=new_token(), worker="w", lease_s=60)
    assert isinstance(claim, Claim)
    return claim


def test_tenants_are_listed_set_shown_and_unset(environment: dict[str, str | None], settings: ClientSettings) -> None:
    def tenants(*arguments: str) -> str:
        done = run_command("tenants", *arguments, environment=environment)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    assert "no tenants" in run_command("tenants", "list", environment=environment).stderr
    with Client(settings) as client:
        client.submit_many(job(f"flood-{number}", "flood", masks=50) for number in range(4))
        client.submit(job("one", "small"))
        line = tenants("set", "flood", "--weight", "0.5", "--max-queued", "3", "--masks-per-second", "2")
        assert line == "flood: weight 0.5, at most 3 queued, at most 2 masks per second\n"
        assert "at most 1 mask per second" in tenants("set", "slow", "--masks-per-second", "1")
        tenants("unset", "slow")
        # What is not given stays as it is.
        assert "at most 3 queued, at most 2 running" in tenants("set", "flood", "--max-running", "2")
        assert {claim(client).job_id for _ in range(2)} == {"flood-0", "one"}
    lines = tenants("list").splitlines()
    assert lines[0].split() == ["tenant", "queued", "running", "masks/s", "weight", "now"]
    assert lines[1].split()[:5] == ["flood", "3/3", "1/2", "2", "0.5"]
    assert "queue full" in lines[1]
    assert "next in" in lines[1]
    assert lines[2].split() == ["small", "0", "1", "1"]
    assert max(map(len, lines)) <= 80
    flood, small = map(json.loads, tenants("list", "--json").splitlines())
    assert (flood["queued"], flood["max_queued"], flood["own_limits"]) == (3, 3, True)
    assert 0 < flood["next_in_s"] <= 25
    assert (small["running"], small["max_running"], small["own_limits"]) == (1, None, False)
    first, others = map(json.loads, tenants("list", "--json", "--limit", "1").splitlines())
    assert (first["tenant"], others) == ("flood", {"tenant": None, "queued": 0, "running": 1})
    top = run_command("top", "--once", environment=environment).stdout.splitlines()
    at = next(number for number, line in enumerate(top) if line.startswith("tenants"))
    assert [line.split()[:4] for line in top[at + 1 : at + 3]] == [["flood", "3/3", "1/2", "2"], ["small", "0", "1"]]
    assert "queue full, next in" in top[at + 1]
    assert max(map(len, top)) <= 80
    overview = json.loads(run_command("top", "--once", "--json", environment=environment).stdout)
    assert [tenant["tenant"] for tenant in overview["tenants"]] == ["flood", "small"]
    assert overview["other_tenants"] == {"queued": 0, "running": 0}
    assert "queued     3, at most 3\n" in tenants("show", "flood")
    assert tenants("show", "nobody").startswith("tenant     nobody, without limits of its own\n")
    assert tenants("unset", "flood") == "flood: weight 1 (none of its own)\n"
    assert json.loads(tenants("show", "flood", "--json"))["max_queued"] is None


@pytest.mark.parametrize(
    "arguments", ["set a", "set a --weight 0", "set a --max-queued x", "set a/b --max-queued 1", "show", "unset *"]
)
def test_a_wrong_setting_of_a_tenant_is_refused(environment: dict[str, str | None], arguments: str) -> None:
    assert run_command("tenants", *arguments.split(), environment=environment).returncode == 2


def test_a_full_tenant_is_named_and_the_others_go_on(settings: ClientSettings) -> None:
    settings = settings.model_copy(update={"tenant_max_queued": 2})
    with Client(settings) as client:
        client.submit_many([job("a", "t"), job("b", "t")])
        with pytest.raises(QueueFull, match=r"'t'.*which is 2.*maskscore tenants set t --max-queued N") as full:
            client.submit(job("c", "t"))
        assert full.value.tenant == "t"
        client.submit(job("d", "u"))
        # A batch without a tenant is one.
        with pytest.raises(QueueFull, match="'mine'"):
            client.submit_many([job(name, "t").model_copy(update={"tenant": None}) for name in "efg"], batch_id="mine")


def test_a_producer_waits_for_its_tenants_room_and_goes_on(settings: ClientSettings) -> None:
    with Client(settings) as client:
        client.set_tenant("t", TenantLimits(most_queued=1))
        jobs = [job(name, "t") for name in "abc"]
        submitting = threading.Thread(target=client.submit_many, args=(jobs,), kwargs={"wait_for_room": True})
        submitting.start()
        done: list[str] = []
        until(lambda: _end_next(client, done) == 3)
        submitting.join()
        assert sorted(done) == ["a", "b", "c"]


def _end_next(client: Client, done: list[str]) -> int:
    found = client._ledger.claim(token=new_token(), worker="w", lease_s=60)
    if isinstance(found, Claim):
        client._ledger.finish(found, result=b"{}")
        done.append(found.job_id)
    return len(done)
