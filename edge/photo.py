"""One image file as the camera wrote it: reading it within limits, its hash, time and damage. Never alters it.

Everything here meets hostile bytes: size caps come before reads, the caps on pixels and memory before decoding, and
only the five formats that cameras write are tried, by name.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import threading
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import cast

# Pillow finds a plug-in by its format's name only once it is imported.
from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from edge import decode_cost
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

_TIMES = ((0x9003, 0x9291), (0x9004, 0x9292), (0x0132, 0x9290))  # original, digitized, changed; their fractions
_OFFSETS = (0x9011, 0x9012, 0x9010)
_YEARS = range(1900, 2200)
"""Beyond is no time that a camera has, and corrections could leave the calendar."""
_EXIF_IFD = 0x8769
_MAKE, _MODEL = 0x010F, 0x0110
_SERIAL, _TEMPERATURE, _MAKER_NOTE = 0xA431, 0x9400, 0x927C
_ORIENTATION = 0x0112
_MOST_FACT = 200  # characters

_GREY = range(127, 129)
"""What libjpeg fills in where a JPEG's data ends early, give or take rounding."""
_LEAST_GREY = 8  # pixels side by side
_WIDEST_STRIP = 1 / 8  # of the height
_DARK, _BRIGHT = 32, 247
_END, _TABLES = b"\xff\xd9", 0xC4  # of a JPEG: end of image, Huffman tables
_ZEROS = bytes(512)  # a block of a disk
_TWO = bytes(2)


