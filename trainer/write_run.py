"""Writes a run: models, facts, photos, report. Beside its place first, so that half a run never looks like one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge import pathtext
from edge.errors import DataError
from trainer import contact_sheet, devices, fit, labels, pixels, run, settings_file
from trainer.division import Parts
from trainer.evaluate import Evaluation
from trainer.fit import Fitted
from trainer.outcome import Outcome, Rows
from trainer.progress import Steps
from trainer.report import page
from trainer.report.record import WORST, Report, Stage, galleries

if TYPE_CHECKING:
    import keras


def write(outcome: Outcome, network: keras.Model, steps: Steps, wall_s: float) -> None:
    """Write the run beside its place and move it there whole, so that half a run never looks like one.

    Raises:
        DataError: the disk is full, or the place cannot be written (code ``not written``).
    """
    try:
        _write(outcome, network, steps, wall_s)
    except OSError as error:
        raise DataError(
            f"{outcome.out} cannot be written: {error.strerror or error}. Make room there, or see that it may be "
            "written to; the same command with --resume then goes on from here.",
            code="not written",
        ) from error
    bare = labels.incomplete(outcome.labels)
    if bare:
        steps.say(
            f"  {', '.join(bare[:5])}{' and others' if len(bare) > 5 else ''}: what these are is not known. Before you "
            f"export, complete {outcome.out / run.TAXA}."
        )


def _write(outcome: Outcome, network: keras.Model, steps: Steps, wall_s: float) -> None:
    out = outcome.out
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        folder.chmod(0o755)
        _save_models(network, outcome, folder)
        facts = _facts(outcome, steps, wall_s)
        stages = _stages(outcome.fitted)
        lines = [{"stage": stage.name, **asdict(epoch)} for stage in stages for epoch in stage.epochs]
        run.write(folder, facts, _photo_lines(outcome), outcome.photos.unreadable, lines)
        text = settings_file.text(outcome.data, outcome.settings)
        (folder / run.SETTINGS).write_text(text, encoding="utf-8")
        (folder / run.TAXA).write_text(labels.text(outcome.labels), encoding="utf-8")
        (folder / run.SUMMARY).write_text(_summary(facts, outcome), encoding="utf-8")
        _report(folder, facts, outcome, stages)
        _sync(folder)
        folder.replace(out)  # onto an empty folder, or nothing
        _sync_entry(out.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _sync(folder: Path) -> None:
    """What a run needs is on the disk before it has its name, and before what it was made from is removed."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_entry(folder)


