"""From a photo to the pixels that a model sees: the only code that does this, on workstation and device.

Training, calibration, the gate, golden photos and the agent all call :func:`to_pixels`, so what a model learned
from is what it meets in the forest. It never normalises: that is the first layer of every model graph.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge import decode_cost
from edge import photo as photos
from edge.errors import PhotoError
from edge.model.spec import InputSpec

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels

_RESAMPLE = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
}
REVISION = 2
"""Raised with every change here that changes pixels: caches of pixels go by it."""
_ROUNDING = 1e-6  # of a pixel
_BAND_ROWS = 64

# EXIF orientation (CIPA DC-008, tag 0x0112) to the transposition that sets the photo upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


def to_pixels(image: Image.Image, spec: InputSpec) -> Pixels:
    """Turn an opened photo into model input.

    A JPEG is decoded at 1/2, 1/4 or 1/8 scale where that is still at least as large as the input (libjpeg's DCT
    scaling), which on a 12-megapixel photo saves four fifths of the time.

    Args:
        image: as :func:`edge.photo.open_image` returns it, not yet decoded. It is decoded here.
        spec: size, filter and cuts.

    Returns:
        uint8 RGB, shape (height, width, 3), 0 to 255.

    Raises:
        PhotoError: the photo is truncated or broken, takes too much memory at the scale that the input needs, or
            nothing is left after the cuts.
    """
    orientation = _orientation(image)
    sideways = orientation in _SIDEWAYS
    width, height = _turned(image, orientation)
    kept = _kept(width, height, spec)
    inner_width, inner_height = _inner_size(kept, spec)
    stored_size = (inner_height, inner_width) if sideways else (inner_width, inner_height)
    box = _stored_box(kept, width, height, orientation)
    # The whole picture at this size leaves the kept part at least as large as the input.
    enough = (
        math.ceil(image.width * stored_size[0] / (box[2] - box[0])),
        math.ceil(image.height * stored_size[1] / (box[3] - box[1])),
    )
    before = image.size
    rgb = _load(image, enough)

    shrunk_x, shrunk_y = rgb.width / before[0], rgb.height / before[1]
    inside = _inside((box[0] * shrunk_x, box[1] * shrunk_y, box[2] * shrunk_x, box[3] * shrunk_y), rgb.size)
    # Cropped first: with resize's own box the filter reaches over the edge, into the strip that was cut off.
    small = (rgb if inside == (0, 0, *rgb.size) else rgb.crop(inside)).resize(stored_size, _RESAMPLE[spec.resample])
    if orientation in _UPRIGHT:
        small = small.transpose(_UPRIGHT[orientation])
    if spec.aspect == "pad":
        canvas = Image.new("RGB", (spec.width, spec.height))
        canvas.paste(small, ((spec.width - inner_width) // 2, (spec.height - inner_height) // 2))
        small = canvas
    return np.array(small, dtype=np.uint8)  # a copy: (h, w, 3) uint8, writable and contiguous


def to_fit(image: Image.Image, width: int, height: int, *, enlarge: bool = False) -> Pixels:
    """The whole of an opened photo, upright and in its proportions, as large as fits into a space; for people to see.

    Args:
        image: as for :func:`to_pixels`.
        width, height: of the space, pixels.
        enlarge: also beyond its own size.

    Returns:
        uint8 RGB, shape (at most height, at most width, 3), 0 to 255.

    Raises:
        PhotoError: see :func:`to_pixels`.
    """
    wide, high = upright_size(image)
    scale = min(width / wide, height / high, math.inf if enlarge else 1.0)
    return to_pixels(image, InputSpec(max(1, round(high * scale)), max(1, round(wide * scale))))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened photo as it stands upright; of one that is decoded already, of what it is now.

    Raises:
        PhotoError: it is a PNG that is broken; that one is decoded for it.
    """
    return _turned(image, _orientation(image))


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG":
        _load(image)  # EXIF may stand behind the pixels
    return photos.orientation(image)


def _turned(image: Image.Image, orientation: int) -> tuple[int, int]:
    return (image.height, image.width) if orientation in _SIDEWAYS else image.size


def _inside(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The whole pixels inside a box, at least one; at most those of the picture."""
    (left, right), (top, bottom) = (
        (max(0, math.ceil(low - _ROUNDING)), min(most, math.floor(high + _ROUNDING)))
        for low, high, most in ((box[0], box[2], size[0]), (box[1], box[3], size[1]))
    )
    left, top = min(left, size[0] - 1), min(top, size[1] - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _load(image: Image.Image, enough: tuple[int, int] | None = None) -> Image.Image:
    """Decode, a JPEG perhaps smaller but not below ``enough`` (width, height), and convert to RGB."""
    stored = image.size
    try:
        image.draft("RGB", enough)
        decode_cost.check(image, stored)
        image.load()
        return _to_rgb(image)
    except PhotoError:
        raise
    except Exception as error:
        raise _decode_error(error) from error


def _kept(width: int, height: int, spec: InputSpec) -> Box:
    """The part of the upright photo that the model sees, in its original pixels."""
    top, bottom = float(spec.cut_top), float(height - spec.cut_bottom)
    if bottom - top < 1:
        raise PhotoError(
            f"the photo has {height} rows and the model cuts {spec.cut_top + spec.cut_bottom}. "
            "Use a model made for this camera.",
            code="too small",
        )
    if spec.aspect != "crop":
        return 0.0, top, float(width), bottom
    scale = min(width / spec.width, (bottom - top) / spec.height)
    half_width, half_height = spec.width * scale / 2, spec.height * scale / 2
    x, y = width / 2, (top + bottom) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def _inner_size(kept: Box, spec: InputSpec) -> tuple[int, int]:
    """Width and height of the photo inside the input, upright."""
    if spec.aspect != "pad":
        return spec.width, spec.height
    width, height = kept[2] - kept[0], kept[3] - kept[1]
    scale = min(spec.width / width, spec.height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _stored_box(kept: Box, width: int, height: int, orientation: int) -> Box:
    """The same part in the picture as it is stored, still unturned."""
    left, top, right, bottom = kept
    mirrored, flipped = (width - right, width - left), (height - bottom, height - top)
    across = mirrored if orientation in (2, 3, 7, 6) else (left, right)
    down = flipped if orientation in (3, 4, 7, 8) else (top, bottom)
    x, y = (down, across) if orientation in _SIDEWAYS else (across, down)
    return x[0], y[0], x[1], y[1]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit PNG and TIFF
        wide = np.asarray(image)
        top = 65535.0 if wide.max(initial=0) > 255 else 255.0
        grey = np.empty(wide.shape, np.uint8)
        for i in range(0, len(wide), _BAND_ROWS):  # as float64 the whole would take 24 bytes per pixel
            band = wide[i : i + _BAND_ROWS].astype(np.float64)
            grey[i : i + _BAND_ROWS] = np.clip(band / top, 0, 1) * 255
        return Image.fromarray(grey, "L").convert("RGB")
    return image.convert("RGB")


def _decode_error(error: Exception) -> PhotoError:
    text = str(error)
    if "truncated" in text or "Truncated" in text:
        return PhotoError("the photo is truncated: its last part is missing.", code="truncated")
    return PhotoError(f"the photo cannot be decoded: {text or type(error).__name__}.", code="undecodable")
