"""A pretrained network as a frozen feature extractor: one vector per photo, computed once and cached on disk."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge.errors import ConfigError
from edge.model.spec import InputSpec
from trainer.pixels import PixelStack, spec_key
from trainer.records import Records
from trainer.settings import CHOICES

if TYPE_CHECKING:
    import keras

REVISION = 1
"""Raised when a network here is built otherwise than before, so that features of the old one are not found."""
POOLINGS = CHOICES["pooling"]
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Extraction:
    """What is computed of a photo; all of it, and the input spec, is the cache's key.

    Attributes:
        network: its name.
        weights: whatever tells its weights from others: ``imagenet``, or the digest of a file.
        layer: whose output is taken, by name or number; the network's own if None.
        pooling: of a feature map (h, w, c): ``avg`` or ``max`` over its places, (c,); ``avg+max`` side by side, (2c,);
            ``flatten``, (h * w * c,). An output that is a vector already is taken as it is.
        normalise: what the network does to pixels first.
    """

    network: str
    weights: str = "imagenet"
    layer: str | None = None
    pooling: str = "avg"
    normalise: str = "own"

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling is {self.pooling!r}, expected one of {', '.join(POOLINGS)}.")

    def key(self, spec: InputSpec) -> str:
        """The name of the folder that holds such features."""
        parts = asdict(self) | {"spec": spec_key(spec), "revision": REVISION}
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return f"{re.sub(r'[^a-z0-9]+', '-', self.network.lower())[:40]}-{digest}"


def pooled(
    build: Callable[[], keras.Model],
    what: Extraction,
    pixels: PixelStack,
    cache_folder: Path,
    *,
    done: Callable[[int], None] = lambda count: None,
) -> Features:
    """One vector for each photo.

    Args:
        build: makes the network that ``what`` names, uint8 pixels to a feature map; called only if a photo's features
            are not in the cache.
        what: which features.
        pixels: the photos.
        cache_folder: holds one folder for each kind of features.
        done: called with the number of photos finished since the last call.

    Returns:
        float32, shape (n, F); (0, 0) of no photos.

    Raises:
        ConfigError: the network has no such layer.
    """
    if not len(pixels):
        return np.empty((0, 0), np.float32)
    records = Records(cache_folder / "features" / what.key(pixels.spec))
    first: dict[str, int] = {}  # where each photo stands; the same may come again
    for i, sha256 in enumerate(pixels.sha256s):
        first.setdefault(sha256, i)
    missing = [i for sha256, i in first.items() if records.get(sha256) is None]
    done(len(pixels) - len(missing))
    network = extractor(build(), what) if missing else None
    width = records.get(pixels.sha256s[0]).shape[0] if network is None else network.output.shape[1]
    result = np.empty((len(pixels), width), np.float32)
    for i, sha256 in enumerate(pixels.sha256s):
        known = records.get(sha256)
        if known is not None:
            result[i] = known
    if network is not None:
        _compute(network, pixels, missing, records, cache_folder, result, done)
        for i, sha256 in enumerate(pixels.sha256s):
            result[i] = result[first[sha256]]
    return result


def extractor(network: keras.Model, what: Extraction) -> keras.Model:
    """The network from its pixels to one vector per photo, float32 (n, F).

    Raises:
        ConfigError: the network has no such layer.
    """
    import keras

    from trainer.backbones import find_layer
    from trainer.model import pooled as pool

    x = network.output if what.layer is None else find_layer(network, what.layer).output
    if len(x.shape) == 4:
        x = pool(x, what.pooling)
    elif len(x.shape) > 2:
        x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(network.input, x, name="features")


def _compute(
    network: keras.Model,
    pixels: PixelStack,
    missing: Sequence[int],
    records: Records,
    cache_folder: Path,
    result: Features,
    done: Callable[[int], None],
) -> None:
    from trainer.frozen import Frozen

    frozen = Frozen(network, cache_folder)
    for rows, vectors in frozen.over(len(missing), lambda i: pixels[missing[i]], done=done):
        for i, vector in zip(rows, vectors, strict=True):
            result[missing[i]] = vector
            records.put(pixels.sha256s[missing[i]], vector)
    records.flush()
