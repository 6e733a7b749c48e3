"""What a figure answers: which photos are held out, which may be learned from. Owns nothing that looks into a photo.

A camera that stays where it is asks another question than a camera that moves. *New station* holds out whole stations;
*same stations, later* holds out the last stretch of time at each. Where the data can answer neither, whole sequences or
bursts are held out; where it has too few of them, photos at random, and that is not called a test.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from edge.errors import DataError
from trainer.dataset import split as groups_of
from trainer.dataset.samples import TEST, VALIDATION

Indices = npt.NDArray[np.intp]
_Mask = npt.NDArray[np.bool_]

AUTO = "auto"
NEW_STATION, LATER = "new station", "same stations, later"
NEW_SEQUENCE, NEW_BURST, AS_GIVEN, RANDOM = "new sequence", "new burst", "as given", "random"

MIN_STATIONS = 5
MIN_LEARN_STATIONS = 3
"""To fit, to validate and to choose regularisation on stations apart."""
STATIONS_KNOWN = 0.8
TIMES_KNOWN = 0.9
SEQUENCES_KNOWN = 0.9
"""Shares of photos that must say it; the others are left out of the question, or stay single."""
MIN_SPAN_DAYS = 1.0
"""A later stretch of one day's photos is the same weather and the same visitor."""
_TRIES = 300


@dataclass(frozen=True)
class Question:
    """One way to hold photos out.

    Attributes:
        name: ``new station``, ``same stations, later``, ``new sequence``, ``new burst``, ``as given`` or ``random``.
        test: the photos held out.
        learn: those to learn from: all others but what would leak (same group as a photo held out).
        grouping: a number for each photo; folds inside ``learn`` must not cut one.
        warning: what may leak, for a person; None where nothing is known to.
    """

    name: str
    test: Indices
    learn: Indices
    grouping: Indices
    warning: str | None = None

    @property
    def is_test(self) -> bool:
        """Whether its figure may be called a test; a random split's may not."""
        return self.name != RANDOM


@dataclass(frozen=True)
class Facts:
    """What is known of n photos; the arguments of :func:`questions`."""

    labels: Indices
    groups: Indices
    stations: Sequence[str | None]
    sequences: Sequence[Hashable | None]
    times: Sequence[str | None]
    parts: Sequence[str | None]
    names: Sequence[str]
    test_share: float
    seed: int

    def label_names(self, numbers: npt.NDArray[np.intp]) -> str:
        """Some labels as text."""
        return ", ".join(self.names[int(i)] for i in numbers)

    def missing(self, rows: _Mask | Indices) -> Indices:
        """The labels that no photo of some rows has."""
        return np.setdiff1d(np.arange(len(self.names)), self.labels[rows])


@dataclass(frozen=True)
class Option:
    """A question, or why the data cannot answer it."""

    name: str
    question: Question | None
    why_not: str | None = None


def questions(
    *,
    labels: Indices,
    groups: Indices,
    stations: Sequence[str | None],
    sequences: Sequence[Hashable | None],
    times: Sequence[str | None],
    parts: Sequence[str | None],
    names: Sequence[str],
    split: str,
    test_share: float,
    seed: int,
) -> list[Question]:
    """Choose what to hold out.

    ``auto`` takes the division that the data set gives, if it gives a test part (or, without one, a validation part,
    which is then held out and chooses nothing). Else *new station* and *same stations, later*, whichever the data can
    answer; else sequences, else bursts and near-duplicates, else photos at random.

    Args:
        labels: n label numbers, each below ``len(names)``.
        groups: n group numbers of :func:`trainer.dataset.split.group`.
        stations, sequences: n identifiers, None where unknown.
        times: n local capture times in ISO 8601, None where unknown.
        parts: n of ``train``, ``validation``, ``test`` or None.
        names: of the labels.
        split: ``auto``, ``station``, ``later``, ``sequence``, ``group``, ``given`` or ``random``.
        test_share: how many photos are held out, about.
        seed: decides between divisions that are equally good.

    Returns:
        At least one question; the first is the primary one.

    Raises:
        DataError: the data cannot answer what was asked for; says why, and names labels that could not be learned.
    """
    facts = Facts(labels, groups, stations, sequences, times, parts, names, test_share, seed)
    if split != AUTO:
        return [_ASKED[split](facts)]
    if _held_out_part(parts) is not None:
        return [as_given(facts)]  # what a person divided is not divided otherwise in silence
    hard = [option.question for option in _options(facts, ("station", "later")) if option.question]
    if hard:
        return hard
    soft = (option.question for option in _options(facts, ("sequence", "group")) if option.question)
    return [next(soft, None) or at_random(facts)]


