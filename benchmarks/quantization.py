"""What converting a network for the device loses: backbone by backbone, variant by variant, on every runtime.

Real camera-trap photos in grouped folds. Each fold is answered by a probe on the frozen backbone that learned from the
other folds, as ``fieldmark train --probe-only`` does it, and by that model converted, with calibration photos from the
other folds too; so every photo is answered once by a model that never saw it. ``lost`` is the photos that float gets
right and the converted model wrong, minus the reverse. int8 is made twice: by the trainer's own recipe, and as the
converter alone makes it. The other variants lose so little that one fold of photos is asked of them.

EfficientNet-Lite0 is measured at 320 x 320, the others at the size that they were published with. A backbone whose
weights are not on this machine is measured with random ones: its size and speed are right, its losses say little.
``--weights BACKBONE=FILE`` names a file.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks import material, report
from benchmarks.near_duplicates import MARKED
from benchmarks.report import Claim, Result
from edge.errors import ModelError
from edge.model import run as child
from edge.model import runtime
from trainer import calibration, quantize
from trainer import photos as photos_of
from trainer.dataset import questions
from trainer.photos import Photos
from trainer.probe import Floats, Head
from trainer.progress import Steps
from trainer.settings import HEAD_ONLY, RANDOM, Settings

if TYPE_CHECKING:
    import keras

DEFAULT = "efficientnet-lite0"
BACKBONES = (DEFAULT, "mobilenetv2", "mobilenetv3-large", "resnet50")
SIDES = {DEFAULT: 320}
FOLDS = 5
MOST_MB, MOST_LOST, LEAST_AGREEMENT = 4.2, 0.005, 0.98

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Fold:
    """One fold: whom it holds, and the probe that learned from the others."""

    out: Rows
    known: Rows
    head: Head


@dataclass(frozen=True)
class Row:
    """One conversion on one runtime.

    Attributes:
        weights: ``imagenet``, ``random`` or ``file``.
        how: the recipe.
        n: photos asked.
        mb: of the ``.tflite``.
        convert_s: median time of a conversion.
        lost: photos; see above.
        agreement: share of photos with the float model's answer.
        distance: root mean square difference of the logits from the float model's, each photo's mean difference left
            out, as a share of the float logits' own spread.
        ms: median of one photo on one thread.
        fault: why the runtime did not run it.
    """

    backbone: str
    side: int
    weights: str
    variant: str
    how: str
    runtime: str
    n: int
    mb: float
    convert_s: float
    accuracy_float: float
    lost: int | None = None
    agreement: float | None = None
    distance: float | None = None
    ms: float | None = None
    fault: str | None = None


def main() -> None:
    """The command."""
    options = report.parser("quantization", __doc__)
    material.add_data_option(options)
    options.add_argument("--backbones", nargs="+", default=list(BACKBONES), help="default: all four")
    options.add_argument("--variants", nargs="+", default=list(quantize.VARIANTS), help="default: all four")
    options.add_argument("--weights", action="append", default=[], metavar="BACKBONE=FILE", help="may be repeated")
    options.add_argument("--add", action="store_true", help="keep the saved rows of other backbones and variants")
    options.add_argument("--table", action="store_true", help="measure nothing; print what was kept as Markdown")
    chosen = options.parse_args()
    if chosen.table:
        kept = json.loads((report.RESULTS / "quantization.json").read_text(encoding="utf-8"))
        print("\n".join(table(kept["detail"]["rows"])))
        return
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        os.environ.setdefault(material.CACHE_VARIABLE, str(Path(scratch) / "cache"))
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    from trainer.quiet import silence

    silence()
    files = dict(each.split("=", 1) for each in options.weights)
    rows = _kept(options) if options.add else []
    for name in options.backbones:
        for row in _of_backbone(name, files.get(name), options, scratch):
            report.say(_line(row))
            rows.append(row)
    rows.sort(key=lambda row: (*BACKBONES, row.backbone).index(row.backbone))
    settings = {"folds": FOLDS, "backbones": options.backbones, "variants": options.variants, "added": options.add}
    return Result("quantization", _claims(rows), settings, {"rows": [asdict(row) for row in rows]})


def _kept(options: argparse.Namespace) -> list[Row]:
    """What was saved before and is not measured now."""
    path = report.RESULTS / "quantization.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["detail"]["rows"] if path.is_file() else []
    rows = [Row(**each) for each in kept]
    return [row for row in rows if row.backbone not in options.backbones or row.variant not in options.variants]


def _of_backbone(name: str, file: str | None, options: argparse.Namespace, scratch: Path) -> Iterator[Row]:
    from trainer.backbones import backbone

    weights = file or ("imagenet" if backbone(name).weights_file() else RANDOM)
    side = SIDES.get(name, backbone(name).side)
    settings = Settings(backbone=name, side=side, weights=weights, learn=HEAD_ONLY, sequence_column=MARKED)
    steps = Steps(quiet=True)
    network = photos_of.Network(settings)
    photos = photos_of.read(photos_of.find(material.trailcam(options.data), settings, steps), settings, steps)
    photos = photos_of.with_features(photos, network, settings, steps)
    folds = _folds(photos, settings.seed)
    about = {"backbone": name, "side": side, "weights": "file" if file else "random" if weights == RANDOM else weights}
    for variant in options.variants:
        some = folds if variant == quantize.INT8 else folds[:1]
        for recipe in quantize.recipes(variant):
            yield from _of_recipe(network(), settings, photos, some, variant, recipe, about, scratch)


def _folds(photos: Photos, seed: int) -> list[Fold]:
    """The regularisation of each fold's probe is chosen in folds of the others."""
    from trainer import probe

    classes, every = len(photos.names), np.arange(len(photos.labels))
    found = []
    for out in _divided(photos, every, seed):
        known = np.setdiff1d(every, out)
        inner = [np.searchsorted(known, fold) for fold in _divided(photos, known, seed)]
        vectors, labels = photos.features[known], photos.labels[known]
        choice = probe.choose(vectors, labels, classes, inner, photos.questions[0].grouping[known])
        found.append(Fold(out, known, probe.fit(vectors, labels, classes, choice.strength)))
    return found


