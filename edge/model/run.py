"""Run a model over many photos in a child process of its own.

The gate, the golden check at installation and ``evaluate`` all ask this one child, because a runtime that crashes
must not take its caller along, and because ``tflite_runtime`` cannot live beside TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.errors import FieldmarkError, ModelError
from edge.model import runtime as runtimes
from edge.model.interpreter import Model

_LOAD_STATUS = 66
"""The child's exit status where the runtime cannot load the model, which is no crash."""


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
    model: Path,
    pixels: Path,
    *,
    runtime: str,
    kernels: str = "default",
    photos: Sequence[int] | None = None,
    keep_not_finite: bool = False,
    timeout_s: float = 3600.0,
    python: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Answers:
    """Run ``model`` over the photos in ``pixels`` in a child process.

    Args:
        model: a ``.tflite`` file.
        pixels: an ``.npy`` file, uint8 (n, H, W, 3).
        photos: which of them, in the order of the answers; all if None.
        keep_not_finite: an answer that is not finite becomes a row of NaN. Otherwise it ends the child.
        python: the command of a Python to run in, such as one of another architecture under an emulator; this one if
            None.
        environment: variables that it needs besides ours.

    Raises:
        ModelError: the child refused the model or crashed, with its last line, or ran out of time. The code is ``load``
            where the runtime cannot load the model, ``timeout``, or ``child``.
    """
    with tempfile.TemporaryDirectory(prefix="fieldmark-run-") as folder:
        out = Path(folder) / "answers.npz"
        # -P and cwd "/": a folder of photos that holds a numpy.py must not be imported.
        command = [*(python or (sys.executable,)), "-P", "-m", "edge.model.run", str(model.resolve())]
        command += [str(pixels.resolve()), "--runtime", runtime, "--kernels", kernels, "--out", str(out)]
        command += ["--keep-not-finite"] * keep_not_finite
        if photos is not None:
            np.save(Path(folder) / "photos.npy", np.asarray(photos, np.int64))
            command += ["--photos", str(Path(folder) / "photos.npy")]
        variables = {**os.environ, **(environment or {})}
        try:
            done = subprocess.run(command, cwd="/", env=variables, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"{runtime} gave no answer within {timeout_s:.0f} s.", code="timeout") from error
        if done.returncode != 0 or not out.is_file():
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            code = "load" if done.returncode == _LOAD_STATUS else "child"
            raise ModelError(lines[-1] if lines else f"{runtime} died with status {done.returncode}.", code=code)
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
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--keep-not-finite", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        logits, facts = _run(options)
    except FieldmarkError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_LOAD_STATUS if error.code == "load" else 1)
    np.savez(options.out, logits=logits, facts=np.array(json.dumps(facts)))


def _run(options: argparse.Namespace) -> tuple[npt.NDArray[np.float32], dict[str, object]]:
    model = Model(options.model, runtime=options.runtime, kernels=options.kernels)
    photos = None if options.photos is None else np.load(options.photos, allow_pickle=False).tolist()
    logits, spent_ms = [], []
    for pixels in _photos(options.pixels, photos):
        start = time.perf_counter()
        logits.append(_answer(model, pixels, options.keep_not_finite))
        spent_ms.append((time.perf_counter() - start) * 1e3)
    version = next(r.version for r in runtimes.installed() if r.name == options.runtime)
    return np.stack(logits), {
        "ms": float(np.median(spent_ms)),
        "rss_mib": _peak_mib(),
        "runtime": options.runtime,
        "version": version,
        "architecture": platform.machine(),
        "kernels": options.kernels,
        "output_step": model.output_step,
    }


def _answer(model: Model, pixels: npt.NDArray[np.uint8], keep_not_finite: bool) -> npt.NDArray[np.float32]:
    try:
        return model.logits(pixels)
    except ModelError as error:
        if not keep_not_finite or error.code != "not finite":
            raise
        return np.full(model.classes, np.nan, np.float32)


def _photos(path: Path, chosen: Sequence[int] | None) -> Iterator[npt.NDArray[np.uint8]]:
    """Photos of an ``.npy`` stack, uint8 (h, w, 3), one at a time: mapped pages would count as memory used."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
        first, size = file.tell(), math.prod(shape[1:])
        for i in range(shape[0]) if chosen is None else chosen:
            if not 0 <= i < shape[0]:
                raise ModelError(f"photo {i} was asked for, {path} has {shape[0]}.")
            file.seek(first + i * size * dtype.itemsize)
            yield np.fromfile(file, dtype, size).reshape(shape[1:])


def _peak_mib() -> float:
    """Peak resident memory. Not ``ru_maxrss`` where it can be helped: Linux lets it start at the parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
