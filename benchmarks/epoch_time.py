"""An epoch of photos from the pixel cache against decoding every photo in every epoch.

Photos of several sizes are drawn. The cache is filled once, as training does; then both ways hand out the same photos
in the same shuffled batches, in turns: from the cache in one thread, as training reads them while it computes, and
decoded by one thread per core. Nothing is learned from them: this is the time that a training step would wait.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import drawn, report
from benchmarks.report import Claim, Result
from edge import photo as photos
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec
from trainer import pixels
from trainer.dataset.samples import Sample

SIZES = {"2 megapixels": (1632, 1224), "5 megapixels": (2592, 1944), "12 megapixels": (4000, 3000)}
SIDE, BATCH, PHOTOS, ROUNDS = 224, 16, 32, 7
LEAST_RATIO = 5.0

Batch = npt.NDArray[np.uint8]


def main() -> None:
    """The command."""
    options = report.parser("epoch_time", __doc__)
    options.add_argument("--side", type=int, default=SIDE, help=f"input side in pixels; default {SIDE}")
    options.add_argument("--photos", type=int, default=PHOTOS, help=f"photos of each size; default {PHOTOS}")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    claims, detail = [], {}
    for name, (width, height) in SIZES.items():
        report.say(f"{options.photos} photos of {name} ...")
        found = _compare(_draw(width, height, options.photos, scratch / name), options.side, scratch / "cache")
        detail[name] = found
        ratio = found["ratio"]["median"]
        claims.append(
            Claim(f"epoch from the pixel cache, photos of {name}, times faster", ratio, "×", None, LEAST_RATIO)
        )
    return Result("epoch_time", claims, {"side": options.side, "photos": options.photos, "batch": BATCH}, detail)


def _draw(width: int, height: int, count: int, folder: Path) -> list[Sample]:
    folder.mkdir()
    for i, content in enumerate(drawn.variants(drawn.photo(width, height), count)):
        (folder / f"{i}.jpg").write_bytes(content)
    return [Sample(folder / f"{i}.jpg", f"{i}.jpg", "drawn") for i in range(count)]


def _compare(samples: list[Sample], side: int, cache: Path) -> dict[str, Any]:
    spec, count = InputSpec(side, side), len(samples)
    start = time.perf_counter()
    _, _, stack = pixels.decode(samples, spec, cache)
    filling_s = time.perf_counter() - start
    random, turns = np.random.default_rng(0), []
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def decoded(rows: npt.NDArray[np.intp]) -> Batch:
            return np.stack(list(pool.map(lambda i: _decode(samples[i].path, spec), rows)))

        assert (decoded(np.arange(2)) == stack.batch([0, 1])).all()
        for _ in range(ROUNDS):
            order = random.permutation(count)
            turns.append((_epoch_s(stack.batch, order), _epoch_s(decoded, order)))
    return {
        "filling the cache, ms a photo": filling_s / count * 1e3,
        "from the cache, ms a photo": report.spread(cached / count * 1e3 for cached, _ in turns),
        "decoding, ms a photo": report.spread(decoding / count * 1e3 for _, decoding in turns),
        "ratio": report.spread(decoding / cached for cached, decoding in turns),
    }


def _decode(path: Path, spec: InputSpec) -> Batch:
    return to_pixels(photos.open_image(path.read_bytes()), spec)


def _epoch_s(batch: Callable[[npt.NDArray[np.intp]], Batch], order: npt.NDArray[np.intp]) -> float:
    start = time.perf_counter()
    for first in range(0, len(order), BATCH):
        batch(order[first : first + BATCH])
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
