"""What the agent tells of itself: to systemd, that it makes progress; to everybody, a small status file.

The watchdog is fed by progress (a photo done, a folder searched, a wait ended) and by nothing else, so that an agent
that hangs in a decoder is started again. Never reads the log, and never ends the agent: what cannot be told is not.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge.agent import health

EVERY_S = 5.0
"""The status file is written at most so often."""
STALE_AFTER_S = 180.0
"""An agent that lives says something more often than this: the watchdog's limit in the unit is the same."""
MOST_IDLE_S = 45.0
"""So long an agent may wait for photos before it must report progress."""
_MOST_BYTES = 2**20
_MOST_STATUS = 200
_MOST_SINCE_BOOT_S = 1e12


class Notifier:
    """Speaks systemd's notification protocol (``sd_notify(3)``), where there is a systemd."""

    def __init__(
        self,
        address: str | None = None,
        watchdog_s: float | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up.

        Args:
            address: of a Unix datagram socket: a path, or ``@name`` for an abstract one. Nobody is told if None.
            watchdog_s: how long systemd waits for progress; None if it does not.
        """
        self._address, self._watchdog_s, self._monotonic = address, watchdog_s, monotonic
        self._told_s = float("-inf")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """As systemd has set it up for this process."""
        address = environment.get("NOTIFY_SOCKET", "")
        watchdog_s = None
        if environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            with suppress(ValueError):
                watchdog_s = int(environment.get("WATCHDOG_USEC", "")) / 1e6
        return cls(address if address.startswith(("/", "@")) else None, watchdog_s or None)

    @property
    def heard(self) -> bool:
        """Whether there is a service manager at all."""
        return self._address is not None

    def ready(self, text: str = "") -> None:
        """The agent is at work."""
        self._tell("READY=1", *_status(text))

    def progress(self, text: str = "") -> None:
        """Something was done. Cheap: systemd is told at most four times in its limit."""
        now_s = self._monotonic()
        if self._watchdog_s is not None and now_s - self._told_s >= self._watchdog_s / 4:
            self._told_s = now_s
            self._tell("WATCHDOG=1", *_status(text))

    def stopping(self) -> None:
        """The agent ends as it was asked to."""
        self._tell("STOPPING=1")

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)  # a systemd that does not listen must not stop the photos
            out.sendto("\n".join(lines).encode("utf-8", "replace"), address)


def _status(text: str) -> list[str]:
    line = " ".join(text.split())[:_MOST_STATUS]
    return [f"STATUS={line}"] if line else []


class StatusFile:
    """The agent's state as JSON, replaced as a whole; on a file system in memory, so nothing is synced."""

    def __init__(
        self,
        path: Path,
        facts: Mapping[str, Any],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Set up; nothing is written yet.

        Args:
            facts: what stays the same: device, bundle, model, runtime, version.
            say: told once if the file cannot be written.
        """
        self._path, self._facts, self._monotonic, self._say = path, dict(facts), monotonic, say
        self._facts |= {"pid": os.getpid(), "boot_id": health.boot_id(), "started": _now()}
        self._written_s = float("-inf")
        self._failed = False

    @property
    def due(self) -> bool:
        """Whether the last one is old enough for another."""
        return self._monotonic() - self._written_s >= EVERY_S

    def write(self, state: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Write it now.

        Args:
            state: ``working``, ``waiting`` or ``ended``.
            values: counts and the like.

        Returns:
            What was written.
        """
        self._written_s = self._monotonic()
        whole = {"schema": 1, "state": state, "written": _now(), "since_boot_s": round(health.since_boot_s(), 1)}
        whole |= {**self._facts, **values}
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace_file(self._path, json.dumps(whole).encode())
        except OSError as error:
            if not self._failed:
                self._say(f"{self._path}: the status cannot be written: {error.strerror}.")
            self._failed = True
        return whole


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file as a whole, readable for all. Not synced: what it says is worth nothing after a power cut."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)  # whatever the unit's umask is
            file.write(data)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def read_status(path: Path) -> dict[str, Any] | None:
    """What an agent last told, with ``age_s`` and ``stale`` beside it; None where there is nothing to read.

    The age goes by the time since the machine started, since a clock may be set. What an earlier start of the machine
    left, or an agent that ended without a word, is stale.
    """
    try:
        # A named pipe in its place must not hang whoever asks.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            found = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("schema") != 1:
        return None
    age_s = _age_s(found.get("since_boot_s")) if found.get("boot_id") == health.boot_id() else None
    stale = found.get("state") != "ended" and (age_s is None or age_s > STALE_AFTER_S or not _lives(found.get("pid")))
    return {**found, "age_s": None if age_s is None else max(0.0, round(age_s, 1)), "stale": stale}


def _age_s(told_s: object) -> float | None:
    """How long ago it was so many seconds after the start of the machine; None for what is no such time."""
    if not isinstance(told_s, int | float) or not abs(told_s) < _MOST_SINCE_BOOT_S:
        return None
    return health.since_boot_s() - told_s


def _lives(pid: object) -> bool:
    """Whether there is such a process, whoever's it is."""
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
