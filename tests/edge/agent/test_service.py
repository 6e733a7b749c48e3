from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edge.agent import health, service
from edge.agent.service import EVERY_S, STALE_AFTER_S, Notifier, StatusFile, read_status


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def listener() -> Iterator[tuple[str, socket.socket]]:
    """A real datagram socket in the abstract name space, as a container's systemd has."""
    name = f"@fieldmark-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("\0" + name[1:])
        end.setblocking(False)
        yield name, end


def told(end: socket.socket) -> list[str]:
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(end.recv(4096).decode())
    return found


# systemd


def test_systemd_hears_ready_progress_and_stopping(listener: tuple[str, socket.socket]) -> None:
    notifier = Notifier(listener[0], 180.0)
    notifier.ready("waiting\nfor photos")
    notifier.progress("at work")
    notifier.stopping()
    assert told(listener[1]) == ["READY=1\nSTATUS=waiting for photos", "WATCHDOG=1\nSTATUS=at work", "STOPPING=1"]


def test_socket_with_a_path_is_told_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.setblocking(False)
        Notifier(str(tmp_path / "notify")).ready()
        assert told(end) == ["READY=1"]


def test_watchdog_is_fed_by_progress_and_by_nothing_else(listener: tuple[str, socket.socket]) -> None:
    clock = Clock()
    notifier = Notifier(listener[0], 180.0, monotonic=clock)
    notifier.ready()
    told(listener[1])
    clock.now_s += 1000  # a decoder hangs
    assert told(listener[1]) == []
    notifier.progress()
    assert told(listener[1]) == ["WATCHDOG=1"]


def test_progress_tells_systemd_no_more_than_four_times_in_its_limit(listener: tuple[str, socket.socket]) -> None:
    clock = Clock()
    notifier = Notifier(listener[0], 180.0, monotonic=clock)
    for _ in range(1800):
        notifier.progress()
        clock.now_s += 0.1
    assert told(listener[1]) == ["WATCHDOG=1"] * 4


def test_idle_wait_and_status_file_are_well_within_the_units_watchdog() -> None:
    unit = Path(__file__).parents[3] / "deploy/systemd/fieldmark.service"
    [watchdog_s] = [int(line[12:]) for line in unit.read_text().splitlines() if line.startswith("WatchdogSec=")]
    assert watchdog_s > service.MOST_IDLE_S * 2
    assert watchdog_s == STALE_AFTER_S


def test_without_a_watchdog_there_is_no_feeding(listener: tuple[str, socket.socket]) -> None:
    Notifier(listener[0]).progress()
    assert told(listener[1]) == []


@pytest.mark.parametrize(
    ("environment", "fed"),
    [
        pytest.param({"WATCHDOG_USEC": "180000000"}, True, id="without a process number"),
        pytest.param({"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": str(os.getpid())}, True, id="for this process"),
        pytest.param({"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": "1"}, False, id="for another process"),
        pytest.param({"WATCHDOG_USEC": "soon"}, False, id="no number"),
        pytest.param({"WATCHDOG_USEC": "0"}, False, id="zero"),
        pytest.param({}, False, id="no watchdog"),
    ],
)
def test_watchdog_of_the_environment(
    listener: tuple[str, socket.socket], environment: dict[str, str], fed: bool
) -> None:
    Notifier.from_environment({"NOTIFY_SOCKET": listener[0], **environment}).progress()
    assert bool(told(listener[1])) is fed


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1", "/nowhere/socket", "@nobody-there", "/" + "x" * 300])
def test_systemd_that_is_not_there_stops_nothing(address: str) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    notifier.ready("x")
    notifier.progress()
    notifier.stopping()


def test_systemd_that_does_not_listen_stops_nothing(listener: tuple[str, socket.socket]) -> None:
    notifier = Notifier(listener[0])
    for _ in range(2000):  # more than the socket holds
        notifier.ready("x" * 200)


# The status file


@pytest.fixture
def status(tmp_path: Path) -> StatusFile:
    return StatusFile(tmp_path / "run/fieldmark/status.json", {"device": "d1"})


def path_of(tmp_path: Path) -> Path:
    return tmp_path / "run/fieldmark/status.json"


def test_what_was_told_is_read(status: StatusFile, tmp_path: Path) -> None:
    status.write("working", {"counts": {"classified": 3}})
    found = read_status(path_of(tmp_path))
    assert found is not None
    assert (found["schema"], found["device"], found["state"]) == (1, "d1", "working")
    assert (found["counts"], found["stale"]) == ({"classified": 3}, False)
    assert 0 <= found["age_s"] < 60
    assert path_of(tmp_path).stat().st_mode & 0o777 == 0o644
    assert [each.name for each in path_of(tmp_path).parent.iterdir()] == ["status.json"]


def test_file_is_due_again_after_some_seconds(tmp_path: Path) -> None:
    clock = Clock()
    status = StatusFile(tmp_path / "s.json", {}, monotonic=clock)
    due = [status.due]
    status.write("working", {})
    due.append(status.due)
    clock.now_s += EVERY_S
    assert [*due, status.due] == [True, False, True]


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def ended_process() -> int:
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    return child.pid


@pytest.mark.parametrize(
    ("values", "stale"),
    [
        pytest.param(dict, False, id="just told"),
        pytest.param(lambda: {"since_boot_s": health.since_boot_s() - STALE_AFTER_S - 1}, True, id="told long ago"),
        pytest.param(lambda: {"since_boot_s": health.since_boot_s() - STALE_AFTER_S + 9}, False, id="told a while ago"),
        pytest.param(lambda: {"boot_id": "another"}, True, id="told before the machine started"),
        pytest.param(lambda: {"pid": ended_process()}, True, id="told by an agent that is gone"),
        pytest.param(lambda: {"pid": "x"}, True, id="told by nobody"),
        pytest.param(lambda: {"since_boot_s": 10**400}, True, id="told at no time"),
        pytest.param(lambda: {"written": "1970-01-01T00:00:00+00:00"}, False, id="told by a wrong clock"),
        pytest.param(lambda: {"state": "ended", "pid": ended_process()}, False, id="ended as it should"),
    ],
)
def test_stale_status_is_said_to_be_stale(status: StatusFile, tmp_path: Path, values: Any, stale: bool) -> None:
    status.write("working", {})
    change(path_of(tmp_path), **values())
    found = read_status(path_of(tmp_path))
    assert found is not None
    assert found["stale"] is stale


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 2}', b"\xff", b"[" * 100_000])
def test_file_that_is_no_status_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.json").write_bytes(content)
    assert read_status(tmp_path / "s.json") is None
    assert read_status(tmp_path / "nothing.json") is None


def test_named_pipe_in_the_place_of_the_status_hangs_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.json")
    assert read_status(tmp_path / "s.json") is None


def test_file_that_cannot_be_written_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(b"")
    said: list[str] = []
    status = StatusFile(tmp_path / "run/fieldmark/status.json", {}, say=said.append)
    status.write("working", {})
    status.write("working", {})
    assert len(said) == 1
    assert "cannot be written" in said[0]


def test_link_that_lies_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"photo")
    (tmp_path / f".s.json.{os.getpid()}").symlink_to("precious")
    StatusFile(tmp_path / "s.json", {}, say=lambda line: None).write("working", {})
    assert (tmp_path / "precious").read_bytes() == b"photo"
