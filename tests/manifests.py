"""The manifests of ``deploy/``, rendered by ``kubectl kustomize``, and look-ups in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["DEPLOY", "DOCKER", "ROOT", "containers", "environment", "of_kind", "one", "overlay", "rendered"]

ROOT: Final = Path(__file__).parents[1]
DEPLOY: Final = ROOT / "deploy"
DOCKER: Final = ROOT / "docker"

Manifest = dict[str, Any]


def rendered(folder: Path) -> list[Manifest]:
    """What ``kubectl kustomize`` makes of a folder; fails with its error output."""
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@cache
def overlay(name: str) -> list[Manifest]:
    """The objects of one overlay."""
    return rendered(DEPLOY / "overlays" / name)


def of_kind(objects: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in objects if manifest["kind"] == kind]


def one(objects: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [manifest for manifest in of_kind(objects, kind) if manifest["metadata"]["name"] == name]
    return found


def containers(objects: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each container with the specification of its pod."""
    for deployment in of_kind(objects, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        for container in pod["containers"]:
            yield pod, container


def environment(objects: list[Manifest], container: Manifest) -> dict[str, str | None]:
    """The variables that a container gets; those that come from a secret have no value here."""
    variables: dict[str, str | None] = {}
    for source in container.get("envFrom", []):
        variables.update(one(objects, "ConfigMap", source["configMapRef"]["name"])["data"])
    for variable in container.get("env", []):
        variables[variable["name"]] = variable.get("value")
    return variables
