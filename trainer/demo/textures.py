"""Noise that looks like something: tileable fields from which ground, bark, water and fur are made.

Every field is computed once per process; nothing is read from disk.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Kind = Literal["clouds", "patches", "leaves", "sand", "bark", "ripples", "fur"]

SIDE = 1024
"""Rows and columns of every texture; a power of two, so that an index wraps with a bit mask."""

# Exponent of the falling spectrum (0.3 is nearly white noise, 1.5 is soft clouds), and how many times longer the
# structures are along the rows than along the columns.
_KINDS: dict[Kind, tuple[float, float]] = {
    "clouds": (1.5, 1.0),
    "patches": (1.25, 1.0),
    "leaves": (0.95, 1.0),
    "sand": (0.3, 1.0),
    "bark": (0.95, 0.08),
    "ripples": (1.05, 8.0),
    "fur": (0.8, 3.0),
}


@lru_cache(maxsize=len(_KINDS))
def texture(kind: Kind) -> Field:
    """A tileable random field, float32 (1024, 1024), mean 0, standard deviation 1. Do not write into it."""
    roughness, stretch = _KINDS[kind]
    rng = np.random.default_rng(list(_KINDS).index(kind))
    rows = np.fft.fftfreq(SIDE)[:, None] * SIDE
    columns = np.fft.rfftfreq(SIDE)[None, :] * SIDE
    distance = np.hypot(rows / np.sqrt(stretch), columns * np.sqrt(stretch))
    distance[0, 0] = np.inf  # no constant part: the mean becomes 0
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) / distance**roughness
    field = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
    return np.asarray(field / field.std(), dtype=np.float32)


def sample(kind: Kind, x: npt.ArrayLike, y: npt.ArrayLike) -> Field:
    """Look a texture up at broadcast coordinates, in texture pixels; it repeats in both directions."""
    columns = np.asarray(x).astype(np.int32) & (SIDE - 1)
    rows = np.asarray(y).astype(np.int32) & (SIDE - 1)
    return np.asarray(texture(kind)[rows, columns])


def patch(kind: Kind, rng: np.random.Generator, shape: tuple[int, ...], *, scale: float = 1.0) -> Field:
    """A window of a texture at a random place, of shape (height, width); ``scale`` above 1 enlarges its structures."""
    height, width = shape
    top, left = (int(n) for n in rng.integers(0, SIDE, 2))
    rows = (top + np.arange(height) / scale).astype(np.int64) & (SIDE - 1)
    columns = (left + np.arange(width) / scale).astype(np.int64) & (SIDE - 1)
    return texture(kind).take(rows, axis=0).take(columns, axis=1)


def smoothstep(x: npt.ArrayLike, low: float, high: float) -> Field:
    """0 below ``low``, 1 above ``high``, and a soft S between."""
    t = np.clip((np.asarray(x, dtype=np.float32) - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)
