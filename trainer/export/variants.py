"""Ways to turn a model into a ``.tflite``, and the choice among them: the first that passes the gate.

A run's model, or one in a Keras file, is converted variant by variant. A ``.tflite`` from elsewhere is one variant
already, and its float model is not at hand: there the answers of the first runtime stand in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edge.errors import ModelError
from trainer import gate, quantize
from trainer.calibration import CalibrationRecord, calibration, representative
from trainer.dataset.split import Indices
from trainer.export.material import Card, Photos, float_answers
from trainer.export.options import Options
from trainer.gate import Emulator, Logits, Verdict
from trainer.gate.rows import Pixels
from trainer.progress import Steps

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Attempt:
    """One conversion, ready for the gate.

    Attributes:
        variant: one of :data:`edge.model.bundle.VARIANTS`.
        words: how it was made.
        model: the ``.tflite``.
        pixels: all photos, an ``.npy`` stack.
        reference: the float model's logits of them, float32 (n, C).
        twin: made in the same way, of a model that did not learn from the held-out photos.
        calibration: which photos the ranges come from; None where none were used, or nobody knows.
        float_model: pixels, uint8 (n, h, w, 3), to the float model's logits; None where there is none.
    """

    variant: str
    words: str
    model: Path
    pixels: Path
    reference: Logits
    twin: gate.Twin | None = None
    calibration: CalibrationRecord | None = None
    float_model: Callable[[Pixels], Logits] | None = None


@dataclass(frozen=True)
class Tried:
    """A conversion and what the gate says of it."""

    attempt: Attempt
    verdict: Verdict


class Source(Protocol):
    """Makes conversions."""

    def ways(self, variant: str) -> int:
        """How many ways there are to make a variant; 0 if it cannot be."""

    def convert(self, variant: str, way: int) -> Attempt:
        """Make one."""


class FromKeras:
    """Converts a Keras model, and its twin where there is one."""

    def __init__(
        self,
        shipped: keras.Model,
        twin: keras.Model | None,
        photos: Photos,
        names: Sequence[str],
        scratch: Path,
        steps: Steps,
    ) -> None:
        """Ask the float models.

        Args:
            shipped: what the bundle will hold, uint8 pixels to logits. Where there is a twin, it learned from all
                photos.
            names: of the labels.
            twin: learned from ``photos.learned`` only.
            scratch: an empty folder for what the children read.
        """
        every = np.arange(len(photos))
        self._photos, self._names, self._scratch, self._steps = photos, names, scratch, steps
        self._shipped = _Float(shipped, every if twin is not None else photos.learned, every, photos, scratch, steps)
        self._twin = None
        if twin is not None:
            steps.say("  The same for the twin that did not learn from the held-out photos; accuracies are the twin's.")
            self._twin = _Float(twin, photos.learned, photos.held, photos, scratch, steps)

    @property
    def reference(self) -> Logits:
        """The float model's answers to all photos."""
        return self._shipped.reference

    def ways(self, variant: str) -> int:
        """How many recipes there are."""
        return len(quantize.recipes(variant))

    def convert(self, variant: str, way: int) -> Attempt:
        """Convert by a recipe."""
        recipe = quantize.recipes(variant)[way]
        shipped, twin = self._shipped, None
        model = self._write(shipped, variant, recipe, "shipped")
        if self._twin is not None:
            twin_model = self._write(self._twin, variant, recipe, "twin")
            twin = gate.Twin(twin_model, self._twin.pixels, self._twin.reference)
        needs = quantize.is_calibrated(variant)
        return Attempt(
            variant=variant,
            words=f"{recipe.words}; calibrated on {len(shipped.calibration)} photos" if needs else recipe.words,
            model=model,
            pixels=shipped.pixels,
            reference=shipped.reference,
            twin=twin,
            calibration=record_of(self._photos, shipped.calibration, self._names) if needs else None,
            float_model=shipped.answer,
        )

    def _write(self, source: _Float, variant: str, recipe: quantize.Recipe, name: str) -> Path:
        n = len(source.calibration) if quantize.is_calibrated(variant) else None
        what = f"converting to {variant}" + (", calibration photos" if n else "")
        with self._steps.step(what, n):
            content = quantize.convert(
                source.model,
                variant,
                source.calibration_pixels,
                recipe=recipe,
                say=lambda text: self._steps.say(f"  {text}"),
            )
        path = self._scratch / f"{name}-{variant}.tflite"
        path.write_bytes(content)
        return path