class Photo:
    """A file's bytes, read once."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._hashing: threading.Thread | None = None
        self._sha256: str | None = None

    @property
    def sha256(self) -> str:
        """Of the bytes, in hex; computed when it is first asked for."""
        if self._hashing is not None:
            self._hashing.join()
        if self._sha256 is None:
            self._hash()
        return cast("str", self._sha256)

    def hash_aside(self) -> None:
        """Have another thread compute :attr:`sha256` from now on; hashing and decoding go on at the same time then."""
        self._hashing = threading.Thread(target=self._hash, name="fieldmark-hash", daemon=True)
        self._hashing.start()

    def _hash(self) -> None:
        self._sha256 = hashlib.sha256(self.data).hexdigest()


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


@dataclass(frozen=True, slots=True)
class CameraFacts:
    """What a camera writes of itself; None where it does not.

    Attributes:
        serial: the camera's own serial number.
        temperature_c: as the camera measured it.
        burst: the photo's number in its burst, from 1.
    """

    make: str | None = None
    model: str | None = None
    serial: str | None = None
    temperature_c: float | None = None
    burst: int | None = None


def is_candidate(path: Path) -> bool:
    """Whether a file of this name gets a row; see :func:`is_candidate_name`."""
    return is_candidate_name(path.name)


def is_candidate_name(name: str) -> bool:
    """Whether a file of this name gets a row: photo, picture and video endings, but no hidden or temporary names, such
    as ``.name.jpg.x7Q``, ``~name.jpg``, ``name.jpg~``, ``name.jpg.part``, ``.tmp`` or ``.filepart``."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem and dot) and f".{suffix.lower()}" in _CANDIDATES and not name.startswith((".", "~"))


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
    return Photo(data)


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
            (more than 80 megapixels, or more memory to decode than :data:`edge.decode_cost.MAX_DECODE_BYTES`, or a
            header over its cap).
    """
    if not data:
        raise PhotoError("the photo is empty (0 bytes).", code="empty")
    decode_cost.check_file(data)
    file = decode_cost.Reader(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's bomb warning; our own cap below is stricter
            image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PhotoError(f"the photo claims more than {MAX_PIXELS} pixels.", code="too large") from error
    except PhotoError:
        raise
    except Exception as error:  # Pillow's parsers raise many kinds on damaged headers
        raise PhotoError(_unrecognised(name), code="unrecognised") from error
    if image.width * image.height > MAX_PIXELS:
        raise PhotoError(
            f"the photo claims {image.width} x {image.height} pixels, at most {MAX_PIXELS} are decoded.",
            code="too large",
        )
    file.opened()
    decode_cost.check(image)
    if image.format in ("JPEG", "MPO"):
        image.decodermaxblock = len(data)  # in one piece, which is `data` itself: by default 64 KB are copied at a time
    return image


def _unrecognised(name: str) -> str:
    suffix = Path(name).suffix
    if suffix.lower() in OTHER_IMAGE_SUFFIXES:
        return f"{name} is a {suffix[1:].upper()} picture, which is not decoded here; set the camera to JPEG."
    return "the file is not a JPEG, PNG, TIFF, WebP or MPO photo, or its header is damaged."


def camera(image: Image.Image) -> tuple[str | None, str | None]:
    """Camera make and model as EXIF has them."""
    facts = camera_facts(image)
    return facts.make, facts.model


def camera_facts(image: Image.Image) -> CameraFacts:
    """What the camera wrote of itself: EXIF's own tags, and the maker notes of Reconyx cameras, which have no others
    for temperature, serial number and burst. Each text has at most 200 characters."""
    try:
        exif = _exif(image)
        detail = exif.get_ifd(_EXIF_IFD)
        make, model, serial = (_text(value) for value in (exif.get(_MAKE), exif.get(_MODEL), detail.get(_SERIAL)))
        noted = _reconyx(detail.get(_MAKER_NOTE))
        temperature_c = _celsius(detail.get(_TEMPERATURE))
    except Exception:  # broken EXIF costs the facts in it, not the photo
        return CameraFacts()
    return CameraFacts(
        make and make[:_MOST_FACT],
        model and model[:_MOST_FACT],
        serial[:_MOST_FACT] if serial else noted.serial,
        noted.temperature_c if temperature_c is None else temperature_c,
        noted.burst,
    )


# Where the maker notes of two generations have burst number, degrees Celsius and serial number, as bytes from their
# beginning. Both are little-endian; the serial number has 15 UTF-16 characters.
_RECONYX = ((b"\x01\xf1", 0x0E, 0x28, 0x2A), (b"RECONYXH2\0", 0x36, 0x50, 0x7E))
_SERIAL_BYTES = 30


def _reconyx(note: object) -> CameraFacts:
    """What Reconyx HyperFire (HC500 to PC900) and HyperFire 2 cameras note."""
    for start, burst_at, temperature_at, serial_at in _RECONYX:
        if isinstance(note, bytes) and note.startswith(start) and len(note) >= serial_at + _SERIAL_BYTES:
            burst, of = struct.unpack_from("<HH", note, burst_at)
            (degrees,) = struct.unpack_from("<h", note, temperature_at)
            serial = note[serial_at : serial_at + _SERIAL_BYTES].decode("utf-16-le", "replace").partition("\0")[0]
            if 1 <= burst <= of <= 99 and serial.isascii() and serial.isprintable():  # else it is another layout
                return CameraFacts(serial=serial.strip() or None, temperature_c=_celsius(degrees), burst=burst)
    return CameraFacts()


def _celsius(value: object) -> float | None:
    """A temperature that a camera can have; EXIF's "unknown" is a fraction over zero or below any."""
    try:
        degrees = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return degrees if -60 <= degrees <= 90 else None


def damage(image: Image.Image, data: bytes) -> str | None:
    """What is visibly wrong with a photo although it decodes; None where nothing is.

    A JPEG whose data ends before the picture does, and that has an end marker all the same, opens without complaint:
    libjpeg fills the rest with one grey. A progressive one is only unsharp then, so its scans are counted.

    Args:
        image: decoded, at any scale, and not yet resized.
        data: the file's bytes.
    """
    if image.format not in ("JPEG", "MPO"):
        return None  # the other formats have checksums, or fail where something is missing
    return _missing_rows(image) or _broken_scans(image, data)


