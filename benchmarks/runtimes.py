"""What does the choice of the runtime cost? One bundle on each installed runtime, a process each, in turns.

Each process times the answer to pixels that are ready, and the way from a JPEG in memory to a label as
``fieldmark classify`` takes it. The processes take turns several times, so that what else the machine does meets all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import drawn, material, report
from benchmarks.report import Claim, Result
from edge.model import bundle as bundles
from edge.model import runtime
from edge.model.classify import Classifier

REAL_PHOTOS = 60
BIG, REAL = "drawn 12-megapixel photo to label", "real photos to label"


def main() -> None:
    """The command."""
    options = report.parser("runtimes", __doc__)
    material.add_data_option(options)
    material.add_bundle_option(options)
    options.add_argument("--side", type=int, default=320, help="input side of the bundle that is trained; default 320")
    options.add_argument("--rounds", type=int, default=5, help="how often each runtime has its turn; default 5")
    options.add_argument("--child", help=argparse.SUPPRESS)
    options.add_argument("--photos", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        print(json.dumps(_time(chosen)))
        return
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    bundle = material.bundle(options, scratch, options.side)
    photos = scratch / "photos"
    photos.mkdir()
    (photos / "drawn.jpg").write_bytes(drawn.photo())
    names = [each.name for each in runtime.installed()]
    rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(options.rounds):
        for name in names if number % 2 else reversed(names):
            report.say(f"round {number + 1} of {options.rounds}: {name} ...")
            rounds[name].append(_child(bundle, name, photos, options.data, scratch))
    manifest = bundles.open_bundle(bundle).manifest
    settings = {"input": manifest.input.width, "threads": 1, "rounds": options.rounds}
    detail = {name: _summary(each) for name, each in rounds.items()}
    claims = [
        Claim(f"{what}: {slow} against {fast}", _ratio(rounds[slow], rounds[fast], what), "×")
        for fast, slow in itertools.pairwise(names)
        for what in rounds[fast][0]
    ]
    return Result("runtimes", claims, settings, detail)


def _summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    return {what: report.spread(each[what] for each in rounds) for what in rounds[0]}


def _ratio(slow: list[dict[str, float]], fast: list[dict[str, float]], what: str) -> float:
    """The median over rounds, each of which had both at nearly the same time."""
    return statistics.median(s[what] / f[what] for s, f in zip(slow, fast, strict=True))


def _child(bundle: Path, name: str, photos: Path, data: Path, scratch: Path) -> dict[str, float]:
    command = material.python("benchmarks.runtimes", "--child", name, "--bundle", bundle.resolve())
    command += ["--photos", str(photos), "--data", str(data.resolve())]
    done = subprocess.run(
        command, cwd="/", env=material.environment(scratch), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{name}: {done.stderr.strip()[-400:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _time(options: argparse.Namespace) -> dict[str, float]:
    """In the child: median milliseconds."""
    opened = bundles.open_bundle(options.bundle)
    classifier = Classifier(opened.model, opened.manifest, name=options.child)
    spec, big = classifier.spec, (options.photos / "drawn.jpg").read_bytes()
    pixels = np.random.default_rng(0).integers(0, 256, (spec.height, spec.width, 3), np.uint8)
    found = {
        "pixels to label": _median_ms([lambda: classifier.classify_pixels(pixels)] * 20),
        BIG: _median_ms([lambda: classifier.classify(big)] * 8),
    }
    if (options.data / "trailcam").is_dir():
        real = [photo.read_bytes() for photo in material.trailcam_photos(options.data, REAL_PHOTOS)]
        found[REAL] = _median_ms([_classify(classifier, data) for data in real])
    return found


def _classify(classifier: Classifier, data: bytes) -> Callable[[], object]:
    return lambda: classifier.classify(data)


def _median_ms(works: list[Callable[[], object]]) -> float:
    spent_ms = []
    for work in [works[0], *works]:
        start = time.perf_counter()
        work()
        spent_ms.append((time.perf_counter() - start) * 1e3)
    return statistics.median(spent_ms[1:])  # the first was the warm-up


if __name__ == "__main__":
    main()
