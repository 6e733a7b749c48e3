"""Sends the messages that the agent stored, as a process of its own: ``python -P -m edge.agent.outbox ROOT``.

At least once: a message counts as sent when somebody has taken it, and is tried again until then, with growing pauses,
for months if need be. Holds no lock while it waits for a network. Never makes a message and never drops one.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edge.agent import config
from edge.agent.channels import AlertError, send
from edge.agent.config_upkeep import Alert
from edge.agent.routes import ways_out
from edge.agent.service import Notifier
from edge.errors import ConfigError, FieldmarkError, LogError, one_line
from edge.log import store
from edge.log.store import Log, PendingAlert

FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 3600.0
POLL_S = 10.0
_MOST_AT_ONCE = 1000
_JUMP_S = 60.0
_FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sent:
    """What one round did; ``left``: how many messages are due or wait for another try."""

    sent: int
    failed: int
    left: int


def pause_s(tries: int, chance: float) -> float:
    """How long to wait after a number of failures: 30 s, doubled each time, at most an hour, with some chance in it so
    that devices that lost the same network do not come back in step.

    Args:
        tries: at least 1.
        chance: 0 to 1.
    """
    return float(min(FIRST_PAUSE_S * 2.0 ** min(tries - 1, 20), LONGEST_PAUSE_S) * (0.8 + 0.4 * chance))


class Outbox:
    """Sends what is due, round by round."""

    def __init__(
        self,
        path: Path,
        alerts: Sequence[Alert],
        *,
        send: Callable[[Alert, str, str], None] = send,
        say: Callable[[str], None] = lambda line: None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        ways_out: Callable[[], frozenset[tuple[str, str]]] = ways_out,
    ) -> None:
        """Set up; nothing is opened yet.

        Args:
            path: the log.
            alerts: of the settings.
            send, monotonic, wall, chance, ways_out: replaced in tests.
            say: told of each message that was sent, and of each failure.
        """
        self._path, self._say, self._send = path, say, send
        self._alerts = {alert.rule.name: alert for alert in alerts}
        self._monotonic, self._wall, self._chance, self._ways_out = monotonic, wall, chance, ways_out
        self._paused: dict[str, tuple[float, int]] = {}  # channel: until when, after how many failures in a row
        self._offset_s: float | None = None
        self._ways: frozenset[tuple[str, str]] = ways_out()

    def round(self, stop: Callable[[], bool] = lambda: False, progress: Callable[[], None] = lambda: None) -> Sent:
        """Send what is due.

        Args:
            stop: asked before each message.
            progress: told after each message.

        Raises:
            LogError: the log cannot be read or written. A message may be sent again then.
        """
        # Opened each time: the agent may have set a damaged log aside and begun another. And first to read, so that
        # nothing is written where nothing is to be sent.
        if not self._path.is_file() or not _unsent(self._path):
            return Sent(0, 0, 0)
        sent = failed = 0
        if self._network_came():
            self._paused.clear()
            self._offset_s = None
        with store.open_for_writing(self._path) as log:
            resting = [channel for channel in self._paused if self._is_paused(channel)]
            due = log.pending_alerts(self._due(), _MOST_AT_ONCE, but=resting)
            for message in sorted(due, key=lambda each: each.id):  # as they came in, whichever was tried before
                if stop():
                    break
                if self._is_paused(message.channel):
                    continue
                if self._try(log, message):
                    sent += 1
                else:
                    failed += 1
                progress()
        return Sent(sent, failed, _unsent(self._path))

    def _due(self) -> datetime:
        """Up to when messages are taken. All of them at the start, when a network came, and after the clock was set:
        the times of the next tries were told by another clock."""
        offset_s = self._wall() - self._monotonic()
        jumped = self._offset_s is None or abs(offset_s - self._offset_s) > _JUMP_S
        self._offset_s = offset_s
        return _FOREVER if jumped else datetime.fromtimestamp(self._wall(), UTC)

    def _network_came(self) -> bool:
        """Whether there is a way out that was not there before. That it leads somewhere, the next try shows."""
        before, self._ways = self._ways, self._ways_out()
        return not self._ways <= before

    def _is_paused(self, channel: str) -> bool:
        until_s, _ = self._paused.get(channel, (0.0, 0))
        return self._monotonic() < until_s

    def _try(self, log: Log, message: PendingAlert) -> bool:
        alert = self._alerts.get(message.channel)
        try:
            if alert is None:
                raise AlertError(f"no [[alert]] of the settings is called {message.channel!r}.")
            self._send(alert, message.key, message.text)
        except (AlertError, ConfigError) as error:
            self._failed(log, message, error)
            return False
        log.alert_sent(message.id)
        self._paused.pop(message.channel, None)
        self._say(f"sent by {message.channel}: {message.key}")
        return True

    def _failed(self, log: Log, message: PendingAlert, error: FieldmarkError) -> None:
        again_s = pause_s(message.tries + 1, self._chance())
        next_try = datetime.fromtimestamp(self._wall(), UTC) + timedelta(seconds=again_s)
        log.alert_failed(message.id, str(error), next_try)
        self._say(f"not sent by {message.channel}: {error} Try {message.tries + 1}; again in {again_s:.0f} s.")
        if error.code != "refused":  # the others of this channel would wait for the same network
            _, failures = self._paused.get(message.channel, (0.0, 0))
            until_s = self._monotonic() + pause_s(failures + 1, self._chance())
            self._paused[message.channel] = (until_s, failures + 1)


def newest(log: sqlite3.Connection, most: int) -> list[dict[str, Any]]:
    """The newest messages, for people and scripts, the oldest of them first."""
    cursor = log.execute(
        "SELECT key, channel, text, created_utc, tries, next_try_utc, sent_utc, last_error FROM alert"
        " ORDER BY id DESC LIMIT ?",
        (most,),
    )
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()][::-1]


def _unsent(path: Path) -> int:
    with closing(store.open_for_reading(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM alert WHERE sent_utc IS NULL").fetchone()[0])


def run(
    root: Path,
    *,
    once: bool = False,
    say: Callable[[str], None],
    log: Path | None = None,
    notifier: Notifier | None = None,
) -> Sent:
    """Send until SIGTERM or SIGINT, or with ``once`` what is due now.

    Args:
        root: the device root, whose settings say where messages go.
        say: told of each message.
        log: the log, where it is not the device's own.

    Returns:
        What was done in all.

    Raises:
        ConfigError: the settings are wrong, or have no [[alert]].
        LogError: the log cannot be read or written, with ``once``; else it is tried again.
    """
    alerts = config.load(root).upkeep.alerts
    if not alerts:
        raise ConfigError(f"{root / config.FILE}: there is no [[alert]], so nothing is to be sent.", code="no alerts")
    outbox, teller = Outbox(log or store.path_below(root), alerts, say=say), notifier or Notifier.from_environment()
    sent = failed = 0
    with _until_stopped() as (stopped, wait):
        teller.ready("waiting for messages")
        while True:
            done = _round(outbox, stopped, teller, say, once=once)
            sent, failed = sent + done.sent, failed + done.failed
            teller.progress(f"{done.left} messages wait" if done.left else "waiting for messages")
            if once or stopped():
                break
            wait(POLL_S)
        teller.stopping()
    return Sent(sent, failed, done.left)


def _round(
    outbox: Outbox, stopped: Callable[[], bool], teller: Notifier, say: Callable[[str], None], *, once: bool
) -> Sent:
    try:
        return outbox.round(stopped, teller.progress)
    except LogError as error:
        if once:
            raise
        say(str(error))  # a full disk, or an agent that is just bringing the log up to date
        return Sent(0, 0, 0)


@contextmanager
def _until_stopped() -> Iterator[tuple[Callable[[], bool], Callable[[float], None]]]:
    """Whether SIGTERM or SIGINT came, and a wait that they end."""
    wanted: list[int] = []
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        kinds = (signal.SIGTERM, signal.SIGINT)
        before = {kind: signal.signal(kind, lambda number, frame: wanted.append(number)) for kind in kinds}
        wake = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield lambda: bool(wanted), lambda seconds: _wait(reader, seconds)
        finally:
            signal.set_wakeup_fd(wake)
            for kind in kinds:
                signal.signal(kind, before[kind])


def _wait(reader: socket.socket, seconds: float) -> None:
    ready, _, _ = select.select([reader], [], [], seconds)
    if ready:
        reader.recv(64)


def main(arguments: list[str]) -> int:
    """The process. The one place in it where an exception ends as a line and a code."""

    def say(line: str) -> None:
        sys.stderr.write(one_line(line) + "\n")
        sys.stderr.flush()

    try:
        run(Path(arguments[0]), say=say)
    except ConfigError as error:
        say(f"fieldmark: {error}")
        if error.code != "no alerts":
            return 1
        Notifier.from_environment().ready("there is nothing to send")  # else systemd takes this end for a failure
        return 0
    except FieldmarkError as error:
        say(f"fieldmark: {error}")
        return 1
    return 0


if __name__ == "__main__":
    of = os.path.abspath(*sys.argv[1:2] or ["/"])
    os.chdir("/")  # a folder that a process stands in cannot be unmounted
    sys.exit(main([of]))
