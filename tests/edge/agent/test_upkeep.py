from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image

from edge import photo as photos
from edge.agent.config import Source
from edge.agent.config_upkeep import Delete, People, Rule, Service, Space
from edge.agent.config_upkeep import Upkeep as Settings
from edge.agent.loop import Intake
from edge.agent.service import Notifier, read_status
from edge.agent.upkeep import Job, Upkeep
from edge.agent.watch import Watch
from edge.log import store
from edge.log.store import Observation, TimeShift
from edge.model.decide import Decision
from tests.fakes.camera import ShadeClassifier, Silent, jpeg, model, put

PLENTY = Space(0, 0, 0, 1, 10)


class Agent:
    """A log, a folder of photos, and upkeep beside them, with a clock that can be turned."""

    def __init__(self, folder: Path) -> None:
        self.state, self.photos = folder / "state", folder / "photos"
        self.photos.mkdir()
        self.state.mkdir()
        self.log = store.open_for_writing(self.state / "log.db")
        self.settings = Settings(Service(folder / "run/status.json", folder / "f.prom"), PLENTY)
        self.rules: tuple[Rule, ...] = ()
        self.said: list[str] = []
        self.now_s = 0.0
        self.notifier = Notifier()
        self.once = False
        self.bundle: str | None = None

    def upkeep(self) -> Upkeep:
        job = Job(self.state, self.log.path, "d1", [self.photos], 120, self.once, {"bundle": "fox-7"}, self.bundle)
        return Upkeep(
            job, self.settings, self.rules, self.log, say=self.said.append, notifier=self.notifier,
            monotonic=lambda: self.now_s, clock_ok=lambda: True,
        )  # fmt: skip

    def run(self, upkeep: Upkeep) -> None:
        intake = Intake(self.log, model(ShadeClassifier()), "d1", preview=upkeep.preview, alerts=upkeep.alerts)
        watch = Watch([Source(self.photos, "beech")], known=intake.known, hints=Silent(), settle_s=0)
        for done in intake.take_all(watch.backlog(Event(), patience_s=0), watch.put_back):
            if done is not None:
                upkeep.taken(done.candidate.text, done.outcome.value, label=done.label, confidence=done.confidence)

    def rows(self, statement: str) -> list[tuple[str, ...]]:
        with closing(store.open_for_reading(self.log.path)) as connection:
            return connection.execute(statement).fetchall()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    found = Agent(tmp_path)
    yield found
    found.log.close()


def decided(label: str, *top: tuple[str, float]) -> Decision:
    return Decision(label, 0.9, "species", top or ((label, 0.9),))


def preview_of(agent: Agent, label: str, *top: tuple[str, float], upkeep: Upkeep | None = None) -> tuple[str, bytes]:
    data = jpeg(10, side=64)
    sha256 = photos.Photo(data).sha256
    state = (upkeep or agent.upkeep()).preview(photos.open_image(data), sha256, decided(label, *top))
    path = agent.state / "previews" / sha256[:2] / f"{sha256}.jpg"
    return state, path.read_bytes() if path.exists() else b""


def test_photo_gets_row_preview_and_alert_and_the_status_says_so(agent: Agent, tmp_path: Path) -> None:
    agent.rules = (Rule("foxes", ("fox",), 0.5),)
    taken = datetime.now(UTC).strftime("%Y:%m:%d %H:%M:%S")
    put(agent.photos / "a.jpg", jpeg(250, taken=taken))
    upkeep = agent.upkeep()
    agent.run(upkeep)
    upkeep.end(stopped=True)
    assert agent.rows("SELECT preview FROM photo") == [("kept",)]
    assert len(list((agent.state / "previews").rglob("*.jpg"))) == 1
    [(key, text)] = agent.rows("SELECT key, text FROM alert")
    assert key.startswith("foxes|fox|beech|")
    assert json.loads(text)["photo"] == "a.jpg"
    found = read_status(agent.settings.service.status_file)
    assert found is not None
    assert (found["state"], found["counts"], found["bundle"]) == ("ended", {"classified": 1}, "fox-7")
    assert (found["last"]["photo"], found["last"]["label"]) == ("a.jpg", "fox")
    assert 'fieldmark_files_total{outcome="classified"} 1\n' in (tmp_path / "f.prom").read_text()


