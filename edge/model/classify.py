"""A bundle on disk and a photo in, an answer out. What the agent, ``classify`` and ``evaluate`` share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge import photo as photos
from edge.errors import ModelError
from edge.model import decide, preprocess, runtime
from edge.model.bundle import Manifest, RuntimePass


@dataclass(frozen=True)
class Answer:
    """A decision and the logits behind it, float32 (C,)."""

    decision: decide.Decision
    logits: npt.NDArray[np.float32]


class Classifier:
    """A verified bundle's model, loaded once."""

    def __init__(self, model: Path | bytes, manifest: Manifest, *, name: str | None = None, threads: int = 1) -> None:
        """Load the model.

        Args:
            model: the bundle's ``.tflite``, already verified against the manifest.
            manifest: what the bundle says of it.
            name: the runtime; by default the first installed one that passed the gate.

        Raises:
            ModelError: no runtime that passed the gate is installed, or the model is not what the manifest says.
        """
        self.manifest = manifest
        self.labels = tuple(label.name for label in manifest.labels)
        self.spec = manifest.input
        self._model = runtime.Model(model, runtime=name or usable_runtime(manifest), threads=threads)
        self.runtime = self._model.runtime
        found = (self._model.height, self._model.width, self._model.classes)
        expected = (self.spec.height, self.spec.width, len(self.labels))
        if found != expected:
            raise ModelError(
                f"bundle {manifest.name}: the model has height, width, labels {found}, the manifest says {expected}."
            )

    def classify(self, data: bytes) -> Answer:
        """Classify one photo's bytes.

        Raises:
            PhotoError: the photo cannot be opened or decoded.
            ModelError: the runtime failed.
        """
        return self.classify_image(photos.open_image(data))

    def classify_image(self, image: Image.Image) -> Answer:
        """Classify a photo that :func:`edge.photo.open_image` opened. It is decoded here, which changes its size.

        Raises:
            PhotoError: the photo cannot be decoded.
            ModelError: the runtime failed.
        """
        return self.classify_pixels(preprocess.to_pixels(image, self.spec))

    def classify_pixels(self, pixels: preprocess.Pixels) -> Answer:
        """Classify pixels, uint8 (height, width, 3)."""
        logits = self._model.logits(pixels)
        manifest = self.manifest
        decision = decide.decide(logits, self.labels, temperature=manifest.temperature, thresholds=manifest.thresholds)
        return Answer(decision, logits)


def usable_runtime(manifest: Manifest) -> str:
    """The first installed runtime among those that passed the gate, in a version that the gate's verdict holds for.

    Raises:
        ModelError: there is none.
    """
    here = runtime.installed()
    for candidate in here:
        if any(_covers(entry, candidate) for entry in manifest.runtimes):
            return candidate.name
    passed = [f"{entry.name} {entry.version_min} to below {entry.version_below}" for entry in manifest.runtimes]
    raise ModelError(
        f"bundle {manifest.name} passed the gate on {', '.join(passed) or 'no runtime'}; "
        f"installed here: {', '.join(f'{r.name} {r.version}' for r in here) or 'none'}. Install one that passed.",
        code="no runtime",
    )


def _covers(entry: RuntimePass, candidate: runtime.Installed) -> bool:
    low, high = _release(entry.version_min), _release(entry.version_below)
    return candidate.name == entry.name and low <= _release(candidate.version) < high


def _release(version: str) -> tuple[int, ...]:
    """The numbers at the start of a version: ``2.14.0rc1`` to (2, 14, 0)."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(number) for number in numbers.group().split(".")) if numbers else ()
