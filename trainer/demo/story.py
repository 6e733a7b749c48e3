"""The whole story on one machine: photos, training, export, a device folder, watching, the log, the review page.

It runs the real command line, each command as a child process, just as a person would type it; what it knows of
the device it reads from what those commands print. It never alters the photos it is given and leaves nothing running.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from edge.errors import DataError, FieldmarkError

if TYPE_CHECKING:
    from trainer.dataset.samples import Sample

STATIONS, BURSTS_PER_LABEL, PHOTOS_PER_BURST, CARD_BURSTS = 4, 14, 2, 15
"""As many drawn photos as train and run in under three minutes on two cores."""
CARD_STATION = 3
HELD_OUT_FOLDS = 7
"""Of a person's photos one part in seven becomes the card."""
MOST_WRONG_SHOWN = 10
KEYS_VARIABLE = "FIELDMARK_KEYS"
_FOLDER_VARIABLES = (KEYS_VARIABLE, "FIELDMARK_CACHE", "FIELDMARK_ROOT")
CARD_FOLDER = "DCIM/100PHOTO"

Say = Callable[[str], None]


class Runner(Protocol):
    """Runs one ``fieldmark`` command."""

    def __call__(self, arguments: Sequence[str], variables: Mapping[str, str], *, capture: bool) -> str:
        """Run it to its end.

        Args:
            arguments: what follows ``fieldmark``.
            variables: set for it in addition to the environment.
            capture: return its standard output instead of showing it.

        Raises:
            FieldmarkError: it ended with an exit code other than 0.
        """


@dataclass(frozen=True)
class Truth:
    """What is known of one file on the card: its path below the card, its label, or why it cannot be read.

    ``source`` is the name that a person's own photo had.
    """

    photo: str
    label: str
    failure: str = ""
    source: str = ""


@dataclass(frozen=True)
class Wrong:
    """A photo that the device labelled otherwise."""

    photo: str
    label: str
    said: str
    confidence: float


@dataclass(frozen=True)
class Failed:
    """A file that ended as a failure, with the reason in the log; ``expected`` if it was broken on purpose."""

    photo: str
    reason: str
    expected: bool


@dataclass(frozen=True)
class Comparison:
    """The log against the truth.

    Attributes:
        files: on the card. rows: in the log, one per file.
        right, unknown: photos with the right label, and those that the model was too unsure of.
        wrong, failed: the others.
    """

    files: int
    rows: int
    right: int
    unknown: int
    wrong: tuple[Wrong, ...]
    failed: tuple[Failed, ...]

    @property
    def accuracy(self) -> float:
        """Right photos among all readable ones, ``unknown`` counted as not right; 0 to 1."""
        return self.right / max(1, self.right + self.unknown + len(self.wrong))


@dataclass(frozen=True)
class Places:
    """Where everything lies."""

    out: Path
    photos: Path
    card: Path
    truth: Path
    keys: Path
    run: Path
    bundle: Path
    device: Path
    log: Path
    page: Path

    @classmethod
    def below(cls, out: Path) -> Places:
        return cls(
            out=out,
            photos=out / "photos",
            card=out / "card",
            truth=out / "card-truth.csv",
            keys=out / "keys",
            run=out / "run",
            bundle=out / "demo.fmb",
            device=out / "device",
            log=out / "log.jsonl",
            page=out / "review.html",
        )


@dataclass(frozen=True)
class Summary:
    """What the demo did.

    Attributes:
        drawn: whether the photos were drawn.
        labels: what was learned.
        photos: how many files it was learned from.
        compared: the device's log against the truth.
        seconds: wall time of photos, train, export, flash and watch.
        places: paths of everything made.
    """

    drawn: bool
    labels: tuple[str, ...]
    photos: int
    compared: Comparison
    seconds: dict[str, float]
    places: Places

    def as_json(self) -> dict[str, Any]:
        """For ``fieldmark demo --json``."""
        c = self.compared
        return {
            "schema": 1,
            "drawn": self.drawn,
            "labels": list(self.labels),
            "photos": self.photos,
            "files": c.files,
            "rows": c.rows,
            "right": c.right,
            "unknown": c.unknown,
            "wrong": [vars(each) for each in c.wrong],
            "failed": [vars(each) for each in c.failed],
            "accuracy": round(c.accuracy, 4),
            "seconds": self.seconds,
            "paths": {name: str(path) for name, path in vars(self.places).items()},
        }


