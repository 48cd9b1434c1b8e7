"""Control a headless Chromium over its DevTools protocol, through a pipe, so that no library or network port is needed."""

import base64
import fcntl
import json
import os
import select
import shutil
import time
from pathlib import Path
from typing import Any

COMMANDS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--remote-debugging-pipe",
    "--hide-scrollbars",
    "--no-first-run",
)
QUIET = (
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
)
LIMIT = 300.0  # seconds to wait for an answer


def installed() -> str | None:
    """The path of Chromium or Chrome; None if neither is installed."""
    return next((path for name in COMMANDS if (path := shutil.which(name))), None)


class Browser:
    """One browser process with a single page. `errors` lists everything that the page wrote to the console, and its exceptions."""

    def __init__(self, command: str, profile: Path) -> None:
        read_here, write_there = map(_above_standard, os.pipe())
        read_there, write_here = map(_above_standard, os.pipe())
        words = [command, *FLAGS, *QUIET, f"--user-data-dir={profile}", "about:blank"]
        # The browser reads from descriptor 3 and writes to descriptor 4.
        actions = [(os.POSIX_SPAWN_DUP2, read_there, 3), (os.POSIX_SPAWN_DUP2, write_there, 4)]
        actions += [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]  # type: ignore[misc]
        self._process = os.posix_spawn(command, words, os.environ, file_actions=actions)
        os.close(read_there)
        os.close(write_there)
        self._read, self._write = read_here, write_here
        self._buffer, self._number, self._session = b"", 0, ""
        self.errors: list[str] = []
        target = next(target for target in self("Target.getTargets")["targetInfos"] if target["type"] == "page")
        self._session = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + LIMIT
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], max(end - time.monotonic(), 0))[0], "the browser does not answer"
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "the browser has ended"
            self._buffer += chunk
        content, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(content)
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.consoleAPICalled":
            self.errors.append(" ".join(str(argument.get("value")) for argument in parameters["args"]))
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded":
            self.errors.append(parameters["entry"]["text"])
        self._loaded = self._loaded or message.get("method") == "Page.loadEventFired"
        return dict(message)

    _loaded = False

    def open(self, path: Path, width: int = 900, height: int = 900, dark: bool = False, scripts: bool = True) -> None:
        """Load a file at this window size, and wait until it is loaded."""
        self.errors.clear()
        self("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.resize(width, height, dark)
        self._loaded = False
        self("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._next()

    def resize(self, width: int, height: int = 900, dark: bool = False, media: str = "") -> None:
        """Change the size of the window, the color scheme, and the medium ("print" or "")."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, as JSON. Waits for a promise."""
        result = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def settle(self) -> None:
        """Wait until the page has been laid out twice, so that observers of sizes have run."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def point(self, x: float, y: float, click: bool = False) -> None:
        """Move the pointer to a point of the window, and click there."""
        self("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press and release a key, such as "Tab" or "ArrowRight"."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        parameters = {"key": key, "windowsVirtualKeyCode": codes[key]}
        text = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        self("Input.dispatchKeyEvent", type="keyDown", **parameters, **text)
        self("Input.dispatchKeyEvent", type="keyUp", **parameters)

    def screenshot(self, path: Path, entire: bool = False) -> None:
        """Save the window, or the entire page, as a PNG file."""
        content = self("Page.captureScreenshot", format="png", captureBeyondViewport=entire)
        path.write_bytes(base64.b64decode(content["data"]))

    def close(self) -> None:
        """End the browser."""
        os.close(self._write)
        os.close(self._read)
        os.waitpid(self._process, 0)


def _above_standard(descriptor: int) -> int:
    """A copy of a descriptor with a number that the browser does not use; the original is closed."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return copy
