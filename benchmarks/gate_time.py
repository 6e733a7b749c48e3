"""How long does the gate take? EfficientNet-Lite0 as int8 on every installed runtime, 300 photos at 224 pixels.

The head is of chance and the photos are blotches, since neither changes the time. Once as for a run that kept its
held-out photos to itself, once with a twin, as for a model that learned from all.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks import report
from benchmarks.report import Claim, Result

LABELS, CALIBRATION, HELD_OUT = 5, 20, 0.2
MOST_S = 90.0
ROW = ("runtime", "version", "kernels", "deciding", "n_agreement", "ms", "rss_mib")


def main() -> None:
    """The command."""
    options = report.parser("gate_time", __doc__)
    options.add_argument("--photos", type=int, default=300, help="how many; default 300")
    options.add_argument("--side", type=int, default=224, help="of the input; default 224")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    from trainer import gate
    from trainer.quiet import silence

    silence()
    report.say("making the model ...")
    photos = np.stack([_photo(options.side, i) for i in range(options.photos)])
    network = _network(options.side)
    model, stack, held = (scratch / name for name in ("model.tflite", "photos.npy", "held.npy"))
    model.write_bytes(_int8(network, photos[:CALIBRATION]))
    reference, holdout = _answers(network, photos), np.arange(0, options.photos, round(1 / HELD_OUT))
    np.save(stack, photos)
    np.save(held, photos[holdout])
    about = gate.About(float_model=lambda pixels: _answers(network, pixels))
    spent_s: dict[str, float] = {}
    detail: dict[str, Any] = {}
    for name, twin in {"alone": None, "with a twin": gate.Twin(model, held, reference[holdout])}.items():
        report.say(f"the gate, {name} ...")
        start, used_s = time.perf_counter(), _children_s()
        verdict = gate.judge(
            model, stack, reference, reference.argmax(axis=1), holdout, gate.Limits(), twin, about=about
        )  # fmt: skip
        spent_s[name] = time.perf_counter() - start
        rows = [{column: asdict(row)[column] for column in ROW} for row in verdict.rows]
        detail[name] = {"processor seconds of the children": _children_s() - used_s, "rows": rows}
    what = f"the gate on {options.photos} photos at {options.side} pixels, every installed runtime"
    claims = [Claim(f"{what}, {name}", seconds, "s", most=MOST_S) for name, seconds in spent_s.items()]
    settings = {"photos": options.photos, "side": options.side, "held_out": len(holdout)}
    return Result("gate_time", claims, settings, detail)


def _children_s() -> float:
    """Processor time of all children that ended. Other work on the machine does not make it much longer."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _photo(side: int, number: int) -> npt.NDArray[np.uint8]:
    blotches = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blotches).resize((side, side), Image.Resampling.BICUBIC), np.uint8)


def _network(side: int) -> Any:
    from trainer import model
    from trainer.photos import Network
    from trainer.settings import HEAD_ONLY, Settings

    settings = Settings(backbone="efficientnet-lite0", learn=HEAD_ONLY, side=side)
    return model.classifier(Network(settings)(), settings, LABELS)


def _answers(network: Any, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.asarray(network.predict(photos, batch_size=16, verbose=0), np.float32)


def _int8(network: Any, photos: npt.NDArray[np.uint8]) -> bytes:
    from trainer import quantize

    def inputs() -> Iterator[npt.NDArray[np.uint8]]:
        for photo in photos:
            yield photo[np.newaxis]

    return quantize.int8(network, inputs())


if __name__ == "__main__":
    main()
