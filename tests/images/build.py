"""Builds both images with buildah, without a daemon, and has the worker image score a job: ``make images``.

The base image is a minimal Debian made with debootstrap, unless ``--base`` names another. pip inside of the build
reaches its packages as pip outside does, by a build secret and mounts, of which the images keep the empty folders. The
weights are those of the demo model. Then, each as its own user, on a read-only root and as process 1, with a real Redis
and a real S3 beside them: the worker runs, the producer submits a job to it and prints the scores, the exporter serves
its metrics, the health check passes, and both end when they are asked to.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from images.container import Image, mounted
from images.machine import pip_configuration
from in_memory_files import image_file
from maskscore.devstack import LocalServices
from maskscore.devstack.ports import free_port
from maskscore.devstack.s3_server import client
from maskscore.masks import encode_mask
from maskscore_worker.demo.scenes import Scene, draw_scene

ROOT: Final = Path(__file__).parents[2]
_BASE: Final = "localhost/maskscore-base"
_DEBIAN: Final = "bookworm"
_DEBIAN_PACKAGES: Final = "ca-certificates,python3,python3-venv"
_DEMO_MODEL: Final = "worker/maskscore_worker/demo/model"
_SECONDS_TO_SCORE: Final = 300
_SECONDS_TO_STOP: Final = 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", help="base image, instead of one made with debootstrap")
    parser.add_argument("--torch-index-url", default="", help="index of other PyTorch builds, such as those for CPUs")
    parser.add_argument("--only-run", action="store_true", help="run what was built before")
    arguments = parser.parse_args()
    _check_tools(["buildah", "unshare", *([] if arguments.base or arguments.only_run else ["debootstrap"])])
    if not arguments.only_run:
        base = arguments.base or _make_base()
        build("producer", base, [])
        build("worker", base, [f"TORCH_INDEX_URL={arguments.torch_index_url}", f"WEIGHTS={_DEMO_MODEL}"])
    with mounted("localhost/maskscore-worker") as worker, mounted("localhost/maskscore-producer") as producer:
        check_producer(producer)
        score(worker, producer)
    return 0


def build(side: str, base: str, build_arguments: list[str]) -> None:
    """Build ``docker/{side}.Dockerfile`` as ``localhost/maskscore-{side}``."""
    configuration, paths = pip_configuration()
    started = time.monotonic()
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as secret:
        secret.write(configuration)
        secret.flush()
        command = ["buildah", "build", "--isolation", "chroot", "--format", "docker", "--layers"]
        command += ["--file", f"docker/{side}.Dockerfile", "--tag", f"localhost/maskscore-{side}"]
        command += ["--secret", f"id=pip,src={secret.name}"]
        command += [word for path in paths for word in ("--volume", f"{path}:{path}:ro")]
        command += [word for pair in [f"BASE_IMAGE={base}", *build_arguments] for word in ("--build-arg", pair)]
        _say(f"building the {side} image ...")
        subprocess.run([*command, "."], check=True, cwd=ROOT, stdout=sys.stderr)
    _say(f"built the {side} image in {time.monotonic() - started:.0f} s")


def check_producer(image: Image) -> None:
    """The producer is light, its user is not root, and it can write to /tmp alone."""
    seen = image.run(["-c", _LOOK_AROUND], {}, entrypoint=["python"])
    assert json.loads(seen) == {"uid": 10001, "torch": False, "writable": ["/tmp"]}, seen
    _say("the producer: user 10001, no PyTorch, nothing writable but /tmp")


_LOOK_AROUND: Final = """
import importlib.util, json, os, sys
def writable(folder):
    try:
        with open(folder + "/probe", "w"):
            return True
    except OSError:
        return False
