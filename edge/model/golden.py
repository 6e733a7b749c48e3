"""Golden photos: does a model answer here as it did where it was made?

Runs them in a child process, so that a runtime that crashes on this machine does not take the installation along.
PNGs are model input already and try the model and its runtime; JPEGs go the way of any photo and try the decoder and
the resizing too. Never changes anything.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge import photo as photos
from edge.errors import ModelError, PhotoError
from edge.model import run
from edge.model import runtime as runtimes
from edge.model.bundle import MODEL, Golden, Manifest
from edge.model.preprocess import Pixels, to_pixels

PNG, JPEG = ".png", ".jpg"
START_S, PHOTO_S = 60.0, 60.0
"""A runtime that hangs must not hang the device for ever. The slowest network of a Pi Zero 2 takes half of it."""
DECODER = 2.0
"""How many times more a JPEG may differ than a PNG, on average: another build of libjpeg may round otherwise. Decoding
at full size, which no device does, differs by less, a wrong filter or colour order by more."""

Logits = npt.NDArray[np.float32]
_CURE = "Use another runtime, or export with a gate on this one."


def check(folder: Path, manifest: Manifest, *, runtime: str | None = None) -> str:
    """Run every golden photo and compare.

    Args:
        folder: the bundle's files, each already verified.
        manifest: names photos, labels, logits and tolerances.
        runtime: by default the one that :func:`edge.model.runtime.usable` chooses.

    Returns:
        The runtime's name.

    Raises:
        ModelError: as :func:`compare` says, or with code ``golden photo`` where a photo is neither a PNG of input
            size nor a JPEG that decodes, ``timeout``, ``no runtime``, or as :func:`edge.model.run.in_child` says.
    """
    name = runtime or runtimes.usable(manifest)
    try:
        with tempfile.TemporaryDirectory(prefix="fieldmark-golden-") as scratch:
            stack = Path(scratch) / "golden.npy"
            with stack.open("wb") as file:
                _write_stack(file, folder, manifest)
            timeout_s = START_S + PHOTO_S * len(manifest.golden)
            answers = run.in_child(folder / MODEL, stack, runtime=name, timeout_s=timeout_s)
    except OSError as error:
        raise ModelError(f"the golden photos could not be run: {error.strerror}.", code="golden photo") from error
    compare(manifest, answers.logits, name)
    return name


def compare(manifest: Manifest, logits: Logits, runtime: str) -> None:
    """Compare answers with those that the manifest expects.

    Args:
        manifest: names photos, labels, logits and tolerances.
        logits: of its golden photos in their order, float32 (n, C).
        runtime: whose answers they are, for messages.

    Raises:
        ModelError: with code ``labels`` where the model has another number of labels, ``golden label`` where a photo
            is called something else, ``golden logits`` where a logit is off by more than the photo's tolerance, and
            ``golden mean`` where the PNGs, or the JPEGs, are off by too much on average.
    """
    golden, labels = manifest.golden, [label.name for label in manifest.labels]
    if logits.shape != (len(golden), len(labels)):
        raise ModelError(
            f"the model gives {logits.shape[-1]} logits for each of {len(logits)} golden photos, the manifest has "
            f"{len(labels)} labels and {len(golden)} photos. Export the bundle again.",
            code="labels",
        )
    _compare_labels(golden, [labels[i] for i in logits.argmax(axis=1)], runtime)
    off = np.abs(logits - np.array([each.logits for each in golden]))  # (n, C)
    _compare_logits(golden, off, runtime)
    _compare_mean(manifest, off, runtime)


def pixels_of(path: Path, manifest: Manifest) -> Pixels:
    """A golden photo as the model sees it: uint8 (height, width, 3).

    Args:
        path: a PNG, from which nothing is cut or resized since it is input already, or a JPEG as a camera writes it.
        manifest: says the input's size.

    Raises:
        ModelError: with code ``golden photo``: it is neither.
    """
    try:
        image = photos.open_image(photos.read(path).data)
        return _as_it_is(image, path, manifest) if path.suffix == PNG else _as_a_photo(image, path, manifest)
    except (PhotoError, ValueError, SyntaxError) as error:  # Pillow's PNG reader raises the latter two
        raise ModelError(f"golden photo {path.name} cannot be read: {error}", code="golden photo") from error


def _as_it_is(image: Image.Image, path: Path, manifest: Manifest) -> Pixels:
    expected = (manifest.input.width, manifest.input.height)
    if image.format != "PNG" or image.mode != "RGB" or image.size != expected:
        raise _no_photo(path, image, f"PNG RGB {expected}")
    return np.asarray(image, dtype=np.uint8)


def _as_a_photo(image: Image.Image, path: Path, manifest: Manifest) -> Pixels:
    if path.suffix != JPEG or image.format != "JPEG":
        raise _no_photo(path, image, f"PNG in a {PNG} file or JPEG in a {JPEG} file")
    return to_pixels(image, manifest.input)


def _no_photo(path: Path, image: Image.Image, expected: str) -> ModelError:
    return ModelError(
        f"golden photo {path.name} is {image.format} {image.mode} {image.size}, expected {expected}. "
        "Export the bundle again.",
        code="golden photo",
    )


def _write_stack(file: BinaryIO, folder: Path, manifest: Manifest) -> None:
    """All golden photos as one ``.npy`` stack, one at a time: a Pi Zero cannot hold them."""
    shape = (len(manifest.golden), manifest.input.height, manifest.input.width, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
    for golden in manifest.golden:
        file.write(np.ascontiguousarray(pixels_of(folder / golden.file, manifest)).data)


def _compare_labels(golden: tuple[Golden, ...], found: list[str], runtime: str) -> None:
    wrong = [(each, label) for each, label in zip(golden, found, strict=True) if label != each.label]
    if wrong:
        first, label = wrong[0]
        raise ModelError(
            f"golden photo {first.file}: {runtime} says {label}, the manifest says {first.label}; "
            f"{len(wrong)} of {len(golden)} golden photos are wrong. {_CURE}",
            code="golden label",
        )


def _compare_logits(golden: tuple[Golden, ...], off: npt.NDArray[np.float64], runtime: str) -> None:
    largest = off.max(axis=1)
    # Not the other way round: what is not a number is never within a tolerance.
    wrong = [i for i, each in enumerate(golden) if not largest[i] <= each.tolerance]
    if wrong:
        first = golden[wrong[0]]
        raise ModelError(
            f"golden photo {first.file}: {runtime} differs by {largest[wrong[0]]:.4g}, tolerance {first.tolerance:.4g};"
            f" {len(wrong)} of {len(golden)} golden photos differ too much. {_CURE}",
            code="golden logits",
        )


def _compare_mean(manifest: Manifest, off: npt.NDArray[np.float64], runtime: str) -> None:
    """A small fault in every photo shows here alone. PNGs and JPEGs apart: a fault of the decoder is in few photos."""
    jpeg = np.array([each.file.endswith(JPEG) for each in manifest.golden])
    for kind, those, factor in (("PNGs", ~jpeg, 1.0), ("JPEGs", jpeg, DECODER)):
        most = manifest.golden_mean_tolerance * factor
        mean = float(off[those].mean()) if those.any() else 0.0
        if not mean <= most:
            raise ModelError(
                f"the {those.sum()} golden {kind}: {runtime} differs by {mean:.4g} on average, tolerance {most:.4g}: "
                f"something is slightly wrong in all of them. {_CURE}",
                code="golden mean",
            )
