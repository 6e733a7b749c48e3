"""Does anybody have a file open for writing? Asked of the Linux kernel, which knows.

A read lease (``fcntl(2)``, ``F_SETLEASE``) is granted only where no process has the file open for writing. It is given
back at once. Where leases do not work, the answer is that nobody knows. Never waits and never writes.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import signal
import stat
from dataclasses import dataclass
from pathlib import Path

from edge.agent.mounts import filesystem

# A network folder's server does not know who writes on another machine, or refuses every lease.
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "virtiofs"})


class Writer(enum.Enum):
    """Whether somebody has a file open for writing."""

    NOBODY = "nobody"
    SOMEBODY = "somebody"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Look:
    """A file at one moment.

    Attributes:
        changed_s: when its content, name or times last changed, by this machine's clock, seconds since 1970.
        writer: asked while the size was read, so with ``NOBODY`` the size is whole.
    """

    size_bytes: int
    mtime_ns: int
    changed_s: float
    writer: Writer


def look(path: Path) -> Look | None:
    """Look at a file; None where there is no regular file of that name (links are not followed)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        return _unopened(path)
    except OSError:
        return None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return None
        if filesystem(facts.st_dev) in _NETWORK:
            return _seen(facts, Writer.UNKNOWN)
        writer = _take(descriptor)
        try:
            return _seen(os.fstat(descriptor), writer)  # again: it may have grown before the lease was taken
        finally:
            if writer is Writer.NOBODY:
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> Writer:
    if not hasattr(fcntl, "F_SETLEASE"):
        return Writer.UNKNOWN
    try:
        # Who opens the file for writing during these microseconds makes the kernel send us a signal. The usual one
        # would end the process; this one is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Writer.SOMEBODY if error.errno == errno.EAGAIN else Writer.UNKNOWN
    return Writer.NOBODY


def _unopened(path: Path) -> Look | None:
    try:
        facts = path.lstat()
    except OSError:
        return None
    return _seen(facts, Writer.UNKNOWN) if stat.S_ISREG(facts.st_mode) else None


def _seen(facts: os.stat_result, writer: Writer) -> Look:
    # Copying with `cp -p` sets the modification time back; the inode's own time cannot be set.
    return Look(facts.st_size, facts.st_mtime_ns, max(facts.st_mtime, facts.st_ctime), writer)
