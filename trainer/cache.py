"""Arrays that were computed once, kept on disk by what they were computed from. Losing it costs time, nothing else.

Every file is a ``.npy`` array and a checksum behind it, and appears by rename: what a power cut or a full disk left of
it reads as absent. What was not used for longest goes first when room is needed. Never holds what is not on disk in
memory instead.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edge.errors import ConfigError

LIMIT_VARIABLE = "FIELDMARK_CACHE_GB"
DEFAULT_LIMIT_GB = 20.0
RESERVE_BYTES = 512 * 2**20
"""Left free on the disk: a cache that fills it to the brim would keep the run itself from being written."""
_OURS = re.compile(r"(?:[0-9a-f]{32}){1,2}\.(?:npy|tflite)")
"""Files are named by a hash or a UUID. Whatever else lies in the folder somebody named is not ours to remove."""
_PART = ".part"
_OUR_PART = re.compile(r"tmp\w{8}\.part")
_PART_AGE_NS = 24 * 3600 * 10**9
"""A file still being written is younger than this; an older one was left by a run that was killed."""
_CHECKSUM_BYTES = 4
_CLOCK_STEP_NS = 20_000_000
"""A file system's clock may lag that much behind ours."""

Array = npt.NDArray[Any]


def cache_dir() -> Path:
    """``$FIELDMARK_CACHE``, else ``fieldmark`` in the user's cache folder."""
    own = os.environ.get("FIELDMARK_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fieldmark"


def limit_bytes() -> int:
    """How large the cache may grow: ``$FIELDMARK_CACHE_GB``, else 20 GB.

    Raises:
        ConfigError: the variable holds something that is no size.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        size_gb = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        size_gb = -1.0
    if not 0 <= size_gb < 1e6:
        raise ConfigError(f"{LIMIT_VARIABLE} is {text!r}, expected gigabytes such as 20, or 0 to keep nothing.")
    return int(size_gb * 1e9)


class Room:
    """How many more bytes the cache may take, with its cap and the disk's free space in view.

    Attributes:
        began_ns: when this run began to use the cache; what was used since then is never removed to make room.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = Lock()
        self.began_ns = time.time_ns() - _CLOCK_STEP_NS
        self._left = self._measure()

    def take(self, length_bytes: int) -> bool:
        """Reserve room; False if there is none."""
        with self._lock:
            if self._left < length_bytes:
                return False
            self._left -= length_bytes
            return True

    def make(self, length_bytes: int) -> None:
        """Remove what was not used for longest, but nothing of this run, until so much fits or nothing is left."""
        surplus = length_bytes - self._measure()
        if surplus > 0:
            _remove_oldest(self._root, surplus, self.began_ns)
        with self._lock:
            self._left = self._measure()

    def _measure(self) -> int:
        under_cap = limit_bytes() - sum(size for _, size, _ in _entries(self._root))
        existing = next(folder for folder in (self._root, *self._root.absolute().parents) if folder.exists())
        return min(under_cap, shutil.disk_usage(existing).free - RESERVE_BYTES)


class ArrayCache:
    """Arrays of one shape and dtype, each in a file named by its key. Safe with several threads and processes.

    Attributes:
        full: an array was not kept, for want of room or because the place cannot be written.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, room: Room | None = None) -> None:
        """Open a cache; nothing is read.

        Args:
            folder: holds this cache alone.
            shape, dtype: of every array.
            room: what new arrays may take; no bounds if None.
        """
        self._folder = folder
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._room = room
        self.full = False
        self.file_bytes = _file_bytes(shape, self._dtype)

    def has(self, key: str) -> bool:
        """Whether the array is here, by the length of its file; this counts as use. Its content is not read."""
        path = self._path(key)
        try:
            whole = path.stat().st_size == self.file_bytes
        except OSError:
            return False
        if whole:
            touch(path)
        return whole

    def get(self, key: str) -> Array | None:
        """The array, mapped from its file and not writable; None if it is not here or damaged."""
        array = read(self._path(key))
        if array is None or array.shape != self._shape or array.dtype != self._dtype:
            return None
        return array

    def put(self, key: str, array: Array) -> bool:
        """Keep an array of this cache's shape and dtype; False if it could not be kept."""
        if array.shape != self._shape or array.dtype != self._dtype:
            raise ValueError(f"expected {self._dtype} {self._shape}, found {array.dtype} {array.shape}")
        try:
            if self._room is None or self._room.take(self.file_bytes):
                self._write(self._path(key), array)
                return True
        except OSError:
            pass  # the next lines say it
        self.full = True
        return False

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.npy"

    def _write(self, path: Path, array: Array) -> None:
        write(path, array)


def read(path: Path) -> Array | None:
    """An array that :func:`write` wrote, mapped from the file and not writable; None if it is absent or damaged."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        with path.open("rb") as file:
            file.seek(-_CHECKSUM_BYTES, os.SEEK_END)
            length_bytes, checksum = file.tell(), file.read()
    except Exception:  # numpy parses a header as Python, so a damaged one raises whatever the tokenizer does
        return None
    if not isinstance(array, np.memmap) or length_bytes != array.offset + array.nbytes:
        return None
    plain = array.view(np.ndarray)
    return plain if _checksum(plain) == checksum else None


def write(path: Path, array: Array) -> None:
    """Put an array at ``path``, whole or not at all. Lets ``OSError`` through."""
    array = np.ascontiguousarray(array)
    with _appearing(path) as file:
        np.save(file, array, allow_pickle=False)
        file.write(_checksum(array))


def read_bytes(path: Path) -> bytes | None:
    """What :func:`write_bytes` wrote, or None if it is absent or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    return body if zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") == checksum else None


def write_bytes(path: Path, content: bytes) -> None:
    """Put bytes at ``path``, whole or not at all. Lets ``OSError`` through."""
    with _appearing(path) as file:
        file.write(content)
        file.write(zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "big"))


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that is at ``path`` once it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=_PART)
    try:
        with open(descriptor, "wb") as file:
            yield file
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def touch(path: Path) -> None:
    """Note that a file is in use, so that it is not the next to go."""
    now_ns = time.time_ns()
    with contextlib.suppress(OSError):  # it is gone, or somebody else's: then its owner's use counts
        os.utime(path, ns=(now_ns, now_ns))


