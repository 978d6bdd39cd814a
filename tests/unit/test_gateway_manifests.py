"""The gateway's Kubernetes component renders on top of an overlay."""

from __future__ import annotations

import os
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from command_line import run_command
from manifests import DEPLOY, ROOT, Manifest, containers, environment, of_kind, one, rendered
from maskscore.gateway.app import make_app
from maskscore.gateway.openapi import openapi_document
from maskscore.settings import GatewaySettings, unknown_variables

CUSTOM_KINDS: dict[str, Any] = yaml.safe_load((ROOT / "tests" / "data" / "custom-kinds.yaml").read_text())
VERSIONS = ["1.28.0", kubernetes_validate.latest_version()]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    folder = tmp_path_factory.mktemp("overlay").resolve()
    above = {
        "namespace": "elsewhere",
        "resources": [os.path.relpath(DEPLOY / "overlays" / "keda", folder)],
        "components": [
            os.path.relpath(DEPLOY / "components" / name, folder) for name in ("gateway", "gateway/monitoring")
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(above))
    return rendered(folder)


def ours(objects: list[Manifest], kind: str) -> Manifest:
    return one(objects, kind, "maskscore-gateway")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"])
def test_kubernetes_takes_it(objects: list[Manifest], kind: str, version: str) -> None:
    kubernetes_validate.validate(ours(objects, kind), version, strict=True)


def test_its_monitor_keeps_to_what_is_documented(objects: list[Manifest]) -> None:
    jsonschema.validate(ours(objects, "PodMonitor")["spec"], CUSTOM_KINDS["PodMonitor"]["spec"])


def test_its_pod_is_restricted_as_the_others_are(objects: list[Manifest]) -> None:
    by_name = {container["name"]: (pod, container) for pod, container in containers(objects)}
    pod, container = by_name["gateway"]
    other, exporter = by_name["exporter"]
    assert container["securityContext"] == exporter["securityContext"]
    assert other["securityContext"].items() <= pod["securityContext"].items()
    assert pod["automountServiceAccountToken"] is False
    assert container["image"] == exporter["image"]
    assert container["resources"]["limits"]["memory"]


def test_its_variables_are_settings_and_fit(objects: list[Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    ((pod, container),) = [each for each in containers(objects) if each[1]["name"] == "gateway"]
    variables = environment(objects, container)
    assert not unknown_variables(dict.fromkeys(variables, ""))
    for name, value in variables.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    settings = GatewaySettings()
    port = next(each for each in container["ports"] if each["name"] == "http")
    probes = next(each for each in container["ports"] if each["name"] == "probes")
    assert settings.gateway_probe_port == probes["containerPort"]
    assert settings.gateway_port == port["containerPort"]
    assert pod["terminationGracePeriodSeconds"] >= settings.gateway_grace_s + 15
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "tokens"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "tokens"]
    assert str(settings.gateway_tokens_file) == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
    # Kubernetes replaces the file of a mounted secret, but never one that is mounted by a subPath.
    assert "subPath" not in mount
    assert "--from-literal=gateway-tokens=" in (ROOT / "docs" / "how-to" / "gateway.md").read_text()


def test_its_probes_and_ports_are_there(objects: list[Manifest]) -> None:
    ((_, container),) = [each for each in containers(objects) if each[1]["name"] == "gateway"]
    paths = openapi_document(make_app(GatewaySettings(), None))["paths"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in paths
        # Answered by threads apart, whatever the callers send.
        assert container[probe]["httpGet"]["port"] == "probes"
    (port,) = ours(objects, "Service")["spec"]["ports"]
    assert port["targetPort"] == container["ports"][0]["name"] == "http"
    (scraped,) = ours(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
    opened = ours(objects, "NetworkPolicy")["spec"]["ingress"]
    assert scraped["port"] == "probes"
    assert {"port": "probes"} in [port for rule in opened for port in rule["ports"]]
    labels = ours(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for selector in (
        ours(objects, "Service")["spec"]["selector"],
        ours(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        ours(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        ours(objects, "PodMonitor")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    exporters = [m for m in of_kind(objects, "Service") if m["metadata"]["name"] == "maskscore-exporter"]
    assert not exporters[0]["spec"]["selector"].items() <= labels.items()


def test_the_image_has_what_it_needs() -> None:
    words = (ROOT / "docker" / "producer.Dockerfile").read_text().split('EXTRAS="')[1].split('"')[0].split()
    assert "gateway" in words
    assert run_command("gateway", "--help").returncode == 0


def test_the_file_of_tokens_may_be_read_by_its_user(objects: list[Manifest]) -> None:
    """The root is the file's owner; the pod's group makes it readable."""
    ((pod, _),) = [each for each in containers(objects) if each[1]["name"] == "gateway"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "tokens"]
    assert volume["secret"]["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
