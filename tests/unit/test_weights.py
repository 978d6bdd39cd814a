"""``maskscore weights`` fetches from a hub (a real server on this machine) and describes a folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from command_line import run_command
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.weights import download, find_pretrained
from maskscore_worker.weights.pretrained import architecture_config

REPO = "someone/some-model"
COMMIT = "5" * 40
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
DEMO = (DEMO_WEIGHTS / WEIGHTS).read_bytes()
DIGEST = hashlib.sha256(DEMO).hexdigest()


@dataclass
class Hub:
    """What the hub's file API answers, with the faults that a test asks for."""

    address: str = ""
    weights: bytes = DEMO
    digest: str = DIGEST
    cut_after: int | None = None
    name: str = WEIGHTS
    others: dict[str, bytes] = field(default_factory=lambda: {CONFIG: (DEMO_WEIGHTS / CONFIG).read_bytes()})
    """The files that are small; a name may begin with another repository, as ``someone/tokenizer:vocab.txt``."""
    first: str = CONFIG
    """The one that is asked for by the branch's name, which says the commit of the rest."""
    tokens: set[str | None] = field(default_factory=set)
    ranges: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            repo, _, revision_and_name = self.path.removeprefix("/").partition("/resolve/")
            revision, _, name = revision_and_name.partition("/")
            name = name if repo == REPO else f"{repo}:{name}"
            data = {**state.others, state.name: state.weights}.get(name)
            # The branch moves on at once: what is asked for by its name later would be of another commit.
            if repo == REPO and revision != ("main" if name == state.first else COMMIT):
                data = None
            if data is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            state.tokens.add(self.headers["Authorization"])
            if body:
                state.fetched.append(name)
            start = 0
            if body and "Range" in self.headers:
                state.ranges.append(self.headers["Range"])
                start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("X-Repo-Commit", COMMIT)
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self.send_header("ETag", f'"{state.digest if name == state.name else blob}"')
            self.end_headers()
            if body:
                cut = state.cut_after if name == state.name else None
                self.wfile.write(data[start:] if cut is None else data[start : start + cut])
                if cut is not None:
                    # The library goes on by itself at first; then nothing comes any more.
                    self.close_connection, state.cut_after = True, 0

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No proxy, no user's token, and no client of huggingface_hub that knows of others."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "")
    close_session()
    yield
    close_session()


def weights(*arguments: str, endpoint: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``maskscore weights`` in this process, where the library has read its variables already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        return run_command("weights", *arguments, environment={"HF_ENDPOINT": endpoint, "HF_TOKEN": token})


def test_the_hub_is_the_one_that_the_variable_names(hub: Hub, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "hub-cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-m", "maskscore", "weights", "pull", str(tmp_path / "weights"), "--repo", REPO]
    subprocess.run(command, env=environment, check=True)
    assert hub.fetched == [CONFIG, WEIGHTS]


def test_pulled_weights_are_checked_shown_and_fit(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    pulled = weights("pull", str(folder), "--repo", REPO, endpoint=hub.address)
    assert pulled.returncode == 0, pulled.stderr
    assert f"sha256:{DIGEST}" in pulled.stdout
    assert (folder / WEIGHTS).read_bytes() == DEMO
    checked = weights("check", str(folder), endpoint=hub.address)
    assert checked.returncode == 0, checked.stderr
    for words in (f"sha256:{DIGEST}", "The weights fit.", "image size         64", "stored as          float16"):
        assert words in checked.stdout
    assert hub.fetched == [CONFIG, WEIGHTS]
    again = weights("pull", str(folder), "--repo", REPO, endpoint=hub.address, token="hf_secret")
    assert again.returncode == 0, again.stderr
    assert f"sha256:{DIGEST}" in again.stdout
    assert hub.fetched == [CONFIG, WEIGHTS]
    assert hub.tokens == {None, "Bearer hf_secret"}


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    # Larger than the pieces of 10 MB in which the library writes.
    hub.weights = os.urandom(24_000_000)
    hub.digest = hashlib.sha256(hub.weights).hexdigest()
    hub.cut_after = 15_000_000
    cut = weights("pull", str(folder), "--repo", REPO, endpoint=hub.address)
    assert cut.returncode == 1
    assert "go on where it stopped" in cut.stderr
    assert "Traceback" not in cut.stderr
    hub.cut_after = None
    hub.ranges.clear()
    pulled = weights("pull", str(folder), "--repo", REPO, endpoint=hub.address)
    assert pulled.returncode == 0, pulled.stderr
    assert [int(asked.removeprefix("bytes=").rstrip("-")) >= 10_000_000 for asked in hub.ranges] == [True]
    assert (folder / WEIGHTS).read_bytes() == hub.weights
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]


def test_what_an_older_or_larger_part_left_does_no_harm(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    for left, size in ((f".{WEIGHTS}.{DIGEST}.part", len(DEMO) + 9), (f".{WEIGHTS}.{'7' * 64}.part", 9)):
        (folder / left).write_bytes(bytes(size))
    pulled = weights("pull", str(folder), "--repo", REPO, endpoint=hub.address)
    assert pulled.returncode == 0, pulled.stderr
    assert (folder / WEIGHTS).read_bytes() == DEMO
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]


def test_pickled_weights_are_fetched_where_there_are_no_others(hub: Hub, tmp_path: Path) -> None:
    hub.name = "open_clip_pytorch_model.bin"
    folder = tmp_path / "weights"
    pulled = weights("pull", str(folder), "--repo", REPO, endpoint=hub.address)
    assert pulled.returncode == 0, pulled.stderr
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, hub.name]
    (folder / hub.name).rename(folder / WEIGHTS)
    refused = weights("pull", str(folder), "--repo", REPO, endpoint=hub.address)
    assert refused.returncode == 1
    assert "which would be read in its place" in refused.stderr


