"""Measures a run or a bundle on labelled photos, each as it would be used: a run in Keras, a bundle on a runtime."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.errors import DataError
from edge.model import bundle
from edge.model import run as child
from edge.model import runtime as runtimes
from edge.model.spec import InputSpec
from edge.model.taxonomy import Taxonomy, taxonomy
from trainer import labelled, labels, pixels, run
from trainer.answered import Answered
from trainer.dataset.samples import Unreadable
from trainer.evaluate import Figures, evaluate, figures
from trainer.progress import Steps
from trainer.report import page
from trainer.report.record import Answer, Report, galleries

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """What is measured: its input, labels, how it decides, and the SHA-256 of photos that it is known to have learned
    from; a bundle does not tell."""

    path: Path
    name: str
    input: InputSpec
    labels: tuple[str, ...]
    temperature: float
    thresholds: tuple[float, ...]
    taxonomy: Taxonomy
    rollup: float | None
    is_bundle: bool
    learned: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Measured:
    """Figures on the photos that could be read; the others are listed.

    Attributes:
        runtime: a TFLite runtime's name, or ``keras``.
        answered: behind the figures, for comparisons and reports.
        stack: the photos' pixels.
        learned: how many of the photos the model learned from, as far as it is known.
        notes: sentences for the user.
    """

    subject: Subject
    runtime: str
    figures: Figures
    failed: list[Unreadable]
    answered: Answered
    stack: pixels.PixelStack
    learned: int
    notes: list[str]


def subject(path: Path) -> Subject:
    """Read what a run or a bundle says of itself.

    Raises:
        DataError: it is neither.
        BundleError, TrustError: the bundle is not whole.
    """
    if path.is_dir():
        trained = run.read(path)
        facts = trained.facts
        learned = frozenset(
            line.sha256 for line in trained.photos if facts.refitted or line.part in (run.TRAIN, run.VALIDATION)
        )
        taxa = taxonomy(labels.of_run(trained))
        return Subject(
            path, facts.name, facts.input, facts.labels, facts.temperature, facts.thresholds, taxa, facts.rollup,
            False, learned,
        )  # fmt: skip
    if path.suffix != bundle.SUFFIX:
        raise DataError(f"{path} is neither a run's folder nor a bundle ({bundle.SUFFIX}).")
    manifest = bundle.open_bundle(path).manifest
    return Subject(
        path, manifest.name, manifest.input, tuple(label.name for label in manifest.labels), manifest.temperature,
        manifest.thresholds, taxonomy(manifest.labels), manifest.rollup, True,
    )  # fmt: skip


def measure(what: Subject, data: Path, runtime: str | None, sequence_column: str | None, steps: Steps) -> Measured:
    """Answer every photo of a data set and compare with its labels.

    Raises:
        DataError: the data has a label that the model does not know, or no readable photo.
        ModelError: the runtime failed.
    """
    read = labelled.read(data, what.labels, what.input, sequence_column, steps, who=what.name)
    with (
        steps.step("classifying", len(read.decoded)),
        tempfile.TemporaryDirectory(prefix="fieldmark-measure-") as scratch,
    ):
        file = Path(scratch) / "photos.npy"
        read.stack.save(file, np.arange(len(read.stack)))
        used, logits = _answers(what, file, runtime, Path(scratch))
    answered = read.answered(logits, what.labels)
    measured = figures(
        logits, read.truth, what.labels,
        temperature=what.temperature, thresholds=what.thresholds, groups=answered.groups,
        taxonomy=what.taxonomy, rollup=what.rollup,
    )  # fmt: skip
    learned = sum(photo.sha256 in what.learned for photo in read.decoded)
    if learned:
        steps.say(f"  {what.name} learned from {learned} of these {len(read.decoded)} photos, so its figures flatter.")
    return Measured(what, used, measured, read.failed, answered, read.stack, learned, read.notes)


def write_report(measured: Measured, folder: Path) -> None:
    """Write ``report.html`` and ``report.json`` into a folder, which is made.

    Raises:
        DataError: the folder cannot be written.
    """
    what, answered = measured.subject, measured.answered
    evaluation = evaluate(
        answered, temperature=what.temperature, thresholds=what.thresholds, taxonomy=what.taxonomy, rollup=what.rollup
    )
    warning = f"The model learned from {measured.learned} of these photos." if measured.learned else None
    counts = Counter(answered.labels[i] for i in answered.truth)
    report = Report(
        title=what.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        photos=len(answered),
        counts={label: counts[label] for label in answered.labels},
        unreadable=measured.failed,
        answers=[Answer("as given", evaluation, warning)],
        model=f"{what.name} at {what.input.height} × {what.input.width}",
        device=measured.runtime,
        warnings=measured.notes,
        galleries=galleries(evaluation, measured.stack.__getitem__),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror}. Give --report another folder.") from error
    page.write(folder, report)


def _answers(what: Subject, photos: Path, runtime: str | None, scratch: Path) -> tuple[str, Logits]:
    if not what.is_bundle:
        if runtime is not None:
            raise DataError(f"{what.path} is a run, which Keras answers; --runtime is for bundles.")
        return "keras", _keras(what.path, photos)
    opened = bundle.open_bundle(what.path)
    model = scratch / bundle.MODEL
    model.write_bytes(opened.model)
    used = runtime or runtimes.usable(opened.manifest)
    return used, child.in_child(model, photos, runtime=used).logits


def _keras(folder: Path, photos: Path) -> Logits:
    from trainer.export import float_answers, load_model

    return float_answers(load_model(run.read(folder).model_path), photos)


def right(measured: Measured) -> dict[str, bool]:
    """Photo by photo, by name, whether the most likely label is right."""
    answered = measured.answered
    return dict(zip(answered.names, (answered.logits.argmax(axis=1) == answered.truth).tolist(), strict=True))
