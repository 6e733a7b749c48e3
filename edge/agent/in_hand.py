"""Which photos were in hand when the agent died, so that one that kills it does not do so for ever.

A photo that takes all memory, or makes a decoder hang until the watchdog ends the agent, would be the first of the next
start again. One small file per photo in hand, on a file system in memory: a reboot forgets them all, and so it should.
Who has it in hand keeps it locked, so a photo that a second agent has in hand right now has killed nobody.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

CODE, MOST_DEATHS = "deadly", 2
"""After so many deaths with the same photo in hand it is not opened again: it is a failure of this code, which is tried
again later as others are."""
_LOCK = fcntl.LOCK_EX | fcntl.LOCK_NB


class InHand:
    """The photos in hand; several threads may use it, each with photos of its own."""

    def __init__(self, folder: Path) -> None:
        """Set up.

        Args:
            folder: made when it is needed.
        """
        self._folder = folder
        self._held: dict[str, BinaryIO] = {}  # locked

    def suspects(self, name: str) -> bool:
        """Whether the agent has died with this photo in hand. It is best taken alone then: of several in hand, all are
        suspected."""
        with suppress(OSError), self._path(name).open("rb") as file:
            fcntl.flock(file, _LOCK)
            return True
        return False

    def take(self, name: str) -> int:
        """A photo is taken in hand.

        Args:
            name: that tells it from all others.

        Returns:
            How often the agent died with it in hand. With :data:`MOST_DEATHS` or more, do not open it.
        """
        try:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            file = self._path(name).open("ab", buffering=0)
        except OSError:  # without such a folder, it is as if there had been no deaths
            return 0
        try:
            fcntl.flock(file, _LOCK)
            facts = os.fstat(file.fileno())
            file.write(b"x")  # one byte for each time it was taken
        except OSError:  # another agent has it in hand, and lives
            file.close()
            return 0
        self._held[name] = file
        return facts.st_size if facts.st_nlink else 0  # unlinked: somebody has just laid it down

    def lay_down(self, name: str) -> None:
        """The agent has survived it."""
        if file := self._held.pop(name, None):
            with file, suppress(OSError):
                self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
