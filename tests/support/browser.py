"""A headless Chromium under the DevTools protocol, over a pair of pipes: no driver, no port, no library.

with Browser() as browser:
    page = browser.open("http://127.0.0.1:8000/docs")
    page.wait_for("document.querySelector('h1').textContent.includes('API')")
"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE_S = 30.0

OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-proxy-server",
)

_LAUNCH = """
import fcntl, os, sys
high = [fcntl.fcntl(int(text), fcntl.F_DUPFD, 10) for text in sys.argv[1:3]]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The protocol's pipes are descriptors 3 and 4, which are others' in a process that has just been forked."""


def find_browser() -> str | None:
    """Path of a Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One process, with a profile of its own that goes with it."""

    def __init__(self) -> None:
        program = find_browser()
        assert program is not None, "a Chromium is wanted"
        self._profile = tempfile.mkdtemp(prefix="ie-browser-")
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _LAUNCH, str(commands), str(answers), program, *OPTIONS),
                *(f"--user-data-dir={self._profile}", "about:blank"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(commands, answers),
        )
        os.close(commands)
        os.close(answers)
        self._received = b""
        self._last_id = 0
        self.events: list[dict[str, Any]] = []
        """Everything that the browser has reported without being asked."""

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.command("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._profile, ignore_errors=True)

    def command(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """The result of a command. Raises AssertionError for one that fails."""
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._last_id:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the browser did not answer within {PATIENCE_S:g} s"
            piece = os.read(self._from, 1 << 16)
            assert piece, "the browser has ended"
            self._received += piece
        text, _, self._received = self._received.partition(b"\0")
        document: dict[str, Any] = json.loads(text)
        return document

    def open(self, url: str) -> "Page":
        """A page of its own; it may still be loading."""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Runtime", "Network", "Log", "Page"):
            page.command(f"{domain}.enable")
        page.command("Page.navigate", url=url)
        return page


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def command(self, method: str, **parameters: Any) -> Any:
        """Of this tab."""
        return self._browser.command(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression. Raises AssertionError for an exception."""
        answer = self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, patience_s: float = 15.0) -> Any:
        """Until an expression has a true value, which is returned."""
        deadline = time.monotonic() + patience_s
        while True:
            value = self.evaluate(
                f"(() => {{ try {{ return {expression}; }} catch (error) {{ return null; }} }})()"
            )
            if value:
                return value
            assert time.monotonic() < deadline, (
                f"in vain: {expression}\n{self.evaluate('document.body.innerText')}"
            )
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """What the console has of errors and of violated policies, and exceptions that nobody has caught."""
        self.evaluate("0")
        found = []
        for event in self._browser.events:
            if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"])
            elif event.get("method") == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
        return found

    def requested(self) -> list[str]:
        """Addresses that were asked for."""
        self.evaluate("0")
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
