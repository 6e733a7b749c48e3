"""Training from labelled photos to a run: prepare, divide, fit, measure, and have it written down."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import DataError, ModelError
from trainer import devices, division, feature_file, fit, from_features, run, write_run
from trainer import photos as photos_of
from trainer.cache import prune
from trainer.outcome import Asked, Outcome
from trainer.photos import Network
from trainer.progress import Steps
from trainer.settings import HEAD_ONLY, RANDOM, Settings

if TYPE_CHECKING:
    import keras

    from trainer.tuner import Tuner

UNFINISHED = ".unfinished"
"""Ending of the folder beside a run that holds what an interrupted training needs to go on."""


def train(data: Path, out: Path, settings: Settings, steps: Steps, *, resume: bool = False) -> run.Run:
    """Train.

    Args:
        data: see :func:`trainer.dataset.readers.scan`.
        out: the run's folder; it must not exist yet, or be empty.
        settings: what to do.
        steps: shows progress.
        resume: go on with a training of this ``out`` that was interrupted, if there is one.

    Raises:
        DataError: the data cannot be trained on, or ``out`` is taken.
        ConfigError: a setting is out of range, or names a layer that is not there.
    """
    start = time.monotonic()
    out = _checked_out(out)
    unfinished = _unfinished(out, resume)
    steps.say(f"Training on {data}")
    if data.suffix == from_features.SUFFIX:
        source = from_features.source(feature_file.read(data), data, settings)
        network: Callable[[], keras.Model] = source.network
        outcome = Outcome(data, source.data_folder, out, source.settings, source.photos)
    else:
        found = photos_of.find(data, settings, steps)
        _check_layers(settings)
        loading = devices.load_early()
        try:
            photos = photos_of.read(found, settings, steps)
        except BaseException:
            loading.join()  # a process that ends in the midst of it may crash
            raise
        steps.say(f"  {devices.describe()}")
        network = Network(settings)
        photos = photos_of.with_features(photos, network, settings, steps)
        outcome = Outcome(data, _folder(data), out, settings, photos)
    with _kept_if_interrupted(unfinished):
        _fit(outcome, _tuner(network, outcome, unfinished, steps), steps)
        with steps.step("writing the run"):
            outcome.measure()
            write_run.write(outcome, network(), steps, time.monotonic() - start)
    prune()
    return run.read(out)


def layers(settings: Settings) -> list[str]:
    """The layers of the network that these settings train, as lines for a terminal; its weights need not be here."""
    from trainer import layer_table, model

    network = Network(replace(settings, weights=RANDOM))()
    classifier = model.classifier(network, settings, 2)
    learning = model.learning_layers(network, settings) | model.new_layers(classifier, network)
    return layer_table.lines(classifier, learning)


def _check_layers(settings: Settings) -> None:
    """Refuse layers that are not there before an hour is spent on photos."""
    if settings.cut or settings.fine_tune_from or settings.freeze:
        layers(settings)


def _tuner(network: Callable[[], keras.Model], outcome: Outcome, folder: Path, steps: Steps) -> Tuner | None:
    if not outcome.settings.needs_tuner:
        return None
    from trainer.tuner import Tuner

    return Tuner(network(), outcome.photos, outcome.settings, folder, steps)


def _fit(outcome: Outcome, tuner: Tuner | None, steps: Steps) -> None:
    photos, settings = outcome.photos, outcome.settings
    hardest, *others = photos.questions
    fitting = fit.Fitting(photos, hardest, settings, tuner, steps)
    _ask(outcome, fitting, "measured")
    for number, question in enumerate(others, start=2):
        same = _same_kind(settings, outcome.fitted.kept)
        _ask(outcome, replace(fitting, question=question, settings=same), f"measured-{number}")
    if settings.cross_validate:
        outcome.crossed = fitting.cross_validate()
        outcome.main.fitted = fit.with_folds(outcome.fitted, outcome.crossed)
    if settings.refit:
        outcome.shipped, _ = fitting.refit(outcome.fitted)


def _ask(outcome: Outcome, fitting: fit.Fitting, name: str) -> None:
    """Divide the photos for one question and fit."""
    question, say = fitting.question, fitting.steps.say
    parts = division.divide(fitting.photos, question, fitting.settings)
    say(f"  {question.name}: {write_run.sizes(parts)}")
    if question.warning:
        say(f"  {question.warning}")
    outcome.asked.append(Asked(question, parts, fitting.fit(parts, name)))


def _same_kind(settings: Settings, kept: str) -> Settings:
    """Settings that end in the kind of model that the hardest question chose: other questions are asked of no other."""
    if kept == fit.FINE_TUNED:
        return replace(settings, keep="fine-tuned")
    return replace(settings, learn=HEAD_ONLY, fine_tune_from=None)


# --- where it comes from, and where it goes


def _folder(data: Path) -> Path:
    return data.absolute() if data.is_dir() else data.absolute().parent


def _unfinished(out: Path, resume: bool) -> Path:
    """The folder of an interrupted training; one that is there may only be gone on with."""
    folder = out.with_name(out.name + UNFINISHED)
    if os.path.lexists(folder) and not resume:
        raise DataError(
            f"{folder} holds a training that was interrupted. Add --resume to go on with it, or remove the folder."
        )
    return folder


@contextmanager
def _kept_if_interrupted(folder: Path) -> Iterator[None]:
    """Leave what an interrupted training, or one that found no room, needs to go on; without a checkpoint, nothing."""
    try:
        yield
    except ModelError:  # with other settings, which is the cure, nothing of it can be used
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except DataError:
        if not any(folder.rglob("*.npz")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


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
