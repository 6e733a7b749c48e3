"""At the thresholds for a wanted precision: how many photos are answered, and how many of the answers are right?

A probe on frozen features of real camera-trap photos, nested: 5 folds that never cut a hand-marked group or one that
the trainer finds; regularisation, temperature, thresholds and roll-up are chosen by the trainer's own code on the other
folds, from answers that are out of fold there; the fold that was left out is then decided with them. Repeated with
several assignments to folds. The taxa are those that the trainer knows of the labels without anyone completing them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import material, report
from benchmarks.near_duplicates import MARKED
from benchmarks.report import Claim, Result
from edge.model.decide import probabilities
from edge.model.taxonomy import taxonomy
from trainer import labels, probe
from trainer import photos as photos_of
from trainer.answered import Answered, decided, is_right
from trainer.dataset import split
from trainer.evaluate import calibration_error, temperature
from trainer.photos import Photos
from trainer.progress import Steps
from trainer.settings import HEAD_ONLY, Settings
from trainer.thresholds import for_precision

FOLDS = 5
INNER_SEED = 100
WANTED = (0.5, 0.9, 0.95, 0.97)
PROMISED, MOST_ECE, LEAST_PRECISION = 0.95, 0.05, 0.93

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Fold:
    """One fold left out: whom it holds, who chose, and the logits of both, (n, C)."""

    seed: int
    out: Rows
    rest: Rows
    out_logits: npt.NDArray[np.float32]
    rest_logits: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tried:
    """What the held-out photos of all folds were called: one row for each photo and assignment.

    Attributes:
        seed: of the assignment.
        found, truth: the answer, as :func:`trainer.answered.decided` numbers it, and the label.
        right: whether the answer is right.
        rollups: the roll-up thresholds of the folds.
        shown: of the folds' label thresholds, the share that shows the wanted precision.
    """

    seed: Rows
    found: Rows
    truth: Rows
    right: npt.NDArray[np.bool_]
    rollups: tuple[float, ...]
    shown: float


def main() -> None:
    """The command."""
    options = report.parser("precision", __doc__)
    material.add_data_option(options)
    options.add_argument("--seeds", type=int, default=6, help="assignments to folds; default 6")
    chosen = options.parse_args()
    if chosen.save and chosen.seeds < 6:
        options.error("what is kept has 6 seeds or more: leave out --seeds")
    from trainer.quiet import silence

    silence()
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        os.environ[material.CACHE_VARIABLE] = str(Path(scratch) / "cache")
        report.finish(_measure(chosen), chosen)


def _measure(options: argparse.Namespace) -> Result:
    settings = Settings(learn=HEAD_ONLY, sequence_column=MARKED)
    photos = _photos(material.trailcam(options.data), settings)
    report.say("folds ...")
    folds = [fold for seed in range(options.seeds) for fold in _folds(photos, seed)]
    rows, by_label = [], {}
    for wanted in WANTED:
        tried = _tried(photos, folds, wanted)
        rows.append({"wanted": wanted, **_row(tried, len(photos.names))})
        by_label[f"{wanted:g}"] = _by_label(tried, photos.names)
        report.say("  " + ", ".join(f"{name} {value}" for name, value in rows[-1].items()))
    errors = {name: _errors(photos, folds, tempered=name == "tempered") for name in ("tempered", "raw")}
    detail = {
        "photos": len(photos.labels),
        "groups": len(np.unique(photos.groups)),
        "right": float(np.mean([(f.out_logits.argmax(axis=1) == photos.labels[f.out]).mean() for f in folds])),
        "calibration_error_by_assignment": errors,
        "rows": rows,
        "by_label": by_label,
    }
    settings_told = {
        "folds": FOLDS,
        "seeds": options.seeds,
        "backbone": settings.backbone,
        "side": settings.spec().width,
    }
    return Result("precision", _claims(rows, errors["tempered"], len(photos.labels)), settings_told, detail)


def _photos(data: Path, settings: Settings) -> Photos:
    steps = Steps(quiet=True)
    read = photos_of.read(photos_of.find(data, settings, steps), settings, steps)
    return photos_of.with_features(read, photos_of.Network(settings), settings, steps)


def _folds(photos: Photos, seed: int) -> list[Fold]:
    found, every, classes = [], np.arange(len(photos.labels)), len(photos.names)
    for out in split.folds(photos.labels, photos.groups, FOLDS, seed):
        rest = np.setdiff1d(every, out)
        inner = split.folds(photos.labels[rest], photos.groups[rest], FOLDS, INNER_SEED + seed)
        choice = probe.choose(photos.features[rest], photos.labels[rest], classes, inner)
        head = probe.fit(photos.features[rest], photos.labels[rest], classes, choice.strength)
        found.append(Fold(seed, out, rest, head.logits(photos.features[out]), choice.logits))
    return found


def _tried(photos: Photos, folds: Sequence[Fold], wanted: float) -> Tried:
    taxa, classes = taxonomy(labels.known(photos.names)), len(photos.names)
    seeds, found, truth = [], [], []
    rollups: list[float] = []
    shown: list[bool] = []
    for fold in folds:
        warmth = temperature(fold.rest_logits, photos.labels[fold.rest])
        chosen = for_precision(_answered(photos, fold.rest, fold.rest_logits), warmth, wanted, taxa)
        assert chosen.rollup is not None
        found.append(decided(probabilities(fold.out_logits, warmth), chosen.values, taxa, chosen.rollup))
        truth.append(photos.labels[fold.out])
        seeds.append(np.full(len(fold.out), fold.seed))
        rollups.append(chosen.rollup)
        shown.extend(each.shown for each in chosen.reached[:-1])
    said, true = np.concatenate(found), np.concatenate(truth)
    return Tried(
        np.concatenate(seeds), said, true, is_right(said, true, classes, taxa), tuple(rollups), float(np.mean(shown))
    )


def _answered(photos: Photos, rows: Rows, logits: npt.NDArray[np.float32]) -> Answered:
    n = len(rows)
    return Answered(
        logits,
        photos.labels[rows],
        photos.names,
        photos.groups[rows],
        [None] * n,
        np.zeros(n, bool),
        [None] * n,
        [""] * n,
    )


def _row(tried: Tried, classes: int) -> dict[str, Any]:
    """Shares of all photos, and of the answers by label alone and with roll-ups."""
    said, by_label = tried.found >= 0, (tried.found >= 0) & (tried.found < classes)
    rolled = tried.found >= classes
    seeds = np.unique(tried.seed)
    return {
        "coverage": float(said.mean()),
        "precision": float(tried.right[said].mean()),
        "precision_by_assignment": [round(float(tried.right[said & (tried.seed == s)].mean()), 4) for s in seeds],
        "label_coverage": float(by_label.mean()),
        "label_precision": float(tried.right[by_label].mean()),
        "label_precision_by_assignment": [
            round(float(tried.right[by_label & (tried.seed == s)].mean()), 4) for s in seeds
        ],
        "rolled_up": float(rolled.mean()),
        "rolled_up_right": float(tried.right[rolled].mean()) if rolled.any() else None,
        "rollup_threshold_median": float(np.median(tried.rollups)),
        "thresholds_shown": tried.shown,
    }


def _by_label(tried: Tried, names: Sequence[str]) -> dict[str, Any]:
    """For each label: of its photos, how many are called so, and of those called so, how many are."""
    found = {}
    for i, name in enumerate(names):
        said = tried.found == i
        precision = float(tried.right[said].mean()) if said.any() else None
        found[name] = {
            "recall": float((said & (tried.truth == i)).sum() / (tried.truth == i).sum()),
            "precision": precision,
        }
    return found


def _errors(photos: Photos, folds: Sequence[Fold], *, tempered: bool) -> list[float]:
    """The calibration error of each assignment, over its held-out photos."""
    errors = []
    for seed in sorted({fold.seed for fold in folds}):
        own = [fold for fold in folds if fold.seed == seed]
        warmths = [temperature(fold.rest_logits, photos.labels[fold.rest]) if tempered else 1.0 for fold in own]
        chances = [probabilities(fold.out_logits, warmth) for fold, warmth in zip(own, warmths, strict=True)]
        truth = np.concatenate([photos.labels[fold.out] for fold in own])
        errors.append(round(calibration_error(np.concatenate(chances), truth), 4))
    return errors


def _claims(rows: Sequence[dict[str, Any]], errors: Sequence[float], count: int) -> list[Claim]:
    row = next(row for row in rows if row["wanted"] == PROMISED)
    lax = next(row for row in rows if row["wanted"] == WANTED[0])
    where = f"unseen photos in grouped folds of {count}"
    at = f"at the thresholds for {PROMISED:.0%} precision, {where}"
    return [
        Claim(f"calibration error after temperature, {where}, mean", float(np.mean(errors)), most=MOST_ECE),
        Claim("the same, worst assignment to folds", max(errors), most=MOST_ECE),
        Claim(f"right of those answered {at}", row["precision"], "%", least=LEAST_PRECISION),
        Claim("the same, worst assignment to folds", min(row["precision_by_assignment"]), "%", least=LEAST_PRECISION),
        Claim(f"right of those given a label {at}", row["label_precision"], "%", least=LEAST_PRECISION),
        Claim(f"answered {at}, roll-ups included", row["coverage"], "%"),
        Claim(f"given a label {at}", row["label_coverage"], "%"),
        Claim(f"given a label where it is more likely right than wrong, {where}", lax["label_coverage"], "%"),
        Claim("of these right", lax["label_precision"], "%"),
    ]


if __name__ == "__main__":
    main()
