"""A headless Chromium, controlled through its DevTools protocol over a websocket."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import websocket

from tests.system.pipeline import until

START_S = 20.0
TICK_S = 0.02
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--window-size=1440,1000",
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The browser's executable: in the ``bin`` of the virtual environment, or on the ``PATH``."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return next((found for name in NAMES if (found := shutil.which(name, path=path))), None)


class Browser:
    """One browser with one page."""

    def __init__(self, executable: str, directory: Path) -> None:
        self._ids = itertools.count(1)
        self._log = (directory / "chromium.log").open("w")
        self.problems: list[str] = []
        """Errors and warnings of the console, and uncaught exceptions."""
        profile = directory / "profile"
        self.process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "HOME": str(directory)},
        )
        port = self._wait_for_port(profile / "DevToolsActivePort")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
            pages = [page for page in json.load(answer) if page["type"] == "page"]
        self._socket = websocket.create_connection(
            pages[0]["webSocketDebuggerUrl"], timeout=START_S, suppress_origin=True
        )
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _wait_for_port(self, path: Path) -> int:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if path.exists() and (lines := path.read_text().splitlines()):
                return int(lines[0])
            time.sleep(TICK_S)
        raise AssertionError(f"chromium did not start: see {self._log.name}")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its response; handle events meanwhile."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])
            self._on_event(message)

    def _on_event(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                text = details.get("exception", {}).get("description") or details["text"]
                self.problems.append(f"exception: {text}")
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                words = [str(word.get("value", word)) for word in parameters["args"]]
                self.problems.append(f"console.{parameters['type']}: {' '.join(words)}")
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                entry = parameters["entry"]
                self.problems.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")

    # -- actions of a user -----------------------------------------------------------------------

    def open(self, url: str) -> None:
        """Open an address and wait for the document."""
        self.call("Page.navigate", url=url)
        origin = url.split("#")[0].rstrip("/")
        self.until(f"location.href.startsWith('{origin}') && document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, timeout_s: float = 10.0) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        return wait(lambda: self.evaluate(expression), expression, timeout_s)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        fields = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **fields)
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def resize(self, width: int, height: int, *, scale: float = 1.0, phone: bool = False) -> None:
        """Set the size of the page; ``phone`` emulates a mobile device."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=phone,
        )

    def prefer(self, scheme: str) -> None:
        """Set the preferred colour scheme: ``light`` or ``dark``."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path) -> None:
        """Write the visible page as a PNG file."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(data["data"]))

    def close(self) -> None:
        """Stop the browser."""
        try:
            self.call("Browser.close")
            self.process.wait(5)
        except (OSError, AssertionError, websocket.WebSocketException, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self._log.close()


def wait(condition: Callable[[], Any], what: str, timeout_s: float = 10.0) -> Any:
    """Wait until a condition is true, and return its value."""
    return until(condition, what, timeout_s)
