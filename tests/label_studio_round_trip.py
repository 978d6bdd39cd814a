"""A review through a real Label Studio and back: ``make label-studio``.

Label Studio is installed into a virtual environment of its own (some 1 GB), and runs with its own data folder on a free
port. Drawn scenes, half of them in S3 and half in files, are scored by a real worker; ``maskscore review`` writes the
tasks, which go into a project by Label Studio's API. The script checks that the predictions and the images are there,
takes a screenshot of a task where there is a Chromium, judges each region as the page would save it, exports the
project, and fits a head. Sources: https://api.labelstud.io.
"""

from __future__ import annotations

import argparse
import base64
import http.cookiejar
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
from PIL import Image

from browser import CHROMIUM, browser
from command_line import run_command
from in_memory_files import image_file
from maskscore import Client, Job
from maskscore.devstack import LocalServices
from maskscore.devstack.ports import free_port
from maskscore.masks import encode_mask
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from process_environment import patched_environment
from worker_process import start_worker

ROOT: Final = Path(__file__).parents[1]
_VENV: Final = ROOT / "build" / "label-studio-venv"
_SCREENSHOT: Final = ROOT / "build" / "label-studio.png"
_REQUIREMENT: Final = "label-studio>=1.20"
_USER: Final = "reviewer@example.org"
_SECONDS_TO_START: Final = 600
_SECONDS_TO_DRAW: Final = 120
_BATCH: Final = "round-trip"
SCENES: Final = [draw_scene(840_001 + number) for number in range(24)]
# Every tenth judgement is wrong, as people's are.
_WRONG_EVERY: Final = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--venv",
        type=Path,
        default=os.environ.get("LABEL_STUDIO_VENV") or _VENV,
        help="virtual environment with Label Studio; where there is none, it is made [default: %(default)s]",
    )
    program = install(parser.parse_args().venv)
    with tempfile.TemporaryDirectory(prefix="maskscore-label-studio-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        with LocalServices() as services, scored(services, folder) as environment:
            tasks, random = review(environment, folder)
            with label_studio(program, folder) as studio:
                project = studio.create_project((folder / "tasks.xml").read_text("utf-8"), folder / "images")
                studio.call("POST", f"/api/projects/{project}/import", tasks)
                imported = studio.tasks(project)
                check_imported(studio, tasks, imported)
                say(f"{len(imported)} tasks imported, with all predictions and images")
                screenshot(studio, project, imported[0]["id"])
                judged = judge(studio, imported)
                exported = studio.call("GET", f"/api/projects/{project}/export?exportType=JSON")
                (folder / "export.json").write_text(json.dumps(exported), "utf-8")
                say(f"{judged} masks judged, {random} of them drawn at random, and exported")
            fit(environment, folder, judged)
    return 0


def say(sentence: str) -> None:
    print(f"label-studio: {sentence}", flush=True)


def install(venv: Path) -> Path:
    """Return Label Studio's program, installed into the virtual environment where it is not there yet."""
    program = venv / "bin" / "label-studio"
    if not program.exists():
        say(f"installing into {venv}; this fetches some 1 GB ...")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
        subprocess.run([*pip, "install", _REQUIREMENT], check=True)
    return program


@contextmanager
def scored(services: LocalServices, folder: Path) -> Iterator[dict[str, str]]:
    """Score the scenes as one batch, those with odd numbers in S3 and the others in files."""
    services.create_bucket("photos")
    (folder / "images").mkdir()
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": f"label-studio-{uuid.uuid4().hex[:8]}",
        "MASKSCORE_BUCKETS": "photos",
    }
    jobs: list[dict[str, Any]] = []
    with patched_environment(environment):
        for number, scene in enumerate(SCENES):
            masks = [{"id": mask.id, "segmentation": encode_mask(mask.mask).model_dump()} for mask in scene.masks]
            if number % 2:
                boto3.client("s3").put_object(Bucket="photos", Key=f"scene {number}.png", Body=image_file(scene.image))
                uri = f"s3://photos/scene {number}.png"
            else:
                path = folder / "images" / f"scene {number}.png"
                Image.fromarray(scene.image).save(path)
                uri = path.as_uri()
            jobs.append({"image": uri, "masks": masks, "options": {"prompts": "demo", "embeddings": True}})
    worker = {"MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS), "MASKSCORE_PROMPTS": "demo", "MASKSCORE_FILE_ROOTS": str(folder)}
    with start_worker({**environment, **worker}), patched_environment(environment), Client() as client:
        client.submit_many(map(Job.model_validate, jobs), batch_id=_BATCH).wait(300)
        yield environment


def review(environment: dict[str, str], folder: Path) -> tuple[list[Any], int]:
    """Write the tasks of a review; return them, and how many of their masks were drawn at random."""
    asked = ("review", _BATCH, "--doubtful", "60", "--random", "60", "--document-root", str(folder))
    written = run_command(*asked, environment=environment, folder=folder)
    if written.returncode:
        raise AssertionError(written.stderr)
    print(written.stderr, end="", flush=True)
    tasks: list[Any] = json.loads((folder / "tasks.json").read_text("utf-8"))
    regions = [one for task in tasks for one in task["data"]["maskscore"]["regions"].values()]
    return tasks, sum(one["random"] for one in regions)


@dataclass(frozen=True, slots=True)
class Studio:
    """A running Label Studio, as its API shows it to one user."""

    address: str
    token: str
    password: str

    def call(self, method: str, path: str, document: Any = None) -> Any:
        """Send a request, and return the answer's JSON."""
        return json.loads(self.fetch(path, method=method, data=None if document is None else json.dumps(document)))

    def fetch(self, path: str, *, method: str = "GET", data: str | None = None) -> bytes:
        """Send a request, and return the answer's bytes."""
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(
            urllib.parse.urljoin(self.address, path), None if data is None else data.encode(), headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:1000]}") from error

    def create_project(self, configuration: str, images: Path) -> int:
        """Create a project with a source of local files, as the command's steps say; return its id."""
        project = self.call("POST", "/api/projects", {"title": "maskscore", "label_config": configuration})
        number = int(project["id"])
        storage = {"project": number, "path": str(images), "use_blob_urls": True, "title": "images"}
        self.call("POST", "/api/storages/localfiles", storage)
        return number

    def tasks(self, project: int) -> list[Any]:
        """Return the tasks of a project, each with its predictions, in their order."""
        listed = self.call("GET", f"/api/tasks?project={project}&page_size=1000&fields=all")
        return [self.call("GET", f"/api/tasks/{task['id']}") for task in listed["tasks"]]

    def cookies(self) -> list[dict[str, str]]:
        """Log in as a browser does, and return the cookies."""
        jar = http.cookiejar.CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        page = urllib.parse.urljoin(self.address, "/user/login/")
        opener.open(page, timeout=60).close()
        token = next(cookie.value for cookie in jar if cookie.name == "csrftoken")
        form = {"email": _USER, "password": self.password, "csrfmiddlewaretoken": token or ""}
        request = urllib.request.Request(page, urllib.parse.urlencode(form).encode(), {"Referer": page})
        opener.open(request, timeout=60).close()
        return [{"name": cookie.name, "value": cookie.value or "", "url": self.address} for cookie in jar]