def prune(folder: Path | None = None, max_bytes: int | None = None) -> int:
    """Remove what was not used for longest until at most ``max_bytes``, or the cache's cap, are left.

    Returns:
        The number of files removed.
    """
    folder = folder or cache_dir()
    most = limit_bytes() if max_bytes is None else max_bytes
    for path in folder.rglob(f"*{_PART}"):
        age = _facts(path) if _OUR_PART.fullmatch(path.name) else None
        if age and time.time_ns() - age[0] > _PART_AGE_NS:
            path.unlink(missing_ok=True)
    return _remove_oldest(folder, sum(size for _, size, _ in _entries(folder)) - most, time.time_ns())


def _remove_oldest(folder: Path, surplus_bytes: int, before_ns: int) -> int:
    removed = 0
    for used_ns, size, path in sorted(_entries(folder)):
        if surplus_bytes <= 0 or used_ns >= before_ns:
            break
        path.unlink(missing_ok=True)
        surplus_bytes -= size
        removed += 1
    return removed


def _entries(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Last use, length and path of every file of the cache."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            facts = _facts(path) if _OURS.fullmatch(name) else None
            if facts:
                yield (*facts, path)


def _facts(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:  # another run pruned it
        return None
    return facts.st_mtime_ns, facts.st_size


def _checksum(array: Array) -> bytes:
    return zlib.crc32(array.reshape(-1).view(np.uint8).data).to_bytes(_CHECKSUM_BYTES, "big")


def _file_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """The length of the file that :func:`write` makes."""
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)  # type: ignore[no-untyped-call]
    facts = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, facts)  # type: ignore[no-untyped-call]
    return header.tell() + math.prod(shape) * dtype.itemsize + _CHECKSUM_BYTES
