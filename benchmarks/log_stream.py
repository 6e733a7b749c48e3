"""A log of a million rows: how fast ``fieldmark log`` streams it, whether memory stays flat, and whether a few rows
cost no more than they do in a small log.

The log is made up: bursts at several stations, three labels, a logit each. It is read in processes of their own, as
the commands read it: the check at the agent's start (of a file that was just written, so from memory), all rows as
JSON, an export with the independence interval, the table with its counts, and all photos for another model. A few rows,
as ``log --limit 20``, ``log show`` and the first photos for another model take them, are timed without the start of
the program, as the median of several. Peaks are of the kernel (VmHWM). Linux only. Takes some minutes and a gigabyte of
disk for a million rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks import report
from benchmarks.report import Claim, Result

COUNTS = (10_000, 1_000_000)
MOST_ADDED_MB = 20.0
MOST_RATIO = 3.0
_TIMES = 9
_LABELS = ("deer", "empty", "fox")
_STATIONS, _BURST, _BATCH = 8, 3, 20_000


def main() -> None:
    """The command."""
    options = report.parser("log_stream", __doc__)
    options.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of rows")
    options.add_argument("--child", nargs=2, metavar=("WAY", "DB"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        print(json.dumps(_child(chosen.child[0], Path(chosen.child[1]))))
        return
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-", dir="/var/tmp") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    found: dict[str, dict[str, float]] = {}
    counts = sorted(options.counts)
    for count in counts:
        report.say(f"writing {count} rows ...")
        path = scratch / f"{count}.db"
        write(path, count)
        for way in (*WAYS, *FEW):
            report.say(f"reading {count} rows: {way} ...")
            found[f"{count} rows, {way}"] = _in_child(way, path)
    least, most = counts[0], counts[-1]
    claims = []
    for way in WAYS:
        small, large = found[f"{least} rows, {way}"], found[f"{most} rows, {way}"]
        claims.append(
            Claim(f"{way}: more memory for {most} rows than for {least}", large["peak_mb"] - small["peak_mb"], "MB",
                  MOST_ADDED_MB)
        )  # fmt: skip
        claims.append(Claim(f"{way}: rows for each second of one core, of {most}", most / large["cpu_s"], "rows/s"))
    for way in FEW:
        small, large = found[f"{least} rows, {way}"], found[f"{most} rows, {way}"]
        claims.append(Claim(f"{way}: of {most} rows", large["seconds"] * 1000, "ms"))
        ratio = large["seconds"] / small["seconds"]
        claims.append(Claim(f"{way}: of {most} rows as of {least}", ratio, "×", MOST_RATIO))
    claims.append(Claim(f"a log of {most} rows", (scratch / f"{most}.db").stat().st_size / 1e6, "MB"))
    return Result("log_stream", claims, {"stations": _STATIONS, "burst": _BURST}, found)


def write(path: Path, count: int) -> None:
    """A log of ``count`` files, written past :class:`edge.log.store.Log`, which syncs each."""
    from edge.log import store
    from edge.log.store import BundleFacts

    with store.open_for_writing(path) as log:
        log.add_bundle(BundleFacts("b1" * 32, "made-up-1", "a1" * 32, _LABELS, (0.5, 0.5, 0.5), 1.0))
        db = log._db  # nobody else writes rows without a sync
        db.execute("PRAGMA synchronous = OFF")
        for start in range(1, count + 1, _BATCH):
            numbers = range(start, min(start + _BATCH, count + 1))
            db.execute("BEGIN")
            db.executemany("INSERT INTO photo (id, sha256, width, height) VALUES (?, ?, 4000, 3000)", _photos(numbers))
            db.executemany(_FILE, _files(numbers))
            db.executemany(_CLASSIFICATION, _classifications(numbers))
            db.execute("COMMIT")


_FILE = """
INSERT INTO file (id, device, source, path, size_bytes, mtime_ns, station, taken_local, utc_offset, taken_source,
  time_flags, photo_id, seen_utc)
VALUES (?, 'device', '/srv/photos', ?, 3000000, ?, ?, ?, '+01:00', 'exif', '', ?, '2026-05-01T00:00:00.000+00:00')
"""
_CLASSIFICATION = """
INSERT INTO classification (photo_id, model_digest, bundle_digest, runtime, label, confidence, decision, top, logits,
  development, created_utc)
