"""Small pictures of the photos, so that a log that was carried away can be reviewed without the originals.

``var/lib/fieldmark/previews/ab/<sha256>.jpg``: at most 640 pixels and 30 kB, upright, without EXIF (and so without a
position). All together stay under a cap; the oldest go first. Never reads, alters or deletes an original.
"""

from __future__ import annotations

import heapq
import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edge import durable
from edge.agent.people import Treatment
from edge.errors import DeviceError, PhotoError

if TYPE_CHECKING:
    from PIL import Image

    from edge.log.store import Log

MAX_SIDE, MAX_BYTES = 640, 30_000
BELOW_ROOT = Path("var", "lib", "fieldmark", "previews")

_QUALITIES = (75, 55, 40, 25, 15)
_SMALLER = (480, 320, 160)  # of noise, which no quality makes small
_BLURRED_SIDE = 16
_RELEASED_AT_ONCE = 0.05  # of the cap, so that the folder is searched rarely
_MOST_AT_ONCE = 2_000
_OURS = re.compile(r"[0-9a-f]{64}\.jpg")


def render(image: Image.Image, treatment: Treatment) -> bytes | None:
    """The preview of a photo, or None where it is withheld. Several threads may do this at a time.

    Args:
        image: a photo of :func:`edge.photo.open_image`; best the one that the classifier has decoded, perhaps smaller,
            so that nothing is decoded twice.

    Returns:
        A JPEG of at most 30,000 bytes.

    Raises:
        PhotoError: it cannot be decoded.
    """
    if treatment is Treatment.WITHHOLD:
        return None
    small = _upright(image, MAX_SIDE)
    if treatment is Treatment.BLUR:
        small = blurred(small)
    for quality in _QUALITIES:
        data = _jpeg(small, quality)
        if len(data) <= MAX_BYTES:
            return data
    for side in _SMALLER:
        small.thumbnail((side, side))
        data = _jpeg(small, _QUALITIES[-1])
        if len(data) <= MAX_BYTES:
            return data
    raise PhotoError(f"no preview of at most {MAX_BYTES} bytes can be made.", code="preview")  # pragma: no cover


def blurred(image: Image.Image) -> Image.Image:
    """A picture in which nobody is recognised and no sharpening brings anybody back: of the longer side 16 pixels are
    kept, all else is made up between them."""
    from PIL import Image, ImageFilter

    scale = _BLURRED_SIDE / max(image.size)
    few = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)
    smooth = few.resize(image.size, Image.Resampling.BICUBIC)
    return smooth.filter(ImageFilter.GaussianBlur(max(image.size) / _BLURRED_SIDE / 4))


def _upright(image: Image.Image, side: int) -> Image.Image:
    from PIL import Image

    from edge.model.preprocess import to_fit

    return Image.fromarray(to_fit(image, side, side))  # from an array, so nothing of the file's metadata comes along


def _jpeg(image: Image.Image, quality: int) -> bytes:
    with _file_in_memory() as file:
        image.save(file, "JPEG", quality=quality, optimize=True)
        file.seek(0)
        return file.read()


def _file_in_memory() -> BinaryIO:
    """Where the system has such files: into them Pillow encodes while other threads run, into ``io.BytesIO`` not."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("preview", os.MFD_CLOEXEC), "w+b")
    return io.BytesIO()


class Previews:
    """The folder of the previews; several threads may use it."""

    def __init__(self, folder: Path, cap_bytes: int) -> None:
        """Set up; nothing is read or made yet.

        Args:
            cap_bytes: of all previews together; 0 for none at all.
        """
        self.folder, self.cap_bytes = folder, cap_bytes
        self._total_bytes: int | None = None
        self._lock = threading.Lock()

    def path(self, sha256: str) -> Path:
        """Where the preview of a photo lies, or would."""
        return self.folder / sha256[:2] / f"{sha256}.jpg"

    @property
    def total_bytes(self) -> int:
        """How much all of them take; counted once and then kept up."""
        if self._total_bytes is None:
            self._total_bytes = sum(size for _, size, _ in self._each())
        return self._total_bytes

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a preview. Its content is on the disk on return; its name is after the next write to the log, which
        syncs the same file system, or else the preview is made again.

        Raises:
            DeviceError: it cannot be written.
        """
        path = self.path(sha256)
        with self._lock:
            total_bytes = self.total_bytes
            try:
                self._make_folder(path.parent)
                before_bytes = path.stat().st_size if path.exists() else 0
                _write(path, data)
            except OSError as error:
                raise DeviceError(
                    f"{path}: the preview cannot be written: {error.strerror}.", code="preview"
                ) from error
            self._total_bytes = total_bytes + len(data) - before_bytes

    def remove(self, sha256: str) -> None:
        """Remove a preview that may no longer be kept, if there is one."""
        path = self.path(sha256)
        with self._lock, suppress(FileNotFoundError):
            size_bytes = path.stat().st_size
            path.unlink()
            if self._total_bytes is not None:
                self._total_bytes -= size_bytes

    def make_room(self, log: Log) -> int:
        """Release the oldest previews where all together are over the cap.

        Returns:
            How many were released. There may be more to do; call it again later.

        Raises:
            LogError: the log cannot be written; what it does not say is released is still there.
        """
        if self.total_bytes <= self.cap_bytes:
            return 0
        chosen = list(self._oldest(self.total_bytes - int(self.cap_bytes * (1 - _RELEASED_AT_ONCE))))
        with log.batch():
            for path, _ in chosen:
                log.set_preview(path.stem, "released")
        # After the row: a cut between them leaves a file that is among the oldest the next time, too.
        for path, _ in chosen:
            self.remove(path.stem)
        return len(chosen)

    def _oldest(self, bytes_to_go: int) -> Iterator[tuple[Path, int]]:
        for _, size_bytes, path in heapq.nsmallest(_MOST_AT_ONCE, self._each()):
            if bytes_to_go <= 0:
                return
            bytes_to_go -= size_bytes
            yield path, size_bytes

    def _each(self) -> Iterator[tuple[int, int, Path]]:
        """Time, size and path of each preview. Anything else in the folder is not ours."""
        for folder in _entries(self.folder):
            if folder.is_dir(follow_symlinks=False):
                for entry in _entries(Path(folder.path)):
                    if _OURS.fullmatch(entry.name) and entry.name.startswith(folder.name):
                        with suppress(FileNotFoundError):
                            facts = entry.stat(follow_symlinks=False)
                            yield facts.st_mtime_ns, facts.st_size, Path(entry.path)

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            _give_to_owner_of(folder.parent, folder)
            durable.sync_folder(folder.parent)


def _write(path: Path, data: bytes) -> None:
    aside = durable.aside(path)
    aside.unlink(missing_ok=True)  # left by a cut
    try:
        with durable.create(aside, mode=0o640) as file:  # people may be in it
            file.write(data)
        _give_to_owner_of(path.parent, aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _give_to_owner_of(folder: Path, path: Path) -> None:
    """What root makes beside a running agent, that agent must be able to read and write."""
    if os.geteuid() == 0:
        owner = folder.stat()
        with suppress(OSError):  # a file system without owners
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:  # not there yet, or a failing card
        return
