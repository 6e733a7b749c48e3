"""A JPEG without anything but its picture: no EXIF, no place, no thumbnail, no second picture, and the same pixels.

Owns the walk along a JPEG's segments. A bundle travels to every device and to whoever gets hold of it, and the EXIF of
a rare animal's photo says where it lives. Never decodes, and never repairs: what is odd is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from edge.errors import PhotoError

MAX_BYTES = 16 * 2**20
MAX_PIXELS = 16_000_000
"""Of a picture to be carried along: a progressive one is held whole in memory while it is decoded."""
MAX_SEGMENTS = 1000
MAX_SCANS = 64

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_DHT, _DQT, _DRI = 0xC4, 0xDB, 0xDD
_FRAMES = {0xC0: False, 0xC1: False, 0xC2: True}  # baseline and extended, by Huffman, are not progressive
_APP0, _APP14, _COM = 0xE0, 0xEE, 0xFE
_TABLES = (_DHT, _DQT, _DRI)
_JFIF, _JFIF_BYTES = b"JFIF\0", 14
_ADOBE, _ADOBE_BYTES = b"Adobe", 12
_SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""In a scan 0xFF stands before 0, which makes it data, or before a restart mark; anything else ends the scan."""


@dataclass(frozen=True)
class Stripped:
    """A picture and nothing else.

    Attributes:
        data: the JPEG.
        width, height: pixels, as stored: its EXIF orientation is gone.
        sampling: of brightness and colours, such as ``2x2,1x1,1x1`` for 4:2:0.
        progressive: whether it comes in several scans from coarse to fine.
    """

    data: bytes
    width: int
    height: int
    sampling: str
    progressive: bool


@dataclass(frozen=True)
class _Frame:
    width: int
    height: int
    sampling: str
    progressive: bool


def strip(data: bytes) -> Stripped:
    """Take everything out of a JPEG that is not needed to decode it to the same pixels.

    JFIF (without its thumbnail) and the Adobe segment stay, since they decide how colours are read; so do tables and
    scans. Other application segments, comments, and whatever follows the first picture are left out.

    Args:
        data: a file, at most :data:`MAX_BYTES` long.

    Raises:
        PhotoError: with code ``jpeg``: it is no JPEG, damaged, or of a rare kind (arithmetic, lossless, CMYK).
    """
    if len(data) > MAX_BYTES:
        raise _refuse(f"it has {len(data)} bytes, at most {MAX_BYTES} are taken")
    if data[:2] != bytes((0xFF, _SOI)):
        raise _refuse("it does not begin as one")
    frame: _Frame | None = None
    kept, scans = [data[:2]], 0
    for marker, payload, scan in _segments(data):
        if marker in _FRAMES:
            if frame is not None:
                raise _refuse("it has two frames")
            frame = _read_frame(payload, _FRAMES[marker])
        if marker == _SOS:
            scans += 1
            if frame is None or scans > MAX_SCANS:
                raise _refuse("a scan comes before its frame" if frame is None else f"more than {MAX_SCANS} scans")
        content = _kept(marker, payload)
        if content is not None:
            kept += [_segment(marker, content), scan]
    if frame is None or scans == 0:
        raise _refuse("it holds no picture")
    whole = b"".join((*kept, bytes((0xFF, _EOI))))
    return Stripped(whole, frame.width, frame.height, frame.sampling, frame.progressive)


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, payload, and the scan that follows it, if one does, of each segment before the picture's end."""
    position = 2
    for _ in range(MAX_SEGMENTS):
        marker, position = _marker(data, position)
        if marker == _EOI:
            return
        payload, position = _payload(data, position)
        end = _scan_end(data, position) if marker == _SOS else position
        yield marker, payload, data[position:end]
        position = end
    raise _refuse(f"it has more than {MAX_SEGMENTS} segments")


def _kept(marker: int, payload: bytes) -> bytes | None:
    """What stays of a segment; None if nothing does."""
    if marker == _APP0:
        # The last two bytes are the thumbnail's sides, and the thumbnail follows.
        return payload[: _JFIF_BYTES - 2] + b"\0\0" if payload[:5] == _JFIF and len(payload) >= _JFIF_BYTES else None
    if marker == _APP14:
        return payload[:_ADOBE_BYTES] if payload[:5] == _ADOBE and len(payload) >= _ADOBE_BYTES else None
    if marker in _TABLES or marker in _FRAMES or marker == _SOS:
        return payload
    if marker == _COM or _APP0 < marker <= 0xEF:
        return None
    raise _refuse(f"its segment 0x{marker:02X} is of a rare kind")


def _marker(data: bytes, position: int) -> tuple[int, int]:
    """The marker at a position and where it ends; bytes of 0xFF may come before it, as filling."""
    start = position
    while position < len(data) and data[position] == 0xFF:
        position += 1
    if position >= len(data) or position == start:
        raise _refuse("it is cut short" if position >= len(data) else "a segment is not where it must be")
    return data[position], position + 1


def _payload(data: bytes, position: int) -> tuple[bytes, int]:
    length = int.from_bytes(data[position : position + 2], "big")
    end = position + length
    if length < 2 or end > len(data):
        raise _refuse("it is cut short")
    return data[position + 2 : end], end


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def _scan_end(data: bytes, position: int) -> int:
    found = _SCAN_END.search(data, position)
    if found is None:
        raise _refuse("it is cut short")
    return found.start()


def _read_frame(payload: bytes, progressive: bool) -> _Frame:
    components = payload[5] if len(payload) > 5 else 0
    if payload[0:1] != b"\x08" or components not in (1, 3) or len(payload) != 6 + 3 * components:
        raise _refuse("it is neither grey nor of three colours with 8 bits each")
    height, width = int.from_bytes(payload[1:3], "big"), int.from_bytes(payload[3:5], "big")
    if not 0 < width * height <= MAX_PIXELS:
        raise _refuse(f"it has {width} x {height} pixels, 1 to {MAX_PIXELS} are taken")
    factors = [payload[7 + 3 * i] for i in range(components)]
    if any(not (1 <= factor >> 4 <= 4 and 1 <= factor & 15 <= 4) for factor in factors):
        raise _refuse("its sampling is none")
    return _Frame(width, height, ",".join(f"{f >> 4}x{f & 15}" for f in factors), progressive)


def _refuse(reason: str) -> PhotoError:
    return PhotoError(f"the photo is not a JPEG that can be carried along: {reason}.", code="jpeg")
