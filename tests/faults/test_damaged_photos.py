"""Thousands of broken, huge and odd files in one folder: one agent takes them all, in little memory, a row each."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from edge.agent.plan import Plan
from tests import scale
from tests.faults import clients, device, power
from tests.faults.memory import resident_mb

MOST_MB = 150.0
BOMB_OF_40_BYTES = "5249464620000000574542505650384c140000002f3f9fc309075081540820000a9afec78888fe07"
"""A lossless WebP photo of one colour, 8,000 x 9,999 pixels."""


def _photo(number: int) -> bytes:
    """A JPEG with something in it; of 12 megapixels now and then."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    side = (4000, 3000) if number == 0 else (640, 480) if number % 3 else (1600, 1200)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 06:12:09"
    out = io.BytesIO()
    Image.fromarray(small).resize(side, Image.Resampling.BICUBIC).save(
        out, "JPEG", exif=exif, progressive=number % 4 == 1, quality=80
    )
    return out.getvalue()


# Damage


def _flipped(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 8, 200))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _flipped_header(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 4))):
        out[rng.randrange(min(700, len(out)))] = rng.randrange(256)
    return bytes(out)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _cut_with_an_end(data: bytes, rng: random.Random) -> bytes:
    return _cut(data, rng) + b"\xff\xd9"


def _overwritten(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randrange(1, 5000)) + data[at + 2000 :]


def _zeroed(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data)) // 512 * 512
    return data[:at] + bytes(min(4096, len(data) - at)) + data[at + 4096 :]


def _random(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((0, 2, 4, 20))] + rng.randbytes(rng.randrange(3000))


def _claims_more(data: bytes, rng: random.Random) -> bytes:
    """Another size in the header than there are pixels: up to 65,535 x 65,535."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    sides = rng.choice(((60_000, 60_000), (65_535, 65_535), (8_000, 10_000), (1, 65_535), (0, 0)))
    return data[: at + 5] + struct.pack(">HH", *sides) + data[at + 9 :]


DAMAGE: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flipped, _flipped_header, _cut, _cut_with_an_end, _overwritten, _zeroed, _random, _claims_more,
)  # fmt: skip


# Odd files


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _zeros(length_bytes: int) -> bytes:
    """So many zeros, packed by zlib to a thousandth."""
    packer, block = zlib.compressobj(1), bytes(2**20)
    parts = [packer.compress(block) for _ in range(length_bytes // len(block) + 1)]
    return b"".join(parts) + packer.flush()


def _tiff(width: int, height: int, packed: bytes) -> bytes:
    """One strip of RGB, packed by zlib."""
    tags = [(256, width), (257, height), (258, 8), (259, 8), (262, 2), (273, 122), (277, 3), (278, height)]
    tags.append((279, len(packed)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed


def _png(width: int, height: int, *chunks: bytes, depth: int = 8) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks)


def _jpeg_with_exif(length_mb: int) -> bytes:
    """A whole JPEG behind so many megabytes of EXIF segments."""
    whole = _photo(1)
    segment = b"\xff\xe1\xff\xff" + b"Exif\0\0" + bytes(65_527)
    return whole[:2] + segment * (length_mb * 16) + whole[2:]


def odd_files() -> dict[str, bytes]:
    """Formats and sizes that no camera trap should write, by file name."""
    grey = Image.new("L", (64, 48), 90)
    colour, other = Image.new("RGB", (64, 48), (200, 10, 10)), Image.new("RGB", (64, 48), (10, 10, 200))
    several = {"save_all": True, "append_images": [other] * 5}
    wide = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64))
    zeros = _zeros(3 * 8_000 * 9_999 + 9_999)
    return {
        "animated.gif": _saved(colour, "GIF", **several),
        "gif-in-disguise.jpg": _saved(colour, "GIF", **several),
        "animated.webp": _saved(colour, "WEBP", **several),
        "lossless.webp": _saved(colour.convert("RGBA"), "WEBP", lossless=True),
        "animated.png": _saved(colour, "PNG", **several),
        "pages.tif": _saved(colour, "TIFF", **several),
        "sixteen-bit.tif": _saved(wide, "TIFF"),
        "float.tif": _saved(grey.convert("F"), "TIFF"),
        "lzw.tif": _saved(colour, "TIFF", compression="tiff_lzw"),
        "several.mpo": _saved(colour, "MPO", **several),
        "sixteen-bit.png": _saved(wide, "PNG"),
        "one-bit.png": _saved(grey.convert("1"), "PNG"),
        "palette.png": _saved(colour.convert("P"), "PNG"),
        "grey-alpha.png": _saved(grey.convert("LA"), "PNG"),
        "cmyk.jpg": _saved(colour.convert("CMYK"), "JPEG"),
        "grey.jpg": _saved(grey, "JPEG"),
        "one-pixel.jpg": _saved(colour.resize((1, 1)), "JPEG"),
        "long.jpg": _saved(colour.resize((20_000, 1)), "JPEG"),
        "bmp.jpg": _saved(colour, "BMP"),
        "jpeg2000.jpg": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(500),
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(2000),
        "heic.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(2000),
        "text.jpg": b"no photo\n" * 50,
        "zip.jpg": b"PK\x03\x04" + bytes(100),
        "nothing.jpg": b"",
        "bomb.png": _png(60_000, 60_000, _chunk(b"IDAT", zeros), _chunk(b"IEND", b"")),
        "bomb-under-the-cap.png": _png(8_000, 9_999, _chunk(b"IDAT", zeros), _chunk(b"IEND", b"")),
        "bomb-under-the-cap.tif": _tiff(8_000, 9_999, zeros),
        "largest.png": _saved(colour.resize((4_900, 3_500)), "PNG"),
        "largest.webp": _saved(colour.resize((2_300, 1_850)), "WEBP"),
        "largest.tif": _saved(colour.resize((3_400, 2_550)), "TIFF", compression="tiff_deflate"),
        "largest-progressive.jpg": _saved(colour.resize((5_600, 4_000)), "JPEG", progressive=True),
        "bomb-under-the-cap.webp": bytes.fromhex(BOMB_OF_40_BYTES),
        "text-bomb.png": _png(64, 48, *[_chunk(b"zTXt", b"k\0\0" + zeros)] * 20, _chunk(b"IEND", b"")),
        "exif-30-mb.jpg": _jpeg_with_exif(30),
        "exif-100-mb.jpg": _jpeg_with_exif(100),
        "exif-100-mb.png": _png(64, 48, _chunk(b"eXIf", b"II*\0" + bytes(100 * 2**20)), _chunk(b"IEND", b"")),
        "exif-loop.jpg": _exif_that_points_at_itself(),
    }


def _exif_that_points_at_itself() -> bytes:
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8)
    whole = _photo(1)
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + whole[2:]


def _put_what_is_no_file(folder: Path) -> None:
    """Names like photos', and nothing that may be read."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "link.jpg").symlink_to("/dev/zero")
    (folder / "nowhere.jpg").symlink_to(folder / "missing")


