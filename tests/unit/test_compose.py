"""compose.yaml and the Dockerfiles are well-formed and agree with the code."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from itertools import chain
from typing import Any

import compose_spec
import pytest
import yaml

from manifests import DOCKER, ROOT
from maskscore.settings import WorkerSettings, unknown_variables

TEXT = (DOCKER / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = [name for name, service in SERVICES.items() if service["image"].startswith("maskscore-")]
WORKERS = ["worker-cpu", "worker-gpu"]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SECONDS = re.compile(r"^(\d+)s$")


def interpolated(text: str, given: dict[str, str]) -> str:
    """Fill in ``${NAME:-default}`` and ``${NAME:?message}`` as Compose does."""

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        return given.get(name, default) if default is not None else given[name]

    return re.sub(r"\$\{(?P<name>[A-Z0-9_]+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}", value, text)


def workers_for() -> set[str]:
    """The variables that have no default."""
    return set(re.findall(r"\$\{([A-Z0-9_]+):\?", TEXT))


def test_compose_takes_it() -> None:
    # Without YAML's anchors and merges, which this parser does not follow in extensions.
    text = yaml.safe_dump(yaml.safe_load(interpolated(TEXT, dict.fromkeys(workers_for(), "x"))))
    compose_spec.PyCompose.from_yaml(text).validate()
    with pytest.raises(ValueError, match="stop_grace_perod"):
        compose_spec.PyCompose.from_yaml(text.replace("_period", "_perod"))


def test_the_example_names_what_must_be_set() -> None:
    written = re.findall(r"^([A-Z0-9_]+)=$", (DOCKER / "env.example").read_text(), re.MULTILINE)
    assert set(written) == workers_for()


@pytest.mark.parametrize("name", OWN)
def test_every_variable_is_a_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = dict.fromkeys(workers_for(), "x")
    variables = {key: interpolated(value, given) for key, value in SERVICES[name]["environment"].items()}
    assert unknown_variables(variables) == {}
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    WorkerSettings()


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_hardened_and_open_to_this_machine_alone(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    # An image is of one release, and its tag does not move.
    assert re.fullmatch(r"[\w./-]+:v?\d+(\.\d+)+(-\w+)?", service["image"])
    if name in OWN:
        profile = f"-{service['profiles'][0]}" if name in WORKERS else ""
        assert service["image"].endswith(f":{VERSION}{profile}")


@pytest.mark.parametrize("name", SERVICES)
def test_commands_are_lists(name: str) -> None:
    # podman-compose cuts a text at its blanks, also at those within ${NAME:?message}.
    assert isinstance(SERVICES[name].get("command", []), list)


@pytest.mark.parametrize("name", WORKERS)
def test_workers_have_longer_than_their_grace(name: str) -> None:
    seconds = SECONDS.match(SERVICES[name]["stop_grace_period"])
    assert seconds is not None
    assert float(seconds[1]) >= float(SERVICES[name]["environment"]["MASKSCORE_GRACE_S"]) + 10


def test_redis_is_set_up_as_the_ledger_needs_it() -> None:
    words = [interpolated(word, {"REDIS_PASSWORD": "x"}) for word in SERVICES["redis"]["command"]]
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert given["--appendonly"] == "yes"
    assert given["--maxmemory-policy"] == "noeviction"


def test_one_worker_per_profile() -> None:
    assert {name: SERVICES[name]["profiles"] for name in WORKERS} == {"worker-cpu": ["cpu"], "worker-gpu": ["gpu"]}
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "deploy" not in SERVICES["worker-cpu"]


def test_what_is_mounted_and_built_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = interpolated(volume, {}).split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        if "build" in service:
            context = DOCKER / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).is_file()


def test_prometheus_asks_the_ports_that_are_opened() -> None:
    scraped = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    exporter, worker, gateway = scraped
    port = SERVICES["exporter"]["environment"]["MASKSCORE_HTTP_PORT"]
    assert exporter["static_configs"] == [{"targets": [f"exporter:{port}"]}]
    (found,) = worker["dns_sd_configs"]
    assert f"MASKSCORE_HTTP_PORT={found['port']}" in (DOCKER / "worker.Dockerfile").read_text()
    for name in WORKERS:
        assert SERVICES[name]["networks"]["default"]["aliases"] == found["names"]
    (found,) = gateway["dns_sd_configs"]
    assert found["names"] == ["gateway"]
    environment = SERVICES["gateway"]["environment"]
    assert str(found["port"]) == environment["MASKSCORE_GATEWAY_PROBE_PORT"]


@pytest.mark.parametrize("side", ["worker", "producer"])
def test_images_are_not_root_and_know_only_settings(side: str) -> None:
    text = (DOCKER / f"{side}.Dockerfile").read_text()
    last = text.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", last, re.MULTILINE)
    assert not unknown_variables(dict.fromkeys(re.findall(r"\b(MASKSCORE_[A-Z_]+)=", text), ""))
    # What pip is told about this machine comes as a secret, or not at all.
    assert all("pip.conf" in run for run in re.findall(r"RUN (?:[^\n]*\\\n)*[^\n]*--requirement[^\n]*", text))


@pytest.mark.parametrize(("extras", "has", "lacks"), [([], "redis", "torch"), (["worker"], "torch", "ruff")])
def test_requirements_are_the_projects_without_itself(extras: list[str], has: str, lacks: str) -> None:
    printed = subprocess.run(
        [sys.executable, DOCKER / "requirements.py", ROOT / "pyproject.toml", *extras],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    names = {re.split(r"[\[><=]", line)[0] for line in printed}
    assert has in names
    assert not {lacks, "maskscore"} & names
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["dependencies"]) <= set(printed)


def test_the_images_pin_all_they_install() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values()), "hatchling"]
    assert {_distribution(line) for line in wanted} - {"maskscore"} <= {_distribution(line) for line in pins}


def _distribution(requirement: str) -> str:
    return re.split(r"[\[><=]", requirement)[0].lower().replace("_", "-")
