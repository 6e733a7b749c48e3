"""A camera's card that is pulled while the agent reads it, and comes back."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import clients, device, power
from tests.faults.power import Child

pytestmark = pytest.mark.needs("loop_mounts")

PHOTOS, PULLED_AT = 80, 10


def _dies(card: Path) -> None:
    """Every read fails, and then the folder is empty."""
    power.shut_down(card)
    _goes(card)


def _goes(card: Path) -> None:
    subprocess.run(["umount", "--lazy", str(card)], check=True)


@pytest.mark.parametrize("pull", [_dies, _goes], ids=["reads fail first", "the folder is empty at once"])
def test_a_card_that_is_pulled_ends_nothing_and_once_it_is_back_each_photo_has_one_row(
    pull: Callable[[Path], None], device_root: Path, tmp_path: Path
) -> None:
    card, image = tmp_path / "card", tmp_path / "card.img"
    power.make_image(image, lambda at: device.put(at / "DCIM" / "100TRAP", range(PHOTOS)), card, size_mb=8)
    again = power.copy_image(image, tmp_path / "again.img")
    plan = device.plan(device_root, card, scan_interval_s=0.2)
    power.mount(image, card, read_only=True)
    with power.speaking(device.agent(plan)) as child:
        promised = _said(child, PULLED_AT)
        pull(card)
        device.put(card, [PHOTOS])  # on the folder below: the agent is alive, and still looks there
        child.until(device.name(PHOTOS))
        (card / device.name(PHOTOS)).unlink()
        with power.mounted(again, card, read_only=True):
            child.process.send_signal(signal.SIGTERM)
            promised |= device.classified(child.rest())
            assert child.process.returncode == 0, child.said
            assert device.lost(plan.log, promised) == frozenset()
            status, said = power.run_to_end(device.agent(replace(plan, once=True)))
            assert status == 0, said
            assert device.lost(plan.log, range(PHOTOS)) == frozenset()
            assert clients.differences(plan, device_root) == []


@pytest.mark.parametrize("pull", [_goes], ids=["the folder is empty at once"])
def test_a_running_agent_goes_on_with_a_card_that_is_back(
    pull: Callable[[Path], None], device_root: Path, tmp_path: Path
) -> None:
    card, image = tmp_path / "card", tmp_path / "card.img"
    power.make_image(image, lambda at: device.put(at / "DCIM" / "100TRAP", range(PHOTOS)), card, size_mb=8)
    again = power.copy_image(image, tmp_path / "again.img")
    plan = device.plan(device_root, card, scan_interval_s=0.2)
    power.mount(image, card, read_only=True)
    with power.speaking(device.agent(plan)) as child:
        promised = _said(child, PULLED_AT)
        pull(card)
        with power.mounted(again, card, read_only=True):
            while len(promised) < PHOTOS:
                promised |= _said(child, 1)
            child.process.send_signal(signal.SIGTERM)
            child.rest()
    assert child.process.returncode == 0, child.said
    assert device.lost(plan.log, range(PHOTOS)) == frozenset()


def _said(child: Child, count: int) -> set[int]:
    """Wait for so many more photos that are said to be in the log."""
    found = set[int]()
    for line in child.lines():
        found |= device.classified([line])
        if len(found) >= count:
            return found
    raise AssertionError(f"the agent ended; it said {child.said[-20:]}")
