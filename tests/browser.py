"""A headless Chromium that shows a page at a width: what overflows, what the console says, and how it looks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

__all__ = ["CHROMIUM", "Browser", "Look", "browser"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((found for name in _NAMES if (found := shutil.which(name))), None)
"""Where a Chromium is; ``None`` where there is none, and tests that need it are skipped."""

_FLAGS = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]
_START_S = 60

# Elements that stick out to the right, unless something between them and the page scrolls or cuts them off.
_STICKING_OUT = """
(() => {
  const cut = (one) => {
    for (let up = one.parentElement; up && up !== document.body; up = up.parentElement)
      if (getComputedStyle(up).overflowX !== "visible") return true;
    return false;
  };
  const right = (one) => Math.round(one.getBoundingClientRect().right);
  return [...document.body.querySelectorAll("*")]
    .filter((one) => right(one) > document.documentElement.clientWidth + 1 && !cut(one)).slice(0, 5)
    .map((one) => `${one.tagName}.${one.getAttribute("class") ?? ""}: ${right(one)}`);
})()
"""


@dataclass(frozen=True, slots=True)
class Look:
    """A page as it was shown; lengths in CSS pixels."""

    width: int
    scroll_width: int
    sticking_out: list[str]
    complaints: list[str]


@dataclass
class Browser:
    """One tab."""

    socket: ClientConnection
    _number: int = 0
    _events: list[dict[str, Any]] = field(default_factory=list)

    def look(self, path: Path, width: int, *, height: int = 900, dark: bool = False, fragment: str = "") -> Look:
        """Load a file and return what is to be seen of it."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.command("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        # Between them, so that a page that is looked at again with another fragment is loaded again.
        self._load("about:blank")
        self._events.clear()
        self._load(path.absolute().as_uri() + fragment)
        scroll_width, sticking_out = self.evaluate("document.documentElement.scrollWidth"), self.evaluate(_STICKING_OUT)
        return Look(width, scroll_width, sticking_out, list(map(_said, filter(_is_complaint, self._events))))

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol and return its answer."""
        self._number += 1
        self.socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") != self._number:
                self._events.append(message)
                continue
            assert "error" not in message, message
            result: dict[str, Any] = message["result"]
            return result

    def _load(self, url: str) -> None:
        load = self.command("Page.navigate", url=url)["loaderId"]
        while not any(_is_end_of(load, message) for message in self._events):
            self._events.append(json.loads(self.socket.recv(timeout=60)))


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a Chromium with a profile of its own, and stop it in the end."""
    assert CHROMIUM is not None
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *_FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_page_address(Path(profile), process), max_size=None) as socket:
                tab = Browser(socket)
                for domain in ("Page", "Runtime", "Log"):
                    tab.command(f"{domain}.enable")
                tab.command("Page.setLifecycleEventsEnabled", enabled=True)
                yield tab
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _page_address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the WebSocket address of a new tab, from the file in which Chromium says its port."""
    told = profile / "DevToolsActivePort"
    deadline = time.monotonic() + _START_S
    while True:
        lines = told.read_text().split() if told.exists() else []
        if len(lines) == 2:
            break
        assert process.poll() is None, f"Chromium ended by itself with code {process.returncode}"
        assert time.monotonic() < deadline, "Chromium did not start"
        time.sleep(0.05)
    port, path = lines
    with connect(f"ws://127.0.0.1:{port}{path}") as whole:
        tab = Browser(whole).command("Target.createTarget", url="about:blank")
    return f"ws://127.0.0.1:{port}/devtools/page/{tab['targetId']}"


def _is_end_of(load: str, message: dict[str, Any]) -> bool:
    about = message.get("params", {})
    return message.get("method") == "Page.lifecycleEvent" and about["name"] == "load" and about["loaderId"] == load


def _is_complaint(message: dict[str, Any]) -> bool:
    method, about = message.get("method"), message.get("params", {})
    if method == "Log.entryAdded":
        return about["entry"]["level"] in ("warning", "error")
    if method == "Runtime.consoleAPICalled":
        return about["type"] in ("warning", "error", "assert")
    return method == "Runtime.exceptionThrown"


def _said(message: dict[str, Any]) -> str:
    return json.dumps(message["params"])[:2000]
