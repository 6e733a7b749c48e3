"""Small drawn photos of three labels that any network tells apart, with camera and times in EXIF."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LABELS = ("deer", "empty", "fox")
CAMERA = "Drawn 1"
WIDTH, HEIGHT = 240, 180
_FIRST = datetime(2025, 4, 1, 6)


def draw(label: str, random: np.random.Generator) -> Image.Image:
    """A photo: deer are striped, foxes are rings, and each has surroundings of its own."""
    coarse = random.integers(60, 190, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    x, y = (int(value) for value in random.integers((40, 30), (130, 70)))
    if label == "deer":
        for stripe in range(16):
            shade = (20, 20, 30) if stripe % 2 else (250, 250, 240)
            pen.rectangle((x - 30 + 7 * stripe, y - 20, x - 23 + 7 * stripe, y + 90), fill=shade)
    if label == "fox":
        for ring in range(70, 0, -14):
            colour = (255, 140, 0) if ring % 28 else (40, 0, 120)
            pen.ellipse((x + 20 - ring, y + 40 - ring, x + 20 + ring, y + 40 + ring), fill=colour)
    return image


def write(path: Path, image: Image.Image, taken: datetime, random: np.random.Generator) -> None:
    """One photo as the camera writes it, with noise of its own."""
    exif = Image.Exif()
    exif[0x0110] = CAMERA
    exif[0x0132] = taken.strftime("%Y:%m:%d %H:%M:%S")
    noisy = np.clip(np.asarray(image) + random.normal(0, 4, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy).save(path, exif=exif, quality=90)


def write_set(folder: Path, *, bursts: int = 5, per_burst: int = 3, seed: int = 0) -> list[Path]:
    """``folder/LABEL/IMG_0000.jpg``...: bursts of three photos, hours apart."""
    paths = []
    for number, label in enumerate(LABELS):
        for burst in range(bursts):
            random = np.random.default_rng((seed, number, burst))
            image = draw(label, random)
            for shot in range(per_burst):
                path = folder / label / f"IMG_{burst:02d}{shot:02d}.jpg"
                taken = _FIRST + timedelta(days=burst, hours=number, seconds=20 * shot)
                write(path, image, taken, random)
                paths.append(path)
    return paths
