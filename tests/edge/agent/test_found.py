from __future__ import annotations

from pathlib import Path

from edge.agent import found
from edge.agent.config import Source
from tests.fakes.camera import put


def test_folder_that_nobody_lets_us_look_at_is_a_trouble_and_one_that_is_gone_is_none(tmp_path: Path) -> None:
    put(tmp_path / "here" / "a.jpg", b"x")
    closed = tmp_path / ("x" * 300)  # as where a folder above may not be entered: asking is an error
    troubles: dict[Path, str] = {}
    logged = [str(closed), str(tmp_path / "here"), str(tmp_path / "gone")]
    assert [each.path for each in found.files(Path("/"), logged, [], troubles)] == ["a.jpg"]
    assert troubles == {closed: "File name too long"}


def test_folders_of_log_and_settings_are_searched_once(tmp_path: Path) -> None:
    put(tmp_path / "card" / "DCIM" / "a.jpg", b"x")
    (tmp_path / "link").symlink_to("card")
    logged = [str(tmp_path / "card" / "DCIM"), str(tmp_path / "card")]
    files = found.files(Path("/"), logged, [Source(tmp_path / "link")], {})
    assert [(each.source, each.path) for each in files] == [(str(tmp_path / "card"), "DCIM/a.jpg")]
