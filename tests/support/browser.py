"""Headless Chromium, controlled over the DevTools protocol."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

BINARIES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
START_SECONDS = 60.0
WAIT_SECONDS = 20.0


class Browser:
    """One tab of a browser.

    Attributes:
        logged_errors: Errors and blocked loads that the page has logged since it was opened.
    """

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.sent = 0
        self.logged_errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a command of the protocol; record the events of the page that arrive before its result."""
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": params}))
        while (message := json.loads(self.socket.recv(timeout=WAIT_SECONDS))).get("id") != self.sent:
            self._record(message)
        assert "error" not in message, message["error"]
        result: dict[str, Any] = message["result"]
        return result

    def _record(self, message: dict[str, Any]) -> None:
        match message["method"]:
            case "Log.entryAdded":
                self.logged_errors.append(message["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.logged_errors.append(json.dumps(message["params"]["exceptionDetails"]))

    def open(self, url: str, *, width: int = 1400, height: int = 900, dark: bool = False) -> Self:
        """Open a page and wait until it has loaded."""
        self.logged_errors = []
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")
        return self

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, script: str, *, navigates: bool = False) -> None:
        """Wait until an expression is true.

        Args:
            script: Expression.
            navigates: Whether the page is being replaced, so that the expression may fail meanwhile.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._is_true(script, navigates=navigates):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.02)

    def _is_true(self, script: str, *, navigates: bool) -> bool:
        try:
            return bool(self.run(script))
        except AssertionError:
            if not navigates:
                raise
            return False

    def text(self, selector: str) -> str:
        """Read the visible text of an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def fill(self, selector: str, value: str) -> None:
        """Set the value of a control, with the event that typing causes."""
        put = "(input, value) => { input.value = value; input.dispatchEvent(new Event('input', {bubbles: true})); }"
        self.run(f"({put})(document.querySelector({json.dumps(selector)}), {json.dumps(value)})")

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, text: str) -> None:
        """Replace the value of a control by typing a text."""
        self.run(f"(input => {{ input.focus(); input.select(); }})(document.querySelector({json.dumps(selector)}))")
        for character in text:
            self.call("Input.dispatchKeyEvent", type="char", text=character)


@contextmanager
def start_browser(profile: Path) -> Iterator[Browser]:
    """Start a browser with one tab; skip the test without one."""
    client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    binary = next(filter(None, map(shutil.which, BINARIES)), None)
    if binary is None:
        pytest.skip(f"there is no browser: none of {', '.join(BINARIES)}")
    command = [binary, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with (profile / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with client.connect(devtools_url(profile, process), max_size=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS)


def devtools_url(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait for the DevTools address of the tab."""
    port = profile / "DevToolsActivePort"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if port.exists() and (lines := port.read_text().splitlines()):
            targets = httpx.get(f"http://127.0.0.1:{lines[0]}/json/list", timeout=WAIT_SECONDS).json()
            if tabs := [target for target in targets if target["type"] == "page"]:
                return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    pytest.fail(f"{process.args} did not start:\n{(profile / 'log').read_text(errors='replace')[-2000:]}")
