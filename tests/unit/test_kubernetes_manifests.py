"""The Kubernetes manifests render, are valid, and agree with the code and each other."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from command_line import run_command
from manifests import DEPLOY, ROOT, Manifest, containers, environment, of_kind, one, overlay, rendered
from maskscore.ledger.records import ModelBacklog
from maskscore.settings import WorkerSettings, unknown_variables

OVERLAYS = sorted(folder.name for folder in (DEPLOY / "overlays").iterdir())
CUSTOM_KINDS: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "data" / "custom-kinds.yaml").read_text())
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
OLDEST, NEWEST = "1.28.0", kubernetes_validate.latest_version()
# Variables of others that the code or its libraries read.
FOREIGN = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"}

every_overlay = pytest.mark.parametrize("name", OVERLAYS)


def test_the_overlays_that_the_documentation_speaks_of() -> None:
    assert OVERLAYS == ["cpu", "gpu", "keda", "keda-models"]


@every_overlay
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_the_built_in_kinds(name: str, version: str) -> None:
    built_in = [manifest for manifest in overlay(name) if manifest["kind"] not in CUSTOM_KINDS]
    assert {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= {m["kind"] for m in built_in}
    for manifest in built_in:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("kind", CUSTOM_KINDS)
def test_the_custom_kinds_keep_to_what_is_documented(kind: str) -> None:
    found = of_kind(overlay("keda"), kind)
    assert found
    for manifest in found:
        assert manifest["apiVersion"] == CUSTOM_KINDS[kind]["apiVersion"]
        jsonschema.validate(manifest["spec"], CUSTOM_KINDS[kind]["spec"])


def test_a_misspelt_field_is_found() -> None:
    scaler = one(overlay("keda"), "ScaledObject", "maskscore-worker")
    with pytest.raises(jsonschema.ValidationError, match="coolDownPeriod"):
        jsonschema.validate({**scaler["spec"], "coolDownPeriod": 1}, CUSTOM_KINDS["ScaledObject"]["spec"])
    worker = one(overlay("gpu"), "Deployment", "maskscore-worker")
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate({**worker, "spec": {**worker["spec"], "replica": 1}}, NEWEST, strict=True)


def test_weights_from_a_volume(tmp_path: Path) -> None:
    above = {
        "resources": [os.path.relpath(DEPLOY / "overlays" / "gpu", tmp_path.resolve())],
        "components": [os.path.relpath(DEPLOY / "components" / "weights-volume", tmp_path.resolve())],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(above))
    worker = one(rendered(tmp_path), "Deployment", "maskscore-worker")
    kubernetes_validate.validate(worker, NEWEST, strict=True)
    pod = worker["spec"]["template"]["spec"]
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} == {"/tmp", "/weights"}
    assert {volume["name"] for volume in pod["volumes"]} == {"tmp", "weights"}


@pytest.mark.parametrize("namespace", ["maskscore", "scoring-b"])
def test_the_documented_overlay_renders(namespace: str, tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/deploying.md").read_text()
    (written,) = re.findall(r"```yaml\n# (?:\S+/)?kustomization\.yaml\n(.*?)```", page, re.DOTALL)
    # kustomize reads files of replacements only from below.
    shutil.copytree(DEPLOY, tmp_path / "maskscore" / "deploy")
    (tmp_path / "kustomization.yaml").write_text(written.replace("namespace: maskscore", f"namespace: {namespace}"))
    objects = rendered(tmp_path)
    scaler = one(objects, "ScaledObject", "maskscore-worker")
    assert {manifest["metadata"]["namespace"] for manifest in objects if manifest["kind"] != "Namespace"} == {namespace}
    assert f'{{namespace="{namespace}"' in scaler["spec"]["triggers"][0]["metadata"]["query"]
    assert {container["image"] for _, container in containers(objects)} == {
        f"images.internal/maskscore-producer:{VERSION}",
        f"images.internal/maskscore-worker:{VERSION}-gpu",
    }
    ((_, worker),) = [(pod, c) for pod, c in containers(objects) if c["name"] == "worker"]
    variables = environment(objects, worker)
    assert variables["MASKSCORE_BUCKETS"] == "photos,masks"
    assert variables["MASKSCORE_GRACE_S"] == "120"
    assert not unknown_variables(dict.fromkeys(variables, ""))


@every_overlay
def test_image_tags_are_of_this_release_and_do_not_move(name: str) -> None:
    kind = "cpu" if name == "cpu" else "gpu"
    assert {container["image"] for _, container in containers(overlay(name))} == {
        f"maskscore-producer:{VERSION}",
        f"maskscore-worker:{VERSION}-{kind}",
    }


@every_overlay
def test_every_variable_is_a_setting(name: str) -> None:
    for _, container in containers(overlay(name)):
        variables = dict.fromkeys(environment(overlay(name), container), "")
        assert unknown_variables(variables) == {}
        assert {variable for variable in variables if not variable.startswith("MASKSCORE_")} <= FOREIGN


@every_overlay
def test_settings_take_the_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for _, container in containers(overlay(name)):
        for variable, value in environment(overlay(name), container).items():
            if value is not None:
                monkeypatch.setenv(variable, value)
        WorkerSettings()


def test_containers_run_commands_that_exist() -> None:
    run = {tuple(container["args"]) for name in OVERLAYS for _, container in containers(overlay(name))}
    assert run == {("worker",), ("exporter",)}
    for arguments in run:
        assert run_command(*arguments, "--help").returncode == 0, arguments


@every_overlay
def test_a_worker_has_longer_than_its_grace(name: str) -> None:
    for pod, container in containers(overlay(name)):
        grace = float(environment(overlay(name), container).get("MASKSCORE_GRACE_S") or 0)
        assert pod["terminationGracePeriodSeconds"] >= grace + 15


@every_overlay
def test_pods_are_restricted(name: str) -> None:
    """By the Pod Security Standards' profile `restricted`, and with a read-only root."""
    for pod, container in containers(overlay(name)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
    user = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "docker/worker.Dockerfile").read_text(), re.MULTILINE)
    assert user == [(str(pod["securityContext"]["runAsUser"]), str(pod["securityContext"]["runAsGroup"]))]


