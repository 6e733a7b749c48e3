"""Chooses the golden photos of a bundle: those by which a device can tell that it answers as the workstation did.

Owns which photos travel with a bundle and how far a device may differ. Never runs a model: it goes by what the gate's
rows answered.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge import photo as photos
from edge.errors import ModelError, PhotoError
from edge.model.bundle import Golden
from edge.model.decide import PERSON
from edge.model.golden import DECODER, JPEG, PNG
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec
from trainer.jpeg_strip import Stripped, strip
from trainer.pixels import PixelStack

COUNT = 32
LEAST = 8
JPEGS = 3
POOL = 3 * COUNT
"""So many of the clearest are written as PNG; of these the clearest for their bytes are taken. On trail-camera photos
that halves what a bundle grows by, and faults show as well."""
JPEG_BYTES, JPEGS_BYTES = 1_500_000, 3_000_000
"""At most, of one original and of all."""
LOOKED_BYTES = 64 * 2**20
"""So much of the originals is looked at, the smallest first."""

SPARE, SPARE_UNSEEN = 2.0, 3.0
"""How many times further a device may be off than the gate's rows were, if they show every kernel that a device can
have, and if not. On int8 models the reference kernels are those of tflite-runtime on ARM but for single steps, and
LiteRT is equal on both; on dynamic-range models neither holds."""
LEAST_STEPS, LEAST_STEPS_UNSEEN, LEAST_SHARE = 6.0, 12.0, 0.08
"""Tolerances are at least so many int8 output steps, and so large a share of the logits' standard deviation."""
MEAN_SHARE = 0.25
"""The least mean tolerance, as a share of a photo's least."""
_USUAL = 0.95
_QUICK, _SMALL = 1, 9  # zlib levels: one tells which photos are small in a sixth of the time
_ELSEWHERE, _REFERENCE = "tflite_runtime", "reference"
"""The runtime whose default kernels are others on ARM, and the kernels that are the same there."""

Logits = npt.NDArray[np.float32]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    """The golden photos of a bundle.

    Attributes:
        golden: the manifest's entries, PNGs first.
        mean_tolerance: the manifest's ``golden_mean_tolerance``.
        files: path to content.
    """

    golden: tuple[Golden, ...]
    mean_tolerance: float
    files: dict[str, bytes]

    @property
    def said(self) -> str:
        """How many, in words."""
        sizes = {end: [len(data) for path, data in self.files.items() if path.endswith(end)] for end in (PNG, JPEG)}
        parts = [f"{len(found)} golden {end[1:].upper()}s, {sum(found) / 1e6:.1f} MB" for end, found in sizes.items()]
        return "; ".join(parts) if sizes[JPEG] else f"{parts[0]}; no original JPEG could be taken"


@dataclass(frozen=True)
class _Expected:
    """What a device is to answer: all arrays have a row for each of n photos.

    Attributes:
        rows: of the gate, float64 (rows, n, C), NaN where one did not answer.
        logits: half-way between the rows that are furthest apart, so that none is far; float64 (n, C).
        margin: of the best logit over the second, float64 (n,).
        allowed: bool (n,), all rows answered, they agree, and nobody is in the photo.
    """

    rows: _Floats
    logits: _Floats
    margin: _Floats
    allowed: npt.NDArray[np.bool_]

    @property
    def said(self) -> npt.NDArray[np.intp]:
        """Label numbers, (n,); of no meaning where a row did not answer."""
        said: npt.NDArray[np.intp] = self.logits.argmax(axis=1)
        return said

    def clear(self, tolerance: _Floats) -> npt.NDArray[np.bool_]:
        """Allowed photos whose label holds as long as each logit is within the tolerance."""
        return self.allowed & (self.margin > 2 * tolerance)

    def off(self, those: Sequence[int]) -> float:
        """The mean difference of the row that is furthest off on average, over some photos."""
        return float(np.abs(self.rows - self.logits)[:, list(those)].mean(axis=(1, 2)).max()) if those else 0.0