def survey(facts: Facts) -> list[Option]:
    """Every question, answerable ones first and in the order in which ``auto`` prefers them."""
    return sorted(_options(facts, tuple(_ASKED)), key=lambda option: option.question is None)


def folds(question: Question, labels: Indices, count: int, seed: int) -> list[Indices]:
    """Divide ``learn`` into folds that cut nothing of ``grouping``.

    Args:
        labels: n label numbers, of all photos.
        count: how many; fewer where ``learn`` has fewer groups, such as five stations of which one is held out.
        seed: decides between groups of one size.

    Returns:
        At least two arrays of indices into all photos; together they hold each of ``learn`` once.

    Raises:
        DataError: ``learn`` is a single group.
    """
    inside = question.grouping[question.learn]
    count = max(2, min(count, len(np.unique(inside))))
    return [question.learn[rows] for rows in groups_of.folds(labels[question.learn], inside, count, seed)]


def as_given(facts: Facts) -> Question:
    """Hold out the test part; without one, the validation part. All else learns, the validation part too.

    Raises:
        DataError: there is no such part, or a label has no photo to learn from.
    """
    part = _held_out_part(facts.parts)
    if part is None:
        raise DataError("the data set is not divided: no photo is in a test or validation part.")
    test = np.array([each == part for each in facts.parts], dtype=np.bool_)
    lost = facts.missing(~test)
    if len(lost):
        raise DataError(
            f"{facts.label_names(lost)}: in the {part} part, but without a photo to learn from. "
            "Add photos of it to the train part, or leave the label out."
        )
    notes = [] if part == TEST else ["The data set has no test part, so its validation part was held out."]
    return _question(facts, AS_GIVEN, test, ~test, facts.groups, notes)


def new_station(facts: Facts) -> Question:
    """Hold out whole stations.

    Photos without a station may be of one that is held out, so they neither learn nor are they held out.

    Raises:
        DataError: fewer than 5 stations are known, or a label is at one only.
    """
    known = np.array([station is not None for station in facts.stations], dtype=np.bool_)
    places, counts = _station_counts(facts)
    _check_stations(facts, known, places, counts)
    number = {place: i for i, place in enumerate(places)}
    place = np.array([-1 if each is None else number[each] for each in facts.stations], dtype=np.intp)
    for chosen in _station_choices(counts, facts.test_share, facts.seed):
        test = known & np.isin(place, chosen)
        learn = _without_leaks(facts, known & ~test, test)
        if not len(facts.missing(learn)):
            break
    else:
        raise DataError("whichever stations are held out, a label is left without photos to learn from.")
    notes = _count(~known, "without a station {} left out of this question.")
    grouping = _station_grouping(facts, place, learn)
    if len(np.unique(grouping[learn])) < MIN_LEARN_STATIONS:
        grouping = facts.groups
        notes.append("Stations to learn from share near-duplicates, so folds inside them are by burst.")
    return _question(facts, NEW_STATION, test, known & ~test, grouping, notes)


