"""A headless Chromium, spoken to by its DevTools protocol over a pipe."""

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
_COMPLAINTS = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}


@dataclass
class Tab:
    """One page, as wide as asked.

    Attributes:
        complaints: what the page put on its console, errors and broken policies included.
    """

    _to: int
    _replies: Iterator[dict[str, Any]]
    _session: str | None = None
    _calls: int = 0
    _seen: list[str] = field(default_factory=list)
    complaints: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for what it returns."""
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        for reply in self._replies:
            self._note(reply)
            if reply.get("id") == self._calls:
                assert "error" not in reply, reply
                result: dict[str, Any] = reply["result"]
                return result
        raise AssertionError("the browser has gone")

    def attach(self) -> None:
        """Open the tab itself."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Make the screen a phone's, or a desktop's."""
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
        """Load a file, to its last picture."""
        self._seen.clear()
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._seen:
            self._note(next(self._replies))

    def run(self, script: str) -> Any:
        """Return what a script says in the page; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until a condition holds in the page: what a page does by itself has no set time."""
        polling = f"""(async () => {{
            const end = performance.now() + {seconds * 1000};
            while (!({condition})) {{
                if (performance.now() > end) return false;
                await new Promise(done => setTimeout(done, 10));
            }}
            return true;
        }})()"""
        assert self.run(polling), f"after {seconds} s it does not hold that {condition}"

    def screenshot(self, *, whole: bool = False) -> bytes:
        """Return a picture of what is in sight, or of the whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def _note(self, message: Mapping[str, Any]) -> None:
        method = message.get("method", "")
        self._seen.append(method)
        if method in _COMPLAINTS:
            self.complaints.append(message["params"])


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Start Chromium with its profile in `folder`, and end it.

    It reads its orders from file descriptor 3 and answers on 4.
    """
    theirs_in, to = os.pipe()
    back, theirs_out = os.pipe()
    process = os.posix_spawn(
        str(CHROMIUM),
        [str(CHROMIUM), *_FLAGS, f"--user-data-dir={folder / 'browser'}"],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 2, str(folder / "browser.log"), os.O_WRONLY | os.O_CREAT, 0o600),
            (os.POSIX_SPAWN_DUP2, theirs_in, 3),
            (os.POSIX_SPAWN_DUP2, theirs_out, 4),
        ],
        setpgroup=0,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        tab = Tab(to, _messages(back))
        tab.attach()
        yield tab
    finally:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(to)
        os.close(back)


def _messages(pipe: int) -> Iterator[dict[str, Any]]:
    rest = b""
    while data := os.read(pipe, 1 << 16):
        *whole, rest = (rest + data).split(b"\0")
        yield from map(json.loads, whole)
