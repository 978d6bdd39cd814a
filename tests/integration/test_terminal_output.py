"""Commands that print upstream text: no control character of it reaches the terminal."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml
from PIL import Image

from claims import claim_job
from maskscore import Client, Job, Mask, ScoringOptions
from maskscore.cli import main
from maskscore.devstack import LocalServices
from maskscore.ledger import Ledger
from maskscore.schema.document import pack
from maskscore.schema.prompt_set import PromptSet
from maskscore.schema.result import Component, Failure, ImageInfo, JobResult, JobState, Notice
from maskscore.settings import ClientSettings
from process_environment import patched_environment

EVIL = "x\x1b]0;owned\x07\x1b[2J\x9b2J[red]y\u202e\u2028"
FORGED = f"{EVIL}\nFORGED maskscore: all went well\r\n"
CONTROLS = set("\x1b\x07\x9b\r\u202e\u2028")
SQUARE = [[1, 1, 9, 1, 9, 9]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files whose names are hostile, too."""
    folder = tmp_path_factory.mktemp("files")
    Image.new("RGB", (16, 16)).save(folder / f"{EVIL}.png")
    Image.new("RGB", (16, 16)).save(folder / "lonely\x1b[2J.png")
    masks = [{"id": EVIL, "segmentation": SQUARE}]
    (folder / f"{EVIL}.json").write_text(json.dumps(masks))
    (folder / "broken\x1b[2J.json").write_text("{")
    prompts = {"name": "evil", "positive": [FORGED], "negative": ["sky"]}
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    (folder / "wrong.yaml").write_text(yaml.safe_dump({"name": FORGED, EVIL: 1}))
    return folder


@pytest.fixture(scope="module")
def ended(services: LocalServices, folder: Path) -> Iterator[None]:
    """A job with a result, one that has failed, and a dead letter, all as hostile as they may be."""
    environment = {**services.environment(), "MASKSCORE_NAMESPACE": f"terminal-{uuid.uuid4().hex[:8]}"}
    with patched_environment(environment), Client() as client:
        settings: ClientSettings = client.settings
        options = ScoringOptions(prompts=PromptSet(name="evil", positive=[FORGED], negative=["sky"]))
        jobs = [
            Job(
                job_id=name,
                image=(folder / f"{EVIL}.png").as_uri() if name == "good" else f"s3://photos/{FORGED}.png",
                masks=[Mask(id=FORGED, segmentation=SQUARE, note=FORGED)],
                options=options,
            )
            for name in ("good", "bad", "dead")
        ]
        client.submit_many(jobs, batch_id="b")
        failure = Failure(code="image_not_found", message=f"There is no object {FORGED}.")
        with redis.Redis.from_url(settings.redis_url) as connection:
            ledger = Ledger(connection, namespace=settings.namespace, ttl_s=600)
            for job in jobs:
                claim = claim_job(ledger, job.job_id, worker=FORGED)
                if job.job_id == "good":
                    ledger.finish(claim, result=pack(_result(job)))
                else:
                    ledger.finish(claim, error=failure, dead_letter=job.job_id == "dead")
        yield


def _result(job: Job) -> JobResult:
    component = Component(
        id=FORGED,
        index=0,
        box=(1, 1, 8, 8),
        area=30,
        s_pos=0.9,
        s_neg=0.1,
        s_pos_text=FORGED,
        s_neg_text=FORGED,
        p_pos_sum=0.9,
        p_neg_sum=0.1,
        semantic_multiplier=2.0,
        upstream={"note": FORGED, FORGED: 1},
    )
    return JobResult(
        job_id=job.job_id,
        state=JobState.SUCCEEDED,
        image=ImageInfo(uri=job.image.uri, width=16, height=16, format="PNG"),
        treatment="original",
        method="softmax",
        components=[component],
        warnings=[Notice(code="no_masks", message=FORGED)],
    )


COMMANDS = [
    ("status", "good", "bad"),
    ("status", "bad", "--json"),
    ("results", "good", "bad"),
    ("results", "good", "--json"),
    ("wait", "bad"),
    ("dead", "list"),
    ("dead", "show", "dead"),
    ("dead", "show", "dead", "--json"),
    ("batch", "show", "b"),
    ("batch", "results", "b"),
    ("batch", "wait", "b"),
    ("export", "b"),
    ("export", "b", "-o", "out.parquet"),
    ("report", "b", "-o", "out.html"),
    ("run", ".", "--dry-run"),
    ("submit", "--image", "a\x1b[2J.png", "--masks", "broken\x1b[2J.json"),
    ("submit", "--image", "a.png", "--masks", f"none{FORGED}.json"),
    ("prompts", "show", "prompts.yaml"),
    ("prompts", "show", "wrong.yaml"),
    ("status", FORGED),
    ("batch", "show", FORGED),
    ("cancel", FORGED),
    ("top", "--once"),
    (FORGED,),
    ("status", f"--{FORGED}"),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: ascii(" ".join(arguments))[:40])
@pytest.mark.usefixtures("ended")
def test_nothing_but_text_reaches_the_terminal(
    arguments: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = _run(arguments, folder, monkeypatch)
    assert out + err, code
    assert not CONTROLS & set(out + err), ascii(out + err)
    assert not [line for line in (out + err).splitlines() if line.startswith("FORGED")], ascii(out + err)
    if "--json" in arguments:
        assert [json.loads(line) for line in out.splitlines()]


def _run(arguments: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, str, str]:
    """Run a command as its process would, in this one: a process takes a second to begin."""
    out, err = io.StringIO(), io.StringIO()
    terminate = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched, warnings.catch_warnings():
        patched.chdir(folder)
        patched.setattr(sys, "argv", ["maskscore", *arguments])
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        try:
            main()
            code: object = 0
        except SystemExit as left:
            code = left.code
        finally:
            signal.signal(signal.SIGTERM, terminate)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.usefixtures("ended")
def test_an_export_writes_through_links_into_fifos_and_keeps_modes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, private, fifo = tmp_path / "real.jsonl", tmp_path / "private.jsonl", tmp_path / "fifo"
    for file in (real, private):
        file.write_text("old")
    private.chmod(0o600)
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    os.mkfifo(fifo)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    for name in ("link.jsonl", "private.jsonl", "fifo"):
        named = ("export", "good", "--format", "jsonl", "--no-segmentations", "-o", str(tmp_path / name))
        code, _, err = _run(named, folder, monkeypatch)
        assert code == 0, err
    reader.join()
    line, end = real.read_text().split("\n")
    assert end == ""
    assert json.loads(line)["job_id"] == "good"
    assert read == [private.read_text()] == [real.read_text()]
    assert (tmp_path / "link.jsonl").is_symlink()
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_ISFIFO(fifo.stat().st_mode)
