"""Files that survive a power cut: written aside, synced, renamed, and the folder synced too.

A rename without these syncs can leave an empty file under the final name. Never decides what is written, and
lets ``OSError`` through: the caller knows what the file was for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put ``data`` at ``path`` so that after a power cut either the old content or all of the new is there.

    One writer per path: the name of the file written aside is fixed (:func:`aside`), so that a cut leaves at most
    one, and the next write replaces it.
    """
    write_chunks(path, [data], mode=mode)


def write_chunks(path: Path, chunks: Iterable[bytes], *, mode: int = 0o644) -> None:
    """:func:`write_file` for content that comes in parts. If the parts fail, nothing is left behind."""
    temporary = aside(path)
    temporary.unlink(missing_ok=True)  # left by a cut
    try:
        with create(temporary, mode=mode) as file:
            for chunk in chunks:
                file.write(chunk)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def create(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Make one new file and sync it at the end; a file or link already there is an error. The caller syncs the
    folder."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def aside(path: Path) -> Path:
    """Where :func:`write_file` writes before it renames."""
    return path.with_name(f".{path.name}.tmp")


def sync_folder(folder: Path) -> None:
    """Have a folder's entries (new names, renames) on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
