"""Random views of a photo that a camera trap could have taken as well. Pillow and numpy, uint8 in, uint8 out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

FLIP = 0.5
ROTATE_DEGREES = 5.0
ZOOM = (0.75, 1.05)
"""Side of the kept window as a share of the photo's."""
BRIGHTNESS, CONTRAST = 0.15, 0.2
GREY = 0.15
"""How often colour is taken away, as infrared flash does at night."""


def view(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """One random view.

    A flip, a small rotation, a window of 75 to 105 % of the photo anywhere in it, other brightness and contrast,
    and sometimes no colour.

    Args:
        pixels: uint8 RGB, shape (h, w, 3).
        random: where the chances come from.

    Returns:
        uint8, the same shape.
    """
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels).transform(
        (width, height), Image.Transform.AFFINE, _window(height, width, random), Image.Resampling.BILINEAR
    )
    if random.random() < GREY:
        image = image.convert("L").convert("RGB")
    values = np.asarray(image, np.float32)
    middle = values.mean()
    values = (values - middle) * random.uniform(1 - CONTRAST, 1 + CONTRAST) + middle
    return np.asarray(np.clip(values * random.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS), 0, 255), np.uint8)


def _window(height: int, width: int, random: np.random.Generator) -> tuple[float, ...]:
    """Pillow's affine coefficients: from a place in the view to the place in the photo."""
    side = random.uniform(*ZOOM)
    angle = np.deg2rad(random.uniform(-ROTATE_DEGREES, ROTATE_DEGREES))
    mirror = -1.0 if random.random() < FLIP else 1.0
    a, b = side * np.cos(angle) * mirror, -side * np.sin(angle)
    d, e = side * np.sin(angle) * mirror, side * np.cos(angle)
    slack_x, slack_y = abs(1 - side) / 2 * width, abs(1 - side) / 2 * height
    middle_x = width / 2 + random.uniform(-slack_x, slack_x)
    middle_y = height / 2 + random.uniform(-slack_y, slack_y)
    return (
        float(a), float(b), float(middle_x - a * width / 2 - b * height / 2),
        float(d), float(e), float(middle_y - d * width / 2 - e * height / 2),
    )  # fmt: skip
