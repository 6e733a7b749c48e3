"""Fieldmark beside what people run without it: the same photos, each way as a process of its own, in turns.

Beside ``fieldmark watch --once``, with its defaults and its durable rows: a plain loop of Pillow and an interpreter,
Keras ``load_img`` and ``predict`` as tutorials do it, and ``teachable-machine-lite``; these append to a CSV file.
Measured: start to the first answer, time of each photo later, peak memory, processor time, what becomes of three files
that are no whole photos, and what is left of the answers when the process is killed. ``--cold`` drops the machine's
file cache before some starts of the agent, which needs root. Linux only.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import itertools
import os
import pty
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import beside_ways, drawn, material, report
from benchmarks.report import Claim, Result
from edge.agent import plan as plans
from edge.agent import slots
from edge.agent.config import Power
from edge.agent.loop import BATCH_PHOTOS
from edge.log import store
from edge.model import runtime

OURS, ONE_CORE, ALONE = "fieldmark watch --once", "the same on one core", "its agent process alone"
LOOP, KERAS, TEACHABLE = "Pillow and interpreter", "Keras load_img and predict", "teachable-machine-lite"
REAL_PHOTOS, DRAWN_PHOTOS, ROUNDS = 64, 24, 3
FIRST_ANSWER_S = 1.5
HELD, AS_WHOLE, CRASH, SKIPPED = "a row with the reason", "answered like a whole photo", "crash", "not in the record"
_FIRST, _COLD = "start to the first answer, s", "the same, file cache dropped, s"
_NOT_WHOLE, _KILLED = "files that are no whole photos", "killed in the middle"
_FLAGGED = "answered and marked as damaged"
_POLL_S, _PATIENCE_S = 0.01, 300.0
_CACHES = Path("/proc/sys/vm/drop_caches")
_OLD_S = 1_700_000_000
_SYNCS = "fsync,fdatasync,sync_file_range,msync,syncfs"


@dataclass(frozen=True)
class Way:
    """One way to get answers.

    Attributes:
        command: makes the command for a folder of photos and a place for the answers that does not exist yet.
        said: finds in what it said how many photos are answered.
        kept: what the place for the answers holds of each photo, by its name.
    """

    name: str
    command: Callable[[Path, Path], list[str]]
    said: Callable[[bytes], int]
    kept: Callable[[Path], dict[str, str]]


@dataclass
class Ran:
    """One process from start to end.

    Attributes:
        out: the place for its answers.
        said_s: when each answer was said, since the start.
    """

    out: Path
    said_s: list[float] = field(default_factory=list)
    output: bytes = b""
    peak_mb: float = 0.0
    cpu_s: float = 0.0
    code: int = 0

    @property
    def last_line(self) -> str:
        """The end of what it said, for an error."""
        lines = [line.strip() for line in self.output.decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "it said nothing")

    @property
    def ms_per_photo(self) -> float:
        """Of the photos after the agent's first transaction, which says several at once."""
        later = len(self.said_s) - BATCH_PHOTOS
        return (self.said_s[-1] - self.said_s[BATCH_PHOTOS - 1]) / later * 1e3


