"""Reads and decodes every photo of a data set once, in parallel, and keeps the pixels in a cache on disk.

A file that cannot be used ends up in a list with its reason; it never ends the run and never disappears.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import __version__ as pillow_version

from edge import photo as photos
from edge.errors import DataError, PhotoError
from edge.model.preprocess import REVISION, InputSpec, to_pixels
from trainer.cache import ArrayCache
from trainer.dataset.samples import Sample, Unreadable


@dataclass(frozen=True)
class Decoded:
    """One usable photo.

    Attributes:
        sample: where it came from.
        sha256: of its bytes.
        camera: make and model, or an empty string.
        taken: local capture time from EXIF in ISO 8601, else None.
    """

    sample: Sample
    sha256: str
    camera: str
    taken: str | None


class PixelStack:
    """The pixels of some photos, read from the cache when asked for, so that memory does not grow with the data."""

    def __init__(self, cache: ArrayCache, sha256s: Sequence[str], spec: InputSpec) -> None:
        self._cache = cache
        self._sha256s = list(sha256s)
        self.spec = spec

    def __len__(self) -> int:
        return len(self._sha256s)

    def __getitem__(self, i: int) -> npt.NDArray[np.uint8]:
        """uint8 (h, w, 3)."""
        array = self._cache.get(self._sha256s[i])
        if array is None:
            raise DataError(f"the pixel cache lost an entry while it was in use ({self._sha256s[i]}). Run again.")
        return array

    def batch(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        """uint8 (n, h, w, 3)."""
        return np.stack([self[int(i)] for i in indices])

    def save(self, path: Path, indices: Sequence[int] | npt.NDArray[np.intp]) -> None:
        """Write some photos as one ``.npy`` stack, one at a time."""
        shape = (len(indices), self.spec.height, self.spec.width, 3)
        stack = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)  # type: ignore[no-untyped-call]
        for row, i in enumerate(indices):
            stack[row] = self[int(i)]
        stack.flush()


def decode(
    samples: Sequence[Sample], spec: InputSpec, cache_folder: Path, *, done: Callable[[], None] = lambda: None
) -> tuple[list[Decoded], list[Unreadable], PixelStack]:
    """Decode all photos, or find them in the cache.

    Args:
        samples: in the order of the results.
        spec: size and filter.
        cache_folder: holds one folder per input spec.
        done: called after each photo, from any thread.

    Returns:
        The usable photos, the unusable ones, and the pixels of the usable ones in the same order.
    """
    cache = ArrayCache(cache_folder / "pixels" / spec_key(spec), (spec.height, spec.width, 3), np.uint8)

    def one(sample: Sample) -> Decoded | Unreadable:
        try:
            return _decode_one(sample, spec, cache)
        except PhotoError as error:
            return Unreadable(sample.name, sample.label, error.code, str(error))
        finally:
            done()

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow and hashlib release the interpreter lock
        results = list(pool.map(one, samples))
    good = [result for result in results if isinstance(result, Decoded)]
    bad = [result for result in results if isinstance(result, Unreadable)]
    return good, bad, PixelStack(cache, [photo.sha256 for photo in good], spec)


def spec_key(spec: InputSpec) -> str:
    """A short name of everything that decides the pixels: the input spec, our code, and the library that decodes."""
    text = json.dumps([asdict(spec), REVISION, pillow_version], sort_keys=True)
    return f"{spec.height}x{spec.width}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _decode_one(sample: Sample, spec: InputSpec, cache: ArrayCache) -> Decoded:
    if not photos.is_candidate(sample.path):
        raise PhotoError(f"{sample.path.name} is not a photo by its name's ending.", code="not a photo")
    photo = photos.read(sample.path)
    image = photos.open_image(photo.data, sample.path.name)
    taken = photos.taken(sample.path, 0.0, image)
    camera = " ".join(part for part in photos.camera(image) if part)
    if cache.get(photo.sha256) is None:
        cache.put(photo.sha256, to_pixels(image, spec))
    return Decoded(sample, photo.sha256, camera, taken.local if taken.source == "exif" else None)
