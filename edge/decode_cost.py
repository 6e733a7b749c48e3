"""What decoding a picture would cost in memory, known from its header: the bound that keeps a device alive.

A file of 40 bytes can claim 80 megapixels and take more than a gigabyte. Nothing is decoded here, and nothing is ever
refused after it has cost the memory.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

from PIL import Image

from edge.errors import PhotoError

MAX_DECODE_BYTES = 70_000_000
"""For a file and its picture together. The agent alone has about 70 MB with two models and shall stay below 150. JPEG
photos of cameras need far less, since they are decoded at 1/8 to 1/2 scale; this takes a progressive one of 20
megapixels whose file has up to 8 MB, and an RGB PNG of 12 megapixels and 20 MB."""
LARGE_BYTES = MAX_DECODE_BYTES // 8
"""What takes more is read and decoded by one thread at a time."""
MAX_HEADER_BYTES = 4 * 2**20
"""For what stands beside the pixels: EXIF, thumbnails, colour profiles, texts. Pillow keeps copies of it."""

_CURE = "Set the camera to plain (not progressive) JPEG, or save the picture as one."
_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # per pixel in Pillow; all others 4
_COPIES = 3  # of a WebP file: it is opened as a whole
_SMALLEST = 8  # libjpeg decodes at 1/8 of width and height without the rest
_TILE, _STRIP_ROWS, _BITS, _SAMPLES = (322, 323), 278, 258, 277
_WIDE_BITS = frozenset({"I", "F"})


class Reader(io.BytesIO):
    """A file's bytes, of which only so many are read while a picture is opened.

    It counts what Pillow really reads, so that no second parser has to agree with Pillow's about broken headers.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        # A WebP file is read whole on opening; its length is bounded by check_file.
        self._left: float = math.inf if data[:4] == b"RIFF" else MAX_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """As ``io.BytesIO`` has it.

        Raises:
            PhotoError: with code ``too large``: the header is longer than its cap.
        """
        found = super().read(size)
        self._left -= len(found)
        if self._left < 0:
            raise _long_header()
        return found

    def opened(self) -> None:
        """From here on all may be read."""
        self._left = math.inf


def check_file(data: bytes) -> None:
    """Refuse what would cost too much already when it is opened, or that no header tells of.

    Raises:
        PhotoError: with code ``too large``.
    """
    if data[:4] == b"RIFF" and _COPIES * len(data) > MAX_DECODE_BYTES:
        most = MAX_DECODE_BYTES // _COPIES
        raise PhotoError(f"the WebP photo has {len(data)} bytes, at most {most} are decoded. {_CURE}", code="too large")
    if data[:8] == b"\x89PNG\r\n\x1a\n" and _beside_pixels(data) > MAX_HEADER_BYTES:
        raise _long_header()


def check(image: Image.Image, stored: tuple[int, int] | None = None) -> None:
    """Refuse a picture that takes too much memory to decode.

    Args:
        image: opened, not decoded.
        stored: where ``draft`` was called, (width, height) before it; else a JPEG counts as at 1/8 scale, which it
            can always be decoded at.

    Raises:
        PhotoError: with code ``too large``.
    """
    if getattr(image, "fp", None) is None:
        return  # decoded already
    needed = decode_bytes(image, stored)
    if needed > MAX_DECODE_BYTES:
        raise PhotoError(
            f"the photo would take {math.ceil(needed / 1e6)} MB to decode, at most {MAX_DECODE_BYTES // 10**6} are "
            f"taken. {_CURE}",
            code="too large",
        )