def main() -> None:
    """The command."""
    options = report.parser("beside", __doc__)
    material.add_data_option(options)
    material.add_bundle_option(options)
    options.add_argument("--side", type=int, default=224, help="input side of the bundle that is trained; default 224")
    options.add_argument("--keras", type=Path, help="the run's model.keras; default: in NAME.run beside NAME.fmb")
    options.add_argument("--teachable", default=sys.executable, help=f"a Python with {TEACHABLE}; default: this one")
    options.add_argument("--photos", type=int, default=REAL_PHOTOS, help=f"real photos; default {REAL_PHOTOS}")
    options.add_argument("--drawn", type=int, default=DRAWN_PHOTOS, help=f"drawn photos; default {DRAWN_PHOTOS}")
    options.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often each is measured; default {ROUNDS}")
    options.add_argument("--cold", action="store_true", help="also start with the file cache dropped; needs root")
    chosen = options.parse_args()
    if min(chosen.photos, chosen.drawn) < 2 * BATCH_PHOTOS:
        options.error(f"--photos and --drawn: at least {2 * BATCH_PHOTOS}, two of the agent's transactions.")
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    bundle = material.bundle(options, scratch, options.side)
    root = scratch / "device"
    slot = material.device(bundle, root)
    bench = Bench(scratch, options.rounds)
    sets = {f"{len(photos)} {name}": bench.folder(photos) for name, photos in _photos(options)}
    whole = sorted(next(iter(sets.values())).iterdir())
    single = bench.folder([whole[0].read_bytes()])
    ways = [_ours(OURS, root, Power.cores), *bench.those_that_work(_others(options, bundle, slot, scratch), single)]
    detail: dict[str, Any] = {"left out": bench.left_out} if bench.left_out else {}
    detail[_FIRST] = bench.first_answers([*ways, _alone(root)], single)
    if options.cold:
        detail["the same, file cache dropped, s"] = bench.first_answers([ways[0], _alone(root)], single, cold=True)
    every = [*ways, _ours(ONE_CORE, root, 1)]
    detail |= {name: bench.compare(every, folder) for name, folder in sets.items()}
    detail[_NOT_WHOLE] = {way.name: bench.hard(way, whole) for way in ways}
    detail[_KILLED] = {way.name: bench.killed(way, next(iter(sets.values()))) for way in ways}
    claims = [claim for way in ways for claim in _claims(way.name, detail, list(sets))]
    settings = {"side": slot.manifest.input.width, "rounds": options.rounds, "cores": Power.cores, "nice": 0}
    settings |= {"beside": _versions(options.teachable)}
    return Result("beside", claims, settings, detail)


def _claims(way: str, detail: dict[str, Any], sets: Sequence[str]) -> Iterator[Claim]:
    ours = way == OURS
    if ours:
        for name in (OURS, ALONE):
            most = FIRST_ANSWER_S if name == OURS else None
            dropped = detail.get(_COLD, {}).get(name)
            yield Claim(f"start to the first durable row, {name}", _middle(detail[_FIRST][name]), "s", most)
            yield Claim(f"the same, file cache dropped, {name}", dropped and _middle(dropped), "s", most)
    else:
        ratio = _middle(detail[_FIRST][way]) / _middle(detail[_FIRST][OURS])
        yield Claim(f"start to the first answer, {way} against {OURS}", ratio, "×")
    for name in sets:
        if not ours:
            yield Claim(f"each photo, {way} against {OURS}, {name}", detail[name][way]["against ours"], "×")
        yield Claim(f"peak memory, {way}, {name}", detail[name][way]["peak_mb"], "MB")
    none = 0.0 if ours else None
    lost = sum(not what.startswith((HELD, _FLAGGED)) for what in detail[_NOT_WHOLE][way].values())
    yield Claim(f"of 3 files that are no whole photos, without a mark in the record, {way}", lost, most=none)
    killed = detail[_KILLED][way]
    yield Claim(f"of {killed['said']} answers said before a kill, lost, {way}", killed["lost"], most=none)


def _middle(found: dict[str, float]) -> float:
    return found["median"]


def _photos(options: argparse.Namespace) -> Iterator[tuple[str, list[bytes]]]:
    """The kinds of photos: real ones where there are some, and drawn ones."""
    if (options.data / "trailcam").is_dir():
        yield "real photos", [path.read_bytes() for path in material.trailcam_photos(options.data, options.photos)]
    report.say("drawing 12-megapixel photos ...")
    yield "drawn 12-megapixel photos", list(drawn.variants(drawn.photo(), options.drawn))


# --- the ways


