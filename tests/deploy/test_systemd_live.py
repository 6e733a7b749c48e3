"""The units under a real systemd, installed as ``docs/device.md`` says, with a small model and shorter times."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.agent.config import Power
from tests.deploy import live_systemd
from tests.deploy.live_systemd import Machine, until
from tests.faults import device
from tests.fixtures_models import LABELS

pytestmark = pytest.mark.needs("live_systemd")

UNITS = live_systemd.PROJECT / "deploy" / "systemd"
AGENT, ALERTS = "fieldmark.service", "fieldmark-alerts.service"
PHOTOS, CARD = "/srv/photos", "/media/card"
COMMAND = "/opt/fieldmark/bin/fieldmark"
HOOK_PORT = 8080
WATCHDOG_S = 6  # the unit's own takes minutes; a search each second is progress
SETTINGS = f"""
[agent]
scan_interval_s = 1
settle_s = 0.2

[[source]]
path = "{PHOTOS}"
station = "beech 4"
utc_offset = "+00:00"

[[source]]
path = "{CARD}"

[[alert]]
name = "foxes"
labels = ["fox"]
above = 0.5
channel = "webhook"
url = "http://127.0.0.1:{HOOK_PORT}/hook"
"""

# Takes one message, says its text, and ends.
HOOK = f"""
import http.server
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["Content-Length"])).decode(), flush=True)
        self.send_response(204)
        self.end_headers()
    def log_message(self, *words):
        pass
