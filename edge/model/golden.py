"""Golden photos: does a model answer here as it did where it was made?

Runs them in a child process, so that a runtime that crashes on this machine does not take the installation along.
Never changes anything.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge import photo as photos
from edge.errors import ModelError, PhotoError
from edge.model import classify, run
from edge.model.bundle import MODEL, Golden, Manifest
from edge.model.preprocess import Pixels

TIMEOUT_S = 900.0
"""64 photos on a Pi Zero with a large model; a runtime that hangs must not hang the device for ever."""


def check(folder: Path, manifest: Manifest, *, runtime: str | None = None) -> str:
    """Run every golden photo and compare.

    Args:
        folder: the bundle's files, each already verified.
        manifest: names photos, labels, logits and tolerances.
        runtime: by default the one that :func:`edge.model.classify.usable_runtime` chooses.

    Returns:
        The runtime's name.

    Raises:
        ModelError: with code ``golden label`` or ``golden logits`` where an answer differs, ``golden photo`` where a
            photo is not a PNG of input size, ``no runtime``, or as :func:`edge.model.run.in_child` says.
    """
    name = runtime or classify.usable_runtime(manifest)
    try:
        with tempfile.TemporaryDirectory(prefix="fieldmark-golden-") as scratch:
            stack = Path(scratch) / "golden.npy"
            np.save(stack, np.stack([_pixels(folder / golden.file, manifest) for golden in manifest.golden]))
            answers = run.in_child(folder / MODEL, stack, runtime=name, timeout_s=TIMEOUT_S)
    except OSError as error:
        raise ModelError(f"the golden photos could not be run: {error.strerror}.", code="golden photo") from error
    for golden, logits in zip(manifest.golden, answers.logits, strict=True):
        _compare(golden, logits, manifest, name)
    return name


def _pixels(path: Path, manifest: Manifest) -> Pixels:
    """A golden photo as the model sees it: uint8 (height, width, 3). It is input already, so nothing is cut or
    resized."""
    try:
        image = photos.open_image(photos.read(path).data)
        expected = (manifest.input.width, manifest.input.height)
        if image.format != "PNG" or image.mode != "RGB" or image.size != expected:
            raise ModelError(
                f"golden photo {path.name} is {image.format} {image.mode} {image.size}, expected PNG RGB {expected}. "
                "Export the bundle again.",
                code="golden photo",
            )
        return np.asarray(image, dtype=np.uint8)
    except (PhotoError, ValueError, SyntaxError) as error:  # Pillow's PNG reader raises the latter two
        raise ModelError(f"golden photo {path.name} cannot be read: {error}", code="golden photo") from error


def _compare(golden: Golden, logits: npt.NDArray[np.float32], manifest: Manifest, runtime: str) -> None:
    labels = [label.name for label in manifest.labels]
    if logits.shape != (len(labels),):
        raise ModelError(f"the model gives {logits.size} logits, the manifest has {len(labels)} labels.", code="labels")
    found = labels[int(logits.argmax())]
    if found != golden.label:
        raise ModelError(
            f"golden photo {golden.file}: {runtime} says {found}, the manifest says {golden.label}. "
            "Use another runtime, or export with a gate on this one.",
            code="golden label",
        )
    difference = float(np.abs(logits - np.asarray(golden.logits, dtype=np.float64)).max())
    if not difference <= golden.tolerance:
        raise ModelError(
            f"golden photo {golden.file}: {runtime} differs by {difference:.4g}, tolerance {golden.tolerance:.4g}. "
            "Use another runtime, or export with a gate on this one.",
            code="golden logits",
        )