def _divided(photos: Photos, rows: Rows, seed: int) -> list[Rows]:
    return questions.folds(replace(photos.questions[0], learn=rows), photos.labels, FOLDS, seed)


def _of_recipe(
    network: keras.Model,
    settings: Settings,
    photos: Photos,
    folds: Sequence[Fold],
    variant: str,
    recipe: quantize.Recipe,
    about: dict[str, Any],
    scratch: Path,
) -> Iterator[Row]:
    from trainer import model as networks

    classifier = networks.working_copy(networks.classifier(network, settings, len(photos.names)))
    files, seconds = [], []
    for number, fold in enumerate(folds):
        networks.put_weights(classifier, {networks.LOGITS: [fold.head.kernel, fold.head.bias]})
        chosen = calibration.calibration(photos.labels, fold.known, 0, infrared=_infrared(photos))
        start = time.perf_counter()
        content = quantize.convert(
            classifier, variant, partial(calibration.representative, photos.stack, chosen), recipe=recipe
        )
        seconds.append(time.perf_counter() - start)
        files.append((scratch / f"{number}.tflite", scratch / f"{number}.npy"))
        files[-1][0].write_bytes(content)
        photos.stack.save(files[-1][1], fold.out)
    asked = np.concatenate([fold.out for fold in folds])
    wanted = np.concatenate([fold.head.logits(photos.features[fold.out]) for fold in folds])
    truth = photos.labels[asked]
    row = Row(
        **about,
        variant=variant,
        how=recipe.words,
        runtime="",
        n=len(asked),
        mb=files[0][0].stat().st_size / 1e6,
        convert_s=float(np.median(seconds)),
        accuracy_float=float((wanted.argmax(axis=1) == truth).mean()),
    )
    for installed in runtime.installed():
        yield _on_runtime(
            replace(row, runtime=f"{installed.name} {installed.version}"), installed.name, files, wanted, truth
        )


def _infrared(photos: Photos) -> npt.NDArray[np.bool_]:
    return np.array([photo.infrared for photo in photos.decoded], bool)


def _on_runtime(row: Row, name: str, files: Sequence[tuple[Path, Path]], wanted: Floats, truth: Rows) -> Row:
    try:
        answers = [child.in_child(model, pixels, runtime=name) for model, pixels in files]
    except ModelError as error:
        return replace(row, fault=str(error))
    found = np.concatenate([each.logits for each in answers])
    right, right_float = found.argmax(axis=1) == truth, wanted.argmax(axis=1) == truth
    difference, own = found - wanted, wanted - wanted.mean(axis=1, keepdims=True)
    difference = difference - difference.mean(axis=1, keepdims=True)
    return replace(
        row,
        lost=int((right_float & ~right).sum()) - int((right & ~right_float).sum()),
        agreement=float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean()),
        distance=float(difference.std() / own.std()),
        ms=float(np.median([each.ms for each in answers])),
    )


def _line(row: Row) -> str:
    head = f"{row.backbone} {row.side} px, {row.weights} weights, {row.variant} ({row.how}), {row.runtime}: "
    if row.fault is not None:
        return head + row.fault
    return head + (
        f"{row.mb:.2f} MB, lost {row.lost} of {row.n}, agreement {row.agreement:.1%}, "
        f"distance {row.distance:.1%}, {row.ms:.1f} ms"
    )


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows as Markdown."""
    lines = [
        "| backbone | weights | variant: how | MB | runtime | n | float right | lost | agreement | distance | ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        made = f"{row['variant']}: {row['how']} | {row['mb']:.2f}"
        first = f"| {row['backbone']}, {row['side']} px | {row['weights']} | {made} "
        first += f"| {row['runtime']} | {row['n']} | {row['accuracy_float']:.1%} "
        if row["fault"] is not None:
            lines.append(first + "| cannot load it | | | |")
            continue
        share = row["lost"] / row["n"]
        ms = "-" if row["ms"] is None else f"{row['ms']:.1f}"
        figures = f"{row['lost']} ({share:.1%}) | {row['agreement']:.1%} | {row['distance']:.1%} | {ms}"
        lines.append(f"{first}| {figures} |")
    return lines


def _claims(rows: Sequence[Row]) -> list[Claim]:
    claims: list[Claim] = []
    for row in rows:
        if row.backbone != DEFAULT or row.variant != quantize.INT8:
            continue
        ours = row.how == quantize.recipes(quantize.INT8)[0].words
        what = f"{row.backbone} int8{'' if ours else ' by the converter alone'} on {row.runtime}"
        lost = None if row.lost is None else row.lost / row.n
        claims += [
            Claim(f"{what}: right of {row.n} photos lost", lost, "%", MOST_LOST if ours else None),
            Claim(f"{what}: agrees with float", row.agreement, "%", least=LEAST_AGREEMENT if ours else None),
        ]
        if ours and not any(claim.unit == "MB" for claim in claims):
            claims.append(Claim(f"{row.backbone} int8: size of the .tflite", row.mb, "MB", MOST_MB))
    return claims


if __name__ == "__main__":
    main()