def later(facts: Facts) -> Question:
    """Hold out the last stretch of time at each station; photos without a station count as one station.

    Raises:
        DataError: too few photos have a time, no station has photos of more than a day, or too little is left to test.
    """
    known = np.array([time is not None for time in facts.times], dtype=np.bool_)
    if known.mean() < TIMES_KNOWN:
        raise DataError(f"capture times are known for {known.sum()} of {len(known)} photos, nearly all are needed.")
    stretches = _stretches(facts)
    if not stretches:
        raise DataError("no station has photos of more than one day.")
    _keep_learnable(facts, stretches, known)
    test = _after(stretches, len(known))
    lost = facts.missing(_without_leaks(facts, known & ~test, test))
    if len(lost):
        raise DataError(f"{facts.label_names(lost)}: no photos would be left to learn from.")
    if test.sum() < facts.test_share / 4 * len(test) or len(np.unique(facts.labels[test])) < 2:
        raise DataError(
            f"the last stretch of time that can be held out has only {test.sum()} photos, "
            f"of {len(np.unique(facts.labels[test]))} labels."
        )
    notes = _count(~known, "without a time {} left out of this question.")
    if all(station is None for station in facts.stations):
        notes.append("No station is named, so all photos count as one station.")
    return _question(facts, LATER, test, known & ~test, facts.groups, notes)


def by_sequence(facts: Facts) -> Question:
    """Hold out whole sequences, with the bursts and near-duplicates that tie them together.

    Raises:
        DataError: too few photos name their sequence, or too few are independent.
    """
    known = sum(sequence is not None for sequence in facts.sequences)
    if known < SEQUENCES_KNOWN * len(facts.sequences):
        raise DataError(f"{known or 'none'} of {len(facts.sequences)} photos say which sequence they are of.")
    return _by_group(facts, NEW_SEQUENCE)


def by_group(facts: Facts) -> Question:
    """Hold out whole bursts and sets of near-duplicates.

    Raises:
        DataError: too few photos are independent.
    """
    return _by_group(facts, NEW_BURST)


def at_random(facts: Facts) -> Question:
    """Hold out photos at random, each label's share alike. Its figure is no test.

    Raises:
        DataError: no label has two photos.
    """
    rows = np.arange(len(facts.labels), dtype=np.intp)
    test = _mask(groups_of.hold_out(facts.labels, rows, facts.test_share, facts.seed), len(rows))
    if not test.any():
        raise DataError(f"{facts.label_names(rows[: len(facts.names)])}: one photo each. Add more to check on.")
    leaking = int(np.isin(facts.groups[test], facts.groups[~test]).sum())
    known = (
        f"{leaking} of {test.sum()} photos held out are of a burst or set of near-duplicates that is also learned from"
    )
    warning = f"Held out at random, so the figure flatters: {known}. Add photos of other days or stations."
    return Question(RANDOM, np.flatnonzero(test), np.flatnonzero(~test), rows, warning)


_ASKED: dict[str, Callable[[Facts], Question]] = {
    "given": as_given,
    "station": new_station,
    "later": later,
    "sequence": by_sequence,
    "group": by_group,
    "random": at_random,
}
_NAMES = {
    "given": AS_GIVEN,
    "station": NEW_STATION,
    "later": LATER,
    "sequence": NEW_SEQUENCE,
    "group": NEW_BURST,
    "random": RANDOM,
}


def _options(facts: Facts, asked: Sequence[str]) -> Iterator[Option]:
    for each in asked:
        try:
            yield Option(_NAMES[each], _ASKED[each](facts))
        except DataError as error:
            yield Option(_NAMES[each], None, str(error))


def _held_out_part(parts: Sequence[str | None]) -> str | None:
    """The part that the data set's own division holds out, if it has one."""
    return next((part for part in (TEST, VALIDATION) if part in parts), None)


def _question(
    facts: Facts, name: str, test: _Mask, rest: _Mask, grouping: Indices, notes: Sequence[str] = ()
) -> Question:
    """The question with what leaks taken out of ``rest``, after a last look at what it promises."""
    learn = _without_leaks(facts, rest, test)
    lost = facts.missing(learn)
    if len(lost):
        raise DataError(
            f"{facts.label_names(lost)}: all photos to learn from are of the same bursts or near-duplicates as photos "
            "held out. Add photos of other days, or leave the label out."
        )
    unseen = facts.missing(test)
    said = [
        *notes,
        *_count(rest & ~learn, "near-duplicate to one held out, or of its burst, {} left out of learning."),
        *([f"None is held out of {facts.label_names(unseen)}, so nothing is measured there."] if len(unseen) else []),
    ]
    return Question(name, np.flatnonzero(test), np.flatnonzero(learn), grouping, " ".join(said) or None)


