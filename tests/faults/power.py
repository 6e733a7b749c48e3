"""A power cut, for real: an ext4 file system in a file, shut down in mid-write, and mounted again from a copy.

``FS_IOC_SHUTDOWN`` without a flush of the journal is what ext4 offers to test this: from that moment nothing reaches
the image, and what was not synced is gone. What a disk itself holds back and loses is not shown by it. Needs root and
loop devices (the capability ``loop_mounts``); every image has a loop device of its own, so tests may run side by side.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

LONG_S = 120
"""Longer than anything here takes; what takes longer hangs."""

_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2  # ext4's ioctl, and its wish to lose what the journal has not written


def make_image(image: Path, set_up: Callable[[Path], None], at: Path, *, size_mb: int = 48) -> Path:
    """An ext4 file system in a file, with what ``set_up`` puts into it, all of it synced."""
    with image.open("wb") as file:
        file.truncate(size_mb * 2**20)
    # Nothing is left for the kernel to initialise in the background.
    options = ["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", "-m", "0"]
    _do("mkfs.ext4", "-q", "-F", *options, str(image))
    with mounted(image, at):
        set_up(at)
    return image


@contextmanager
def mounted(image: Path, at: Path, *, read_only: bool = False) -> Iterator[Path]:
    """An image as a folder, as long as the block lasts."""
    mount(image, at, read_only=read_only)
    try:
        yield at
    finally:
        unmount(at)


def mount(image: Path, at: Path, *, read_only: bool = False) -> None:
    """Mount an image over a loop device that goes with the mount."""
    at.mkdir(exist_ok=True)
    _do("mount", "-t", "ext4", "-o", "loop,noatime" + ",ro" * read_only, str(image), str(at))


def unmount(at: Path) -> None:
    """Unmount; a folder that somebody still stands in is at least taken out of the tree."""
    if subprocess.run(["umount", str(at)], capture_output=True, check=False).returncode:
        _do("umount", "--lazy", str(at))
        raise OSError(f"{at} was still in use.")


def shut_down(at: Path) -> None:
    """Cut off a mounted file system: nothing more reaches the image, and every access fails."""
    descriptor = os.open(at, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    finally:
        os.close(descriptor)


def replace_by_copy(image: Path) -> None:
    """What the next mount sees: a copy, since the kernel may still hold pages of the file that was mounted."""
    copy = copy_image(image, image.with_suffix(".copy"))
    copy.replace(image)


def copy_image(image: Path, to: Path) -> Path:
    """A copy that takes no more room than the image."""
    _do("cp", "--sparse=always", str(image), str(to))
    return to


def cut_power(
    image: Path,
    at: Path,
    *,
    command: Sequence[str],
    now: Callable[[str], bool],
    reopened: Callable[[Path, list[str]], None],
    delay_s: float = 0.0,
    beside: AbstractContextManager[object] | None = None,
) -> list[str]:
    """Run a program on an image, cut its power, and look at what is left: one cut of the harness.

    Args:
        image: made by :func:`make_image`; afterwards as the cut, and then ``reopened``, left it.
        at: where it is mounted, before and after.
        command: says on stderr, in lines, what it has made durable.
        now: asked of each line, whether to cut; may start other work.
        reopened: given the folder, mounted from a copy of the image, and every line that was said.
        delay_s: how long after that line, so that the cut falls into what comes next.
        beside: goes on from before the program starts until after the cut.

    Returns:
        Every line.
    """
    with mounted(image, at), beside or nullcontext(), speaking(command) as child:
        if not any(now(line) for line in child.lines()):
            raise AssertionError(f"the program ended before the cut; it said {child.said[-20:]}")
        time.sleep(delay_s)
        # It stops in the same moment, as with real power: a sync that is under way while ext4 shuts down can return as
        # if it had worked, and the program must not live to tell.
        child.signal(signal.SIGSTOP)
        shut_down(at)
        child.kill()
    replace_by_copy(image)
    with mounted(image, at):
        reopened(at, child.said)
    return child.said


@dataclass
class Child:
    """A program that says lines on stderr."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """What it says, line by line, until it ends."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))
            yield self.said[-1]

    def rest(self) -> list[str]:
        """All that it has said, once it has ended."""
        for _ in self.lines():
            pass
        self.process.wait()
        return self.said

    def until(self, word: str) -> str:
        """The next line that holds a word."""
        for line in self.lines():
            if word in line:
                return line
        raise AssertionError(f"no line with {word!r}; it said {self.said[-20:]}")

    def signal(self, number: int) -> None:
        """Send a signal to it and to what it started."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it and what it started, at once."""
        self.signal(signal.SIGKILL)


def run_to_end(command: Sequence[str], variables: Mapping[str, str] | None = None) -> tuple[int, list[str]]:
    """A program's exit status, and the lines that it said on stderr."""
    with speaking(command, variables) as child:
        said = child.rest()
    return child.process.returncode, said


@contextmanager
def speaking(
    command: Sequence[str], variables: Mapping[str, str] | None = None, *, most_s: float = LONG_S
) -> Iterator[Child]:
    """A child in a group of its own, killed after ``most_s`` so that no test waits for ever."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(variables or {})}
    with subprocess.Popen(
        command,
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        start_new_session=True,
    ) as process:
        child = Child(process)
        timer = threading.Timer(most_s, child.kill)
        timer.start()
        try:
            yield child
        finally:
            timer.cancel()
            if process.poll() is None:
                child.kill()
            child.rest()


def python(*arguments: str) -> list[str]:
    """A command that starts Python as the project starts its own children."""
    return [sys.executable, "-P", *arguments]


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