def run_demo(
    data: Path | None,
    out: Path | None = None,
    *,
    as_json: bool = False,
    say: Say | None = None,
    runner: Runner | None = None,
    seed: int = 0,
) -> Summary:
    """Tell the whole story, on the terminal, while it happens.

    Args:
        data: a folder per class, only read; None draws photos.
        out: a folder that is empty or does not exist; None takes ``fieldmark-demo`` here, or the first of
            ``fieldmark-demo-2``, ``-3``... that is free.
        as_json: tell the story on standard error, and print the summary as one JSON object on standard output.
        say: shows a line of the story; None writes it to the terminal.
        runner: runs a command; None runs the real one, which shows what it has to say where the story is told.
        seed: of the drawing and of the choice of the card.

    Raises:
        FieldmarkError: a step failed, or a file on the card has no row in the log.
        DataError: ``out`` is taken, or ``data`` cannot be used.
    """
    places = Places.below(_free(out).absolute())
    say = say or partial(typer.echo, err=as_json)
    story = _Story(places, say, runner or partial(run_command, to_stderr=as_json))
    _introduce(data, say)
    with story.step(1, "photos", "Photos"):
        labels, photos, truth = _draw(story, seed) if data is None else _divide(story, data.absolute(), seed)
    with story.step(2, "train", "Train"):
        story.command("train", places.photos, "--out", places.run)
    with story.step(3, "export", "Quantize, check on each runtime, sign"):
        story.command("export", places.run, "--out", places.bundle)
    with story.step(4, "flash", "Install on the device: a folder stands for it"):
        story.command("flash", places.bundle, places.device)
    with story.step(5, "watch", "Watch the card, read the log, make the review page"):
        _watch(story, station="" if data else _card_station())
    compared = _compare(places, truth)
    _tell(story, compared, drawn=data is None)
    summary = Summary(data is None, labels, photos, compared, story.seconds, places)
    if as_json:
        typer.echo(json.dumps(summary.as_json()))
    return summary