VALUES (?, ?, ?, 'none', ?, 0.9, ?, ?, ?, 0, '2026-05-01T00:00:00.000+00:00')
"""


def _photos(numbers: range) -> Iterator[tuple[int, str]]:
    for i in numbers:
        yield i, f"{i * 2654435761 % 2**64:016x}".rjust(64, "7")[::-1]


def _files(numbers: range) -> Iterator[tuple[int, str, int, str, str, int]]:
    first = datetime(2024, 1, 1)
    for i in numbers:
        burst, number = divmod(i, _BURST)
        taken = first + timedelta(seconds=40 * burst + number)
        name = f"DCIM/{100 + i // 9999}MEDIA/IMG_{i % 9999 + 1:04}.JPG"
        yield i, name, i, f"station {burst % _STATIONS}", taken.isoformat(), i


def _classifications(numbers: range) -> Iterator[tuple[int, str, str, str, str, str, bytes]]:
    for i in numbers:
        label = _LABELS[i // _BURST % len(_LABELS)]
        decision = "empty" if label == "empty" else "species"
        top = json.dumps([[label, 0.9], ["deer" if label != "deer" else "fox", 0.1]])
        yield i, "a1" * 32, "b1" * 32, label, decision, top, bytes(12)


def _in_child(way: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-P", "-m", "benchmarks.log_stream", "--child", way, os.fspath(path)]
    environment = os.environ | {"PYTHONPATH": os.fspath(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the child ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _child(way: str, path: Path) -> dict[str, float]:
    if way in FEW:
        return {"seconds": statistics.median(_timed(FEW[way], path) for _ in range(_TIMES)), "peak_mb": _peak_mb()}
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    WAYS[way](path)
    cpu_s = time.process_time() - start_cpu_s
    return {"seconds": time.perf_counter() - start_s, "cpu_s": cpu_s, "peak_mb": _peak_mb()}


def _timed(read: Callable[[Path], None], path: Path) -> float:
    start_s = time.perf_counter()
    read(path)
    return time.perf_counter() - start_s


def _check(path: Path) -> None:
    from edge.log import damage

    damage.look_for_damage(path, report.say, most_s=3600.0)


def _json(path: Path) -> None:
    from edge.log import query, store, table

    with closing(store.open_for_reading(path)) as log, open(os.devnull, "w", encoding="ascii") as out:
        for row in query.rows(log):
            out.write(table.json_line(table.as_json(row)))


def _export(path: Path) -> None:
    from edge.log import export, store

    with closing(store.open_for_reading(path)) as log, open(os.devnull, "w", encoding="utf-8") as out:
        for line in export.csv_lines(log, independence_s=1800.0):
            out.write(line)


def _table(path: Path) -> None:
    from edge.log import query, store, table

    summary = table.Summary()
    with closing(store.open_for_reading(path)) as log:
        for row in summary.counting(query.rows(log)):
            table.cells(row)
    summary.lines()


def _old(path: Path) -> None:
    from edge.log import store, unclassified

    with closing(store.open_for_reading(path)) as log:
        for _ in unclassified.unclassified(log, "device", "another model"):
            pass


def _newest(path: Path) -> None:
    from edge.log import query, store

    with closing(store.open_for_reading(path)) as log:
        list(query.rows(log, query.Filter(newest=20)))


def _show(path: Path) -> None:
    from edge.log import details, store

    with closing(store.open_for_reading(path)) as log:
        details.of_file(log, 5_000, 120.0)


def _first_old(path: Path) -> None:
    from edge.log import store, unclassified

    with closing(store.open_for_reading(path)) as log:
        list(itertools.islice(unclassified.unclassified(log, "device", "another model"), 20))


WAYS: dict[str, Callable[[Path], None]] = {
    "check at the start": _check,
    "json": _json,
    "export": _export,
    "table": _table,
    "photos for another model": _old,
}
FEW: dict[str, Callable[[Path], None]] = {
    "the newest 20 rows": _newest,
    "show": _show,
    "the first 20 for another model": _first_old,
}


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
