"""A headless Chromium, controlled by its DevTools protocol over a pipe."""

import base64
import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")

_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
_CONSOLE_EVENTS = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}


@dataclass
class Tab:
    """One page.

    Attributes:
        console: the messages on the page's console, including errors and policy violations.
    """

    _commands: int
    _replies: Iterator[dict[str, Any]]
    _session: str | None = None
    _calls: int = 0
    _events: list[str] = field(default_factory=list)
    console: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        for reply in self._replies:
            self._record(reply)
            if reply.get("id") == self._calls:
                assert "error" not in reply, reply
                result: dict[str, Any] = reply["result"]
                return result
        raise AssertionError("the browser has ended")

    def attach(self) -> None:
        """Open the tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the screen; narrow ones are phones."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: Path) -> None:
        """Load a file and wait until all its images are loaded."""
        self._events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._record(next(self._replies))

    def run(self, script: str) -> Any:
        """Return the value of a script run in the page; promises are awaited."""
        reply = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until a condition holds in the page."""
        polling = f"""(async () => {{
            const end = performance.now() + {seconds * 1000};
            while (!({condition})) {{
                if (performance.now() > end) return false;
                await new Promise(done => setTimeout(done, 10));
            }}
            return true;
        }})()"""
        assert self.run(polling), f"condition does not hold after {seconds} s: {condition}"

    def screenshot(self) -> bytes:
        """Return a PNG of the visible part of the page."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def _record(self, message: Mapping[str, Any]) -> None:
        method = message.get("method", "")
        self._events.append(method)
        if method in _CONSOLE_EVENTS:
            self.console.append(message["params"])


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Start Chromium with its profile in `folder`, and end it on exit.

    Chromium reads commands from file descriptor 3 and writes replies to 4.
    """
    chromium_in, commands = os.pipe()
    replies, chromium_out = os.pipe()
    process = os.posix_spawn(
        str(CHROMIUM),
        [str(CHROMIUM), *_FLAGS, f"--user-data-dir={folder / 'browser'}"],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 2, str(folder / "browser.log"), os.O_WRONLY | os.O_CREAT, 0o600),
            (os.POSIX_SPAWN_DUP2, chromium_in, 3),
            (os.POSIX_SPAWN_DUP2, chromium_out, 4),
        ],
        setpgroup=0,
    )
    os.close(chromium_in)
    os.close(chromium_out)
    try:
        tab = Tab(commands, _messages(replies))
        tab.attach()
        yield tab
    finally:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(commands)
        os.close(replies)


def _messages(pipe: int) -> Iterator[dict[str, Any]]:
    incomplete = b""
    while data := os.read(pipe, 1 << 16):
        *messages, incomplete = (incomplete + data).split(b"\0")
        yield from map(json.loads, messages)
