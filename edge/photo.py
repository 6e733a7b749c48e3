"""One image file as the camera wrote it: reading it within limits, its hash, its time. Never alters it.

Everything here meets hostile bytes: size caps come before reads, the pixel cap before decoding, and only the
five formats that cameras write are tried, by name.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

# Pillow finds a plug-in by its format's name only once it is imported.
from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from edge.errors import PhotoError

FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,  # and MPO, which it recognises by a marker inside
        PngImagePlugin.PngImageFile,
        TiffImagePlugin.TiffImageFile,
        WebPImagePlugin.WebPImageFile,
    )
)
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".mts", ".mkv", ".wmv", ".3gp", ".asf"})
"""Camera traps write these beside photos. They end as a row that says so, not as silence."""
OTHER_IMAGE_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".bmp", ".gif", ".dng", ".cr2", ".cr3", ".nef", ".arw"})
"""Pictures that Fieldmark does not decode. They, too, end as a row that says so."""

_CANDIDATES = PHOTO_SUFFIXES | VIDEO_SUFFIXES | OTHER_IMAGE_SUFFIXES

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 80_000_000
"""The largest sensors in camera traps give 48 megapixels; a small file can claim 60,000 x 60,000."""

_DATETIME_ORIGINAL, _DATETIME = 0x9003, 0x0132
_OFFSET_ORIGINAL, _OFFSET = 0x9011, 0x9010
_SUBSEC_ORIGINAL = 0x9291
_EXIF_IFD = 0x8769
_MAKE, _MODEL = 0x010F, 0x0110
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Photo:
    """A file's bytes, read once, with their SHA-256 in hex."""

    data: bytes
    sha256: str


@dataclass(frozen=True)
class Taken:
    """When a photo was taken.

    Attributes:
        local: the camera's clock, ISO 8601 without offset, ``2024-05-01T06:12:09``, with a fraction if it has one.
        utc_offset: ``+hh:mm``; a camera has one fixed offset, it knows no daylight saving.
        source: ``exif``, ``name`` (a pattern in the file name) or ``file`` (the file's modification time).
        flags: ``offset-assumed`` where nobody said the offset, ``not-exif`` where EXIF had no time.
    """

    local: str
    utc_offset: str
    source: str
    flags: tuple[str, ...]

    @property
    def iso(self) -> str:
        """ISO 8601 with offset."""
        return self.local + self.utc_offset


def is_candidate(path: Path) -> bool:
    """Whether a file of this name gets a row: photo, picture and video endings, but no hidden or temporary names."""
    return not path.name.startswith((".", "~")) and path.suffix.lower() in _CANDIDATES


def read(path: Path) -> Photo:
    """Read a photo's bytes once.

    Raises:
        PhotoError: with code ``missing``, ``denied``, ``not a file``, ``empty``, ``too large``, ``video``
            or ``unreadable``.
    """
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise PhotoError(
            f"{path.name} is a video; Fieldmark reads photos. Extract frames to classify it.", code="video"
        )
    try:
        # O_NONBLOCK: a named pipe put in the folder must not hang the agent.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            length_bytes = _checked_length(path, os.fstat(descriptor))
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(length_bytes)  # what is written meanwhile is for the next look
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise PhotoError(f"{path.name} is gone.", code="missing") from error
    except PermissionError as error:
        raise PhotoError(f"{path.name} may not be read by this user.", code="denied") from error
    except OSError as error:
        raise PhotoError(f"{path.name} cannot be read: {error.strerror}.", code="unreadable") from error
    except ValueError as error:  # NUL, or half a character, in a name that a list gave
        raise PhotoError(f"{path.name!r} is not a name that a file can have.", code="missing") from error
    return Photo(data, hashlib.sha256(data).hexdigest())


def _checked_length(path: Path, facts: os.stat_result) -> int:
    if not stat.S_ISREG(facts.st_mode):
        raise PhotoError(f"{path.name} is not a regular file.", code="not a file")
    if facts.st_size == 0:
        raise PhotoError(f"{path.name} is empty (0 bytes).", code="empty")
    if facts.st_size > MAX_BYTES:
        raise PhotoError(f"{path.name} has {facts.st_size} bytes, at most {MAX_BYTES} are read.", code="too large")
    return facts.st_size


