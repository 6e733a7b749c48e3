"""What the gate decides by, and what it says: limits, rows and the verdict. Runs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge.errors import ConfigError, nearest

Logits = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Limits:
    """What the gate lets pass; recorded with its verdict.

    Attributes:
        agreement: least share of photos on which the most likely label is the float model's.
        held_disagreements, held_disagreement_share: on the held-out photos, so many may have another label than the
            float model's, the larger of the two: a share of few photos would be a lottery.
        lost_photos, lost_share: on the held-out photos, worse minus better may be at most the larger of the two.
        label_lost_photos, label_lost_share: the same for the photos of each label.
        empty_photos, empty_share: so many more animals on held-out photos may be called empty.
        mean_difference: of centred logits from the float model's, in standard deviations of those. EfficientNet-Lite0
            as int8 has 0.07 on camera-trap photos; with red and blue exchanged, 0.25.
        low_n: with fewer held-out photos the verdict says so.
        reference_photos, emulated_photos: the slow reference kernels, and an emulated device, answer the held-out
            photos, and others up to so many.
    """

    agreement: float = 0.97
    held_disagreements: int = 2
    held_disagreement_share: float = 0.03
    lost_photos: int = 1
    lost_share: float = 0.01
    label_lost_photos: int = 2
    label_lost_share: float = 0.05
    empty_photos: int = 1
    empty_share: float = 0.01
    mean_difference: float = 0.2
    low_n: int = 200
    reference_photos: int = 100
    emulated_photos: int = 100

    def with_settings(self, settings: Iterable[str]) -> Limits:
        """Other limits, as from a command line: each ``NAME=NUMBER``.

        Raises:
            ConfigError: a name is not known (the message has the nearest), or a number is out of range.
        """
        numbers: dict[str, Any] = dict(map(_setting, settings))
        return replace(self, **numbers)

    def most_lost(self, n: int) -> int:
        """How many photos more may go wrong than right, of ``n``."""
        return max(self.lost_photos, int(self.lost_share * n))

    def most_lost_of_label(self, n: int) -> int:
        """The same where ``n`` is of one label."""
        return max(self.label_lost_photos, int(self.label_lost_share * n))

    def most_called_empty(self, n: int) -> int:
        """How many more of ``n`` animals may be called empty."""
        return max(self.empty_photos, int(self.empty_share * n))

    def most_disagreements(self, n: int) -> int:
        """How many of ``n`` held-out photos may have another label than the float model's."""
        return max(self.held_disagreements, int(self.held_disagreement_share * n))


def _setting(text: str) -> tuple[str, float]:
    name, _, value = (part.strip() for part in text.partition("="))
    kinds = {each.name: each.type for each in fields(Limits)}
    if name not in kinds:
        raise ConfigError(
            f"{name!r} is no limit of the gate. The nearest is {nearest(name, kinds)}.", code="unknown key"
        )
    whole = kinds[name] == "int"
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        number = math.nan
    most = math.inf if whole or name == "mean_difference" else 1
    if not 0 <= number <= most:
        expected = "a whole number of at least 0" if whole else "0 to 1" if most == 1 else "at least 0"
        raise ConfigError(f"the gate's limit {name} is {value!r}, expected {expected}.", code="range")
    return name, number


class Calibration(Protocol):
    """Which photos the activations' ranges come from, or might have come from: how many, and their mean brightness, 0
    to 255."""

    @property
    def n(self) -> int: ...
    @property
    def by_label(self) -> Mapping[str, int]: ...
    @property
    def by_station(self) -> Mapping[str, int]: ...
    @property
    def by_light(self) -> Mapping[str, int]: ...
    @property
    def brightness_mean(self) -> float: ...


@dataclass(frozen=True)
class About:
    """What the gate is told beyond pixels and logits. Each makes a judgement or a sentence possible.

    Attributes:
        variant: ``int8``.
        labels: C names, for sentences.
        temperature, thresholds: of the run; at most C thresholds, in the labels' order.
        calibration: of the variant; None if it has none.
        photos: the same of all photos that might have been chosen, for stations and light.
        float_model: pixels, uint8 (n, h, w, 3), to the float model's logits, to try why a variant fails.
    """

    variant: str = "int8"
    labels: Sequence[str] = ()
    temperature: float = 1.0
    thresholds: Sequence[float] = ()
    calibration: Calibration | None = None
    photos: Calibration | None = None
    float_model: Callable[[Pixels], Logits] | None = None

    def label(self, number: int) -> str:
        """Its name."""
        return self.labels[number] if number < len(self.labels) else f"label {number}"


