"""Chooses the golden photos of a bundle: those by which a device can tell that it answers as the workstation did."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.errors import ModelError
from edge.model.bundle import Golden
from edge.model.decide import PERSON
from trainer.pixels import PixelStack

COUNT = 8
STEPS = 16
"""How many int8 output steps a logit may differ. The default kernels of one runtime differ by up to 11 between
x86-64 and aarch64; a wrong resize or colour order differs by far more."""

Logits = npt.NDArray[np.float32]


def choose(
    pixels: PixelStack,
    labels: Sequence[str],
    truth: npt.NDArray[np.intp],
    answers: Mapping[str, Logits],
    output_step: float,
) -> tuple[tuple[Golden, ...], dict[str, bytes]]:
    """Choose photos on which all runtimes agree with a clear margin, of as many labels as possible.

    Photos of people are never taken, nor what a model takes for people: a bundle travels.

    Args:
        pixels: of all photos.
        labels: C names.
        truth: n label numbers, as people say.
        answers: runtime -> logits of all photos, float32 (n, C); the first runtime's are expected on the device.
        output_step: distance of neighbouring logits, 0 for float models.

    Returns:
        The entries of the manifest, and their files: lossless PNG at input size.

    Raises:
        ModelError: fewer than :data:`COUNT` photos may be taken.
    """
    expected, *others = answers.values()
    spread = max((float(np.abs(expected - other).max()) for other in others), default=0.0)
    tolerance = round(max(STEPS * output_step, 2 * spread, 0.01), 4)
    golden, files = [], {}
    said = np.stack([each.argmax(axis=1) for each in answers.values()])  # (runtimes, n)
    person = np.array([label == PERSON for label in labels])
    allowed = (said == said[0]).all(axis=0) & ~person[truth] & ~person[said[0]]
    if allowed.sum() < COUNT:
        raise ModelError(
            f"only {allowed.sum()} of {len(truth)} photos can be golden, {COUNT} are needed: no person is in them, for "
            "people and for the model, and all runtimes agree. Add photos of animals or empty scenes and train again.",
            code="golden",
        )
    for number, i in enumerate(_clearest(expected, allowed)):
        name = f"golden/{number:02d}.png"
        logits = tuple(round(float(value), 5) for value in expected[i])
        golden.append(Golden(name, labels[int(expected[i].argmax())], logits, tolerance))
        files[name] = _png(pixels[i])
    return tuple(golden), files


def _clearest(logits: Logits, allowed: npt.NDArray[np.bool_]) -> list[int]:
    """Photos with the largest margin among those allowed, one label after the other."""
    ordered = np.sort(logits, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    said = logits.argmax(axis=1)
    queues = [
        sorted(np.flatnonzero(allowed & (said == label)).tolist(), key=lambda i: float(margin[i]))
        for label in range(logits.shape[1])
    ]
    chosen: list[int] = []
    while any(queues) and len(chosen) < COUNT:
        chosen += [queue.pop() for queue in queues if queue]
    return chosen[:COUNT]


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=False, compress_level=9)
    return file.getvalue()
