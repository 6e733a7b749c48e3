"""The gate: is a quantized model as good on the device's runtime as the float model was?

Each installed runtime answers all photos in a child process, with the device's own code. A model that fails on
every runtime is never written into a bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.errors import ModelError
from edge.model import run, runtime
from trainer.dataset.split import Indices

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Limits:
    """What the gate lets pass; recorded with its verdict.

    Attributes:
        agreement: least share of photos on which the most likely label is the float model's.
        lost_photos, lost_share: on the held-out photos, worse minus better may be at most the larger of the two.
        low_n: with fewer held-out photos the verdict says so.
    """

    agreement: float = 0.97
    lost_photos: int = 1
    lost_share: float = 0.01
    low_n: int = 200

    def most_lost(self, n: int) -> int:
        """How many photos more may go wrong than right, of ``n``."""
        return max(self.lost_photos, int(self.lost_share * n))


@dataclass(frozen=True)
class Twin:
    """The shipped model learned from all photos, so its accuracy is that of a twin that did not learn from some.

    Attributes:
        model: the twin's ``.tflite``, quantized in the same way.
        pixels: the photos held out from it, an ``.npy`` stack, uint8 (n, h, w, 3).
        reference: the twin's float logits of them, float32 (n, C).
    """

    model: Path
    pixels: Path
    reference: Logits


@dataclass(frozen=True)
class Row:
    """One runtime's verdict.

    Attributes:
        variant: ``int8``.
        runtime, version, architecture, kernels: where it ran.
        passed, reason: the verdict in a sentence.
        n: held-out photos behind the accuracies.
        accuracy, accuracy_float: share right on those, 0 to 1.
        n_agreement: photos behind the agreement; all readable ones.
        agreement: share of them with the float model's label.
        largest_difference: of two logits.
        ms: median of one invoke on one thread.
        rss_mib: peak memory of the child.
    """

    variant: str
    runtime: str
    version: str
    architecture: str
    kernels: str
    passed: bool
    reason: str
    n: int
    accuracy: float
    accuracy_float: float
    n_agreement: int
    agreement: float
    largest_difference: float
    ms: float
    rss_mib: float


@dataclass(frozen=True)
class Verdict:
    """The gate's rows, and behind those that ran, by runtime: logits, float32 (n, C), and the distance of neighbouring
    logits, 0 for float models."""

    rows: tuple[Row, ...]
    logits: dict[str, Logits]
    output_steps: dict[str, float]

    @property
    def passed(self) -> tuple[Row, ...]:
        """The rows of runtimes that may run the model."""
        return tuple(row for row in self.rows if row.passed)

    @property
    def output_step(self) -> float:
        """The largest of the runtimes that passed; 0 if none did."""
        return max((self.output_steps[row.runtime] for row in self.passed), default=0.0)


def judge(
    model: Path,
    pixels: Path,
    reference: Logits,
    truth: npt.NDArray[np.intp],
    holdout: Indices,
    limits: Limits,
    twin: Twin | None = None,
) -> Verdict:
    """Run the model on every installed runtime and compare with the float model.

    Args:
        model: the ``.tflite``.
        pixels: all readable photos, an ``.npy`` stack, uint8 (n, h, w, 3).
        reference: the float model's logits of them, float32 (n, C).
        truth: n label numbers.
        holdout: the photos that the model, or its twin, did not learn from.
        limits: what passes.
        twin: whose accuracy is judged, if the model itself learned from all photos.

    Raises:
        ModelError: no runtime is installed.
    """
    rows, logits, output_steps = [], {}, {}
    for installed in runtime.installed():
        try:
            answers = run.in_child(model, pixels, runtime=installed.name)
            held = run.in_child(twin.model, twin.pixels, runtime=installed.name).logits if twin else None
        except ModelError as error:
            rows.append(_crashed(installed, str(error), len(holdout)))
            continue
        pair = (answers.logits[holdout], reference[holdout])
        if twin is not None and held is not None:
            pair = (held, twin.reference)
        rows.append(compare(answers, reference, pair, truth[holdout], limits))
        logits[installed.name], output_steps[installed.name] = answers.logits, answers.output_step
    if not rows:
        raise ModelError("no TFLite runtime is installed, so nothing can be proven. Install ai-edge-litert.")
    return Verdict(tuple(rows), logits, output_steps)


def compare(
    answers: run.Answers,
    reference: Logits,
    held: tuple[Logits, Logits],
    truth: npt.NDArray[np.intp],
    limits: Limits,
) -> Row:
    """One runtime's answers against the float model's, as a row with its verdict.

    Args:
        answers: of all photos.
        reference: the float model's logits of them.
        held: quantized and float logits of the held-out photos.
        truth: their label numbers.
        limits: what passes.
    """
    found, wanted = answers.logits.argmax(axis=1), reference.argmax(axis=1)
    right, right_float = (logits.argmax(axis=1) == truth for logits in held)
    agreement = float((found == wanted).mean())
    lost = int((right_float & ~right).sum()) - int((right & ~right_float).sum())
    reason = _fault(answers.logits, agreement, lost, len(truth), limits)
    return Row(
        variant="int8",
        runtime=answers.runtime,
        version=answers.version,
        architecture=answers.architecture,
        kernels=answers.kernels,
        passed=reason is None,
        reason=reason or _success(agreement, lost, len(truth), limits),
        n=len(truth),
        accuracy=float(right.mean()),
        accuracy_float=float(right_float.mean()),
        n_agreement=len(found),
        agreement=agreement,
        largest_difference=round(float(np.abs(answers.logits - reference).max()), 4),
        ms=round(answers.ms, 2),
        rss_mib=round(answers.rss_mib, 1),
    )


def _fault(logits: Logits, agreement: float, lost: int, n: int, limits: Limits) -> str | None:
    if len(logits) > 1 and np.ptp(logits, axis=0).max() == 0:
        return "it gives the same answer for every photo"
    if lost > limits.most_lost(n):
        most = limits.most_lost(n)
        return f"it gets {lost} of {n} held-out photos wrong more than the float model, at most {most} may be"
    if agreement < limits.agreement:
        return f"it agrees with the float model on {agreement:.1%} of the photos, at least {limits.agreement:.0%} must"
    return None


def _success(agreement: float, lost: int, n: int, limits: Limits) -> str:
    change = "no held-out photo lost" if lost <= 0 else f"{lost} held-out photo{'s' if lost > 1 else ''} lost"
    low = f"; low n: {n} held-out photos" if n < limits.low_n else ""
    return f"{change}, {agreement:.1%} agree with the float model{low}"


def _crashed(installed: runtime.Installed, reason: str, n: int) -> Row:
    import platform

    return Row(
        "int8", installed.name, installed.version, platform.machine(), "default", False, reason, n, 0.0, 0.0, 0, 0.0,
        0.0, 0.0, 0.0,
    )  # fmt: skip