def open_image(data: bytes, name: str = "") -> Image.Image:
    """Open a photo without decoding it.

    Args:
        name: the file's, if it is known; a reason can then name a format that is not decoded.

    Raises:
        PhotoError: with code ``empty``, ``unrecognised`` (none of the five formats), ``truncated`` or ``too large``
            (more than 80 megapixels).
    """
    if not data:
        raise PhotoError("the photo is empty (0 bytes).", code="empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's bomb warning; our own cap below is stricter
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PhotoError(f"the photo claims more than {MAX_PIXELS} pixels.", code="too large") from error
    except Exception as error:  # Pillow's parsers raise many kinds on damaged headers
        raise PhotoError(_unrecognised(name), code="unrecognised") from error
    if image.width * image.height > MAX_PIXELS:
        raise PhotoError(
            f"the photo claims {image.width} x {image.height} pixels, at most {MAX_PIXELS} are decoded.",
            code="too large",
        )
    return image


def _unrecognised(name: str) -> str:
    suffix = Path(name).suffix
    if suffix.lower() in OTHER_IMAGE_SUFFIXES:
        return f"{name} is a {suffix[1:].upper()} picture, which is not decoded here; set the camera to JPEG."
    return "the file is not a JPEG, PNG, TIFF, WebP or MPO photo, or its header is damaged."


def camera(image: Image.Image) -> tuple[str | None, str | None]:
    """Camera make and model as EXIF has them."""
    try:
        exif = _exif(image)
        return _text(exif.get(_MAKE)), _text(exif.get(_MODEL))
    except Exception:  # broken EXIF costs the facts in it, not the photo
        return None, None


def orientation(image: Image.Image) -> int:
    """How the stored picture must be turned to stand upright, 1 to 8 as EXIF has it. 1, upright already, where EXIF
    does not say or is broken, and for a TIFF: Pillow turns that one when it decodes it."""
    if image.format == "TIFF":
        return 1
    try:
        return int(_exif(image).get(_ORIENTATION, 1))
    except Exception:  # broken EXIF costs the facts in it, not the photo
        return 1


def taken(path: Path, modified_s: float, image: Image.Image | None, utc_offset: str | None = None) -> Taken:
    """When a photo was taken: EXIF ``DateTimeOriginal``, else a pattern in the file name, else the file's time.

    Args:
        path: only its name is read.
        modified_s: the file's modification time, seconds since 1970.
        image: the opened photo, or None where it does not open.
        utc_offset: the camera's offset, ``+hh:mm``, where the user said it. EXIF's own offset goes first.
    """
    offset = utc_offset
    local: str | None = None
    source = "exif"
    if image is not None:
        local, exif_offset = _exif_time(image)
        offset = exif_offset or offset
    if local is None:
        local, source = _name_time(path.name), "name"
    flags = [] if offset else ["offset-assumed"]
    zone = offset or "+00:00"
    if source != "exif":
        flags.append("not-exif")
    if local is None:
        source = "file"
        local = _file_time(modified_s, _zone(zone))
    return Taken(local, zone, source, tuple(flags))


def _exif(image: Image.Image) -> Image.Exif:
    """EXIF as far as it is known without decoding. A PNG's own ``getexif`` decodes, and a failure that is swallowed
    there leaves a picture of rubbish that no later ``load`` complains about."""
    return Image.Image.getexif(image)


def _file_time(modified_s: float, zone: timezone) -> str:
    try:
        moment = datetime.fromtimestamp(modified_s, zone)
    except (ValueError, OverflowError, OSError):  # file systems go beyond the year 9999
        moment = datetime.fromtimestamp(0, zone)
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


def _exif_time(image: Image.Image) -> tuple[str | None, str | None]:
    try:
        exif = _exif(image)
        detail = exif.get_ifd(_EXIF_IFD)
        raw = detail.get(_DATETIME_ORIGINAL) or exif.get(_DATETIME)
        offset = detail.get(_OFFSET_ORIGINAL) or detail.get(_OFFSET)
        subsec = _text(detail.get(_SUBSEC_ORIGINAL))
    except Exception:  # broken EXIF costs the facts in it, not the photo
        return None, None
    local = _parse_exif(_text(raw))
    if local and subsec and re.fullmatch(r"[0-9]+", subsec):
        local = f"{local}.{subsec[:6]}"
    text = _text(offset)
    return local, text if text and re.fullmatch(r"[+-](0\d|1[0-4]):[0-5]\d", text, re.ASCII) else None


def _parse_exif(text: str | None) -> str | None:
    """``2024:05:01 06:12:09`` to ISO; None for what is not a time (``0000:00:00 00:00:00`` is common)."""
    match = re.match(r"(\d{4})[:\-/](\d\d)[:\-/](\d\d)[ T](\d\d):(\d\d):(\d\d)", text or "")
    return _iso(*match.groups()) if match else None


def _name_time(name: str) -> str | None:
    """A time written as ``20240501_061209``, ``2024-05-01 06.12.09`` and the like inside a file name."""
    match = re.search(
        r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_ T.]{1,2}(\d\d)[-_.:h]?(\d\d)[-_.:m]?(\d\d)(?!\d)", name
    )
    return _iso(*match.groups()) if match else None


def _iso(*parts: str) -> str | None:
    try:
        return datetime(*(int(part) for part in parts)).isoformat()  # type: ignore[arg-type]
    except ValueError:
        return None


def _zone(offset: str) -> timezone:
    sign = -1 if offset[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[4:6])))


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    text = str(value).strip("\x00 \t\r\n") if value is not None else ""
    return text or None
