"""Drawn camera-trap photos: a data set with a folder per class, and a camera's card to be watched.

Everything comes from the seed: the same call draws the same pictures. They are drawings, say so in banner and
EXIF, and are for trying Fieldmark out without photos of one's own; accuracy on them says nothing about the forest.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from edge.errors import DataError
from trainer.demo.animals import SPECIES, Pose, Species
from trainer.demo.camera import (
    Animal,
    Light,
    add_banner,
    expose,
    light_day,
    light_night,
    to_jpeg,
    visible_share,
)
from trainer.demo.landscape import HABITATS, WIDTH, Landscape, draw_landscape

EMPTY = "empty"
LABELS = tuple(sorted((*SPECIES, EMPTY)))
CARD_FOLDER = "DCIM/100DRAWN"
TRUTH_COLUMNS = ("photo", "label", "failure", "station", "burst", "taken")

_SPRING, _SUMMER = datetime(2025, 4, 3), datetime(2025, 6, 2)
_EMPTY_AT_NIGHT = 0.35
_DAYS = 45
_TRIES = 60
_FAR, _FAR_ON_CARD = 1.8, 0.3

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Drawn:
    """One drawn file.

    Attributes:
        path: where it lies.
        label: what is in it; empty text for files that are no whole photo.
        failure: why it cannot be read (``truncated``, ``empty``, ``video``), or empty text.
        station: as in the banner.
        burst: number of the burst it belongs to.
        taken: ISO 8601 without offset, as in EXIF.
        night: taken in infrared.
    """

    path: Path
    label: str
    station: str
    burst: int
    taken: str
    night: bool
    failure: str = ""


@dataclass(frozen=True)
class _Burst:
    """Photos of one trigger, planned but not drawn; ``reach`` above 1 puts the animals that much further away."""

    number: int
    label: str
    station: int
    start: datetime
    night: bool
    seed: int
    reach: float = 1.0


def draw_dataset(
    out: Path,
    *,
    stations: int = 6,
    bursts_per_label: int = 10,
    photos_per_burst: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Drawn]:
    """Draw ``out/LABEL/STATION/IMG_0001.JPG``...: bursts of photos, file names that repeat between stations.

    Args:
        out: a folder that is empty or does not exist.
        stations: cameras with different surroundings.
        bursts_per_label: for each of the six labels (badger, boar, deer, empty, fox, person).
        photos_per_burst: a second or two apart.
        seed: equal seeds draw equal photos.
        progress: called with (photos drawn, photos in all), from any thread.

    Raises:
        DataError: ``out`` holds something already; name another folder.
    """
    _claim(out)
    rng = np.random.default_rng([seed, 10])
    plan = [
        _plan(rng, label, (i + shift) % stations, _SPRING)
        for shift, label in enumerate(LABELS)
        for i in range(bursts_per_label)
    ]
    bursts = _in_order_of_time(plan)
    jobs, taken = [], dict.fromkeys(range(stations), 0)
    for burst in bursts:
        folder = out / burst.label / _slug(station_name(burst.station))
        jobs.append((burst, [folder / _file_name(taken[burst.station] + i) for i in range(photos_per_burst)]))
        taken[burst.station] += photos_per_burst
    return _draw_all(jobs, seed, progress)


def draw_card(
    out: Path,
    *,
    station: int = 0,
    bursts: int = 12,
    photos_per_burst: int = 3,
    seed: int = 0,
    truth: Path | None = None,
    progress: Progress | None = None,
) -> list[Drawn]:
    """Draw one camera's card, weeks after the data set: ``out/DCIM/100DRAWN/IMG_0001.JPG``..., without labels.

    Some animals are further away than any in the data set, and among the photos lie a truncated JPEG, a file of
    zero bytes and a video, as on real cards.

    Args:
        out: a folder that is empty or does not exist.
        station: number of the camera; below :func:`draw_dataset`'s ``stations`` and with its ``seed`` its
            surroundings are known from there.
        bursts: how many triggers, labels in turn.
        photos_per_burst: a second or two apart.
        seed: as for the data set.
        truth: CSV that gets the columns of ``TRUTH_COLUMNS`` (photo: path below ``out``); beside ``out`` where None.

    Raises:
        DataError: ``out`` holds something already; name another folder.
    """
    _claim(out)
    rng = np.random.default_rng([seed, 11])
    order = [LABELS[i % len(LABELS)] for i in range(bursts)]
    plan = [_plan(rng, label, station, _SUMMER) for label in rng.permutation(np.asarray(order)).tolist()]
    plan = [replace(burst, reach=_FAR) if rng.random() < _FAR_ON_CARD else burst for burst in plan]
    folder = out / CARD_FOLDER
    jobs = [
        (burst, [folder / _file_name(burst.number * photos_per_burst + i) for i in range(photos_per_burst)])
        for burst in _in_order_of_time(plan)
    ]
    drawn = _draw_all(jobs, seed, progress)
    drawn += _damaged(drawn[-1])
    _write_truth(truth or out.with_name(f"{out.name}-truth.csv"), out, drawn)
    return drawn


def station_name(station: int) -> str:
    """The name in the banner of the station with this number."""
    again = station // len(HABITATS)
    return HABITATS[station % len(HABITATS)].name + (f" {again + 1}" if again else "")


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _file_name(index: int) -> str:
    return f"IMG_{index + 1:04d}.JPG"


def _claim(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken = next(out.iterdir(), None)
    except OSError as error:
        raise DataError(f"{out} cannot be used for drawn photos: {error.strerror}. Name another folder.") from error
    if taken is not None:
        raise DataError(f"{out} is not empty (it holds {taken.name}). Name another folder or remove it.", code="exists")


def _plan(rng: np.random.Generator, label: str, station: int, first_day: datetime) -> _Burst:
    share = SPECIES[label].nocturnal if label in SPECIES else _EMPTY_AT_NIGHT
    night = bool(rng.random() < share)
    hour = rng.uniform(21.75, 28.25) if night else rng.uniform(6.25, 19.75)  # 28.25 is 04:15 on the next day
    start = first_day + timedelta(days=int(rng.integers(0, _DAYS)), seconds=int(hour * 3600))
    return _Burst(0, label, station, start, night, int(rng.integers(0, 2**31)))


def _in_order_of_time(plan: list[_Burst]) -> list[_Burst]:
    """Number the bursts by time, with five minutes between them: photos two minutes apart count as one burst."""
    ordered: list[_Burst] = []
    for number, burst in enumerate(sorted(plan, key=lambda b: b.start)):
        start = max(burst.start, ordered[-1].start + timedelta(minutes=5)) if ordered else burst.start
        ordered.append(replace(burst, number=number, start=start))
    return ordered


def _draw_all(jobs: list[tuple[_Burst, list[Path]]], seed: int, progress: Progress | None) -> list[Drawn]:
    """Draw bursts in parallel (Pillow and numpy let other threads run); returns them in order of time."""
    total, done = sum(len(paths) for _, paths in jobs), 0
    numbers = sorted({burst.station for burst, _ in jobs})
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
        drawn = pool.map(lambda number: draw_landscape(number, seed), numbers)
        landscapes = dict(zip(numbers, drawn, strict=True))
        results: list[Drawn] = []
        for photos in pool.map(lambda job: _draw_burst(landscapes[job[0].station], *job), jobs):
            results += photos
            done += len(photos)
            if progress:
                progress(done, total)
    return results


def _draw_burst(landscape: Landscape, burst: _Burst, paths: list[Path]) -> list[Drawn]:
    rng = np.random.default_rng([burst.seed, 12])
    hour = burst.start.hour + burst.start.minute / 60
    light = light_night(landscape, burst.seed) if burst.night else light_day(landscape, hour, burst.seed)
    celsius = round(9 + 7 * math.sin(math.pi * (hour - 8.5) / 12) + rng.normal(0, 3))
    steps = [0.0, *np.cumsum(rng.integers(1, 3, len(paths) - 1)).tolist()]
    scenes = _walk(landscape, burst, rng, steps)
    return [
        _take(landscape, light, burst, path, scene, seconds, celsius)
        for path, scene, seconds in zip(paths, scenes, steps, strict=True)
    ]


def _take(
    landscape: Landscape,
    light: Light,
    burst: _Burst,
    path: Path,
    animals: Sequence[Animal],
    seconds: float,
    celsius: int,
) -> Drawn:
    moment = burst.start + timedelta(seconds=seconds)
    image = expose(landscape, light, animals, burst.seed + round(10 * seconds))
    add_banner(image, moment, celsius, landscape.name)
    _write(path, to_jpeg(image, moment), moment)
    return Drawn(path, burst.label, landscape.name, burst.number, moment.isoformat(), burst.night)


def _write(path: Path, data: bytes, moment: datetime) -> None:
    """Write a file with the time that a camera would give it."""
    stamp = moment.replace(tzinfo=UTC).timestamp()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (stamp, stamp))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}. Make room, or name another folder.") from error


def _walk(landscape: Landscape, burst: _Burst, rng: np.random.Generator, steps: list[float]) -> list[list[Animal]]:
    """The animals in each photo of a burst: one walks through, others of its kind follow."""
    if burst.label == EMPTY:
        return [[] for _ in steps]
    species = SPECIES[burst.label]
    leader = _somewhere(landscape, species, burst.reach, rng, steps)
    herd = [leader]
    for _ in range(int(rng.integers(0, species.group))):
        herd.append(_follower(leader, rng))
    return [[_later(animal, seconds) for animal in herd] for seconds in steps]


def _somewhere(
    landscape: Landscape, species: Species, reach: float, rng: np.random.Generator, steps: list[float]
) -> Animal:
    """A place where enough of the animal is seen in every photo; else the best of many."""
    best, best_share = None, -1.0
    for _ in range(_TRIES):
        animal = _any_animal(species, reach, rng)
        share = min(visible_share(landscape, _later(animal, seconds)) for seconds in steps)
        if share > best_share:
            best, best_share = animal, share
        if share >= rng.uniform(0.75, 0.98):
            break
    assert best is not None  # _TRIES is above 0
    return best


def _any_animal(species: Species, reach: float, rng: np.random.Generator) -> Animal:
    near, far = reach * species.nearest_m, reach * species.farthest_m
    distance = float(near * (far / near) ** rng.random())
    side = 0.0 if rng.random() < 0.5 else 180.0
    turn = side + float(rng.uniform(-42, 42)) if rng.random() < 0.92 else float(rng.uniform(0, 360))
    pose = Pose(
        turn=turn,
        stride=float(rng.uniform(0, 6.3)),
        pace=float(rng.choice([0.0, 0.3, 0.6, 1.0])),
        head=-float(rng.uniform(0.6, 1.0)) if rng.random() < species.feeding else float(rng.uniform(-0.2, 0.6)),
        individual=float(rng.random()),
    )
    return Animal(species, float(rng.uniform(-0.02, 1.02) * WIDTH), distance, pose, int(rng.integers(0, 2**31)))


def _later(animal: Animal, seconds: float) -> Animal:
    """The same animal after some seconds: it walks where it looks, slowly enough to stay in view."""
    turn = math.radians(animal.pose.turn)
    step = 0.28 * animal.pose.pace * animal.species.height * seconds
    distance = max(animal.distance_m - step * math.sin(turn), 0.8 * animal.species.nearest_m)
    x = animal.x + step * math.cos(turn) * animal.px_per_m
    return replace(animal, x=x, distance_m=distance, pose=animal.pose.moved(seconds))


def _follower(leader: Animal, rng: np.random.Generator) -> Animal:
    away = float(rng.choice([-1, 1]) * rng.uniform(0.7, 1.5)) * max(leader.species.length, 0.8)
    distance = max(leader.distance_m + float(rng.normal(0, 0.8)), leader.species.nearest_m)
    pose = replace(
        leader.pose,
        turn=leader.pose.turn + float(rng.normal(0, 25)),
        stride=float(rng.uniform(0, 6.3)),
        individual=float(rng.random()),
    )
    x = leader.x + away * leader.px_per_m
    return replace(leader, x=x, distance_m=distance, pose=pose, seed=int(rng.integers(0, 2**31)))


def _damaged(last: Drawn) -> list[Drawn]:
    """What else lies on real cards: a photo cut off when the battery died, an empty file, a video."""
    moment = datetime.fromisoformat(last.taken)
    number = int(last.path.stem.removeprefix("IMG_"))
    whole = last.path.read_bytes()
    contents = (
        ("truncated", ".JPG", whole[: len(whole) * 2 // 5]),
        ("empty", ".JPG", b""),
        ("video", ".MP4", b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(4096)),
    )
    found = []
    for i, (failure, suffix, data) in enumerate(contents, start=1):
        path = last.path.with_name(f"IMG_{number + i:04d}{suffix}")
        _write(path, data, moment + timedelta(minutes=i))
        found.append(replace(last, path=path, label="", failure=failure))
    return found


def _write_truth(file: Path, card: Path, drawn: list[Drawn]) -> None:
    rows = [(d.path.relative_to(card).as_posix(), d.label, d.failure, d.station, d.burst, d.taken) for d in drawn]
    try:
        with file.open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows([TRUTH_COLUMNS, *rows])
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror}. Name another file.") from error
