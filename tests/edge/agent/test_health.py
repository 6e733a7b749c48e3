from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.agent import health
from edge.agent.health import Clock

NOW_S = 1.8e9  # 2027


def give(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_hottest_sensor_counts_and_one_that_fails_does_not(tmp_path: Path) -> None:
    for number, text in enumerate(("45123\n", "61500\n", "-274000", "", "hot")):
        give(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", text)
    assert health.temperature_c(tmp_path) == 61.5


def test_machine_without_sensors_says_nothing(tmp_path: Path) -> None:
    assert health.temperature_c(tmp_path) is None
    assert health.throttling(tmp_path) is None
    assert health.boot_id(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "now", "before"),
    [
        ("0", [], []),
        ("50005\n", ["under-voltage", "throttled"], ["under-voltage", "throttled"]),
        ("0x80008", ["too hot"], ["too hot"]),
        ("10000", [], ["under-voltage"]),
    ],
)
def test_throttling_is_what_the_firmware_says(tmp_path: Path, text: str, now: list[str], before: list[str]) -> None:
    give(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", text)
    assert health.throttling(tmp_path) == {"now": now, "since_start": before}


def test_clock_that_timesyncd_keeps_is_synchronised(tmp_path: Path) -> None:
    give(tmp_path, "run/systemd/timesync/synchronized", "")
    assert health.clock(tmp_path, now_s=NOW_S) == Clock(True, False, True)
    assert health.clock(tmp_path, now_s=NOW_S).ok


def test_clock_of_which_nobody_says_anything_is_not_known_to_be_right(tmp_path: Path) -> None:
    assert health.clock(tmp_path, now_s=NOW_S) == Clock(None, False, True)
    assert not health.clock(tmp_path, now_s=NOW_S).ok


@pytest.mark.parametrize(
    ("text", "battery"), [("1800000000\n", True), ("946684800", False), ("", False), ("9" * 30, False)]
)
def test_battery_clock_counts_only_if_its_battery_lives(tmp_path: Path, text: str, battery: bool) -> None:
    give(tmp_path, "sys/class/rtc/rtc0/since_epoch", text)
    assert health.clock(tmp_path, now_s=NOW_S).battery is battery


@pytest.mark.parametrize("now_s", [0, 1.0e9, 4.2e9])
def test_year_that_cannot_be_is_not_believed_whoever_keeps_the_clock(tmp_path: Path, now_s: float) -> None:
    give(tmp_path, "run/systemd/timesync/synchronized", "")
    assert not health.clock(tmp_path, now_s=now_s).ok


def test_this_machine_can_be_asked() -> None:
    json.dumps(health.report())
    assert health.since_boot_s() > 0
    assert health.boot_id()


def test_second_clock_chip_counts_where_the_first_has_no_battery(tmp_path: Path) -> None:
    give(tmp_path, "sys/class/rtc/rtc0/since_epoch", "1000")
    assert not health.clock(tmp_path, now_s=NOW_S).battery
    give(tmp_path, "sys/class/rtc/rtc1/since_epoch", "1800000000")
    assert health.clock(tmp_path, now_s=NOW_S).battery
