"""Which photos were in hand when the agent died, so that one that kills it does not do so for ever.

A photo that takes all memory, or makes a decoder hang until the watchdog ends the agent, would be the first of the next
start again. One small file per photo in hand, on a file system in memory: a reboot forgets them all, and so it should.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

CODE, MOST_DEATHS = "deadly", 2
"""After so many deaths with the same photo in hand it is not opened again: it is a failure of this code, which is tried
again later as others are."""


class InHand:
    """The photos in hand; several threads may use it, each with photos of its own."""

    def __init__(self, folder: Path) -> None:
        """Set up.

        Args:
            folder: made when it is needed.
        """
        self._folder = folder

    def suspects(self, name: str) -> bool:
        """Whether the agent has died with this photo in hand. It is best taken alone then: of several in hand, all are
        suspected."""
        with suppress(OSError):
            return self._path(name).exists()
        return False

    def take(self, name: str) -> int:
        """A photo is taken in hand.

        Args:
            name: that tells it from all others.

        Returns:
            How often the agent died with it in hand. With :data:`MOST_DEATHS` or more, do not open it.
        """
        path = self._path(name)
        deaths = 0
        with suppress(OSError):  # without such a folder, it is as if there had been no deaths
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            with path.open("ab+") as file:  # one byte for each time it was taken
                deaths = file.tell()
                file.write(b"x")
        return deaths

    def lay_down(self, name: str) -> None:
        """The agent has survived it."""
        with suppress(OSError):
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