@pytest.fixture
def as_tag(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, where it holds what open_clip lists as ViT-B-16-SigLIP:webli."""
    row = find_pretrained("ViT-B-16-SigLIP")
    monkeypatch.setattr(download, "find_pretrained", lambda name: replace(row, hub=f"{REPO}/"))
    hub.first = WEIGHTS
    hub.others = {
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b'{"tokenizer_class": "T5Tokenizer"}',
        "vocab.txt": b"of no use beside tokenizer.json",
        CONFIG: b"the repository's own, which names no preprocessing",
    }
    return hub


def test_a_tag_comes_with_its_own_preprocessing_and_the_tokenizers_files(as_tag: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    pulled = weights("pull", "ViT-B-16-SigLIP:webli", str(folder), endpoint=as_tag.address)
    assert pulled.returncode == 0, pulled.stderr
    assert "ViT-B-16-SigLIP:webli, licence apache-2.0; squash bicubic, mean 0.5, 0.5, 0.5" in pulled.stdout
    assert as_tag.fetched == ["tokenizer.json", "tokenizer_config.json", WEIGHTS]
    assert sorted(path.name for path in folder.iterdir()) == [
        CONFIG,
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    written = json.loads((folder / CONFIG).read_text())
    assert written["model_cfg"] == architecture_config("ViT-B-16-SigLIP")
    assert written["preprocess_cfg"] == {
        "size": 224,
        "mode": "RGB",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
        "resize_mode": "squash",
        "fill_color": 0,
    }
    assert weights("pull", "ViT-B-16-SigLIP", str(folder), endpoint=as_tag.address).returncode == 0
    assert len(as_tag.fetched) == 3


def test_a_tokenizer_of_another_repository(as_tag: Hub, tmp_path: Path) -> None:
    as_tag.others = {"timm/ViT-B-16-SigLIP:spiece.model": b"pieces"}
    pulled = weights("pull", "ViT-B-16-SigLIP", str(tmp_path), endpoint=as_tag.address)
    assert pulled.returncode == 0, pulled.stderr
    assert (tmp_path / "spiece.model").read_bytes() == b"pieces"
    as_tag.others = {}
    refused = weights("pull", "ViT-B-16-SigLIP", str(tmp_path / "other"), endpoint=as_tag.address)
    assert refused.returncode == 1
    assert "holds a tokenizer" in refused.stderr


def test_a_damaged_small_file_is_not_kept(as_tag: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_hub_digest", lambda path, like: "0" * len(like))
    refused = weights("pull", "ViT-B-16-SigLIP", str(tmp_path), endpoint=as_tag.address)
    assert refused.returncode == 1
    assert "sent as tokenizer.json has the digest git:0000" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pull_that_fails_leaves_the_configuration_of_the_weights_there(as_tag: Hub, tmp_path: Path) -> None:
    as_tag.digest = "0" * 64
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes(b"what was there before")
    refused = weights("pull", "ViT-B-16-SigLIP", str(tmp_path), endpoint=as_tag.address)
    assert refused.returncode == 1
    assert {(tmp_path / name).read_bytes() for name in (CONFIG, WEIGHTS)} == {b"what was there before"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ViT-B-33", "d"], 1, "did you mean `ViT-B-32`?"),
        (["ViT-B-16", "d"], 1, "has several weights; name one of openai, laion400m_e31"),
        (["ViT-B-32:laion5b", "d"], 1, "has no weights 'laion5b'; name one of openai"),
        (["ViT-B-32", "d", "--repo", REPO], 2, "exclude each other"),
        (["a", "b", "c"], 2, "at most NAME[:TAG] and DIR"),
    ],
)
def test_what_is_no_weights_of_open_clips_is_refused_with_what_there_is(
    arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    refused = run_command("weights", "pull", *arguments, folder=tmp_path)
    assert (refused.returncode, "Traceback" in refused.stderr) == (code, False)
    assert words in " ".join(refused.stderr.split())
    assert not (tmp_path / "d").exists()


def test_weights_that_the_hub_names_no_digest_of_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.digest = "1" * 40
    pulled = weights("pull", str(tmp_path / "weights"), "--repo", REPO, endpoint=hub.address)
    assert pulled.returncode == 1
    assert "names no SHA-256" in pulled.stderr
    assert hub.fetched == []


def test_a_folder_that_cannot_be_written_to_is_not_the_hubs_fault(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pulled = weights("pull", str(tmp_path / "file" / "weights"), "--repo", REPO, endpoint=hub.address)
    assert pulled.returncode == 1
    assert "cannot be written to" in pulled.stderr
    assert "hub" not in pulled.stderr


def test_weights_of_another_digest_are_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.digest = "0" * 64
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in (CONFIG, WEIGHTS):
        (folder / name).write_bytes(b"what was there before")
    pulled = weights("pull", str(folder), "--repo", REPO, endpoint=hub.address)
    assert pulled.returncode == 1
    assert f"sha256:{DIGEST}" in pulled.stderr
    assert {(folder / name).read_bytes() for name in (CONFIG, WEIGHTS)} == {b"what was there before"}
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]


def test_a_hub_that_cannot_be_reached_or_has_no_such_model(hub: Hub, tmp_path: Path) -> None:
    folder = str(tmp_path / "weights")
    for endpoint, repo, words in (
        ("http://127.0.0.1:1", REPO, "could not be reached"),
        (hub.address, "someone/else", "not an open_clip model"),
    ):
        pulled = weights("pull", folder, "--repo", repo, endpoint=endpoint)
        assert (pulled.returncode, "Traceback" in pulled.stderr) == (1, False), pulled.stderr
        assert words in pulled.stderr


def test_a_folder_without_weights(tmp_path: Path) -> None:
    checked = weights("check", str(tmp_path), endpoint="http://127.0.0.1:1")
    assert (checked.returncode, "weights pull" in checked.stderr) == (1, True)


@pytest.mark.hub
@pytest.mark.skipif("MASKSCORE_TEST_HUB" not in os.environ, reason="MASKSCORE_TEST_HUB=1 fetches from the hub")
def test_the_real_weights(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    run = [sys.executable, "-m", "maskscore", "weights"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MASKSCORE_")}
    subprocess.run([*run, "pull", str(folder)], check=True, env=clean)
    shown = subprocess.run([*run, "check", str(folder)], check=True, env=clean, capture_output=True, text=True)
    assert "ViT-B-32" in shown.stdout
