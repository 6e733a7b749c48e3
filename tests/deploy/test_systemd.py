"""The units as files. What systemd itself thinks of them is asked of its own tool, where it is installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
NAMES = ("fieldmark.service", "fieldmark-alerts.service")
MOST_EXPOSED = 2.0


def settings(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text("utf-8").splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def exposure(unit: Path) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert match, done.stderr
    return float(match[1])


@pytest.mark.needs("systemd_analyze")
@pytest.mark.parametrize("name", NAMES)
def test_unit_exposes_little(name: str) -> None:
    assert exposure(UNITS / name) <= MOST_EXPOSED


@pytest.mark.needs("systemd_analyze")
def test_check_of_the_exposure_can_fail(tmp_path: Path) -> None:
    text = (UNITS / NAMES[0]).read_text("utf-8")
    weak = tmp_path / NAMES[0]
    weak.write_text(re.sub(r"^(Restrict|Protect|Private|SystemCall|Capability|NoNew).*\n", "", text, flags=re.M))
    assert exposure(weak) > MOST_EXPOSED


@pytest.mark.needs("systemd_analyze")
@pytest.mark.parametrize("name", NAMES)
def test_systemd_understands_every_line(name: str, tmp_path: Path) -> None:
    """With a program that is there, in the place of the one that is installed on a device."""
    unit = tmp_path / name
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", (UNITS / name).read_text("utf-8"), flags=re.M))
    command = ["systemd-analyze", "verify", "--man=no", "--generators=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    ours = [line for line in done.stderr.splitlines() if name in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_service_is_started_for_ever_and_watched(name: str) -> None:
    unit = settings(name)
    assert unit["Type"] == ["notify"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert unit["Restart"][0] in ("always", "on-failure")
    assert int(unit["WatchdogSec"][0]) >= 60


def test_agent_has_no_network_and_can_write_nothing_but_its_own_folders() -> None:
    unit = settings("fieldmark.service")
    assert unit["Restart"] == ["always"]
    assert (unit["PrivateNetwork"], unit["IPAddressDeny"]) == (["yes"], ["any"])
    assert unit["RestrictAddressFamilies"] == ["AF_UNIX"]
    assert unit["ProtectSystem"] == ["strict"]
    assert "ReadWritePaths" not in unit


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_no_folder_of_the_services(name: str) -> None:
    """Who may write them may name a command, and whom to trust; systemd gives a folder that it makes to the user."""
    assert "ConfigurationDirectory" not in settings(name)


def test_both_services_are_the_same_user_since_they_share_the_log() -> None:
    users = {tuple(settings(name)["User"]) for name in NAMES}
    assert users == {("fieldmark",)}
    assert re.search(r"^u fieldmark ", (UNITS / "fieldmark.sysusers").read_text("utf-8"), re.M)
