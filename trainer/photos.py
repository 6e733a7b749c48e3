"""All that is computed once for each photo of a data set, whoever learns from it later."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge.errors import DataError
from trainer import devices, features, pixels
from trainer.backbones import backbone
from trainer.cache import cache_dir
from trainer.dataset import questions, readers, split
from trainer.dataset.questions import Question
from trainer.dataset.samples import Unreadable
from trainer.features import Extraction
from trainer.probe import Floats
from trainer.progress import Steps
from trainer.settings import IMAGENET, RANDOM, Settings

if TYPE_CHECKING:
    import keras

THIN = 5
"""A label with fewer independent groups has figures that say little."""


@dataclass(frozen=True)
class Photos:
    """The usable photos of a data set, with all that is computed once for each.

    Attributes:
        decoded: where they came from, n of them.
        unreadable: the others.
        stack: their pixels.
        features: float32 (n, F) of the frozen backbone; (n, 0) where no probe is fitted on them.
        names: C labels.
        labels: n label numbers.
        groups: n group numbers; photos of one group are never split.
        questions: what can be asked of a model of them, the primary question first.
        notes: sentences for the user.
    """

    decoded: list[pixels.Decoded]
    unreadable: list[Unreadable]
    stack: pixels.PixelStack
    features: Floats
    names: tuple[str, ...]
    labels: npt.NDArray[np.intp]
    groups: split.Indices
    questions: list[Question]
    notes: list[str] = field(default_factory=list)


class Network:
    """The backbone of some settings, built at the first call: a run whose features are cached starts without it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._built: keras.Model | None = None

    def __call__(self) -> keras.Model:
        """The same network at every call, as it was before training."""
        if self._built is None:
            import keras

            devices.prepare()
            settings, spec = self._settings, self._settings.spec()
            keras.utils.set_random_seed(settings.seed)  # random weights are the same in every process
            self._built = backbone(settings.backbone).build(
                spec.height, spec.width, weights=settings.weights, normalise=settings.normalise
            )
        return self._built


def find(data: Path, settings: Settings, steps: Steps) -> readers.DataSet:
    """Find the samples; quick, so that wrong data is refused before anything is loaded.

    Args:
        data: see :func:`trainer.dataset.readers.scan`.
        settings: what to do.
        steps: shows notes.

    Raises:
        DataError: the data cannot be trained on.
    """
    boxes = Path(settings.boxes) if settings.boxes else None
    column = settings.sequence_column
    found = readers.scan(data, sequence_column=column, layout=settings.layout, boxes=boxes)
    readers.check_trainable(found, data)
    _say(steps, found.notes)
    return found


def read(found: readers.DataSet, settings: Settings, steps: Steps) -> Photos:
    """Read, decode and group, and find out what can be held out. The features are still missing.

    Raises:
        DataError: fewer than two labels have photos that can be read, or the division asked for is not possible.
    """
    with steps.step("reading photos", len(found.samples)) as done:
        decoded, unreadable, stack = pixels.decode(found.samples, settings.spec(), cache_dir(), done=lambda: done(1))
    unreadable = found.left_out + unreadable
    if unreadable:
        total = len(found.samples) + len(found.left_out)
        steps.say(f"  {len(unreadable)} of {total} files cannot be used; unreadable.csv in the run says why.")
    names, labels = _label_numbers(decoded, len(found.samples))
    with steps.step("near-duplicates and bursts"):
        groups = group_photos(decoded)
        asked = questions.questions(
            labels=labels,
            groups=groups,
            stations=[photo.sample.station for photo in decoded],
            sequences=[photo.sample.sequence_key for photo in decoded],
            times=[photo.taken for photo in decoded],
            parts=[photo.sample.part for photo in decoded],
            names=names,
            split=settings.split,
            test_share=settings.test_share,
            seed=settings.seed,
        )
    more = ([stack.note] if stack.note else []) + _thin(names, labels, groups)
    _say(steps, more)
    nothing = np.empty((len(decoded), 0), np.float32)
    return Photos(decoded, unreadable, stack, nothing, names, labels, groups, asked, [*found.notes, *more])


def with_features(photos: Photos, network: Callable[[], keras.Model], settings: Settings, steps: Steps) -> Photos:
    """The same with the features of the frozen network, where a probe is fitted on them.

    Args:
        photos: of :func:`read`.
        network: makes the backbone; called only if a photo's features are not in the cache.
        settings: what to do.
        steps: shows progress.
    """
    if not settings.linear_probe or settings.from_scratch:
        return photos
    with steps.step("features of the frozen network", len(photos.stack)) as count:
        vectors = features.pooled(network, extraction(settings), photos.stack, cache_dir(), done=count)
    return replace(photos, features=vectors)


def _label_numbers(decoded: Sequence[pixels.Decoded], count: int) -> tuple[tuple[str, ...], npt.NDArray[np.intp]]:
    """The labels there are photos of, sorted, and the number of each photo's."""
    names = tuple(sorted({photo.sample.label for photo in decoded}))
    if len(names) < 2:
        raise DataError(f"of {count} files {len(decoded)} can be read, of {len(names)} labels; 2 labels are needed.")
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.array([numbers[photo.sample.label] for photo in decoded], dtype=np.intp)


def group_photos(decoded: Sequence[pixels.Decoded]) -> split.Indices:
    """Group numbers of photos that must not be divided; see :func:`trainer.dataset.split.group`."""
    return split.group(
        hashes=np.stack([photo.look.hash for photo in decoded]),
        thumbnails=np.stack([photo.look.thumbnail for photo in decoded]),
        sha256s=[photo.sha256 for photo in decoded],
        sequences=[photo.sample.sequence_key for photo in decoded],
        bursts=[_burst(photo) for photo in decoded],
    )


def extraction(settings: Settings) -> Extraction:
    """Which features a probe of these settings is fitted on."""
    return Extraction(
        network=settings.backbone,
        weights=_weights_key(settings),
        layer=settings.cut,
        pooling=settings.pooling,
        normalise=settings.normalise,
    )


def _weights_key(settings: Settings) -> str:
    """What tells these weights from others."""
    if settings.weights == IMAGENET:
        return IMAGENET
    if settings.weights == RANDOM:
        return f"{RANDOM}-{settings.seed}"
    try:
        with open(settings.weights, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{settings.weights} cannot be read: {error.strerror}. Give --weights a file.") from error


def _burst(photo: pixels.Decoded) -> tuple[str, str] | None:
    """Camera and time; photos of one camera within two minutes are one burst."""
    return (f"{photo.sample.station or ''} {photo.camera}", photo.taken) if photo.taken else None


def _say(steps: Steps, notes: Sequence[str]) -> None:
    for note in notes:
        steps.say(f"  {note}")


def _thin(names: Sequence[str], labels: npt.NDArray[np.intp], groups: split.Indices) -> list[str]:
    thin = split.thin_labels([names[i] for i in labels], groups, THIN)
    return [f"{', '.join(thin)}: fewer than {THIN} independent groups, so their figures say little."] if thin else []