def _without_leaks(facts: Facts, rest: _Mask, test: _Mask) -> _Mask:
    return np.asarray(rest & ~np.isin(facts.groups, facts.groups[test]))


def _count(rows: _Mask, said: str) -> list[str]:
    n = int(rows.sum())
    if not n:
        return []
    return [f"{n} photo{'' if n == 1 else 's'} {said.format('is' if n == 1 else 'are')}"]


def _mask(rows: Indices, n: int) -> _Mask:
    mask = np.zeros(n, np.bool_)
    mask[rows] = True
    return mask


def _held_out(facts: Facts) -> Indices:
    """One of the grouped folds, so that a single figure and those of the folds are of a kind.

    Where none of them has some of every label while others of it stay to be learned, groups are chosen label by label.
    """
    count = round(1 / facts.test_share)
    if len(np.unique(facts.groups)) >= count:
        for fold in groups_of.folds(facts.labels, facts.groups, count, facts.seed):
            if not len(facts.missing(fold)) and not len(facts.missing(~_mask(fold, len(facts.labels)))):
                return fold
    return groups_of.hold_out(facts.labels, facts.groups, facts.test_share, facts.seed)


def _by_group(facts: Facts, name: str) -> Question:
    test = _mask(_held_out(facts), len(facts.labels))
    if len(np.unique(facts.labels[test])) < min(2, len(facts.names)):
        truth = [facts.names[i] for i in facts.labels]
        thin = groups_of.thin_labels(truth, facts.groups, 2)
        raise DataError(
            f"{', '.join(thin)}: all photos are of one burst or set of near-duplicates, so none can be held out."
        )
    named = any(station is not None for station in facts.stations)
    note = "The same stations are" if named else "Stations are not known, so the same place may be"
    return _question(facts, name, test, ~test, facts.groups, [f"{note} on both sides: at a new place it may do worse."])


# --- new station


