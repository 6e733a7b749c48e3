"""How many calibration photos int8 needs: agreement with the float model, distance, and time, for 25 to 200 photos.

Run ``python -m benchmarks.calibration RUN`` on a run that ``fieldmark train`` wrote.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from edge.model import run as child
from edge.model import runtime
from trainer import quantize, run
from trainer.export.material import load_model, photos_of
from trainer.progress import Steps
from trainer.quiet import silence


def main() -> None:
    """Print a line per number of photos and runtime."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[25, 50, 100, 200])
    options = parser.parse_args()
    silence()
    trained = run.read(options.run)
    data = photos_of(trained, Steps(quiet=True))
    model = load_model(trained.model_path)
    with tempfile.TemporaryDirectory() as scratch:
        stack, file = Path(scratch) / "photos.npy", Path(scratch) / "model.tflite"
        data.stack.save(stack, np.arange(len(data)))
        wanted = model.predict(np.load(stack, mmap_mode="r"), batch_size=16, verbose=0)
        for count in options.counts:
            chosen = quantize.calibration(
                data.truth, data.learned, 0, count, stations=data.stations, infrared=data.infrared
            )
            start = time.perf_counter()
            file.write_bytes(quantize.int8(model, quantize.representative(data.stack, chosen)))
            spent_s = time.perf_counter() - start
            for installed in runtime.installed():
                answers = child.in_child(file, stack, runtime=installed.name)
                agreement = float((answers.logits.argmax(axis=1) == wanted.argmax(axis=1)).mean())
                distance = float(np.sqrt(((answers.logits - wanted) ** 2).mean()) / wanted.std())
                print(
                    f"{len(chosen):4d} photos {spent_s:6.1f} s  {installed.name:16} agreement {agreement:.1%} "
                    f"distance {distance:.1%}"
                )


if __name__ == "__main__":
    main()
