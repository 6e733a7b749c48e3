from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from edge import durable
from edge.agent import config, service, slots, state
from edge.errors import DeviceError
from edge.log import store

NAMES = ["settings", "bundle", "model", "people", "alerts", "log", "delete", "disk"]


def failed(root: Path) -> list[str]:
    found = state.preflight(root, store.path_below(root))
    assert [each.name for each in found] == NAMES
    return [each.name for each in found if not each.passed]


def test_device_with_a_bundle_is_ready(device_root: Path) -> None:
    assert failed(device_root) == []
    assert [path.name for path in store.path_below(device_root).parent.glob(".*")] == []  # the trial file is gone


def test_root_without_a_bundle_is_not_ready_and_stays_blank(tmp_path: Path) -> None:
    assert failed(tmp_path) == ["bundle", "model", "log", "disk"]
    assert list(tmp_path.iterdir()) == []


def test_damaged_model_is_found(device_root: Path) -> None:
    model = slots.current(device_root).model_path
    model.chmod(0o644)
    model.write_bytes(b"x" * model.stat().st_size)
    assert failed(device_root) == ["bundle", "model"]
    assert "damaged" in state.status(device_root, store.path_below(device_root))["troubles"]["bundle"]


def test_misspelt_setting_is_found(device_root: Path) -> None:
    (device_root / config.FILE).write_text("[agent]\nsetle_s = 1\n")
    assert failed(device_root) == ["settings", "people", "alerts", "delete"]


def test_missing_source_is_found(device_root: Path) -> None:
    (device_root / config.FILE).write_text('[[source]]\npath = "/media/card"\n')
    assert failed(device_root) == ["settings"]


def test_foreign_file_in_the_place_of_the_log_is_found_and_stays(device_root: Path) -> None:
    log = store.path_below(device_root)
    log.write_bytes(b"not a log\n" * 1000)
    assert failed(device_root) == ["log"]
    assert log.read_bytes() == b"not a log\n" * 1000


