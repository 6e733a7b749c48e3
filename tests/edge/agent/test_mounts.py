"""What is mounted where: real mounts where this machine allows them, and tables as the kernel writes them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.agent import mounts
from edge.agent.mounts import Mounts

TABLE = """\
21 1 0:99 / / rw,relatime shared:1 - ext4 /dev/root rw
36 21 8:1 /dcim /mnt/my\\040card rw,noatime master:1 - VFAT /dev/sda1 rw
37 21 0:50 / /home rw - nfs4 server:/home rw
broken
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    monkeypatch.setattr(mounts, "_TABLE", path)
    mounts.filesystem.cache_clear()
    yield path
    mounts.filesystem.cache_clear()


@contextmanager
def mounted(at: Path) -> Iterator[None]:
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", at], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


@pytest.mark.needs("loop_mounts")
def test_what_is_mounted_and_taken_out_is_told_once_each(tmp_path: Path) -> None:
    with Mounts() as table:
        assert not table.changed()
        with mounted(tmp_path / "card"):
            assert (table.changed(), table.changed()) == (True, False)
            assert table.concern(tmp_path / "card")
            assert table.concern(tmp_path / "card" / "DCIM")
            assert table.concern(tmp_path)
            assert not table.concern(tmp_path / "other") or table.concern(Path("/tmp"))  # where /tmp is a mount
        assert (table.changed(), table.changed()) == (True, False)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        pytest.param("/mnt/my card", True, id="the card itself"),
        pytest.param("/mnt/my card/DCIM", True, id="a folder on it"),
        pytest.param("/mnt", True, id="a folder in which it is mounted"),
        pytest.param("/mnt/my", False, id="a folder whose name begins alike"),
        pytest.param("/srv/photos", False, id="a folder of the root file system"),
    ],
)
def test_mounts_concern_what_is_above_and_below_them(folder: str, expected: bool) -> None:
    assert Mounts().concern(Path(folder)) is expected


@pytest.mark.usefixtures("table")
def test_kind_of_a_file_system_is_known_by_its_number() -> None:
    found = [mounts.filesystem(os.makedev(*number)) for number in ((8, 1), (0, 50), (0, 99), (7, 7))]
    assert found == ["vfat", "nfs4", "ext4", ""]


def test_number_that_was_given_again_is_another_file_system(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mounts.filesystem(os.makedev(0, 50)) == "nfs4"
    table.write_text("38 21 0:50 / /media/stick rw - exfat /dev/sdb1 rw\n")
    with Mounts() as listening:
        monkeypatch.setattr(listening, "_poll", Told())
        assert listening.changed()
        monkeypatch.undo()
    monkeypatch.setattr(mounts, "_TABLE", table)
    assert mounts.filesystem(os.makedev(0, 50)) == "exfat"


class Told:
    """A kernel that says that something changed."""

    def poll(self, timeout_ms: int) -> list[tuple[int, int]]:
        return [(0, 2)]


def test_without_the_table_nothing_is_told_and_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_TABLE", tmp_path / "not there")
    mounts.filesystem.cache_clear()
    with Mounts() as table:
        assert not table.changed()
        assert not table.concern(tmp_path)
    assert mounts.filesystem(os.makedev(8, 1)) == ""
