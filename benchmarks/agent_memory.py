"""How much memory does the agent need? Starts ``fieldmark watch`` as a device does, feeds it photos, asks the kernel.

The agent runs as a child process, long-running, on a device root with a bundle. Photos appear in its folder one after
the other; once the log holds a row for each, VmRSS and VmHWM of the child are read from ``/proc``. Beside it what
numpy, the runtime and the model need alone, without an agent. Linux only.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import drawn, material, report
from benchmarks.report import Claim, Result
from edge.errors import LogError
from edge.log import store
from edge.model import runtime

MOST_MB = 80.0
SIDES = (224, 320)
REAL_PHOTOS, DRAWN_PHOTOS = 56, 4
_POLL_S, _PATIENCE_S = 0.05, 180.0

_ALONE = [
    (
        "numpy, runtime and model alone",
        "import importlib, numpy, os\n"
        "interpreter = importlib.import_module(sys.argv[3] + '.interpreter').Interpreter(\n"
        "    model_path=os.path.join(sys.argv[1], 'model.tflite'), num_threads=1)\n"
        "interpreter.allocate_tensors()\n"
        "given = interpreter.get_input_details()[0]\n"
        "interpreter.set_tensor(given['index'], numpy.zeros(given['shape'], given['dtype']))\n"
        "interpreter.invoke()",
    )
]

# What the watching process loads, in an order in which each line shows what it alone adds.
_LOADED = [
    ("Python itself", "import sys"),
    ("numpy", "import numpy"),
    ("Pillow and its formats", "import edge.photo"),
    ("watchdog", "import edge.agent.hints"),
    ("SQLite and the log", "import edge.log.store"),
    ("the rest of the agent", "import edge.agent.process, edge.agent.run"),
    (
        "runtime and model",
        "from pathlib import Path\n"
        "from edge.model import bundle, classify\n"
        "model, manifest = (Path(sys.argv[1], name).read_bytes() for name in (bundle.MODEL, bundle.MANIFEST))\n"
        "classifier = classify.Classifier(model, bundle.parse_manifest(manifest), name=sys.argv[3])",
    ),
    (
        "the first answer",
        "spec = classifier.spec\nclassifier.classify_pixels(numpy.zeros((spec.height, spec.width, 3), numpy.uint8))",
    ),
    ("a 12-megapixel photo", "classifier.classify(Path(sys.argv[2]).read_bytes())"),
]


def main() -> None:
    """The command."""
    options = report.parser("agent_memory", __doc__)
    material.add_data_option(options)
    material.add_bundle_option(options)
    options.add_argument(
        "--side", type=int, action="append", help="input side of the bundle that is trained; default 224 and 320"
    )
    options.add_argument("--runtime", choices=runtime.NAMES, action="append", help="default: all installed ones")
    options.add_argument(
        "--breakdown", action="store_true", help="also what each import adds, and the largest mappings"
    )
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    photos = _photos(options.data, scratch / "photos")
    claims: list[Claim] = []
    detail: dict[str, Any] = {}
    for side in options.side or ([0] if options.bundle else SIDES):
        bundle = material.bundle(options, scratch, side)
        for name in options.runtime or [each.name for each in runtime.installed()]:
            found = _on(bundle, name, photos, scratch / f"{name}-{side}", options.breakdown)
            if found is None:
                report.say(f"{name}: the bundle did not pass the gate there.")
                continue
            what = f"{name}, input {found['input']}"
            detail[what] = found
            most = MOST_MB if name == runtime.installed()[0].name else None
            claims.append(Claim(f"agent's memory after {len(photos)} photos, {what}", found["resident_mb"], "MB", most))
            claims.append(Claim(f"its peak, {what}", found["peak_mb"], "MB"))
            claims.append(Claim(f"numpy, runtime and model alone, {what}", found["alone_mb"], "MB"))
    return Result("agent_memory", claims, {"photos": len(photos), "drawn_12_megapixels": DRAWN_PHOTOS}, detail)


def _on(bundle: Path, name: str, photos: list[Path], scratch: Path, breakdown: bool) -> dict[str, Any] | None:
    """One bundle on one runtime; None where it may not run on it."""
    scratch.mkdir()
    admitted = material.for_runtime(bundle, name, scratch)
    if admitted is None:
        return None
    slot = material.device(admitted, scratch / "device")
    found = {"input": slot.manifest.input.width, **_watch(scratch / "device", photos, scratch / "watched", breakdown)}
    [found["alone_mb"]] = _load_in_order(_ALONE, scratch, slot.path, photos[-1], name).values()
    if breakdown:
        found["loaded, MB resident after each"] = _load_in_order(_LOADED, scratch, slot.path, photos[-1], name)
    return found


def _photos(data: Path, folder: Path) -> list[Path]:
    """Real photos where there are some, and drawn ones of 12 megapixels, of which the agent needs most."""
    folder.mkdir()
    real = material.trailcam_photos(data, REAL_PHOTOS) if (data / "trailcam").is_dir() else []
    paths = [Path(shutil.copyfile(photo, folder / f"{i:03d}{photo.suffix}")) for i, photo in enumerate(real)]
    wanted = DRAWN_PHOTOS + REAL_PHOTOS - len(real)
    for number, content in enumerate(drawn.variants(drawn.photo(), wanted)):
        paths.append(folder / f"drawn{number:03d}.jpg")
        paths[-1].write_bytes(content)
    return paths


def _watch(root: Path, photos: list[Path], folder: Path, breakdown: bool) -> dict[str, Any]:
    """Run the agent until every photo has its row; its memory in MB (10^6 bytes)."""
    folder.mkdir()
    report.say(f"{root.parent.name}: watching, {len(photos)} photos ...")
    command = material.python("fieldmark", "watch", folder, "--root", root, "--settle", "0.2")
    with (root.parent / f"{root.name}.stderr").open("w+b") as said:
        agent = subprocess.Popen(command, cwd="/", env=material.environment(root.parent), stdout=said, stderr=said)
        try:
            for count, photo in enumerate(photos, 1):
                _appear(photo, folder)
                _wait_for_rows(store.path_below(root), count, agent, said.name)
            facts = _memory(agent.pid)
            mapped = {"largest_mappings_mb": _mappings(agent.pid)} if breakdown else {}
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(timeout=60)
    return {**facts, **mapped}


def _appear(photo: Path, folder: Path) -> None:
    """A photo comes whole, by rename, as from a card reader."""
    hidden = folder / f".{photo.name}"
    shutil.copyfile(photo, hidden)
    hidden.rename(folder / photo.name)


def _wait_for_rows(log: Path, count: int, agent: subprocess.Popen[bytes], said: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while _rows(log) < count:
        if agent.poll() is not None:
            sys.exit(f"the agent ended with {agent.returncode}: {Path(said).read_text(errors='replace')[-400:]}")
        if time.monotonic() > deadline:
            sys.exit(f"no {count} rows within {_PATIENCE_S:.0f} s, {_rows(log)} are there.")
        time.sleep(_POLL_S)


def _rows(log: Path) -> int:
    if not log.is_file():
        return 0
    try:
        with closing(store.open_for_reading(log)) as connection:
            return int(connection.execute("SELECT count(*) FROM file").fetchone()[0])
    except LogError:  # it is being made
        return 0


def _memory(pid: int) -> dict[str, float]:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = dict(re.findall(r"^(Vm\w+|Rss\w+):\s+(\d+) kB", status, re.MULTILINE))
    names = {"peak_mb": "VmHWM", "resident_mb": "VmRSS", "anonymous_mb": "RssAnon", "files_mb": "RssFile"}
    return {name: int(found[field]) * 1024 / 1e6 for name, field in names.items()}


def _mappings(pid: int, most: int = 14) -> dict[str, float]:
    """Resident MB by what is mapped, the largest first."""
    sums: dict[str, int] = defaultdict(int)
    name = ""
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            parts = line.split(None, 5)
            name = Path(parts[5]).name if len(parts) == 6 else "anonymous"
        elif line.startswith("Rss:"):
            sums[name] += int(line.split()[1])
    largest = sorted(sums.items(), key=lambda item: -item[1])[:most]
    return {name: kib * 1024 / 1e6 for name, kib in largest}


def _load_in_order(steps: list[tuple[str, str]], scratch: Path, *arguments: Path | str) -> dict[str, float]:
    """Take the steps one after the other in a fresh process; resident MB after each."""
    lines = ["import sys", "def resident():", "    for line in open('/proc/self/status'):",
             "        if line.startswith('VmRSS'): print(int(line.split()[1]) * 1024 / 1e6)"]  # fmt: skip
    for _, step in steps:
        lines += [step, "resident()"]
    command = [sys.executable, "-P", "-c", "\n".join(lines), *map(str, arguments)]
    done = subprocess.run(
        command, cwd="/", env=material.environment(scratch), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the breakdown failed: {done.stderr.strip()[-400:]}")
    return dict(zip((name for name, _ in steps), map(float, done.stdout.split()), strict=True))


if __name__ == "__main__":
    main()
