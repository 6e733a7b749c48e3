"""A pretrained network as it is: what it sees in a photo, by its 1,000 ImageNet classes, with English names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from edge import photo as photos
from edge.errors import PhotoError
from edge.model.decide import probabilities
from edge.model.preprocess import InputSpec, to_pixels
from trainer.backbones import Backbone


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


def identify(paths: Sequence[Path], backbone: Backbone, count: int) -> Iterator[Seen]:
    """Look at photos, the middle of each, as the network was tested on ImageNet.

    Args:
        paths: image files.
        backbone: the network.
        count: how many classes to give.
    """
    model = backbone.build(backbone.side, backbone.side, top=True)
    names = imagenet_names()
    spec = InputSpec(backbone.side, backbone.side, resample="bicubic", aspect="crop")
    for path in paths:
        try:
            pixels = to_pixels(photos.open_image(photos.read(path).data), spec)
        except PhotoError as error:
            yield Seen(path, (), str(error))
            continue
        chances = probabilities(np.asarray(model.predict_on_batch(pixels[np.newaxis]))[0])
        order = np.argsort(-chances)[:count]
        yield Seen(path, tuple((names[int(i)], float(chances[i])) for i in order), None)
