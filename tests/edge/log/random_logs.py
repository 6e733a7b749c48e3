"""Random logs: the same seed makes the same one. :func:`entries` chooses what is put in, :func:`write` puts it in.

Made for collisions: few names, few photos, few times, and these at the edges of the rules, so that copies, failures,
retries, equal times and times exactly at a limit are common. Nothing is compared here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from unittest import mock

from edge.log import store, times
from edge.log.query import Filter
from edge.log.store import BundleFacts, Detection, Failure, FileFacts, FileKey, Observation, PhotoFacts, TimeShift
from edge.photo import Taken
from tests.edge.log import reference
from tests.edge.log.reference import Entries, Read

LABELS = ("deer", "empty", "fox", "Żubr", "person", "vehicle")
GROUPS = ("Cervidae", "animal")
TYPED = ("deer", "FOX", "empty", "Person", "unknown", "setup", "żubr", "Z\u0307ubr", "roe  deer", "Cervidae", "=1+1")
STATIONS = (None, "beech", "oak", "=elm", "dev:/a")  # the last is also what stands for a folder without a station
SERIES = ("IMG_", "IMG_", "IMG_", "100/IMG_", 'a "b", ')
OFFSETS = ("+00:00", "+01:00", "+02:00", "-05:00", "+14:00", "-14:00", "+05:45")
# The log compares times to the thousandth of a second, and no two of these are nearly a second apart.
FRACTIONS = ("", ".5", ".12", ".250")
STEPS_S = (0, 1, 60, 119, 120, 121, 240, 1_800)
DAYS = (
    datetime(2024, 5, 1, 6),
    datetime(2024, 5, 1, 23, 59, 30),
    datetime(2024, 3, 31, 1, 59, 30),  # a night in which clocks are set forward
    datetime(2024, 10, 27, 1, 59),  # and back
    datetime(1900, 1, 1, 0, 5),  # the first and the last year that a photo can have
    datetime(2199, 12, 31, 23, 30),
    datetime(2000, 12, 31, 23, 58),
    datetime(2010, 1, 1),
)
GAPS_S = (1.0, 60.0, 120.0, 5_000.0)
INTERVALS_S = (1.0, 60.0, 120.0, 1_800.0)

# The first two are one model: a bundle that only decides otherwise says nothing new.
BUNDLES = tuple(
    BundleFacts(f"b{i}" * 32, f"model-{i}", model * 32, LABELS, (0.5,) * len(LABELS), 1.0)
    for i, model in enumerate(("a0", "a0", "a1", "a2"))
)


@dataclass(frozen=True)
class World:
    """What one log is made of: little of everything, so that photos meet."""

    random: Random
    days: Sequence[datetime]
    stations: Sequence[str | None]
    offsets: Sequence[str]
    steps_s: Sequence[int]
    fractions: Sequence[str]
    labels: Sequence[str]

    @classmethod
    def of(cls, random: Random) -> World:
        return cls(
            random,
            random.sample(DAYS, random.choice([1, 1, 2, 3])),
            random.sample(STATIONS, random.choice([1, 1, 2, 5])),
            random.sample(OFFSETS, random.choice([1, 1, 2])),
            random.sample([*STEPS_S, random.randint(0, 1_500), random.randint(0, 1_500)], random.choice([2, 3, 8])),
            random.choice([FRACTIONS, FRACTIONS[:1]]),
            random.sample(LABELS, random.choice([2, 3, 6])),
        )

    def time(self) -> datetime:
        return self.random.choice(self.days) + timedelta(seconds=self.random.choice(self.steps_s))

    def local(self) -> str:
        """A time as a camera writes it."""
        return self.time().isoformat() + self.random.choice(self.fractions)


def entries(seed: int) -> Entries:
    """What is put into a log: up to 25 reads of files, and some reviews and corrections."""
    random = Random(seed)
    world = World.of(random)
    reads: list[Read] = []
    for i in range(random.randint(1, 25)):
        reads.append(_read(world, reads, i))
    photos = sorted({read.photo.sha256 for read in reads if read.photo})
    return Entries(
        BUNDLES,
        tuple(reads),
        tuple((random.choice(photos), _typed(random)) for _ in range(random.randint(0, 5)) if photos),
        tuple(random.choice(photos)[:16] for _ in range(random.randint(0, 3)) if photos),
        tuple(_shift(world, reads) for _ in range(random.choice([0, 0, 1, 2, 4]))),
    )


def starts(seed: int) -> Mapping[str, datetime]:
    """When the first deployments of some stations began."""
    random = Random(f"starts {seed}")
    stations = random.sample([each for each in STATIONS if each], random.randint(0, 2))
    return {each: (random.choice(DAYS) + _step(random)).replace(tzinfo=UTC) for each in stations}


def question(random: Random, put: Entries) -> Filter:
    """A filter that has something to do with this log."""
    return Filter(
        species=random.choice(TYPED) if random.random() < 0.3 else None,
        station=random.choice(STATIONS) if random.random() < 0.3 else None,
        since=_limit(random, put) if random.random() < 0.4 else None,
        until=_limit(random, put) if random.random() < 0.4 else None,
        below=random.choice([0.5, 0.75]) if random.random() < 0.2 else None,
        all_models=random.random() < 0.4,
    )


def write(path: Path, put: Entries) -> None:
    """Make the log by the calls that the agent and the review page use."""
    with store.open_for_writing(path) as log, log.batch():
        for bundle in put.bundles:
            log.add_bundle(bundle)
        for read in put.reads:
            with mock.patch.object(store, "_now_utc", return_value=store._text(read.seen)):
                log.add_file(read.file, photo=read.photo, detection=read.detection, failure=read.failure)
        for sha256, labels in put.reviews:
            log.add_review(sha256, [Observation(label) for label in labels], "Ada")
        for event in put.event_reviews:
            log._db.execute("INSERT INTO review (event, who, created_utc) VALUES (?, 'Ada', '')", (event,))
        for shift in put.shifts:
            log.add_shift(shift)


def _read(world: World, before: Sequence[Read], i: int) -> Read:
    """A file, or one that was read before; a file keeps its time and, once it was decoded, its photo."""
    random = world.random
    file, photo = _file(world, before, i)
    outcome = random.choice(["answered", "answered", "answered", "answered", "cut", "model failed", "copy"])
    seen = max(world.time() + _late(random), datetime(2024, 1, 1)).replace(tzinfo=UTC)
    failure = Failure("truncated", f"={outcome} {i}", retry=random.random() < 0.5)
    if outcome == "cut" and photo is None:
        return Read(file, None, None, failure, seen)
    known = [read.photo for read in before if read.detection and read.photo]
    if outcome == "copy" and known and (photo is None or photo in known):
        return Read(file, photo or random.choice(known), None, None, seen)
    photo = photo or PhotoFacts(_sha256(random.randint(0, 14)), 40, 30, damaged=random.random() < 0.1)
    if outcome == "model failed":
        return Read(file, photo, None, failure, seen)
    return Read(file, photo, _detection(world), None, seen)


def _file(world: World, before: Sequence[Read], i: int) -> tuple[FileFacts, PhotoFacts | None]:
    """A file, and its photo if it was decoded before; at times one with the name of another."""
    random = world.random
    chance = random.random()
    path = f"{random.choice(SERIES)}{random.randint(0, 40):04}.jpg"
    key = FileKey(random.choice(["dev", "dev", "other"]), random.choice(["/a", "/b", "/"]), path, 10, i)
    if before and chance < 0.3:
        file = random.choice(before).file
        if chance < 0.2:
            return file, next((read.photo for read in before if read.file.key == file.key and read.photo), None)
        key = replace(file.key, mtime_ns=1_000 + i)
    return FileFacts(key, _taken(world), random.choice(world.stations)), None


def _taken(world: World) -> Taken:
    random = world.random
    flags = random.sample(["offset-assumed", "not-exif"], random.randint(0, 2))
    source = random.choice(["exif", "exif", "exif", "name", "file"])
    return Taken(world.local(), random.choice(world.offsets), source, tuple(flags))


def _detection(world: World) -> Detection:
    """Probabilities are 16ths and parts of them, so that sums are exact and equal means are equal."""
    random = world.random
    chance = random.randint(0, 16) / 16
    names = random.sample(world.labels, random.randint(1, min(3, len(world.labels))))
    top = tuple((name, chance / 2**i) for i, name in enumerate(names))
    decision = random.choice(["species", "species", "species", "rollup", "unknown"])
    label = {"rollup": random.choice(GROUPS), "unknown": "unknown"}.get(decision, names[0])
    decision = "empty" if label == "empty" else decision
    return Detection(random.choice(BUNDLES), "shades", label, chance, decision, top, b"", False)


def _shift(world: World, reads: Sequence[Read]) -> TimeShift:
    """A correction; its limits are times of photos, often of the last that it holds for and the first after it."""
    random = world.random
    limits = [times.as_camera(datetime.fromisoformat(read.file.taken.local)) for read in reads]
    return TimeShift(
        random.choice([-3_600, -100, -1, 59, 120, 3_600, 86_400, -366 * 86_400, 300 * 86_400]),
        "slow",
        "Ada",
        station=random.choice([None, None, random.choice(STATIONS), *world.stations]),
        since_local=random.choice([None, None, random.choice(limits)]),
        until_local=random.choice([None, random.choice(limits)]),
        device=random.choice([None, None, "dev"]),
        source=random.choice([None, None, None, "/a"]),
        file_times=random.random() < 0.4,
    )


def _typed(random: Random) -> tuple[str, ...]:
    return tuple(random.sample(TYPED, random.choice([1, 1, 2])))


def _limit(random: Random, put: Entries) -> str:
    """The day, the minute or the time of a photo of this log, or one near it; at times with an offset."""
    file = random.choice(reference.files(put.reads))
    moment = datetime.fromisoformat(reference.corrected(put, file)) + random.choice([0, 0, 0, 1]) * _step(random)
    text = moment.isoformat()[: random.choice([10, 16, 26, 26, 26])]
    return text + random.choice(["", "", file.facts.taken.utc_offset, "Z"] if len(text) > 10 else [""])


def _step(random: Random) -> timedelta:
    return timedelta(seconds=random.choice(STEPS_S))


def _late(random: Random) -> timedelta:
    """How long after the photos a device sees them; before them where a camera's clock is ahead."""
    return timedelta(hours=random.choice([-26, -26, -2, -1, 0, 1, 30 * 24]))


def _sha256(number: int) -> str:
    return f"{number:016x}".ljust(64, "0")
