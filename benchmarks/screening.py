"""Which frozen network, input side and pooling? Every setting in grouped folds of real camera-trap photos.

Each photo is answered by a probe that saw neither it nor its burst: 5 folds that never cut a hand-marked group, the
regularisation chosen on inner folds by the trainer's own :func:`trainer.probe.choose`, repeated with several
assignments to folds. A setting's gain is counted in photos against the first one, photo by photo; its standard error is
the square root of the sum of the squared differences, which for one assignment is the square root of the number of
photos on which the two disagree. The best of many settings is best partly by luck, so one more row lets the inner
folds choose among all of them in each outer fold: what the choice itself is worth.

For some settings the int8 model is measured too: all heads of all folds are put side by side behind one quantized
backbone, so that each photo is again answered by a head that never saw it. Calibration sees all photos, never a label.

Web thumbnails are told apart from camera files by their size alone, and all photos of one label and none of another are
thumbnails, so the camera's own photos are also reported by themselves.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks import material, report
from benchmarks.near_duplicates import MARKED
from benchmarks.report import Claim, Result
from edge import photo as photos
from edge.model import run as child
from edge.model import runtime
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec
from trainer.dataset import split

if TYPE_CHECKING:
    import keras

    from trainer.probe import Head

FOLDS = 5
TIMED_PHOTOS, TIMED_ROUNDS = 20, 5
INNER_SEED = 100
LEAST_DEFAULT, LEAST_BEST = 0.92, 0.94
OWN_SOURCE = "camera_or_phone"

Floats = npt.NDArray[np.float32]
Right = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """One way to make features; ``pooling`` is ``avg`` or ``avg+max``, ``int8`` whether that model is measured too."""

    backbone: str
    side: int
    pooling: str = "avg"
    int8: bool = False

    def __str__(self) -> str:
        return f"{self.backbone} {self.side} {self.pooling}"


BASE = Setting("efficientnet-lite0", 320, int8=True)
SETTINGS = (
    BASE,
    *(Setting("efficientnet-lite0", side) for side in (224, 384, 448)),
    Setting("efficientnet-lite0", 320, "avg+max"),
    *(Setting("efficientnet-lite1", side, int8=side in (320, 384, 448)) for side in (320, 352, 384, 416, 448)),
    Setting("efficientnet-lite1", 384, "avg+max"),
    *(Setting("efficientnet-lite2", side, int8=side == 384) for side in (320, 384, 448, 512)),
    Setting("efficientnet-lite2", 384, "avg+max"),
)


@dataclass(frozen=True)
class Photos:
    """The photos in the order of the table: n files, label numbers, group numbers, whether a camera's own file."""

    files: list[Path]
    labels: npt.NDArray[np.intp]
    groups: split.Indices
    own: npt.NDArray[np.bool_]
    classes: int


@dataclass(frozen=True)
class Folded:
    """What the folds of S assignments gave.

    Attributes:
        logits: float32 (S, n, C), each photo's from the head that did not see its group.
        heads: S × FOLDS of them.
        folds: S × FOLDS arrays of indices: whom each head did not see.
        strengths: S × FOLDS chosen strengths.
        inner_losses: float (S, FOLDS): the log loss on the inner folds that each choice was made by.
    """

    logits: Floats
    heads: list[list[Head]]
    folds: list[list[split.Indices]]
    strengths: list[list[float]]
    inner_losses: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quantized:
    """The int8 model: its file with all heads, float32 logits (S, n, C), and its size with one head."""

    file: Path
    logits: Floats
    megabytes: float


def main() -> None:
    """The command."""
    options = report.parser("screening", __doc__)
    material.add_data_option(options)
    options.add_argument("--seeds", type=int, default=3, help="assignments to folds; default 3")
    options.add_argument("--no-int8", action="store_true", help="float models alone, which takes a third of the time")
    chosen = options.parse_args()
    if chosen.save and (chosen.no_int8 or chosen.seeds < 3):
        options.error("what is kept has int8 and 3 seeds or more: leave out --no-int8 and --seeds")
    from trainer.quiet import silence

    silence()
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    data = _photos(material.trailcam(options.data))
    rows: list[dict[str, Any]] = []
    found: dict[Setting, Folded] = {}
    int8: dict[Setting, Path] = {}
    for setting in SETTINGS:
        report.say(f"{setting} ...")
        stack = _stack(data, setting.side, scratch)
        features, float_ms = _features(setting, stack, scratch)
        folded = found[setting] = _folded(features, data, options.seeds)
        row = _row(setting, folded, found[BASE], data) | {"float_ms": float_ms}
        if setting.int8 and not options.no_int8:
            quantized = _quantized(setting, folded, data, stack, scratch)
            int8[setting] = quantized.file
            row |= _int8_row(folded, quantized, data)
        rows.append(row)
        report.say("  " + ", ".join(f"{name} {value}" for name, value in row.items()))
    for setting, ms in _times_ms(int8, scratch).items():
        next(row for row in rows if row["setting"] == str(setting))["int8_ms"] = ms
    chosen = _chosen_inside(found, data)
    settings = {"folds": FOLDS, "seeds": options.seeds, "groups": MARKED, "base": str(BASE), "threads": 1}
    detail = {"photos": len(data.labels), "own": int(data.own.sum()), "rows": rows, "chosen_on_inner_folds": chosen}
    return Result("screening", _claims(rows, chosen, len(data.labels)), settings, detail)


