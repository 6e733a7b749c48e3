"""A real headless browser, driven through its debugging pipe: opens a page, presses keys, reads what is shown."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests import capabilities

LONG_S = 60.0
_PLUG = """
import fcntl, os, sys
high = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for place, end in zip((3, 4), high):
    os.dup2(end, place)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """One browser with one page. ``with Chromium(folder) as browser``."""

    def __init__(self, profile: Path) -> None:
        # The browser reads its commands from descriptor 3 and answers on 4.
        commands_end, self._commands = os.pipe()
        self._answers, answers_end = os.pipe()
        command = capabilities.browser_command("--remote-debugging-pipe", "about:blank", profile=profile)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PLUG, str(commands_end), str(answers_end), *command],
            pass_fds=(commands_end, answers_end),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_end)
        os.close(answers_end)
        self._buffer, self._number, self._session = b"", 0, ""

    def __enter__(self) -> Chromium:
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._commands)  # the browser ends when its pipe does
        self._process.wait(LONG_S)
        os.close(self._answers)

    def open(self, url: str) -> None:
        """Load a page, its script and its pictures."""
        self._send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def press(self, key: str) -> None:
        """Press and release a key that writes a character, or Enter."""
        text = "\r" if key == "Enter" else key
        for kind in ("keyDown", "keyUp"):
            code = 13 if key == "Enter" else ord(key.upper())
            self._send("Input.dispatchKeyEvent", type=kind, key=key, text=text, windowsVirtualKeyCode=code)

    def value(self, expression: str) -> Any:
        """What an expression gives in the page."""
        found = self._send("Runtime.evaluate", expression=expression, returnByValue=True)["result"]
        return found.get("value")

    def until(self, expression: str) -> None:
        """Return as soon as an expression is true in the page."""
        end_s = time.monotonic() + LONG_S
        while not self.value(expression):
            assert time.monotonic() < end_s, f"still not true: {expression}"
            time.sleep(0.02)  # the page tells nobody

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], LONG_S)
            assert ready, "the browser does not answer"
            chunk = os.read(self._answers, 65536)
            assert chunk, "the browser has ended"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))
