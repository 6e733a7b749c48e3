"""All that is computed once for each photo of a data set, whoever learns from it later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge.errors import DataError
from edge.model.preprocess import InputSpec
from trainer import features, pixels
from trainer.backbones import Backbone, backbone
from trainer.cache import cache_dir
from trainer.dataset import readers, split
from trainer.dataset.samples import Unreadable
from trainer.probe import Floats
from trainer.progress import Steps
from trainer.settings import Settings

if TYPE_CHECKING:
    import keras

FOLDS = 5
"""One fold in five is held out, one validates."""


@dataclass(frozen=True)
class Photos:
    """The usable photos of a data set, with all that is computed once for each.

    Attributes:
        decoded: where they came from, n of them.
        unreadable: the others.
        stack: their pixels.
        features: float32 (n, F) of the frozen backbone.
        names: C labels.
        labels: n label numbers.
        groups: n group numbers; photos of one group are never split.
        folds: five arrays of indices.
    """

    decoded: list[pixels.Decoded]
    unreadable: list[Unreadable]
    stack: pixels.PixelStack
    features: Floats
    names: tuple[str, ...]
    labels: npt.NDArray[np.intp]
    groups: split.Indices
    folds: list[split.Indices]


class Network:
    """The backbone of some settings, built at the first call: a run whose features are cached starts without it."""

    def __init__(self, chosen: Backbone, spec: InputSpec) -> None:
        self._chosen, self._spec = chosen, spec
        self._built: keras.Model | None = None

    def __call__(self) -> keras.Model:
        """The same network at every call."""
        if self._built is None:
            self._built = self._chosen.build(self._spec.height, self._spec.width)
        return self._built


def prepare(data: Path, settings: Settings, network: Callable[[], keras.Model], steps: Steps) -> Photos:
    """Read, decode, extract features, group and divide.

    Args:
        data: a folder per class or a CSV file.
        settings: what to do.
        network: makes the backbone; called only if a photo's features are not in the cache.
        steps: shows progress.

    Raises:
        DataError: the data cannot be trained on.
    """
    chosen = backbone(settings.backbone)
    found = readers.scan(data, sequence_column=settings.sequence_column)
    readers.check_trainable(found, data)
    samples = found.samples
    with steps.step("reading photos", len(samples)) as done:
        decoded, unreadable, stack = pixels.decode(samples, settings.spec(), cache_dir(), done=lambda: done(1))
    unreadable = found.left_out + unreadable
    if unreadable:
        total = len(samples) + len(found.left_out)
        steps.say(f"  {len(unreadable)} of {total} files cannot be used; unreadable.csv in the run says why.")
    names = tuple(sorted({photo.sample.label for photo in decoded}))
    if len(names) < 2:
        raise DataError(
            f"{data}: of {len(samples)} files {len(decoded)} can be read, of {len(names)} labels; 2 needed."
        )
    labels = np.array([names.index(photo.sample.label) for photo in decoded], dtype=np.intp)
    sha256s = [photo.sha256 for photo in decoded]
    with steps.step("features of the frozen network", len(decoded)) as count:
        vectors = features.pooled(network, chosen.name, chosen.features, stack, sha256s, cache_dir(), done=count)
    with steps.step("near-duplicates and bursts"):
        groups = group_photos(decoded, stack)
        folds = split.folds(labels, groups, FOLDS, settings.seed)
    _warn_thin(names, labels, groups, steps)
    return Photos(decoded, unreadable, stack, vectors, names, labels, groups, folds)


def group_photos(decoded: Sequence[pixels.Decoded], stack: pixels.PixelStack) -> split.Indices:
    """Group numbers of photos that must not be divided; see :func:`trainer.dataset.split.group`."""
    every = range(len(stack))
    return split.group(
        hashes=np.stack([split.difference_hash(stack[i]) for i in every]),
        thumbnails=np.stack([split.thumbnail(stack[i]) for i in every]),
        sha256s=[photo.sha256 for photo in decoded],
        sequences=[photo.sample.sequence for photo in decoded],
        bursts=[_burst(photo) for photo in decoded],
    )


def _burst(photo: pixels.Decoded) -> tuple[str, str] | None:
    """Camera and time; photos of one camera within two minutes are one burst."""
    return (f"{photo.sample.station or ''} {photo.camera}", photo.taken) if photo.taken else None


def _warn_thin(names: Sequence[str], labels: npt.NDArray[np.intp], groups: split.Indices, steps: Steps) -> None:
    thin = split.thin_labels([names[i] for i in labels], groups, FOLDS)
    if thin:
        steps.say(f"  Note: {', '.join(thin)}: fewer than {FOLDS} independent groups, so their figures say little.")