def _photos(labels: Path) -> Photos:
    with labels.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["label"] for row in rows})
    return Photos(
        files=[labels.parent / row["file"] for row in rows],
        labels=np.array([names.index(row["label"]) for row in rows], dtype=np.intp),
        groups=np.unique([row[MARKED] for row in rows], return_inverse=True)[1].astype(np.intp),
        own=np.array([row["name_source"] == OWN_SOURCE for row in rows]),
        classes=len(names),
    )


def _stack(data: Photos, side: int, scratch: Path) -> Path:
    """The photos as the device would see them, uint8 (n, side, side, 3), in one file."""
    path = scratch / f"{side}.npy"
    if not path.exists():
        spec = InputSpec(side, side)
        opened = (photos.open_image(photos.read(file).data, file.name) for file in data.files)
        np.save(path, np.stack([to_pixels(image, spec) for image in opened]))
    return path


def _pooled(setting: Setting) -> keras.Model:
    """Pixels to pooled features, float32."""
    import keras

    from trainer.backbones import backbone

    network = backbone(setting.backbone).build(setting.side, setting.side)
    pooled = keras.layers.GlobalAveragePooling2D()(network.output)
    if setting.pooling == "avg+max":
        pooled = keras.layers.Concatenate()([pooled, keras.layers.GlobalMaxPooling2D()(network.output)])
    return keras.Model(network.input, pooled)


def _features(setting: Setting, stack: Path, scratch: Path) -> tuple[Floats, float]:
    """float32 (n, F), and what one photo takes in float32, ms: the float network on XNNPACK, in a child."""
    from trainer.frozen import convert

    model = scratch / "float.tflite"
    model.write_bytes(convert(_pooled(setting)))
    answers = child.in_child(model, stack, runtime=runtime.installed()[0].name)
    return answers.logits, answers.ms


def _folded(features: Floats, data: Photos, seeds: int) -> Folded:
    from trainer import probe

    logits = np.empty((seeds, len(features), data.classes), np.float32)
    heads: list[list[Head]] = [[] for _ in range(seeds)]
    strengths: list[list[float]] = [[] for _ in range(seeds)]
    folds, losses = [], np.empty((seeds, FOLDS))
    for seed in range(seeds):
        folds.append(split.folds(data.labels, data.groups, FOLDS, seed))
        for k, fold in enumerate(folds[seed]):
            rest = np.setdiff1d(np.arange(len(features)), fold)
            inner = split.folds(data.labels[rest], data.groups[rest], FOLDS, INNER_SEED + seed)
            choice = probe.choose(features[rest], data.labels[rest], data.classes, inner)
            head = probe.fit(features[rest], data.labels[rest], data.classes, choice.strength)
            logits[seed, fold] = head.logits(features[fold])
            losses[seed, k] = _loss(choice.logits, data.labels[rest])
            heads[seed].append(head)
            strengths[seed].append(choice.strength)
    return Folded(logits, heads, folds, strengths, losses)


def _quantized(setting: Setting, folded: Folded, data: Photos, stack: Path, scratch: Path) -> Quantized:
    import keras

    from trainer import quantize

    pooled = _pooled(setting)
    flat = [head for of_seed in folded.heads for head in of_seed]
    dense = keras.layers.Dense(data.classes * len(flat), dtype="float32")
    model = keras.Model(pooled.input, dense(pooled.output))
    dense.set_weights([np.hstack([head.kernel for head in flat]), np.concatenate([head.bias for head in flat])])
    pixels = np.load(stack, mmap_mode="r")
    chosen = quantize.calibration(data.labels, np.arange(len(data.labels)), seed=0)
    file = scratch / f"{setting}.tflite"
    file.write_bytes(quantize.int8(model, _calibration(pixels, chosen)))
    answers = child.in_child(file, stack, runtime=runtime.installed()[0].name)
    every = answers.logits.reshape(len(pixels), len(folded.heads), FOLDS, data.classes)
    logits = np.empty_like(folded.logits)
    for seed, folds in enumerate(folded.folds):
        for k, fold in enumerate(folds):
            logits[seed, fold] = every[fold, seed, k]
    surplus = dense.kernel.shape[0] * data.classes * (len(flat) - 1)
    return Quantized(file, logits, (file.stat().st_size - surplus) / 1e6)


