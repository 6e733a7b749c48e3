"""What is shipped: the wheel's contents, and nothing in the repository that holds only on one machine."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("edge", "trainer", "deploy")
# In pieces, so that this file does not hold what it forbids.
FOREIGN = re.compile(
    "py" + r"pi\.org|python" + r"hosted|registry" + r"\.npmjs|/Users/\w+/|/home/(?!pi/)\w+/|/ro" + "ot/"
)


def in_repository() -> list[Path]:
    """Files that git tracks or would add."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no git clone")
    names = done.stdout.decode().split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_wheel_holds_the_three_rooms_and_the_door_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {PurePosixPath(name).parts[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {*ROOMS, "fieldmark.py"}


def test_wheel_holds_every_file_of_the_rooms(wheel: zipfile.ZipFile) -> None:
    here = {path.relative_to(ROOT).as_posix() for path in in_repository()}
    expected = {name for name in here if name.split("/")[0] in ROOMS}
    assert expected <= set(wheel.namelist())


def test_wheel_says_that_it_is_typed_and_carries_its_licences(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {f"{room}/py.typed" for room in ROOMS} <= set(names)
    licences = {name.partition(".dist-info/licenses/")[2] for name in names if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "trainer/data/NOTICE.txt"}


def test_no_file_names_a_registry_or_a_home_folder() -> None:
    for path in in_repository():
        text = path.read_bytes().decode("utf-8", "replace")
        assert FOREIGN.findall(text) == [], path


def test_each_lock_holds_only_pinned_names_with_hashes() -> None:
    locks = sorted((ROOT / "locks").glob("*-py*.txt"))
    assert len(locks) == 12
    for lock in locks:
        blocks = re.split(r"\n(?=\S)", lock.read_text("ascii").rstrip("\n"))
        for block in blocks:
            assert re.fullmatch(r"[\w.-]+==[\w.+!-]+( \\\n    --hash=sha256:[0-9a-f]{64})+", block), f"{lock}: {block}"
