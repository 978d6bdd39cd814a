"""The commands and the Python of the documentation work as written."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import boto3
import numpy as np
import pytest
import yaml
from PIL import Image

from in_memory_files import image_file
from maskscore import Client, Job
from maskscore.devstack import LocalServices
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from process_environment import patched_environment
from worker_process import start_worker

ROOT: Final = Path(__file__).parents[2]
# In this order: a page may use what an earlier one has left.
PAGES: Final = (
    "docs/tutorial/first-scores.md",
    "docs/tutorial/ranked-masks.md",
    "README.md",
    "docs/how-to/submit.md",
    "docs/how-to/masks.md",
    "docs/how-to/datasets.md",
    "docs/how-to/export.md",
    "docs/how-to/review.md",
    "docs/how-to/fit.md",
    "docs/how-to/report.md",
    "docs/how-to/rescoring.md",
    "docs/how-to/choosing.md",
    "docs/how-to/gateway.md",
    "docs/how-to/run-workers.md",
)

pytestmark = [pytest.mark.needs(program, shutil.which(program)) for program in ("bash", "curl", "openssl")]

# What is not run, by how it begins, and why.
LEFT_OUT: Final = {
    "make ": "the whole project's own targets; the demo and the tests run them",
    ".venv/bin/maskscore weights pull": "downloads real weights",
    "maskscore weights pull": "downloads real weights",
    ".venv/bin/maskscore up": "is what the test stands in for; test_cli_with_services.py runs it",
    "source .venv/bin/activate": "the test's environment is active",
    ".venv/bin/python": "starts Python for the block that follows",
    "python scripts/amg.py": "segment-anything and its weights",
    "pip install": "a package registry",
    "export MASKSCORE_REDIS_URL=rediss": "somebody's cluster",
    "export AWS_ENDPOINT_URL": "somebody's cluster",
    "export MASKSCORE_BUCKETS": "somebody's cluster",
    "maskscore worker --weights weights/ --device cuda:0": "a GPU and real weights",
    "maskscore worker --model-name": "real weights",
    "maskscore eval instances.json --images s3://photos/val --view original --model": "workers of both models",
    "maskscore eval instances.json --images s3://photos/val --head": "a second head; test_eval.py compares two",
    "maskscore eval instances.json --scores": "the parts of shards; test_eval.py measures some",
    "maskscore export s3://scores/run-1/": "the parts of shards; test_export_parts.py exports some",
    "maskscore fit s3://scores/run-1/": "the parts of shards; test_fit.py fits to some",
    "maskscore rescore s3://scores/run-1/": "the parts of shards; test_parts_commands.py scores some again",
    "maskscore pool": "runs until it is stopped; test_pool_under_load.py runs it",
    "kubectl ": "needs kubectl",
    "rank_score = ": "a formula",
}
SERVES: Final = "maskscore gateway"


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a page: Python, or lines for a shell."""

    place: str
    python: bool
    text: str


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of Python and the indented ones of a page, in their order."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    number = 0
    while number < len(lines):
        start = number
        if lines[number].startswith("```python"):
            while lines[number + 1] != "```":
                number += 1
            yield Block(f"{page}:{start + 1}", True, "\n".join(lines[start + 1 : number + 1]))
            number += 1
        elif lines[number].startswith("    ") and not lines[number - 1].strip():
            while number + 1 < len(lines) and lines[number + 1].startswith("    "):
                number += 1
            yield Block(f"{page}:{start + 1}", False, "\n".join(line[4:] for line in lines[start : number + 1]))
        number += 1


