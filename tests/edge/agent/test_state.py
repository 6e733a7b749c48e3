from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from edge.agent import config, slots, state
from edge.errors import DeviceError
from edge.log import store

NAMES = ["settings", "bundle", "model", "log", "disk"]


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
    with pytest.raises(DeviceError, match="damaged"):
        state.status(device_root, store.path_below(device_root))


def test_misspelt_setting_is_found(device_root: Path) -> None:
    (device_root / config.FILE).write_text("[agent]\nsetle_s = 1\n")
    assert failed(device_root) == ["settings"]


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