@contextmanager
def label_studio(program: Path, folder: Path) -> Iterator[Studio]:
    """Run a Label Studio with a data folder, a user and a token of its own, and stop it in the end."""
    port, data = free_port(), folder / "label-studio"
    studio = Studio(f"http://127.0.0.1:{port}", secrets.token_hex(20), secrets.token_urlsafe(12))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LABEL_STUDIO_")},
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(folder),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    command = [str(program), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    command += ["--host", studio.address, "--username", _USER, "--password", studio.password]
    command += ["--user-token", studio.token]
    data.mkdir()
    log = data / "server.log"
    say("starting Label Studio; its first start takes a minute or two ...")
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=data, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _SECONDS_TO_START
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Label Studio did not start: {log.read_text('utf-8', 'replace')[-3000:]}")
            try:
                studio.call("GET", "/api/projects")
                break
            except (OSError, AssertionError):
                time.sleep(1)
        yield studio
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def check_imported(studio: Studio, tasks: list[Any], imported: list[Any]) -> None:
    """Raise AssertionError unless each task has its regions and an image that can be loaded."""
    # An image with doubtful and with random masks has two tasks.
    written = {json.dumps(task["data"], sort_keys=True): task for task in tasks}
    there = {json.dumps(task["data"], sort_keys=True): task for task in imported}
    if there.keys() != written.keys() or len(imported) != len(tasks):
        raise AssertionError(f"{len(imported)} tasks were imported, not the {len(tasks)} that were written")
    for data, task in there.items():
        (prediction,) = task["predictions"]
        if prediction["result"] != written[data]["predictions"][0]["result"]:
            raise AssertionError(f"task {task['id']} has another prediction than was written")
        number = scene_of(task)
        image = task["data"]["image"]
        # A presigned URL is loaded by the browser, without Label Studio's token.
        if image.startswith("http"):
            with urllib.request.urlopen(image) as answer:
                loaded = answer.read()
        else:
            loaded = studio.fetch(image)
        if loaded != image_file(SCENES[number].image):
            raise AssertionError(f"the image of task {task['id']} is not the one that was scored")


def scene_of(task: dict[str, Any]) -> int:
    """Return the number of the scene that a task shows."""
    return int(re.findall(r"[0-9]+", urllib.parse.unquote(task["data"]["maskscore"]["image"]))[-1])


def screenshot(studio: Studio, project: int, task: int) -> None:
    """Save what a person sees of a task, where there is a Chromium."""
    if CHROMIUM is None:
        say("no screenshot: there is no Chromium")
        return
    with browser() as tab:
        tab.command("Network.enable")
        tab.command("Network.setCookies", cookies=studio.cookies())
        tab.command("Emulation.setDeviceMetricsOverride", width=1400, height=900, deviceScaleFactor=1, mobile=False)
        tab.command("Page.navigate", url=f"{studio.address}/projects/{project}/data?task={task}")
        deadline = time.monotonic() + _SECONDS_TO_DRAW
        while not tab.evaluate("document.querySelectorAll('.lsf-main-view canvas, .konvajs-content canvas').length"):
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        time.sleep(5)
        picture = tab.command("Page.captureScreenshot", format="png")["data"]
    _SCREENSHOT.parent.mkdir(exist_ok=True)
    _SCREENSHOT.write_bytes(base64.b64decode(picture))
    say(f"screenshot of a task: {_SCREENSHOT}")


def judge(studio: Studio, imported: list[Any]) -> int:
    """Submit an annotation for each task, with the prediction's regions and a choice for each; return their number."""
    judged = 0
    for task in imported:
        about = task["data"]["maskscore"]
        kinds = {mask.id: mask.kind for mask in SCENES[scene_of(task)].masks}
        result = []
        for region in task["predictions"][0]["result"]:
            keep = kinds[about["regions"][region["id"]]["mask_id"]] == "object"
            judged += 1
            if judged % _WRONG_EVERY == 0:
                keep = not keep
            choice = {"from_name": "keep", "type": "choices", "value": {"choices": ["keep" if keep else "drop"]}}
            result += [region, {**region, **choice}]
        studio.call("POST", f"/api/tasks/{task['id']}/annotations", {"result": result, "lead_time": 10})
    return judged


def fit(environment: dict[str, str], folder: Path, judged: int) -> None:
    """Fit a head to what was exported, and print what ``maskscore fit`` prints."""
    asked = ("fit", _BATCH, "--judged", "export.json", "--strict", "-o", "head.json")
    fitted = run_command(*asked, environment=environment, folder=folder)
    print(fitted.stdout, fitted.stderr, sep="\n", flush=True)
    if fitted.returncode:
        raise AssertionError(f"maskscore fit exits with {fitted.returncode}")
    head = json.loads((folder / "head.json").read_text("utf-8"))
    if head["counts"]["judgements"] != judged:
        raise AssertionError(f"{head['counts']['judgements']} of {judged} judgements came back")
    say("a head was fitted to the judgements that came back")


if __name__ == "__main__":
    sys.exit(main())
