"""Random views of a photo that a camera could have taken as well. Pillow and numpy, uint8 in, uint8 out.

Only for learning: validation, calibration and gate see whole frames, as the device does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from edge.model.spec import InputSpec
from trainer.dataset.samples import Box

Pixels = npt.NDArray[np.uint8]
Rect = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels of the input."""

TRAP, TUTORIAL, NONE = "trap", "tutorial", "none"

FLIP = 0.5
ROTATE_DEGREES = 5.0
ZOOM = (0.75, 1.05)
"""Side of the kept window as a share of the photo's."""
BRIGHTNESS, CONTRAST = 0.15, 0.2
GREY = 0.15
"""How often colour is taken away, as infrared flash does at night."""
BLUR, BLUR_PIXELS = 0.1, 0.006
"""How often, and the largest radius as a share of the side: an animal that moves, a wet lens."""
CUT_OUT, CUT_OUT_SIDE = 0.15, (0.1, 0.25)
"""How often a square is hidden, as by a branch, and its side as a share (DeVries and Taylor 2017)."""
CLOSE_UP = 0.5
"""How often a photo with boxes is zoomed to them."""
CLOSEST = 0.35
"""The smallest side of such a window as a share of the photo's."""
TUTORIAL_SHEAR_DEGREES, TUTORIAL_ZOOM = 0.2, (0.8, 1.2)
"""Keras's ``ImageDataGenerator(shear_range=0.2, zoom_range=0.2)``: the shear is in degrees, so next to nothing."""

_MARGIN = 0.15  # of the side; what a view shows beyond the photo repeats the photo's edge


def view(pixels: Pixels, random: np.random.Generator, kind: str = TRAP, animals: Rect | None = None) -> Pixels:
    """One random view.

    ``trap``: a mirror image or not, a small rotation, a window of 75 to 105 % of the photo anywhere in it, other
    brightness and contrast, and sometimes no colour, a blur, a hidden square. Where it is known where the animals are,
    half of the windows are drawn around them and may be smaller. ``tutorial``: mirrored and upside down or not, sheared
    a little, zoomed to 80 to 120 % in each direction. ``none``: the photo itself.

    Args:
        pixels: uint8 RGB, shape (h, w, 3).
        random: where the chances come from.
        kind: ``trap``, ``tutorial`` or ``none``.
        animals: what a close-up must contain; see :func:`animals_in`.

    Returns:
        uint8, the same shape.
    """
    if kind == NONE:
        return pixels
    height, width = pixels.shape[:2]
    if kind == TUTORIAL:
        return np.asarray(_warped(pixels, _tutorial(height, width, random)))
    close_up = animals is not None and random.random() < CLOSE_UP
    around = _around(animals, height, width, random) if animals is not None and close_up else None
    image = _warped(pixels, _window(height, width, random) if around is None else around)
    return _hidden(np.array(_light(_blurred(image, random), random)), random)


def animals_in(boxes: Sequence[Box], size: tuple[int, int], spec: InputSpec) -> Rect | None:
    """Where a photo's boxes lie in the model's input: the smallest rectangle around all of them.

    Args:
        boxes: in shares of the whole upright photo.
        size: width and height of the whole upright photo, pixels; they matter where the spec cuts or keeps proportions.
        spec: what becomes of the photo.

    Returns:
        Pixels of the input, inside it; None without boxes, or where nothing of them is left.
    """
    if not boxes:
        return None
    (scale_x, shift_x), (scale_y, shift_y) = _placing(size, spec)
    left = min(box.x for box in boxes) * size[0] * scale_x + shift_x
    right = max(box.x + box.width for box in boxes) * size[0] * scale_x + shift_x
    top = min(box.y for box in boxes) * size[1] * scale_y + shift_y
    bottom = max(box.y + box.height for box in boxes) * size[1] * scale_y + shift_y
    left, right = max(0.0, left), min(float(spec.width), right)
    top, bottom = max(0.0, top), min(float(spec.height), bottom)
    return (left, top, right, bottom) if right - left >= 1 and bottom - top >= 1 else None


def _placing(size: tuple[int, int], spec: InputSpec) -> tuple[tuple[float, float], tuple[float, float]]:
    """Scale and shift, across and down, from the photo's pixels to the input's."""
    width, height = size[0], max(1, size[1] - spec.cut_top - spec.cut_bottom)
    scale_x, scale_y = spec.width / width, spec.height / height
    if spec.aspect != "stretch":
        scale_x = scale_y = min(scale_x, scale_y) if spec.aspect == "pad" else max(scale_x, scale_y)
    shift_x = (spec.width - width * scale_x) / 2
    shift_y = (spec.height - height * scale_y) / 2 - spec.cut_top * scale_y
    return (scale_x, shift_x), (scale_y, shift_y)


_Affine = tuple[float, float, float, float, float, float]