def choose(
    pixels: PixelStack,
    sources: Sequence[Path],
    labels: Sequence[str],
    truth: npt.NDArray[np.intp],
    answers: Mapping[str, Logits],
    output_step: float,
    *,
    jpegs: int = JPEGS,
) -> Chosen:
    """Choose photos on which all rows agree with a clear margin, of as many labels as possible.

    Photos of people are never taken, nor what a model takes for people: a bundle travels. Originals are taken only if
    they give the same pixels without their metadata, so one that EXIF turns is not; the expected answers are the same.

    Args:
        pixels: of all photos.
        sources: the file of each.
        labels: C names.
        truth: n label numbers, as people say.
        answers: row -> logits of all photos, float32 (n, C), NaN in those that it was not asked. A row's name begins
            with its runtime and ends with its kernels: ``tflite_runtime 2.14.0 x86_64 reference``.
        output_step: distance of neighbouring logits, 0 for float models.
        jpegs: how many originals at most; 0 where none may travel.

    Raises:
        ModelError: with code ``golden``: fewer than :data:`LEAST` photos may be taken.
    """
    expected, seen = _expected(labels, truth, answers), _seen(answers, output_step)
    tolerance, least_mean = _tolerances(expected, seen, output_step)
    clear = expected.clear(tolerance)
    if clear.sum() < LEAST:
        raise ModelError(
            f"only {clear.sum()} of {len(truth)} photos can be golden, {LEAST} are needed: no person is in them, for "
            "people and for the model, and all runtimes agree with a clear margin. Add photos of animals or empty "
            "scenes and train again.",
            code="golden",
        )
    pngs = _pngs(pixels, expected, clear)
    originals = _originals(pixels, sources, np.flatnonzero(expected.clear(DECODER * tolerance)).tolist(), jpegs)
    golden: list[Golden] = []
    files: dict[str, bytes] = {}
    for ending, factor, found in ((PNG, 1.0, pngs), (JPEG, DECODER, originals)):
        for i, data in found.items():
            name = f"golden/{len(golden):02d}{ending}"
            golden.append(_entry(name, labels, expected, i, factor * float(tolerance[i])))
            files[name] = data
    off = max(expected.off(list(pngs)), expected.off(list(originals)) / DECODER)
    return Chosen(tuple(golden), round(max((SPARE if seen else SPARE_UNSEEN) * off, least_mean), 5), files)


def _expected(labels: Sequence[str], truth: npt.NDArray[np.intp], answers: Mapping[str, Logits]) -> _Expected:
    rows = np.stack([each.astype(np.float64) for each in answers.values()])  # (rows, n, C)
    answered = np.isfinite(rows).all(axis=(0, 2))
    said = np.nan_to_num(rows).argmax(axis=2)  # (rows, n)
    person = np.array([label == PERSON for label in labels])
    agreed = answered & (said == said[0]).all(axis=0) & ~person[truth] & ~person[said[0]]
    logits = (rows.max(axis=0) + rows.min(axis=0)) / 2
    ordered = np.sort(logits, axis=1)
    return _Expected(rows, logits, ordered[:, -1] - ordered[:, -2], agreed & (logits.argmax(axis=1) == said[0]))


def _seen(answers: Mapping[str, Logits], output_step: float) -> bool:
    """Whether the rows show every kernel that a device can have."""
    elsewhere = any(row.startswith(_ELSEWHERE) for row in answers)
    return output_step > 0 and (not elsewhere or any(row.endswith(_REFERENCE) for row in answers))


def _tolerances(expected: _Expected, seen: bool, output_step: float) -> tuple[_Floats, float]:
    """How far each photo's logits may differ, (n,), and the least mean tolerance."""
    deviation = float(expected.logits[expected.allowed].std()) if expected.allowed.any() else 0.0
    least = max((LEAST_STEPS if seen else LEAST_STEPS_UNSEEN) * output_step, LEAST_SHARE * deviation)
    spread = np.abs(expected.rows - expected.logits).max(axis=(0, 2))  # (n,)
    usual = float(np.quantile(spread[expected.allowed], _USUAL)) if expected.allowed.any() else 0.0
    return np.maximum((SPARE if seen else SPARE_UNSEEN) * np.maximum(spread, usual), least), MEAN_SHARE * least


def _entry(name: str, labels: Sequence[str], expected: _Expected, i: int, tolerance: float) -> Golden:
    logits = tuple(round(float(value), 5) for value in expected.logits[i])
    return Golden(name, labels[int(expected.said[i])], logits, round(tolerance, 5))


