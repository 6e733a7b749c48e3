from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.agent import config
from edge.agent.config import Agent, Config, Source
from edge.agent.config_upkeep import defaults
from edge.errors import ConfigError

WHOLE = """
species = ["fox", "roe deer"]

[agent]
settle_s = 3
scan_interval_s = 30.5
event_gap_s = 60
threads = 2

[[source]]
path = "/srv/photos"
station = "beech 4"
camera = "cam-07"
utc_offset = "-03:30"

[[source]]
path = "/media/card"
"""


def write(root: Path, text: str | bytes) -> Path:
    path = root / config.FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_no_file_is_the_defaults(tmp_path: Path) -> None:
    assert config.load(tmp_path) == Config((), Agent(2.0, 60.0, 120.0, 1), upkeep=defaults(tmp_path))


def test_every_setting_is_read_and_sources_lie_below_the_root(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    assert config.load(tmp_path) == Config(
        sources=(
            Source(tmp_path / "srv/photos", "beech 4", "cam-07", "-03:30"),
            Source(tmp_path / "media/card"),
        ),
        agent=Agent(settle_s=3, scan_interval_s=30.5, event_gap_s=60, threads=2),
        species=("fox", "roe deer"),
        upkeep=defaults(tmp_path),
    )


def test_source_cannot_leave_the_root(tmp_path: Path) -> None:
    write(tmp_path, '[[source]]\npath = "../../etc/../srv"')
    assert config.load(tmp_path).sources == (Source(tmp_path / "srv"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("[agent]\nsetle_s = 1", ["agent.setle_s", "`settle_s`"], id="a key that is misspelt"),
        pytest.param("species = []", ["species is [], expected 1 to"], id="no species at all"),
        pytest.param('species = "fox"', ["species is 'fox', expected"], id="one species without a list"),
        pytest.param("species = [7]", ["species[1] is 7, expected"], id="a number is no species"),
        pytest.param('specis = ["fox"]', ["specis", "`species`"], id="species that is misspelt"),
        pytest.param("[agnet]", ["agnet", "`agent`"], id="a table that is misspelt"),
        pytest.param('[[source]]\npath="/a"\nsite="x"', ["source[1].site", "station"], id="a key of a source"),
        pytest.param('[[source]]\nstation="x"', ["source[1]", "no path"], id="a source without a path"),
        pytest.param('[source]\npath="/a"', ["[[source]]"], id="a single table of a source"),
        pytest.param("agent = 3", ["agent is 3", "a table"], id="a number for a table"),
        pytest.param(f"agent = '{'x' * 5000}'", ["a table"], id="a long text for a table"),
        pytest.param('[agent]\nsettle_s = "2"', ["agent.settle_s is '2'", "0 to 3600"], id="text for a number"),
        pytest.param("[agent]\nsettle_s = true", ["agent.settle_s is True"], id="true for a number"),
        pytest.param("[agent]\nsettle_s = -1", ["agent.settle_s is -1"], id="a number that is too small"),
        pytest.param("[agent]\nsettle_s = nan", ["agent.settle_s is nan"], id="no number at all"),
        pytest.param("[agent]\nthreads = 1.5", ["agent.threads is 1.5", "whole"], id="half a thread"),
        pytest.param('[[source]]\npath="/a"\nutc_offset="CET"', ["source[1].utc_offset", "+01:00"], id="a zone's name"),
        pytest.param('[[source]]\npath="/a"\nutc_offset="+15:00"', ["+15:00"], id="an offset beyond the earth"),
        pytest.param('[[source]]\npath="/a"\nstation=""', ["source[1].station"], id="an empty station"),
        pytest.param('[[source]]\npath="/a"\nstation="x\\n"', ["source[1].station"], id="a line break in a station"),
        pytest.param('[[source]]\npath="/a"\n[[source]]\npath="/a/b"', ["lies in"], id="a source inside another"),
        pytest.param('[[source]]\npath="/a"\n[[source]]\npath="/a/"', ["lies in"], id="a source twice"),
        pytest.param("agent = ", ["not TOML"], id="no TOML"),
        pytest.param(f"a = {'9' * 6000}", ["not TOML"], id="a number with more digits than Python reads"),
        pytest.param(f"{'k' * 5000} = 1", ["is no setting"], id="a key without end"),
        pytest.param(b"station = '\xff'", ["not TOML"], id="no UTF-8"),
        pytest.param("a" * (config.MAX_BYTES + 1), ["few lines"], id="a file without end"),
    ],
)
def test_wrong_settings_are_refused_with_file_key_and_what_is_expected(
    tmp_path: Path, text: str | bytes, says: list[str]
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        config.load(tmp_path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 300
    for words in says:
        assert words in message


def test_mark_that_an_editor_put_before_the_text_is_no_setting(tmp_path: Path) -> None:
    write(tmp_path, b"\xef\xbb\xbf[agent]\r\nsettle_s = 3\r\n")
    assert config.load(tmp_path).agent.settle_s == 3


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a named pipe", "a folder"])
def test_what_is_no_plain_file_hangs_nobody(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = write(tmp_path, "")
    path.unlink()
    make(path)
    with pytest.raises(ConfigError, match=r"no plain file|Is a directory"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '[[source]]\npath="/a"\n[[source]]\npath="/link"',
        '[[source]]\npath="/link/b"\n[[source]]\npath="/a"',
        '[[source]]\npath="/a"\n[[delete]]\nname="x"\nlabel="empty"\nolder_days=1\ncopied_to="/link/copy"',
    ],
    ids=["the same folder", "a folder inside", "copies inside"],
)
def test_folders_that_are_one_by_way_of_a_link_are_refused_by_the_settings(tmp_path: Path, text: str) -> None:
    """So that `fieldmark check` says it, and not the agent at its first start in the forest."""
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    write(tmp_path, text)
    with pytest.raises(ConfigError, match=r"lies in|not apart"):
        config.load(tmp_path)


@pytest.mark.parametrize("text", ["", " ", "a\nb", "\x1b[31m", "\udce9", "x" * 201])
def test_station_that_the_settings_could_not_have_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--station is .*, expected 1 to 200 printable characters"):
        config.check_station(text, "--station")


def test_station_is_taken_without_space_around_it() -> None:
    assert config.check_station(" Bär 4 ", "--station") == "Bär 4"


@pytest.mark.parametrize("text", ["+00:00", "-00:00", "+05:45", "+14:00", "-14:00"])
def test_utc_offsets_of_the_earth_are_taken(text: str) -> None:
    assert config.check_utc_offset(text, "offset") == text


@pytest.mark.parametrize("text", ["1:00", "+1:00", "+01", "+14:01", "+00:60", "Z", "+٠١:٠٠", "+01:00\n"])
def test_other_offsets_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected hours and minutes"):
        config.check_utc_offset(text, "offset")


@pytest.mark.parametrize("path", ["/", "/var", "/var/lib/fieldmark", "/var/lib/fieldmark/previews/ab", "/link"])
def test_source_with_pictures_of_fieldmarks_own_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to("var")
    write(tmp_path, f'[[source]]\npath = "{path}"')
    with pytest.raises(ConfigError, match="pictures of Fieldmark's own"):
        config.load(tmp_path)


def test_source_beside_them_is_taken(tmp_path: Path) -> None:
    write(tmp_path, '[[source]]\npath = "/var/lib/fieldmark/photos"')
    assert len(config.load(tmp_path).sources) == 1
