"""Why a variant is wrong, found by trying: labels in another order, BGR, pixels normalised twice, or activations whose
ranges were taken from a part of the data only.

Each is refused also where the figures would hold: a data set on which the fault does not show is not the forest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.gate.rows import About, Calibration, Indices, Logits, Pixels

TINTED_PHOTOS = 48
_WARM = (1.0, 0.6, 0.4)
_OTHER_WAY_ROUND = -0.5
"""The slope of one change on the other: 1 for RGB, -1 for BGR, and near 0 for what is not a model of colour photos."""
_LOOKED_AT = 1000
"""Brightness is taken from so many photos."""
_SURE = 0.9
_MUCH_BETTER = 0.2
"""Correlations of logits over photos: that of an exchanged label with the other's, and what it is above its own."""
_NEAR_FRAME, _HARDLY, _STILL_AGREES = 0.35, 0.25, 0.8
"""Of EfficientNet-Lite0 on camera-trap photos, normalised twice as int8: 0.23 from the float model's answer to black,
and its answers vary by 0.05 of the float model's."""
_FRAMES = {"black": 0, "grey": 127, "white": 255}
_DARKER = 0.6
_RARE = 0.1

Floats = npt.NDArray[np.float64]


def centred(logits: npt.ArrayLike) -> Floats:
    """Logits, (n, C), without what all labels of a photo have in common, which changes no probability."""
    wide = np.asarray(logits, np.float64)
    return np.asarray(wide - wide.mean(axis=1, keepdims=True))


def distance(found: Logits, reference: Logits) -> float:
    """Mean distance of centred logits in standard deviations of the reference's.

    Args:
        found, reference: float32 (n, C).
    """
    wanted = centred(reference)
    spread = float(wanted.std())
    off = float(np.abs(centred(found) - wanted).mean())
    return off / spread if spread else off


def labels(found: Logits, reference: Logits, about: About) -> str | None:
    """Whether the logits are the float model's in another order.

    Args:
        found, reference: float32 (n, C) of the same photos.
    """
    from scipy.optimize import linear_sum_assignment

    if len(found) < 3:
        return None
    correlation = _correlation(centred(reference), centred(found))
    order = linear_sum_assignment(-correlation)[1]
    moved = np.flatnonzero(order != np.arange(len(order)))
    if not moved.size:
        return None
    there, here = correlation[moved, order[moved]], correlation[moved, moved]
    if there.min() < _SURE or (there - here).min() < _MUCH_BETTER:
        return None
    first, second = int(moved[0]), int(order[moved[0]])
    if len(moved) == 2:
        return (
            f"what the float model calls {about.label(first)!r} it calls {about.label(second)!r}, and the other way "
            "round: the labels are swapped"
        )
    pairs = ", ".join(f"{about.label(int(i))!r} it calls {about.label(int(order[i]))!r}" for i in moved[:4])
    more = f" and so on, {len(moved)} in all" if len(moved) > 4 else ""
    return f"what the float model calls {pairs}{more}: the labels are in another order"


def _correlation(rows: Floats, columns: Floats) -> Floats:
    """(C, C): of each column of one with each of the other; 0 where one does not vary."""
    a, b = rows - rows.mean(axis=0), columns - columns.mean(axis=0)
    size = np.outer(np.sqrt((a**2).sum(axis=0)), np.sqrt((b**2).sum(axis=0)))
    return np.asarray(np.divide(a.T @ b, size, out=np.zeros_like(size), where=size > 0))


def tinted(stack: Path) -> Pixels:
    """Photos in warm light, and the same with red and blue exchanged: whether they are, shows on infrared frames too.

    Args:
        stack: an ``.npy`` file, uint8 (n, h, w, 3).

    Returns:
        uint8 (2m, h, w, 3), m at most :data:`TINTED_PHOTOS`; the exchanged ones are the second half.
    """
    photos = np.load(stack, mmap_mode="r")
    warm = (photos[_evenly(len(photos), TINTED_PHOTOS)] * np.array(_WARM)).astype(np.uint8)
    return np.concatenate([warm, warm[..., ::-1]])


def _evenly(n: int, most: int) -> Indices:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.intp))


