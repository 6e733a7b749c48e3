"""Does memory stay flat from 300 photos to 30,000? Each number in a process of its own, with the peak of each step.

The photos are a few small drawings, each written many times with another time in EXIF, so that every file is another
photo. The steps are those of training: reading and decoding into the pixel cache, grouping, one epoch of shuffled
batches from the cache, and features of the frozen default network, for any number of photos on XNNPACK. Peaks are the
kernel's (VmHWM), reset before each step; anonymous memory is that behind which no file stands. Linux only. Takes about
six minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import drawn, material, report
from benchmarks.report import Claim, Result

COUNTS = (300, 3000, 30_000)
DRAWINGS, WIDTH, HEIGHT, SIDE, BATCH = 60, 320, 240, 96, 32
_DRAWN_TIME = b"2024:05:01 06:12:09"
_APART = timedelta(minutes=20)
"""So that no two photos are one burst, and a drawing comes again only on another day, as no near-duplicate."""
MOST_EPOCH_MB, MOST_HELD_MB = 20.0, 8.0


def main() -> None:
    """The command."""
    options = report.parser("flat_memory", __doc__)
    options.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of photos")
    options.add_argument("--child", nargs=2, metavar=("COUNT", "DIR"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        print(json.dumps(_steps(int(chosen.child[0]), Path(chosen.child[1]))))
        return
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    counts = sorted(options.counts)
    _write(counts[-1], scratch / "photos")
    found = {}
    for count in counts:
        report.say(f"{count} photos ...")
        found[count] = _child(count, scratch)
    least, most = found[counts[0]], found[counts[-1]]
    thousands = (counts[-1] - counts[0]) / 1000
    held = (most["epoch"]["left_anonymous_mb"] - least["epoch"]["left_anonymous_mb"]) / thousands
    features = (most["features"]["left_anonymous_mb"] - least["features"]["left_anonymous_mb"]) / thousands
    claims = [
        Claim(
            f"what an epoch of {count} photos adds to memory at its peak",
            facts["epoch"]["added_mb"],
            "MB",
            MOST_EPOCH_MB,
        )
        for count, facts in found.items()
    ]
    claims += [
        Claim("memory held for 1000 photos: names, labels, facts", held, "MB", MOST_HELD_MB),
        Claim("the same with their features", features, "MB"),
        Claim("what the pixels of 1000 photos would take", 1000 * SIDE * SIDE * 3 / 1e6, "MB"),
    ]
    settings = {"side": SIDE, "batch": BATCH, "drawings": DRAWINGS}
    return Result("flat_memory", claims, settings, {f"{count} photos": facts for count, facts in found.items()})


def _write(count: int, folder: Path) -> None:
    report.say(f"drawing, and writing {count} files ...")
    folder.mkdir()
    drawings = [drawn.photo(WIDTH, HEIGHT, seed) for seed in range(DRAWINGS)]
    first = datetime(2024, 5, 1)
    for i in range(count):
        taken = (first + i * _APART).strftime("%Y:%m:%d %H:%M:%S").encode()
        (folder / f"{i:05d}.jpg").write_bytes(drawings[i % DRAWINGS].replace(_DRAWN_TIME, taken))


def _child(count: int, scratch: Path) -> dict[str, dict[str, float]]:
    environment = material.environment(scratch) | {material.CACHE_VARIABLE: str(scratch / f"cache{count}")}
    command = material.python("benchmarks.flat_memory", "--child", str(count), scratch / "photos")
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the child ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _steps(count: int, folder: Path) -> dict[str, dict[str, float]]:
    """What training does before and while it learns; peak memory in MB (10^6 bytes) and seconds of each step."""
    from edge.model.spec import InputSpec
    from trainer import features, pixels
    from trainer.backbones import DEFAULT, backbone
    from trainer.cache import cache_dir
    from trainer.dataset.samples import Sample
    from trainer.photos import group_photos

    found: dict[str, dict[str, float]] = {}
    samples = [Sample(folder / f"{i:05d}.jpg", f"{i:05d}.jpg", "drawn") for i in range(count)]
    decoded, bad, stack = _step(found, "reading", lambda: pixels.decode(samples, InputSpec(SIDE, SIDE), cache_dir()))
    assert not bad
    _step(found, "grouping", lambda: group_photos(decoded))
    _step(found, "epoch", lambda: _epoch(stack.batch, count))
    from trainer import frozen

    frozen.CONVERSION_PAYS_PIXELS = 0
    what, cache = features.Extraction(DEFAULT), cache_dir()
    _step(found, "features", lambda: features.pooled(lambda: backbone(DEFAULT).build(SIDE, SIDE), what, stack, cache))
    return found


def _epoch(batch: Callable[[Any], Any], count: int) -> float:
    order = np.random.default_rng(0).permutation(count)
    return sum(float(batch(order[start : start + BATCH]).mean()) for start in range(0, count, BATCH))


def _step(found: dict[str, dict[str, float]], name: str, work: Callable[[], Any]) -> Any:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    before, start = _memory_mb()["VmRSS"], time.perf_counter()
    result = work()
    after = _memory_mb()
    found[name] = {
        "peak_mb": after["VmHWM"],
        "added_mb": after["VmHWM"] - before,
        "left_anonymous_mb": after["RssAnon"],
        "seconds": time.perf_counter() - start,
    }
    return result


def _memory_mb() -> dict[str, float]:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.findall(r"^(Vm\w+|Rss\w+):\s+(\d+) kB", status, re.MULTILINE)
    return {name: int(kib) * 1024 / 1e6 for name, kib in found}


if __name__ == "__main__":
    main()