def commands(block: Block) -> Iterator[str]:
    """Yield the commands of a shell's block; of a transcript, what stands behind its ``$``."""
    text = block.text.replace("\\\n", " ")
    transcript = text.startswith("$ ")
    for line in text.splitlines():
        if not transcript or line.startswith("$ "):
            yield re.sub(r"\s{2,}", " ", line.removeprefix("$ ")).strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages name, each as its place says what it is."""
    folder = tmp_path_factory.mktemp("pages")
    random = np.random.default_rng(7)
    square = [[100, 100, 300, 100, 300, 300, 100, 300]]
    masks = [{"id": "1", "segmentation": square, "predicted_iou": 0.9}]
    photo = Image.fromarray(random.integers(0, 255, (320, 320, 3), dtype=np.uint8))
    for name in ("a.jpg", "photo.jpg"):
        photo.save(folder / name)
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    for name in ("one", "two"):
        photo.save(folder / "images" / f"{name}.jpg")
        (folder / "masks" / f"{name}.json").write_text(json.dumps(masks))
    (folder / "masks.json").write_text(json.dumps(masks))
    document = {"image": "s3://photos/a.jpg", "masks": masks, "options": {"prompts": "demo"}}
    # The gateway's are of another tenant, so they are other jobs.
    for file, kind in (("jobs.jsonl", "job"), ("evening.jsonl", "evening")):
        jobs = [{**document, "job_id": f"{kind}-{number}"} for number in range(3)]
        (folder / file).write_text("".join(json.dumps(job) + "\n" for job in jobs))
    label = np.zeros((320, 320), np.uint8)
    label[100:300, 100:300] = 1
    Image.fromarray(label).save(folder / "a.png")
    np.savez(folder / "stack.npz", label[None].astype(bool))
    instances = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 320, "height": 320}],
        "categories": [{"id": 1, "name": "dog", "supercategory": "animal"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": square, "area": 40000, "iscrowd": 0}
        ],
    }
    (folder / "instances.json").write_text(json.dumps(instances))
    for name in ("own", "other"):
        text = f"name: {name}\npositive:\n- a dog\n- a circle\nnegative:\n- grass\n- a wall\n"
        (folder / f"{name}.yaml").write_text(text)
    prompts = [*load_builtin("demo").positive, *load_builtin("default").positive, "a dog", "a circle"]
    classes = dict.fromkeys(prompts, "thing")
    (folder / "classes.yaml").write_text(yaml.safe_dump(classes))
    # What goes wrong is an exit code.
    (folder / ".curlrc").write_text("fail-with-body\nretry-connrefused\nretry=20\nretry-delay=1\n")
    return folder


@pytest.fixture(scope="module")
def environment(services: LocalServices, folder: Path) -> Iterator[dict[str, str]]:
    for bucket in ("photos", "masks", "results"):
        services.create_bucket(bucket)
    exported = {**services.environment(), "MASKSCORE_NAMESPACE": f"pages-{uuid.uuid4().hex[:8]}"}
    exported["MASKSCORE_BUCKETS"] = "*"
    with patched_environment(exported):
        s3 = boto3.client("s3")
        for name in ("a", "b"):
            s3.upload_file(str(folder / "a.jpg"), "photos", f"{name}.jpg")
            s3.upload_file(str(folder / "masks.json"), "masks", f"{name}.json")
        s3.upload_file(str(folder / "stack.npz"), "masks", "stack.npz")
        s3.upload_file(str(folder / "a.jpg"), "photos", "val/a.jpg")
        s3.upload_file(str(folder / "a.jpg"), "photos", "2026/images/a.jpg")
        s3.upload_file(str(folder / "masks.json"), "photos", "2026/masks/a.json")
    worker = {
        **exported,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_RESULT_BUCKETS": "*",
        "MASKSCORE_FILE_ROOTS": str(folder),
        "MASKSCORE_FEATURE_CACHE": "redis",
    }
    with start_worker(worker):
        with patched_environment(exported):
            score_street(folder)
        yield {**exported, "HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def score_street(folder: Path) -> None:
    """Score drawn scenes as the batches of the pages on judgements, and judge their masks as what they are drawn as."""
    jobs, judgements = [], []
    for number, scene in enumerate(draw_scene(850_001 + number) for number in range(40)):
        uri = f"s3://photos/street/{number}.png"
        boto3.client("s3").put_object(Bucket="photos", Key=f"street/{number}.png", Body=image_file(scene.image))
        masks = [{"id": mask.id, "segmentation": encode_mask(mask.mask).model_dump()} for mask in scene.masks]
        options = {"prompts": "demo", "embeddings": True}
        jobs.append({"job_id": f"street-{number}", "image": uri, "masks": masks, "options": options})
        judgements += [
            {"job_id": f"street-{number}", "image": uri, "mask_id": mask.id, "keep": mask.kind == "object"}
            for mask in scene.masks
        ]
    with Client() as client:
        for batch_id in ("street", "tonight"):
            client.submit_many(map(Job.model_validate, jobs), batch_id=batch_id).wait(240)
    saved = {"kind": "maskscore-judgements", "version": 1, "judgements": judgements}
    (folder / "export.json").write_text(json.dumps(saved))


def free_port() -> int:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        return port


class _Shell:
    """One bash, in which the commands run one after another, and variables stay."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._log = folder / "shell.log"
        self._errors = self._log.open("wb")
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            env={**os.environ, **environment},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        """Run a command; return its exit code and what it printed, with the end of all that went to stderr."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        mark = uuid.uuid4().hex
        self._bash.stdin.write(f'{command}\necho "\n{mark} $?"\n')
        self._bash.stdin.flush()
        printed: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(mark):
                return int(line.split()[1]), "".join(printed) + self._log.read_text("utf-8", "replace")[-2000:]
            printed.append(line)
        raise AssertionError(f"the shell has ended: {self._log.read_text('utf-8', 'replace')}")

    def close(self) -> None:
        """End what was left in the background, and the shell."""
        self._bash.communicate("kill $(jobs -p) 2>/dev/null; wait; exit\n", timeout=60)
        self._errors.close()


@pytest.fixture
def shell(environment: dict[str, str], folder: Path) -> Iterator[_Shell]:
    port = free_port()
    shell = _Shell({**environment, "MASKSCORE_GATEWAY_PORT": str(port), "PORT": str(port)}, folder)
    yield shell
    shell.close()


def sams_masks(*_: Any) -> list[dict[str, Any]]:
    """What segment-anything's SamAutomaticMaskGenerator.generate returns, which is not installed here."""
    segmentation = np.zeros((320, 320), bool)
    segmentation[10:50, 10:50] = True
    record = {"segmentation": segmentation, "area": 1600, "bbox": [10, 10, 39, 39], "predicted_iou": 0.9}
    return [{**record, "stability_score": 0.95, "point_coords": [[20.0, 20.0]], "crop_box": [0, 0, 320, 320]}]