def _ours(name: str, root: Path, cores: int) -> Way:
    """The command, each time on a device of its own, so that no log and no preview is there already."""

    def command(photos: Path, out: Path) -> list[str]:
        shutil.copytree(root, out, symlinks=True)
        settings = f"[power]\nnice = 0\ncores = {cores}\n"
        slots.Layout(out).etc.joinpath("config.toml").write_text(settings, encoding="utf-8")
        return material.python("fieldmark", "watch", photos, "--once", "--root", out, "--settle", "0")

    return Way(name, command, _rows_said, lambda out: _rows_kept(store.path_below(out)))


def _alone(root: Path) -> Way:
    """What the command becomes, without the command."""

    def command(photos: Path, out: Path) -> list[str]:
        plan = material.plan(root, photos, out, Power(nice=0))
        return material.python("edge.agent.process", plans.to_text(plan, as_json=False))

    return Way(ALONE, command, _rows_said, _rows_kept)


def _rows_said(output: bytes) -> int:
    """At a terminal the agent says how many photos have their durable rows."""
    return max(map(int, re.findall(rb"\r(\d+) photos", output)), default=0)


def _rows_kept(log: Path) -> dict[str, str]:
    with closing(store.open_for_reading(log)) as connection:
        rows = connection.execute(
            "SELECT path, failure_code, damaged, label FROM file LEFT JOIN photo ON photo.id = file.photo_id"
            " LEFT JOIN classification ON classification.photo_id = photo.id"
        ).fetchall()
    return {path: _row(code, damaged, label) for path, code, damaged, label in rows}


def _row(code: str | None, damaged: int, label: str) -> str:
    if code:
        return f"{HELD}: {code}"
    return f"{_FLAGGED if damaged else AS_WHOLE}: {label}"


def _others(
    options: argparse.Namespace, bundle: Path, slot: slots.Slot, scratch: Path
) -> Iterator[Way | tuple[str, str]]:
    """The other ways, or of one that cannot be measured its name and why."""
    labels = scratch / "labels.txt"
    labels.write_text("".join(f"{label.name}\n" for label in slot.manifest.labels), encoding="utf-8")
    yield _script(LOOP, sys.executable, f"pillow:{runtime.installed()[0].name}", slot.model_path, labels)
    network = options.keras or bundle.with_suffix(".run") / "model.keras"
    if not network.is_file():
        yield KERAS, f"there is no {network.name} beside the bundle; name it with --keras"
    elif importlib.util.find_spec("tensorflow") is None:
        yield KERAS, "TensorFlow is not installed"
    else:
        yield _script(KERAS, sys.executable, "keras", network, labels)
    yield _script(TEACHABLE, options.teachable, "teachable", slot.model_path, labels)


def _versions(python: str) -> dict[str, str]:
    """What the Python for teachable-machine-lite has; nothing where it has it not."""
    names = (TEACHABLE, "tflite-runtime")
    code = f"from importlib import metadata\nprint(*map(metadata.version, {names}))"
    with suppress(OSError):
        done = subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, check=False)
        return dict(zip(names, done.stdout.split(), strict=False))
    return {}


def _script(name: str, python: str, way: str, model: Path, labels: Path) -> Way:
    """One of :mod:`benchmarks.beside_ways`, run by its path."""
    script = Path(beside_ways.__file__).resolve()

    def command(photos: Path, out: Path) -> list[str]:
        return [python, "-P", str(script), way, *map(str, (model.resolve(), labels, out, photos))]

    def said(output: bytes) -> int:
        return len(re.findall(rb"^" + beside_ways.SAID.encode(), output, re.MULTILINE))

    return Way(name, command, said, _lines_kept)


def _lines_kept(out: Path) -> dict[str, str]:
    if not out.is_file():
        return {}
    with out.open(encoding="utf-8", newline="") as file:
        return {row[0]: f"{AS_WHOLE}: {row[1]}" for row in csv.reader(file) if len(row) == 3}


# --- measuring


