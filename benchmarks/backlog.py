"""How fast is a backlog on one core and on two, and what memory does the second one take?

The same photos go through the agent's process with ``cores = 1`` and ``cores = 2`` in turns, each time into a new log.
Time runs from the loaded model to the end. On a busy machine two threads of one program get no more than one:
measure when it is idle. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import drawn, material, report
from benchmarks.report import Claim, Result
from edge.agent import memory
from edge.agent import plan as plans
from edge.agent.config import Power

LEAST_RATIO = 1.7
PHOTOS, EACH_REAL, ROUNDS = 120, 5, 3
CORES = (1, 2)
_POLL_S = 0.02


def main() -> None:
    """The command."""
    options = report.parser("backlog", __doc__)
    material.add_data_option(options)
    material.add_bundle_option(options)
    options.add_argument("--side", type=int, default=320, help="input side of the bundle that is trained; default 320")
    options.add_argument("--photos", type=int, default=PHOTOS, help=f"photos of each kind; default {PHOTOS}")
    options.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often each is measured; default {ROUNDS}")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    root = scratch / "device"
    material.device(material.bundle(options, scratch, options.side), root)
    claims, detail = [], {}
    for name, folder in _photos(options, scratch).items():
        detail[name] = found = _compare(root, folder, options.rounds, scratch)
        claims.append(Claim(f"backlog on 2 cores against 1, {name}", found["ratio"], "×", least=LEAST_RATIO))
        claims.append(Claim(f"peak memory on 2 cores, {name}", found["peak_mb"]["2"], "MB"))
    return Result("backlog", claims, {"photos": options.photos, "side": options.side, "cores": os.cpu_count()}, detail)


def _photos(options: argparse.Namespace, scratch: Path) -> dict[str, Path]:
    """Folders of drawn photos of 12 megapixels, and of real ones where there are some; these are small and quick, so
    more of them are a backlog."""
    folder = scratch / "drawn"
    folder.mkdir()
    for i, content in enumerate(drawn.variants(drawn.photo(), options.photos)):
        (folder / f"{i:04d}.jpg").write_bytes(content)
    found = {"drawn 12-megapixel photos": folder}
    if (options.data / "trailcam").is_dir():
        found["real photos"] = real = scratch / "real"
        real.mkdir()
        for i, photo in enumerate(material.trailcam_photos(options.data, options.photos)):
            for j, content in enumerate(_variants(photo.read_bytes())):
                (real / f"{i:04d}-{j}{photo.suffix}").write_bytes(content)
    return found


def _variants(data: bytes) -> list[bytes]:
    """The same photo with another content each time; behind a PNG's end anything may stand."""
    if data[:2] == b"\xff\xd8":
        return list(drawn.variants(data, EACH_REAL))
    return [data + bytes([number]) for number in range(EACH_REAL)]


def _compare(root: Path, folder: Path, rounds: int, scratch: Path) -> dict[str, Any]:
    seconds: dict[int, list[float]] = {cores: [] for cores in CORES}
    memory_mb: dict[int, list[float]] = {cores: [] for cores in CORES}
    count = len(os.listdir(folder))
    for number in range(rounds):
        for cores in CORES if number % 2 else reversed(CORES):
            report.say(f"{folder.name}: round {number + 1}, {cores} core(s) ...")
            log = scratch / f"{folder.name}-{number}-{cores}.db"
            found = _in_child(root, folder, log, cores, scratch)
            if found["classified"] != count:
                sys.exit(f"{found['classified']} of {count} photos were classified.")
            seconds[cores].append(found["seconds"])
            memory_mb[cores].append(found["peak_mb"])
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "photos_per_s": {str(cores): count / statistics.median(values) for cores, values in seconds.items()},
        "peak_mb": {str(cores): max(values) for cores, values in memory_mb.items()},
    }


def _in_child(root: Path, folder: Path, log: Path, cores: int, scratch: Path) -> dict[str, Any]:
    plan = material.plan(root, folder, log, Power(cores=cores, nice=0))
    command = material.python("edge.agent.process", plans.to_text(plan, as_json=True))
    environment = memory.AT_START | material.environment(scratch)  # as the agent has it
    with subprocess.Popen(
        command, cwd="/", env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        assert agent.stderr is not None
        agent.stderr.readline()  # the model is loaded
        started = time.perf_counter()
        peak_mb = 0.0
        while agent.poll() is None:
            peak_mb = max(peak_mb, _peak_mb(agent.pid))
            time.sleep(_POLL_S)
        seconds = time.perf_counter() - started
        said, out = agent.stderr.read(), agent.stdout.read()
    if agent.returncode:
        sys.exit(f"the backlog failed: {said.strip()[-400:]}")
    return {"seconds": seconds, "classified": json.loads(out)["classified"], "peak_mb": peak_mb}


def _peak_mb(pid: int) -> float:
    """The most that it had resident so far; 0 once it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


if __name__ == "__main__":
    main()
