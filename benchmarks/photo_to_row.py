"""How much does the agent add to what is unavoidable? One photo that was just closed to one durable row, against the
limit.

The agent: make sure that nobody writes the file, read, hash, EXIF, decode, classify, commit with ``synchronous=FULL``.
The limit: libjpeg-turbo decoding at the smallest scale that still fills the input, from memory, a bare invoke and one
synced row in SQLite, nothing else. One runtime for both, measured in turns in one process: the ratio is the number,
the milliseconds are this machine's at this hour. Beside it, what a ``fieldmark watch`` that has nothing to do needs
from the end of a photo's writing to the row that others can read.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from benchmarks import drawn, material, report
from benchmarks.report import Claim, Result
from edge import photo as photos
from edge.agent import examine, lease, loop
from edge.agent.config import Source
from edge.agent.slots import Slot
from edge.agent.watch import Watch
from edge.errors import LogError
from edge.log import store
from edge.model import decide, interpreter, preprocess, runtime
from edge.model.classify import Classifier

FULL_DECODE, KERAS = "full decode and interpreter", "Keras load_img and predict"
MOST_RATIO = 1.15
MOST_MORE_MS = 250.0
IDLE_PHOTOS, IDLE_S = 12, 1.5
REAL_PHOTOS = 60
WARM_UP = 3

Way = Callable[[Path, bytes], None]
"""Takes one photo, by its path or by its bytes."""


class Told:
    """File events of one file, which was closed at this moment."""

    def __init__(self) -> None:
        self.path: Path | None = None

    def wait(self, timeout_s: float) -> list[str]:
        path, self.path = self.path, None
        return [] if path is None else [os.fspath(path)]

    def lost(self) -> bool:
        return False

    def listen_again(self, folder: Path) -> str | None:
        return None


class Agent:
    """The agent's own path, from a file event to the committed row."""

    def __init__(self, slot: Slot, classifier: Classifier, log: Path) -> None:
        self._log = store.open_for_writing(log)
        model = loop.Model(classifier, loop.bundle_facts(slot.manifest, slot.digest), slot.development)
        self._intake = loop.Intake(self._log, model, "benchmark")
        self._stop = loop.StopFlag()
        self._hints = Told()

    def __call__(self, path: Path, data: bytes) -> None:
        self._hints.path = path
        watch = Watch([Source(path.parent)], known=self._intake.known, hints=self._hints, settle_s=0.0, look=lease.look)
        ended = [done.outcome for done in self._intake.take_all(watch.backlog(self._stop), watch.put_back) if done]
        if ended != [loop.Outcome.CLASSIFIED]:
            sys.exit(f"{path.name} ended as {ended}, expected one classified photo.")


