"""What an export starts from: labelled photos, and what the bundle will say of the model whatever variant it becomes.

Here from a run; :mod:`trainer.export.foreign` has it from a model that was trained elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge import pathtext
from edge.errors import DataError
from edge.model.bundle import Label, Provenance
from edge.model.spec import InputSpec
from trainer import labels, pixels, run
from trainer.backbones import backbone
from trainer.cache import cache_dir
from trainer.dataset.samples import Sample
from trainer.dataset.split import Indices
from trainer.fit import FINE_TUNED
from trainer.gate import Logits
from trainer.progress import Steps

if TYPE_CHECKING:
    import keras

METRICS = ("n", "accuracy", "macro_f1", "ece", "coverage", "accuracy_decided", "animals_called_empty")
"""Of the held-out photos, as far as they are numbers."""
_NO_CONVERSION = "none"


@dataclass(frozen=True)
class Photos:
    """The photos that a model is calibrated on and judged by.

    Attributes:
        stack: their pixels, n of them.
        files: where they lie.
        truth: n label numbers, what people say.
        held: those that the model, or its twin, did not learn from.
        learned: those that the twin learned from; a model that is not of a run: all.
        stations: n names, empty where the data does not say.
        infrared: bool (n,).
    """

    stack: pixels.PixelStack
    files: tuple[Path, ...]
    truth: npt.NDArray[np.intp]
    held: Indices
    learned: Indices
    stations: tuple[str, ...]
    infrared: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True)
class Card:
    """What the bundle says of the model. ``cure`` is for a person whose model passed the gate nowhere."""

    name: str
    created: str
    labels: tuple[Label, ...]
    input: InputSpec
    temperature: float
    thresholds: tuple[float, ...]
    rollup: float | None
    provenance: Provenance
    cure: str = "Train with more photos"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the labels, in the order of the logits."""
        return tuple(label.name for label in self.labels)


def card_of(trained: run.Run) -> Card:
    """What a run says of its model, with the user's ``labels.toml``.

    Raises:
        ConfigError: that file cannot be read, or contradicts itself.
    """
    facts = trained.facts
    held = facts.metrics["holdout"]
    return Card(
        name=facts.name,
        created=facts.created,
        labels=tuple(_in_english(label) for label in labels.of_run(trained)),
        input=facts.input,
        temperature=facts.temperature,
        thresholds=facts.thresholds,
        rollup=facts.rollup,
        provenance=Provenance(
            dataset_digest=facts.dataset_digest,
            split=facts.split,
            metrics={name: round(float(held[name]), 6) for name in METRICS if held.get(name) is not None},
            commit=None,
            conversion=_NO_CONVERSION,
            weights_licence=backbone(facts.backbone).weights_licence,
            data_licence=None,
            backbone=facts.backbone,
            trained_with=facts.trained_with,
        ),
        cure="Train with more photos" + (", or with --probe-only" if facts.kept == FINE_TUNED else ""),
    )


def _in_english(label: Label) -> Label:
    return label if label.english else replace(label, english=label.name.replace("_", " "))


def photos_of(trained: run.Run, steps: Steps) -> Photos:
    """The run's photos from the pixel cache, or decoded again from where they were.

    Raises:
        DataError: one cannot be read any more, or is another one now.
    """
    facts, lines = trained.facts, trained.photos
    root = Path(pathtext.from_text(facts.data_folder))
    samples = [Sample(root / pathtext.from_text(line.photo), line.photo, line.label) for line in lines]
    with steps.step("reading the run's photos", len(samples)) as done:
        decoded, bad, stack = pixels.decode(samples, facts.input, cache_dir(), done=lambda: done(1))
    if bad:
        raise DataError(
            f"{len(bad)} of the run's {len(samples)} photos cannot be read any more, {bad[0].name} for one: "
            f"{bad[0].reason} They are expected below {root}."
        )
    changed = [line.photo for line, photo in zip(lines, decoded, strict=True) if line.sha256 != photo.sha256]
    if changed:
        raise DataError(f"{changed[0]} is not the photo that the run was trained on (and {len(changed) - 1} others).")
    return Photos(
        stack=stack,
        files=tuple(sample.path for sample in samples),
        truth=np.array([facts.labels.index(line.label) for line in lines], dtype=np.intp),
        held=np.flatnonzero([line.part == run.HOLDOUT for line in lines]),
        learned=np.flatnonzero([line.part in (run.TRAIN, run.VALIDATION) for line in lines]),
        stations=tuple(line.station for line in lines),
        infrared=np.array([line.infrared for line in lines], bool),
    )


def load_model(file: Path) -> keras.Model:
    """A run's Keras model, uint8 pixels to logits.

    Raises:
        DataError: the file is damaged.
    """
    import keras

    try:
        return keras.models.load_model(file, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} cannot be loaded: {error}. Train the run again.") from error


def float_answers(model: keras.Model, stack: Path) -> Logits:
    """A Keras model on an ``.npy`` stack of photos, uint8 (n, h, w, 3): logits, float32 (n, C)."""
    return np.asarray(model.predict(np.load(stack, mmap_mode="r"), batch_size=16, verbose=0), np.float32)
