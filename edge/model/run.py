"""Run a model over many photos in a child process of its own.

The gate, the golden check at installation and ``evaluate`` all ask this one child, because a runtime that crashes
must not take its caller along, and because ``tflite_runtime`` cannot live beside TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.errors import FieldmarkError, ModelError
from edge.model import runtime as runtimes


@dataclass(frozen=True)
class Answers:
    """What one runtime said of a stack of photos.

    Attributes:
        logits: float32, shape (n, C).
        ms: median milliseconds of one ``invoke`` on one thread.
        rss_mib: the child's peak resident memory.
        runtime, version, architecture, kernels: where it ran.
        output_step: distance of neighbouring logits, 0 for float models.
    """

    logits: npt.NDArray[np.float32]
    ms: float
    rss_mib: float
    runtime: str
    version: str
    architecture: str
    kernels: str
    output_step: float


def in_child(
    model: Path, pixels: Path, *, runtime: str, kernels: str = "default", timeout_s: float = 3600.0
) -> Answers:
    """Run ``model`` over all photos in ``pixels`` in a child process.

    Args:
        model: a ``.tflite`` file.
        pixels: an ``.npy`` file, uint8 (n, H, W, 3).

    Raises:
        ModelError: the child crashed, ran out of time, or refused the model; with its last line.
    """
    with tempfile.TemporaryDirectory(prefix="fieldmark-run-") as folder:
        out = Path(folder) / "answers.npz"
        # -P and cwd "/": a folder of photos that holds a numpy.py must not be imported.
        command = [sys.executable, "-P", "-m", "edge.model.run", str(model.resolve()), str(pixels.resolve())]
        command += ["--runtime", runtime, "--kernels", kernels, "--out", str(out)]
        try:
            done = subprocess.run(command, cwd="/", capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"{runtime} gave no answer within {timeout_s:.0f} s.", code="timeout") from error
        if done.returncode != 0 or not out.is_file():
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise ModelError(lines[-1] if lines else f"{runtime} died with status {done.returncode}.", code="child")
        with np.load(out, allow_pickle=False) as answers:
            facts = json.loads(str(answers["facts"]))
            return Answers(logits=answers["logits"], **facts)


def main() -> None:
    """The child."""
    parser = argparse.ArgumentParser(prog="python -m edge.model.run")
    parser.add_argument("model", type=Path)
    parser.add_argument("pixels", type=Path)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--kernels", default="default")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        logits, facts = _run(options.model, options.pixels, options.runtime, options.kernels)
    except FieldmarkError as error:
        sys.exit(str(error))
    np.savez(options.out, logits=logits, facts=np.array(json.dumps(facts)))


def _run(
    model_path: Path, pixels_path: Path, runtime: str, kernels: str
) -> tuple[npt.NDArray[np.float32], dict[str, object]]:
    model = runtimes.Model(model_path, runtime=runtime, kernels=kernels)
    logits, spent_ms = [], []
    for pixels in _photos(pixels_path):
        start = time.perf_counter()
        logits.append(model.logits(pixels))
        spent_ms.append((time.perf_counter() - start) * 1e3)
    version = next(r.version for r in runtimes.installed() if r.name == runtime)
    return np.stack(logits), {
        "ms": float(np.median(spent_ms)),
        "rss_mib": _peak_mib(),
        "runtime": runtime,
        "version": version,
        "architecture": platform.machine(),
        "kernels": kernels,
        "output_step": model.output_step,
    }


def _photos(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """The photos of an ``.npy`` stack, uint8 (h, w, 3), one at a time: mapped pages would count as memory used."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
        for _ in range(shape[0]):
            yield np.fromfile(file, dtype, math.prod(shape[1:])).reshape(shape[1:])


def _peak_mib() -> float:
    """Peak resident memory. Not ``ru_maxrss`` where it can be helped: Linux lets it start at the parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