@dataclass(frozen=True)
class Twin:
    """The shipped model learned from all photos, so its accuracy is that of a twin that did not learn from some.

    Attributes:
        model: the twin's ``.tflite``, made in the same way.
        pixels: the photos held out from it, an ``.npy`` stack, uint8 (n, h, w, 3), in the order of ``holdout``.
        reference: the twin's float logits of them, float32 (n, C).
    """

    model: Path
    pixels: Path
    reference: Logits


@dataclass(frozen=True)
class Row:
    """What became of a variant on one runtime, version, architecture and kernels.

    Attributes:
        variant: ``int8``.
        runtime, version, architecture, kernels: where it ran; kernels are ``default`` or ``reference``.
        passed, reason: the verdict in a sentence.
        deciding: whether the verdict counts. On x86-64 the default kernels of ``tflite_runtime`` are not those of a Pi:
            they are reported, and the reference kernels decide.
        n: held-out photos behind the accuracies and what was lost.
        accuracy, accuracy_float: share right on those, 0 to 1.
        n_agreement: photos behind the agreement and the differences, labelled or not.
        agreement: share of them with the float model's label.
        held_disagreements: held-out photos with another label than the float model's.
        largest_difference: of two logits.
        mean_difference: of centred logits, in standard deviations of the float model's.
        largest_probability_difference: after the temperature, 0 to 1.
        animals_called_empty, animals_called_empty_float: held-out photos of animals whose decision is ``empty``.
        lost_by_label: label -> worse minus better, where it is not 0.
        constant: the same answer for every photo.
        not_finite: photos whose answer holds NaN or infinity; the differences are those of the others.
        output_step: distance of neighbouring logits, 0 for float models.
        ms: median of one invoke on one thread while nothing else of the gate runs; of reference kernels, while as many
            children run as there are cores. 0 where it would mean nothing, as under emulation.
        rss_mib: the largest child's peak memory; 0 under emulation.
    """

    variant: str
    runtime: str
    version: str
    architecture: str
    kernels: str
    passed: bool
    reason: str
    deciding: bool = True
    n: int = 0
    accuracy: float = 0.0
    accuracy_float: float = 0.0
    n_agreement: int = 0
    agreement: float = 0.0
    held_disagreements: int = 0
    largest_difference: float = 0.0
    mean_difference: float = 0.0
    largest_probability_difference: float = 0.0
    animals_called_empty: int = 0
    animals_called_empty_float: int = 0
    lost_by_label: dict[str, int] = field(default_factory=dict)
    constant: bool = False
    not_finite: int = 0
    output_step: float = 0.0
    ms: float = 0.0
    rss_mib: float = 0.0


@dataclass(frozen=True)
class Said:
    """Answers of some photos.

    Attributes:
        photos: which, int (m,).
        logits: float32 (m, C).
    """

    photos: Indices
    logits: Logits


@dataclass(frozen=True)
class Verdict:
    """The gate's rows, and what is behind those that ran.

    Attributes:
        rows: of each runtime the deciding one first, then those reported, then emulated ones.
        logits: runtime -> the default kernels' answers of all photos, float32 (n, C).
        decided: runtime -> the answers behind its deciding row on this machine. Of ``tflite_runtime`` on x86-64 these
            are the reference kernels', of at least ``Limits.reference_photos`` photos: what a Pi will answer.
        output_steps: runtime -> distance of neighbouring logits, 0 for float models.
        unloadable: runtimes that cannot load the file; another way of converting it may help.
    """

    rows: tuple[Row, ...]
    logits: dict[str, Logits]
    decided: dict[str, Said]
    output_steps: dict[str, float]
    unloadable: tuple[str, ...] = ()

    @property
    def passed(self) -> tuple[Row, ...]:
        """The runtimes that may run the model, by their deciding row on this machine: all their deciding rows passed,
        emulated ones too."""
        failed = {row.runtime for row in self.rows if row.deciding and not row.passed}
        first: dict[str, Row] = {}
        for row in self.rows:
            if row.deciding and row.runtime not in failed:
                first.setdefault(row.runtime, row)
        return tuple(first.values())

    @property
    def output_step(self) -> float:
        """The largest of the runtimes that passed; 0 if none did."""
        return max((self.output_steps[row.runtime] for row in self.passed), default=0.0)
