"""One run of the agent with a real bundle, in this process: what is put together, and what it writes of itself."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge.agent import config, config_upkeep, run, slots
from edge.agent import plan as plans
from edge.agent.config import Agent, Power, Source
from edge.agent.loop import Done, Outcome
from edge.agent.plan import Plan
from edge.agent.run import Pulse
from edge.agent.upkeep import Upkeep
from edge.errors import ConfigError
from edge.log import query, store
from edge.log.store import Observation
from tests import colour_model
from tests.fakes.camera import jpeg, put
from tests.fixtures_models import SIDE, write_bundle


@pytest.fixture
def plan(device_root: Path, tmp_path: Path) -> Plan:
    (tmp_path / "photos").mkdir()
    slot = slots.current(device_root)
    return Plan(
        device=slots.device_id(device_root),
        slot=slot.path,
        digest=slot.digest,
        development=slot.development,
        sources=(Source(tmp_path / "photos"),),
        log=store.path_below(device_root),
        agent=Agent(settle_s=0),
        once=True,
        patience_s=0.0,
        upkeep=config_upkeep.defaults(device_root),
    )


def changed(plan: Plan, **values: Any) -> Plan:
    return dataclasses.replace(plan, **values)


def carried_out(plan: Plan) -> tuple[list[Done], list[str]]:
    done: list[Done] = []
    said: list[str] = []
    run.run(plan, started=lambda model: None, done=done.append, say=said.append)
    return done, said


def test_source_that_lies_in_another_by_way_of_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos" / "north").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "photos" / "north")
    both = (Source(tmp_path / "photos"), Source(tmp_path / "link"))
    with pytest.raises(ConfigError, match="lies in the source"):
        plans.choose_sources(config.Config(both), None)


def test_wish_to_stop_while_the_model_loads_is_heard(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(plan, "a.jpg", "b.jpg")
    read_slot = run.read_slot

    def asked_to_stop(plan: Plan) -> run.Slot:
        os.kill(os.getpid(), signal.SIGTERM)
        return read_slot(plan)

    monkeypatch.setattr(run, "read_slot", asked_to_stop)
    for once in (True, False):
        result = run.run(changed(plan, once=once), started=lambda model: None, done=lambda done: None, say=print)
        assert (result.stopped, sum(result.outcomes.values())) == (True, 0)


def photos(plan: Plan, *names: str, first: int = 10) -> None:
    for i, name in enumerate(names):
        put(plan.sources[0].path / name, jpeg(first + i, taken=f"2024:05:{i + 1:02} 06:12:09"), mtime_s=1.7e9 + i)


def table(plan: Plan, name: str) -> list[sqlite3.Row]:
    with closing(store.open_for_reading(plan.log)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(f"SELECT * FROM {name}").fetchall()


def newer_model(plan: Plan, tmp_path: Path) -> Plan:
    """The same device with another model: the same network, but other bytes."""
    root = plan.slot.parents[4]
    data = colour_model.build(SIDE, SIDE)
    bundle = write_bundle(tmp_path / "newer.fmb", data + bytes(16), sequence=8)
    slots.install(root, bundle)
    slot = slots.current(root)
    assert slot.path != plan.slot
    return changed(plan, slot=slot.path, digest=slot.digest)


def test_backlog_order_is_the_setting(plan: Plan) -> None:
    photos(plan, "a.jpg", "b.jpg", "c.jpg")
    done, _ = carried_out(changed(plan, agent=Agent(settle_s=0, order="newest")))
    assert [each.candidate.text for each in done] == ["c.jpg", "b.jpg", "a.jpg"]


def test_two_cores_write_every_photo_once(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    photos(plan, *(f"{i:02}.jpg" for i in range(30)))
    done, said = carried_out(plan)
    assert sorted(each.candidate.text for each in done) == [f"{i:02}.jpg" for i in range(30)]
    assert {each.outcome for each in done} == {Outcome.CLASSIFIED}
    assert said == []


@pytest.mark.parametrize(
    ("power", "cores_here", "helpers"),
    [
        pytest.param(Power(), {0, 1, 2, 3}, 1, id="two cores by default"),
        pytest.param(Power(cores=4), {0, 1}, 1, id="no more than there are"),
        pytest.param(Power(), {0}, 0, id="one core"),
        pytest.param(Power(cores=1), {0, 1}, 0, id="one is allowed"),
        pytest.param(Power(pause_s=1.0), {0, 1}, 0, id="a pause after each photo"),
    ],
)
def test_helpers_are_those_that_cores_and_settings_allow(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, power: Power, cores_here: set[int], helpers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores_here)
    assert run._help(changed(plan, power=power), run.read_slot(plan), lambda line: None).helpers == helpers


def test_new_model_leaves_old_photos_unless_it_is_asked_to_classify_them(plan: Plan, tmp_path: Path) -> None:
    photos(plan, "a.jpg", "b.jpg")
    carried_out(plan)
    newer = newer_model(plan, tmp_path)
    photos(plan, "new.jpg", first=50)
    assert [each.candidate.text for each in carried_out(newer)[0]] == ["new.jpg"]
    done, _ = carried_out(changed(newer, reclassify=True))
    assert [(each.candidate.text, each.outcome) for each in done] == [
        ("b.jpg", Outcome.RECLASSIFIED), ("a.jpg", Outcome.RECLASSIFIED),
    ]  # fmt: skip
    assert len(table(plan, "classification")) == 5
    assert carried_out(changed(newer, reclassify=True))[0] == []


def test_person_whom_a_reviewer_named_is_not_sharp_again_when_another_model_sees_nobody(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(plan, "a.jpg", "b.jpg")
    carried_out(plan)
    with closing(store.open_for_writing(plan.log)) as log:
        [sha256, other] = [row["sha256"] for row in table(plan, "photo")]
        log.add_review(sha256, [Observation("person")], "Ada")
    put_previews: list[tuple[str, str]] = []
    preview = Upkeep.preview

    def seen(upkeep: Upkeep, image: Any, name: str, decision: Any) -> str:
        put_previews.append((name, preview(upkeep, image, name, decision)))
        return put_previews[-1][1]

    monkeypatch.setattr(Upkeep, "preview", seen)
    carried_out(changed(newer_model(plan, tmp_path), reclassify=True))
    assert sorted(put_previews) == sorted([(sha256, "blurred"), (other, "kept")])
    assert {row["sha256"]: row["preview"] for row in table(plan, "photo")} == dict(put_previews)


def test_new_photos_go_before_old_ones(plan: Plan, tmp_path: Path) -> None:
    photos(plan, "a.jpg", "b.jpg")
    carried_out(plan)
    photos(plan, "new.jpg", first=50)
    done, _ = carried_out(changed(newer_model(plan, tmp_path), reclassify=True))
    assert [each.candidate.text for each in done] == ["new.jpg", "b.jpg", "a.jpg"]


def test_run_is_written_with_its_beginning_and_end(plan: Plan) -> None:
    photos(plan, "a.jpg")
    carried_out(plan)
    [found] = table(plan, "agent_run")
    assert (found["device"], found["once"]) == (plan.device, 1)
    assert found["ended_utc"] >= found["started_utc"]
    assert len(found["model_digest"]) == 64


def test_pulse_beats_every_some_minutes_and_empties_the_wal_when_idle(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("edge.agent.run.time.monotonic", lambda: now_s)
    beats: list[float] = []
    with store.open_for_writing(plan.log) as log:
        monkeypatch.setattr(log, "heartbeat", lambda *, clock_ok: beats.append(now_s))
        pulse = Pulse(log, plan, run.load_model(plan))
        wal = Path(f"{plan.log}-wal")
        assert wal.stat().st_size > 0
        for now_s in (1001.0, 1000.0 + run.HEARTBEAT_S, 1001.0 + run.HEARTBEAT_S):  # noqa: B007  the clock reads it
            pulse.beat(idle=False)
        assert beats == [1000.0 + run.HEARTBEAT_S]
        pulse.beat(idle=True)
        assert wal.stat().st_size == 0


def test_damaged_log_is_set_aside_and_filled_again_from_the_photos(plan: Plan) -> None:
    photos(plan, "a.jpg", "b.jpg")
    carried_out(plan)
    content = bytearray(plan.log.read_bytes())
    content[100:3000] = bytes(2900)
    plan.log.write_bytes(content)
    done, said = carried_out(plan)
    assert [each.outcome for each in done] == [Outcome.CLASSIFIED] * 2
    assert ["was damaged" in line for line in said] == [True]
    assert len(list(plan.log.parent.glob("log.db.damaged-*"))) >= 1


def test_card_is_only_read_and_an_interrupted_import_goes_on(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card as cameras write it: numbered folders, names that repeat, a film, and files that are no photos."""
    card = plan.sources[0].path
    photos(plan, "DCIM/100EK113/IMG_0001.JPG", "DCIM/100EK113/IMG_0002.JPG", "DCIM/101EK113/IMG_0001.JPG")
    put(card / "DCIM" / "101EK113" / "MOVI0002.AVI", b"RIFF")
    put(card / "DCIM" / "100EK113" / "INDEX.IDX", b"x")
    put(card / "MISC" / "M0100.CTG", b"x")

    def everything() -> dict[Path, tuple[int, int, int]]:
        return {path: (facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size)
                for path in [card, *card.rglob("*")] for facts in [path.stat()]}  # fmt: skip

    before = everything()

    def pull_out(done: Done) -> None:
        raise KeyboardInterrupt  # after the first commit

    with pytest.raises(KeyboardInterrupt):
        run.run(plan, started=lambda model: None, done=pull_out, say=lambda line: None)
    carried_out(plan)
    with closing(store.open_for_reading(plan.log)) as connection:
        found = {row.path: row.failure_code for row in query.rows(connection)}
    assert found == {
        "DCIM/100EK113/IMG_0001.JPG": None,
        "DCIM/100EK113/IMG_0002.JPG": None,
        "DCIM/101EK113/IMG_0001.JPG": None,
        "DCIM/101EK113/MOVI0002.AVI": "video",
    }
    assert everything() == before


