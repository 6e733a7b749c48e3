"""Training from labelled photos to a run: prepare, divide, fit, write down what a person and export will read."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge import pathtext
from edge.errors import DataError
from edge.model.decide import probabilities
from trainer import run
from trainer.backbones import backbone
from trainer.cache import cache_dir, prune
from trainer.evaluate import Figures, figures, temperature
from trainer.fit import Fitted, Parts, Tuner, cross_validate, divide, fit
from trainer.photos import Network, Photos, prepare
from trainer.progress import Steps
from trainer.settings import Settings

if TYPE_CHECKING:
    import keras

UNDECIDED = 0.5
"""Below this probability the answer is ``unknown``: a label is given only if it is more likely right than wrong."""


def train(data: Path, out: Path, settings: Settings, steps: Steps) -> run.Run:
    """Train.

    Args:
        data: a folder per class or a CSV file.
        out: the run's folder; it must not exist yet, or be empty.
        settings: what to do.
        steps: shows progress.

    Raises:
        DataError: the data cannot be trained on, or ``out`` is taken.
        ConfigError: a setting is out of range.
    """
    out = _checked_out(out)
    network = Network(backbone(settings.backbone), settings.spec())
    photos = prepare(data, settings, network, steps)
    parts = divide(photos)
    steps.say(f"  {_describe_split(photos, parts)}")
    with ExitStack() as stack:
        tuner = None
        if settings.fine_tune:
            tuner = Tuner(network(), photos, settings, Path(stack.enter_context(_scratch())), steps)
        fitted = fit(photos, parts, settings, tuner, steps)
        crossed = cross_validate(photos, settings, tuner, steps) if settings.cross_validate else None
        if tuner is not None:
            tuner.tail.put(fitted.tuned_weights)
    result = _Result(data, out, settings, photos, parts, fitted, crossed)
    with steps.step("writing the run"):
        _write(result, network(), steps)
    prune()
    return run.read(out)


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for what may be many gigabytes: below the cache, for /tmp is often memory."""
    folder = cache_dir().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="train-", dir=folder)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error.strerror}. Set FIELDMARK_CACHE to a folder that can."
        ) from error


class _Result:
    """A finished training, with the figures that follow from it."""

    def __init__(
        self,
        data: Path,
        out: Path,
        settings: Settings,
        photos: Photos,
        parts: Parts,
        fitted: Fitted,
        crossed: dict[str, Any] | None,
    ) -> None:
        self.data, self.out, self.settings = data, out, settings
        self.photos, self.parts, self.fitted, self.crossed = photos, parts, fitted, crossed
        self.temperature = temperature(fitted.unseen_logits, photos.labels[fitted.unseen])
        self.chances = probabilities(fitted.logits, self.temperature)  # (n, C)

    def holdout(self) -> Figures:
        """On the photos that nothing was fitted or chosen on."""
        rows, names = self.parts.holdout, self.photos.names
        return figures(
            self.fitted.logits[rows], self.photos.labels[rows], names,
            temperature=self.temperature, thresholds=[UNDECIDED] * len(names),
        )  # fmt: skip

    def metrics(self) -> dict[str, Any]:
        """For ``run.json``."""
        found = {
            "kept": self.fitted.kept,
            "regularisation": self.fitted.choice.strength,
            "regularisation_tried": {str(key): value for key, value in self.fitted.choice.accuracy.items()},
            "validation": {"n": len(self.parts.validation), **self.fitted.validation},
            "holdout": asdict(self.holdout()),
        }
        return {**found, "grouped_folds": self.crossed} if self.crossed else found


def _describe_split(photos: Photos, parts: Parts) -> str:
    sizes = f"{len(parts.train)} train, {len(parts.validation)} validation, {len(parts.holdout)} hold-out"
    groups = len(np.unique(photos.groups))
    return f"{sizes}; {groups} groups of bursts and near-duplicates, none of them divided"


def _write(result: _Result, network: keras.Model, steps: Steps) -> None:
    """Write the run beside its place and move it there whole, so that half a run never looks like one."""
    out = result.out
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        folder.chmod(0o755)
        _save_model(network, result.fitted, folder / run.MODEL)
        facts = _facts(result, steps)
        epochs = [asdict(epoch) for epoch in result.fitted.history]
        run.write(folder, facts, _photo_lines(result), result.photos.unreadable, epochs)
        _draw(folder, result)
        (folder / run.SUMMARY).write_text(_summary(facts, result), encoding="utf-8")
        folder.replace(out)  # onto an empty folder, or nothing
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _save_model(network: keras.Model, fitted: Fitted, path: Path) -> None:
    from trainer.model import assemble

    assemble(network, fitted.head).save(path)


def _facts(result: _Result, steps: Steps) -> run.Facts:
    return run.Facts(
        name=pathtext.to_text(result.out.name),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data_folder=pathtext.to_text(str(_data_folder(result.data))),
        labels=result.photos.names,
        input=result.photos.stack.spec,
        backbone=result.settings.backbone,
        kept=result.fitted.kept,
        split=_describe_split(result.photos, result.parts),
        temperature=result.temperature,
        dataset_digest=_dataset_digest(result.photos),
        settings=asdict(result.settings),
        metrics=result.metrics(),
        seconds=dict(steps.seconds),
        trained_with=", ".join(f"{name} {metadata.version(name)}" for name in ("tensorflow", "keras")),
    )


