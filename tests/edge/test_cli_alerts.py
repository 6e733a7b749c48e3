from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import fieldmark
from edge.agent import config
from edge.log import store
from edge.log.store import Alert, FileFacts, FileKey, PhotoFacts
from edge.photo import Taken


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A device with one stored message and a command that writes what it gets to ``out``."""
    script = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"
    path = tmp_path / config.FILE
    path.parent.mkdir(parents=True)
    path.write_text(
        '[[alert]]\nname="radio"\nlabels=["fox"]\nabove=0.5\nshort=true\nchannel="command"\n'
        f'command=["{sys.executable}", "-c", "{script}", "{tmp_path / "out"}"]\n'
    )
    with store.open_for_writing(store.path_below(tmp_path)) as log:
        file = FileFacts(FileKey("d", "/s", "a.jpg", 1, 1), Taken("2024-05-01T06:12:09", "+00:00", "exif", ()))
        alerts = [Alert("radio|fox|beech|1", "radio", "fox 93%")]
        log.add_file(file, photo=PhotoFacts("ab" * 32, 4, 4), detection=None, failure=None, alerts=alerts)
    return tmp_path


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        fieldmark.main([*words])
    return int(ended.value.code or 0)


def test_message_waits_is_sent_once_and_is_then_said_to_be_sent(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("alerts", "list", "--root", str(root)) == 0
    assert "waits, 0 tries" in capsys.readouterr().out
    assert run("alerts", "send", "--once", "--root", str(root)) == 0
    assert run("alerts", "send", "--once", "--root", str(root)) == 0
    assert (root / "out").read_text() == "fox 93%"
    capsys.readouterr()
    assert run("alerts", "list", "--json", "--root", str(root)) == 0
    [found] = map(json.loads, capsys.readouterr().out.splitlines())
    assert (found["schema"], found["key"], found["tries"]) == (1, "radio|fox|beech|1", 0)
    assert found["sent_utc"]


def test_test_message_goes_the_way_of_the_others(root: Path) -> None:
    assert run("alerts", "test", "radio", "--root", str(root)) == 0
    assert (root / "out").read_text() == "fieldmark test"


def test_alert_that_there_is_not_is_refused_with_those_there_are(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("alerts", "test", "rdio", "--root", str(root)) == 1
    assert "it has radio" in capsys.readouterr().err


def test_message_that_cannot_be_sent_is_exit_1_and_waits(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / config.FILE
    path.write_text(path.read_text().replace(sys.executable, "/nowhere/python"))
    assert run("alerts", "send", "--once", "--root", str(root)) == 1
    assert "0 sent, 1 tries failed, 1 wait." in capsys.readouterr().out
