"""A bundle on disk and a photo in, an answer out. What the agent, ``classify`` and ``evaluate`` share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge import photo as photos
from edge.errors import ConfigError, ModelError, nearest
from edge.model import decide, interpreter, preprocess
from edge.model import runtime as runtimes
from edge.model.bundle import Manifest
from edge.model.taxonomy import taxonomy


@dataclass(frozen=True)
class Answer:
    """A decision and the logits behind it, float32 (C,)."""

    decision: decide.Decision
    logits: npt.NDArray[np.float32]


class Classifier:
    """A verified bundle's model, loaded once."""

    def __init__(
        self,
        model: Path | bytes,
        manifest: Manifest,
        *,
        name: str | None = None,
        threads: int = 1,
        species: Collection[str] | None = None,
    ) -> None:
        """Load the model.

        Args:
            model: the bundle's ``.tflite``, already verified against the manifest.
            manifest: what the bundle says of it.
            name: the runtime; by default the first installed one that passed the gate.
            species: labels of the animals that occur at the station; all if None. See
                :func:`edge.model.taxonomy.taxonomy`.

        Raises:
            ConfigError: the bundle knows no label of such a name.
            ModelError: no runtime that passed the gate is installed, or the model is not what the manifest says.
        """
        self.manifest = manifest
        self.labels = tuple(label.name for label in manifest.labels)
        self.spec = manifest.input
        self._taxonomy = taxonomy(manifest.labels, None if species is None else known_species(manifest, species))
        self._model = interpreter.Model(model, runtime=name or runtimes.usable(manifest), threads=threads)
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
        decision = decide.decide(
            logits, self.labels,
            temperature=manifest.temperature, thresholds=manifest.thresholds,
            taxonomy=self._taxonomy, rollup=manifest.rollup,
        )  # fmt: skip
        return Answer(decision, logits)


def known_species(manifest: Manifest, species: Collection[str]) -> frozenset[str]:
    """A station's list of species, each of which the bundle knows.

    Raises:
        ConfigError: it knows no label of such a name.
    """
    names = [label.name for label in manifest.labels]
    for name in species:
        if name not in names:
            raise ConfigError(
                f"the station's species name {name!r}, and bundle {manifest.name} has no such label. The nearest is "
                f"{nearest(name, names)!r}; it has {', '.join(names)}.",
                code="unknown species",
            )
    return frozenset(species)
