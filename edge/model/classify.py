"""A bundle on disk and a photo in, an answer out. What the agent, ``classify`` and ``evaluate`` share."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge import photo as photos
from edge.errors import ConfigError, ModelError
from edge.model import decide, preprocess, runtime
from edge.model.bundle import Manifest, RuntimePass
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
            nearest = max(names, key=lambda known: difflib.SequenceMatcher(None, name, known).ratio())
            raise ConfigError(
                f"the station's species name {name!r}, and bundle {manifest.name} has no such label. The nearest is "
                f"{nearest!r}; it has {', '.join(names)}.",
                code="unknown species",
            )
    return frozenset(species)


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
