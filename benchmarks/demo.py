"""How long is the whole story? ``fieldmark demo`` on drawn photos, step by step, with nothing cached from before.

Installation is not in it. An absolute time: it says something only together with the machine's facts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import material, report
from benchmarks.report import Claim, Result

MOST_S = 180.0


def main() -> None:
    """The command."""
    options = report.parser("demo", __doc__)
    options.add_argument("--photos", type=Path, help="give the demo this folder of labelled photos; drawn if left out")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    command = material.python("fieldmark", "demo", "--out", scratch / "demo", "--json")
    if options.photos:
        command += ["--data", str(options.photos.resolve())]
    start = time.perf_counter()
    # What it says while it works goes to our own standard error.
    done = subprocess.run(
        command, cwd="/", env=material.environment(scratch), stdout=subprocess.PIPE, text=True, check=False
    )
    wall_s = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"the demo ended with {done.returncode}.")
    told = json.loads(done.stdout.splitlines()[-1])
    detail = {
        "wall_s": wall_s,
        "steps_s": told["seconds"],
        "learned_from": told["photos"],
        "card": {"files": told["files"], "rows": told["rows"], "failed": len(told["failed"])},
        "right_of_readable": told["accuracy"],
    }
    claims = [
        Claim("the demo on this machine, without installation", wall_s, "s", MOST_S),
        Claim("files on the demo's card without a row", float(told["files"] - told["rows"]), "", 0.0),
    ]
    return Result("demo", claims, {"drawn": told["drawn"], "cold": True}, detail)


if __name__ == "__main__":
    main()
