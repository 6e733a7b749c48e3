"""Devices without a battery for their clock: it stands at 1970, or far in the future, and jumps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge.agent.plan import Plan
from tests.fakes.camera import jpeg, put
from tests.faults import clients, device, power

pytestmark = pytest.mark.needs("faketime")

CLOCKS = ("1970-01-01 00:02:00", "2040-02-03 04:05:06")
FACTS = "SELECT path, taken_local, utc_offset, taken_source FROM file ORDER BY path"


@pytest.fixture
def plan(device_root: Path, tmp_path: Path) -> Plan:
    """Photos whose time is in EXIF, in the name, or only the file's; and a file that is no photo."""
    photos = tmp_path / "photos"
    put(photos / "exif.jpg", jpeg(10, taken="2024:05:01 06:12:09"))
    put(photos / "IMG_20240502_071500.jpg", jpeg(90))
    put(photos / "file.jpg", jpeg(200))
    put(photos / "cut.jpg", jpeg(150, side=640)[:900])
    return device.plan(device_root, photos, once=True, settle_s=0.2)


@pytest.mark.parametrize("clock", CLOCKS)
def test_times_of_photos_do_not_depend_on_the_device_s_clock(plan: Plan, tmp_path: Path, clock: str) -> None:
    right = replace(plan, log=tmp_path / "right" / "log.db")
    _run(right, None)
    _run(plan, clock)
    assert _rows(plan) == _rows(right) != []


def test_a_clock_that_jumps_makes_no_row_twice_and_keeps_no_photo_waiting(plan: Plan, device_root: Path) -> None:
    folder, counts = plan.sources[0].path, []
    for i, clock in enumerate([*CLOCKS, None, CLOCKS[0]]):
        put(folder / f"new-{i}.jpg", jpeg(20 * i + 3))
        _run(plan, clock)
        counts.append(len(_rows(plan)))
    assert counts == [5, 6, 7, 8]
    assert clients.differences(plan, device_root) == []


def test_a_device_that_does_not_know_the_time_says_so_in_its_log(plan: Plan) -> None:
    _run(plan, CLOCKS[0])
    with device.reading(plan.log) as connection:
        assert connection.execute("SELECT clock_ok FROM agent_run").fetchall() == [(0,)]


def test_a_running_agent_takes_photos_while_its_clock_stands_at_1970(plan: Plan) -> None:
    with power.speaking(_at(CLOCKS[0], device.agent(replace(plan, once=False))), QUIET) as child:
        child.until("file.jpg: ")
        put(plan.sources[0].path / "while.jpg", jpeg(77))
        child.until("while.jpg: ")


# Only the clock that tells the time is changed: neither how long things take nor the times of files.
QUIET = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}


def _at(clock: str | None, command: list[str]) -> list[str]:
    return ["faketime", "-f", f"@{clock}", *command] if clock else command


def _run(plan: Plan, clock: str | None) -> None:
    status, said = power.run_to_end(_at(clock, device.agent(plan)), QUIET)
    assert status == 0, said


def _rows(plan: Plan) -> list[tuple[str, ...]]:
    with device.reading(plan.log) as connection:
        return list(connection.execute(FACTS))
