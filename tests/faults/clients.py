"""What the power-cut harness is used on: the agent with its log, and the installer with its slots.

Each function cuts so often as it is asked and tells what it found; a test demands that nothing was found, and
``benchmarks/power_cuts.py`` counts.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path

import fieldmark
from edge.agent import slots
from edge.agent.plan import Plan
from edge.errors import DeviceError, FieldmarkError
from edge.model import bundle as bundles
from tests.faults import device, power
from tests.faults.device import Camera

BACKLOG, MOST_LINES, MOST_DELAY_S = 12, 20, 0.02
_PER_CUT = 1000  # numbers of photos


@dataclass
class Tally:
    """What some cuts did.

    Attributes:
        promised: what the program had said to be durable.
        lost: how much of that was not there after a cut.
        losing: how many of the cuts lost something.
        faults: everything else that was wrong, in words.
    """

    cuts: int = 0
    promised: int = 0
    lost: int = 0
    losing: int = 0
    faults: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.cuts + other.cuts,
            self.promised + other.promised,
            self.lost + other.lost,
            self.losing + other.losing,
            self.faults + other.faults,
        )


def device_image(image: Path, bundle: Path | None, at: Path) -> Path:
    """A disk with a device root in ``root``, in which a bundle may be installed, and an empty folder ``photos``."""

    def set_up(disk: Path) -> None:
        (disk / "photos").mkdir()
        (disk / "root").mkdir()
        if bundle is not None:
            slots.install(disk / "root", bundle)

    return power.make_image(image, set_up, at)


# The agent


def cut_agent(image: Path, at: Path, folder: Path, *, seed: int, cuts: int) -> Tally:
    """Cut an agent's power again and again on one disk; after each cut it takes what there is, and all is compared.

    Args:
        folder: where photos arrive, before and during the cuts; below ``at`` they are cut off as well, so that some of
            them may be gone afterwards, but not their rows.
    """
    with power.mounted(image, at):
        plan = device.plan(at / "root", folder)
    tally, promised, rng = Tally(), set[int](), device.rng(seed)
    for cut in range(cuts):

        def reopened(disk: Path, said: list[str]) -> None:
            new = device.classified(said)
            promised.update(new)
            gone = device.lost(plan.log, promised)
            taken = _take_the_rest(plan)
            promised.update(taken)
            _note(tally, len(new), gone)
            tally.faults.extend(differences(plan, disk / "root"))
            tally.faults.extend(f"photo {number}" for number in device.lost(plan.log, promised))

        lines, delay_s = rng.randint(1, MOST_LINES), rng.random() * MOST_DELAY_S
        command = device.agent(plan)
        _cut_agent_once(image, at, plan, command, first=cut * _PER_CUT, lines=lines, delay_s=delay_s, reopened=reopened)
    return tally


def cut_altered_agent(image: Path, at: Path, folder: Path, way: str, *, seed: int, cuts: int) -> Tally:
    """Cut an agent that syncs less, as one of :data:`ALTERED`; each time on a fresh disk, and without going on."""
    with power.mounted(image, at):
        plan = device.plan(at / "root", folder)
    tally, rng = Tally(), device.rng(seed)
    for cut in range(cuts):
        fresh, lines = power.copy_image(image, image.with_suffix(f".{cut}")), 3 + rng.randrange(MOST_LINES)

        def reopened(disk: Path, said: list[str]) -> None:
            new = device.classified(said)
            _note(tally, len(new), device.lost(plan.log, new))

        command = _altered(device.agent(plan), way, lines)
        _cut_agent_once(fresh, at, plan, command, first=cut * _PER_CUT, lines=lines, delay_s=0, reopened=reopened)
        fresh.unlink()
    return tally


def _cut_agent_once(
    image: Path,
    at: Path,
    plan: Plan,
    command: list[str],
    *,
    first: int,
    lines: int,
    delay_s: float,
    reopened: Callable[[Path, list[str]], None],
) -> None:
    """One cut after so many lines, while photos arrive. The first line comes before the log is opened."""
    folder = plan.sources[0].path
    if not folder.is_relative_to(at):
        device.put(folder, range(first, first + BACKLOG))
    camera, heard = Camera(folder, first + BACKLOG), list[str]()

    def now(line: str) -> bool:
        camera.shoot(2)
        heard.append(line)
        return len(heard) == lines

    power.cut_power(
        image,
        at,
        command=command,
        now=now,
        delay_s=delay_s,
        beside=camera.shooting(),
        reopened=reopened,
    )


def _take_the_rest(plan: Plan) -> set[int]:
    """Start the agent again, and let it take everything."""
    status, said = power.run_to_end(device.agent_that_says_each(replace(plan, once=True)))
    assert status == 0, said[-20:]
    return device.classified(said)


def differences(plan: Plan, root: Path) -> list[str]:
    """Everything that is wrong with a log, as this folder's own comparison and ``fieldmark log audit`` see it."""
    differences = device.troubles(plan.log) + device.unlike(plan.log, plan.sources[0].path)
    differences += [f"{path.name} was set aside" for path in plan.log.parent.glob("*.damaged-*")]
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            fieldmark.main(["log", "--root", str(root), "audit"])
        except SystemExit as end:
            differences += out.getvalue().splitlines() if end.code else []
    return differences