# Times of day


@pytest.mark.parametrize(
    ("windows", "minute", "closed_s"),
    [
        pytest.param((), 720, 0, id="no windows are the whole day"),
        pytest.param(((360, 1200),), 360, 0, id="the first minute"),
        pytest.param(((360, 1200),), 1199.9, 0, id="just before the end"),
        pytest.param(((360, 1200),), 1200, 600 * 60, id="the end is closed, until the next morning"),
        pytest.param(((360, 1200),), 300, 60 * 60, id="an hour before"),
        pytest.param(((1200, 360),), 30, 0, id="past midnight"),
        pytest.param(((1200, 360),), 720, 480 * 60, id="by day, of a window of the night"),
        pytest.param(((360, 420), (600, 660)), 450, 150 * 60, id="between two windows"),
        pytest.param(((0, 1440),), 1439, 0, id="a whole day"),
    ],
)
def test_photos_wait_until_a_window_opens(windows: tuple[tuple[int, int], ...], minute: float, closed_s: float) -> None:
    assert Power(windows=windows).closed_s(minute) == pytest.approx(closed_s)


def test_power_and_order_are_settings(tmp_path: Path) -> None:
    path = tmp_path / config.FILE
    path.parent.mkdir(parents=True)
    path.write_text(
        '[agent]\norder = "newest"\n'
        '[power]\nwindows = ["06:30-20:00", "22:00-24:00"]\npause_s = 0.5\ncores = 1\nnice = 0\n'
    )
    found = config.load(tmp_path)
    assert found.agent.order == "newest"
    assert found.power == Power(((390, 1200), (1320, 1440)), 0.5, 1, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param('[agent]\norder = "random"', "agent.order is 'random', expected oldest or newest", id="an order"),
        pytest.param('[power]\nwindows = ["6-20"]', "power.windows[1] is '6-20', expected", id="hours alone"),
        pytest.param('[power]\nwindows = ["06:00-25:00"]', "power.windows[1]", id="a 25th hour"),
        pytest.param('[power]\nwindows = "06:00-20:00"', "power.windows is", id="no list"),
        pytest.param("[power]\nwindows = [6]", "power.windows[1] is 6", id="a number"),
        pytest.param("[power]\ncores = 0", "power.cores is 0", id="no core"),
        pytest.param("[power]\nnice = -5", "power.nice is -5", id="before other programs"),
        pytest.param("[power]\npause = 1", "power.pause", id="a key that is misspelt"),
    ],
)
def test_settings_of_power_that_make_no_sense_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / config.FILE
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        config.load(tmp_path)
    assert says in str(refused.value)
