"""What a model wants to see, as a manifest says it. Knows no pixels, and imports nothing that does."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import ConfigError

MAX_SIDE = 2048
RESAMPLE, ASPECT = ("bilinear", "bicubic", "box"), ("stretch", "pad", "crop")


@dataclass(frozen=True)
class InputSpec:
    """What a model wants to see.

    Attributes:
        height, width: pixels, 1 to 2048.
        resample: ``bilinear``, ``bicubic`` or ``box``; Pillow's, which widen the filter when shrinking.
        aspect: ``stretch`` to the input's shape, ``pad`` with black and keep the proportions, or ``crop`` the middle
            (as ImageNet networks are tested; it can cut an animal off at the edge).
        cut_top, cut_bottom: rows of a burnt-in info strip to cut off, counted in the original upright photo.
    """

    height: int
    width: int
    resample: str = "bilinear"
    aspect: str = "stretch"
    cut_top: int = 0
    cut_bottom: int = 0

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if not 1 <= side <= MAX_SIDE:
                raise ConfigError(f"input {name} is {side}, expected 1 to {MAX_SIDE} pixels.")
        if self.resample not in RESAMPLE:
            raise ConfigError(f"input resample is {self.resample!r}, expected one of {', '.join(RESAMPLE)}.")
        if self.aspect not in ASPECT:
            raise ConfigError(f"input aspect is {self.aspect!r}, expected one of {', '.join(ASPECT)}.")
        if not (0 <= self.cut_top <= 1000 and 0 <= self.cut_bottom <= 1000):
            raise ConfigError(f"input cuts are {self.cut_top} and {self.cut_bottom}, expected 0 to 1000 rows.")
