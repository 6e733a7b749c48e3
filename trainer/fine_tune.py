"""Trains the last blocks of a backbone, starting from the probe.

The blocks in front never change, so their output is computed once: of each photo as it is, and of a few random
views. An epoch then pays only for the blocks that learn, which on a processor without GPU is what makes it bearable.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from edge.errors import DataError, ModelError
from trainer import augment
from trainer.dataset.split import Indices
from trainer.model import Parts, freeze_batch_norm
from trainer.pixels import PixelStack
from trainer.probe import Floats, Head

BATCH = 16
PATIENCE = 4


@dataclass(frozen=True)
class Settings:
    """How the last blocks learn.

    Attributes:
        epochs: at most; it stops after four epochs without a smaller validation loss.
        rate: Adam's highest learning rate, reached after one epoch and then lowered along a cosine.
        views: random views of each training photo.
        smoothing: label smoothing (Szegedy et al. 2016), 0 to 1.
    """

    epochs: int = 12
    rate: float = 1e-4
    views: int = 6
    smoothing: float = 0.1


@dataclass(frozen=True)
class Epoch:
    """One line of the history; accuracies 0 to 1."""

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float


class Activations:
    """What the frozen part says of each photo and its views: float16, shape (n, 1 + views, h, w, c), on disk.

    View 0 is the photo as it is.
    """

    def __init__(self, file: Path, shape: tuple[int, ...]) -> None:
        _check_space(file.parent, math.prod(shape) * np.dtype(np.float16).itemsize)
        self.array = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)  # type: ignore[no-untyped-call]

    def clean(self, indices: Indices) -> npt.NDArray[np.float16]:
        """(n, h, w, c), the photos as they are."""
        return np.asarray(self.array[indices, 0])

    def views(self, indices: Indices, random: np.random.Generator) -> npt.NDArray[np.float16]:
        """(n, h, w, c), a random one for each photo; the photo as it is counts as one."""
        return np.asarray(self.array[indices, random.integers(0, self.array.shape[1], len(indices))])


def activations(
    trunk: keras.Model, pixels: PixelStack, views: int, seed: int, file: Path, done: Callable[[int], None]
) -> Activations:
    """Run the frozen part over all photos and views.

    Args:
        trunk: uint8 pixels to activations.
        views: random views per photo.
        seed: of the views.
        file: where the numbers go, about 40 kB per view at 320 x 320.
        done: called with the number of photos finished.

    Raises:
        DataError: the disk has no room for them.
    """
    result = Activations(file, (len(pixels), 1 + views, *trunk.output.shape[1:]))
    per_call = max(1, BATCH // (1 + views))
    for start in range(0, len(pixels), per_call):
        rows = range(start, min(start + per_call, len(pixels)))
        stacks = [_with_views(pixels[i], views, np.random.default_rng((seed, i))) for i in rows]
        batch = np.concatenate(stacks)
        short = per_call * (1 + views) - len(batch)  # one shape, one compilation
        padded = np.concatenate([batch, np.repeat(batch[-1:], short, axis=0)])
        values = np.asarray(trunk.predict_on_batch(padded))[: len(batch)]
        result.array[rows.start : rows.stop] = values.reshape(len(rows), 1 + views, *values.shape[1:])
        done(len(rows))
    return result


def _check_space(folder: Path, need_bytes: int) -> None:
    """A file that is mapped and then cannot be filled would end the process with a bus error."""
    free_bytes = shutil.disk_usage(folder).free
    if need_bytes > free_bytes:
        raise DataError(
            f"fine-tuning needs {need_bytes / 1e9:.1f} GB below {folder.parent}, where {free_bytes / 1e9:.1f} GB are "
            "free. Use fewer --views, or --probe-only, or set FIELDMARK_CACHE to a folder on another disk.",
            code="disk full",
        )


def _with_views(pixels: augment.Pixels, views: int, random: np.random.Generator) -> augment.Pixels:
    """(1 + views, h, w, 3) uint8."""
    return np.stack([pixels] + [augment.view(pixels, random) for _ in range(views)])


class Tail:
    """The blocks that learn, and a head on them. It can be trained again and again from the same start."""

    def __init__(self, parts: Parts) -> None:
        freeze_batch_norm(parts.tail)
        self._tail = parts.tail
        self._start = parts.tail.get_weights()

    def train(
        self,
        head: Head,
        inputs: Activations,
        labels: npt.NDArray[np.intp],
        train: Indices,
        validation: Indices,
        settings: Settings,
        seed: int,
        done: Callable[[Epoch], None] = lambda epoch: None,
    ) -> tuple[keras.Model, list[Epoch]]:
        """Train from ImageNet's weights and the probe's head.

        Args:
            head: where the last layer starts.
            inputs: of all photos.
            labels: of all photos.
            train, validation: which photos to learn from, and which to stop by.
            seed: of batches and views.
            done: called after each epoch.

        Returns:
            The model from activations to logits with the weights of its best epoch, and the history.

        Raises:
            ModelError: a loss is no longer a finite number.
        """
        keras.utils.set_random_seed(seed)
        self.put(None)
        model = self._with_head(head)
        batches = _Batches(inputs, labels, train, head.bias.shape[0], seed)
        model.compile(
            optimizer=keras.optimizers.Adam(_schedule(settings, len(batches))),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=settings.smoothing),
            metrics=["accuracy"],
        )
        history: list[Epoch] = []
        model.fit(
            batches,
            validation_data=(inputs.clean(validation), batches.targets(validation)),
            epochs=settings.epochs,
            verbose=0,
            callbacks=[
                keras.callbacks.EarlyStopping("val_loss", patience=PATIENCE, restore_best_weights=True),
                keras.callbacks.LambdaCallback(on_epoch_end=_recorder(history, done)),
            ],
        )
        return model, history

    def logits(self, model: keras.Model, inputs: Activations, indices: Indices) -> Floats:
        """float32 (n, C) of the photos as they are."""
        return np.asarray(model.predict(inputs.clean(indices), batch_size=BATCH, verbose=0), np.float32)

    def weights(self) -> list[npt.NDArray[Any]]:
        """A copy of the blocks' weights."""
        return [np.array(weight) for weight in self._tail.get_weights()]

    def put(self, weights: list[npt.NDArray[Any]] | None) -> None:
        """Put weights of :meth:`weights` back into the blocks, and so into the backbone; None for the pretrained."""
        self._tail.set_weights(self._start if weights is None else weights)

    def _with_head(self, head: Head) -> keras.Model:
        x = keras.layers.GlobalAveragePooling2D()(self._tail.output)
        dense = keras.layers.Dense(head.bias.shape[0], name="logits")
        model = keras.Model(self._tail.input, dense(x))
        dense.set_weights([head.kernel, head.bias])
        return model


