"""A camera and a classifier for tests of the agent: real photos made with Pillow, really decoded, quickly judged."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.agent.lease import Writer, look
from edge.agent.loop import Model
from edge.errors import ModelError
from edge.log.store import BundleFacts
from edge.model import decide, preprocess
from edge.model.classify import Answer
from edge.model.spec import InputSpec

LABELS = ("deer", "empty", "fox")
SPEC = InputSpec(16, 16)
BUNDLE = BundleFacts("b1" * 32, "shades-1", "a1" * 32, LABELS, (0.5, 0.5, 0.5), 1.0)


def jpeg(shade: int, *, taken: str | None = None, side: int = 32, orientation: int | None = None) -> bytes:
    """A grey photo; ``taken`` as EXIF writes it, ``2024:05:01 06:12:09``."""
    exif = Image.Exif()
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    if orientation:
        exif[0x0112] = orientation
    out = io.BytesIO()
    Image.new("RGB", (side, side // 2), (shade, shade, shade)).save(out, "JPEG", exif=exif)
    return out.getvalue()


def put(path: Path, content: bytes, *, mtime_s: float = 1_700_000_000.0) -> Path:
    """A file with that content and time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (mtime_s, mtime_s))
    return path


@dataclass
class ShadeClassifier:
    """Dark is a deer, bright is a fox, in between is empty; decodes as the real one does.

    Attributes:
        asked: how many photos it was given.
        broken: raises as a runtime that fails.
    """

    runtime: str = "shades"
    asked: int = 0
    broken: bool = False

    def classify_image(self, image: Image.Image) -> Answer:
        self.asked += 1
        if self.broken:
            raise ModelError("shades failed to run the model: out of crayons", code="model")
        mean = float(preprocess.to_pixels(image, SPEC).mean())
        logits = np.array([(128 - mean) / 8, 4.0, (mean - 128) / 8], np.float32)
        return Answer(decide.decide(logits, LABELS, temperature=1.0, thresholds=(0.5, 0.5, 0.5)), logits)


class Silent:
    """No file events; a wait that would sleep is a fault of the test."""

    def wait(self, timeout_s: float) -> list[str]:
        return []

    def lost(self) -> bool:
        return False

    def listen_again(self, folder: Path) -> str | None:
        return None


def model(classifier: ShadeClassifier | None = None, bundle: BundleFacts = BUNDLE) -> Model:
    """The fake, as the loop takes it."""
    return Model(classifier or ShadeClassifier(), bundle, development=True)


def need_leases(folder: Path) -> None:
    """Skip the running test where the file system does not know who writes."""
    trial = folder / ".lease"
    trial.write_bytes(b"x")
    found = look(trial)
    trial.unlink()
    if found is None or found.writer is Writer.UNKNOWN:
        pytest.skip(f"the file system of {folder} grants no leases")
