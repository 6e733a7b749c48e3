"""What a picture would cost is known before it costs it, and photos of cameras are let through."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge import decode_cost, photo
from edge.errors import PhotoError
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec
from tests.faults.test_damaged_photos import BOMB_OF_40_BYTES

SIDE = (1600, 1200)


def saved(form: str, mode: str = "RGB", size: tuple[int, int] = SIDE, **options: Any) -> bytes:
    """A photo of one colour."""
    out = io.BytesIO()
    picture = Image.new("RGB", size, (90, 40, 20))
    if mode == "I;16":
        Image.fromarray(np.full(size[::-1], 3000, np.uint16)).save(out, form, **options)
    else:
        picture.convert(mode).save(out, form, **options)
    return out.getvalue()


def claiming(width: int, height: int, *, progressive: bool = True, subsampling: int = 2) -> bytes:
    """A JPEG whose header claims another size."""
    data = bytearray(saved("JPEG", size=(64, 48), progressive=progressive, subsampling=subsampling))
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def one_component_a_scan(width: int, height: int) -> bytes:
    """A sequential JPEG whose first scan has only the brightness."""
    data = bytearray(claiming(width, height, progressive=False))
    at = decode_cost.first_scan(bytes(data))
    data[at : at + 14] = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(4)
    return bytes(data)


def png(width: int, height: int, colour: int = 2) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def png_with_late_exif(length: int) -> bytes:
    """EXIF behind the pixels, where it is only read when these are decoded."""
    chunk = b"eXIf" + bytes(length)
    whole = png(8, 6)
    return whole[:-12] + struct.pack(">I", length) + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[-12:]


def tile_of(side: int) -> bytes:
    """A small TIFF of one tile that is far larger than the picture."""
    packed = zlib.compress(bytes(9))
    tags = [(256, 64), (257, 48), (258, 8), (259, 8), (262, 2), (277, 3), (322, side), (323, side)]
    tags += [(324, 134), (325, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed


def jpeg_behind(length_mb: int) -> bytes:
    whole = saved("JPEG", size=(64, 48))
    return whole[:2] + (b"\xff\xe1\xff\xff" + bytes(65_533)) * (16 * length_mb) + whole[2:]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(bytes.fromhex(BOMB_OF_40_BYTES), id="a WebP of 40 bytes and 80 megapixels"),
        pytest.param(b"RIFF" + bytes(30_000_000), id="a WebP of 30 MB, which would be copied"),
        pytest.param(png(8000, 9999), id="a PNG of 80 megapixels"),
        pytest.param(png(4000, 3000, colour=6), id="a PNG of 12 megapixels with transparency"),
        pytest.param(claiming(8000, 9999), id="a progressive JPEG of 80 megapixels"),
        pytest.param(claiming(6000, 4000, subsampling=0), id="a progressive JPEG of 24 megapixels in full colour"),
        pytest.param(one_component_a_scan(8000, 9999), id="a sequential JPEG with a scan for each component"),
        pytest.param(saved("TIFF", size=(4000, 3000), compression="tiff_deflate", tiffinfo={278: 3000}), id="a TIFF"),
        pytest.param(tile_of(8192), id="a TIFF with a tile of 67 megapixels"),
        pytest.param(jpeg_behind(5), id="a JPEG behind 5 MB of EXIF"),
        pytest.param(jpeg_behind(5)[:-600], id="the same without its pixels"),
        pytest.param(png_with_late_exif(5 * 2**20), id="a PNG before 5 MB of EXIF"),
    ],
)
def test_what_takes_too_much_memory_is_refused_with_a_cure(content: bytes) -> None:
    with pytest.raises(PhotoError, match=r"(Set the camera to|Save it without)") as caught:
        photo.open_image(content)
    assert caught.value.code == "too large"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(claiming(10_000, 8000, progressive=False), id="a plain JPEG of 80 megapixels"),
        pytest.param(claiming(4000, 3000, subsampling=1), id="a progressive JPEG of 12 megapixels, 4:2:2"),
        pytest.param(claiming(5184, 3888), id="a progressive JPEG of 20 megapixels"),
        pytest.param(png(4000, 3000), id="a PNG of 12 megapixels"),
        pytest.param(png(1290, 2796, colour=6), id="a telephone's screenshot"),
        pytest.param(saved("WEBP", size=(2048, 1536)), id="a WebP of 3 megapixels"),
        pytest.param(saved("TIFF", size=(3264, 2448)), id="a TIFF of 8 megapixels, not compressed"),
        pytest.param(jpeg_behind(3), id="a JPEG behind 3 MB of EXIF"),
    ],
)
def test_what_cameras_and_telephones_write_is_opened(content: bytes) -> None:
    photo.open_image(content)


def test_a_long_plain_jpeg_is_refused_where_the_model_needs_it_at_full_size() -> None:
    image = photo.open_image(claiming(65_500, 440, progressive=False))
    with pytest.raises(PhotoError) as caught:
        to_pixels(image, InputSpec(440, 440))
    assert caught.value.code == "too large"


def test_a_decoded_picture_costs_nothing_more() -> None:
    image = photo.open_image(saved("JPEG", progressive=True))
    first = to_pixels(image, InputSpec(64, 64))
    decode_cost.check(image, (30_000, 2000))
    assert (to_pixels(image, InputSpec(64, 64)) == first).all()


MEASURE = """
import re, sys
from pathlib import Path
from edge import decode_cost, photo
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

to_pixels(photo.open_image(Path(sys.argv[1]).read_bytes()), InputSpec(64, 64))
data = Path(sys.argv[2]).read_bytes()
Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
before = most()
image = photo.open_image(data)
said = decode_cost.decode_bytes(image)
to_pixels(image, InputSpec(64, 64))
print(said, most() - before)
"""
KINDS: list[tuple[str, str, dict[str, Any]]] = [
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "L", {}),
    ("PNG", "P", {}),
    ("PNG", "I;16", {}),
    ("TIFF", "RGB", {"compression": "tiff_deflate", "tiffinfo": {278: SIDE[1]}}),
    ("TIFF", "RGB", {"compression": "tiff_deflate", "tiffinfo": {0x0112: 6}}),
    ("TIFF", "F", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("WEBP", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    ("JPEG", "RGB", {"progressive": True, "subsampling": 2}),
    ("JPEG", "CMYK", {"progressive": True}),
    ("JPEG", "RGB", {}),
]


@pytest.mark.parametrize(("form", "mode", "options"), KINDS, ids=lambda value: str(value)[:40])
def test_a_picture_takes_no_more_than_was_said(tmp_path: Path, form: str, mode: str, options: dict[str, Any]) -> None:
    (tmp_path / "warm").write_bytes(saved(form, mode, size=(64, 48), **options))
    (tmp_path / "photo").write_bytes(saved(form, mode, **options))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "warm"), str(tmp_path / "photo")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ, timeout=60)
    said, took = map(int, done.stdout.split())
    assert took < said * 1.1 + 4e6  # of a million pixels, and what the process takes besides
