"""What lies on the disk below the sources of a log: what an audit compares with its rows. Never opens a photo."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge import pathtext
from edge.agent.config import Source
from edge.agent.watch import scan
from edge.log.audit import OnDisk


def here(root: Path, text: str) -> Path:
    """Where a path of the log lies on this machine: below a root that stands for the device, else where it says."""
    path = Path(pathtext.from_text(text))
    below = root / path.relative_to(path.anchor)
    return below if root != Path("/") and os.path.lexists(below) else path


def files(
    root: Path,
    logged: Iterable[str],
    configured: Iterable[Source],
    troubles: dict[Path, str],
    *,
    grace_s: float = 0.0,
) -> Iterator[OnDisk]:
    """Every file that gets a row, once, below the sources of the log and those of the settings.

    Args:
        logged: sources as the log has them. One that is not there is left out.
        troubles: takes the folders that could not be read.
        grace_s: what was written less than so many seconds ago is left out: its turn is still to come.
    """
    youngest_ns = time.time_ns() - int(grace_s * 1e9) if grace_s else None
    for text, folder in _folders(root, logged, configured, troubles):
        for found in scan(Source(folder), troubles):
            if youngest_ns is None or found.mtime_ns < youngest_ns:
                yield OnDisk(text, found.text, found.size_bytes, found.mtime_ns)


def _folders(
    root: Path, logged: Iterable[str], configured: Iterable[Source], troubles: dict[Path, str]
) -> list[tuple[str, Path]]:
    """Folders with their names in the log. One that lies in another is searched with that one."""
    found: dict[Path, str] = {}
    for text in logged:
        folder = here(root, text)
        if _is_there(folder, troubles):
            found.setdefault(Path(os.path.realpath(folder)), text)
    for source in configured:
        real = Path(os.path.realpath(source.path))
        found.setdefault(real, pathtext.to_text(real))
    return [
        (text, folder)
        for folder, text in sorted(found.items())
        if not any(folder != outer and folder.is_relative_to(outer) for outer in found)
    ]


def _is_there(folder: Path, troubles: dict[Path, str]) -> bool:
    try:
        return stat.S_ISDIR(os.stat(folder).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # a folder on the way to it may not be entered, or the card fails
        troubles[folder] = error.strerror or str(error)
        return False
