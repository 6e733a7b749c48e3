"""Prepares fine-tuning once for all divisions of the photos: the network to be trained, and the frozen part's output.

Where the graph can be cut behind its last frozen layer, what comes before is computed once, of each photo and of some
random views, and an epoch pays only for what learns. Where that would take too much room, or nothing is frozen,
training starts at the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from edge import photo as files
from edge.errors import PhotoError
from edge.model.preprocess import upright_size
from edge.model.spec import InputSpec
from trainer import augment, devices, fine_tune, sources
from trainer import model as networks
from trainer.checkpoint import Checkpoint, key_of
from trainer.dataset.split import Indices
from trainer.fine_tune import Lesson, Stage, Trained
from trainer.frozen import Frozen
from trainer.history import Epoch
from trainer.pixels import Decoded, spec_key
from trainer.probe import Floats, Head
from trainer.progress import Steps
from trainer.settings import Settings

if TYPE_CHECKING:
    from trainer.photos import Photos

MOST_VIEW_BYTES = 1 << 20
"""The largest output of the frozen part that is kept, of one view: early layers give more numbers than the photo has,
and reading them would take longer than computing them."""
NEW_LAYERS_RATE = 3.0
"""New layers start from random numbers and learn, while all else is frozen, at so many times the rate."""


class Tuner:
    """One network, ready to be trained on any division of the photos, from the same start each time."""

    def __init__(
        self,
        network: keras.Model,
        photos: Photos,
        settings: Settings,
        folder: Path,
        steps: Steps,
        scope: AbstractContextManager[Any] | None = None,
    ) -> None:
        """Put the network together. Activations are computed when they are first needed.

        Args:
            network: the backbone. It stays as it is: a copy is trained.
            photos: all of them.
            settings: what to do.
            folder: for activations and checkpoints; a run that was interrupted finds them there again.
            steps: shows progress.
            scope: makes variables; :func:`trainer.devices.strategy` if None.

        Raises:
            ConfigError: the settings name a layer that the network has not.
        """
        self.settings, self._folder, self._steps, self._photos = settings, folder, steps, photos
        self._classes, self._labels = len(photos.names), photos.labels
        self._strategy = _strategy(devices.strategy() if scope is None else scope)
        keras.utils.set_random_seed(settings.seed)  # new layers start the same in a run that goes on
        self._frozen = networks.classifier(network, settings, self._classes)
        self._new = networks.new_layers(self._frozen, network)
        self._learning = networks.learning_layers(network, settings)
        self._model = networks.working_copy(
            self._frozen, precision=devices.precision(settings.precision), scope=self._scope()
        )
        self._start = networks.weights_of(self._frozen)

    @property
    def learns_backbone(self) -> bool:
        """Whether there is anything to fine-tune; else the frozen start is all there is."""
        return bool(self._learning)

    def train_new(
        self, train: Indices, validation: Indices, name: str, epochs: int | None = None
    ) -> tuple[Trained, Floats]:
        """Train the new layers on the frozen backbone.

        Args:
            train: photos to learn from.
            validation: photos to stop by; may be empty.
            name: of this fit; its checkpoint's folder.
            epochs: the last; the settings' if None.

        Returns:
            The layers' weights and history, and the logits of all photos.
        """
        return self._train(self._new_stage, self._start, train, validation, name, epochs)

    def fine_tune(
        self,
        start: Head | networks.LayerWeights | None,
        train: Indices,
        validation: Indices,
        name: str,
        epochs: int | None = None,
    ) -> tuple[Trained, Floats]:
        """Train the backbone's layers and the new ones.

        Args:
            start: where the new layers start: a head, weights of :meth:`train_new`, or random numbers if None.
            train, validation, name, epochs: as for :meth:`train_new`.

        Raises:
            ModelError: it diverged.
        """
        begin = dict(self._start)
        if isinstance(start, Head):
            begin[networks.LOGITS] = [start.kernel, start.bias]
        elif start is not None:
            begin.update({layer: list(arrays) for layer, arrays in start.items()})
        return self._train(self._tuned_stage, begin, train, validation, name, epochs)

    def _train(
        self,
        stage: Stage,
        start: networks.LayerWeights,
        train: Indices,
        validation: Indices,
        name: str,
        epochs: int | None,
    ) -> tuple[Trained, Floats]:
        last = self.settings.epochs if epochs is None else epochs
        lesson = Lesson(self._labels, self._classes, train, validation, last)
        inside = {layer.name for layer in stage.model.layers}
        begin = {layer: arrays for layer, arrays in start.items() if layer in inside}
        file = self._folder / name / f"{stage.name.replace(' ', '-')}.npz"
        with self._steps.step(stage.name, last) as count:
            trained = fine_tune.train(
                stage, begin, lesson, self.settings, Checkpoint(file, self._key(stage, lesson)), _ticking(count)
            )
            everything = np.arange(len(self._labels))
            return trained, fine_tune.logits(stage, everything, self.settings.batch)

    @cached_property
    def _new_stage(self) -> Stage:
        return self._stage("training the new layers", self._new, NEW_LAYERS_RATE * self.settings.rate)

    @cached_property
    def _tuned_stage(self) -> Stage:
        return self._stage("fine-tuning", self._new | self._learning, self.settings.rate)

    def _stage(self, name: str, learning: frozenset[str], rate: float) -> Stage:
        slow = learning - self._new if self.settings.backbone_rate != 1 else frozenset[str]()
        end = networks.frozen_end(self._frozen, learning)
        size = math.prod(self._frozen.get_layer(end).output.shape[1:]) if end is not None else 0
        if end is None or 2 * size > MOST_VIEW_BYTES:
            model, source = self._model, self._pixels
            return Stage(name, model, learning, slow, source, rate, self._scope, devices.jit_compile())
        trunk = networks.cut(self._frozen, end).trunk
        with self._scope():
            tail = networks.cut(self._model, end).tail
        kept = frozenset(layer.name for layer in tail.layers)
        inputs = self._activations(trunk, end)
        return Stage(name, tail, learning & kept, slow, inputs, rate, self._scope, devices.jit_compile())

    @cached_property
    def _pixels(self) -> sources.Photos:
        animals = _animals(self._photos.decoded, self._photos.stack.spec)
        return sources.Photos(self._photos.stack, self.settings.augment, animals)

    def _activations(self, trunk: keras.Model, end: str) -> sources.Activations:
        views = 0 if self.settings.augment == augment.NONE else self.settings.views
        decoded = self._photos.decoded
        boxes = [[asdict(box) for box in photo.sample.boxes] for photo in decoded]
        key = key_of(
            end,
            views,
            self.settings.augment,
            self.settings.seed,
            spec_key(self._photos.stack.spec),
            [photo.sha256 for photo in decoded],
            boxes,
            *trunk.get_weights(),
        )
        with self._steps.step("frozen layers on random views", len(self._pixels)) as count:
            return sources.activations(
                Frozen(trunk), self._pixels, views, self.settings.seed, self._folder / f"activations-{end}.npy", key,
                count,
            )  # fmt: skip

    def _key(self, stage: Stage, lesson: Lesson) -> str:
        """Of all that decides a training's result. What it starts from is decided by these, too."""
        own = {name: value for name, value in asdict(self.settings).items() if name not in _NOT_OF_A_FIT}
        frozen = [layer for layer in self._frozen.layers if layer.name not in stage.learning]
        return key_of(
            own, stage.name, sorted(stage.learning), spec_key(self._photos.stack.spec), lesson.epochs,
            [photo.sha256 for photo in self._photos.decoded], lesson.labels, lesson.train, lesson.validation,
            *(array for layer in frozen for array in layer.get_weights()),
        )  # fmt: skip

    def _scope(self) -> AbstractContextManager[Any]:
        scope: AbstractContextManager[Any] = nullcontext() if self._strategy is None else self._strategy.scope()
        return scope


