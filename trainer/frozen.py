"""Runs a network that does not learn over many photos, as fast as this machine can. Never quantizes.

On a GPU that is Keras in batches. On a processor, networks of depthwise convolutions take half the time on XNNPACK:
they are converted once to the same float network in TFLite's form, kept on disk, and run photo by photo, with a thread
for each core. Other networks, and photos too few to pay for the conversion, stay with Keras.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import queue
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from trainer import devices
from trainer.cache import cache_dir, read_bytes, touch, write_bytes

BATCH, GPU_BATCH, XNNPACK_BATCH = 16, 64, 4
"""Photos handed over at a time; XNNPACK itself takes one after the other."""
AHEAD = 2
"""Batches that wait to be asked for, beside the one that each thread makes."""
CONVERSION_PAYS_PIXELS = 5_000_000
"""From about 100 photos at 224 x 224 on. Converting EfficientNet-Lite0 takes 1.4 s, Keras's own first batch 0.9 s;
after that each photo of this size takes about 10 ms less."""
DEPTHWISE = (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
"""What XNNPACK is faster at. Keras's oneDNN is as fast or faster at VGG16, ResNet50 and DenseNet121."""
_REVISION = 1

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Load = Callable[[int], Pixels]


class Frozen:
    """A network in inference mode: uint8 pixels (n, h, w, 3) to float32 (n, ...).

    Attributes:
        shape: of the answer to one photo.
    """

    def __init__(self, model: keras.Model, cache_folder: Path | None = None) -> None:
        """Wrap a network. Nothing is computed yet.

        Args:
            model: one uint8 input of fixed height and width, one output. Its weights must not change any more.
            cache_folder: where the converted network is kept; the user's cache if None.
        """
        self.shape: tuple[int, ...] = tuple(model.output.shape[1:])
        self._model = model
        self._folder = (cache_folder or cache_dir()) / "networks"
        self._file: Path | None = None
        self._lite: _Lite | None = None
        self._stays_keras = devices.has_gpu() or not _suits_xnnpack(model)
        self._batch = GPU_BATCH if devices.has_gpu() else BATCH

    def __call__(self, batch: Pixels) -> Floats:
        """The answers to photos that are in memory.

        Args:
            batch: uint8 (n, h, w, 3).
        """
        result = np.empty((len(batch), *self.shape), np.float32)
        for rows, values in self.over(len(batch), batch.__getitem__):
            result[rows.start : rows.stop] = values
        return result

    def over(
        self, count: int, load: Load, *, done: Callable[[int], None] = lambda count: None
    ) -> Iterator[tuple[range, Floats]]:
        """Run over photos of which only a few are in memory at any time, loading some while others are computed.

        Args:
            count: how many there are.
            load: gives the pixels of photo i, uint8 (h, w, 3). It is called from several threads, once for each i.
            done: called with the number of photos finished since the last call.

        Yields:
            Consecutive ranges, from 0 to ``count``, each with its answers, float32 (len(range), ...).
        """
        lite = self._converted(count)
        size = min(self._batch if lite is None else XNNPACK_BATCH, max(1, count))
        batches = (range(start, min(start + size, count)) for start in range(0, count, size))
        make = (lambda rows: _loaded(rows, load)) if lite is None else (lambda rows: lite.answers(rows, load))
        for rows, made in _made_ahead(batches, make):
            yield rows, (self._answers(made, size) if lite is None else made)
            done(len(rows))

    def _answers(self, batch: Pixels, size: int) -> Floats:
        """Keras's; a short batch is filled up, since each new shape would be compiled anew."""
        padded = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
        return np.asarray(self._model.predict_on_batch(padded)[: len(batch)], np.float32)

    def _converted(self, count: int) -> _Lite | None:
        """The network on XNNPACK, or None where Keras does it."""
        if self._stays_keras or self._lite is not None:
            return self._lite
        try:
            self._file = self._file or self._folder / f"{_digest(self._model)}.tflite"
            content = read_bytes(self._file)
            if content is None and count * np.prod(self._model.input.shape[1:3]) >= CONVERSION_PAYS_PIXELS:
                content = convert(self._model)
                _keep(self._file, content)
            if content is not None:
                touch(self._file)
                self._lite = _Lite(content)
        except Exception:  # the converter raises its own, MLIR's and Python's; Keras runs everything
            self._stays_keras = True
        return self._lite


class _Lite:
    """Interpreters of one float network, one for each thread."""

    def __init__(self, content: bytes) -> None:
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(_threads()):
            self._idle.put(_interpreter(content))

    def answers(self, rows: range, load: Load) -> Floats:
        """float32 (len(rows), ...). The interpreter lock is free while it computes."""
        interpreter = self._idle.get()
        try:
            door = interpreter.get_input_details()[0]["index"]
            out = interpreter.get_output_details()[0]
            values = np.empty((len(rows), *out["shape"][1:]), np.float32)
            for row, i in zip(values, rows, strict=True):
                interpreter.set_tensor(door, load(i)[np.newaxis])
                interpreter.invoke()
                row[...] = interpreter.get_tensor(out["index"])[0]
            return values
        finally:
            self._idle.put(interpreter)


def convert(model: keras.Model) -> bytes:
    """The same network, in float32, as a ``.tflite`` that takes one photo.

    ``from_keras_model`` writes and reads a SavedModel on the way, which takes ten times as long.
    """
    import tensorflow as tf

    function = tf.function(lambda pixels: model(pixels, training=False), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec((1, *model.input.shape[1:]), tf.uint8))
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


def _interpreter(content: bytes) -> Any:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its successor is another package, which edge alone names
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _suits_xnnpack(model: keras.Model) -> bool:
    if len(model.inputs) != 1 or len(model.outputs) != 1 or None in model.input.shape[1:]:
        return False
    return any(isinstance(layer, DEPTHWISE) for layer in _layers(model))


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Also those of models inside."""
    for layer in model.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else [layer]


def _digest(model: keras.Model) -> str:
    """Of all that decides the converted network."""
    import tensorflow as tf

    digest = hashlib.sha256(f"{_REVISION} {tf.__version__} {keras.__version__} {model.to_json()}".encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()


def _keep(file: Path, content: bytes) -> None:
    with contextlib.suppress(OSError):  # then it is converted again next time
        write_bytes(file, content)


def _threads() -> int:
    return os.cpu_count() or 1


def _loaded(rows: range, load: Load) -> Pixels:
    return np.stack([load(i) for i in rows])


def _made_ahead(batches: Iterator[range], make: Callable[[range], Any]) -> Iterator[tuple[range, Any]]:
    """Each batch with what is made of it, in order, while threads make the next ones."""
    with ThreadPoolExecutor(_threads()) as pool:
        waiting: deque[tuple[range, Future[Any]]] = deque()
        try:
            for rows in itertools.islice(batches, _threads() + AHEAD):
                waiting.append((rows, pool.submit(make, rows)))
            while waiting:
                rows, future = waiting.popleft()
                made = future.result()
                for following in itertools.islice(batches, 1):
                    waiting.append((following, pool.submit(make, following)))
                yield rows, made
        finally:  # also when whoever asks for batches stops asking
            for _, future in waiting:
                future.cancel()