class FromFile:
    """A ``.tflite`` that is what it is."""

    def __init__(self, model: Path, variant: str, words: str, pixels: Path, reference: Logits) -> None:
        self._attempt = Attempt(variant, words, model, pixels, reference)

    @property
    def variant(self) -> str:
        """The one that it is."""
        return self._attempt.variant

    def ways(self, variant: str) -> int:
        """One, of its own variant."""
        return int(variant == self._attempt.variant)

    def convert(self, variant: str, way: int) -> Attempt:
        """Nothing is left to do."""
        return self._attempt


class _Float:
    """A float model with its answers, and the photos that it may be calibrated on."""

    def __init__(
        self, model: keras.Model, learned: Indices, asked: Indices, photos: Photos, scratch: Path, steps: Steps
    ) -> None:
        self.model, self._photos = model, photos
        self.calibration = calibration(photos.truth, learned, 0, stations=photos.stations, infrared=photos.infrared)
        self.pixels = scratch / f"photos-{len(asked)}.npy"
        photos.stack.save(self.pixels, asked)
        with steps.step("the float model's answers", len(asked)):
            self.reference = float_answers(model, self.pixels)

    def calibration_pixels(self) -> Iterator[Pixels]:
        """One photo after the other, uint8 (1, h, w, 3)."""
        return representative(self._photos.stack, self.calibration)

    def answer(self, pixels: Pixels) -> Logits:
        """Logits of some pixels."""
        return np.asarray(self.model.predict(pixels, batch_size=16, verbose=0), np.float32)


def record_of(photos: Photos, some: Indices, names: Sequence[str]) -> CalibrationRecord:
    """What some of the photos are, as the gate looks at them."""
    return CalibrationRecord.of(photos.stack, photos.truth, some, photos.stations, photos.infrared, names)


def choose(
    source: Source, card: Card, photos: Photos, options: Options, emulator: Emulator | None, steps: Steps
) -> tuple[Tried | None, list[Tried]]:
    """Try variants until one passes.

    Returns:
        What passed, of its variant the conversion that passed on most runtimes, None if nothing did; and all that was
        tried.

    Raises:
        ModelError: it cannot be converted in any way.
    """
    tried: list[Tried] = []
    failed: ModelError | None = None
    about = record_of(photos, np.arange(len(photos)), card.names)
    for variant in options.variants:
        of_variant: list[Tried] = []
        for way in range(source.ways(variant)):
            try:
                attempt = source.convert(variant, way)
            except ModelError as error:
                steps.say(f"  {error}")
                failed = error
                continue
            of_variant.append(Tried(attempt, _judge(attempt, about, card, photos, options, emulator, steps)))
            if not of_variant[-1].verdict.unloadable:
                break  # another way of converting it would help a runtime that cannot load it, and nothing else
        tried += of_variant
        passed = [each for each in of_variant if _passes(each.verdict, options.require)]
        if passed:
            return max(passed, key=lambda each: len(each.verdict.passed)), tried
        if of_variant and variant != options.variants[-1]:
            steps.say(f"  {variant} did not pass: {first_reason(of_variant)}")
    if not tried and failed is not None:
        raise failed
    return None, tried


def _passes(verdict: Verdict, require: Sequence[str]) -> bool:
    return bool(verdict.passed) and set(require) <= {row.runtime for row in verdict.passed}


def first_reason(tried: Sequence[Tried]) -> str:
    """Why a variant did not pass, in the words of the first row that decides and failed."""
    rows = [row for each in tried for row in each.verdict.rows if row.deciding and not row.passed]
    return f"{rows[0].runtime}: {rows[0].reason}" if rows else "no runtime was asked."


def _judge(
    attempt: Attempt,
    all_photos: CalibrationRecord,
    card: Card,
    photos: Photos,
    options: Options,
    emulator: Emulator | None,
    steps: Steps,
) -> Verdict:
    about = gate.About(
        variant=attempt.variant,
        labels=card.names,
        temperature=card.temperature,
        thresholds=card.thresholds,
        calibration=attempt.calibration,
        photos=all_photos,
        float_model=attempt.float_model,
    )
    emulated = len(emulator.runtimes) if emulator else 0
    asked = gate.work(
        len(photos),
        photos.held,
        photos.truth,
        options.limits,
        twin=attempt.twin is not None,
        tried=attempt.float_model is not None,
        emulated=emulated,
    )
    with steps.step(f"the gate for {attempt.variant}: every installed runtime", asked) as done:
        return gate.judge(
            attempt.model, attempt.pixels, attempt.reference, photos.truth, photos.held, options.limits, attempt.twin,
            about=about, emulator=emulator, done=done,
        )  # fmt: skip