def _data_folder(data: Path) -> Path:
    return data.absolute() if data.is_dir() else data.absolute().parent


def _dataset_digest(photos: Photos) -> str:
    """SHA-256 over the sorted lines ``sha256 label``: the same photos and labels give the same digest anywhere."""
    lines = sorted(f"{photo.sha256} {photo.sample.label}\n" for photo in photos.decoded)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _photo_lines(result: _Result) -> list[run.PhotoLine]:
    parts = np.full(len(result.photos.decoded), run.TRAIN, dtype=object)
    parts[result.parts.validation], parts[result.parts.holdout] = run.VALIDATION, run.HOLDOUT
    return [
        run.PhotoLine(
            photo.sample.name,
            photo.sample.label,
            part,
            int(group),
            photo.sha256,
            result.photos.names[int(chances.argmax())],
            round(float(chances.max()), 4),
        )
        for photo, part, group, chances in zip(
            result.photos.decoded, parts, result.photos.groups, result.chances, strict=True
        )
    ]


def _draw(folder: Path, result: _Result) -> None:
    from trainer.report import plots

    fitted, parts, photos = result.fitted, result.parts, result.photos
    if fitted.history:
        plots.history(folder / run.HISTORY_PLOT, fitted.history, *_probe_on_validation(result))
    held = result.holdout()
    title = f"hold-out, {held.n} photos, {held.accuracy:.1%} right"
    plots.confusion(folder / run.CONFUSION_PLOT, held.confusion, photos.names, title)
    unseen = np.concatenate([parts.holdout, parts.validation])
    chances = result.chances[unseen]
    wrong = unseen[chances.argmax(axis=1) != photos.labels[unseen]]
    worst = sorted(wrong, key=lambda i: -result.chances[i].max())
    if worst:
        plots.mistakes(folder / run.MISTAKES, [_mistake(result, int(i)) for i in worst[: plots.MOST_MISTAKES]])


def _probe_on_validation(result: _Result) -> tuple[float, float]:
    """Loss, smoothed as in fine-tuning, and accuracy of the probe that fine-tuning started from."""
    from trainer.fine_tune import Settings as FineTuning

    rows, classes, smoothing = result.parts.validation, len(result.photos.names), FineTuning().smoothing
    chances = probabilities(result.fitted.start.logits(result.photos.features[rows]))
    wanted = np.eye(classes)[result.photos.labels[rows]] * (1 - smoothing) + smoothing / classes
    loss = -(wanted * np.log(chances + 1e-12)).sum(axis=1).mean()
    return float(loss), result.fitted.validation["probe"]


def _mistake(result: _Result, i: int) -> Any:
    from trainer.report.plots import Mistake

    sample, chances = result.photos.decoded[i].sample, result.chances[i]
    predicted = result.photos.names[int(chances.argmax())]
    return Mistake(result.photos.stack[i], sample.name, sample.label, predicted, float(chances.max()))


def _summary(facts: run.Facts, result: _Result) -> str:
    """A page for a person."""
    held, photos = result.holdout(), result.photos
    counts = Counter(photo.sample.label for photo in photos.decoded)
    lines = [
        f"Run {facts.name}, {facts.created}",
        f"{len(photos.decoded)} photos, {len(photos.unreadable)} unreadable; {facts.split}",
        f"backbone {facts.backbone} at {facts.input.height} x {facts.input.width}; kept: {facts.kept}",
        "",
        f"validation ({len(result.parts.validation)} photos): "
        + ", ".join(f"{name} {share:.1%}" for name, share in result.fitted.validation.items()),
        f"hold-out ({held.n} photos nobody learned from): {held.accuracy:.1%} right, macro F1 {held.macro_f1:.2f}",
        f"sure enough to decide: {held.coverage:.1%}, of these right: {held.accuracy_decided or 0:.1%}",
        "",
        f"{'label':24} {'photos':>7} {'held out':>9} {'precision':>10} {'recall':>7}",
    ]
    lines += [
        f"{label:24} {counts[label]:7d} {each.n:9d} {each.precision:10.1%} {each.recall:7.1%}"
        for label, each in held.per_class.items()
    ]
    return "\n".join(lines) + "\n"


def _checked_out(out: Path) -> Path:
    """Where the run goes: ``out``, or what it links to. It will be renamed onto, so it must be a place that can be."""
    try:
        if out.is_symlink() or out.name in ("", ".."):
            out = out.resolve()
        in_use = out.exists() and (out.samefile(Path.cwd()) or os.path.ismount(out))
    except (OSError, RuntimeError) as error:
        raise DataError(f"{out} cannot hold a run: {error}. Give --out another folder.") from error
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} already holds something. Give --out another folder; a run is never overwritten.")
    parent = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise DataError(f"{parent} cannot be written. Give --out another folder.")
    if in_use:
        raise DataError(f"{out} is the current folder or a disk of its own. Give --out a new folder in it.")
    return out
