from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.agent import lease, mounts
from edge.agent.lease import Writer, look
from tests.fakes.camera import need_leases


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "IMG_0001.JPG"
    path.write_bytes(b"x" * 100)
    return path


@pytest.fixture
def works(tmp_path: Path) -> None:
    need_leases(tmp_path)


def writer_of(path: Path) -> Writer | None:
    found = look(path)
    return found.writer if found else None


@pytest.mark.usefixtures("works")
def test_open_writer_is_seen_until_it_closes(file: Path) -> None:
    with file.open("ab") as writing:
        assert writer_of(file) is Writer.SOMEBODY
        writing.write(b"y")
        writing.flush()
        assert writer_of(file) is Writer.SOMEBODY
    assert writer_of(file) is Writer.NOBODY


@pytest.mark.usefixtures("works")
def test_writer_in_another_process_is_seen(file: Path) -> None:
    script = "import sys; f = open(sys.argv[1], 'ab'); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        assert writer_of(file) is Writer.SOMEBODY
        child.communicate("")
    assert writer_of(file) is Writer.NOBODY


@pytest.mark.usefixtures("works")
def test_reader_is_no_writer(file: Path) -> None:
    with file.open("rb"):
        assert writer_of(file) is Writer.NOBODY


@pytest.mark.usefixtures("works")
def test_lease_is_given_back(file: Path) -> None:
    assert writer_of(file) is Writer.NOBODY
    # A lease that is still held makes this fail instead of wait.
    os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))


@pytest.mark.usefixtures("works")
def test_writer_that_comes_while_the_lease_is_held_does_not_end_the_process(file: Path) -> None:
    """The kernel's usual signal for it is SIGIO, which ends a process that does not expect it."""
    with file.open("rb") as reading:
        assert lease._take(reading.fileno()) is Writer.NOBODY
        assert fcntl.fcntl(reading.fileno(), fcntl.F_GETSIG) == signal.SIGURG
        with pytest.raises(BlockingIOError):
            os.open(file, os.O_WRONLY | os.O_NONBLOCK)  # breaks the lease: the signal is sent now
        fcntl.fcntl(reading.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)


def test_size_and_time_are_the_files(file: Path) -> None:
    os.utime(file, ns=(5, 7))
    found = look(file)
    assert found is not None
    assert (found.size_bytes, found.mtime_ns) == (100, 7)


def test_time_that_was_set_back_does_not_hide_that_the_file_just_changed(file: Path) -> None:
    os.utime(file, (0, 0))  # as cp -p does
    found = look(file)
    assert found is not None
    assert found.changed_s == pytest.approx(file.stat().st_ctime)


@pytest.mark.parametrize("make", ["nothing", "folder", "link", "pipe"])
def test_only_regular_files_are_looked_at(tmp_path: Path, file: Path, make: str) -> None:
    path = tmp_path / "other.jpg"
    if make == "folder":
        path.mkdir()
    elif make == "link":
        path.symlink_to(file)
    elif make == "pipe":
        os.mkfifo(path)
    assert look(path) is None


def refuse_with(number: int) -> Any:
    def refusing(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(number, os.strerror(number))
        return 0

    return refusing


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES, errno.ENOLCK])
def test_file_system_without_leases_leaves_it_open_who_writes(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(fcntl, "fcntl", refuse_with(number))
    assert writer_of(file) is Writer.UNKNOWN


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param("cifs", Writer.UNKNOWN, id="a network folder, where the kernel refuses every lease"),
        pytest.param("nfs4", Writer.UNKNOWN, id="another network folder"),
        pytest.param("vfat", Writer.SOMEBODY, id="a card"),
    ],
)
def test_refused_lease_means_a_writer_only_on_a_local_disk(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, expected: Writer
) -> None:
    device = file.stat().st_dev
    table = tmp_path / "mountinfo"
    numbers = f"{os.major(device)}:{os.minor(device)}"
    table.write_text(
        "21 1 0:99 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        f"36 35 {numbers} /dcim /mnt/my\\040card rw,noatime master:1 - {kind} //server/share rw\n"
    )
    monkeypatch.setattr(mounts, "_TABLE", table)
    monkeypatch.setattr(fcntl, "fcntl", refuse_with(errno.EAGAIN))
    mounts.filesystem.cache_clear()
    try:
        assert writer_of(file) is expected
    finally:
        mounts.filesystem.cache_clear()
