"""Reads and decodes every photo of a data set once, in parallel, and keeps the pixels in a cache on disk.

A file that cannot be used ends up in a list with its reason; it never ends the run and never disappears. Pixels are
never kept in memory: where the cache has no room for them, photos are decoded again whenever they are needed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL import __version__ as pillow_version

from edge import photo as photos
from edge.errors import DataError, PhotoError
from edge.model.preprocess import REVISION, to_pixels
from edge.model.spec import InputSpec
from trainer.cache import LIMIT_VARIABLE, ArrayCache, Room, limit_bytes
from trainer.dataset.samples import Sample, Unreadable
from trainer.dataset.split import difference_hash, thumbnail
from trainer.known_files import KnownFiles
from trainer.records import Records

GREY_SPREAD = 10
GREY_SHARE = 0.95
"""A frame is infrared if on so large a share of it red, green and blue differ by at most ``GREY_SPREAD`` of 255. On
289 camera-trap photos that people had sorted (115 infrared) it is wrong on none; on at least 80 % it was on one."""

_CAMERA_BYTES = 96
_FACTS = np.dtype(
    [
        ("camera", f"S{_CAMERA_BYTES}"),
        ("taken", "S32"),
        ("infrared", "?"),
        ("hash", "?", (128,)),
        ("thumbnail", "<f4", (768,)),
    ]
)
_FACTS_REVISION = 1

Pixels = npt.NDArray[np.uint8]
Indices = Sequence[int] | npt.NDArray[np.intp]


@dataclass(frozen=True)
class Look:
    """What a photo looks like, in little: for finding others that look the same.

    Attributes:
        hash: bool (128,), of :func:`trainer.dataset.split.difference_hash`.
        thumbnail: float32 (768,), of :func:`trainer.dataset.split.thumbnail`.
    """

    hash: npt.NDArray[np.bool_]
    thumbnail: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Decoded:
    """One usable photo.

    Attributes:
        sample: where it came from.
        sha256: of its bytes.
        camera: make and model, or an empty string.
        taken: local capture time in ISO 8601, from the data set, else from EXIF, else None.
        infrared: the frame is grey, as an infrared flash makes it.
        look: for finding near-duplicates.
    """

    sample: Sample
    sha256: str
    camera: str
    taken: str | None
    infrared: bool
    look: Look


class PixelStack:
    """The pixels of some photos, read from the cache when asked for, so that memory does not grow with the data.

    Attributes:
        sha256s: content hashes of the photos, n of them.
        spec: size and filter.
        note: for the person, if the cache has no room for all; else None.
    """

    def __init__(
        self,
        cache: ArrayCache,
        sha256s: Sequence[str],
        spec: InputSpec,
        paths: Sequence[Path] | None = None,
    ) -> None:
        """Name some photos.

        Args:
            cache: holds their pixels.
            sha256s, spec: as above.
            paths: where the photos lie, to decode one again if its pixels are not in the cache.
        """
        self._cache = cache
        self._paths = paths
        self.sha256s = tuple(sha256s)
        self.spec = spec
        self.note: str | None = None

    def __len__(self) -> int:
        return len(self.sha256s)

    def __getitem__(self, i: int) -> Pixels:
        """uint8 (h, w, 3), not to be written to.

        Raises:
            DataError: the pixels are no longer in the cache, and the photo has changed or is gone.
        """
        array = self._cache.get(self.sha256s[i])
        return self._again(i) if array is None else array

    def can_be_read(self) -> bool:
        """Whether every photo can be had: those that lie nowhere must all be in the cache."""
        return self._paths is not None or all(self._cache.has(sha256) for sha256 in self.sha256s)

    def batch(self, indices: Indices) -> Pixels:
        """uint8 (n, h, w, 3)."""
        stack = np.empty((len(indices), self.spec.height, self.spec.width, 3), np.uint8)
        for row, i in zip(stack, indices, strict=True):
            row[...] = self[int(i)]
        return stack

    def save(self, path: Path, indices: Indices) -> None:
        """Write some photos as one ``.npy`` stack, one at a time."""
        shape = (len(indices), self.spec.height, self.spec.width, 3)
        need_bytes, free_bytes = math.prod(shape), shutil.disk_usage(path.parent).free
        if need_bytes > free_bytes:  # a mapped file that cannot be filled would end the process with a bus error
            raise DataError(
                f"{path.parent} has {free_bytes / 1e9:.1f} GB free, {need_bytes / 1e9:.1f} GB are needed. "
                "Set TMPDIR to a folder on another disk.",
                code="disk full",
            )
        stack = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)  # type: ignore[no-untyped-call]
        for row, i in enumerate(indices):
            stack[row] = self[int(i)]
        stack.flush()

    def _again(self, i: int) -> Pixels:
        sha256 = self.sha256s[i]
        if self._paths is None:
            raise DataError(f"the pixel cache lost an entry while it was in use ({sha256}). Run again.")
        path = self._paths[i]
        try:
            photo = photos.read(path)
            if photo.sha256 != sha256:
                raise DataError(f"{path} was changed while it was in use. Run again.")
            array = to_pixels(photos.open_image(photo.data, path.name), self.spec)
        except PhotoError as error:
            raise DataError(f"{path} was readable when the run began: {error} Run again.") from error
        self._cache.put(sha256, array)
        return array


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
    decoder = _Decoder(spec, cache_folder)

    def one(sample: Sample) -> _Read | Unreadable:
        try:
            return decoder.read(sample)
        except PhotoError as error:
            return Unreadable(sample.name, sample.label, error.code, str(error))
        finally:
            done()

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow and hashlib release the interpreter lock
        results = list(pool.map(one, samples))
        good = decoder.decoded([result for result in results if isinstance(result, _Read)])
        stack = decoder.stack(good, pool)
    return good, [result for result in results if isinstance(result, Unreadable)], stack


def cached(sha256s: Sequence[str], spec: InputSpec, cache_folder: Path) -> PixelStack:
    """The pixels of photos that are known by their content only; see :meth:`PixelStack.can_be_read`."""
    return PixelStack(_Decoder(spec, cache_folder).cache, sha256s, spec)


def dataset_digest(photos: Sequence[Decoded]) -> str:
    """SHA-256 over the sorted lines ``sha256 label``: the same photos and labels give the same digest anywhere."""
    lines = sorted(f"{photo.sha256} {photo.sample.label}\n" for photo in photos)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_infrared(pixels: Pixels) -> bool:
    """Whether a frame is grey nearly everywhere: an infrared photo, also one with a coloured clock in its banner.

    Args:
        pixels: uint8 RGB, shape (h, w, 3).
    """
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return bool((spread <= GREY_SPREAD).mean() >= GREY_SHARE)


def spec_key(spec: InputSpec) -> str:
    """A short name of everything that decides the pixels: the input spec, our code, and the library that decodes."""
    text = json.dumps([asdict(spec), REVISION, pillow_version], sort_keys=True)
    return f"{spec.height}x{spec.width}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class _Read(NamedTuple):
    """A usable photo; its facts only if their file cannot hold them."""

    sample: Sample
    sha256: str
    facts: Any


class _Decoder:
    """Decodes what is not in the cache, and makes room for it."""

    def __init__(self, spec: InputSpec, folder: Path) -> None:
        self._spec, self._folder = spec, folder
        self._room = Room(folder)
        shape = (spec.height, spec.width, 3)
        self.cache = ArrayCache(folder / "pixels" / spec_key(spec), shape, np.uint8, self._room)
        self.facts = Records(folder / "facts" / f"{spec_key(spec)}-{_FACTS_REVISION}", _FACTS)
        self._files = KnownFiles(folder)

    def read(self, sample: Sample) -> _Read:
        """See that a photo's pixels are in the cache, and what else is known of it."""
        if not photos.is_candidate(sample.path):
            raise PhotoError(f"{sample.path.name} is not a photo by its name's ending.", code="not a photo")
        sha256 = self._files.sha256(sample.path)
        facts = None if sha256 is None else self._known(sha256)
        if sha256 is None or facts is None:
            photo = self._files.read(sample.path)
            sha256 = photo.sha256
            facts = self._known(sha256)
            if facts is None:
                facts = self._facts(sample, sha256, photos.open_image(photo.data, sample.path.name))
                self.facts.put(sha256, facts)
        return _Read(sample, sha256, facts if self.facts.full else None)

    def _known(self, sha256: str) -> Any:
        """A photo's facts, if they and its pixels are here, or its pixels have no room; else None."""
        facts = self.facts.get(sha256)
        return facts if facts is None or self.cache.has(sha256) or self.cache.full else None

    def decoded(self, some: Sequence[_Read]) -> list[Decoded]:
        """The facts come from their file, which is mapped, so that tens of thousands take no memory."""
        self.facts.flush()
        self._files.flush()
        return [
            _decoded(each.sample, each.sha256, self.facts.get(each.sha256) if each.facts is None else each.facts)
            for each in some
        ]

    def stack(self, good: Sequence[Decoded], pool: ThreadPoolExecutor) -> PixelStack:
        """The pixels of all. What found no room is decoded again, once room was made for it."""
        if self.cache.full:
            # Only now everything that this run uses counts as used, and can be told from what may go.
            left = self._stack([photo for photo in good if not self.cache.has(photo.sha256)])
            self._room.make(len(set(left.sha256s)) * self.cache.file_bytes)
            self.cache.full = False
            list(pool.map(lambda i: None if self.cache.full else left[i], range(len(left))))
        stack = self._stack(good)
        if self.cache.full:
            stack.note = self._note(sum(not self.cache.has(sha256) for sha256 in stack.sha256s), len(stack))
        return stack

    def _stack(self, some: Sequence[Decoded]) -> PixelStack:
        return PixelStack(
            self.cache, [photo.sha256 for photo in some], self._spec, [photo.sample.path for photo in some]
        )

    def _note(self, missing: int, count: int) -> str:
        return (
            f"The cache in {self._folder} has no room for {missing} of {count} photos "
            f"({missing * self.cache.file_bytes / 1e9:.1f} GB): they are decoded again whenever they are needed, which "
            "takes longer. Free space there, set FIELDMARK_CACHE to a folder on another disk, or raise "
            f"{LIMIT_VARIABLE} (now {limit_bytes() / 1e9:g})."
        )

    def _facts(self, sample: Sample, sha256: str, image: Image.Image) -> Any:
        taken = photos.taken(sample.path, 0.0, image)
        camera = " ".join(part for part in photos.camera(image) if part)
        pixels = self.cache.get(sha256)
        if pixels is None:
            pixels = to_pixels(image, self._spec)
            self.cache.put(sha256, pixels)
        row = np.zeros(1, _FACTS)[0]
        row["camera"] = camera.encode()[:_CAMERA_BYTES]
        row["taken"] = taken.local.encode() if taken.source == "exif" else b""
        row["infrared"] = is_infrared(pixels)
        row["hash"], row["thumbnail"] = difference_hash(pixels), thumbnail(pixels)
        return row


def _decoded(sample: Sample, sha256: str, facts: Any) -> Decoded:
    taken = sample.taken or facts["taken"].decode() or None
    look = Look(facts["hash"], facts["thumbnail"])
    return Decoded(sample, sha256, facts["camera"].decode(errors="ignore"), taken, bool(facts["infrared"]), look)