def _pngs(pixels: PixelStack, expected: _Expected, clear: npt.NDArray[np.bool_]) -> dict[int, bytes]:
    """The clearest for their bytes of the clearest, one label after the other."""
    pool = _in_turn(expected.said, clear, expected.margin, POOL)
    worth = np.zeros(len(expected.margin))
    worth[pool] = [expected.margin[i] / len(_png(pixels[i], _QUICK)) for i in pool]
    return {i: _png(pixels[i], _SMALL) for i in _in_turn(expected.said, worth > 0, worth, COUNT)}


def _in_turn(said: npt.NDArray[np.intp], allowed: npt.NDArray[np.bool_], worth: _Floats, most: int) -> list[int]:
    """Photos of the largest worth among those allowed, one label after the other."""
    queues = [
        sorted(np.flatnonzero(allowed & (said == label)).tolist(), key=lambda i: float(worth[i]))
        for label in np.unique(said[allowed])
    ]
    chosen: list[int] = []
    while any(queues) and len(chosen) < most:
        chosen += [queue.pop() for queue in queues if queue]
    return chosen[:most]


def _png(pixels: npt.NDArray[np.uint8], level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=False, compress_level=level)
    return file.getvalue()


# --- originals


@dataclass(frozen=True)
class _Original:
    """A JPEG that might travel.

    Attributes:
        i: which photo it is.
        stripped: it without metadata.
        camera: whether a camera wrote its name into it.
        shrink: 1, 2, 4 or 8: the decoder shrinks it so much on the way to model input.
    """

    i: int
    stripped: Stripped
    camera: bool
    shrink: int

    @property
    def kind(self) -> tuple[bool, str, int]:
        """What of a decoder it tries."""
        return self.stripped.progressive, self.stripped.sampling, self.shrink


def _originals(pixels: PixelStack, sources: Sequence[Path], allowed: Sequence[int], most: int) -> dict[int, bytes]:
    """Originals of different kinds: from a camera first, then those that the decoder shrinks, then the smallest."""
    left = sorted(
        _looked_at(pixels, sources, allowed) if most else [],
        key=lambda each: (not each.camera, each.shrink == 1, len(each.stripped.data), each.i),
    )
    chosen: list[_Original] = []
    for new_kind in (True, False):
        for each in left:
            kinds = {other.kind for other in chosen}
            total = sum(len(other.stripped.data) for other in (*chosen, each))
            if len(chosen) == most or each in chosen or (new_kind and each.kind in kinds) or total > JPEGS_BYTES:
                continue
            if _same_pixels(each, pixels):
                chosen.append(each)
    return {each.i: each.stripped.data for each in chosen}


def _looked_at(pixels: PixelStack, sources: Sequence[Path], allowed: Sequence[int]) -> list[_Original]:
    sized = sorted((_length(sources[i]), i) for i in allowed if sources[i].suffix.lower() in (".jpg", ".jpeg", ".jpe"))
    found, looked = [], 0
    for length_bytes, i in sized:
        looked += length_bytes
        if not 0 < length_bytes <= JPEG_BYTES:
            continue
        if looked > LOOKED_BYTES:
            break
        original = _original(sources[i], i, pixels)
        found += [original] if original else []
    return found


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # its pixels are in the cache, and the file is gone
        return 0


def _original(path: Path, i: int, pixels: PixelStack) -> _Original | None:
    """A photo's file if it is still the same, larger than the input, and can be stripped."""
    try:
        photo = photos.read(path)
        stripped = strip(photo.data)
        camera = any(photos.camera(photos.open_image(photo.data)))
    except PhotoError:
        return None
    spec = pixels.spec
    if photo.sha256 != pixels.sha256s[i] or stripped.width < spec.width or stripped.height < spec.height:
        return None
    return _Original(i, stripped, camera, _shrink(stripped, spec))


def _shrink(stripped: Stripped, spec: InputSpec) -> int:
    ratio = min(stripped.width / spec.width, stripped.height / spec.height)
    return next(scale for scale in (8, 4, 2, 1) if scale <= ratio)


def _same_pixels(original: _Original, pixels: PixelStack) -> bool:
    try:
        seen = to_pixels(photos.open_image(original.stripped.data), pixels.spec)
    except PhotoError:
        return False
    return bool(np.array_equal(seen, pixels[original.i]))
