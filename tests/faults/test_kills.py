"""An agent that is killed at each of its steps; the file system stays, so only the order of its work is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.agent import plan as plans
from tests.faults import clients, device, power

PHOTOS = 20
STEPS = {
    "before the log is opened": ("before", "edge.log.damage", "open_or_set_aside", 1),
    "while the log is made": ("before", "sqlite3", "PRAGMA user_version = ", 1),
    "before the log's version is committed": ("before", "sqlite3", "COMMIT", 1),
    "after the log's version is committed": ("after", "sqlite3", "COMMIT", 1),
    "after the log is opened": ("after", "edge.log.damage", "open_or_set_aside", 1),
    "before a photo is read": ("before", "edge.photo", "read", 3),
    "after a photo is read": ("after", "edge.photo", "read", 3),
    "before a photo is classified": ("before", "edge.model.classify:Classifier", "classify_image", 3),
    "after a photo is classified": ("after", "edge.model.classify:Classifier", "classify_image", 3),
    "before a row is written": ("before", "edge.log.store:Log", "add_file", 3),
    "in the transaction of a row": ("after", "edge.log.store:Log", "add_file", 3),
    "before a commit": ("before", "sqlite3", "COMMIT", 6),
    "after a commit": ("after", "sqlite3", "COMMIT", 6),
    "before a photo is said to be in the log": ("before", "edge.agent.process:Progress", "done", 3),
    "after a photo is said to be in the log": ("after", "edge.agent.process:Progress", "done", 3),
    "before the run is said to have ended": ("before", "edge.log.store:Log", "end_run", 1),
}
KILL = """
import importlib, os, runpy, signal, sqlite3, sys
when, where, what, turn = sys.argv[1:5]
left = int(turn)
def die():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def around(work):
    def wrapped(*values, **names):
        if when == "before":
            die()
        result = work(*values, **names)
        if when == "after":
            die()
        return result
    return wrapped
class Connection(sqlite3.Connection):
    def execute(self, text, *values):
        run = super().execute
        return (around(run) if text.startswith(what) else run)(text, *values)
if where == "sqlite3":
    connect = sqlite3.connect
    sqlite3.connect = lambda *places, **options: connect(*places, **{"factory": Connection} | options)
else:
    module, _, name = where.partition(":")
    holder = importlib.import_module(module)
    holder = getattr(holder, name) if name else holder
    setattr(holder, what, around(getattr(holder, what)))
from edge.agent import process
Progress = process.Progress
process.Progress = lambda *, once: Progress(once=False)
os.chdir("/")
sys.exit(process.main(sys.argv[5:]))
"""


@pytest.mark.parametrize("step", STEPS)
def test_an_agent_that_is_killed_keeps_its_word_and_goes_on_at_the_next_start(
    step: str, device_root: Path, tmp_path: Path
) -> None:
    device.put(tmp_path / "photos", range(PHOTOS))
    plan = device.plan(device_root, tmp_path / "photos", once=True)
    text = plans.to_text(plan, as_json=False)
    status, said = power.run_to_end(power.python("-c", KILL, *map(str, STEPS[step]), text))
    assert status == -9, said
    assert device.lost(plan.log, device.classified(said)) == frozenset()
    status, said = power.run_to_end(device.agent(plan))
    assert status == 0, said
    assert device.lost(plan.log, range(PHOTOS)) == frozenset()
    assert clients.differences(plan, device_root) == []


DEADLY = """
import os, signal, sys
from edge import photo
from edge.agent import process
read = photo.read
def deadly(path):
    if path.name == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(path)
photo.read = deadly
sys.exit(process.main(sys.argv[2:]))
"""


def test_a_photo_that_kills_the_agent_is_left_out_after_two_deaths_and_tried_again_later(
    device_root: Path, tmp_path: Path
) -> None:
    device.put(tmp_path / "photos", range(PHOTOS))
    plan = device.plan(device_root, tmp_path / "photos", once=True)
    command = power.python("-c", DEADLY, device.name(3), plans.to_text(plan, as_json=False))
    assert [power.run_to_end(command)[0] for _ in range(3)] == [-9, -9, 0]
    with device.reading(plan.log) as log:
        assert log.execute("SELECT count(*) FROM classification").fetchone() == (PHOTOS - 1,)
        [(path, code, tries)] = log.execute(
            "SELECT path, failure_code, tries FROM file WHERE failure_code NOTNULL"
        ).fetchall()
    assert (path, code, tries) == (device.name(3), "deadly", 1)
    # Memory is free again, or the agent is a newer one: the next start tries it once more.
    status, said = power.run_to_end(device.agent(plan))
    assert status == 0, said
    assert device.lost(plan.log, range(PHOTOS)) == frozenset()