def test_damaged_and_odd_files_end_as_a_row_each_in_little_memory(device_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    _put_what_is_no_file(folder)
    names = {name for name, data in _files() if (folder / name).write_bytes(data) == len(data)}
    plan = device.plan(device_root, folder)
    assert _heavy(plan, names) == []
    with device.reading(plan.log) as connection:
        rows = [row[0] for row in connection.execute("SELECT path FROM file")]
        unforeseen = connection.execute("SELECT path, failure_reason FROM file WHERE failure_code = 'unexpected'")
        assert unforeseen.fetchall() == []
        called_empty = "SELECT sha256 FROM photo JOIN classification ON photo_id = photo.id WHERE damaged"
        assert connection.execute(f"{called_empty} AND label = 'empty'").fetchall() == []
    assert sorted(rows) == sorted(names)
    status, said = power.run_to_end(device.agent(replace(plan, once=True)))
    assert status == 0, said
    assert clients.differences(plan, device_root) == []


def _files() -> Iterator[tuple[str, bytes]]:
    yield from odd_files().items()
    rng, whole = device.rng("damage"), [_photo(number) for number in range(12)]
    for number in range(scale.count("damaged_photos")):
        yield f"damaged-{number:05d}.jpg", DAMAGE[number % len(DAMAGE)](rng.choice(whole), rng)


def _heavy(plan: Plan, names: Collection[str]) -> list[str]:
    """Have one agent take all; the files before or at which its memory rose to a new height above the limit."""
    left, found, most_mb = set(names), list[str](), MOST_MB
    with power.speaking(device.agent(plan), most_s=power.LONG_S + len(names) / 10) as child:
        for line in child.lines():
            left.discard(line.partition(": ")[0])
            now_mb = resident_mb(child.process.pid, "VmHWM")
            if now_mb > most_mb:
                most_mb = now_mb
                found.append(f"{now_mb:.0f} MB: {line}")
            if not left:
                break
    assert not left, child.said[-5:]
    return found
