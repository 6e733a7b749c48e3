"""Beside the tutorial that this project grew from: its training loop, timed per step, and ``fieldmark train``.

The tutorial freezes VGG16, puts Flatten and Dense on it, and runs its photos through all of it in every epoch, with
shear, zoom and flips drawn by ``ImageDataGenerator``: 5 epochs of 925 photos and 200 to validate, batches of 32,
224 x 224. Its weights are random here, which changes no time. A few steps are timed and the rest is worked out.
``fieldmark train`` runs whole, from photos to report, as a person types it, with nothing cached from before: once with
the probe alone and once fine-tuned; both are measured on groups of near-duplicates that were held out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import material, report
from benchmarks.report import Claim, Result
from benchmarks.trailcam import Command, Ended

EPOCHS, TRAIN_PHOTOS, VALIDATION_PHOTOS, BATCH, SIDE = 5, 925, 200, 32, 224
PROBE_TIMES, PROBE_RIGHT, TUNED_TIMES, TUNED_RIGHT = 30.0, 0.94, 4.0, 0.97
TRAIN = ("--image-size", str(SIDE))


def main() -> None:
    """The command."""
    options = report.parser("tutorial", __doc__)
    material.add_data_option(options)
    options.add_argument("--steps", type=int, default=6, help="of the tutorial's loop that are timed")
    options.add_argument("--loop", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.loop:
        print(json.dumps(_loop(chosen.loop, chosen.steps)))
        return
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    photos = options.data / "weather"
    if not photos.is_dir():
        sys.exit(f"there is no {photos}. Name the folder of real photos with --data or {material.DATA_VARIABLE}.")
    tutorial = _timed_loop(photos, options.steps, scratch)
    fieldmark = Command(scratch / "probe")
    probe = fieldmark("train", photos, "--out", scratch / "run-probe", *TRAIN, "--probe-only")
    tuned = Command(scratch / "tuned")("train", photos, "--out", scratch / "run-tuned", *TRAIN, "--keep", "fine-tuned")
    detail = {"tutorial": tutorial, "probe": _told(probe), "fine_tuned": _told(tuned)}
    whole_s = tutorial["whole_s"]
    claims = [
        Claim("the tutorial's loop, worked out from its steps", whole_s, "s"),
        Claim("fieldmark train --probe-only, photos to report", probe.wall_s, "s"),
        Claim("times as quick as the tutorial", whole_s / probe.wall_s, "×", least=PROBE_TIMES),
        Claim("right of the held-out photos", probe.told["holdout"]["accuracy"], "%", least=PROBE_RIGHT),
        Claim("fieldmark train with fine-tuning, photos to report", tuned.wall_s, "s"),
        Claim("times as quick as the tutorial", whole_s / tuned.wall_s, "×", least=TUNED_TIMES),
        Claim("right of the held-out photos, fine-tuned", tuned.told["holdout"]["accuracy"], "%", least=TUNED_RIGHT),
    ]
    return Result("tutorial", claims, {"side": SIDE, "steps_timed": options.steps}, detail)


def _told(ended: Ended) -> dict[str, Any]:
    told = ended.told
    found = {name: told[name] for name in ("kept", "validation", "question", "questions")}
    return {"wall_s": ended.wall_s, "steps_s": ended.steps_s, "n": told["holdout"]["n"], **found}


def _timed_loop(photos: Path, steps: int, scratch: Path) -> dict[str, float]:
    """The tutorial in a process of its own, as every run of ``fieldmark`` is."""
    report.say(f"the tutorial's loop, {steps} steps ...")
    command = material.python("benchmarks.tutorial", "--loop", photos, "--steps", str(steps))
    done = subprocess.run(
        command, cwd="/", env=material.environment(scratch), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the tutorial's loop failed: {done.stderr.strip()[-400:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    report.say(f"  {found['step_s']:.1f} s a step, {found['whole_s']:.0f} s in all")
    return found


def _loop(photos: Path, steps: int) -> dict[str, float]:
    """As the tutorial has it, without its progress bar."""
    import keras
    import tensorflow as tf

    generator = tf.keras.preprocessing.image.ImageDataGenerator
    size = {"target_size": (SIDE, SIDE), "batch_size": BATCH, "class_mode": "categorical", "seed": 0}
    train = generator(rescale=1 / 255, shear_range=0.2, zoom_range=0.2, horizontal_flip=True)
    batches = train.flow_from_directory(str(photos), **size)
    validation = generator(rescale=1 / 255).flow_from_directory(str(photos), **size)
    base = keras.applications.VGG16(input_shape=(SIDE, SIDE, 3), weights=None, include_top=False)
    base.trainable = False
    x = keras.layers.Flatten()(base.output)
    model = keras.Model(base.input, keras.layers.Dense(batches.num_classes, activation="softmax")(x))
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    step_s = _median_s(lambda: model.train_on_batch(*next(batches)), steps)
    validation_s = _median_s(lambda: model.test_on_batch(*next(validation)), max(2, steps // 2))
    per_epoch_s = -(-TRAIN_PHOTOS // BATCH) * step_s + -(-VALIDATION_PHOTOS // BATCH) * validation_s
    return {"step_s": step_s, "validation_step_s": validation_s, "whole_s": EPOCHS * per_epoch_s}


def _median_s(step: Any, count: int) -> float:
    step()  # the first one compiles
    times = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return report.spread(times)["median"]


if __name__ == "__main__":
    main()
