"""Which photos belong together, and who learns from which: groups, then folds that never cut a group.

Photos of one burst are nearly the same picture. If one is trained on and its neighbour tested on, the figure tells
how well the model remembers, not how well it recognises.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.errors import DataError

BURST_GAP_S = 120.0
NEAR_DUPLICATE_BITS = 20
"""Two photos whose 128-bit difference hashes differ in at most this many bits are near-duplicates. Chosen on
hand-marked pairs: ``benchmarks/near_duplicates.py`` prints how many it finds and how many it joins wrongly."""
NEAR_DUPLICATE_CORRELATION = 0.85
"""And their thumbnails correlate at least so much: skies without detail have nearly equal hashes by chance."""
NEAR_DUPLICATE_DAYS = 1.0
"""Photos known to be taken longer apart are no near-duplicates: a fixed camera sees the same trees for months, and
the animal of another day is another visit. What a model makes of a *new* place is another question than this one."""

Indices = npt.NDArray[np.intp]


def difference_hash(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """128 bits that stay the same when a photo is scaled, recompressed or slightly brightened.

    The difference hash (Krawetz 2013, "Kind of Like That"), horizontally and vertically on 8 x 8 cells.

    Args:
        pixels: uint8 RGB, shape (h, w, 3).

    Returns:
        bool, shape (128,).
    """
    grey = Image.fromarray(pixels).convert("L")
    across = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)
    down = np.asarray(grey.resize((8, 9), Image.Resampling.BOX), np.int16)
    return np.concatenate([(across[:, 1:] > across[:, :-1]).ravel(), (down[1:] > down[:-1]).ravel()])


def thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """A 16 x 16 colour thumbnail with mean 0 and length 1, so that the dot product of two is their correlation.

    Args:
        pixels: uint8 RGB, shape (h, w, 3).

    Returns:
        float32, shape (768,).
    """
    small = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BOX), np.float32).ravel()
    small = small - small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6))


def group(
    *,
    hashes: npt.NDArray[np.bool_],
    thumbnails: npt.NDArray[np.float32],
    sha256s: Sequence[str],
    sequences: Sequence[str | None],
    bursts: Sequence[tuple[str, str] | None],
) -> Indices:
    """Put photos together that must not be split.

    Args:
        hashes: bool, shape (n, 128), of :func:`difference_hash`.
        thumbnails: float32, shape (n, 768), of :func:`thumbnail`.
        sha256s: n content hashes; equal ones are the same photo.
        sequences: n sequence identifiers, None where unknown.
        bursts: n pairs (camera, local capture time in ISO 8601), None where EXIF has no time.

    Returns:
        n group numbers, from 0, in order of first appearance.
    """
    sets = _DisjointSets(len(sha256s))
    days = np.array([_days(burst) for burst in bursts])
    _join_equal(sets, sha256s)
    _join_equal(sets, sequences)
    _join_bursts(sets, bursts)
    for i in range(len(hashes) - 1):
        apart = np.count_nonzero(hashes[i + 1 :] != hashes[i], axis=1)
        near = i + 1 + np.flatnonzero(apart <= NEAR_DUPLICATE_BITS)
        near = near[~(np.abs(days[near] - days[i]) > NEAR_DUPLICATE_DAYS)]  # unknown times compare as not apart
        for j in near[thumbnails[near] @ thumbnails[i] >= NEAR_DUPLICATE_CORRELATION]:
            sets.join(i, int(j))
    return sets.numbers()


def folds(labels: npt.NDArray[np.intp], groups: Indices, count: int, seed: int) -> list[Indices]:
    """Split photos into folds of about equal size and label mix, without cutting a group.

    The largest groups are dealt first, each to the fold that has the smallest share of its labels so far.

    Args:
        labels, groups: n label and group numbers.
        count: at least 2.
        seed: decides between groups of one size.

    Returns:
        ``count`` arrays of indices, sorted; together they hold each photo once.

    Raises:
        DataError: there are fewer groups than folds.
    """
    members = [np.flatnonzero(groups == number) for number in np.unique(groups)]
    if len(members) < count:
        raise DataError(
            f"the photos form only {len(members)} independent groups (bursts and near-duplicates stay together); "
            f"{count} are needed to hold some out. Add photos of other days or stations."
        )
    order = np.random.default_rng(seed).permutation(len(members))
    dealt = sorted((members[i] for i in order), key=len, reverse=True)
    classes = int(labels.max()) + 1
    totals = np.bincount(labels, minlength=classes).clip(1)  # (C,)
    shares = np.zeros((count, classes))
    result: list[list[int]] = [[] for _ in range(count)]
    for member in dealt:
        adds = np.bincount(labels[member], minlength=classes) / totals
        cost = (shares * (adds > 0)).sum(axis=1)
        best = min(range(count), key=lambda fold: (cost[fold], len(result[fold])))
        shares[best] += adds
        result[best] += member.tolist()
    return [np.array(sorted(fold), dtype=np.intp) for fold in result]


def thin_labels(labels: Sequence[str], groups: Indices, wanted: int) -> list[str]:
    """Labels with fewer than ``wanted`` independent groups: their figures say little."""
    independent = {label: set[int]() for label in labels}
    for label, number in zip(labels, groups, strict=True):
        independent[label].add(int(number))
    return sorted(label for label, numbers in independent.items() if len(numbers) < wanted)


class _DisjointSets:
    """Union-find with path halving."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def find(self, i: int) -> int:
        while self._parents[i] != i:
            self._parents[i] = self._parents[self._parents[i]]
            i = self._parents[i]
        return i

    def join(self, i: int, j: int) -> None:
        self._parents[self.find(j)] = self.find(i)

    def numbers(self) -> Indices:
        seen: dict[int, int] = {}
        return np.array([seen.setdefault(self.find(i), len(seen)) for i in range(len(self._parents))], dtype=np.intp)


def _join_equal(sets: _DisjointSets, keys: Sequence[str | None]) -> None:
    first: dict[str, int] = {}
    for i, key in enumerate(keys):
        if key is not None:
            sets.join(first.setdefault(key, i), i)


def _join_bursts(sets: _DisjointSets, bursts: Sequence[tuple[str, str] | None]) -> None:
    timed = sorted((camera, datetime.fromisoformat(time), i) for i, (camera, time) in _known(bursts))
    for (camera, time, i), (next_camera, next_time, j) in itertools.pairwise(timed):
        if camera == next_camera and (next_time - time).total_seconds() <= BURST_GAP_S:
            sets.join(i, j)


def _days(burst: tuple[str, str] | None) -> float:
    """Days since year 1, NaN where unknown."""
    if burst is None:
        return float("nan")
    taken = datetime.fromisoformat(burst[1])
    return taken.toordinal() + (taken.hour * 3600 + taken.minute * 60 + taken.second) / 86400


def _known(bursts: Sequence[tuple[str, str] | None]) -> list[tuple[int, tuple[str, str]]]:
    return [(i, burst) for i, burst in enumerate(bursts) if burst is not None]
