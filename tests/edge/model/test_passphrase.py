"""Passphrases: from a file that only its owner reads, or typed where nobody sees it, and never made up."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.errors import TrustError
from edge.model import key_folder, passphrase
from edge.model.secret_key import Cost
from tests.fakes import tiny

CHEAP = Cost(32768, 2**20)
WORDS = "füchse im Wald"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing named by the environment, and no terminal."""
    monkeypatch.delenv(passphrase.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "stdin", None)


def _file(folder: Path, data: bytes, *, mode: int = 0o600) -> Path:
    path = folder / "pass.txt"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def _keys(folder: Path) -> Path:
    return key_folder.create(folder / "keys", WORDS.encode, CHEAP).folder


# --- from a file


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(WORDS.encode(), id="without a line end"),
        pytest.param(WORDS.encode() + b"\n", id="one line"),
        pytest.param(WORDS.encode() + b"\r\n", id="one line as Windows ends it"),
        pytest.param(WORDS.encode() + b"\n\nnot this\n", id="the first of several lines"),
    ],
)
def test_the_first_line_of_the_file_is_the_passphrase(tmp_path: Path, data: bytes) -> None:
    assert passphrase.read_file(_file(tmp_path, data)) == WORDS.encode()


def test_spaces_belong_to_the_passphrase(tmp_path: Path) -> None:
    assert passphrase.read_file(_file(tmp_path, b"  two  words \n")) == b"  two  words "


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601], ids=oct)
def test_a_passphrase_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(TrustError, match="chmod 600") as caught:
        passphrase.read_file(_file(tmp_path, b"words\n", mode=mode))
    assert caught.value.code == "mode"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\nwords\n", id="nothing on its first line"),
        pytest.param(b"x" * 1001, id="a first line of 1001 bytes"),
        pytest.param(b"words\n" + b"x" * 4096, id="more than 4 KiB"),
        pytest.param(b"wo\0rds\n", id="a zero byte"),
        pytest.param(b"wo\rrds\n", id="a carriage return inside"),
    ],
)
def test_a_file_that_holds_no_passphrase_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(TrustError, match=r"pass\.txt") as caught:
        passphrase.read_file(_file(tmp_path, data))
    assert caught.value.code == "passphrase"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", ".", "a\0b"], ids=["a missing file", "a folder", "a name of no file"])
def test_a_passphrase_file_that_cannot_be_read_says_so(tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(TrustError, match="cannot be read") as caught:
        passphrase.read_file(tmp_path / name)
    assert caught.value.code == "passphrase"


# --- unlocking


def test_a_named_file_unlocks_the_keys(tmp_path: Path) -> None:
    keys, file = _keys(tmp_path), _file(tmp_path, WORDS.encode())
    assert not passphrase.unlock(file, key_dir=keys).development


def test_the_environment_names_the_file_and_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_KEYS", str(_keys(tmp_path)))
    monkeypatch.setenv("FIELDMARK_PASSPHRASE_FILE", str(_file(tmp_path, WORDS.encode())))
    assert passphrase.unlock().folder == tmp_path / "keys"
    with pytest.raises(TrustError, match="other cannot be read"):
        passphrase.unlock(tmp_path / "other")  # what is named on the command line counts


def test_without_file_and_terminal_a_locked_key_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"--passphrase-file FILE or FIELDMARK_PASSPHRASE_FILE") as caught:
        passphrase.unlock(key_dir=_keys(tmp_path))
    assert caught.value.code == "passphrase"


def test_a_key_without_passphrase_needs_neither_file_nor_terminal(tmp_path: Path) -> None:
    made = passphrase.unlock(key_dir=tmp_path / "keys", make=True)
    assert (made.created, made.development) == (True, True)
    assert passphrase.unlock(tmp_path / "missing", key_dir=tmp_path / "keys").signing == made.signing


@pytest.mark.parametrize(
    ("named", "make"),
    [
        pytest.param(False, False, id="where none are to be made"),
        pytest.param(True, True, id="for somebody who has a passphrase"),
    ],
)
def test_no_development_key_is_made(tmp_path: Path, named: bool, make: bool) -> None:
    file = _file(tmp_path, WORDS.encode()) if named else None
    with pytest.raises(TrustError, match="fieldmark keys create") as caught:
        passphrase.unlock(file, key_dir=tmp_path / "keys", make=make)
    assert caught.value.code == "no keys"
    assert not (tmp_path / "keys").exists()


def test_a_new_key_without_file_and_terminal_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_PASSPHRASE_FILE", "/nowhere")  # for keys that are there, not for new ones
    with pytest.raises(TrustError, match="--no-passphrase") as caught:
        passphrase.choose()
    assert caught.value.code == "passphrase"


# --- at a terminal

PROGRAM = """
import sys
from pathlib import Path
from edge.errors import TrustError
from edge.model import key_folder, passphrase, secret_key
folder = Path(sys.argv[2])
try:
    if sys.argv[1] == "create":
        key_folder.create(folder, passphrase.choose, secret_key.Cost(32768, 2**20))
    else:
        passphrase.unlock(key_dir=folder)
    print("done")
except TrustError as error:
    print(f"refused: {error.code}: {error}")
"""
NEW, AGAIN, KNOWN = "Passphrase for the new key: ", "The same again: ", "Passphrase of the signing key: "


def _at_terminal(arguments: Sequence[str], *answers: tuple[str, str]) -> str:
    """Run the program at a terminal, type each answer when its prompt is there; all that the terminal showed."""
    ours, its = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True
    ) as process:
        os.close(its)
        shown = ""
        for prompt, answer in answers:
            shown += _until(ours, prompt)
            os.write(ours, f"{answer}\n".encode())
        shown += _until(ours, None)
        process.wait()
    os.close(ours)
    return shown


def _until(terminal: int, text: str | None) -> str:
    """What the terminal shows until ``text`` is there, or until its end."""
    shown = b""
    while text is None or text.encode() not in shown:
        try:
            chunk = os.read(terminal, 1024)
        except OSError:  # on Linux, how a terminal ends
            chunk = b""
        if not chunk:
            assert text is None, f"{text!r} never came: {shown!r}"
            break
        shown += chunk
    return shown.decode()


def test_a_new_passphrase_is_asked_for_twice_and_never_shown(tmp_path: Path) -> None:
    folder = str(tmp_path / "keys")
    shown = _at_terminal(["create", folder], (NEW, WORDS), (AGAIN, WORDS))
    assert "done" in shown
    assert WORDS not in shown
    assert "done" in (shown := _at_terminal(["unlock", folder], (KNOWN, WORDS)))
    assert WORDS not in shown
    assert "refused: passphrase" in _at_terminal(["unlock", folder], (KNOWN, "wrong"))


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([(NEW, "one"), (AGAIN, "two")], id="two that differ"),
        pytest.param([(NEW, "")], id="an empty one"),
        pytest.param([(NEW, "\x04")], id="the end of all typing"),
    ],
)
def test_a_new_passphrase_that_cannot_be_used_makes_no_key(tmp_path: Path, answers: list[tuple[str, str]]) -> None:
    before = tiny.snapshot(tmp_path)
    assert "refused: passphrase" in _at_terminal(["create", str(tmp_path / "keys")], *answers)
    assert tiny.snapshot(tmp_path) == before
