"""Which photos belong together, and who learns from which: groups, then folds that never cut a group.

Photos of one burst are nearly the same picture. If one is trained on and its neighbour tested on, the figure tells
how well the model remembers, not how well it recognises.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

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

_BLOCK = 2048
"""Photos compared with each other at a time: 16 MiB."""
_DENSE = 10_000
"""From so many candidates in a block on, correlating all of it costs less than correlating each."""

SAME_FILE, NEAR_DUPLICATE, SAME_SEQUENCE, SAME_BURST = "same file", "near-duplicate", "same sequence", "same burst"

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
    sequences: Sequence[Hashable | None],
    bursts: Sequence[tuple[str, str] | None],
) -> Indices:
    """Put photos together that must not be split.

    Args:
        hashes: bool, shape (n, 128), of :func:`difference_hash`.
        thumbnails: float32, shape (n, 768), of :func:`thumbnail`.
        sha256s: n content hashes; equal ones are the same photo.
        sequences: n identifiers, equal for photos of one sequence, None where unknown.
        bursts: n pairs (camera, local capture time in ISO 8601), None where EXIF has no time.

    Returns:
        n group numbers, from 0, in order of first appearance.
    """
    sets = _DisjointSets(len(sha256s))
    _join_equal(sets, sha256s)
    _join_equal(sets, sequences)
    _join_bursts(sets, bursts)
    times = [None if burst is None else burst[1] for burst in bursts]
    return _join_similar(sets.numbers(), hashes, thumbnails, times)


def near_duplicates(
    hashes: npt.NDArray[np.bool_], thumbnails: npt.NDArray[np.float32], times: Sequence[str | None]
) -> Indices:
    """Put photos together by their looks alone.

    Args:
        hashes, thumbnails: as for :func:`group`.
        times: n local capture times in ISO 8601, None where unknown.

    Returns:
        n numbers as of :func:`group`.
    """
    return _join_similar(np.arange(len(times), dtype=np.intp), hashes, thumbnails, times)


def similar(
    hashes: npt.NDArray[np.bool_],
    thumbnails: npt.NDArray[np.float32],
    times: Sequence[str | None],
    wanted: Callable[[Indices, Indices], npt.NDArray[np.bool_]],
    *,
    bits: int | None = None,
    correlation: float | None = None,
) -> Iterator[tuple[Indices, Indices]]:
    """Compare each photo with each other one, in blocks, so that memory does not grow with their number.

    Args:
        hashes, thumbnails, times: as for :func:`near_duplicates`.
        wanted: given two arrays of indices, which of these pairs are of interest; asked before the costly comparison.
        bits, correlation: what counts as similar, if not what counts as near-duplicates.

    Yields:
        Indices (i, j) of similar photos, each pair once.
    """
    bits = NEAR_DUPLICATE_BITS if bits is None else bits
    correlation = NEAR_DUPLICATE_CORRELATION if correlation is None else correlation
    days = np.array([_days(time) for time in times])
    order = np.argsort(days, kind="stable")  # unknown times come last
    blocks = [order[start : start + _BLOCK] for start in range(0, len(order), _BLOCK)]
    signs = hashes.astype(np.float32) * 2 - 1
    for a, b in itertools.combinations_with_replacement(range(len(blocks)), 2):
        rows, columns = blocks[a], blocks[b]
        if days[columns[0]] - days[rows[-1]] > NEAR_DUPLICATE_DAYS:
            continue
        near = signs[rows] @ signs[columns].T >= signs.shape[1] - 2 * bits  # exact: sums of ±1
        if a == b:
            near = np.triu(near, 1)
        i, j = (each[found] for each, found in zip((rows, columns), near.nonzero(), strict=True))
        keep = ~(np.abs(days[i] - days[j]) > NEAR_DUPLICATE_DAYS)  # unknown times compare as not apart
        keep[keep] = wanted(i[keep], j[keep])
        i, j = i[keep], j[keep]
        alike = _correlations(thumbnails, i, j) >= correlation
        if alike.any():
            yield i[alike], j[alike]


@dataclass(frozen=True)
class Leak:
    """A photo that is held out although its like may be learned from; numbers of photos, and what they share."""

    held_out: int
    learned: int
    why: str


def leaks(
    *,
    groups: Indices,
    parts: Sequence[str | None],
    order: Sequence[str],
    hashes: npt.NDArray[np.bool_],
    sha256s: Sequence[str],
    sequences: Sequence[Hashable | None],
    near: Indices,
) -> list[Leak]:
    """What crosses a division that a data set brings along.

    Args:
        groups: n numbers of :func:`group`.
        parts: n names of parts; None where a photo is in none.
        order: the parts; a photo leaks if one of its group is in an earlier part.
        hashes, sha256s, sequences: as for :func:`group`.
        near: n numbers of :func:`near_duplicates`.

    Returns:
        One for each leaking photo, with the photo of an earlier part that is most like it.
    """
    rank = np.array([order.index(part) if part is not None else -1 for part in parts], dtype=np.intp)
    found = []
    for rows in members(groups):
        rows = rows[rank[rows] >= 0]
        for i in rows[rank[rows] > (rank[rows].min() if len(rows) else 0)].tolist():
            earlier = rows[rank[rows] < rank[i]]
            same = [int(j) for j in earlier if sha256s[j] == sha256s[i]]
            j = same[0] if same else int(earlier[(hashes[earlier] != hashes[i]).sum(axis=1).argmin()])
            found.append(Leak(i, j, _why(i, j, sha256s, sequences, near)))
    return sorted(found, key=lambda leak: leak.held_out)


def join(first: Indices, second: Indices) -> Indices:
    """Numbers of what hangs together by either of two numberings.

    Args:
        first, second: n numbers each.

    Returns:
        n numbers, from 0, in order of first appearance; equal wherever ``first`` or ``second`` are.
    """
    _, a = np.unique(first, return_inverse=True)
    _, b = np.unique(second, return_inverse=True)
    return _renumber(_components(len(a) * 2, a, b + len(a))[a])


def hold_out(labels: Indices, groups: Indices, share: float, seed: int) -> Indices:
    """Choose whole groups to hold out: about a share of each label, and of large and small groups alike.

    Every label keeps a group to learn from; each that has two or more groups has one held out, where that is possible.

    Args:
        labels, groups: n label and group numbers.
        share: of the photos, 0 to 1.
        seed: decides between groups of one size.

    Returns:
        Indices, sorted.
    """
    dealt = _by_size(groups, seed)
    present = [np.unique(labels[rows]) for rows in dealt]
    adds = [np.bincount(labels[rows])[has] for rows, has in zip(dealt, present, strict=True)]
    classes = int(labels.max()) + 1
    total = np.bincount(labels, minlength=classes)
    left = np.bincount(np.concatenate(present), minlength=classes)
    seen, held = np.zeros(classes), np.zeros(classes)
    chosen: list[int] = []

    def take(number: int) -> None:
        chosen.append(number)
        held[present[number]] += adds[number]
        left[present[number]] -= 1

    for number, (has, count) in enumerate(zip(present, adds, strict=True)):
        seen[has] += count
        now, then = held[has] - share * seen[has], held[has] + count - share * seen[has]
        if (left[has] > 1).all() and (np.abs(then) / total[has]).sum() < (np.abs(now) / total[has]).sum():
            take(number)
    for number in reversed(range(len(dealt))):  # small groups first
        has = present[number]
        if (held[has] == 0).any() and (left[has] > 1).all():
            take(number)
    return np.sort(np.concatenate([dealt[number] for number in chosen])) if chosen else np.zeros(0, np.intp)


def members(groups: Indices) -> list[Indices]:
    """The photos of each group, in order of its number: indices, sorted."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else []


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
    dealt = _by_size(groups, seed)
    if len(dealt) < count:
        raise DataError(
            f"the photos form only {len(dealt)} independent groups (bursts and near-duplicates stay together); "
            f"{count} are needed to hold some out. Add photos of other days or stations."
        )
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