print(json.dumps({
    "uid": os.getuid(),
    "torch": importlib.util.find_spec("torch") is not None,
    "writable": [folder for folder in ("/", "/tmp", "/var/tmp", "/run", sys.prefix) if writable(folder)],
}))
"""


def score(worker: Image, producer: Image) -> None:
    """A job of the producer's goes through the worker; both are watched, and the worker is stopped."""
    scene = draw_scene(9_000_001)
    with LocalServices() as services:
        services.create_bucket("photos")
        _upload(services, scene)
        worker_port, exporter_port = free_port(), free_port()
        common = services.environment()
        settings = {
            **common,
            "MASKSCORE_BUCKETS": "photos",
            "MASKSCORE_PROMPTS": "demo",
            "MASKSCORE_DEVICE": "cpu",
            "MASKSCORE_HTTP_PORT": str(worker_port),
        }
        started = time.monotonic()
        with (
            worker.start(worker.config["Cmd"], settings) as running,
            producer.start(["exporter", "--port", str(exporter_port)], common) as exporter,
        ):
            submit = ["submit", "--image", "s3://photos/scene.png", "--masks", "s3://photos/scene.json"]
            submit += ["--prompts", "demo", "--wait", "--timeout", str(_SECONDS_TO_SCORE), "--json"]
            result = json.loads(producer.run(submit, common))
            _say(f"a scored job {time.monotonic() - started:.0f} s after the start of the worker:")
            _show(result, scene)
            health = worker.config["Healthcheck"]["Test"]
            worker.run(health[2:], settings, entrypoint=[health[1]] if health[0] == "CMD" else ["sh", "-c"])
            _say("the worker's health check passes")
            for name, port in (("worker", worker_port), ("exporter", exporter_port)):
                _say(f"the {name} serves {_metrics(port)} metrics")
            for name, image, container in (("worker", worker, running), ("exporter", producer, exporter)):
                code, seconds = container.stop(image.config["StopSignal"], within_s=_SECONDS_TO_STOP)
                assert code == 0, f"the {name} ended with {code}"
                _say(f"the {name} ended with 0, {seconds:.1f} s after {image.config['StopSignal']}")


def _upload(services: LocalServices, scene: Scene) -> None:
    encoded = image_file(scene.image)
    masks = [{"id": mask.id, "segmentation": encode_mask(mask.mask).model_dump()} for mask in scene.masks]
    storage: Any = client(services.s3)
    storage.put_object(Bucket="photos", Key="scene.png", Body=encoded)
    storage.put_object(Bucket="photos", Key="scene.json", Body=json.dumps(masks).encode())


def _show(result: dict[str, object], scene: Scene) -> None:
    assert result["state"] == "succeeded", result
    components = result["components"]
    assert isinstance(components, list)
    assert len(components) == len(scene.masks), components
    for component in components:
        _say(
            f"  mask {component['id']}: multiplier {component['semantic_multiplier']}, "
            f"{component['s_pos_text']} {component['s_pos']:.3f}, {component['s_neg_text']} {component['s_neg']:.3f}"
        )


def _metrics(port: int) -> int:
    """How many metrics of maskscore's own a process serves."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines: list[str] = answer.read().decode().splitlines()
    count = sum(line.startswith("# TYPE maskscore_") for line in lines)
    assert count, lines
    return count


def _make_base() -> str:
    """Make the base image with debootstrap, or take the one that was made before; returns its name."""
    if subprocess.run(["buildah", "inspect", "--type", "image", _BASE], capture_output=True).returncode == 0:
        return _BASE
    _say("making a base image with debootstrap ...")
    with tempfile.TemporaryDirectory() as folder:
        system = Path(folder) / "system"
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={_DEBIAN_PACKAGES}", _DEBIAN, str(system)],
            check=True,
            stdout=sys.stderr,
        )
        container = subprocess.run(
            ["buildah", "from", "scratch"], check=True, capture_output=True, text=True
        ).stdout.strip()
        subprocess.run(["buildah", "add", "--quiet", container, str(system)], check=True)
        subprocess.run(["buildah", "config", "--env", "LANG=C.UTF-8", container], check=True)
        subprocess.run(["buildah", "commit", "--quiet", "--rm", container, _BASE], check=True, stdout=sys.stderr)
    return _BASE


def _check_tools(names: list[str]) -> None:
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        sys.exit(f"Missing: {', '.join(missing)}. On Debian: apt-get install buildah debootstrap util-linux")
    if os.geteuid() != 0:
        sys.exit("debootstrap and chroot isolation need root.")


def _say(text: str) -> None:
    print(f"images: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