@every_overlay
def test_secrets_are_referred_to_and_only_by_who_needs_them(name: str) -> None:
    assert not of_kind(overlay(name), "Secret")
    page = (ROOT / "docs/how-to/deploying.md").read_text()
    for _, container in containers(overlay(name)):
        keys = set()
        for variable in container["env"]:
            if "valueFrom" in variable:
                reference = variable["valueFrom"]["secretKeyRef"]
                assert reference["name"] == "maskscore"
                keys.add(reference["key"])
                assert f"--from-literal={reference['key']}=" in page
        assert (keys == {"redis-url"}) == (container["name"] == "exporter")


@every_overlay
def test_selectors_find_their_pods_and_ports(name: str) -> None:
    objects = overlay(name)
    pods = [deployment["spec"]["template"] for deployment in of_kind(objects, "Deployment")]
    for deployment in of_kind(objects, "Deployment"):
        assert _selected(deployment["spec"]["selector"]["matchLabels"], [deployment["spec"]["template"]])
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        for manifest in of_kind(objects, kind):
            assert _selected(manifest["spec"]["selector"]["matchLabels"], pods)
    for policy in of_kind(objects, "NetworkPolicy"):
        assert _selected(policy["spec"]["podSelector"].get("matchLabels", {}), pods)
    (service,) = of_kind(objects, "Service")
    (behind,) = _selected(service["spec"]["selector"], pods)
    assert [port["targetPort"] for port in service["spec"]["ports"]] == _port_names(behind)
    for monitor in of_kind(objects, "ServiceMonitor"):
        assert _selected(monitor["spec"]["selector"]["matchLabels"], [service])
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= {
            port["name"] for port in service["spec"]["ports"]
        }
    for _, container in containers(objects):
        (port,) = container["ports"]
        assert environment(objects, container)["MASKSCORE_HTTP_PORT"] == str(port["containerPort"])
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            assert container.get(probe, {"httpGet": {"port": port["name"]}})["httpGet"]["port"] == port["name"]