def _warped(pixels: Pixels, to_photo: _Affine) -> Image.Image:
    """The photo seen through an affine window; Pillow's coefficients, from a place in the view to one in the photo."""
    height, width = pixels.shape[:2]
    down, across = max(1, round(_MARGIN * height)), max(1, round(_MARGIN * width))
    wide = np.pad(pixels, ((down, down), (across, across), (0, 0)), mode="edge")
    a, b, c, d, e, f = to_photo
    return Image.fromarray(wide).transform(
        (width, height), Image.Transform.AFFINE, (a, b, c + across, d, e, f + down), Image.Resampling.BILINEAR
    )


def _window(height: int, width: int, random: np.random.Generator) -> _Affine:
    """A window anywhere in the photo."""
    side = random.uniform(*ZOOM)
    slack_x, slack_y = abs(1 - side) / 2 * width, abs(1 - side) / 2 * height
    middle = width / 2 + random.uniform(-slack_x, slack_x), height / 2 + random.uniform(-slack_y, slack_y)
    return _turned((side, side), middle, height, width, random)


def _around(animals: Rect, height: int, width: int, random: np.random.Generator) -> _Affine:
    """A window that contains the animals, somewhere in it."""
    left, top, right, bottom = animals
    needed = max((right - left) / width, (bottom - top) / height)
    side = random.uniform(min(1.0, max(CLOSEST, 1.25 * needed)), 1.0)  # a quarter more: it is turned, too
    middle = (
        _between(right - side * width / 2, left + side * width / 2, side, width, random),
        _between(bottom - side * height / 2, top + side * height / 2, side, height, random),
    )
    return _turned((side, side), middle, height, width, random)


def _between(low: float, high: float, side: float, length: int, random: np.random.Generator) -> float:
    """A middle for the window between two bounds, and such that the window stays in the photo."""
    inside = side * length / 2, length - side * length / 2
    low, high = max(low, inside[0]), min(high, inside[1])
    return random.uniform(low, high) if low < high else float(np.clip((low + high) / 2, *inside))


def _turned(
    side: tuple[float, float], middle: tuple[float, float], height: int, width: int, random: np.random.Generator
) -> _Affine:
    """A window of this size and middle, turned a little and perhaps mirrored."""
    angle = np.deg2rad(random.uniform(-ROTATE_DEGREES, ROTATE_DEGREES))
    mirror = -1.0 if random.random() < FLIP else 1.0
    a, b = side[0] * np.cos(angle) * mirror, -side[1] * np.sin(angle)
    d, e = side[0] * np.sin(angle) * mirror, side[1] * np.cos(angle)
    return _centred(a, b, d, e, middle, height, width)


def _tutorial(height: int, width: int, random: np.random.Generator) -> _Affine:
    shear = np.deg2rad(random.uniform(-TUTORIAL_SHEAR_DEGREES, TUTORIAL_SHEAR_DEGREES))
    across, down = random.uniform(*TUTORIAL_ZOOM, 2)
    mirror, flip = (-1.0 if random.random() < FLIP else 1.0 for _ in range(2))
    a, b, e = mirror * across, -down * np.sin(shear), flip * down * np.cos(shear)
    return _centred(a, b, 0.0, e, (width / 2, height / 2), height, width)


def _centred(a: float, b: float, d: float, e: float, middle: tuple[float, float], height: int, width: int) -> _Affine:
    """The affine map whose view has this middle."""
    return (
        float(a), float(b), float(middle[0] - a * width / 2 - b * height / 2),
        float(d), float(e), float(middle[1] - d * width / 2 - e * height / 2),
    )  # fmt: skip


def _blurred(image: Image.Image, random: np.random.Generator) -> Image.Image:
    if random.random() >= BLUR:
        return image
    return image.filter(ImageFilter.BoxBlur(random.uniform(0.3, max(0.4, BLUR_PIXELS * max(image.size)))))


def _light(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Other contrast and brightness by a table of 256 entries, and sometimes grey."""
    if random.random() < GREY:
        image = image.convert("L").convert("RGB")
    contrast = random.uniform(1 - CONTRAST, 1 + CONTRAST)
    brightness = random.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS)
    middle = float(np.asarray(image.resize((1, 1), Image.Resampling.BOX)).mean())
    table = ((np.arange(256) - middle) * contrast + middle) * brightness
    return image.point(np.clip(np.rint(table), 0, 255).astype(int).tolist() * 3)


def _hidden(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Sometimes a square of the photo's mean colour over it."""
    if random.random() >= CUT_OUT:
        return pixels
    height, width = pixels.shape[:2]
    share = random.uniform(*CUT_OUT_SIDE)
    down, across = max(1, round(share * height)), max(1, round(share * width))
    top, left = int(random.integers(0, height - down + 1)), int(random.integers(0, width - across + 1))
    pixels[top : top + down, left : left + across] = pixels.mean(axis=(0, 1)).astype(np.uint8)
    return pixels
