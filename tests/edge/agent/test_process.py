"""The agent as a process of its own, on a device root with a real bundle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.agent import config, config_upkeep, process, run, slots
from edge.agent import plan as plans
from edge.agent.config import Agent, Power, Source
from edge.agent.config_upkeep import Space
from edge.agent.plan import Plan
from edge.errors import ConfigError, DeviceError
from edge.log import damage, query, store
from tests.fakes.camera import jpeg, need_leases, put

ROOT = Path(__file__).resolve().parents[3]
LONG_S = 60


@pytest.fixture
def plan(device_root: Path, tmp_path: Path) -> Plan:
    (tmp_path / "photos").mkdir()
    slot = slots.current(device_root)
    return Plan(
        device=slots.device_id(device_root),
        slot=slot.path,
        digest=slot.digest,
        development=slot.development,
        sources=(Source(tmp_path / "photos", station="beech"),),
        log=store.path_below(device_root),
        agent=Agent(settle_s=0),
        once=True,
        patience_s=0.0,
        upkeep=config_upkeep.defaults(device_root),
    )


@contextmanager
def spawn(plan: Plan) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "edge.agent.process", plans.to_text(plan, as_json=True)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        try:
            yield agent
        finally:
            agent.kill()  # it has ended already, unless the test failed


def rows(plan: Plan) -> list[query.Row]:
    with closing(store.open_for_reading(plan.log)) as connection:
        return list(query.rows(connection))


def folder(plan: Plan) -> Path:
    return plan.sources[0].path


def say_nothing(*arguments: Any) -> None:
    pass


def test_plan_comes_through_the_command_line_as_it_was(plan: Plan) -> None:
    odd = Source(Path(os.fsdecode(b"/srv/caf\xe9 '\"\n")), "bo\u00eete", "cam", "-03:30")
    power = Power(((60, 120), (1200, 360)), 0.5, 4, 7)
    more = {"agent": Agent(1.5, 2.5, 3.5, 4, "newest"), "species": ("fox",), "power": power, "reclassify": True}
    wide = Plan(**{**vars(plan), "sources": (*plan.sources, odd), **more})
    text = plans.to_text(wide, as_json=True)
    assert text.isascii()
    assert plans.from_text(text) == (wide, True)


def test_bundle_on_a_device_classifies_a_folder_once(plan: Plan) -> None:
    put(folder(plan) / "a.jpg", jpeg(10))
    put(folder(plan) / "b.jpg", b"broken")
    with spawn(plan) as agent:
        out, err = agent.communicate(timeout=LONG_S)
    assert agent.returncode == 0, err
    found = json.loads(out)
    assert (found["schema"], found["classified"], found["failed"], found["not_ready"]) == (1, 1, 1, 0)
    [good, bad] = rows(plan)
    slot = slots.current(plan.slot.parents[4])
    assert good.label in [label.name for label in slot.manifest.labels] + ["unknown"]
    assert (good.bundle_digest, good.model_digest) == (slot.digest, slot.model_digest)
    assert good.bundle == f"{slot.manifest.name}-{slot.manifest.sequence}"
    assert bad.failure_code == "unrecognised"


def test_a_station_s_species_that_the_bundle_lacks_end_the_agent_before_the_first_photo(plan: Plan) -> None:
    put(folder(plan) / "a.jpg", jpeg(10))
    with spawn(Plan(**{**vars(plan), "species": ("unicorn",)})) as agent:
        _, err = agent.communicate(timeout=LONG_S)
    assert agent.returncode == 1
    assert "the station's species name 'unicorn'" in err
    assert not plan.log.exists()


NOT_FOR_MONTHS = {
    *("typer", "rich", "pydantic", "cryptography", "http.server", "edge.cli"),
    *("tomllib", "edge.log.query", "edge.log.table"),
}
"""What the commands need that read settings and show the log, and an agent would hold in memory for nothing."""


def test_agent_needs_neither_command_line_library_nor_cryptography_nor_what_shows_a_log(plan: Plan) -> None:
    put(folder(plan) / "a.jpg", jpeg(10))
    script = (
        "import sys; from edge.agent import process; process.main(sys.argv[1:]);"
        f"print(*(set(sys.modules) & {NOT_FOR_MONTHS}))"
    )
    command = [sys.executable, "-c", script, plans.to_text(plan, as_json=False)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    assert len(rows(plan)) == 1


def test_running_agent_takes_what_arrives_and_ends_at_sigterm(plan: Plan) -> None:
    plan = Plan(**{**vars(plan), "once": False})
    put(folder(plan) / "before.jpg", jpeg(10))
    with spawn(plan) as agent:
        assert agent.stderr is not None
        said = ""
        while "before.jpg" not in said:  # its line comes after its row
            said = agent.stderr.readline()
            assert said, "the agent ended early"
        put(folder(plan) / "DCIM" / "while.jpg", jpeg(20))
        while "while.jpg" not in said:
            said = agent.stderr.readline()
            assert said, "the agent ended early"
        assert {row.path for row in rows(plan)} == {"before.jpg", "DCIM/while.jpg"}
        agent.send_signal(signal.SIGTERM)
        out, err = agent.communicate(timeout=LONG_S)
    assert agent.returncode == 0, err
    assert json.loads(out)["classified"] == 2
    assert "Stopped as asked" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_the_agent_is_ready_ends_it_as_it_should(plan: Plan, number: signal.Signals) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})  # as hold_sigterm and become leave it to the process
    try:
        with spawn(Plan(**{**vars(plan), "once": False})) as agent:
            agent.send_signal(number)
            _, err = agent.communicate(timeout=LONG_S)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert agent.returncode == 0, err
    assert "Stopped as asked" in err


def test_ctrl_c_waits_while_the_command_becomes_the_agent(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would answer it with twenty lines of where it was importing."""
    held: list[set[int]] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def exec_fails(*_: object) -> None:
        held.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        raise BlockingIOError

    monkeypatch.setattr(os, "execve", exec_fails)
    try:
        with pytest.raises(BlockingIOError):
            plans.become(plan, as_json=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert signal.SIGINT in held[0]


def test_settings_too_long_for_an_argument_are_one_line_and_no_riddle(plan: Plan) -> None:
    long = Plan(**{**vars(plan), "species": tuple(f"species number {i} of the region" for i in range(10_000))})
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        with pytest.raises(ConfigError, match=r"take \d+ bytes as an argument.*Shorten the lists of species"):
            plans.become(long, as_json=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("closed", ["2>/dev/full", "2>&-", "0<&- 1>&- 2>&-", "2>&1 | true"])
def test_agent_that_nobody_hears_takes_the_photos_all_the_same(plan: Plan, closed: str) -> None:
    for i in range(3):
        put(folder(plan) / f"{i}.jpg", jpeg(10 + i))
    put(folder(plan) / "cut.jpg", b"broken")
    command = [sys.executable, "-P", "-m", "edge.agent.process", plans.to_text(plan, as_json=False)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *command], env=environment, timeout=LONG_S, check=True)
    assert len(rows(plan)) == 4


def test_folder_that_cannot_be_read_is_counted_at_the_end(plan: Plan) -> None:
    put(folder(plan) / "a.jpg", jpeg(10))
    gone = Source(folder(plan).with_name("no card"))
    with spawn(Plan(**{**vars(plan), "sources": (*plan.sources, gone)})) as agent:
        out, err = agent.communicate(timeout=LONG_S)
    assert agent.returncode == 0, err
    assert json.loads(out)["not_read"] == 1
    assert err.splitlines()[-1] == "1 path could not be read, see above."


def test_agent_of_a_service_ends_to_be_started_with_another_bundle(
    plan: Plan, device_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    put(folder(plan) / "a.jpg", jpeg(10))
    with spawn(Plan(**{**vars(plan), "once": False})) as agent:
        assert agent.stderr is not None
        while "a.jpg" not in agent.stderr.readline():
            pass
        (device_root / "var/lib/fieldmark/current").write_text(json.dumps({"digest": "b" * 64}))
        _, err = agent.communicate(timeout=LONG_S)
    assert agent.returncode == process.AGAIN
    assert "another bundle was installed" in err


def test_agent_on_a_full_disk_gives_up_its_ballast_before_it_opens_the_log(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = plan.log.with_name("ballast")
    ballast.write_bytes(b"x")
    upkeep = replace(plan.upkeep, space=Space(10**7, 10**7, 10**7, 1, 10))

    def opens(path: Path, say: Any) -> store.Log:
        assert not ballast.exists()
        return store.open_for_writing(path)

    monkeypatch.setattr(damage, "open_or_set_aside", opens)
    run.run(replace(plan, upkeep=upkeep), started=say_nothing, done=say_nothing, say=say_nothing)
    assert not ballast.exists()


def test_photo_that_is_closed_between_its_parts_gets_one_good_row_and_a_cut_one_its_failure(plan: Plan) -> None:
    need_leases(folder(plan))
    plan = Plan(**{**vars(plan), "once": False, "agent": Agent(settle_s=0.5)})
    whole = jpeg(10, side=900)
    put(folder(plan) / "before.jpg", jpeg(20))
    with spawn(plan) as agent:
        assert agent.stderr is not None
        lines = iter(agent.stderr.readline, "")
        assert any("before.jpg" in line for line in lines)
        assert os.readlink(f"/proc/{agent.pid}/cwd") == "/"  # or the card could not be unmounted
        path = folder(plan) / "parts.jpg"
        path.write_bytes(whole[:1500])
        assert "parts.jpg: early: " in next(lines)
        with path.open("ab") as again:
            again.write(whole[1500:])
        assert "parts.jpg: early" not in next(lines)
        (folder(plan) / "cut.jpg").write_bytes(whole[:1500])
        assert "cut.jpg: early: " in next(lines)
        assert "cut.jpg: failed: " in next(lines)
        agent.send_signal(signal.SIGTERM)
        out, err = agent.communicate(timeout=LONG_S)
    assert agent.returncode == 0, err
    assert {row.path: row.failure_code for row in rows(plan)} == {
        "before.jpg": None, "parts.jpg": None, "cut.jpg": "truncated",
    }  # fmt: skip
    assert json.loads(out)["early"] == 2


def test_slot_that_was_altered_after_it_was_verified_is_refused(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    model = plan.slot / "model.tflite"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    with pytest.raises(DeviceError, match="not what was installed"):
        run.load_model(plan)
    assert process.main([plans.to_text(plan, as_json=False)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("fieldmark: ")
    assert not plan.log.exists()


def test_unexpected_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert process.main(["{}"]) == 1
    assert capsys.readouterr().err == "fieldmark: unexpected KeyError: 'plan'.\n"


# Which folders


def test_named_folder_takes_what_the_settings_say_of_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    known = Source(tmp_path, "beech", "cam", "+01:00")
    found = plans.choose_sources(
        config.Config((known, Source(tmp_path / "other"))), tmp_path / "link", utc_offset="+02:00"
    )
    assert found == (Source(tmp_path, "beech", "cam", "+02:00"),)


def test_without_a_folder_the_settings_name_them(tmp_path: Path) -> None:
    settings = config.Config((Source(tmp_path / "a"), Source(tmp_path / "b", "oak")))
    assert plans.choose_sources(settings, None) == settings.sources


@pytest.mark.parametrize(
    ("sources", "folder", "station", "says"),
    [
        pytest.param((), None, None, "no folder to watch", id="no folder at all"),
        pytest.param((), Path("nowhere"), None, "is no folder", id="a folder that is not there"),
        pytest.param(
            (Source(Path("/a")), Source(Path("/b"))), None, "oak", "several sources", id="one station for two folders"
        ),
    ],
)
def test_folders_that_make_no_sense_are_refused(
    sources: tuple[Source, ...], folder: Path | None, station: str | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        plans.choose_sources(config.Config(sources), folder, station=station)


def test_agent_goes_after_other_programs(plan: Plan) -> None:
    before = os.nice(0)
    script = "import os, sys; from edge.agent import process; process.main(sys.argv[1:]); print(os.nice(0))"
    nicer = Plan(**{**vars(plan), "power": Power(nice=3)})
    command = [sys.executable, "-c", script, plans.to_text(nicer, as_json=False)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == min(19, before + 3)


def test_sigterm_in_a_backlog_ends_within_seconds_and_the_rest_is_taken_by_the_next_start(plan: Plan) -> None:
    for i in range(60):
        put(folder(plan) / f"{i:02}.jpg", jpeg(10 + i, side=1600))
    with spawn(Plan(**{**vars(plan), "once": False})) as agent:
        assert agent.stderr is not None
        assert any(".jpg: " in line for line in iter(agent.stderr.readline, ""))
        agent.send_signal(signal.SIGTERM)
        out, err = agent.communicate(timeout=10)
    assert agent.returncode == 0, err
    found = [row.path for row in rows(plan)]
    assert len(found) == len(set(found)) == json.loads(out)["classified"] > 0
    with spawn(plan) as agent:
        out, _ = agent.communicate(timeout=LONG_S)
    assert json.loads(out)["already"] == len(found)
    assert len(rows(plan)) == 60


def test_upload_under_a_temporary_name_is_taken_when_it_is_renamed(plan: Plan) -> None:
    plan = Plan(**{**vars(plan), "once": False})
    put(folder(plan) / "before.jpg", jpeg(10))
    with spawn(plan) as agent:
        assert agent.stderr is not None
        lines = iter(agent.stderr.readline, "")
        assert any("before.jpg" in line for line in lines)
        part = put(folder(plan) / "cam1" / "IMG_0001.JPG.part", jpeg(20)[:100])
        part.write_bytes(jpeg(20))
        part.rename(part.with_suffix(""))
        assert "cam1/IMG_0001.JPG: " in next(lines)
        agent.send_signal(signal.SIGTERM)
        agent.communicate(timeout=LONG_S)
    assert [row.path for row in rows(plan)] == ["before.jpg", "cam1/IMG_0001.JPG"]