def _sync_entry(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _save_models(network: keras.Model, outcome: Outcome, folder: Path) -> None:
    settings, classes = outcome.settings, len(outcome.photos.names)
    measured = fit.final_model(network, settings, classes, outcome.fitted.learned)
    if outcome.shipped is None:
        measured.save(folder / run.MODEL)
        return
    measured.save(folder / run.MEASURED)
    fit.final_model(network, settings, classes, outcome.shipped).save(folder / run.MODEL)


def _facts(outcome: Outcome, steps: Steps, wall_s: float) -> run.Facts:
    return run.Facts(
        name=pathtext.to_text(outcome.out.name),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data_folder=pathtext.to_text(str(outcome.data_folder)),
        labels=outcome.photos.names,
        input=outcome.photos.stack.spec,
        backbone=outcome.settings.backbone,
        kept=outcome.fitted.kept,
        question=outcome.main.question.name,
        split=_describe_split(outcome),
        temperature=outcome.temperature,
        thresholds=outcome.thresholds.values,
        rollup=outcome.thresholds.rollup,
        refitted=outcome.shipped is not None,
        dataset_digest=pixels.dataset_digest(outcome.photos.decoded),
        settings=asdict(outcome.settings),
        metrics=_metrics(outcome),
        seconds={**steps.seconds, "in all": round(wall_s, 2)},
        trained_with=", ".join(f"{name} {metadata.version(name)}" for name in ("tensorflow", "keras")),
    )


def _metrics(outcome: Outcome) -> dict[str, Any]:
    """For ``run.json`` and ``--json``."""
    fitted = outcome.fitted
    found: dict[str, Any] = {
        "kept": fitted.kept,
        "validation": {"n": len(outcome.main.parts.validation), **fitted.validation},
        "holdout": asdict(outcome.answers[0].evaluation.figures),
        "questions": [
            {"name": answer.question, "is_test": answer.is_test, "warning": answer.warning}
            | {name: getattr(answer.evaluation.figures, name) for name in ("n", "accuracy", "accuracy_interval")}
            for answer in outcome.answers
        ],
    }
    if fitted.choice is not None:
        found["regularisation"] = fitted.choice.strength
        found["regularisation_tried"] = {str(key): value for key, value in fitted.choice.accuracy.items()}
    if outcome.crossed is not None:
        found["grouped_folds"] = outcome.crossed.facts()
    found["thresholds"] = {
        "wanted_precision": outcome.thresholds.wanted,
        "reached": [asdict(each) for each in outcome.thresholds.reached],
    }
    if outcome.thresholds.chosen is not None:
        found["empty"] = asdict(outcome.thresholds.chosen)
    return found


def _describe_split(outcome: Outcome) -> str:
    groups = len(np.unique(outcome.photos.groups))
    return f"{outcome.main.question.name}: {sizes(outcome.main.parts)}; {groups} groups of bursts and near-duplicates"


def _photo_lines(outcome: Outcome) -> list[run.PhotoLine]:
    photos, fitted, n = outcome.photos, outcome.fitted, len(outcome.photos.labels)
    parts = np.full(n, run.UNUSED, dtype=object)
    own = outcome.main.parts
    parts[own.train], parts[own.validation], parts[own.holdout] = run.TRAIN, run.VALIDATION, run.HOLDOUT
    logits = fitted.logits.copy()
    logits[fitted.unseen] = fitted.unseen_logits
    unseen = np.isin(np.arange(n), fitted.unseen)
    chances = outcome.answered(np.arange(n), logits).chances(outcome.temperature)
    return [
        run.PhotoLine(
            photo=photo.sample.name,
            label=photo.sample.label,
            part=parts[i],
            group=int(photos.groups[i]),
            sha256=photo.sha256,
            predicted=photos.names[int(chances[i].argmax())],
            confidence=round(float(chances[i].max()), 4),
            unseen=bool(unseen[i]),
            station=photo.sample.station or "",
            infrared=photo.infrared,
        )
        for i, photo in enumerate(photos.decoded)
    ]


def _stages(fitted: Fitted) -> list[Stage]:
    stages = (
        ("new layers", fitted.start_history, fitted.start_epochs),
        ("fine-tuning", fitted.history, fitted.epochs),
    )
    return [Stage(name, history, best or None) for name, history, best in stages if history]


def _report(folder: Path, facts: run.Facts, outcome: Outcome, stages: list[Stage]) -> None:
    photos, fitted = outcome.photos, outcome.fitted
    counts = Counter(photo.sample.label for photo in photos.decoded)
    rows, evaluation = _shown(outcome)

    def pixels(i: int) -> npt.NDArray[np.uint8]:
        return photos.stack[int(rows[i])]

    report = Report(
        title=facts.name,
        created=facts.created,
        photos=len(photos.decoded),
        counts={name: counts[name] for name in photos.names},
        unreadable=photos.unreadable,
        answers=outcome.answers,
        model=f"{facts.backbone} at {facts.input.height} × {facts.input.width}",
        kept=facts.kept,
        refitted=facts.refitted,
        thresholds=outcome.thresholds,
        validation=fitted.validation,
        validation_n=len(outcome.main.parts.validation),
        stages=stages,
        settings=facts.settings,
        changed=outcome.settings.changed(),
        seconds=facts.seconds,
        device=devices.describe(),
        trained_with=facts.trained_with,
        command=f"fieldmark train --config {run.SETTINGS} --out NEW",
        warnings=photos.notes,
        galleries=galleries(evaluation, pixels) if photos.stack.can_be_read() else (),
    )
    page.write(folder, report)
    worst = [[tile] for gallery in report.galleries if gallery.caption == WORST for tile in gallery.tiles]
    if worst:
        contact_sheet.write(folder / run.MISTAKES, WORST, worst)


def _shown(outcome: Outcome) -> tuple[Rows, Evaluation]:
    """The photos whose mistakes are worth a look: all that the kept kind of model had not seen."""
    return outcome.fitted.unseen, outcome.out_of_fold()


def _summary(facts: run.Facts, outcome: Outcome) -> str:
    """A page for a person."""
    photos, main = outcome.photos, outcome.answers[0].evaluation.figures
    counts = Counter(photo.sample.label for photo in photos.decoded)
    lines = [
        f"Run {facts.name}, {facts.created}",
        f"{len(photos.decoded)} photos, {len(photos.unreadable)} unreadable; {facts.split}",
        f"backbone {facts.backbone} at {facts.input.height} x {facts.input.width}; kept: {facts.kept}"
        + ("; shipped: the same, learned from all photos" if facts.refitted else ""),
        "",
        f"validation ({len(outcome.main.parts.validation)} photos): "
        + ", ".join(f"{name} {share:.1%}" for name, share in outcome.fitted.validation.items()),
    ]
    lines += [page.headline(answer) for answer in outcome.answers]
    lines += [
        f"sure enough to decide: {main.coverage:.1%}, of these right: {main.accuracy_decided or 0:.1%}"
        + (f"; {main.rolled_up} of {main.n} rolled up to a taxon" if main.rolled_up else ""),
        "",
        f"{'label':24} {'photos':>7} {'held out':>9} {'precision':>10} {'recall':>7}",
    ]
    lines += [
        f"{label:24} {counts[label]:7d} {each.n:9d} "
        + (f"{each.precision:10.1%} {each.recall:7.1%}" if each.n else f"{'-':>10} {'-':>7}")
        for label, each in main.per_class.items()
    ]
    lines += ["", *_sureness(outcome)]
    return "\n".join(lines) + "\n"


def _sureness(outcome: Outcome) -> list[str]:
    """Where the wanted precision could not be shown, for a person."""
    chosen = outcome.thresholds
    bare = [each for each in chosen.reached if not each.shown]
    if not bare or chosen.wanted is None:
        return [f"every threshold shows the wanted precision of {chosen.wanted:.1%}"] if chosen.wanted else []
    lines = [f"too few photos, or too few right, to show the wanted precision of {chosen.wanted:.1%}:"]
    return lines + [f"  {each.label}: {each.right} of {each.said} right above {each.threshold:.2f}" for each in bare]


def sizes(parts: Parts) -> str:
    """In words."""
    return f"{len(parts.train)} train, {len(parts.validation)} validation, {len(parts.holdout)} held out"
