"""A disk of 20 MB that fills up while the agent runs, and has room again later."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import clients, device, power

pytestmark = pytest.mark.needs("loop_mounts")

PHOTOS, DISK_MB, KIB = 150, 20, 1024


@pytest.mark.parametrize("room_kib", [0, 60, 700])
def test_on_a_full_disk_the_agent_says_so_keeps_its_word_and_goes_on_once_there_is_room(
    room_kib: int, device_root: Path, tmp_path: Path
) -> None:
    at, photos = tmp_path / "disk", tmp_path / "photos"
    image = power.make_image(tmp_path / "disk.img", lambda disk: _copy(device_root, disk), at, size_mb=DISK_MB)
    device.put(photos, range(PHOTOS))
    with power.mounted(image, at):
        root = at / "root"
        plan = device.plan(root, photos)
        filler = _fill(at, room_kib * KIB)
        status, said = power.run_to_end(device.agent(plan))
        promised = device.classified(said)
        assert (status, len(promised) < PHOTOS) == (1, True), said
        assert said[-1].startswith("fieldmark: ")
        assert "full" in said[-1]
        assert device.lost(plan.log, promised) == frozenset()
        assert device.troubles(plan.log) == []
        filler.unlink()
        status, said = power.run_to_end(device.agent(replace(plan, once=True)))
        assert status == 0, said
        assert device.lost(plan.log, range(PHOTOS)) == frozenset()
        assert clients.differences(plan, root) == []


def _copy(device_root: Path, disk: Path) -> None:
    shutil.copytree(device_root, disk / "root", symlinks=True)


def _fill(at: Path, room_bytes: int) -> Path:
    """A file that leaves so much room, give or take some blocks."""
    filler = at / "filler"
    with filler.open("wb", buffering=0) as file:
        free = shutil.disk_usage(at).free
        os.posix_fallocate(file.fileno(), 0, free - room_bytes - 64 * KIB)
        file.seek(0, os.SEEK_END)
        with suppress(OSError):  # the disk is full
            while room_bytes == 0:
                file.write(b"\1" * KIB)
    return filler