def _missing_rows(image: Image.Image) -> str | None:
    width, height = image.size
    rows, colour = _flat_rows(image)
    if rows and not _is_flat(image.crop((0, 0, width, 1)), colour):  # else it is a frame, or there is nothing to see
        # Of a photo that was cut the first block is left. Other colours come from zeros or rubbish in the data; a strip
        # that a camera prints is narrower, and what is over- or underexposed can be flat.
        if _is_grey(colour) or (rows >= height * _WIDEST_STRIP and not _is_extreme(colour)):
            return f"its lower {max(1, round(100 * rows / height))} % are missing"
    elif not rows:
        last = image.crop((width - max(_LEAST_GREY, width // 16), height - 1, width, height))
        colour = _first(last)
        if _is_grey(colour) and _is_flat(last, colour):
            return "its last blocks are missing"
    return None


def _flat_rows(image: Image.Image) -> tuple[int, tuple[int, ...]]:
    """How many rows at the lower edge have one colour, and which."""
    width, height = image.size
    colour = _first(image.crop((0, height - 1, 1, height)))
    if not _is_flat(image.crop((0, height - 1, width, height)), colour):
        return 0, colour
    low, high = 0, height - 1
    while low < high:  # the first row from which on all are
        middle = (low + high) // 2
        if _is_flat(image.crop((0, middle, width, middle + 1)), colour):
            high = middle
        else:
            low = middle + 1
    return height - low, colour


def _first(part: Image.Image) -> tuple[int, ...]:
    found = part.getpixel((0, 0))
    return found if isinstance(found, tuple) else (int(found or 0),)


def _is_flat(part: Image.Image, colour: tuple[int, ...]) -> bool:
    found = part.getextrema()
    bands = found if isinstance(found[0], tuple) else (found,)
    return all(low >= band - 1 and high <= band + 1 for (low, high), band in zip(bands, colour, strict=True))


def _is_grey(colour: tuple[int, ...]) -> bool:
    return all(band in _GREY for band in colour)


def _is_extreme(colour: tuple[int, ...]) -> bool:
    return max(colour) <= _DARK or min(colour) >= _BRIGHT


def _broken_scans(image: Image.Image, data: bytes) -> str | None:
    """What the coded data itself shows: that it does not end, that a part of it was never written, that scans are
    missing."""
    start = decode_cost.first_scan(data)
    if start < 0:
        return None
    if data.rfind(_END, start) < 0:
        return "it has no end marker, so its last part may be missing or wrong"
    if image.info.get("progressive"):
        return None if _has_all_scans(data) else "its last scans are missing, so it is unsharp"
    zeros = first_zeros(data, start)
    if 0 <= zeros < data.find(_END, start) and not _flat_is_zeros(data):
        return "a part of it was never written"
    return None


def first_zeros(data: bytes, start: int) -> int:
    """Where the first 512 zeros in a row begin, as ``data.find`` says it; -1 where there are none.

    They hold two neighbours of every 256th byte, which are looked at first: of a large photo that is long out of the
    processor's caches, reading it all would take longer than all other checks.
    """
    step = len(_ZEROS) // 2
    few = data[start::step]
    at = few.find(_TWO)
    while at >= 0:
        low, high = max(start, start + (at - 1) * step), start + (at + 2) * step + len(_ZEROS)
        if (found := data.find(_ZEROS, low, high)) >= 0:
            return found
        at = few.find(_TWO, at + 1)
    return -1


def _flat_is_zeros(data: bytes) -> bool:
    """Whether zeros can be a flat part of the picture: only where they are every table's code for "end of block"."""
    for marker, at, end in decode_cost.segments(data):
        while marker == _TABLES and at + 17 < end:  # class and number, sixteen counts, as many values
            if data[at] >> 4 == 1 and data[at + 17] != 0:
                return False
            at += 17 + sum(data[at + 1 : at + 17])
    return True


def _has_all_scans(data: bytes) -> bool:
    """Whether a progressive JPEG's scans bring every coefficient of every component to its last bit."""
    missing: dict[int, set[int]] = {}
    for head in _scans(data):
        count = head[0]
        first, last, bits = head[1 + 2 * count : 4 + 2 * count]
        for component in head[1 : 1 + 2 * count : 2]:
            left = missing.setdefault(component, set(range(64)))
            if bits & 0x0F == 0:
                left.difference_update(range(first, last + 1))
    return not any(missing.values())


def _scans(data: bytes) -> list[bytes]:
    """Each scan's header."""
    found = []
    at = decode_cost.first_scan(data)
    while at >= 0:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        head = data[at + 4 : at + 2 + length]
        if len(head) < 6 or len(head) != 4 + 2 * head[0]:
            break
        found.append(head)
        at = data.find(b"\xff\xda", at + 2 + length)  # no coded data holds these two bytes
    return found


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
    """When a photo was taken: as EXIF has it (original, else digitized, else changed), else a pattern in the file name,
    else the file's time.

    Args:
        path: only its name is read.
        modified_s: the file's modification time, seconds since 1970.
        image: the opened photo, or None where it does not open.
        utc_offset: the camera's offset, ``+hh:mm``, where the user said it. EXIF's own offset goes first, and ``Z`` in
            a name.
    """
    local, own_offset = _exif_time(image) if image is not None else (None, None)
    source = "exif"
    if local is None:
        source = "name"
        local, own_offset = _name_time(path.name, own_offset)
    offset = own_offset or utc_offset
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
        values = {**exif.get_ifd(_EXIF_IFD), _TIMES[-1][0]: exif.get(_TIMES[-1][0])}
        times = [(_parse_exif(_text(values.get(tag))), _text(values.get(fraction))) for tag, fraction in _TIMES]
        offsets = [_text(values.get(tag)) for tag in _OFFSETS]
    except Exception:  # broken EXIF costs the facts in it, not the photo
        return None, None
    local, subsec = next((each for each in times if each[0]), (None, None))
    if local and subsec and re.fullmatch(r"[0-9]+", subsec):
        local = f"{local}.{subsec[:6]}"
    offset = next(filter(None, offsets), "")
    return local, offset if re.fullmatch(r"[+-](0\d|1[0-4]):[0-5]\d", offset, re.ASCII) else None


def _parse_exif(text: str | None) -> str | None:
    """``2024:05:01 06:12:09`` to ISO; None for what is not a time (``0000:00:00 00:00:00`` is common), or of which the
    half of the day is in words."""
    match = re.match(
        r"(\d{4})[:\-/]([\d ]\d)[:\-/]([\d ]\d)[ T]([\d ]\d):([\d ]\d):([\d ]\d)(?! ?[AaPp]\.?[Mm])", text or ""
    )
    return _iso(*match.groups()) if match else None


def _name_time(name: str, offset: str | None) -> tuple[str | None, str | None]:
    """A time written as ``20240501_061209``, ``2024-05-01 06.12.09``, ``20240501061209123`` and the like inside a file
    name, and its offset where a ``Z`` says that it is UTC."""
    match = re.search(
        r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_ T.]{0,2}"
        r"(\d\d)[-_.:h]?(\d\d)[-_.:m]?(\d\d)(\d{3})?(?!\d)(Z(?![A-Za-z]))?",
        name,
    )
    local = _iso(*match.groups()[:6]) if match else None
    if not match or not local:
        return None, offset
    return f"{local}.{match[7]}" if match[7] else local, "+00:00" if match[8] else offset


def _iso(*parts: str) -> str | None:
    try:
        moment = datetime(*(int(part) for part in parts))  # type: ignore[arg-type]
    except ValueError:
        return None
    return moment.isoformat() if moment.year in _YEARS else None


def _zone(offset: str) -> timezone:
    sign = -1 if offset[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[4:6])))


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    text = str(value).strip("\x00 \t\r\n") if value is not None else ""
    return text or None
