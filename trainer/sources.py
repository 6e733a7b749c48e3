"""Where the layers that learn get their input from: activations that were computed once, or pixels at every epoch.

Neither is ever in memory as a whole. Validation always sees photos as they are.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge.errors import DataError
from trainer import augment
from trainer.dataset.split import Indices
from trainer.pixels import PixelStack

Array = npt.NDArray[Any]

_HALF_MOST = float(np.finfo(np.float16).max)
"""Early layers of networks on pixels of 0 to 255 may exceed it."""
_MARK_EVERY = 512  # views after which an interrupted computation goes on


class Frozen(Protocol):
    """A frozen network, as :class:`trainer.frozen.Frozen` runs it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the answer to one photo."""
        ...

    def over(self, count: int, load: Callable[[int], augment.Pixels]) -> Iterator[tuple[range, Array]]:
        """Answers to ranges of photos in order; ``load`` gives photo i, from several threads."""
        ...


class Source(Protocol):
    """Inputs of the layers that learn, by photo number."""

    def clean(self, rows: Indices) -> Array:
        """(n, ...), the photos as they are."""
        ...

    def views(self, rows: Indices, random: np.random.Generator) -> Array:
        """(n, ...), a random view of each."""
        ...


class Photos:
    """Pixels, for networks that learn from their first layers on: a new view of each photo at every epoch."""

    def __init__(
        self, stack: PixelStack, kind: str = augment.NONE, animals: Sequence[augment.Rect | None] | None = None
    ) -> None:
        """
        Args:
            stack: the pixels.
            kind: of views; see :func:`trainer.augment.view`.
            animals: for each photo where its animals are, if known.
        """
        self._stack, self._kind, self._animals = stack, kind, animals

    def clean(self, rows: Indices) -> Array:
        """uint8 (n, h, w, 3)."""
        return self._stack.batch(rows)

    def views(self, rows: Indices, random: np.random.Generator) -> Array:
        """uint8 (n, h, w, 3)."""
        return np.stack([self.view(int(i), random) for i in rows])

    def view(self, i: int, random: np.random.Generator) -> augment.Pixels:
        """uint8 (h, w, 3), one random view."""
        return augment.view(self._stack[i], random, self._kind, self._animals[i] if self._animals else None)

    def whole(self, i: int) -> augment.Pixels:
        """uint8 (h, w, 3), the photo as it is."""
        return self._stack[i]

    def __len__(self) -> int:
        return len(self._stack)


class Activations:
    """What the frozen part says of each photo and its views: float16, shape (n, 1 + views, ...), on disk.

    View 0 is the photo as it is.
    """

    def __init__(self, array: Array) -> None:
        self.array = array

    def clean(self, rows: Indices) -> Array:
        """float16 (n, ...)."""
        return np.asarray(self.array[rows, 0])

    def views(self, rows: Indices, random: np.random.Generator) -> Array:
        """float16 (n, ...), one of the views; the photo as it is counts as one."""
        return np.asarray(self.array[rows, random.integers(0, self.array.shape[1], len(rows))])


def activations(
    run: Frozen, photos: Photos, views: int, seed: int, file: Path, key: str, done: Callable[[int], None]
) -> Activations:
    """Run the frozen part over all photos and views, or go on where an interrupted run stopped.

    Args:
        run: the frozen part.
        photos: what it sees.
        views: random views per photo.
        seed: of the views.
        file: where the numbers go, about 40 kB per view at 320 x 320.
        key: of all that decides the numbers; a file of another key is replaced.
        done: called with the number of photos finished.

    Raises:
        DataError: the disk has no room for them.
    """
    marks, each = _Marks(file.with_suffix(".json"), key), 1 + views
    array, finished = _opened(file, (len(photos), each, *run.shape), marks)
    flat = array.reshape(-1, *run.shape)
    done(finished)
    pending = 0
    for rows, values in run.over((len(photos) - finished) * each, _loader(photos, finished, each, seed)):
        flat[finished * each + rows.start : finished * each + rows.stop] = values.clip(-_HALF_MOST, _HALF_MOST)
        pending += len(rows)
        complete = finished + rows.stop // each
        done(rows.stop // each - rows.start // each)
        if pending >= _MARK_EVERY or complete == len(photos):
            array.flush()
            marks.write(complete)
            pending = 0
    return Activations(array)


def _loader(photos: Photos, first: int, each: int, seed: int) -> Callable[[int], augment.Pixels]:
    """Photos and their views, one after the other; a view depends on its number and the photo's alone."""

    def load(i: int) -> augment.Pixels:
        photo, view = divmod(i, each)
        number = first + photo
        return photos.view(number, np.random.default_rng((seed, number, view))) if view else photos.whole(number)

    return load