def _calibration(pixels: npt.NDArray[np.uint8], chosen: split.Indices) -> Any:
    """As :func:`trainer.quantize.representative`: black and white first."""
    yield np.zeros((1, *pixels.shape[1:]), np.uint8)
    yield np.full((1, *pixels.shape[1:]), 255, np.uint8)
    for i in chosen:
        yield pixels[i][np.newaxis]


def _right(logits: Floats, labels: npt.NDArray[np.intp]) -> Right:
    """For each photo, in how many of the assignments it was right, 0 to 1."""
    return np.asarray((logits.argmax(axis=2) == labels).mean(axis=0), np.float64)


def _loss(logits: Floats, labels: npt.NDArray[np.intp]) -> float:
    """Mean log loss; logits (n, C)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]).mean())


def _paired(right: Right, other: Right) -> tuple[float, float]:
    """Gain in photos over another, and its standard error."""
    difference = right - other
    return float(difference.sum()), float(np.sqrt((difference**2).sum()))


def _row(setting: Setting, folded: Folded, base: Folded, data: Photos) -> dict[str, Any]:
    from trainer.backbones import backbone

    right = _right(folded.logits, data.labels)
    gain, error = _paired(right, _right(base.logits, data.labels))
    by_seed = (folded.logits.argmax(axis=2) == data.labels).mean(axis=1)
    strengths = Counter(strength for of_seed in folded.strengths for strength in of_seed)
    return {
        "setting": str(setting),
        "accuracy": float(right.mean()),
        "by_seed": [round(float(each), 4) for each in by_seed],
        "own": float(right[data.own].mean()),
        "log_loss": float(np.mean([_loss(logits, data.labels) for logits in folded.logits])),
        "gain_photos": gain,
        "gain_error": error,
        "strengths": {f"{strength:g}": count for strength, count in sorted(strengths.items())},
        "parameters": backbone(setting.backbone).parameters,
    }


def _times_ms(files: dict[Setting, Path], scratch: Path) -> dict[Setting, float]:
    """What one photo takes on one thread: the models in turns, so that the machine's other work meets all."""
    if files:
        report.say("timing the int8 models in turns ...")
    name, few = runtime.installed()[0].name, scratch / "few.npy"
    rounds: dict[Setting, list[float]] = {setting: [] for setting in files}
    for _ in range(TIMED_ROUNDS):
        for setting, file in files.items():
            np.save(few, np.load(scratch / f"{setting.side}.npy", mmap_mode="r")[:TIMED_PHOTOS])
            rounds[setting].append(child.in_child(file, few, runtime=name).ms)
    return {setting: statistics.median(each) for setting, each in rounds.items()}


def _int8_row(folded: Folded, quantized: Quantized, data: Photos) -> dict[str, Any]:
    right = _right(quantized.logits, data.labels)
    gain, error = _paired(right, _right(folded.logits, data.labels))
    return {
        "int8_accuracy": float(right.mean()),
        "int8_own": float(right[data.own].mean()),
        "int8_gain_photos": gain,
        "int8_gain_error": error,
        "int8_agreement": float((quantized.logits.argmax(axis=2) == folded.logits.argmax(axis=2)).mean()),
        "int8_megabytes": quantized.megabytes,
    }


def _chosen_inside(found: dict[Setting, Folded], data: Photos) -> dict[str, Any]:
    """In each outer fold the setting whose inner log loss is the smallest, and how right these choices are."""
    settings, every = list(found), list(found.values())
    best = np.array([each.inner_losses for each in every]).argmin(axis=0)  # (S, FOLDS)
    logits = np.empty_like(every[0].logits)
    for seed, folds in enumerate(every[0].folds):
        for k, fold in enumerate(folds):
            logits[seed, fold] = every[best[seed, k]].logits[seed, fold]
    right = _right(logits, data.labels)
    gain, error = _paired(right, _right(found[BASE].logits, data.labels))
    return {
        "accuracy": float(right.mean()),
        "own": float(right[data.own].mean()),
        "gain_photos": gain,
        "gain_error": error,
        "chosen": {str(settings[i]): int(count) for i, count in sorted(Counter(best.ravel().tolist()).items())},
    }


def _claims(rows: Sequence[dict[str, Any]], chosen: dict[str, Any], count: int) -> list[Claim]:
    from trainer.backbones import BACKBONES, DEFAULT

    default = str(Setting(DEFAULT, BACKBONES[DEFAULT].train_side))
    claims = []
    for row in rows:
        what = f"right in grouped folds, {count} photos, frozen {row['setting']}"
        claims.append(Claim(what, row["accuracy"], "%", least=LEAST_DEFAULT if row["setting"] == default else None))
        if "int8_accuracy" in row:
            claims.append(Claim(f"{what}, int8", row["int8_accuracy"], "%"))
    what = f"right in grouped folds, {count} photos, frozen, setting chosen on inner folds"
    return [*claims, Claim(what, chosen["accuracy"], "%", least=LEAST_BEST)]


if __name__ == "__main__":
    main()
