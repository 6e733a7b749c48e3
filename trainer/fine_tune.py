"""Trains layers step by step: one model, one source of inputs, epoch after epoch, from where it was interrupted.

Which layers learn, and from what, is :mod:`trainer.tuner`'s; which result is kept is :mod:`trainer.fit`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge.errors import ModelError
from edge.model.decide import probabilities
from trainer import model as networks
from trainer import sources
from trainer.checkpoint import Checkpoint
from trainer.dataset.split import Indices
from trainer.history import Epoch
from trainer.optimizers import optimizer
from trainer.probe import Floats
from trainer.settings import Settings


@dataclass(frozen=True)
class Stage:
    """One way to train a network.

    Attributes:
        name: for messages and file names.
        model: from the source's arrays to logits.
        learning: its layers that learn.
        slow: those of them that are the backbone's.
        source: its inputs.
        rate: the highest learning rate.
        scope: makes the context in which optimizers are made; that of a distribution strategy.
        compiled: whether XLA compiles the steps: right on a GPU, and on a CPU many times slower than without.
    """

    name: str
    model: keras.Model
    learning: frozenset[str]
    slow: frozenset[str]
    source: sources.Source
    rate: float
    scope: Callable[[], Any]
    compiled: bool = False


@dataclass(frozen=True)
class Lesson:
    """Who learns, and when to stop.

    Attributes:
        labels: of all photos.
        classes: C.
        train: photos to learn from.
        validation: photos to stop by; empty to learn for exactly ``epochs``.
        epochs: the last one that is trained; the schedule goes by the settings' epochs whatever this is.
    """

    labels: Indices
    classes: int
    train: Indices
    validation: Indices
    epochs: int


@dataclass(frozen=True)
class Trained:
    """What came out: the learning layers' weights after the best epoch, and the history."""

    weights: networks.LayerWeights
    history: list[Epoch]

    @property
    def best(self) -> int:
        """The number of the epoch with the smallest validation loss, from 1; without validation the last."""
        losses = [line.validation_loss for line in self.history]
        return len(losses) if math.isnan(losses[-1]) else int(np.argmin(losses)) + 1


def train(
    stage: Stage,
    start: networks.LayerWeights,
    lesson: Lesson,
    settings: Settings,
    checkpoint: Checkpoint | None = None,
    done: Callable[[Epoch], None] = lambda line: None,
) -> Trained:
    """Train from some weights, or go on from the checkpoint; the model is left with the weights that are returned.

    Args:
        stage: what is trained.
        start: weights of all its layers, or of those to be changed before.
        lesson: who learns.
        settings: optimizer, epochs, batch, patience, smoothing, balance and seed.
        checkpoint: saved after each epoch, and in the end with the result.
        done: called after each epoch, also those of the checkpoint.

    Raises:
        ModelError: a loss is no longer a finite number.
        ConfigError: the checkpoint was left by another training.
    """
    networks.set_learning(stage.model, stage.learning)
    networks.put_weights(stage.model, start)
    training = _Training(stage, lesson, settings)
    history = training.restore(checkpoint)
    for line in history:
        done(line)
    while not training.over(history):
        line = training.epoch(len(history) + 1)
        history.append(line)
        done(line)
        _check_finite(line, stage, settings)
        training.remember(history)
        if checkpoint is not None:
            checkpoint.save(*training.state(history))
    networks.put_weights(stage.model, training.best)
    return Trained(training.best, history)


def logits(stage: Stage, rows: Indices, batch: int) -> Floats:
    """float32 (n, C) of photos as they are, by the model as it is now."""
    if not len(rows):
        return np.empty((0, stage.model.output.shape[-1]), np.float32)
    shape, dtype = stage.model.input.shape, stage.model.input.dtype
    dataset = tf.data.Dataset.from_generator(
        lambda: sources.clean_batches(stage.source, rows, batch),
        output_signature=tf.TensorSpec(shape, _dtype(stage.source, dtype)),
    ).apply(tf.data.experimental.assert_cardinality(math.ceil(len(rows) / batch)))
    return np.asarray(stage.model.predict(dataset.prefetch(2), verbose=0), np.float32)[: len(rows)]


def _dtype(source: sources.Source, dtype: str) -> str:
    return "float16" if isinstance(source, sources.Activations) else dtype