def _join_equal(sets: _DisjointSets, keys: Sequence[Hashable | None]) -> None:
    first: dict[Hashable, int] = {}
    for i, key in enumerate(keys):
        if key is not None:
            sets.join(first.setdefault(key, i), i)


def _join_bursts(sets: _DisjointSets, bursts: Sequence[tuple[str, str] | None]) -> None:
    timed = sorted((camera, datetime.fromisoformat(time), i) for i, (camera, time) in _known(bursts))
    for (camera, time, i), (next_camera, next_time, j) in itertools.pairwise(timed):
        if camera == next_camera and (next_time - time).total_seconds() <= BURST_GAP_S:
            sets.join(i, j)


def _days(time: str | None) -> float:
    """Days since year 1, NaN where unknown."""
    if time is None:
        return float("nan")
    taken = datetime.fromisoformat(time)
    return taken.toordinal() + (taken.hour * 3600 + taken.minute * 60 + taken.second) / 86400


def _known(bursts: Sequence[tuple[str, str] | None]) -> list[tuple[int, tuple[str, str]]]:
    return [(i, burst) for i, burst in enumerate(bursts) if burst is not None]


def _by_size(groups: Indices, seed: int) -> list[Indices]:
    rows = members(groups)
    order = np.random.default_rng(seed).permutation(len(rows))
    return sorted((rows[i] for i in order), key=len, reverse=True)


def _join_similar(
    numbers: Indices,
    hashes: npt.NDArray[np.bool_],
    thumbnails: npt.NDArray[np.float32],
    times: Sequence[str | None],
) -> Indices:
    """Join groups that have near-duplicates of each other."""

    def apart(i: Indices, j: Indices) -> npt.NDArray[np.bool_]:
        return np.asarray(numbers[i] != numbers[j])

    for i, j in similar(hashes, thumbnails, times, apart):
        numbers = _components(len(numbers), numbers[i], numbers[j])[numbers]
    return _renumber(numbers)


def _correlations(thumbnails: npt.NDArray[np.float32], i: Indices, j: Indices) -> npt.NDArray[np.float32]:
    if len(i) < _DENSE:
        return np.asarray(np.einsum("nd,nd->n", thumbnails[i], thumbnails[j]))
    (rows, a), (columns, b) = (np.unique(each, return_inverse=True) for each in (i, j))
    return np.asarray((thumbnails[rows] @ thumbnails[columns].T)[a, b])


def _components(count: int, i: Indices, j: Indices) -> Indices:
    """A number for each of ``count`` things, the same for those that the pairs (i, j) connect."""
    pairs = coo_matrix((np.ones(len(i), np.bool_), (i, j)), shape=(count, count))
    return np.asarray(connected_components(pairs, directed=False)[1], dtype=np.intp)


def _renumber(numbers: Indices) -> Indices:
    """From 0, in order of first appearance."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], dtype=np.intp)


def _why(i: int, j: int, sha256s: Sequence[str], sequences: Sequence[Hashable | None], near: Indices) -> str:
    if sha256s[i] == sha256s[j]:
        return SAME_FILE
    if near[i] == near[j]:
        return NEAR_DUPLICATE
    return SAME_SEQUENCE if sequences[i] is not None and sequences[i] == sequences[j] else SAME_BURST