def head_of(model: keras.Model) -> Head:
    """The last layer's weights."""
    kernel, bias = model.get_layer("logits").get_weights()
    return Head(kernel, bias)


class _Batches(keras.utils.PyDataset):
    """Shuffled batches of random views; the last, smaller one is left out so that every step weighs the same."""

    def __init__(
        self, inputs: Activations, labels: npt.NDArray[np.intp], train: Indices, classes: int, seed: int
    ) -> None:
        super().__init__()
        self._inputs, self._labels, self._train, self._classes = inputs, labels, train, classes
        self._random = np.random.default_rng(seed)
        self._order = self._random.permutation(train)

    def __len__(self) -> int:
        return max(1, len(self._train) // BATCH)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float16], Floats]:
        rows = self._order[index * BATCH : (index + 1) * BATCH]
        return self._inputs.views(rows, self._random), self.targets(rows)

    def targets(self, rows: Indices) -> Floats:
        """One-hot, float32 (n, C)."""
        return np.asarray(np.eye(self._classes, dtype=np.float32)[self._labels[rows]])

    def on_epoch_end(self) -> None:
        self._order = self._random.permutation(self._train)


def _schedule(settings: Settings, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=settings.rate / 10,
        decay_steps=max(1, (settings.epochs - 1) * steps),
        warmup_target=settings.rate,
        warmup_steps=steps,
    )


def _recorder(history: list[Epoch], done: Callable[[Epoch], None]) -> Callable[[int, dict[str, float]], None]:
    def record(epoch: int, logs: dict[str, float]) -> None:
        numbers = (logs[key] for key in ("loss", "accuracy", "val_loss", "val_accuracy"))
        line = Epoch(epoch + 1, *map(float, numbers))
        history.append(line)
        done(line)
        if not (math.isfinite(line.loss) and math.isfinite(line.validation_loss)):
            raise ModelError(f"fine-tuning diverged in epoch {epoch + 1}; a lower --rate may help.", code="diverged")

    return record