def _selected(labels: dict[str, str], candidates: list[Manifest]) -> list[Manifest]:
    return [one for one in candidates if labels.items() <= one["metadata"]["labels"].items()]


def _port_names(pod: Manifest) -> list[str]:
    return [port["name"] for container in pod["spec"]["containers"] for port in container["ports"]]


@pytest.mark.parametrize(("name", "gpus"), [("cpu", None), ("gpu", "1"), ("keda", "1")])
def test_gpus(name: str, gpus: str | None) -> None:
    ((_, worker),) = [(pod, c) for pod, c in containers(overlay(name)) if c["name"] == "worker"]
    for kind in ("requests", "limits"):
        assert worker["resources"][kind].get("nvidia.com/gpu") == gpus
    assert environment(overlay(name), worker)["MASKSCORE_DEVICE"] == ("cuda:0" if gpus else "cpu")


def test_the_scaler_alone_sets_the_number_of_workers() -> None:
    deployment = one(overlay("keda"), "Deployment", "maskscore-worker")
    scaler = one(overlay("keda"), "ScaledObject", deployment["metadata"]["name"])
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    assert one(overlay("gpu"), "Deployment", "maskscore-worker")["spec"]["replicas"] == 1


def test_the_scaler_goes_to_zero_but_never_under_work() -> None:
    scaler = one(overlay("keda"), "ScaledObject", "maskscore-worker")
    spec = scaler["spec"]
    (trigger,) = [trigger["metadata"] for trigger in spec["triggers"]]
    assert spec["minReplicaCount"] == 0
    assert float(trigger["activationThreshold"]) == 0
    # All that has not ended, by the ledger's own list.
    (states,) = re.findall(r'state=~"([a-z|]+)"', trigger["query"])
    assert set(states.split("|")) == {field.name for field in dataclasses.fields(ModelBacklog)} - {"oldest_waiting_s"}
    assert re.findall(r'namespace="(\w+)"', trigger["query"]) == [scaler["metadata"]["namespace"]]
    # No answer is no zero.
    assert trigger["ignoreNullValues"] == "false"
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert spec["fallback"]["replicas"] >= 1


def test_the_workers_of_each_model_are_scaled_by_its_jobs() -> None:
    objects = overlay("keda-models")
    workers = [pod for pod in of_kind(objects, "Deployment") if pod["metadata"]["name"] != "maskscore-exporter"]
    scalers = {scaler["spec"]["scaleTargetRef"]["name"]: scaler["spec"] for scaler in of_kind(objects, "ScaledObject")}
    assert scalers.keys() == {worker["metadata"]["name"] for worker in workers}
    served = set()
    for worker in workers:
        (container,) = worker["spec"]["template"]["spec"]["containers"]
        model = environment(objects, container).get("MASKSCORE_MODEL_NAME") or "default"
        query = scalers[worker["metadata"]["name"]]["triggers"][0]["metadata"]["query"]
        assert f'{{namespace="maskscore", model="{model}", state=~"waiting|running|delayed"}}' in query
        served.add(model)
        # No two of them take each other's pods for their own; each is reached, watched and evicted as the first one is.
        pods = [other["spec"]["template"] for other in workers]
        assert _selected(worker["spec"]["selector"]["matchLabels"], pods) == [worker["spec"]["template"]]
    assert served == {"default", "siglip"}
    for kind, field in (
        ("PodMonitor", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        labels = [manifest["spec"][field].get("matchLabels") for manifest in of_kind(objects, kind)]
        found = [pod for of_one in labels if of_one for pod in _selected(of_one, pods)]
        assert len(found) == len(workers)


def test_scaling_in_lets_workers_drain() -> None:
    spec = one(overlay("keda"), "ScaledObject", "maskscore-worker")["spec"]
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    pod = one(overlay("keda"), "Deployment", "maskscore-worker")["spec"]["template"]["spec"]
    drain_s = pod["terminationGracePeriodSeconds"]
    assert down["stabilizationWindowSeconds"] >= drain_s
    assert spec["cooldownPeriod"] >= drain_s
    for policy in down["policies"]:
        assert policy["periodSeconds"] >= drain_s
        assert policy["type"] == "Percent"
        assert policy["value"] <= 50
