"""Chooses the photos that a quantized model is calibrated on, and says what they are. Never converts a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trainer.dataset.split import Indices
from trainer.pixels import PixelStack

CALIBRATION_PHOTOS = 100
"""``benchmarks/calibration.py`` prints agreement, distance and time for 25 to 200."""
DAY, INFRARED = "day", "infrared"


class Photos(Protocol):
    """Photo i as uint8 (h, w, 3)."""

    def __getitem__(self, i: int) -> npt.NDArray[np.uint8]: ...


@dataclass(frozen=True)
class CalibrationRecord:
    """What the photos are whose activations set the ranges; the gate refuses a narrow choice by it.

    Attributes:
        n: photos.
        by_label, by_station, by_light: how many of each; a photo of no known station is counted under ``""``, and
            ``by_light`` has ``day`` and ``infrared``. Empty where nothing is known of any photo.
        brightness_mean: of all their pixels, 0 to 255.
    """

    n: int
    by_label: dict[str, int]
    by_station: dict[str, int]
    by_light: dict[str, int]
    brightness_mean: float

    @classmethod
    def of(
        cls,
        pixels: Photos,
        labels: npt.NDArray[np.intp],
        some: Indices,
        stations: Sequence[str | None] | None = None,
        infrared: npt.NDArray[np.bool_] | None = None,
        names: Sequence[str] | None = None,
    ) -> CalibrationRecord:
        """Look at some photos.

        Args:
            pixels: all n photos.
            labels: their label numbers.
            some: which of them.
            stations, infrared: of all n; None where nobody knows.
            names: of the labels; their numbers are the keys if None.
        """
        chosen = [int(i) for i in some]
        label = [str(labels[i]) if names is None else names[labels[i]] for i in chosen]
        station = [] if stations is None else [stations[i] or "" for i in chosen]
        light = [] if infrared is None else [INFRARED if infrared[i] else DAY for i in chosen]
        bright = [float(pixels[i].mean()) for i in chosen]
        return cls(
            n=len(chosen),
            by_label=dict(sorted(Counter(label).items())),
            by_station=dict(sorted(Counter(station).items())),
            by_light=dict(sorted(Counter(light).items())),
            brightness_mean=float(np.mean(bright)) if bright else 0.0,
        )


def calibration(
    labels: npt.NDArray[np.intp],
    candidates: Indices,
    seed: int,
    most: int = CALIBRATION_PHOTOS,
    *,
    stations: Sequence[str | None] | None = None,
    infrared: npt.NDArray[np.bool_] | None = None,
) -> Indices:
    """Choose calibration photos: the same number of each class, and within it of day and infrared and of each station,
    as far as there are enough.

    A directory walk would take one class only, and the ranges of the others would be clipped.

    Args:
        labels: class numbers of all photos.
        candidates: photos that may be used: those trained on.
        seed: decides between photos that are equally good.
        most: how many at most.
        stations, infrared: of all photos; None where nobody knows.

    Returns:
        At most ``most`` indices, one class after the other in turn.
    """
    random = np.random.default_rng(seed)
    queues = []
    for label in np.unique(labels):
        rows = [int(i) for i in random.permutation(candidates[labels[candidates] == label])]
        kinds = [
            (bool(infrared is not None and infrared[i]), (stations[i] or "") if stations is not None else "")
            for i in rows
        ]
        queues.append(_by_turns(rows, kinds)[::-1])
    chosen: list[int] = []
    while any(queues) and len(chosen) < most:
        chosen += [queue.pop() for queue in queues if queue]
    return np.array(chosen[:most], dtype=np.intp)


def _by_turns(rows: list[int], kinds: list[tuple[bool, str]]) -> list[int]:
    """The same photos in an order of which every beginning is as balanced as can be: over light, then over stations."""
    waiting: dict[tuple[bool, str], list[int]] = {}
    for row, kind in zip(rows, kinds, strict=True):
        waiting.setdefault(kind, []).append(row)
    lights, places, order = Counter[bool](), Counter[tuple[bool, str]](), []
    for _ in rows:
        kind = min(waiting, key=lambda each: (lights[each[0]], places[each]))
        order.append(waiting[kind].pop(0))
        lights[kind[0]] += 1
        places[kind] += 1
        if not waiting[kind]:
            del waiting[kind]
    return order


def representative(pixels: PixelStack, indices: Indices) -> Iterator[npt.NDArray[np.uint8]]:
    """The calibration inputs, uint8 (1, h, w, 3)."""
    for i in indices:
        yield pixels[int(i)][np.newaxis]