def run_command(
    arguments: Sequence[str], variables: Mapping[str, str], *, capture: bool, to_stderr: bool = False
) -> str:
    """Run ``fieldmark`` in a child process that starts in ``/`` and imports nothing from there.

    With ``to_stderr`` its standard output goes to standard error, unless it is captured.

    Raises:
        FieldmarkError: its exit code is not 0; what it said is on standard error already.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fieldmark", *arguments],
        cwd="/",
        env=_absolute({**os.environ, **variables}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else sys.stderr.fileno() if to_stderr else None,
        check=False,
        encoding="utf-8",
    )
    if done.returncode:
        raise FieldmarkError(
            f"the demo stopped: fieldmark {arguments[0]} ended with exit code {done.returncode}; "
            "the line above says why. What was made so far is kept."
        )
    return done.stdout or ""


def _absolute(variables: Mapping[str, str]) -> dict[str, str]:
    """The child starts in ``/``, where a relative folder of ours would be another one."""
    folders = {name: os.path.abspath(variables[name]) for name in _FOLDER_VARIABLES if variables.get(name)}
    return {**variables, **folders}


@dataclass
class _Story:
    """The steps so far."""

    places: Places
    say: Say
    runner: Runner
    seconds: dict[str, float] = field(default_factory=dict)

    def step(self, number: int, name: str, title: str) -> _Step:
        return _Step(self, number, name, title)

    def command(self, name: str, *arguments: str | Path, into: Path | None = None) -> None:
        """Show a command as a person would type it, then run it, with its output shown or ``into`` a file.

        The demo has signing keys of its own, so that it makes none in the user's home.
        """
        words = [name, *map(str, arguments)]
        variables = {} if KEYS_VARIABLE in os.environ else {KEYS_VARIABLE: str(self.places.keys)}
        target = f" > {shlex.quote(_shown(into))}" if into else ""
        self.say("")
        self.say(f"$ {_typed(words, variables if name == 'export' else {})}{target}")
        printed = self.runner(words, variables, capture=into is not None)
        if into:
            with _writing(into):
                into.write_text(printed, encoding="utf-8")


@dataclass
class _Step:
    """A heading, and below it how long the step took."""

    story: _Story
    number: int
    name: str
    title: str
    start_s: float = 0.0

    def __enter__(self) -> None:
        self.start_s = time.perf_counter()
        self.story.say("")
        self.story.say(f"{self.number}. {self.title}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        spent_s = round(time.perf_counter() - self.start_s, 1)
        self.story.seconds[self.name] = spent_s
        if kind is None:
            self.story.say(f"   Step {self.number} took {spent_s} s.")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}. Make room, or name another --out.") from error


def _introduce(data: Path | None, say: Say) -> None:
    say("Fieldmark: from labelled camera-trap photos to a log of detections, all on this machine.")
    if data is None:
        say("The photos of this demo are DRAWN by a program, none was taken. How well drawings are recognised says")
        say("nothing about a forest. For that, give your own photos: fieldmark demo --data DIR (a folder per class).")


def _free(out: Path | None) -> Path:
    """The folder to work in; made, so that nobody else takes it."""
    tries = [out] if out else [Path(f"fieldmark-demo{suffix}") for suffix in ("", *(f"-{i}" for i in range(2, 1000)))]
    for path in tries:
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not any(path.iterdir()):
                return path
        except OSError as error:
            raise DataError(f"{path} cannot be used: {error.strerror}. Name another folder with --out.") from error
    raise DataError(f"{tries[0]} already holds something. Name another folder with --out, or remove it.", code="exists")


def _draw(story: _Story, seed: int) -> tuple[tuple[str, ...], int, list[Truth]]:
    from trainer.demo import scenes
    from trainer.progress import Steps

    places, total = story.places, PHOTOS_PER_BURST * (BURSTS_PER_LABEL * len(scenes.LABELS) + CARD_BURSTS)
    with Steps().step("drawing photos", total) as advance:
        photos = scenes.draw_dataset(
            places.photos,
            stations=STATIONS,
            bursts_per_label=BURSTS_PER_LABEL,
            photos_per_burst=PHOTOS_PER_BURST,
            seed=seed,
            progress=lambda *_: advance(PHOTOS_PER_BURST),
        )
        card = scenes.draw_card(
            places.card,
            station=CARD_STATION,
            bursts=CARD_BURSTS,
            photos_per_burst=PHOTOS_PER_BURST,
            seed=seed,
            truth=places.truth,
            progress=lambda *_: advance(PHOTOS_PER_BURST),
        )
    story.say(f"   {len(photos)} drawn photos of {STATIONS} stations, by day and in infrared, in bursts of two:")
    story.say(f"   {_shown(places.photos)}, a folder for each of {', '.join(scenes.LABELS)}.")
    broken = sum(bool(each.failure) for each in card)
    story.say(
        f"   The card of one camera, weeks later, {len(card)} files, {broken} of them broken as happens on real cards:"
    )
    story.say(f"   {_shown(places.card)}. What is on it is written outside of it: {_shown(places.truth)}.")
    truth = [Truth(each.path.relative_to(places.card).as_posix(), each.label, each.failure) for each in card]
    return scenes.LABELS, len(photos), truth


def _card_station() -> str:
    from trainer.demo.scenes import station_name

    return station_name(CARD_STATION)


def _divide(story: _Story, data: Path, seed: int) -> tuple[tuple[str, ...], int, list[Truth]]:
    """Hold a part of the photos out as the card; bursts and near-duplicates stay together. ``data`` is only read."""
    from trainer.dataset import readers

    if not data.is_dir():
        raise DataError(f"{data} is not a folder. The demo takes a folder with one folder per class.")
    samples = readers.read(data)
    held = _held_out(samples, seed)
    places = story.places
    kept = [sample for sample in samples if sample.path not in held]
    with _writing(places.out):
        card = [sample for sample in samples if sample.path in held]
        truth = [_copy_to_card(sample, i, places.card) for i, sample in enumerate(card)]
        for sample in kept:
            _link(sample.path, places.photos / sample.name)
        _write_truth(places.truth, truth)
    labels = tuple(sorted({sample.label for sample in kept}))
    story.say(f"   {len(kept)} photos of {', '.join(labels)} to learn from, as links: {_shown(places.photos)}.")
    story.say(f"   {len(truth)} others as the card of a camera, as copies: {_shown(places.card)}.")
    story.say("   Bursts and near-duplicates are on one side only. Your own folder is only read.")
    return labels, len(kept), truth


def _held_out(samples: Sequence[Sample], seed: int) -> set[Path]:
    """The photos for the card: one fold of several, none of which divides a group."""
    import numpy as np

    from trainer import pixels
    from trainer.cache import cache_dir
    from trainer.dataset import split
    from trainer.photos import group_photos
    from trainer.progress import Steps
    from trainer.settings import Settings

    with Steps().step("looking for bursts and near-duplicates", len(samples)) as advance:
        decoded, _, _ = pixels.decode(samples, Settings().spec(), cache_dir(), done=lambda: advance(1))
    if not decoded:
        raise DataError(f"none of the {len(samples)} files can be read as a photo.")
    groups = group_photos(decoded)
    names = sorted({photo.sample.label for photo in decoded})
    labels = np.array([names.index(photo.sample.label) for photo in decoded], dtype=np.intp)
    fold = split.folds(labels, groups, HELD_OUT_FOLDS, seed)[0]
    return {decoded[i].sample.path for i in fold}


def _copy_to_card(sample: Sample, index: int, card: Path) -> Truth:
    """Under a camera's name, so that the name gives nothing away."""
    name = f"{CARD_FOLDER}/IMG_{index + 1:04d}{sample.path.suffix}"
    (card / CARD_FOLDER).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sample.path, card / name)
    facts = sample.path.stat()
    os.utime(card / name, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    return Truth(name, sample.label, source=sample.name)


def _link(source: Path, target: Path) -> None:
    """A link, or a copy on a disk that knows none (FAT)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _write_truth(file: Path, truth: Sequence[Truth]) -> None:
    with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("photo", "label", "failure", "source"))
        rows.writerows((each.photo, each.label, each.failure, each.source) for each in truth)


def _watch(story: _Story, station: str) -> None:
    places = story.places
    where = ["--station", station] if station else []
    story.command("watch", places.card, "--once", "--root", places.device, *where)
    story.command("log", "--root", places.device)
    story.command("log", "--root", places.device, "--json", into=places.log)
    story.command("review", "--root", places.device, "--save-html", places.page)


def _compare(places: Places, truth: Sequence[Truth]) -> Comparison:
    """Hold every file of the card against its row.

    Raises:
        FieldmarkError: a file has no row, or more than one.
    """
    rows = _rows(places.log)
    found = [_row_of(each.photo, rows) for each in truth]
    right = unknown = 0
    wrong: list[Wrong] = []
    failed: list[Failed] = []
    for each, row in zip(truth, found, strict=True):
        if row["failure"]:
            failed.append(Failed(each.photo, str(row["failure"]), bool(each.failure)))
        elif row["label"] == each.label:
            right += 1
        elif row["decision"] == "unknown":
            unknown += 1
        else:
            wrong.append(Wrong(each.photo, each.label, str(row["label"]), float(row["confidence"] or 0)))
    return Comparison(len(truth), len(rows), right, unknown, tuple(wrong), tuple(failed))


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    except ValueError as error:
        raise FieldmarkError(f"{file}: a line is not JSON: {error}. Run: fieldmark log --json") from error


def _row_of(photo: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of a file, by the end of its path: the log also holds the folder that was watched."""
    found = [row for row in rows if row["photo"] == photo or str(row["photo"]).endswith("/" + photo)]
    if len(found) != 1:
        raise FieldmarkError(f"{photo} has {len(found)} rows in the log, expected 1.", code="rows")
    return found[0]


def _tell(story: _Story, compared: Comparison, *, drawn: bool) -> None:
    say, places = story.say, story.places
    readable = compared.right + compared.unknown + len(compared.wrong)
    say("")
    say(f"{compared.files} files on the card, {compared.rows} rows in the log.")
    say(
        f"Of {readable} {'drawn' if drawn else 'readable'} photos the device labelled {compared.right} right "
        f"({compared.accuracy:.0%}), {len(compared.wrong)} wrong, and was too unsure of {compared.unknown}."
    )
    for each in compared.wrong[:MOST_WRONG_SHOWN]:
        say(f"  {each.photo}: {each.label}, the device said {each.said} ({each.confidence:.2f})")
    if len(compared.wrong) > MOST_WRONG_SHOWN:
        say(f"  and {len(compared.wrong) - MOST_WRONG_SHOWN} more; compare {_shown(places.log)} and the truth.")
    if compared.failed:
        say(f"{len(compared.failed)} files cannot be read; each has its row and reason:")
    for failure in compared.failed:
        say(f"  {failure.photo}: {failure.reason}{'' if failure.expected else ' (not expected)'}")
    _tell_places(story)


def _tell_places(story: _Story) -> None:
    say, places = story.say, story.places
    say("")
    say(f"Everything took {sum(story.seconds.values()):.0f} s and lies in {_shown(places.out)}:")
    for path, what in (
        (places.photos, "labelled photos that were learned from"),
        (places.card, "the camera's card that was watched"),
        (places.truth, "what is on the card"),
        (places.run, "the run: models, figures, mistakes; begin with report.html"),
        (places.bundle, "the signed bundle for the device"),
        (places.device, "the device, a folder in place of its disk, with the log"),
        (places.log, "the log as JSON lines"),
        (places.page, "the review page as it would open; look at it in a browser"),
    ):
        say(f"  {_shown(path):34} {what}")
    say("Nothing is left running. To review the detections in a browser:")
    say(f"  $ {_typed(['review', '--root', str(places.device)], {})}")


def _typed(words: Sequence[str], variables: Mapping[str, str]) -> str:
    """A command as it would be typed here: paths below the current folder are short."""
    shown = [_shown(Path(word)) if word.startswith("/") else word for word in words]
    prefix = [f"{name}={shlex.quote(_shown(Path(value)))}" for name, value in variables.items()]
    return " ".join([*prefix, "fieldmark", *map(shlex.quote, shown)])


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)
