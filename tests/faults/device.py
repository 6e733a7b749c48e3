"""A small device for faults: a tiny real bundle, photos of its own, the agent as a process, and an eye on its log.

The comparison of photos and rows is written here once more, in plain SQL, so that it shares no mistake with the
log's own audit.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import shutil
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.agent import plan as plans
from edge.agent import slots
from edge.agent.config import Agent, Source
from edge.agent.config_upkeep import Service, Upkeep
from edge.agent.plan import Plan
from edge.log import store
from tests.fakes import tiny
from tests.faults.power import python
from tests.fixtures_models import COLOURS, LABELS

_LINE = re.compile(r"^(?P<path>\S+\.jpg): (?P<what>.*)$")
_BOOTS = tempfile.TemporaryDirectory(prefix="fieldmark-boots-")
_BOOT = itertools.count()
_NOT_YET = ("early:", "changed:", "gone:")
_IS_SURE = re.compile(r"^(deer|empty|fox) [01]\.\d\d$")


def photo(number: int) -> bytes:
    """A JPEG of its own: the colour follows from the number, a comment makes the content unique."""
    comment = f"photo {number}".encode()
    whole = _COLOURED[number % len(_COLOURED)]
    return whole[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + whole[2:]


_COLOURED = [tiny.png(COLOURS[label], side=32, form="JPEG") for label in LABELS]


def name(number: int) -> str:
    """The file name of a photo."""
    return f"IMG_{number:06d}.jpg"


def number_of(path: str) -> int:
    """The photo that a file name stands for."""
    return int(Path(path).stem.removeprefix("IMG_"))


def sha256(number: int) -> str:
    """Of a photo's content, in hex."""
    return hashlib.sha256(photo(number)).hexdigest()


def put(folder: Path, numbers: Iterable[int]) -> None:
    """Photos that are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / name(number)).write_bytes(photo(number))


def plan(root: Path, folder: Path, *, once: bool = False, settle_s: float = 0.0, **agent: Any) -> Plan:
    """What ``fieldmark watch`` would have the agent do, on a machine that has just been started: its files in memory
    are new."""
    slot = slots.current(root)
    memory = Path(_BOOTS.name, str(next(_BOOT)))
    return Plan(
        device=slots.device_id(root),
        slot=slot.path,
        digest=slot.digest,
        development=slot.development,
        sources=(Source(folder, station="beech"),),
        log=store.path_below(root),
        agent=replace(Agent(settle_s=settle_s), **agent),
        once=once,
        patience_s=20.0,
        upkeep=Upkeep(Service(memory / "status.json")),
    )


def agent(of: Plan) -> list[str]:
    """The command that carries out a plan."""
    return python("-m", "edge.agent.process", plans.to_text(of, as_json=False))


_SAYS_EACH = """
import os, sys
from edge.agent import process
Progress = process.Progress
process.Progress = lambda *, once: Progress(once=False)
os.chdir("/")
sys.exit(process.main(sys.argv[1:]))
"""


def agent_that_says_each(of: Plan) -> list[str]:
    """The same command, which with ``once``, too, says a line per photo."""
    return python("-c", _SAYS_EACH, plans.to_text(of, as_json=False))


def acknowledged(said: Iterable[str]) -> dict[str, str]:
    """What the agent said to be durable: file name to what became of it."""
    lines = filter(None, map(_LINE.match, said))
    return {each["path"]: each["what"] for each in lines if not each["what"].startswith(_NOT_YET)}


def classified(said: Iterable[str]) -> set[int]:
    """The photos that the agent said to have classified."""
    return {number_of(path) for path, what in acknowledged(said).items() if _IS_SURE.match(what)}


class Camera(threading.Thread):
    """Writes photos while others work: some per :meth:`shoot`, every other one under a temporary name first.

    Attributes:
        taken: how many photos were begun; they are numbered from ``first`` on.
    """

    def __init__(self, folder: Path, first: int) -> None:
        super().__init__(daemon=True)
        self._folder, self._first = folder, first
        self._wanted, self._over = threading.Semaphore(0), False
        self.taken = 0

    def shoot(self, count: int) -> None:
        """Take so many more photos, soon."""
        self._wanted.release(count)

    def run(self) -> None:
        """The camera's own thread."""
        while self._wanted.acquire() and not self._over:
            number = self._first + self.taken
            self.taken += 1
            try:
                self._write(number)
            except OSError:  # the disk is cut off under it
                return

    def _write(self, number: int) -> None:
        path = self._folder / name(number)
        if number % 2:
            path.write_bytes(photo(number))
            return
        part = path.with_suffix(".part")
        part.write_bytes(photo(number))
        part.rename(path)

    @contextmanager
    def shooting(self) -> Iterator[Camera]:
        """Its thread, as long as the block lasts. Photos that were ordered by then are taken, if they can be."""
        self.start()
        try:
            yield self
        finally:
            self._over = True
            self._wanted.release()
            self.join()


@contextmanager
def reading(log: Path) -> Iterator[sqlite3.Connection]:
    """The log as it is, copied away with the journals beside it, so that looking changes nothing."""
    with tempfile.TemporaryDirectory(prefix="fieldmark-log-") as aside:
        for end in ("", "-wal", "-journal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{log}{end}", f"{aside}/log.db{end}")
        with closing(sqlite3.connect(f"{aside}/log.db")) as connection:
            yield connection


def answered(log: Path) -> Counter[str]:
    """How many answers each photo has, by SHA-256."""
    with reading(log) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'classification'").fetchone()[0]:
            return Counter()
        rows = connection.execute("SELECT sha256 FROM photo JOIN classification ON photo_id = photo.id")
        return Counter(row[0] for row in rows)


def lost(log: Path, promised: Iterable[int]) -> frozenset[int]:
    """Photos that were acknowledged and have not exactly one answer."""
    found = answered(log)
    return frozenset(number for number in promised if found[sha256(number)] != 1)


def troubles(log: Path) -> list[str]:
    """What SQLite finds wrong with the file."""
    with reading(log) as connection:
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
            foreign = [str(row) for row in connection.execute("PRAGMA foreign_key_check")]
        except sqlite3.DatabaseError as error:
            return [str(error)]
    return [line for line in found if line != "ok"] + foreign


def unlike(log: Path, folder: Path) -> list[str]:
    """Where disk and log differ, once everything was taken: each file one row, each content one answer or failure."""
    with reading(log) as connection:
        rows = connection.execute(_FILES).fetchall()
    kept = Counter((path, size, mtime) for path, size, mtime, *_ in rows)
    state = {(path, size, mtime): (answers, failure) for path, size, mtime, answers, failure in rows}
    found = []
    for path in sorted(folder.rglob("*.jpg")):
        if path.is_symlink() or not path.is_file():
            continue  # is left alone
        facts = path.stat()
        key = (str(path.relative_to(folder)), facts.st_size, facts.st_mtime_ns)
        if kept[key] != 1:
            found.append(f"{key[0]} has {kept[key]} rows")
        elif state[key][0] + state[key][1] != 1:
            found.append(f"{key[0]} has {state[key][0]} answers and {state[key][1]} open failures")
    return found


_FILES = """
SELECT path, size_bytes, mtime_ns, (SELECT count(*) FROM classification c WHERE c.photo_id = f.photo_id),
    failure_code IS NOT NULL AND failure_closed_utc IS NULL
FROM file f
"""


def rng(seed: object) -> random.Random:
    """Random numbers that are the same in every run, unless ``FIELDMARK_SEED`` says others."""
    return random.Random(f"{os.environ.get('FIELDMARK_SEED', '')}{seed}")