def decode_bytes(image: Image.Image, stored: tuple[int, int] | None = None) -> int:
    """About how many bytes a picture takes until it is RGB, with its file; measured, never much too low.

    Args:
        image, stored: see :func:`check`.
    """
    width, height = stored or image.size
    pixels = width * height
    data = _data(image)
    in_rgb = _per_pixel(image)
    if image.format in ("JPEG", "MPO"):
        decoded = math.prod(image.size) if stored else math.prod(math.ceil(side / _SMALLEST) for side in image.size)
        return len(data) + decoded * in_rgb + (_coefficient_bytes(image, pixels) if _keeps_coefficients(image) else 0)
    if image.format == "WEBP":
        # Two canvases and the decoder's own picture, all with four bytes per pixel, besides Pillow's.
        return _COPIES * len(data) + pixels * (12 + in_rgb)
    if image.format == "TIFF":
        return len(data) + pixels * in_rgb + _tiff_extra(image, width, height)
    return len(data) + pixels * in_rgb


def _per_pixel(image: Image.Image) -> int:
    own = _BYTES.get(image.mode, 4)
    if image.mode == "RGB":
        return own
    wide = image.mode in _WIDE_BITS or image.mode.startswith("I;16")  # a copy of these, and eight bits twice
    return own + (own + 2 if wide else 0) + 4


def _data(image: Image.Image) -> bytes:
    """The file's bytes, not copied; none where the picture was not opened from them, or is decoded already."""
    file = getattr(image, "fp", None)
    return file.getvalue() if isinstance(file, io.BytesIO) else b""


def _keeps_coefficients(image: Image.Image) -> bool:
    """Whether libjpeg holds a JPEG's coefficients as a whole, at full size whatever the scale: where its components
    do not all come in one scan, as in every progressive one."""
    if image.info.get("progressive"):
        return True
    data = _data(image)
    at = first_scan(data)
    return at < 0 or data[at + 4 : at + 5] != bytes([len(getattr(image, "layer", ()))])


def _coefficient_bytes(image: Image.Image, pixels: int) -> int:
    """Two bytes for each sample of each component, which are fewer for colour than for brightness."""
    components: list[tuple[int, ...]] = list(getattr(image, "layer", ()))
    layers = [(max(1, across), max(1, down)) for _, across, down, *_ in components]
    if not layers:
        return 8 * pixels
    most = max(across for across, _ in layers) * max(down for _, down in layers)
    return math.ceil(2 * pixels * sum(across * down for across, down in layers) / most)


def _tiff_extra(image: Image.Image, width: int, height: int) -> int:
    """One strip or tile as libtiff unpacks it, and the copy that is turned upright."""
    packed = any(tile[0] != "raw" for tile in getattr(image, "tile", ()))
    try:
        tags = image.tag_v2  # type: ignore[attr-defined]
        across, down = (int(tags.get(tag, 0)) for tag in _TILE)
        if not (across and down):
            across, down = width, min(height, int(tags.get(_STRIP_ROWS, height)))
        sample_bytes = math.ceil(max(tags.get(_BITS, (8,))) / 8)
        turned = tags.get(0x0112, 1) != 1
        per_pixel = max(4, sample_bytes * int(tags.get(_SAMPLES, 1)))
    except (TypeError, ValueError, OverflowError):  # a broken tag: count with the worst
        across, down, per_pixel, turned = width, height, 16, True
    return (across * down * per_pixel if packed else 0) + (4 * width * height if turned else 0)


def first_scan(data: bytes) -> int:
    """Where a JPEG's first scan header begins, past all segments before it, of which one can hold a thumbnail; -1
    where there is none."""
    return next((at - 4 for marker, at, _ in segments(data) if marker == 0xDA), -1)


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """A JPEG's segments up to the first scan's header: marker, and where the content begins and ends."""
    at = 2
    while data[at : at + 1] == b"\xff" and at + 1 < len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at + 4, end
        if marker == 0xDA:
            return
        at = end


def _beside_pixels(data: bytes) -> int:
    """How many bytes of a PNG are not pixels. Those behind the pixels are read when these are decoded."""
    at, found = 8, 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in (b"IDAT", b"fdAT"):
            found += min(length, len(data) - at)
        at += 12 + length
    return found


def _long_header() -> PhotoError:
    return PhotoError(
        f"the photo has more than {MAX_HEADER_BYTES} bytes of EXIF and the like beside its pixels. "
        "Save it without them.",
        code="too large",
    )
