"""Events: the photos of one station that follow each other closely, and what one event shows.

A photo whose time is only its file's is an event of its own: files that were copied together have one time.

An event is computed from the log each time and never stored as truth, so a photo that arrives late joins its event.
Pure functions: no file, no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

EVENT_GAP_S = 120.0
# As edge.model.decide and edge.model.taxonomy spell them; these need numpy.
EMPTY, PERSON, UNKNOWN, ANIMAL = "empty", "person", "unknown", "animal"
ALWAYS = (EMPTY, PERSON, UNKNOWN, "setup")
"""Labels that a person can give whatever the model knows; ``setup`` is the crew at the camera."""
_NO_ANIMALS = frozenset({PERSON, "vehicle"})


@dataclass(frozen=True, slots=True)
class Moment:
    """Where and when one file was taken.

    Attributes:
        file_id: its row.
        key: what names the event if this is its first photo: the same for copies of one photo.
        place: the station, or what stands for it.
        taken_s: seconds since 1970, UTC.
        timed: whether the camera said the time; False where it is only the file's.
    """

    file_id: int
    key: str
    place: str
    taken_s: float
    timed: bool = True


@dataclass(frozen=True, slots=True)
class Shot:
    """What is said of one photo of an event.

    Attributes:
        key: the same for copies of one photo, which count once.
        label: the person's, else the model's decided label; None where the photo could not be classified.
        confidence: 0 to 1.
        top: (label, probability) pairs of the model; empty where a person said the label.
        rolled_up: whether the label is a taxon that the model fell back on, such as ``Canidae`` or ``animal``.
    """

    key: str
    label: str | None
    confidence: float = 0.0
    top: tuple[tuple[str, float], ...] = ()
    rolled_up: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one event in the order of time, and the event's id."""

    id: str
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an event shows.

    Attributes:
        label: the main label, ``empty`` or ``unknown``.
        confidence: its pooled probability, 0 to 1; 0 where nothing could be said.
        also: further labels that alone passed their threshold in some photo, most likely first.
    """

    label: str
    confidence: float
    also: tuple[str, ...] = ()


def group(moments: Iterable[Moment], gap_s: float = EVENT_GAP_S, reviewed: Collection[str] = ()) -> Iterator[Group]:
    """Put photos of one place that are closer than ``gap_s`` to the one before into one event.

    A photo without a time of its own joins none and parts none.

    Args:
        moments: sorted by place and time.
        gap_s: seconds; two photos exactly so far apart belong to two events.
        reviewed: ids of events that a person has reviewed. An event keeps such an id, also when an earlier photo
            joins it later; otherwise it is called after its first photo.
    """
    current, current_number = list[Moment](), 0
    for number, moment in numbered(moments, gap_s):
        if not moment.timed:
            yield _named([moment], reviewed)
            continue
        if current and number != current_number:
            yield _named(current, reviewed)
            current = []
        current.append(moment)
        current_number = number
    if current:
        yield _named(current, reviewed)


def numbered(moments: Iterable[Moment], gap_s: float = EVENT_GAP_S) -> Iterator[tuple[int, Moment]]:
    """Each photo with the number of its event, from 1; as :func:`group`, but without holding an event in memory.

    Numbers grow; between the photos of one event there can be others, which have no time of their own.
    """
    highest, number = 0, 0
    last: Moment | None = None
    for moment in moments:
        if not moment.timed:
            highest += 1
            yield highest, moment
            continue
        if last is None or moment.place != last.place or moment.taken_s - last.taken_s >= gap_s:
            highest += 1
            number = highest
        last = moment
        yield number, moment


def verdict(shots: Sequence[Shot]) -> Verdict:
    """What an event shows, from what its photos show.

    ``person`` in any photo wins. The event is ``empty`` only if every photo is; a photo that failed counts as
    unknown. Otherwise the probabilities of the photos that are not empty are averaged, and the event is given the
    most likely of the labels that passed their own threshold in some photo; the others of these are kept as
    ``also``. A photo that failed has no probabilities and does not lower anyone's.

    A roll-up is taken to be the animal of the other photos: it counts only where none of them says more.
    """
    shots = list({shot.key: shot for shot in shots}.values())
    if not shots:
        return Verdict(UNKNOWN, 0.0)
    if all(shot.label == EMPTY for shot in shots):
        return Verdict(EMPTY, min(shot.confidence for shot in shots))
    pooled = _pool([shot for shot in shots if shot.label not in (EMPTY, None)])
    decided = _most_precise([shot for shot in shots if shot.label not in (EMPTY, UNKNOWN, None)])
    ranked = sorted(decided, key=lambda label: (-pooled[label], label))
    if PERSON in decided:
        surest = max(shot.confidence for shot in shots if shot.label == PERSON)
        return Verdict(PERSON, surest, tuple(label for label in ranked if label != PERSON))
    if not ranked:
        return Verdict(UNKNOWN, max(pooled.values(), default=0.0))
    return Verdict(ranked[0], pooled[ranked[0]], tuple(ranked[1:]))


def _named(moments: list[Moment], reviewed: Collection[str]) -> Group:
    kept = next((moment.key for moment in moments if moment.key in reviewed), moments[0].key)
    return Group(kept, tuple(moments))


def _most_precise(shots: Sequence[Shot]) -> set[str]:
    """The labels of an event's decided photos: species, else taxa, else ``animal``. People and cars hide no
    animal."""
    precise = {shot.label for shot in shots if shot.label and not shot.rolled_up}
    taxa = {shot.label for shot in shots if shot.label and shot.rolled_up}
    if precise - _NO_ANIMALS or not taxa:
        return precise
    return precise | ((taxa - {ANIMAL}) or taxa)


def _pool(shots: Sequence[Shot]) -> dict[str, float]:
    """Mean probability of each label over photos; a label that a photo's list lacks counts as 0 there."""
    sums: dict[str, float] = {}
    for shot in shots:
        chances = dict(shot.top)
        if shot.label and shot.label != UNKNOWN:
            chances.setdefault(shot.label, shot.confidence)
        for label, chance in chances.items():
            sums[label] = sums.get(label, 0.0) + chance
    return {label: total / len(shots) for label, total in sums.items()}