def test_originals_are_never_altered(agent: Agent) -> None:
    agent.settings = replace(agent.settings, people=People("none", 0.0))
    path = put(agent.photos / "a.jpg", jpeg(250))
    before = path.read_bytes(), path.stat().st_mtime_ns
    agent.run(agent.upkeep())
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize(("word", "state"), [("keep", "kept"), ("blur", "blurred"), ("none", "withheld")])
def test_person_is_treated_as_the_owner_says(agent: Agent, word: str, state: str) -> None:
    agent.settings = replace(agent.settings, people=People(word))
    found, data = preview_of(agent, "person")
    assert found == state
    assert bool(data) is (state != "withheld")
    assert preview_of(agent, "deer")[0] == "kept"


def test_person_is_not_on_the_disk_for_a_moment(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    upkeep = agent.upkeep()
    seen: list[bytes] = []
    monkeypatch.setattr(upkeep._previews, "put", lambda sha256, data: seen.append(data))
    sharp = np.zeros((480, 640, 3), np.uint8)
    sharp[:, ::20] = 255
    out = agent.state / "x.png"
    Image.fromarray(sharp).save(out)
    upkeep.preview(photos.open_image(out.read_bytes()), "cd" * 32, decided("person"))
    [data] = seen
    (agent.state / "p.jpg").write_bytes(data)
    assert float(np.asarray(Image.open(agent.state / "p.jpg")).std()) < 12


def test_preview_that_another_model_let_pass_is_removed_when_a_person_is_seen(agent: Agent) -> None:
    agent.settings = replace(agent.settings, people=People("none"))
    assert preview_of(agent, "deer")[1]
    assert preview_of(agent, "person") == ("withheld", b"")


def test_sharp_preview_goes_when_a_person_is_seen_and_no_blurred_one_can_be_made(agent: Agent) -> None:
    assert preview_of(agent, "deer")[1]
    agent.settings = replace(agent.settings, people=People("blur"), space=replace(PLENTY, previews_mb=0))
    assert preview_of(agent, "person") == ("withheld", b"")


def test_preview_that_cannot_be_written_is_said_once_and_costs_no_row(agent: Agent) -> None:
    (agent.state / "previews").write_bytes(b"in the way")
    for shade in (10, 250):
        put(agent.photos / f"{shade}.jpg", jpeg(shade))
    agent.run(agent.upkeep())
    assert agent.rows("SELECT preview FROM photo") == [("none",), ("none",)]
    assert [line for line in agent.said if "preview cannot be written" in line and "said once" in line] == agent.said


def test_with_little_space_no_preview_is_made_and_photos_are_logged_as_before(agent: Agent) -> None:
    agent.settings = replace(agent.settings, space=Space(10**7, 10**7, 0, 0, 10))
    put(agent.photos / "a.jpg", jpeg(250))
    agent.run(agent.upkeep())
    assert agent.rows("SELECT preview, label FROM photo JOIN classification") == [("none", "fox")]
    assert not (agent.state / "previews").exists()
    assert "no more previews" in agent.said[0]


def test_with_no_space_nothing_is_written_but_the_log(agent: Agent, tmp_path: Path) -> None:
    agent.settings = replace(agent.settings, space=Space(10**7, 10**7, 10**7, 1, 10))
    put(agent.photos / "a.jpg", jpeg(250))
    upkeep = agent.upkeep()
    upkeep.started()
    agent.run(upkeep)
    upkeep.idle()
    assert sorted(path.name for path in agent.state.iterdir()) == ["log.db", "log.db-shm", "log.db-wal"]
    assert not (tmp_path / "f.prom").exists()
    assert agent.rows("SELECT label FROM classification") == [("fox",)]


def test_previews_can_be_switched_off(agent: Agent) -> None:
    agent.settings = replace(agent.settings, space=replace(PLENTY, previews_mb=0))
    assert preview_of(agent, "deer") == ("none", b"")


def test_ballast_is_for_agents_that_stay(agent: Agent) -> None:
    agent.once = True
    agent.upkeep()
    assert not (agent.state / "ballast").exists()
    agent.once = False
    agent.upkeep()
    assert (agent.state / "ballast").stat().st_size == 10**6


def test_restart_in_an_event_sends_no_second_alert(agent: Agent) -> None:
    agent.rules = (Rule("foxes", ("fox",), 0.5),)
    now = datetime.now(UTC)
    for number in (100, 50):
        taken = (now - timedelta(seconds=number)).strftime("%Y:%m:%d %H:%M:%S")
        put(agent.photos / f"{number}.jpg", jpeg(250, taken=taken, side=number))
        agent.run(agent.upkeep())
    assert len(agent.rows("SELECT 1 FROM classification")) == 2
    assert len(agent.rows("SELECT 1 FROM alert")) == 1


def test_alert_goes_by_the_corrected_time_of_a_camera_whose_clock_is_wrong(agent: Agent) -> None:
    """A correction without an end holds for what the camera takes from now on, too."""
    agent.rules = (Rule("foxes", ("fox",), 0.5),)
    agent.log.add_shift(TimeShift(3 * 86_400, "set to the wrong day", "Ada", station="beech"))
    taken = (datetime.now(UTC) - timedelta(days=3, minutes=1)).replace(microsecond=0)
    put(agent.photos / "1.jpg", jpeg(250, taken=taken.strftime("%Y:%m:%d %H:%M:%S")))
    agent.run(agent.upkeep())
    [[text]] = agent.rows("SELECT text FROM alert")
    right = (taken + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%S+00:00")
    assert (json.loads(text)["taken"], json.loads(text)["time_flags"]) == (right, ["offset-assumed"])


def test_idle_agent_releases_previews_over_the_cap(agent: Agent) -> None:
    upkeep = agent.upkeep()
    preview_of(agent, "deer", upkeep=upkeep)
    upkeep._previews.cap_bytes = 1
    upkeep.idle()
    assert list((agent.state / "previews").rglob("*.jpg")) == []
    assert "released" in agent.said[-1]


def test_idle_agent_deletes_by_policy_some_minutes_apart(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Delete("empties", "empty", 1, above=0.5)
    agent.settings = replace(agent.settings, deletes=(policy,))
    path = put(agent.photos / "a.jpg", jpeg(128))
    upkeep = agent.upkeep()
    agent.run(upkeep)
    monkeypatch.setattr(upkeep._deleter._days, "newest_row_before", lambda moment: 10)
    upkeep.idle()
    assert path.exists()
    agent.now_s += 601
    upkeep.idle()
    assert not path.exists()
    assert agent.rows("SELECT policy FROM deletion WHERE done_utc IS NOT NULL") == [("empties",)]


def test_hang_is_not_progress_and_a_wait_is(agent: Agent, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.setblocking(False)
        agent.notifier = Notifier(str(tmp_path / "notify"), 180, monotonic=lambda: agent.now_s)
        upkeep = agent.upkeep()
        upkeep.started()
        assert end.recv(4096).startswith(b"READY=1")
        preview_of(agent, "deer", upkeep=upkeep)
        agent.now_s += 1000
        with pytest.raises(BlockingIOError):
            end.recv(4096)
        upkeep.idle()
        assert end.recv(4096).startswith(b"WATCHDOG=1")
        agent.now_s += 60
        upkeep.taken("a.jpg", "classified")
        assert end.recv(4096) == b"WATCHDOG=1\nSTATUS=1 files since the start, the last was a.jpg"


def test_metrics_that_cannot_be_written_are_said_once(agent: Agent) -> None:
    service = replace(agent.settings.service, prometheus=Path("/nowhere/f.prom"))
    agent.settings = replace(agent.settings, service=service)
    upkeep = agent.upkeep()
    upkeep.end(stopped=False)
    upkeep.end(stopped=False)
    assert len([line for line in agent.said if "metrics" in line]) == 1


def test_metrics_come_when_they_can_be_written_again(agent: Agent, tmp_path: Path) -> None:
    path = tmp_path / "later" / "f.prom"
    agent.settings = replace(agent.settings, service=replace(agent.settings.service, prometheus=path))
    upkeep = agent.upkeep()
    upkeep.end(stopped=True)
    path.parent.mkdir()
    upkeep.end(stopped=True)
    assert path.exists()


def test_metrics_on_another_disk_tell_that_this_one_is_full(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == agent.state.stat().st_dev:
        pytest.skip("there is no other file system here")
    path = other / f"fieldmark-{agent.state.stat().st_ino}.prom"
    service = Service(path.with_suffix(".json"), path)
    agent.settings = replace(agent.settings, service=service, space=Space(10**7, 10**7, 10**7, 1, 10))
    try:
        agent.upkeep().started()
        assert "fieldmark_space_level 3\n" in path.read_text()
    finally:
        for each in (path, service.status_file):
            each.unlink(missing_ok=True)


def test_device_that_only_wakes_and_drains_gives_up_ballast_that_is_there(agent: Agent) -> None:
    agent.upkeep()
    assert (agent.state / "ballast").exists()
    agent.once, agent.settings = True, replace(agent.settings, space=Space(10**7, 10**7, 10**7, 1, 10))
    agent.upkeep()
    assert not (agent.state / "ballast").exists()


def test_device_that_only_wakes_and_drains_tidies_up_at_its_end(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.once = True
    agent.settings = replace(agent.settings, deletes=(Delete("empties", "empty", 1, above=0.5),))
    path = put(agent.photos / "a.jpg", jpeg(128))
    upkeep = agent.upkeep()
    agent.run(upkeep)
    upkeep._previews.cap_bytes = 1
    monkeypatch.setattr(upkeep._deleter._days, "newest_row_before", lambda moment: 10)
    upkeep.end(stopped=True)
    assert path.exists()
    upkeep.end(stopped=False)
    assert not path.exists()
    assert list((agent.state / "previews").rglob("*.jpg")) == []


@pytest.mark.parametrize("address", [None, "@nobody"])
def test_another_bundle_ends_the_agent_only_where_somebody_starts_it_again(agent: Agent, address: str | None) -> None:
    agent.notifier, agent.bundle = Notifier(address), "a" * 64
    upkeep = agent.upkeep()
    current = agent.state / "current"
    for text in (None, b"", b"[]", b"{}", json.dumps({"digest": "a" * 64}).encode()):
        if text is not None:
            current.write_bytes(text)
        assert not upkeep.superseded
    assert agent.said == []
    current.write_text(json.dumps({"digest": "b" * 64}))
    assert [upkeep.superseded, upkeep.superseded] == [address is not None] * 2
    assert len(agent.said) == 1


def test_settings_that_become_stricter_hold_for_earlier_previews_too(agent: Agent) -> None:
    agent.settings = replace(agent.settings, people=People("keep", 0.0))
    put(agent.photos / "a.jpg", jpeg(250))
    agent.run(agent.upkeep())
    agent.log.add_review(agent.rows("SELECT sha256 FROM photo")[0][0], [Observation("person")], "Ada")
    for word, once, state in (("blur", False, "blurred"), ("none", True, "withheld")):
        agent.settings, agent.once = replace(agent.settings, people=People(word)), once
        upkeep = agent.upkeep()
        upkeep.end(stopped=False) if once else upkeep.idle()
        assert agent.rows("SELECT preview FROM photo") == [(state,)]
    assert list((agent.state / "previews").rglob("*.jpg")) == []