class _Training:
    """One training on its way: the compiled model, and its best weights so far."""

    def __init__(self, stage: Stage, lesson: Lesson, settings: Settings) -> None:
        self._stage, self._lesson, self._settings = stage, lesson, settings
        counts = np.bincount(lesson.labels[lesson.train], minlength=lesson.classes)
        balanced = len(lesson.train) / (np.count_nonzero(counts) * counts.clip(1))
        self._balance = np.where(counts > 0, balanced, 1.0).astype(np.float32)  # (C,)
        self._steps = sources.steps_of(len(lesson.train), settings.batch)
        self.best = networks.weights_of(stage.model, stage.learning)
        self._compile()

    def _compile(self) -> None:
        model, stage = self._stage.model, self._stage
        slow = [v for name in sorted(stage.slow) for v in model.get_layer(name).trainable_variables]
        with stage.scope():
            model.compile(
                optimizer(self._settings, stage.rate, self._steps, slow),
                keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=self._settings.smoothing),
                metrics=["accuracy"],
                jit_compile=stage.compiled,
            )
            model.optimizer.build(model.trainable_variables)

    def over(self, history: Sequence[Epoch]) -> bool:
        if len(history) >= self._lesson.epochs:
            return True
        if not history or not len(self._lesson.validation):
            return False
        best = int(np.argmin([line.validation_loss for line in history]))
        return len(history) - 1 - best >= self._settings.patience

    def epoch(self, number: int) -> Epoch:
        """Train for one epoch and look at the validation photos."""
        self._seed(number)
        found = self._stage.model.fit(self._dataset(number), epochs=1, shuffle=False, verbose=0).history
        loss, accuracy = self._validate() if len(self._lesson.validation) else (math.nan, math.nan)
        return Epoch(number, float(found["loss"][0]), float(found["accuracy"][0]), loss, accuracy)

    def _seed(self, number: int) -> None:
        """Have dropout draw the same numbers in this epoch whatever was trained before."""
        model = self._stage.model
        weights = {id(weight) for weight in model.weights}
        states = [variable for variable in model.variables if id(variable) not in weights]
        for i, state in enumerate(states):
            state.assign(np.array([(self._settings.seed + i) % 2**32, number * 2**20], np.uint32))

    def _dataset(self, number: int) -> Any:
        lesson, settings, stage = self._lesson, self._settings, self._stage
        seed = (settings.seed, number)
        rows = self._order(np.random.default_rng(seed))
        weights = self._balance if settings.balance == "loss" else np.ones(lesson.classes, np.float32)
        kinds = (_dtype(stage.source, stage.model.input.dtype), "float32", "float32")
        shapes = (stage.model.input.shape, (None, lesson.classes), (None,))
        dataset = tf.data.Dataset.from_generator(
            lambda: sources.epoch(stage.source, rows, lesson.labels, weights, settings.batch, seed),
            output_signature=tuple(tf.TensorSpec(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)),
        )
        return dataset.apply(tf.data.experimental.assert_cardinality(self._steps)).prefetch(2)

    def _order(self, random: np.random.Generator) -> Indices:
        """The photos of an epoch: each once, or drawn so that each label comes equally often."""
        train = self._lesson.train
        if self._settings.balance != "sample":
            return random.permutation(train)
        labels = self._lesson.labels[train]
        present = np.unique(labels)
        shares = -(-len(train) // len(present))
        drawn = [_drawn(train[labels == label], shares, random) for label in present]
        return random.permutation(np.concatenate(drawn))[: len(train)]

    def _validate(self) -> tuple[float, float]:
        rows, truth = self._lesson.validation, self._lesson.labels[self._lesson.validation]
        found = logits(self._stage, rows, self._settings.batch)
        weights = np.ones(len(rows)) if self._settings.balance == "none" else self._balance[truth]
        loss = np.average(losses(found, truth, self._settings.smoothing), weights=weights)
        return float(loss), float((found.argmax(axis=1) == truth).mean())

    def remember(self, history: Sequence[Epoch]) -> None:
        """Keep the weights if this epoch is the best so far, or there is no telling."""
        last = history[-1].validation_loss
        if math.isnan(last) or last <= min(line.validation_loss for line in history):
            self.best = networks.weights_of(self._stage.model, self._stage.learning)

    def state(self, history: Sequence[Epoch]) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """For a checkpoint; that of a finished training holds the result alone."""
        arrays = {f"best/{name}/{i}": array for name, each in self.best.items() for i, array in enumerate(each)}
        over = self.over(history)
        if not over:
            arrays |= {f"now/{i}": _value(variable) for i, variable in enumerate(self._variables())}
        return {"history": [asdict(line) for line in history], "over": over}, arrays

    def restore(self, checkpoint: Checkpoint | None) -> list[Epoch]:
        """The history so far, and everything as it was after its last epoch."""
        state = checkpoint.load() if checkpoint is not None else None
        if state is None:
            return []
        self.best = {
            name: [state.arrays[f"best/{name}/{i}"] for i in range(len(each))] for name, each in self.best.items()
        }
        if not state.facts["over"]:
            for i, variable in enumerate(self._variables()):
                variable.assign(state.arrays[f"now/{i}"])
        return [Epoch(**line) for line in state.facts["history"]]

    def _variables(self) -> list[Any]:
        """Weights, states of dropout's random numbers, and the optimizer's own."""
        model = self._stage.model
        return [*model.variables, *model.optimizer.variables]


def _drawn(rows: Indices, count: int, random: np.random.Generator) -> Indices:
    """So many of them: each as often as it goes, the rest by chance."""
    whole, rest = divmod(count, len(rows))
    return np.concatenate([np.repeat(rows, whole), random.choice(rows, rest, replace=False)])


def _value(variable: Any) -> npt.NDArray[Any]:
    return np.asarray(keras.ops.convert_to_numpy(variable.value))


def losses(found: Floats, truth: Indices, smoothing: float) -> npt.NDArray[np.float64]:
    """Cross-entropy (n,) of logits (n, C) with smoothed labels, photo by photo."""
    classes = found.shape[1]
    wanted = np.eye(classes)[truth] * (1 - smoothing) + smoothing / classes
    return np.asarray(-(wanted * np.log(probabilities(found) + 1e-12)).sum(axis=1))


def _check_finite(line: Epoch, stage: Stage, settings: Settings) -> None:
    shown = replace(line, validation_loss=0.0) if math.isnan(line.validation_accuracy) else line
    if not (math.isfinite(shown.loss) and math.isfinite(shown.validation_loss)):
        raise ModelError(
            f"{stage.name} diverged in epoch {line.epoch}; a --rate lower than {settings.rate:g} may help.",
            code="diverged",
        )
