"""How long does the agent need to find out that nothing is new, and how much memory? A start on 100,000 known photos.

The files are empty but for one byte, since a known photo is never opened; the log has a row for each. A child process
opens the log, listens for file events and searches, as the agent does at its start, with everything loaded but the
model. Memory is what the search adds at its peak. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import Claim, Result

PHOTOS = 100_000
MOST_S, MOST_MB = 10.0, 20.0
_DEVICE, _MTIME_S = "benchmark", 1_700_000_000
_BATCH = 1_000


def main() -> None:
    """The command."""
    options = report.parser("known_folder", __doc__)
    options.add_argument("--photos", type=int, default=PHOTOS, help=f"files in the folder; default {PHOTOS}")
    options.add_argument("--child", nargs=2, metavar=("FOLDER", "LOG"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        print(json.dumps(_search(*map(Path, chosen.child))))
        return
    memory = Path("/dev/shm")  # the search reads no photo, and filling the log is not what is measured
    with tempfile.TemporaryDirectory(
        prefix="fieldmark-benchmark-", dir=memory if os.access(memory, os.W_OK) else None
    ) as scratch:
        report.finish(_measure(chosen.photos, Path(scratch)), chosen)


def _measure(count: int, scratch: Path) -> Result:
    folder, log = scratch / "photos", scratch / "log.db"
    report.say(f"making {count} files and their rows ...")
    _fill(folder, log, count)
    command = [sys.executable, "-P", "-m", "benchmarks.known_folder", "--child", str(folder), str(log)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        command, cwd="/", env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the search failed: {done.stderr.strip()[-400:]}")
    found = json.loads(done.stdout)
    if found["known"] != count:
        sys.exit(f"the search knew {found['known']} of {count} files.")
    claims = [
        Claim(f"start on a folder of {count} known photos", found["listen_s"] + found["search_s"], "s", MOST_S),
        Claim(f"memory that it adds, of {count} known photos", found["added_mb"], "MB", MOST_MB),
    ]
    return Result("known_folder", claims, {"photos": count, "folders": 1}, found)


def _fill(folder: Path, log: Path, count: int) -> None:
    from edge.log import store
    from edge.photo import Taken

    folder.mkdir()
    taken = Taken("2024-05-01T06:12:09", "+00:00", "exif", ())
    with store.open_for_writing(log) as opened:
        for first in range(0, count, _BATCH):
            with opened.batch():
                for i in range(first, min(first + _BATCH, count)):
                    path = folder / f"IMG_{i:06d}.JPG"
                    path.write_bytes(b"x")
                    os.utime(path, (_MTIME_S + i, _MTIME_S + i))
                    key = store.FileKey(_DEVICE, str(folder), path.name, 1, (_MTIME_S + i) * 10**9)
                    photo = store.PhotoFacts(f"{i:064x}", 4000, 3000)
                    opened.add_file(store.FileFacts(key, taken), photo=photo, detection=None, failure=None)


def _search(folder: Path, log: Path) -> dict[str, Any]:
    """The agent's start, in this process."""
    from contextlib import closing

    from edge.agent import process  # noqa: F401  everything that the agent loads
    from edge.agent.config import Source
    from edge.agent.hints import FileEvents
    from edge.agent.loop import Intake, Model, StopFlag
    from edge.agent.watch import Watch
    from edge.log import store

    bundle = store.BundleFacts("b" * 64, "none-1", "a" * 64, ("empty",), (0.5,), 1.0)
    with store.open_for_writing(log) as opened, closing(FileEvents()) as hints:
        intake = Intake(opened, Model(None, bundle, True), _DEVICE)  # type: ignore[arg-type]
        before_mb = _reset_peak()
        started = time.perf_counter()
        hints.listen([folder])
        listened = time.perf_counter()
        watch = Watch([Source(folder)], known=intake.known, hints=hints, settle_s=2.0)
        unknown = sum(candidate is not None for candidate in watch.backlog(StopFlag()))
        ended = time.perf_counter()
    return {
        "known": watch.already,
        "unknown": unknown,
        "listen_s": listened - started,
        "search_s": ended - listened,
        "before_mb": before_mb,
        "added_mb": _status_mb("VmHWM") - before_mb,
        "left_mb": _status_mb("VmRSS") - before_mb,
    }


def _reset_peak() -> float:
    """Forget the peak so far (``proc(5)``, clear_refs); resident MB now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status_mb("VmRSS")


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


if __name__ == "__main__":
    main()