def _opened(file: Path, shape: tuple[int, ...], marks: _Marks) -> tuple[Any, int]:
    """The array on disk, and how many photos of it are finished."""
    finished = marks.read()
    if finished:
        with suppress(OSError, ValueError):
            array = np.lib.format.open_memmap(file, mode="r+")  # type: ignore[no-untyped-call]
            if array.shape == shape and array.dtype == np.float16:
                return array, min(finished, shape[0])
    file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    _check_space(file.parent, math.prod(shape) * np.dtype(np.float16).itemsize)
    marks.write(0)
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape), 0  # type: ignore[no-untyped-call]


def _check_space(folder: Path, need_bytes: int) -> None:
    """A file that is mapped and then cannot be filled would end the process with a bus error."""
    free_bytes = shutil.disk_usage(folder).free
    if need_bytes > free_bytes:
        raise DataError(
            f"fine-tuning needs {need_bytes / 1e9:.1f} GB below {folder}, where {free_bytes / 1e9:.1f} GB are "
            "free. Use fewer --views, or --probe-only, or another disk.",
            code="disk full",
        )


class _Marks:
    """How far the computation of a file has come, in a file beside it."""

    def __init__(self, file: Path, key: str) -> None:
        self._file, self._key = file, key

    def read(self) -> int:
        """Photos finished; 0 if they were computed from something else."""
        try:
            found = json.loads(self._file.read_bytes())
            return int(found["finished"]) if found["key"] == self._key else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def write(self, finished: int) -> None:
        aside = self._file.with_name(f".{self._file.name}.part")
        aside.write_text(json.dumps({"key": self._key, "finished": finished}), encoding="utf-8")
        aside.replace(self._file)


# --- batches


def epoch(
    source: Source, rows: Indices, labels: Indices, weights: npt.NDArray[np.float32], batch: int, seed: tuple[int, ...]
) -> Iterator[tuple[Array, npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """An epoch's batches: inputs, one-hot labels and weights; made ahead in threads, the same for the same seed.

    The last, smaller batch is left out so that every step weighs the same.

    Args:
        source: of inputs.
        rows: which photos, in the order wanted.
        labels: of all photos.
        weights: of the labels (C,).
        batch: photos per step.
        seed: of the views.
    """
    hot = np.eye(len(weights), dtype=np.float32)
    steps = [rows[i * batch : (i + 1) * batch] for i in range(steps_of(len(rows), batch))]
    made = _ahead(
        [lambda i=i, part=part: source.views(part, np.random.default_rng((*seed, i))) for i, part in enumerate(steps)]  # type: ignore[misc]
    )
    for part, inputs in zip(steps, made, strict=True):
        yield inputs, hot[labels[part]], weights[labels[part]]


def clean_batches(source: Source, rows: Indices, batch: int) -> Iterator[Array]:
    """Photos as they are; the last batch is filled up with its last photo."""
    parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    filled = [np.concatenate([part, np.repeat(part[-1:], batch - len(part))]) for part in parts]
    yield from _ahead([lambda part=part: source.clean(part) for part in filled])  # type: ignore[misc]


def steps_of(count: int, batch: int) -> int:
    """Steps of an epoch over so many photos."""
    return max(1, count // batch)


def _ahead(jobs: Sequence[Callable[[], Array]]) -> Iterator[Array]:
    """The jobs' results in order, a few computed ahead in threads: Pillow and numpy release the interpreter lock."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[Array]] = [pool.submit(job) for job in jobs[: workers + 1]]
        try:
            for i in range(len(jobs)):
                result = waiting.pop(0).result()
                if i + workers + 1 < len(jobs):
                    waiting.append(pool.submit(jobs[i + workers + 1]))
                yield result
        finally:
            for each in waiting:
                each.cancel()
