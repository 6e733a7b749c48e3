"""A drawn photo as a 12-megapixel camera would write it, so that a benchmark needs no photo that is not ours.

It looks like clouds of leaves: structure at every scale, as nature has it, and a sensor's grain, which together make a
JPEG of a camera's size. Only its cost counts; nothing is in it to be recognised.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

WIDTH, HEIGHT = 4000, 3000
QUALITY = 85
_COARSE = (40, 26, 17, 12, 9, 8, 9, 9, 9)
"""Brightness of the layers, from 4 cells across the photo to 1024."""
_GRAIN = 10
_CHROMA_420 = 2
_COMMENT = b"\xff\xfe\x00\x12"


def photo(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> bytes:
    """A JPEG of quality 85 with 4:2:0 chroma and a camera's EXIF; 3.7 MB at 4000 x 3000."""
    rng = np.random.default_rng(seed)
    light = rng.standard_normal((height, width), dtype=np.float32) * np.float32(_GRAIN)
    for doublings, amplitude in enumerate(_COARSE):
        light += _layer(rng, 4 * 2**doublings, amplitude, width, height)
    rgb = np.empty((height, width, 3), np.uint8)
    for channel, base in enumerate((105, 118, 88)):
        rgb[..., channel] = np.clip(light + _layer(rng, 12, 10, width, height) + base, 0, 255)
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=QUALITY, subsampling=_CHROMA_420, exif=_exif())
    return out.getvalue()


def variants(data: bytes, count: int) -> Iterator[bytes]:
    """The same photo with another comment each time: another content for the log, the same work to decode."""
    for number in range(count):
        yield data[:2] + _COMMENT + b"%016d" % number + data[2:]


def _layer(rng: np.random.Generator, cells: int, amplitude: float, width: int, height: int) -> npt.NDArray[np.float32]:
    small = rng.standard_normal((cells * 3 // 4 + 1, cells + 1), dtype=np.float32)
    smooth = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth) * np.float32(amplitude)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E], exif[0x010F], exif[0x0110] = "A drawing, not a photograph", "Drawn", "Fieldmark benchmark"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 06:12:09"
    return exif
