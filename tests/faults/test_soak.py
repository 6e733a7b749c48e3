"""A season in a hurry: one agent, many photos, and its memory stays as it is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests import scale
from tests.faults import device, power
from tests.faults.memory import resident_mb
from tests.faults.power import Child

MOST_GROWTH_MB = 3.0
AHEAD, PER_FOLDER = 64, 500


def test_memory_after_a_season_of_photos_is_what_it_was_at_its_beginning(device_root: Path, tmp_path: Path) -> None:
    count = scale.count("soaked_photos")
    folder = tmp_path / "photos"
    folder.mkdir()
    plan = device.plan(device_root, folder)
    with power.speaking(device.agent(plan), most_s=power.LONG_S + count / 10) as child:
        child.until("bundle")
        samples = list(_samples(child, folder, count))
        child.process.send_signal(signal.SIGTERM)
        child.rest()
    assert child.process.returncode == 0, child.said[-5:]
    assert device.lost(plan.log, range(count)) == frozenset()
    tenth = len(samples) // 10
    growth_mb = max(samples[-tenth:]) - median(samples[tenth : 2 * tenth])
    print(f"resident {median(samples[tenth : 2 * tenth]):.1f} MB, later {growth_mb:+.1f} MB")
    assert growth_mb <= MOST_GROWTH_MB


def _samples(child: Child, folder: Path, count: int) -> Iterator[float]:
    """Resident memory at a hundred or more moments; photos arrive a little before they are taken."""
    written, taken, every = 0, 0, max(1, count // 200)
    lines = child.lines()
    while taken < count:
        while written < min(count, taken + AHEAD):
            device.put(folder / f"{100 + written // PER_FOLDER}TRAP", [written])
            written += 1
        taken += len(device.classified([next(lines)]))
        if taken % every == 0:
            yield resident_mb(child.process.pid)
