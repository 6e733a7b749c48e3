"""A backbone of two blocks, and photos that it can learn in seconds, for tests of the training engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.model.spec import InputSpec
from trainer.dataset.questions import Question
from trainer.dataset.samples import Box, Sample
from trainer.photos import Photos
from trainer.pixels import Decoded

SIDE = 8
NAMES = ("deer", "empty", "fox")


class Stack:
    """Pixels in memory, asked for as :class:`trainer.pixels.PixelStack` is."""

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.spec = InputSpec(pixels.shape[1], pixels.shape[2])
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> npt.NDArray[np.uint8]:
        self.asked.append(int(i))
        return np.asarray(self.pixels[i])

    def batch(self, rows: Sequence[int]) -> npt.NDArray[np.uint8]:
        return np.stack([self[int(i)] for i in rows])


def network(side: int = SIDE, *, seed: int = 1, dropout: bool = False) -> Any:
    """uint8 pixels to a feature map of 8 channels; it can be cut behind ``first_relu`` and ``second_bn``, not inside
    the branch between."""
    import keras

    keras.utils.set_random_seed(seed)
    pixels = keras.Input((side, side, 3), dtype="uint8", name="pixels")
    x = keras.layers.Rescaling(1 / 128, offset=-1, name="normalise")(pixels)
    x = keras.layers.Conv2D(8, 3, 2, padding="same", name="first")(x)
    x = before = keras.layers.ReLU(6.0, name="first_relu")(x)
    x = keras.layers.Conv2D(8, 3, padding="same", name="branch")(x)
    x = keras.layers.BatchNormalization(name="branch_bn")(x)
    x = keras.layers.Add(name="join")([x, before])
    x = keras.layers.Conv2D(8, 3, padding="same", name="second")(x)
    if dropout:
        x = keras.layers.Dropout(0.2, name="drop", seed=3)(x)
    x = keras.layers.BatchNormalization(name="second_bn")(x)
    return keras.Model(pixels, keras.layers.ReLU(6.0, name="second_relu")(x), name="tiny")


def coloured(labels: Sequence[int], *, side: int = SIDE, seed: int = 6) -> npt.NDArray[np.uint8]:
    """Photos whose colour tells the label, whatever is turned, mirrored or cut off."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 120, (len(labels), side, side, 3), dtype=np.uint8)
    for photo, label in zip(pixels, labels, strict=True):
        photo[:, :, label] += 120
    return pixels


def photos(
    labels: Sequence[int],
    pixels: npt.NDArray[np.uint8] | None = None,
    features: npt.NDArray[np.float32] | None = None,
    boxes: Sequence[Sequence[Box]] | None = None,
) -> Photos:
    """Photos in memory, without what the engine does not ask for."""
    truth = np.array(labels, dtype=np.intp)
    stack = Stack(coloured(labels) if pixels is None else pixels)
    facts: dict[str, Any] = {
        "decoded": [decoded(i, boxes[i] if boxes else ()) for i in range(len(truth))],
        "stack": stack,
        "features": np.zeros((len(truth), 8), np.float32) if features is None else features,
        "names": NAMES[: int(truth.max()) + 1] if truth.max() < 3 else tuple("abcdefgh"[: int(truth.max()) + 1]),
        "labels": truth,
    }
    return Photos(**{each.name: facts.get(each.name, []) for each in fields(Photos)})


def decoded(i: int, boxes: Sequence[Box] = ()) -> Decoded:
    """Where a photo came from."""
    name = f"{i:03d}.jpg"
    facts: dict[str, Any] = {
        "sample": Sample(Path("/nowhere") / name, name, "a label", boxes=tuple(boxes)),
        "sha256": f"{i:064d}",
        "camera": "",
    }
    every: dict[str, Any] = {each.name: facts.get(each.name) for each in fields(Decoded)}
    return Decoded(**every)


def question(n: int, test: Sequence[int] = (), groups: Sequence[int] | None = None) -> Question:
    """Hold some photos out; each photo is a group of its own if not said otherwise."""
    held = np.array(sorted(test), dtype=np.intp)
    grouping = np.arange(n, dtype=np.intp) if groups is None else np.array(groups, dtype=np.intp)
    return Question("new burst", held, np.setdiff1d(np.arange(n), held), grouping)
