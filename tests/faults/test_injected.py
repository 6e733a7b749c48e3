"""Disks that fail in the middle of a system call, and programs that are killed there.

Whatever happens: one line says it, what was acknowledged is in the log, and the next start goes on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge.agent import slots
from edge.agent.plan import Plan
from tests import scale
from tests.faults import clients, device, inject, power
from tests.faults.inject import Injection
from tests.fixtures_models import write_bundle

pytestmark = pytest.mark.needs("strace")

PHOTOS = 6
ERRORS, KILL = ("error=EIO", "error=ENOSPC"), ("signal=KILL",)
INSTALL = """
import sys
from pathlib import Path
from edge.agent import slots
from edge.errors import FieldmarkError
try:
    slots.install(Path(sys.argv[1]), Path(sys.argv[2]), check=lambda folder, manifest: "none")
except FieldmarkError as error:
    sys.exit(f"fieldmark: {error}")
"""


@pytest.fixture
def plan(device_root: Path, tmp_path: Path) -> Plan:
    """Of an agent that takes what is there."""
    device.put(tmp_path / "photos", range(PHOTOS))
    return device.plan(device_root, tmp_path / "photos", once=True)


@pytest.mark.parametrize("whats", [ERRORS, KILL], ids=["errors", "kills"])
def test_an_agent_whose_log_cannot_be_written_keeps_its_word_and_goes_on_later(
    plan: Plan, device_root: Path, tmp_path: Path, whats: tuple[str, ...]
) -> None:
    command = device.agent_that_says_each(plan)
    files = [plan.log.parent, *(Path(f"{plan.log}{end}") for end in ("", "-wal", "-shm", "-journal"))]
    kept, hits = _copy(device_root, tmp_path / "kept"), 0
    chosen = inject.sample(inject.calls_of(command, files), whats, scale.count("injected_faults"), device.rng(whats))
    for injection in chosen:
        _put_back(kept, device_root)
        ended = inject.run(command, injection, files)
        hits += ended.hits > 0
        promised = device.classified(ended.said)
        assert _in_words(ended), (str(injection), ended)
        assert device.lost(plan.log, promised) == frozenset(), (str(injection), ended)
        status, said = power.run_to_end(device.agent(plan))
        assert status == 0, (str(injection), ended, said)
        assert device.lost(plan.log, range(PHOTOS)) == frozenset(), (str(injection), ended)
        assert clients.differences(plan, device_root) == [], (str(injection), ended)
    assert hits > len(chosen) / 2  # a few come too late: with threads, not every run makes the same calls


def test_a_read_of_the_log_that_fails_once_costs_no_row(plan: Plan, device_root: Path) -> None:
    power.run_to_end(device.agent(plan))
    command = device.agent(plan)
    calls = inject.calls_of(command, [plan.log], ["pread64"])
    # The first read is the one with which a start looks for damage.
    chosen = [Injection("pread64", 1, "error=EIO")]
    chosen += inject.sample(calls, ["error=EIO"], scale.count("injected_faults") // 2, device.rng("reads"), last=False)
    for injection in chosen:
        ended = inject.run(command, injection, [plan.log])
        assert _in_words(ended), (str(injection), ended)
        assert device.lost(plan.log, range(PHOTOS)) == frozenset(), (str(injection), ended)
        assert clients.differences(plan, device_root) == [], (str(injection), ended)


@pytest.mark.parametrize("whats", [ERRORS, KILL], ids=["errors", "kills"])
@pytest.mark.parametrize("blank", [True, False], ids=["first", "later"])
def test_an_installation_that_cannot_write_leaves_a_whole_bundle_and_works_later(
    device_root: Path, tiny_model: Path, tmp_path: Path, whats: tuple[str, ...], blank: bool
) -> None:
    bundle = write_bundle(tmp_path / "tiny-8.fmb", tiny_model.read_bytes(), sequence=8)
    if blank:
        shutil.rmtree(device_root)
        device_root.mkdir()
    before = None if blank else slots.current(device_root).digest
    command = power.python("-c", INSTALL, str(device_root), str(bundle))
    kept = _copy(device_root, tmp_path / "kept")
    calls, after = inject.calls_of(command), slots.current(device_root).digest
    for injection in inject.sample(calls, whats, scale.count("injected_faults") // 2, device.rng((whats, blank))):
        _put_back(kept, device_root)
        ended = inject.run(command, injection)
        assert ended.hits, str(injection)
        assert _in_words(ended), (str(injection), ended)
        assert clients.running(device_root) in (after if ended.status == 0 else before, after), (str(injection), ended)
        slots.install(device_root, bundle, check=lambda folder, manifest: "none")
        assert clients.running(device_root) == after, (str(injection), ended)


def _in_words(ended: inject.Ended) -> bool:
    """Whether a program ended well, or with one line that says what was wrong, or was killed."""
    if ended.status == 1:
        return bool(ended.said) and ended.said[-1].startswith("fieldmark: ") and "unexpected" not in ended.said[-1]
    return ended.status in (0, -9)


def _copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, symlinks=True))


def _put_back(kept: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    _copy(kept, folder)
