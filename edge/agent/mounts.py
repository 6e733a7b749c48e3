"""What is mounted where, asked of the Linux kernel: whether something was mounted or taken out, and of which kind.

A card that is changed for another in the same reader can look the same to ``stat``: the same device number, the same
inode. The kernel tells that its table of mounts has changed. Never mounts anything.
"""

from __future__ import annotations

import os
import re
import select
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType

_TABLE = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mounts:
    """Tells when something was mounted or taken out, from entering it on. Without ``/proc`` it tells nothing."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._descriptor = -1

    def __enter__(self) -> Mounts:
        with suppress(OSError):
            self._descriptor = os.open(_TABLE, os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(self._descriptor, select.POLLERR | select.POLLPRI)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._descriptor >= 0:
            self._poll.unregister(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def changed(self) -> bool:
        """Whether something was mounted or taken out anywhere since the last call (``proc(5)``)."""
        if self._descriptor < 0 or not self._poll.poll(0):
            return False
        filesystem.cache_clear()  # numbers are given again
        return True

    def concern(self, folder: Path) -> bool:
        """Whether anything but the root file system is mounted at, above or below a folder.

        Args:
            folder: without links.
        """
        return any(
            point != Path("/") and (folder.is_relative_to(point) or point.is_relative_to(folder)) for point in _points()
        )


@lru_cache(maxsize=64)
def filesystem(device: int) -> str:
    """The type of the file system on a device number; empty where it is not listed."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _lines():  # proc(5): ID parent major:minor root mount-point options [tags] - type source options
        left, _, right = line.partition(" - ")
        if right and left.split()[2:3] == [wanted]:
            return right.split()[0].lower()
    return ""


def _lines() -> list[str]:
    try:
        return _TABLE.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError:
        return []


def _points() -> list[Path]:
    """Where something is mounted. The kernel writes spaces and the like as ``\\040``."""
    fields = (line.split(" ") for line in _lines())
    return [Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), each[4])) for each in fields if len(each) > 4]
