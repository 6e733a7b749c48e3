"""Training and export on real camera-trap photos: how long, how right, how much the int8 model loses.

Four commands, as a person types them, with a cache and keys of their own, so that cold is cold: ``train`` (probe and
fine-tuning), ``train --probe-only`` on the warm cache, ``export``, and ``train --folds`` for the accuracy in grouped
folds. Bursts and near-duplicates marked by hand are never divided. Takes about ten minutes on two cores; ``--quick``
tries the benchmark itself on few photos and says nothing about anything else.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import material, report
from benchmarks.near_duplicates import MARKED
from benchmarks.report import Claim, Result

MOST_COLD_S, MOST_WARM_S, MOST_MODEL_MB = 8 * 60.0, 20.0, 4.2
QUICK_PER_LABEL = 12
QUICK = ("--image-size", "96", "--epochs", "1", "--views", "1")
GATE_REFUSED = 1
_STEP = re.compile(r"(?P<name>\D+?)(, \d+)?: (?P<seconds>[\d.]+) s")


@dataclass(frozen=True)
class Ended:
    """A command that ended: its wall time, exit code, JSON, and what it said on standard error."""

    wall_s: float
    code: int
    told: dict[str, Any]
    said: tuple[str, ...]

    @property
    def steps_s(self) -> dict[str, float]:
        """The steps that it timed itself."""
        steps: dict[str, float] = {}
        for line in self.said:
            if match := _STEP.fullmatch(line):
                steps[match["name"]] = steps.get(match["name"], 0.0) + float(match["seconds"])
        return steps


class Command:
    """Runs ``fieldmark`` commands with a cache and keys of their own."""

    def __init__(self, scratch: Path) -> None:
        self._environment = material.environment(scratch)

    def __call__(self, name: str, *arguments: str | Path, may_fail: bool = False) -> Ended:
        """Run one to its end; what it says on the way is shown."""
        report.say(f"$ fieldmark {name} {' '.join(map(str, arguments))}")
        command = material.python("fieldmark", name, *arguments, "--json")
        start = time.perf_counter()
        with subprocess.Popen(
            command, cwd="/", env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            said = []
            for line in child.stderr or ():
                said.append(line.strip())
                report.say("  " + line.rstrip())
            told = (child.stdout.read() if child.stdout else "").strip()
        wall_s = time.perf_counter() - start
        if child.returncode and not may_fail:
            sys.exit(f"fieldmark {name} ended with {child.returncode}.")
        return Ended(wall_s, child.returncode, json.loads(told.splitlines()[-1]) if told else {}, tuple(said))


def main() -> None:
    """The command."""
    options = report.parser("trailcam", __doc__)
    material.add_data_option(options)
    options.add_argument("--quick", action="store_true", help="few photos, small input, one epoch; cannot be saved")
    chosen = options.parse_args()
    if chosen.quick and chosen.save:
        options.error("--quick measures nothing that may be kept: leave out --save")
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    labels = material.trailcam(options.data)
    if options.quick:
        labels = material.few(labels, QUICK_PER_LABEL, scratch / "few.csv")
    train = (labels, "--sequence-column", MARKED, *(QUICK if options.quick else ()))
    run, bundle, fieldmark = scratch / "trailcam", scratch / "trailcam.fmb", Command(scratch)
    cold = fieldmark("train", *train, "--out", run)
    warm = fieldmark("train", *train, "--out", scratch / "warm", "--probe-only")
    export = fieldmark("export", run, "--out", bundle, may_fail=True)
    gate = _gate(run, export)
    folds = fieldmark("train", *train, "--out", scratch / "folds", "--folds")
    detail = {
        "photos": sum(1 for _ in (run / "photos.csv").open()) - 1,
        "train_cold": _training(cold),
        "train_warm_probe_only": _training(warm),
        "grouped_folds": folds.told["grouped_folds"] | {"wall_s": folds.wall_s},
        "export": _export(export, bundle),
        "gate": gate,
    }
    return Result("trailcam", _claims(detail), {"quick": options.quick, "sequence_column": MARKED}, detail)


def _training(ended: Ended) -> dict[str, Any]:
    told = ended.told
    held = {name: told["holdout"][name] for name in ("accuracy", "macro_f1", "ece", "coverage")}
    return {"wall_s": ended.wall_s, "steps_s": ended.steps_s, "kept": told["kept"], "holdout": held}


def _export(ended: Ended, bundle: Path) -> dict[str, Any]:
    found = {"wall_s": ended.wall_s, "steps_s": ended.steps_s}
    if ended.code:
        return {**found, "refused": ended.said[-1]}
    return {**found, "model_bytes": ended.told["model_bytes"], "bundle_bytes": bundle.stat().st_size}


def _gate(run: Path, ended: Ended) -> list[dict[str, Any]]:
    """The gate's rows, which the run keeps also where no runtime passed."""
    if ended.code not in (0, GATE_REFUSED) or not (run / "gate.json").is_file():
        sys.exit(f"export ended with {ended.code} before the gate.")
    rows: list[dict[str, Any]] = json.loads((run / "gate.json").read_text(encoding="utf-8"))["gate"]
    return rows


def _claims(detail: dict[str, Any]) -> list[Claim]:
    folds, cold, warm = detail["grouped_folds"], detail["train_cold"], detail["train_warm_probe_only"]
    model_bytes = detail["export"].get("model_bytes")
    claims = [
        Claim(f"right in grouped folds, {name} model, {folds['n']} photos", folds.get(name), "%")
        for name in ("kept", "probe", "fine-tuned")
    ]
    claims += [
        Claim("training with fine-tuning, nothing cached", cold["wall_s"], "s", MOST_COLD_S),
        Claim("training again, probe only", warm["wall_s"], "s", MOST_WARM_S),
        Claim("size of the .tflite", model_bytes and model_bytes / 1e6, "MB", MOST_MODEL_MB),
        Claim("size of the bundle", model_bytes and detail["export"]["bundle_bytes"] / 1e6, "MB"),
    ]
    rows = detail["gate"]
    claims += [
        Claim(f"right of {row['n']} held-out photos, float model", row["accuracy_float"], "%") for row in rows[:1]
    ]
    for row in rows:
        what = f"int8 on {row['runtime']}"
        claims.append(Claim(f"right of {row['n']} held-out photos, {what}", row["accuracy"], "%"))
        claims.append(Claim(f"{what} agrees with float, of {row['n_agreement']} photos", row["agreement"], "%"))
    return claims


if __name__ == "__main__":
    main()