def channels(found: Logits, reference: Logits) -> str | None:
    """Whether a model's channels are BGR: what the exchange changes in the float model's answers, it changes the other
    way round.

    Args:
        found, reference: its answers to :func:`tinted` photos and the float model's, float32 (2m, C).
    """
    m = len(reference) // 2
    change, wanted = centred(found[:m]) - centred(found[m:]), centred(reference[:m]) - centred(reference[m:])
    size = float((wanted**2).sum())
    if size == 0 or float((change * wanted).sum()) / size > _OTHER_WAY_ROUND:
        return None
    share = float((found[m:].argmax(axis=1) == reference[:m].argmax(axis=1)).mean())
    return (
        "it sees red as blue: its channels are BGR; "
        f"with both exchanged it agrees with the float model on {share:.0%} of {m} photos"
    )


def normalisation(
    found: Logits, reference: Logits, shape: tuple[int, ...], float_model: Callable[[Pixels], Logits]
) -> str | None:
    """Whether every photo is answered as the float model answers a plain frame: to a network that normalises pixels
    that are small numbers already, all photos look the same.

    Args:
        found, reference: float32 (n, C) of the same photos.
        shape: (h, w, 3).
    """
    wanted, said = centred(reference), centred(found)
    spread = float(wanted.std())
    hardly_varies = _varies(said) <= _HARDLY * _varies(wanted)
    agreement = float((said.argmax(axis=1) == wanted.argmax(axis=1)).mean())
    if len(found) < 2 or spread == 0 or not hardly_varies or agreement > _STILL_AGREES:
        return None
    frames = np.stack([np.full(shape, value, np.uint8) for value in _FRAMES.values()])
    for name, answer in zip(_FRAMES, centred(float_model(frames)), strict=True):
        off = float(np.quantile(np.abs(said - answer).mean(axis=1), 0.95)) / spread
        usual = float(np.median(np.abs(wanted - answer).mean(axis=1))) / spread
        # A dead network says one thing too: only an answer of the frame's own tells the two apart.
        own = float(np.ptp(found, axis=0).max()) > 0 or float(np.abs(answer).mean()) / spread > _NEAR_FRAME
        if off < _NEAR_FRAME and usual > 2 * off and own:
            return f"it answers every photo as the float model answers a {name} frame: pixels are normalised twice"
    return None


def _varies(logits: Floats) -> float:
    """How much the answers to different photos differ."""
    return float(logits.std(axis=0).mean())


def calibration(about: About, stack: Path, truth: npt.NDArray[np.intp]) -> str | None:
    """Whether the activations' ranges come from photos of one label, station or light, or from dark frames only.

    Args:
        about: holds the record; without one there is nothing to find.
        stack: all photos, an ``.npy`` file, uint8 (n, h, w, 3).
        truth: n label numbers.
    """
    used = about.calibration
    if used is None or used.n == 0:
        return None
    there = {about.label(int(number)): int((truth == number).sum()) for number in np.unique(truth)}
    fault = _only_one(used.by_label, there, used.n, "label") or _dark(used, stack, truth)
    if fault is None and about.photos is not None:
        fault = _only_one(used.by_light, about.photos.by_light, used.n, "light")
        fault = fault or _only_one(used.by_station, about.photos.by_station, used.n, "station")
    return fault


def _only_one(used: Mapping[str, int], there: Mapping[str, int], n: int, what: str) -> str | None:
    """Of two equally common kinds, n photos chosen by chance are all of one with a probability of 2 in 2 to the n."""
    kinds = [kind for kind, count in used.items() if count]
    if len(kinds) != 1 or not kinds[0]:
        return None
    others = sum(count for kind, count in there.items() if kind != kinds[0])
    if others < max(2, _RARE * sum(there.values())):
        return None
    return (
        f"it was calibrated on {n} photos of one {what} only, {kinds[0]!r}: the ranges of the other {others} of "
        f"{sum(there.values())} photos are unproven. Calibrate on photos of every {what}"
    )


def _dark(used: Calibration, stack: Path, truth: npt.NDArray[np.intp]) -> str | None:
    photos = np.load(stack, mmap_mode="r")
    looked_at = _evenly(len(photos), _LOOKED_AT)
    brightness = np.array([float(photos[i].mean()) for i in looked_at])
    labels = truth[looked_at]
    balanced = float(np.mean([brightness[labels == number].mean() for number in np.unique(labels)]))
    usual = min(balanced, float(brightness.mean()))
    if used.brightness_mean >= _DARKER * usual:
        return None
    return (
        f"it was calibrated on dark frames only: their brightness is {used.brightness_mean:.0f} of 255 on average, "
        f"that of the photos {usual:.0f}; the ranges of brighter ones are unproven. Calibrate on photos of every light"
    )