_NOT_OF_A_FIT = frozenset(
    {"cross_validate", "refit", "keep", "split", "test_share", "layout", "sequence_column", "wanted_precision"}
)


def _strategy(scope: AbstractContextManager[Any]) -> Any:
    """A scope can be entered once, its strategy again and again."""
    with scope:
        return tf.distribute.get_strategy() if tf.distribute.has_strategy() else None


def _ticking(count: Callable[[int], None]) -> Callable[[Epoch], None]:
    return lambda line: count(1)


def _animals(decoded: Sequence[Decoded], spec: InputSpec) -> list[augment.Rect | None]:
    """Where each photo's animals are, if its boxes are known."""
    return [
        augment.animals_in(photo.sample.boxes, _size(photo, spec), spec) if photo.sample.boxes else None
        for photo in decoded
    ]


def _size(photo: Decoded, spec: InputSpec) -> tuple[int, int]:
    """Width and height upright, from the file's header; where the whole photo is stretched they do not matter."""
    if spec.aspect == "stretch" and not spec.cut_top and not spec.cut_bottom:
        return spec.width, spec.height
    try:
        return upright_size(files.open_image(files.read(photo.sample.path).data, photo.sample.name))
    except PhotoError:  # gone since it was decoded: only a close-up is lost
        return spec.width, spec.height