def run_python(block: Block, names: dict[str, Any]) -> None:
    """Run a block as ``python -m asyncio`` would, with the names that earlier blocks have left."""
    code = compile(block.text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.isawaitable(result):
        asyncio.run(asyncio.wait_for(_wait(result), 120))


async def _wait(result: Any) -> None:
    await result


def test_everything_on_the_pages_works_as_typed(environment: dict[str, str], folder: Path, shell: _Shell) -> None:
    generator = SimpleNamespace(generate=sams_masks)
    names: dict[str, Any] = {"SamAutomaticMaskGenerator": lambda _: generator, "sam": None, "image": None}
    ran: list[str] = []
    used: set[str] = set()
    for block in (block for page in PAGES for block in blocks(page)):
        if block.python:
            before = Path.cwd()
            os.chdir(folder)
            try:
                with patched_environment(environment):
                    run_python(block, names)
            finally:
                os.chdir(before)
            ran.append(f"python, {block.place}")
            continue
        for command in commands(block):
            reason = next((start for start in LEFT_OUT if command.startswith(start)), None)
            if reason is not None:
                used.add(reason)
                continue
            if not re.match(r"[A-Za-z_./]", command):
                continue
            typed = command.replace("127.0.0.1:8080", "127.0.0.1:$PORT")
            if SERVES in command:
                typed = f"{typed.partition(' #')[0]} >gateway.log 2>&1 &"
            code, said = shell.run(typed)
            assert code == 0, (block.place, command, said)
            ran.append(command)
    assert used == LEFT_OUT.keys(), "not on the pages any more"
    said = "\n".join(ran)
    for word in (
        "submit",
        "run",
        "wait",
        "results",
        "export",
        "report",
        "compare",
        "rescore",
        "review",
        "fit",
        "heads check",
        "eval",
        "curl",
        "doctor",
    ):
        assert word in said
    assert len(list(folder.glob("*.html"))) == 4
    assert (folder / "masks.parquet").stat().st_size > 0
    assert json.loads((folder / "coco.json").read_text())["annotations"]
    # The worker has the demo model, and some commands ask it for the default prompts.
    assert "which knows drawn shapes only" in (folder / "shell.log").read_text()
    ids = (folder / "ids.txt").read_text().split()
    assert ids == ["job-0", "job-1", "job-2"]