def test_damaged_log_that_still_opens_is_found(device_root: Path) -> None:
    log = store.path_below(device_root)
    store.open_for_writing(log).close()
    assert failed(device_root) == []
    with closing(store.open_for_reading(log)) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'file'").fetchall()
        [(page_bytes,)] = connection.execute("PRAGMA page_size").fetchall()
    with log.open("r+b") as file:
        file.seek((page - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)
    store.open_for_writing(log).close()
    assert failed(device_root) == ["log"]


def test_full_disk_is_found(device_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "SPARE_BYTES", 2**62)
    assert failed(device_root) == ["disk"]


def test_status_of_a_new_root_says_that_there_is_nothing(tmp_path: Path) -> None:
    found = state.status(tmp_path, store.path_below(tmp_path))
    assert [found[key] for key in ("schema", "device", "bundle", "log")] == [1, None, None, None]


def test_status_of_a_device_names_bundle_and_log(device_root: Path) -> None:
    log = store.path_below(device_root)
    store.open_for_writing(log).close()
    found = state.status(device_root, log)
    slot = slots.current(device_root)
    assert found["device"] == slots.device_id(device_root)
    assert found["bundle"]["digest"] == slot.digest
    assert found["bundle"]["runtime"] is not None
    assert (found["log"]["files"], found["log"]["last_seen_utc"]) == (0, None)


def test_status_of_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no folder"):
        state.status(tmp_path / "nowhere", tmp_path / "log.db")


def words(root: Path, name: str) -> str:
    return next(each.text for each in state.preflight(root, store.path_below(root)) if each.name == name)


def test_model_that_knows_no_person_is_said_to_keep_previews_of_people(device_root: Path) -> None:
    assert "knows no `person`" in words(device_root, "people")


ALERT = '[[alert]]\nname = "foxes"\nlabels = ["fox", "lynx"]\nabove = 0.5\n'


@pytest.mark.parametrize(
    ("text", "passed", "says"),
    [
        ('channel = "command"\ncommand = ["/bin/true"]', True, "1 alert(s)"),
        ('channel = "command"\ncommand = ["/nowhere/send"]', False, "/nowhere/send is not there"),
        ('channel = "webhook"\nurl = "https://example.org/"\ntoken_file = "/etc/token"', False, "etc/token is not"),
    ],
)
def test_alert_that_cannot_be_sent_is_found_before_the_device_goes_out(
    device_root: Path, text: str, passed: bool, says: str
) -> None:
    (device_root / config.FILE).write_text(ALERT + text)
    assert ("alerts" not in failed(device_root)) is passed
    assert says in words(device_root, "alerts")


# What the agent told


def test_status_of_a_device_without_an_agent_says_so(device_root: Path) -> None:
    found = state.status(device_root, store.path_below(device_root))
    assert (found["agent"], found["machine"]) == (None, None)  # this machine is not that device
    assert state.agent_lines(None) == ["agent     has told nothing here"]
    assert state.machine_lines(None) == []


def test_status_says_what_the_agent_told_and_opens_no_log_for_writing(device_root: Path) -> None:
    log = store.path_below(device_root)
    told = service.StatusFile(device_root / "run/fieldmark/status.json", {"device": "d"})
    told.write(
        "working",
        {
            "counts": {"classified": 7, "failed": 1}, "failures": {"truncated": 1}, "queue": 3,
            "last": {"photo": "a.jpg", "label": "fox", "confidence": 0.91, "at": "2026-05-01T12:00:00+00:00"},
            "space": {"level": "low", "free_bytes": 123_000_000},
        },
    )  # fmt: skip
    found = state.status(device_root, log)
    assert not log.exists()
    text = "\n".join(state.agent_lines(found["agent"]))
    for words_ in (
        "working, 0 s ago",
        "a.jpg: fox 0.91",
        "7 classified, 1 failed; 3 wait",
        "1 truncated",
        "low, 123 MB",
    ):
        assert words_ in text


def test_silent_agent_is_said_to_be_silent_and_one_that_ended_is_not(device_root: Path) -> None:
    told = service.StatusFile(device_root / "run/fieldmark/status.json", {"boot_id": "x"})
    told._facts["boot_id"] = "another"
    told.write("working", {})
    agent = state.status(device_root, store.path_below(device_root))["agent"]
    assert state.agent_lines(agent)[0].startswith("agent     SILENT since")
    told.write("ended", {})
    agent = state.status(device_root, store.path_below(device_root))["agent"]
    assert state.agent_lines(agent)[0].startswith("agent     ended as it should")


def test_machine_is_told_in_words() -> None:
    machine = {
        "temperature_c": 61.4,
        "throttling": {"now": ["too hot"], "since_start": ["under-voltage"]},
        "clock": {"synchronised": False, "battery": True, "plausible": False, "now": "1970-01-01T00:00:00+00:00"},
    }
    assert state.machine_lines(machine) == [
        "machine   61 °C; held back: too hot; since the start: under-voltage",
        "clock     1970-01-01T00:00:00+00:00, NOT synchronised, with a battery, and cannot be right",
    ]


# What cannot be read


def test_damaged_parts_are_said_and_the_rest_is_shown(device_root: Path) -> None:
    log = store.path_below(device_root)
    log.write_bytes(b"no database at all " * 100)
    service.StatusFile(device_root / "run/fieldmark/status.json", {}).write("working", {})
    found = state.status(device_root, log)
    assert list(found["troubles"]) == ["log"]
    assert found["bundle"]["name"] == "tiny"
    assert (found["log"], found["agent"]["state"]) == (None, "working")
    slots.current(device_root).model_path.write_bytes(b"x")
    (device_root / config.FILE).write_text("agent = 3")
    found = state.status(device_root, log)
    assert sorted(found["troubles"]) == ["bundle", "log", "settings"]
    assert found["agent"]["state"] == "working"


@pytest.mark.parametrize(
    "values",
    [
        {"counts": [1]}, {"last": "x"}, {"last": {"label": "fox", "confidence": None}}, {"space": 7},
        {"space": {"level": "low", "free_bytes": "x"}}, {"failures": {"a": {}}, "counts": 3},
    ],
)  # fmt: skip
def test_status_file_of_somebody_else_is_no_error(device_root: Path, values: dict[str, object]) -> None:
    service.StatusFile(device_root / "run/fieldmark/status.json", {}).write("working", values)
    agent = state.status(device_root, store.path_below(device_root))["agent"]
    assert state.agent_lines(agent)


def test_species_that_the_model_lacks_are_found_before_the_device_goes_out(device_root: Path) -> None:
    (device_root / config.FILE).write_text('species = ["lynx"]')
    assert failed(device_root) == ["model"]
    assert "'lynx'" in words(device_root, "model")


def test_alert_for_what_the_model_never_says_is_found(device_root: Path) -> None:
    (device_root / config.FILE).write_text(
        '[[alert]]\nname = "a"\nlabels = ["lynx"]\nabove = 0.5\nchannel = "command"\ncommand = ["/bin/true"]'
    )
    assert failed(device_root) == ["alerts"]
    assert "the model never says lynx" in words(device_root, "alerts")


DELETE = '[[delete]]\nname = "old"\nlabel = "{}"\nolder_days = 30\n{}\n'


@pytest.mark.parametrize(
    ("label", "more", "passed", "says"),
    [
        ("deer", "above = 0.9", True, "'old': 0 of the logged files, once they are 30 days old"),
        ("lynx", "above = 0.9", False, "policy 'old': the model never says lynx"),
        ("lynx", "reviewed = true", True, "'old': 0 of"),
    ],
)
def test_policy_of_deletion_says_what_it_would_do(
    device_root: Path, label: str, more: str, passed: bool, says: str
) -> None:
    assert "no original is ever deleted" in words(device_root, "delete")
    (device_root / config.FILE).write_text(DELETE.format(label, more))
    store.open_for_writing(store.path_below(device_root)).close()
    assert says in words(device_root, "delete")
    assert ("delete" not in failed(device_root)) is passed


def test_folder_that_cannot_be_written_is_named(device_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(30, "Read-only file system", f"{path}.tmp")

    monkeypatch.setattr(durable, "write_file", refuse)
    folder = store.path_below(device_root).parent
    assert words(device_root, "disk") == f"{folder} cannot be written: Read-only file system."
