"""How much does the agent add to what is unavoidable? One photo on disk to one durable row, against the limit.

The agent: search the folder, make sure that nobody writes the file, read, hash, EXIF, decode, classify, commit with
``synchronous=FULL``. The limit: libjpeg-turbo decoding at the smallest scale that still fills the input, from memory,
and a bare invoke, nothing else. One thread, one runtime for both, measured in turns in one process: the ratio is the
number, the milliseconds are this machine's at this hour.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from benchmarks import drawn, material, report
from benchmarks.report import Claim, Result
from edge import photo as photos
from edge.agent import lease, loop
from edge.agent.config import Source
from edge.agent.hints import FileEvents
from edge.agent.slots import Slot
from edge.agent.watch import Watch
from edge.log import store
from edge.model import decide, preprocess, runtime
from edge.model.classify import Classifier

MOST_RATIO = 1.3
REAL_PHOTOS = 60
WARM_UP = 3

Way = Callable[[Path, bytes], None]
"""Takes one photo, by its path or by its bytes."""


class Agent:
    """The agent's own path, from the folder to the committed row."""

    def __init__(self, slot: Slot, classifier: Classifier, log: Path) -> None:
        self._log = store.open_for_writing(log)
        model = loop.Model(classifier, loop.bundle_facts(slot.manifest, slot.digest), slot.development)
        self._intake = loop.Intake(self._log, model, "benchmark")
        self._stop = loop.StopFlag()
        self._hints = FileEvents()

    def __call__(self, path: Path, data: bytes) -> None:
        watch = Watch(
            [Source(path.parent)], known=self._intake.known, hints=self._hints, settle_s=0.0, look=lease.look
        )
        ended = [done.outcome for done in self._intake.take_all(watch.backlog(self._stop), watch.put_back)]
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


class Limit:
    """libjpeg-turbo at the smallest scale that fills the input, then invoke on pixels that were ready before."""

    def __init__(self, interpreter: Interpreter, side: int) -> None:
        self._interpreter, self._side = interpreter, side
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
    (loop, "again", "changed meanwhile?"),
    (photos, "open_image", "open"),
    (photos, "taken", "EXIF time and camera"),
    (photos, "camera", "EXIF time and camera"),
    (store.Log, "classified", "log: known photo?"),
    (preprocess, "to_pixels", "orientation, copy to numpy"),
    (ImageFile.ImageFile, "load", "decode"),
    (Image.Image, "resize", "resize"),
    (runtime.Model, "logits", "invoke"),
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
    big = _spread_out(drawn.variants(data, options.photos + WARM_UP), scratch / "drawn", ".jpg")
    found = {"drawn 12 megapixels": bench.ratios("drawn", [big], options.photos)}
    real = _real(options.data, scratch / "real")
    if real:
        found[f"{len(real)} real photos"] = bench.ratios("real", [real] * options.passes, len(real))
    found["where the agent's time goes on the drawn photo (median ms)"] = bench.stages(big)
    bench.close()
    settings = {"side": slot.manifest.input.width, "runtime": bench.runtime, "limit decodes with": bench.limit.decoder}
    settings |= {"photo_bytes": len(data), "threads": 1}
    return Result("photo_to_row", _claims(found, bench), settings, found)


def _claims(found: dict[str, Any], bench: _Bench) -> list[Claim]:
    claims = []
    for name, each in found.items():
        if "against the limit" in each:
            ratio = each["against the limit"]["median"]
            claims.append(Claim(f"photo to durable row against the limit, {name}, {bench.runtime}", ratio, "×", MOST_RATIO))
            claims += [
                Claim(f"{other} against photo to durable row, {name}", each[other]["median"] / each["agent"]["median"], "×")
                for other in bench.others
            ]
    return claims


class _Bench:
    """Everything that is measured in turns, on one model."""

    def __init__(self, slot: Slot, options: argparse.Namespace, scratch: Path) -> None:
        self._slot, self._scratch, self._logs = slot, scratch, 0
        self._classifier = Classifier(slot.model_path, slot.manifest, name=options.runtime)
        self.runtime, side = self._classifier.runtime, slot.manifest.input.width
        interpreter = Interpreter(slot, self.runtime)
        self.limit = Limit(interpreter, side)
        self.others: dict[str, Way] = {"full decode and interpreter": FullDecode(interpreter, side)}
        self._keras = Keras(side, scratch) if options.keras else None
        if self._keras:
            self.others["Keras load_img and predict"] = self._keras

    def close(self) -> None:
        """End what was started."""
        if self._keras:
            self._keras.close()

    def agent(self) -> Agent:
        """An agent with a new log, which knows no photo."""
        self._logs += 1
        return Agent(self._slot, self._classifier, self._scratch / f"log{self._logs}.db")

    def ratios(self, name: str, passes: Sequence[Sequence[Path]], count: int) -> dict[str, Any]:
        """Take all photos in all ways, in turns, and compare."""
        ms: dict[str, list[float]] = defaultdict(list)
        for number, paths in enumerate(passes, 1):
            report.say(f"{name}: pass {number} of {len(passes)}, {len(paths)} photos, {2 + len(self.others)} ways ...")
            in_turns(paths, {"agent": self.agent(), "limit": self.limit, **self.others}, ms)
        measured = {way: values[-count * len(passes) :] for way, values in ms.items()}  # without the warm-up
        pairs = [agent / limit for agent, limit in zip(measured["agent"], measured["limit"], strict=True)]
        middle = statistics.median(measured["agent"]) / statistics.median(measured["limit"])
        against = {**report.spread(pairs), "ratio of medians": middle}
        spreads = {way: report.spread(values) for way, values in measured.items()}
        return {"against the limit": against, **spreads}

    def stages(self, paths: Sequence[Path]) -> dict[str, float]:
        """The agent alone on the same photos, with a watch on each stage."""
        report.say("profiling ...")
        agent, stages, totals = self.agent(), Stages(), []
        with stages.watching():
            for path in paths:
                start = time.perf_counter()
                agent(path, b"")
                totals.append((time.perf_counter() - start) * 1e3)
                stages.photo(totals[-1])
        medians = {stage: statistics.median(values[WARM_UP:]) for stage, values in stages.ms.items()}
        ordered = dict(sorted(medians.items(), key=lambda item: -item[1]))
        return {**ordered, "all of it": statistics.median(totals[WARM_UP:])}


def in_turns(paths: Sequence[Path], ways: dict[str, Way], ms: dict[str, list[float]]) -> None:
    """Take each photo in every way before the next photo; who goes first changes with each photo."""
    names = list(ways)
    for number, path in enumerate(paths):
        data = path.read_bytes()
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            ways[name](path, data)
            ms[name].append((time.perf_counter() - start) * 1e3)


def _spread_out(contents: Iterator[bytes], folder: Path, suffix: str) -> list[Path]:
    """Each photo in a folder of its own, so that a search finds it alone, and on the disk, so that no commit of the
    log has to write it."""
    paths = []
    for number, content in enumerate(contents):
        path = folder / f"{number:03d}" / f"IMG_{number:04d}{suffix}"
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