def _station_counts(facts: Facts) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The stations, and how many photos of each label each has: shape (stations, labels)."""
    places = sorted({station for station in facts.stations if station is not None})
    number = {place: i for i, place in enumerate(places)}
    counts = np.zeros((len(places), len(facts.names)), np.int64)
    for station, label in zip(facts.stations, facts.labels, strict=True):
        if station is not None:
            counts[number[station], label] += 1
    return places, counts


def _check_stations(facts: Facts, known: _Mask, places: Sequence[str], counts: npt.NDArray[np.int64]) -> None:
    if not places:
        raise DataError("the data set names no stations.")
    if len(places) < MIN_STATIONS:
        raise DataError(f"there are {len(places)} stations, {MIN_STATIONS} are needed.")
    if known.mean() < STATIONS_KNOWN:
        raise DataError(f"stations are known for {known.sum()} of {len(known)} photos, nearly all are needed.")
    at = (counts > 0).sum(axis=0)
    if (at < 2).any():
        only = [places[int(counts[:, i].argmax())] for i in range(len(at))]
        few = [
            f"{facts.names[i]} is at {f'one station only ({only[i]})' if at[i] else 'none'}"
            for i in np.flatnonzero(at < 2)
        ]
        raise DataError(f"{'; '.join(few)}. Each label must be at 2 stations or more.")


def _station_choices(counts: npt.NDArray[np.int64], share: float, seed: int) -> list[Indices]:
    """Sets of stations to hold out, best first: of about the right size, with as many labels as possible.

    Found by filling up in random order, many times: exact answers are a knapsack problem, and near ones do.
    """
    random = np.random.default_rng(seed)
    tries = {_fill(counts, share, random.permutation(len(counts))) for _ in range(_TRIES)}
    total = counts.sum()

    def merit(chosen: tuple[int, ...]) -> tuple[float, int, float, tuple[int, ...]]:
        held = counts[list(chosen)]
        off = abs(held.sum() / total - share) / share
        return max(0.0, off - 0.5), -int((held.sum(axis=0) > 0).sum()), off, chosen

    return [np.array(chosen, dtype=np.intp) for chosen in sorted(tries - {()}, key=merit)]


def _fill(counts: npt.NDArray[np.int64], share: float, order: Indices) -> tuple[int, ...]:
    """Take stations in some order, first those that bring a label not yet held out, as long as that comes nearer to
    the share, or brings a label and stays within half as much again; and each label stays at another station."""
    left, held, target = (counts > 0).sum(axis=0), np.zeros(counts.shape[1], np.int64), share * counts.sum()
    chosen: list[int] = []
    for wants_label in (True, False):
        for i in order.tolist():
            has = counts[i] > 0
            size, grown = held.sum(), held.sum() + counts[i].sum()
            closer = abs(grown - target) < abs(size - target)
            brings = bool((has & (held == 0)).any())
            fits = closer or not chosen or (brings and grown <= 1.5 * target)
            possible = i not in chosen and (left[has] > 1).all() and len(counts) - len(chosen) > MIN_LEARN_STATIONS
            if possible and fits and (brings or not wants_label):
                chosen.append(i)
                held, left = held + counts[i], left - has
    return tuple(sorted(chosen))


def _station_grouping(facts: Facts, place: Indices, learn: _Mask) -> Indices:
    """Stations, joined where photos to learn from are near-duplicates; photos of no station are on their own."""
    n = len(place)
    alone = np.arange(n, dtype=np.intp) + max(int(place.max()), int(facts.groups.max())) + 1
    return groups_of.join(np.where(place < 0, alone, place), np.where(learn, facts.groups, alone))


# --- same stations, later


@dataclass
class _Stretch:
    """The photos of a station in order of time, and how many of them come before the cut."""

    rows: Indices
    cut: int


def _stretches(facts: Facts) -> list[_Stretch]:
    seconds = np.array([_seconds(time) for time in facts.times])
    places: dict[str | None, list[int]] = {}
    for i, station in enumerate(facts.stations):
        if facts.times[i] is not None:
            places.setdefault(station, []).append(i)
    found = []
    for members in places.values():
        rows = np.array(members, dtype=np.intp)
        rows = rows[np.argsort(seconds[rows], kind="stable")]
        if seconds[rows[-1]] - seconds[rows[0]] > MIN_SPAN_DAYS * 86400:
            found.append(_Stretch(rows, _cut(facts.groups[rows], facts.test_share)))
    return found


def _cut(groups: Indices, share: float) -> int:
    """Where to cut photos in order of time: so that about the share comes after, and few before it are of a group that
    goes on after it, since those must be left out. May be the end: nothing is held out."""
    n = len(groups)
    last = {int(number): position for position, number in enumerate(groups)}
    steps = np.zeros(n + 2, np.int64)
    for position, number in enumerate(groups):  # lost to learning by a cut after it and before its group's end
        steps[position + 1] += 1
        steps[last[int(number)] + 1] -= 1
    lost = steps.cumsum()[: n + 1]
    cost = lost + np.abs(n - np.arange(n + 1) - share * n)
    return int(cost[1:].argmin()) + 1


def _keep_learnable(facts: Facts, stretches: Sequence[_Stretch], known: _Mask) -> None:
    """Cut later where that is the only way to learn a label, at the station where it costs least."""
    for label in facts.missing(_without_leaks(facts, known & ~(after := _after(stretches, len(known))), after)):
        costs = []
        for stretch in stretches:
            of_label = np.flatnonzero(facts.labels[stretch.rows] == label)
            if len(of_label):
                groups = facts.groups[stretch.rows]
                cut = int(np.flatnonzero(groups == groups[of_label[0]])[-1]) + 1
                costs.append((cut - stretch.cut, cut, stretch))
        if costs:
            _, cut, stretch = min(costs, key=lambda each: each[:2])
            stretch.cut = max(cut, stretch.cut)


def _after(stretches: Sequence[_Stretch], n: int) -> _Mask:
    return _mask(np.concatenate([stretch.rows[stretch.cut :] for stretch in stretches]), n)


def _seconds(time: str | None) -> float:
    if time is None:
        return float("nan")
    return (datetime.fromisoformat(time).replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds()
