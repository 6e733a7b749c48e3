"""What a network sees in a photo: a pretrained one as it is, by its 1,000 ImageNet classes, or a bundle's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from edge import photo as photos
from edge.errors import ConfigError, PhotoError
from edge.model import bundle
from edge.model.classify import Classifier
from edge.model.decide import probabilities
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec
from trainer.backbones import IMAGENET, NO_WEIGHTS, Backbone


@dataclass(frozen=True)
class Seen:
    """What the network sees in one photo: (class, probability) pairs, most likely first, or why it could not look."""

    photo: Path
    top: tuple[tuple[str, float], ...]
    failure: str | None


def imagenet_names() -> tuple[str, ...]:
    """English names of the 1,000 classes, in the order of the network's answers."""
    text = resources.files("trainer").joinpath("data/imagenet_classes.tsv").read_text(encoding="utf-8")
    return tuple(line.split("\t")[1] for line in text.splitlines() if line and not line.startswith("#"))


def identify(paths: Sequence[Path], backbone: Backbone, count: int, *, weights: str = IMAGENET) -> Iterator[Seen]:
    """Look at photos, the middle of each, as the network was tested on ImageNet.

    Args:
        paths: image files.
        backbone: the network.
        count: how many classes to give.
        weights: ``imagenet``, or the path of a file with the ImageNet head.

    Raises:
        ConfigError: random weights are asked for, which know nothing.
        DataError: the weights are not on this machine, or the file is of another network or without its head.
    """
    if weights == NO_WEIGHTS:
        raise ConfigError("random weights know no ImageNet class. Give --weights imagenet or a file.")
    model = backbone.build(backbone.side, backbone.side, top=True, weights=weights)
    names = imagenet_names()
    spec = InputSpec(backbone.side, backbone.side, resample="bicubic", aspect="crop")

    def look(photo: Path) -> list[tuple[str, float]]:
        pixels = to_pixels(photos.open_image(photos.read(photo).data, photo.name), spec)
        chances = probabilities(np.asarray(model.predict_on_batch(pixels[np.newaxis]))[0])
        return [(names[int(i)], float(chances[i])) for i in np.argsort(-chances)[:count]]

    return _each(paths, look)


def identify_with_bundle(paths: Sequence[Path], file: Path, count: int) -> Iterator[Seen]:
    """Look at photos with a bundle's own model and labels, on a TFLite runtime, as a device does.

    Args:
        paths: image files.
        file: the bundle, ``.fmb``.
        count: how many labels to give, at most five.

    Raises:
        BundleError, TrustError: the bundle is not whole.
        ModelError: no runtime that passed the gate is installed.
    """
    opened = bundle.open_bundle(file)
    classifier = Classifier(opened.model, opened.manifest)

    def look(photo: Path) -> list[tuple[str, float]]:
        image = photos.open_image(photos.read(photo).data, photo.name)
        return list(classifier.classify_image(image).decision.top[:count])

    return _each(paths, look)


def _each(paths: Sequence[Path], look: Callable[[Path], list[tuple[str, float]]]) -> Iterator[Seen]:
    for path in paths:
        try:
            yield Seen(path, tuple(look(path)), None)
        except PhotoError as error:
            yield Seen(path, (), str(error))