class Bench:
    """Runs the ways, in turns.

    Attributes:
        left_out: ways that do not work here, and why.
    """

    def __init__(self, scratch: Path, rounds: int) -> None:
        self.left_out: dict[str, str] = {}
        self._scratch, self._rounds = scratch, rounds
        self._environment = material.environment(scratch)
        self._numbers = itertools.count()

    def folder(self, contents: Sequence[bytes]) -> Path:
        """A new folder of files that nobody has written for long; their names and times say the same order."""
        folder = self._new("photos")
        folder.mkdir()
        for number, content in enumerate(contents):
            path = folder / f"IMG_{number:04d}.JPG"
            path.write_bytes(content)
            os.utime(path, (_OLD_S + number, _OLD_S + number))
        os.sync()
        return folder

    def those_that_work(self, ways: Iterator[Way | tuple[str, str]], single: Path) -> list[Way]:
        """Ways that answer one photo here."""
        found = []
        for way in ways:
            if isinstance(way, tuple):
                self.left_out[way[0]] = way[1]
            elif trouble := self._trouble(way, single):
                self.left_out[way.name] = trouble
            else:
                found.append(way)
        for name, why in self.left_out.items():
            report.say(f"{name} is left out: {why}")
        return found

    def first_answers(self, ways: Sequence[Way], single: Path, *, cold: bool = False) -> dict[str, dict[str, float]]:
        """Seconds from the start of a process to its first answer, which is the row of one photo."""
        seconds: dict[str, list[float]] = {way.name: [] for way in ways}
        for way in self._in_turns(ways):
            if cold and not _drop_caches():
                report.say("the file cache cannot be dropped here; that needs root.")
                return {}
            seconds[way.name].append(self._whole(way, single).said_s[0])
        return {name: report.spread(values) for name, values in seconds.items()}

    def compare(self, ways: Sequence[Way], folder: Path) -> dict[str, dict[str, Any]]:
        """Each way over all photos of a folder."""
        runs: dict[str, list[Ran]] = {way.name: [] for way in ways}
        for way in self._in_turns(ways):
            report.say(f"{len(os.listdir(folder))} photos: {way.name} ...")
            runs[way.name].append(self._whole(way, folder))
        return {name: _summary(found, runs[OURS]) for name, found in runs.items()}

    def hard(self, way: Way, whole: Sequence[Path]) -> dict[str, str]:
        """What becomes of three files that are no whole photos, each between two that are."""
        before, cut, after = (path.read_bytes() for path in whole[:3])
        half = cut[: len(cut) // 2]
        files = {
            "JPEG cut in half": half,
            "JPEG cut in half, with an end marker": half + b"\xff\xd9",
            "text named as a JPEG": b"This is no photo.\n" * 400,
        }
        return {name: self._end_of(way, self.folder([before, content, after])) for name, content in files.items()}

    def killed(self, way: Way, folder: Path) -> dict[str, Any]:
        """SIGKILL once a half of the photos is answered: the answers that were said and are not on the disk. Beside
        that how often a whole run has the kernel write to the disk, without which a power cut takes the answers."""
        ran = self._run(way, folder, kill_at=len(os.listdir(folder)) // 2)
        if ran.code != -signal.SIGKILL:
            sys.exit(f"{way.name} was not killed, it ended with {ran.code}: {ran.last_line}")
        said, kept = len(ran.said_s), way.kept(ran.out)
        return {"said": said, "kept": len(kept), "lost": max(0, said - len(kept)), "syncs": self._syncs(way, folder)}

    def _end_of(self, way: Way, folder: Path) -> str:
        ran = self._run(way, folder)
        _, hard, after = sorted(path.name for path in folder.iterdir())
        kept = way.kept(ran.out)
        if ran.code:
            rest = "" if after in kept else "; no answer for the photo after it"
            return f"{CRASH}: {self._why(ran)}{rest}"
        return kept.get(hard, SKIPPED)

    def _why(self, ran: Ran) -> str:
        """Its last line, without the folder of this benchmark."""
        return ran.last_line.replace(f"{self._scratch}/", "")

    def _syncs(self, way: Way, folder: Path) -> int | str:
        if shutil.which("strace") is None:
            return "not counted: strace is not installed"
        counts = self._new("strace")
        self._run(way, folder, before=["strace", "-f", "-qq", "-e", f"trace={_SYNCS}", "-o", str(counts)])
        return len(re.findall(rf"^\d+ +(?:{_SYNCS.replace(',', '|')})\(", counts.read_text(errors="replace"), re.M))

    def _in_turns(self, ways: Sequence[Way]) -> Iterator[Way]:
        for number in range(self._rounds):
            first = number % len(ways)
            yield from (*ways[first:], *ways[:first])

    def _trouble(self, way: Way, single: Path) -> str | None:
        """Why a way does not answer one photo here."""
        try:
            ran = self._run(way, single)
        except OSError as error:
            return f"it cannot be started: {error.strerror}"
        return None if ran.code == 0 and ran.said_s else self._why(ran)

    def _whole(self, way: Way, folder: Path) -> Ran:
        """A run that must answer every photo."""
        ran, wanted = self._run(way, folder), len(os.listdir(folder))
        if ran.code or len(ran.said_s) != wanted or len(way.kept(ran.out)) != wanted:
            sys.exit(f"{way.name} answered {len(ran.said_s)} of {wanted} photos: {ran.last_line}")
        return ran

    def _run(self, way: Way, folder: Path, *, kill_at: int = 0, before: Sequence[str] = ()) -> Ran:
        """One process, at a terminal, since some speak only there."""
        out = self._new("answers")
        command = [*before, *way.command(folder, out)]
        terminal, its_end = pty.openpty()
        ran, start = Ran(out), time.perf_counter()
        child = subprocess.Popen(
            command, cwd="/", env=self._environment, stdin=subprocess.DEVNULL, stdout=its_end, stderr=its_end
        )
        os.close(its_end)
        while _heard(terminal, ran):
            ran.said_s += [time.perf_counter() - start] * (way.said(ran.output) - len(ran.said_s))
            ran.peak_mb = max(ran.peak_mb, _peak_mb(child.pid))
            if time.perf_counter() - start > _PATIENCE_S or 0 < kill_at <= len(ran.said_s):
                os.kill(child.pid, signal.SIGKILL)  # Popen's own way would take the child's end from wait4
        os.close(terminal)
        _, status, used = os.wait4(child.pid, 0)
        ran.code = child.returncode = os.waitstatus_to_exitcode(status)
        ran.cpu_s = used.ru_utime + used.ru_stime
        return ran

    def _new(self, name: str) -> Path:
        return self._scratch / f"{name}{next(self._numbers)}"


def _heard(terminal: int, ran: Ran) -> bool:
    """Wait a little for what it says; False once it has ended."""
    if not select.select([terminal], [], [], _POLL_S)[0]:
        return True
    try:
        said = os.read(terminal, 65536)
    except OSError:  # nobody has the other end any more
        return False
    ran.output += said
    return bool(said)


def _summary(runs: Sequence[Ran], ours: Sequence[Ran]) -> dict[str, Any]:
    ratios = [theirs.ms_per_photo / our.ms_per_photo for theirs, our in zip(runs, ours, strict=True)]
    return {
        "ms_per_photo": report.spread(ran.ms_per_photo for ran in runs),
        "against ours": statistics.median(ratios),
        "peak_mb": max(ran.peak_mb for ran in runs),
        "cpu_s": statistics.median(ran.cpu_s for ran in runs),
        "cpu against ours": statistics.median(ran.cpu_s / our.cpu_s for ran, our in zip(runs, ours, strict=True)),
    }


def _drop_caches() -> bool:
    os.sync()
    try:
        _CACHES.write_text("3\n", encoding="ascii")
    except OSError:
        return False
    return True


def _peak_mb(pid: int) -> float:
    """The most that it had resident so far; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


if __name__ == "__main__":
    main()