def _note(tally: Tally, promised: int, gone: frozenset[int]) -> None:
    tally.cuts += 1
    tally.promised += promised
    tally.lost += len(gone)
    tally.losing += bool(gone)


_ALTERED = """
import re, runpy, signal, sqlite3, sys
name, value, instead, lines = sys.argv[1:5]
class Connection(sqlite3.Connection):
    def execute(self, text, *values):
        if re.fullmatch(rf"PRAGMA {name} *= *{value}", text, re.IGNORECASE):
            found = super().execute(f"PRAGMA {name} = {instead}")
            assert str(super().execute(f"PRAGMA {name}").fetchone()[0]) == instead
            return found
        if re.fullmatch(rf"PRAGMA {name}", text, re.IGNORECASE):
            return super().execute("SELECT ?", (int(value) if value.isdigit() else value,))
        return super().execute(text, *values)
class Stderr:
    left = int(lines)
    def write(self, text):
        sys.__stderr__.write(text)
        sys.__stderr__.flush()
        self.left -= text.count("\\n")
        if self.left <= 0:
            signal.pause()  # the cut comes now, and nothing that is done later can save the row
    def flush(self):
        pass
connect = sqlite3.connect
sqlite3.connect = lambda *places, **options: connect(*places, **{"factory": Connection} | options)
sys.stderr, sys.argv = Stderr(), sys.argv[:1] + sys.argv[5:]
runpy.run_module("edge.agent.process", run_name="__main__", alter_sys=True)
"""

ALTERED = {
    "synchronous=NORMAL": ("synchronous", "2", "1"),
    "journal_mode=DELETE": ("journal_mode", "wal", "delete"),
    "fsync does nothing": ("", "", ""),
}
"""Ways to sync less than the agent does: a pragma, the value that it is told, and the one that it gets. The last needs
the capability ``eatmydata``. The harness must find losses with each."""


def _altered(command: list[str], way: str, lines: int) -> list[str]:
    """The agent, syncing less while it is told that it does not, and doing nothing more after so many lines."""
    pragma = ALTERED[way]
    script = power.python("-c", _ALTERED, *pragma, str(lines), command[-1])
    return script if any(pragma) else ["eatmydata", *script]


# The installer

_INSTALL = """
import sys
from pathlib import Path
from edge.agent import slots
say = lambda name: print(name, file=sys.stderr, flush=True)
slots.install(Path(sys.argv[1]), Path(sys.argv[2]), check=lambda folder, manifest: "none", step=say)
say("over")
"""


def cut_installer(image: Path, at: Path, bundle: Path, *, seed: int, unsynced: bool = False) -> Tally:
    """Cut an installation at a random step; then the old bundle runs or the new one, whole, and installing again
    works.

    Args:
        unsynced: the installer's syncs do nothing; it is cut when it is done, and must have lost what it did.
    """
    root = at / "root"
    with power.mounted(image, at):
        before, device_id = running(root), _device_id(root)
    rng = device.rng(seed)
    last = "over" if unsynced else rng.choice((*slots.STEPS, "over"))
    tally = Tally()

    def reopened(disk: Path, said: list[str]) -> None:
        new, found_id = running(root), _device_id(root)
        lost = [
            step
            for step, kept in (
                ("switched", new == _digest(bundle)),
                ("named", found_id is not None and device_id in (None, found_id)),
                ("trusted", slots.Layout(root).trust_root.exists()),
            )
            if step in said and not kept
        ]
        _note(tally, len(said), frozenset(range(len(lost))))
        if new not in (before, _digest(bundle)):
            tally.faults.append(f"cut at {last}: {new} runs")
        try:
            slots.install(root, bundle, check=lambda folder, manifest: "none")
            if running(root) != _digest(bundle):
                tally.faults.append(f"cut at {last}: installing again did not work")
        except FieldmarkError as error:
            tally.faults.append(f"cut at {last}: {error}")

    power.cut_power(
        image,
        at,
        command=["eatmydata"] * unsynced + power.python("-c", _INSTALL, str(root), str(bundle)),
        now=lambda line: line == last,
        delay_s=rng.random() * 0.004,
        reopened=reopened,
    )
    return tally


def running(root: Path) -> str | None:
    """The digest of the bundle that runs; None where none was installed yet. One that is damaged is an error."""
    try:
        return slots.current(root).digest
    except DeviceError as error:
        return None if error.code == "no bundle" else str(error)


def _device_id(root: Path) -> str | None:
    try:
        return slots.device_id(root)
    except DeviceError as error:
        return None if error.code == "no device" else str(error)


def _digest(bundle: Path) -> str:
    return bundles.open_bundle(bundle).digest
