"""A pretrained network as a frozen feature extractor: one vector per photo, computed once and cached on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge.errors import DataError
from trainer.cache import ArrayCache
from trainer.pixels import PixelStack, spec_key

if TYPE_CHECKING:
    import keras

BATCH = 16
Features = npt.NDArray[np.float32]


def pooled(
    build: Callable[[], keras.Model],
    name: str,
    width: int,
    pixels: PixelStack,
    sha256s: Sequence[str],
    cache_folder: Path,
    *,
    done: Callable[[int], None] = lambda count: None,
) -> Features:
    """The average over the last feature map, for each photo.

    Args:
        build: makes the network; called only if a photo is not in the cache.
        name: of the network and its weights, part of the cache's key.
        width: F, the number of channels of the last feature map.
        pixels: the photos.
        sha256s: their content hashes, in the same order.
        cache_folder: holds one folder per network and input spec.
        done: called with the number of photos finished since the last call.

    Returns:
        float32, shape (n, F).
    """
    cache = ArrayCache(cache_folder / "features" / f"{name}-avg-{spec_key(pixels.spec)}", (width,), np.float32)
    missing = [i for i, sha256 in enumerate(sha256s) if cache.get(sha256) is None]
    done(len(sha256s) - len(missing))
    if missing:
        _compute(_extractor(build()), pixels, sha256s, missing, cache, done)
    return np.stack([_vector(cache, sha256) for sha256 in sha256s])


def _vector(cache: ArrayCache, sha256: str) -> Features:
    vector = cache.get(sha256)
    if vector is None:
        raise DataError(f"the feature cache lost an entry while it was in use ({sha256}). Run again.")
    return vector


def _extractor(network: keras.Model) -> keras.Model:
    import keras

    return keras.Model(network.input, keras.layers.GlobalAveragePooling2D()(network.output))


def _compute(
    extractor: keras.Model,
    pixels: PixelStack,
    sha256s: Sequence[str],
    missing: Sequence[int],
    cache: ArrayCache,
    done: Callable[[int], None],
) -> None:
    for start in range(0, len(missing), BATCH):
        indices = list(missing[start : start + BATCH])
        padded = indices + indices[-1:] * (BATCH - len(indices))  # one shape, one compilation
        vectors = extractor.predict_on_batch(pixels.batch(padded))
        for i, vector in zip(indices, vectors, strict=False):
            cache.put(sha256s[i], np.asarray(vector, np.float32))
        done(len(indices))