http.server.HTTPServer(("127.0.0.1", {HOOK_PORT}), Hook).handle_request()
"""

# Run in a unit's place: tries what the unit may and may not do, and says each that went well.
TRIES = """
import ctypes, fcntl, json, mmap, os, socket, subprocess, time
libc = ctypes.CDLL(None, use_errno=True)
def system(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
def lease(path):
    fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
tries = {
    "open a socket of the internet": lambda: socket.socket(socket.AF_INET),
    "open a raw socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "read a photo": lambda: open("/srv/tried/photo.jpg").read(),
    "read a photo in a home": lambda: open("/home/pi/photo.jpg").read(),
    "delete a photo": lambda: os.unlink("/srv/tried/photo.jpg"),
    "write a photo": lambda: open("/srv/tried/photo.jpg", "a"),
    "write a photo in a home": lambda: open("/home/pi/photo.jpg", "a"),
    "write beside the settings": lambda: open("/etc/fieldmark/tried", "w"),
    "write its own program": lambda: open("/opt/fieldmark/tried", "w"),
    "write the log's folder": lambda: open("/var/lib/fieldmark/tried", "w"),
    "ask who writes another's file": lambda: lease("/srv/tried/another.jpg"),
    "ask whether the clock is right": lambda: system("adjtimex", ctypes.create_string_buffer(1024)),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "be nice": lambda: os.nice(1),
    "make code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
    "be another in a namespace": lambda: system("unshare", 0x10000000),
    "set up a ring": lambda: system("syscall", 425, 1, ctypes.create_string_buffer(256)),
    "run a program": lambda: subprocess.run(["/bin/true"], check=True),
    "see other processes": lambda: os.stat("/proc/1"),
}
went_well = []
for name, attempt in tries.items():
    try:
        attempt()
        went_well.append(name)
    except OSError:
        pass
print(json.dumps(went_well))
"""
MAY = {
    AGENT: {"read a photo", "read a photo in a home", "write the log's folder", "ask who writes another's file",
            "ask whether the clock is right", "be nice", "run a program"},
    ALERTS: {"open a socket of the internet", "read a photo", "write the log's folder", "run a program"},
}  # fmt: skip


@pytest.fixture(scope="module")
def machine(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with live_systemd.booted(tmp_path_factory.mktemp("machine")) as made:
        for name in (AGENT, ALERTS):
            shutil.copy(UNITS / name, made.path("/etc/systemd/system"))
        shutil.copy(UNITS / "fieldmark.sysusers", made.path("/usr/lib/sysusers.d/fieldmark.conf"))
        shutil.copy(tiny_bundle, made.path("/srv/tiny.fmb"))
        made.do("systemd-sysusers")
        made.do(COMMAND, "install", "/srv/tiny.fmb")
        made.path("/etc/fieldmark/config.toml").write_text(SETTINGS, "utf-8")
        made.path(PHOTOS).mkdir()
        made.path(CARD).mkdir()
        made.do("systemctl", "daemon-reload")
        made.do("systemctl", "enable", "--quiet", AGENT, ALERTS)
        yield made


@pytest.fixture
def agent(machine: Machine) -> Iterator[Machine]:
    """The machine with a fresh start of the agent, which is still at work when the test has ended."""
    machine.do("systemctl", "restart", AGENT)
    yield machine
    assert machine.property(AGENT, "ActiveState") == "active", machine.journal(AGENT)


def drop_in(machine: Machine, unit: str, text: str) -> None:
    """What ``systemctl edit`` writes."""
    path = machine.path(f"/etc/systemd/system/{unit}.d/test.conf")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")


def rows(machine: Machine, below: str = PHOTOS) -> list[dict[str, Any]]:
    whole = map(json.loads, machine.do(COMMAND, "log", "--json").splitlines())
    return [row for row in whole if row["photo"].startswith(f"{below}/")]


def put(machine: Machine, numbers: range, below: str = PHOTOS) -> set[str]:
    """Put photos into a folder; their names there."""
    device.put(machine.path(below), numbers)
    return {f"{below}/{device.name(number)}" for number in numbers}


def each_has_one_row(machine: Machine, photos: set[str], below: str = PHOTOS) -> bool:
    found = Counter(row["photo"] for row in rows(machine, below) if row["label"])
    return all(found[photo] == 1 for photo in photos)


def test_agent_is_ready_once_it_watches_and_each_photo_becomes_a_row(agent: Machine) -> None:
    assert agent.property(AGENT, "StatusText") == "waiting for photos"
    photos = put(agent, range(3))
    until(lambda: each_has_one_row(agent, photos), "a row for each photo")
    told = json.loads(agent.do(COMMAND, "status", "--json"))["agent"]
    assert (told["stale"], str(told["pid"])) == (False, agent.property(AGENT, "MainPID"))


def test_agent_that_is_stopped_with_photos_in_hand_ends_in_seconds_and_as_it_should(agent: Machine) -> None:
    photos = put(agent, range(100, 300))
    until(lambda: rows(agent), "the first of them")
    before_s = time.monotonic()
    agent.do("systemctl", "stop", AGENT)
    assert time.monotonic() - before_s < 10
    assert agent.property(AGENT, "Result") == "success"
    assert agent.property(AGENT, "ExecMainStatus") == "0"
    agent.do("systemctl", "start", AGENT)
    until(lambda: each_has_one_row(agent, photos), "a row for each photo")


def test_agent_that_works_or_waits_is_left_alone_and_one_that_hangs_is_started_again(machine: Machine) -> None:
    drop_in(machine, AGENT, f"[Service]\nRestartSec=100ms\nWatchdogSec={WATCHDOG_S}\n")
    machine.do("systemctl", "daemon-reload")
    machine.do("systemctl", "restart", AGENT)
    until(lambda: fed_for_s(machine) > WATCHDOG_S, "longer than the watchdog waits")
    assert machine.property(AGENT, "NRestarts") == "0"
    photos = put(machine, range(400, 600))
    until(lambda: rows(machine), "the first of them")
    machine.do("systemctl", "kill", "--kill-whom=main", "--signal=STOP", AGENT)
    until(lambda: machine.property(AGENT, "NRestarts") == "1", "a new start")
    assert "Failed with result 'watchdog'" in machine.journal(AGENT)
    until(lambda: each_has_one_row(machine, photos), "a row for each photo")
    assert "Nothing lost, nothing twice." in machine.do(COMMAND, "log", "audit")
    drop_in(machine, AGENT, "")
    machine.do("systemctl", "daemon-reload")


def fed_for_s(machine: Machine) -> float:
    """How long after the start the watchdog was last fed."""
    fed, began = (machine.property(AGENT, f"{name}TimestampMonotonic") for name in ("Watchdog", "ActiveEnter"))
    return (int(fed) - int(began)) / 1e6


@pytest.mark.parametrize(
    ("more", "ends"), [("", False), ("[Unit]\nStartLimitIntervalSec=60\n", True)], ids=["as it is", "control"]
)
def test_agent_that_fails_at_once_is_started_for_ever(machine: Machine, more: str, ends: bool) -> None:
    """The control has systemd's own limit, and is given up after five starts."""
    name = f"fails-{int(ends)}.service"
    shutil.copy(UNITS / AGENT, machine.path(f"/etc/systemd/system/{name}"))
    drop_in(machine, name, f"{more}[Service]\nExecStart=\nExecStart=/bin/false\nRestartSec=10ms\n")
    machine.do("systemctl", "daemon-reload")
    machine.try_to("systemctl", "start", "--no-block", name)
    until(lambda: int(machine.property(name, "NRestarts")) >= (4 if ends else 12), "starts")
    if ends:
        until(lambda: machine.property(name, "ActiveState") == "failed", "the end of it")
    assert (machine.property(name, "ActiveState") == "failed") == ends
    machine.try_to("systemctl", "stop", name)


@pytest.mark.parametrize("unit", [AGENT, ALERTS])
def test_unit_may_do_what_it_needs_and_nothing_else(machine: Machine, unit: str) -> None:
    name = f"tries-{unit}"
    user = machine.do("id", "--user", "fieldmark").strip()
    for folder in map(machine.path, ("/srv/tried", "/home/pi")):
        folder.mkdir(exist_ok=True)
        for photo in (folder / "photo.jpg", folder / "another.jpg"):
            photo.write_text("a photo", "ascii")
        os.chown(folder, int(user), -1)
        os.chown(folder / "photo.jpg", int(user), -1)
    machine.path("/srv/tries.py").write_text(TRIES, "utf-8")
    shutil.copy(UNITS / unit, machine.path(f"/etc/systemd/system/{name}"))
    drop_in(machine, name, "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\n"
                           "ExecStart=/opt/fieldmark/bin/python -P /srv/tries.py\n")  # fmt: skip
    machine.do("systemctl", "daemon-reload")
    machine.do("systemctl", "start", name)
    went_well = next(line for line in machine.journal(name).splitlines() if line.startswith("["))
    assert set(json.loads(went_well)) == MAY[unit]


def test_settings_are_read_only_for_the_agent_whoever_owns_them(agent: Machine) -> None:
    mounts = {fields[4]: fields[5].split(",") for fields in map(str.split, of_process(agent, "mountinfo"))}
    assert "ro" in mounts["/"]
    assert "rw" in mounts["/var/lib/fieldmark"]
    assert "/etc/fieldmark" not in mounts


def test_photos_of_a_card_that_is_mounted_later_are_taken_and_the_card_can_be_taken_out(agent: Machine) -> None:
    agent.do("mount", "-t", "tmpfs", "card", CARD)
    agent.path(f"{CARD}/DCIM").mkdir()
    photos = put(agent, range(700, 703), f"{CARD}/DCIM")
    until(lambda: each_has_one_row(agent, photos, CARD), "a row for each photo")
    agent.do("umount", CARD)


def test_alert_is_sent_by_the_unit_that_has_a_network(agent: Machine) -> None:
    fox = 800 - 800 % len(LABELS) + LABELS.index("fox")
    with subprocess.Popen(
        agent.inside("/opt/fieldmark/bin/python", "-c", HOOK), stdout=subprocess.PIPE, text=True
    ) as hook:
        photo = put(agent, range(fox, fox + 1))
        until(lambda: each_has_one_row(agent, photo), "the fox's row")
        agent.do("systemctl", "restart", ALERTS)
        assert hook.stdout is not None
        message = json.loads(hook.stdout.readline())
    assert (message["label"], message["station"]) == ("fox", "beech 4")
    until(lambda: "  sent " in agent.do(COMMAND, "alerts", "list"), "the message is noted as sent")
    agent.do("systemctl", "stop", ALERTS)
    assert agent.property(ALERTS, "Result") == "success"


def test_what_root_left_in_the_agents_folders_is_no_hindrance(agent: Machine) -> None:
    """As after ``sudo fieldmark watch --once``, and a new log that it had to begin."""
    agent.do("systemctl", "stop", AGENT)
    agent.do("chown", "--recursive", "root:root", "/var/lib/fieldmark/previews", "/var/lib/fieldmark/log.db")
    photos = put(agent, range(900, 903))
    agent.do("systemctl", "start", AGENT)
    until(lambda: each_has_one_row(agent, photos), "a row for each photo")
    # All of it: the log, and each preview, which is for its owner to read.
    assert agent.do("find", "/var/lib/fieldmark", "!", "-user", "fieldmark", "!", "-name", "lost+found") == ""
    hashes = [row["sha256"] for row in rows(agent) if row["photo"] in photos]
    assert all(agent.path(f"/var/lib/fieldmark/previews/{each[:2]}/{each}.jpg").exists() for each in hashes)


def test_memory_is_limited(agent: Machine) -> None:
    for line in of_process(agent, "cgroup"):
        _, controllers, path = line.split(":", 2)
        for limit in (f"memory{path}/memory.limit_in_bytes", f"{path}/memory.max"):
            if controllers in ("", "memory") and (file := agent.path(f"/sys/fs/cgroup/{limit}")).exists():
                assert int(file.read_text("ascii")) == 320 * 2**20
                return
    pytest.skip("this machine limits no memory")


def test_settings_alone_say_how_nice_the_agent_is(agent: Machine) -> None:
    assert niceness(of_process(agent, "stat")) == niceness(agent.do("cat", "/proc/1/stat").splitlines()) + Power().nice


def niceness(stat: list[str]) -> int:
    return int(stat[0].rpartition(")")[2].split()[16])


def of_process(machine: Machine, name: str) -> list[str]:
    """A file of the kernel about the agent's process."""
    return machine.do("cat", f"/proc/{machine.property(AGENT, 'MainPID')}/{name}").splitlines()