class Interpreter:
    """A bare interpreter: no checks, no decision."""

    def __init__(self, slot: Slot, name: str) -> None:
        module = importlib.import_module(f"{name}.interpreter")
        self._interpreter = module.Interpreter(model_path=str(slot.model_path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def answer(self, pixels: np.ndarray[Any, Any]) -> None:
        """Pixels in, logits out."""
        self._interpreter.set_tensor(self._input, pixels)
        self._interpreter.invoke()
        self._interpreter.get_tensor(self._output)


class SyncedRow:
    """One row of a kilobyte in a table of its own, durable as the agent's log is."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE photo (id INTEGER PRIMARY KEY, facts BLOB)")

    def __call__(self, path: Path, data: bytes) -> None:
        self._db.execute("INSERT INTO photo (facts) VALUES (zeroblob(1000))")


class Limit:
    """libjpeg-turbo at the smallest scale that fills the input, invoke on pixels that were ready before, a row."""

    def __init__(self, interpreter: Interpreter, side: int, row: SyncedRow) -> None:
        self._interpreter, self._side, self._row = interpreter, side, row
        self._pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
        self._turbo = _simplejpeg()
        self.decoder = "simplejpeg (libjpeg-turbo)" if self._turbo else "Pillow draft (simplejpeg is not installed)"

    def __call__(self, path: Path, data: bytes) -> None:
        if self._turbo and data[:2] == b"\xff\xd8":
            self._turbo.decode_jpeg(data, "RGB", min_height=self._side, min_width=self._side)
        else:
            image = Image.open(io.BytesIO(data))
            image.draft("RGB", (self._side, self._side))
            image.load()
        self._interpreter.answer(self._pixels)
        self._row(path, data)


class FullDecode:
    """What most scripts do: Pillow decodes the whole photo, resizes it, and the interpreter answers. No log."""

    def __init__(self, interpreter: Interpreter, side: int) -> None:
        self._interpreter, self._size = interpreter, (side, side)

    def __call__(self, path: Path, data: bytes) -> None:
        with Image.open(path) as image:
            small = image.convert("RGB").resize(self._size, Image.Resampling.BILINEAR)
        self._interpreter.answer(np.asarray(small)[np.newaxis])


class Keras:
    """``load_img`` and ``predict``, as tutorials do it, in a process of its own."""

    def __init__(self, side: int, scratch: Path) -> None:
        command = material.python("benchmarks.photo_to_row", "--keras-child", str(side))
        self._child = subprocess.Popen(
            command, cwd="/", env=material.environment(scratch), text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._ask("ready?")

    def __call__(self, path: Path, data: bytes) -> None:
        self._ask(str(path))

    def close(self) -> None:
        """End the child."""
        if self._child.stdin:
            self._child.stdin.close()
        self._child.wait()

    def _ask(self, line: str) -> None:
        if not self._child.stdin or not self._child.stdout:
            return
        self._child.stdin.write(line + "\n")
        if not self._child.stdout.readline():
            sys.exit("the Keras process died.")


class Stages:
    """Where the agent's time goes: each stage's own time, without that of the stages inside it."""

    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = defaultdict(list)
        self._now: dict[str, float] = defaultdict(float)
        self._inside = [0.0]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Wrap the functions of every stage while the block runs."""
        kept = [(owner, name, getattr(owner, name)) for owner, name, _ in _STAGES]
        for owner, name, stage in _STAGES:
            setattr(owner, name, self._timed(getattr(owner, name), stage))
        try:
            yield
        finally:
            for owner, name, function in kept:
                setattr(owner, name, function)

    def photo(self, total_ms: float) -> None:
        """One photo has ended; what no stage claims is the rest."""
        for stage in {stage for _, _, stage in _STAGES}:
            self.ms[stage].append(self._now[stage])
        self.ms["everything else"].append(total_ms - sum(self._now.values()))
        self._now.clear()

    def _timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            self._inside.append(0.0)
            try:
                return function(*arguments, **named)
            finally:
                spent_ms = (time.perf_counter() - start) * 1e3
                self._now[stage] += spent_ms - self._inside.pop()
                self._inside[-1] += spent_ms

        return run


_STAGES: list[tuple[Any, str, str]] = [
    (lease, "look", "who writes it (lease)"),
    (store.Log, "seen", "log: known file?"),
    (photos, "read", "read the file"),
    (hashlib, "sha256", "SHA-256"),
    (examine, "again", "changed meanwhile?"),
    (photos, "open_image", "open"),
    (photos, "taken", "EXIF time and camera"),
    (photos, "camera_facts", "EXIF time and camera"),
    (photos, "damage", "visible damage"),
    (store.Log, "classified", "log: known photo?"),
    (preprocess, "to_pixels", "orientation, copy to numpy"),
    (ImageFile.ImageFile, "load", "decode"),
    (Image.Image, "resize", "resize"),
    (interpreter.Model, "logits", "invoke"),
    (decide, "decide", "decision"),
    (store.Log, "add_file", "commit (synced)"),
]


def main() -> None:
    """The command."""
    options = report.parser("photo_to_row", __doc__)
    material.add_data_option(options)
    material.add_bundle_option(options)
    options.add_argument("--side", type=int, default=224, help="input side of the bundle that is trained; default 224")
    options.add_argument("--runtime", choices=runtime.NAMES, help="default: the one that the agent would choose")
    options.add_argument("--photos", type=int, default=40, help="how many drawn 12-megapixel photos; default 40")
    options.add_argument("--passes", type=int, default=5, help="over the real photos; default 5")
    options.add_argument("--keras", action="store_true", help="also load_img and predict, which needs TensorFlow")
    options.add_argument("--keras-child", type=int, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.keras_child:
        _keras_child(chosen.keras_child)
        return
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    slot = material.device(material.bundle(options, scratch, options.side), scratch / "device")
    bench = _Bench(slot, options, scratch)
    report.say("drawing 12-megapixel photos ...")
    data = drawn.photo()
    big = _spread_out(drawn.variants(data, options.photos + WARM_UP), scratch / "drawn")
    sets = {"drawn 12-megapixel photo": bench.measure([big], lambda path: "one photo")}
    real = _real(options.data, scratch / "real")
    if real:
        sets[f"{len(real)} real photos"] = bench.measure([real] * (options.passes + 1), str)
    claims = [claim for name, each in sets.items() for claim in _claims(name, each, bench.runtime)]
    idle_ms = _from_idle(scratch / "device", data, scratch / "watched")
    more_ms = idle_ms - next(iter(sets.values()))["limit"]["ms"]
    what = "from idle: end of writing to durable row, drawn 12-megapixel photo, more than the limit"
    claims.append(Claim(what, more_ms, "ms", MOST_MORE_MS))
    found: dict[str, Any] = {**sets, "from idle, median ms": idle_ms}
    found["where the agent's time goes, drawn photo, median ms"] = bench.stages(big)
    if real:
        found["where the agent's time goes, real photos, mean ms"] = bench.stages(real, statistics.fmean)
    bench.close()
    settings = {"side": slot.manifest.input.width, "runtime": bench.runtime, "threads": 1}
    settings |= {"limit_decodes_with": bench.limit.decoder, "photo_bytes": len(data)}
    return Result("photo_to_row", claims, settings, found)


def _claims(name: str, found: dict[str, Any], runtime_name: str) -> list[Claim]:
    """Only the drawn photo has a target: of the small real ones the fixed costs are more."""
    most = MOST_RATIO if name.startswith("drawn") else None
    ours = f"photo to durable row, {name}, {runtime_name}"
    claims = [Claim(f"{ours}, against the limit", found["limit"]["ratio"]["median"], "×", most)]
    others = {way: 1 / found[way]["ratio"]["median"] for way in (FULL_DECODE, KERAS) if way in found}
    return claims + [Claim(f"{way} (no row) against {ours}", ratio, "×") for way, ratio in others.items()]


class _Bench:
    """Everything that is measured in turns, on one model."""

    def __init__(self, slot: Slot, options: argparse.Namespace, scratch: Path) -> None:
        self._slot, self._scratch, self._logs = slot, scratch, 0
        self._classifier = Classifier(slot.model_path, slot.manifest, name=options.runtime)
        self.runtime, side = self._classifier.runtime, slot.manifest.input.width
        interpreter = Interpreter(slot, self.runtime)
        row = SyncedRow(scratch / "row.db")
        self.limit = Limit(interpreter, side, row)
        self._ways: dict[str, Way] = {
            "limit": self.limit,
            FULL_DECODE: FullDecode(interpreter, side),
            "one synced row": row,
        }
        self._keras = Keras(side, scratch) if options.keras else None
        if self._keras:
            self._ways[KERAS] = self._keras

    def close(self) -> None:
        """End what was started."""
        if self._keras:
            self._keras.close()

    def agent(self) -> Agent:
        """An agent with a new log, which knows no photo."""
        self._logs += 1
        return Agent(self._slot, self._classifier, self._scratch / f"log{self._logs}.db")

    def measure(self, passes: Sequence[Sequence[Path]], same: Callable[[Path], str]) -> dict[str, Any]:
        """Compare the agent with every other way, one after the other: what a third leaves in the caches, on the
        heap or in running threads would disturb both."""
        return {name: self.compare(passes, name, way, same) for name, way in self._ways.items()}

    def compare(
        self, passes: Sequence[Sequence[Path]], name: str, way: Way, same: Callable[[Path], str]
    ) -> dict[str, Any]:
        """Take each photo in both ways, now the one first, now the other.

        Args:
            passes: the photos of each pass over them.
            name, way: with what the agent is compared.
            same: photos for which it says the same are taken for one photo.

        Returns:
            The ratio of each single turn, as median and quartiles, which bears other work on the machine best; the
            same of processor time, which leaves out all waiting, also for the disk; the milliseconds of both, each
            the median of a photo, averaged over the photos, and their ratio.
        """
        report.say(f"agent and {name}: {len(passes[0])} photos, {len(passes)} times ...")
        turns = [turn for paths in passes for turn in _in_turns(paths, self.agent(), way)]
        del turns[: WARM_UP if len(passes) == 1 else len(passes[0])]
        agent_ms = _typical([(turn.path, turn.agent.wall_ms) for turn in turns], same)
        ms = _typical([(turn.path, turn.other.wall_ms) for turn in turns], same)
        single = report.spread(turn.agent.wall_ms / turn.other.wall_ms for turn in turns)
        cpu = statistics.median(turn.agent.cpu_ms / max(turn.other.cpu_ms, 1e-3) for turn in turns)
        return {"ratio": single, "ratio_of_cpu": cpu, "agent_ms": agent_ms, "ms": ms, "ratio_of_ms": agent_ms / ms}

    def stages(
        self, paths: Sequence[Path], middle: Callable[[list[float]], float] = statistics.median
    ) -> dict[str, float]:
        """The agent alone on the same photos, with a watch on each stage."""
        report.say("profiling ...")
        agent, stages, totals = self.agent(), Stages(), []
        with stages.watching():
            for path in paths:
                start = time.perf_counter()
                agent(path, b"")
                totals.append((time.perf_counter() - start) * 1e3)
                stages.photo(totals[-1])
        typical = {stage: middle(values[WARM_UP:]) for stage, values in stages.ms.items()}
        ordered = dict(sorted(typical.items(), key=lambda item: -item[1]))
        return {**ordered, "all of it": middle(totals[WARM_UP:])}


@dataclass(frozen=True)
class Spent:
    """Time by the clock, and of this process on the processor."""

    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Turn:
    """One photo taken in both ways."""

    path: Path
    agent: Spent
    other: Spent


def _in_turns(paths: Sequence[Path], agent: Way, other: Way) -> Iterator[Turn]:
    """Take each photo in both ways before the next photo; who goes first changes with each photo."""
    for number, path in enumerate(paths):
        data = path.read_bytes()
        if number % 2:
            others, agents = _timed(other, path, data), _timed(agent, path, data)
        else:
            agents, others = _timed(agent, path, data), _timed(other, path, data)
        yield Turn(path, agents, others)


def _timed(way: Way, path: Path, data: bytes) -> Spent:
    start, start_cpu = time.perf_counter(), time.process_time()
    way(path, data)
    return Spent((time.perf_counter() - start) * 1e3, (time.process_time() - start_cpu) * 1e3)


def _typical(measured: Sequence[tuple[Path, float]], same: Callable[[Path], str]) -> float:
    """The median of each photo's milliseconds, averaged over the photos."""
    each: dict[str, list[float]] = defaultdict(list)
    for path, ms in measured:
        each[same(path)].append(ms)
    return statistics.fmean(statistics.median(values) for values in each.values())


def _spread_out(contents: Iterator[bytes], folder: Path) -> list[Path]:
    """Each photo in a folder of its own, so that a search finds it alone, and on the disk, so that no commit of the
    log has to write it."""
    paths = []
    for number, content in enumerate(contents):
        path = folder / f"{number:03d}" / f"IMG_{number:04d}.JPG"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        paths.append(path)
    os.sync()
    return paths


def _real(data: Path, folder: Path) -> list[Path]:
    """Copies of real photos, each in a folder of its own; none where there are none."""
    if not (data / "trailcam").is_dir():
        report.say(f"there is no {data / 'trailcam'}: only the drawn photo is measured.")
        return []
    paths = []
    for number, photo in enumerate(material.trailcam_photos(data, REAL_PHOTOS)):
        path = folder / f"{number:03d}" / photo.name
        path.parent.mkdir(parents=True)
        shutil.copyfile(photo, path)
        paths.append(path)
    os.sync()
    return paths


def _from_idle(root: Path, photo: bytes, folder: Path) -> float:
    """Median milliseconds of ``fieldmark watch`` that has waited for a while, from the end of a file's writing to the
    row that another process reads."""
    folder.mkdir()
    report.say(f"watching, {IDLE_PHOTOS} photos that come one at a time ...")
    command = material.python("fieldmark", "watch", folder, "--root", root)
    log, took_ms = store.path_below(root), []
    agent = subprocess.Popen(
        command, cwd="/", env=material.environment(root.parent), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for number, content in enumerate(drawn.variants(photo, IDLE_PHOTOS)):
            if number:
                time.sleep(IDLE_S)  # until it has nothing to do
            path = folder / f"IMG_{number:04d}.JPG"
            path.write_bytes(content)
            closed = time.perf_counter()
            _wait_for_rows(log, number + 1, agent)
            took_ms.append((time.perf_counter() - closed) * 1e3)
    finally:
        agent.terminate()
        agent.wait(timeout=60)
    return statistics.median(took_ms[1:])  # of the first, the start is a part


def _wait_for_rows(log: Path, count: int, agent: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 60.0
    while True:
        with suppress(LogError), closing(store.open_for_reading(log)) as connection:
            while connection.execute("SELECT count(*) FROM classification").fetchone()[0] < count:
                if agent.poll() is not None or time.monotonic() > deadline_s:
                    sys.exit(f"the agent did not log photo {count}.")
                time.sleep(0.001)
            return
        time.sleep(0.01)  # the log is not there yet
        if agent.poll() is not None or time.monotonic() > deadline_s:
            sys.exit("the agent made no log.")


def _simplejpeg() -> Any:
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None


def _keras_child(side: int) -> None:
    """Answers each path on standard input with a line."""
    from trainer.quiet import silence

    silence()
    import keras
    import tensorflow as tf

    from trainer.backbones import DEFAULT, backbone

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    network = backbone(DEFAULT).build(side, side, top=True)
    for line in sys.stdin:
        if Path(line.strip()).is_file():
            image = keras.utils.load_img(line.strip(), target_size=(side, side))
            network.predict(np.asarray(image, np.uint8)[np.newaxis], verbose=0)
        print("done", flush=True)


if __name__ == "__main__":
    main()
