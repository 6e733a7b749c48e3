"""Trains a head on a file of features: the stand-alone extractor's way. Neither photos nor network are needed to learn;
the network only to write the whole model down, so that it can be exported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge import pathtext
from edge.errors import ConfigError, DataError
from edge.model.spec import InputSpec
from trainer import pixels, weights
from trainer.backbones import IMAGENET, NO_WEIGHTS, backbone
from trainer.cache import cache_dir
from trainer.dataset import questions
from trainer.dataset.samples import Sample
from trainer.feature_file import NO_LABEL, FeatureFile, Request, extractor
from trainer.photos import Photos
from trainer.settings import ALL, HEAD_ONLY, Settings

if TYPE_CHECKING:
    import keras

SUFFIX = ".npz"
_NO_LOOK = pixels.Look(np.zeros(128, np.bool_), np.zeros(768, np.float32))


@dataclass(frozen=True)
class Source:
    """What a file of features gives to train on.

    Attributes:
        photos: with their features; the pixels only as far as they are in the cache.
        settings: those asked for, with the network that the file says.
        data_folder: where the photos were.
        request: what makes the features from pixels.
    """

    photos: Photos
    settings: Settings
    data_folder: Path
    request: Request

    def network(self) -> keras.Model:
        """uint8 pixels to features, float32 (n, F)."""
        return extractor(self.request)


def source(file: FeatureFile, name: Path, settings: Settings) -> Source:
    """Make a file of features ready to be trained on.

    Args:
        file: of :func:`trainer.feature_file.read`.
        name: of the file, for messages.
        settings: what to do; what they say of network and pixels is replaced by what the file says.

    Raises:
        ConfigError: the settings ask for what features cannot give.
        DataError: photos have no labels, or the weights given are not those of the file.
    """
    if settings.head or settings.blocks or settings.cut or settings.fine_tune_from or settings.learn == ALL:
        raise ConfigError(
            "on a file of features a single layer is trained, and no network. Leave --head, --blocks, --cut, "
            "--fine-tune-from and --train-all out, or train from the photos."
        )
    if file.features.ndim != 2:
        raise DataError(f"{name} holds feature maps. Write it with --pooling avg, max, avg+max or flatten.")
    unlabelled = int((file.labels == NO_LABEL).sum())
    if unlabelled or len(file.label_names) < 2:
        raise DataError(
            f"{name}: {unlabelled} of {len(file.labels)} photos have no label, and it names {len(file.label_names)} "
            "label(s); at least 2 are needed. Write it from a folder per class, or a table."
        )
    spec, meta = InputSpec(**file.meta["input"]), file.meta
    settings = _settings(file, settings, spec)
    request = Request(
        backbone(settings.backbone), meta["layer"], meta["pooling"], settings.weights, settings.normalise, spec,
        int(meta["seed"]),
    )  # fmt: skip
    _check_weights(name, meta["weights"], meta["weights_name"], settings)
    folder = Path(pathtext.from_text(meta["data_folder"]))
    return Source(_photos(file, folder, settings, spec), settings, folder, request)


def _settings(file: FeatureFile, settings: Settings, spec: InputSpec) -> Settings:
    meta = file.meta
    known = meta["weights"] in (IMAGENET, NO_WEIGHTS)
    return replace(
        settings,
        backbone=meta["backbone"],
        weights=meta["weights"] if known else settings.weights,
        normalise=meta["normalise"],
        side=spec.width,
        aspect=spec.aspect,
        cut_top=spec.cut_top,
        cut_bottom=spec.cut_bottom,
        cut=None,
        pooling="avg",
        learn=HEAD_ONLY,
        fine_tune_from=None,
    )


def _check_weights(name: Path, digest: str, file_name: str, settings: Settings) -> None:
    if digest in (IMAGENET, NO_WEIGHTS):
        return
    if settings.weights in (IMAGENET, NO_WEIGHTS) or weights.digest(Path(settings.weights)) != digest:
        raise DataError(
            f"{name} was made with weights of a file, {file_name} (SHA-256 {digest[:12]}…). "
            "Give the same file with --weights."
        )


def _photos(file: FeatureFile, folder: Path, settings: Settings, spec: InputSpec) -> Photos:
    stations, sequences, parts, times = (
        [text or None for text in texts] for texts in (file.stations, file.sequences, file.parts, file.taken)
    )
    labels, groups = file.labels.astype(np.intp), file.groups.astype(np.intp)
    asked = questions.questions(
        labels=labels,
        groups=groups,
        stations=stations,
        sequences=sequences,
        times=times,
        parts=parts,
        names=file.label_names,
        split=settings.split,
        test_share=settings.test_share,
        seed=settings.seed,
    )
    decoded = [
        pixels.Decoded(
            Sample(
                folder / pathtext.from_text(photo), photo, file.label_names[label],
                stations[i], sequences[i], times[i], parts[i],
            ),
            file.sha256s[i], "", times[i], bool(file.infrared[i]), _NO_LOOK,
        )
        for i, (photo, label) in enumerate(zip(file.photos, labels, strict=True))
    ]  # fmt: skip
    stack = pixels.cached(file.sha256s, spec, cache_dir())
    return Photos(decoded, [], stack, np.asarray(file.features), file.label_names, labels, groups, asked)
