"""How a model trained elsewhere wants its pixels: the numbers that its own preprocessing used, as a value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edge.errors import ConfigError

Channels = tuple[float, float, float]
_NUMBER = r"[+-]?\d{1,6}(?:\.\d{1,9})?"
_LIST = rf"{_NUMBER}(?:,{_NUMBER}){{2}}|{_NUMBER}"
_FORM = re.compile(rf"({_LIST})/({_LIST})")


@dataclass(frozen=True)
class Scaling:
    """From a pixel, 0 to 255, to the number that a network was trained on: ``(pixel - mean) / std``.

    Attributes:
        mean, std: for red, green and blue, in units of pixels.
        bgr: the channels are handed over as blue, green, red; ``mean`` and ``std`` are red, green, blue all the same.
    """

    mean: Channels
    std: Channels
    bgr: bool = False

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.std)
        if not all(map(math.isfinite, numbers)):
            raise ConfigError("scaling holds a number that is not finite, expected three for mean and three for std.")
        if not all(1e-6 <= abs(std) <= 1e6 for std in self.std) or not all(abs(mean) <= 1e6 for mean in self.mean):
            raise ConfigError(f"scaling {self} is out of range: std is 0.000001 to 1000000, mean at most 1000000.")

    def __str__(self) -> str:
        """A preset's name, or what :func:`parse` reads."""
        name = next((name for name, preset in PRESETS.items() if preset == self), None)
        return name or f"{_shown(self.mean)}/{_shown(self.std)}{' bgr' if self.bgr else ''}"


def same(mean: float, std: float) -> Scaling:
    """One mean and std for all three channels."""
    return Scaling((mean,) * 3, (std,) * 3)


RAW = same(0.0, 1.0)
PRESETS = {
    "raw": RAW,
    "-1..1": same(127.5, 127.5),
    "0..1": same(0.0, 255.0),
    "imagenet": Scaling((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "caffe": Scaling((123.68, 116.779, 103.939), (1.0, 1.0, 1.0), bgr=True),
}
"""``raw``: 0 to 255 as they are, for networks that scale inside. ``-1..1``: Teachable Machine, MobileNet. ``0..1``:
pixels / 255. ``imagenet``: torchvision's. ``caffe``: blue first, ImageNet's means taken off: VGG and ResNet50."""


def parse(text: str) -> Scaling:
    """A scaling from an option.

    Args:
        text: a name of :data:`PRESETS`, or ``MEAN/STD`` with one number or three, such as ``127.5/127.5`` or
            ``123.7,116.3,103.5/58.4,57.1,57.4``, for pixels of 0 to 255.

    Raises:
        ConfigError: it is neither.
    """
    if text in PRESETS:
        return PRESETS[text]
    form = _FORM.fullmatch(text.replace(" ", "")[:200])
    if form is None:
        raise ConfigError(
            f"scaling is {text[:80]!r}, expected {', '.join(PRESETS)}, or MEAN/STD in pixels of 0 to 255, "
            "such as 127.5/127.5 or 123.7,116.3,103.5/58.4,57.1,57.4."
        )
    return Scaling(_channels(form[1]), _channels(form[2]))


def _channels(text: str) -> Channels:
    numbers = [float(number) for number in text.split(",")]
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return red, green, blue


def _shown(channels: Channels) -> str:
    numbers = channels[:1] if len(set(channels)) == 1 else channels
    return ",".join(f"{number:.6g}" for number in numbers)
