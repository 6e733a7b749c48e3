"""What a file's content hash was when it was last read, so that a photo that did not change is not read again.

A file is known by its path and by what the file system says of it: inode, length, times of change. As in git's index
the device's number does not count, since another start of the machine may give another one. Losing it costs time,
nothing else. Never answers for a file that looks otherwise than when it was read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from edge import photo as photos
from edge.photo import Photo
from trainer.records import Records

RACY_NS = 2_000_000_000
"""What changed so shortly before it was read may change again and look the same: a FAT card counts in steps of 2 s."""
MOST_BYTES = 128 * 2**20
"""About two million files. Those that are gone are never forgotten one by one, so beyond this all are."""
_REVISION = 1


class KnownFiles:
    """Content hashes of photos, by file. Safe with several threads and processes."""

    def __init__(self, cache_folder: Path) -> None:
        """Open what is known; what of it is damaged is not."""
        folder = cache_folder / "hashes" / str(_REVISION)
        _forget_beyond(MOST_BYTES, folder)
        self._records = Records(folder, "V32")

    def sha256(self, path: Path) -> str | None:
        """Of a file's content, in hex; None where only reading it will tell."""
        state = _state(path)
        known = None if state is None else self._records.get(state.key)
        return None if known is None else bytes(known).hex()

    def read(self, path: Path) -> Photo:
        """Read a photo, and know it from then on.

        Raises:
            PhotoError: see :func:`edge.photo.read`.
        """
        began_ns = time.time_ns()
        state = _state(path)  # before it is read: what changes meanwhile will never look like this again
        photo = photos.read(path)
        if state is not None and state.changed_ns < began_ns - RACY_NS:
            self._records.put(state.key, bytes.fromhex(photo.sha256))
        return photo

    def flush(self) -> None:
        """Write what is new."""
        self._records.flush()


class _State(NamedTuple):
    """A file as it looks without being read: a digest of all that, and when it last changed."""

    key: str
    changed_ns: int


def _state(path: Path) -> _State | None:
    try:
        facts = os.stat(path)
        name = os.fsencode(os.path.abspath(path))
    except (OSError, ValueError):  # reading it will say what is wrong
        return None
    looks = f"{facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} ".encode()
    return _State(hashlib.sha256(looks + name).hexdigest(), max(facts.st_mtime_ns, facts.st_ctime_ns))


def _forget_beyond(most_bytes: int, folder: Path) -> None:
    with contextlib.suppress(OSError):  # another run forgot it first, or may not: then it only stays large
        files = list(folder.glob("*.npy"))
        if sum(file.stat().st_size for file in files) > most_bytes:
            for file in files:
                file.unlink()
