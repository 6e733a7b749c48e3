"""Does the trainer find the photos that belong together? Its groups against groups marked by hand.

The camera-trap photos carry a hand-marked column for bursts and near-duplicates. Without it the trainer must find them
by itself: difference hashes, thumbnails, times. Two photos are found if both put them together, wrongly joined if only
the trainer does, which also happens where a third photo ties them together. A missed pair can leak across the
hold-out; a wrongly joined one costs only freedom in dividing.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import material, report
from benchmarks.report import Claim, Result
from trainer import pixels
from trainer.dataset import readers, split
from trainer.photos import group_photos
from trainer.settings import Settings

MARKED = "neardup_group"
BITS = (8, 12, 16, 18, 20, 22, 24, 28, 32)
CORRELATIONS = (-1.0, 0.7, 0.8, 0.85, 0.9, 0.95)

Pairs = set[tuple[int, int]]


def main() -> None:
    """The command."""
    options = report.parser("near_duplicates", __doc__)
    material.add_data_option(options)
    options.add_argument("--pairs", action="store_true", help="also name the pairs missed and wrongly joined")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


class Photos:
    """The photos as the trainer sees them, and what was marked by hand."""

    def __init__(self, labels: Path, scratch: Path) -> None:
        samples = readers.read(labels)
        report.say(f"decoding {len(samples)} photos ...")
        self._decoded, _, self._stack = pixels.decode(samples, Settings().spec(), scratch)
        with labels.open(encoding="utf-8", newline="") as file:
            marks = {row["file"]: row[MARKED] for row in csv.DictReader(file)}
        self.names = [photo.sample.name for photo in self._decoded]
        self.labels = [photo.sample.label for photo in self._decoded]
        self.marked = pairs([marks[name] for name in self.names])
        self.marked_groups = len({marks[name] for name in self.names})
        self.bursts = [members for members in together([marks[name] for name in self.names]) if len(members) > 1]

    def groups(self) -> split.Indices:
        """As the trainer groups them where no column says it."""
        return group_photos(self._decoded)

    def row(self) -> dict[str, Any]:
        """The figures under the thresholds that hold now."""
        groups = self.groups()
        joined = pairs(groups.tolist())
        wrong = joined - self.marked
        return {
            "bits": split.NEAR_DUPLICATE_BITS,
            "correlation": split.NEAR_DUPLICATE_CORRELATION,
            "groups": len(np.unique(groups)),
            "largest_group": int(np.bincount(groups).max()),
            "marked_bursts_whole": sum(len(np.unique(groups[members])) == 1 for members in self.bursts),
            "found": len(joined & self.marked),
            "missed": len(self.marked - joined),
            "wrongly_joined": len(wrong),
            "of_these_with_different_labels": sum(self.labels[i] != self.labels[j] for i, j in wrong),
        }


def together(keys: Sequence[Any]) -> list[list[int]]:
    """The places that hold the same key, for each key."""
    places: dict[Any, list[int]] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)
    return list(places.values())


def pairs(keys: Sequence[Any]) -> Pairs:
    """All pairs of places that hold the same key."""
    return {pair for members in together(keys) for pair in itertools.combinations(members, 2)}


@contextmanager
def thresholds(bits: int, correlation: float) -> Iterator[None]:
    """Let the trainer group by other thresholds while the block runs."""
    kept = split.NEAR_DUPLICATE_BITS, split.NEAR_DUPLICATE_CORRELATION
    split.NEAR_DUPLICATE_BITS, split.NEAR_DUPLICATE_CORRELATION = bits, correlation
    try:
        yield
    finally:
        split.NEAR_DUPLICATE_BITS, split.NEAR_DUPLICATE_CORRELATION = kept


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    photos = Photos(material.trailcam(options.data), scratch)
    ours = photos.row()
    tried = [(bits, split.NEAR_DUPLICATE_CORRELATION) for bits in BITS]
    tried += [(split.NEAR_DUPLICATE_BITS, correlation) for correlation in CORRELATIONS]
    rows = []
    for bits, correlation in tried:
        with thresholds(bits, correlation):
            rows.append(photos.row())
    detail: dict[str, Any] = {"photos": len(photos.names), "groups_marked": photos.marked_groups}
    detail |= {
        "pairs_marked": len(photos.marked),
        "bursts_marked": len(photos.bursts),
        "as_the_trainer_does": ours,
        "other_thresholds": rows,
    }
    if options.pairs:
        joined = pairs(photos.groups().tolist())
        detail["pairs_missed"] = _named(photos.marked - joined, photos.names)
        detail["pairs_wrongly_joined"] = _named(joined - photos.marked, photos.names)
    claims = [
        Claim("hand-marked bursts kept whole", ours["marked_bursts_whole"] / len(photos.bursts), "%"),
        Claim("hand-marked pairs of near-duplicates found", ours["found"] / len(photos.marked), "%"),
        Claim("pairs joined that are not marked by hand", ours["wrongly_joined"]),
    ]
    return Result("near_duplicates", claims, {"times": "EXIF where there is one, no column says a sequence"}, detail)


def _named(found: Pairs, names: Sequence[str]) -> list[str]:
    return sorted(f"{names[i]} + {names[j]}" for i, j in found)


if __name__ == "__main__":
    main()
