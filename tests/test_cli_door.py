"""The one door: what it lists, what it loads, and how every kind of end becomes a line and an exit code."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from typer.testing import CliRunner

import fieldmark
from edge.errors import BundleError

ROOT = Path(__file__).resolve().parent.parent
ROOM_MODULES = sorted({room.module for room, _ in fieldmark.COMMANDS.values()})


def child(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with ``fieldmark`` importable."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Puts a command ``train`` of one's own behind the door."""

    def put(command: Callable[[], None]) -> None:
        room = types.ModuleType("planted_room")
        room.app = typer.Typer()  # type: ignore[attr-defined]
        room.app.command("train")(command)
        monkeypatch.setitem(sys.modules, "planted_room", room)
        listed = fieldmark.Room("Planted", "planted_room", "trainer")
        monkeypatch.setitem(fieldmark.COMMANDS, "train", (listed, "Planted."))

    return put


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command line."""
    with pytest.raises(SystemExit) as end:
        fieldmark.main(list(arguments))
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def importing(module: str) -> Callable[[], None]:
    def command() -> None:
        importlib.import_module(module)

    return command


# What is listed


def test_table_equals_what_the_three_applications_register() -> None:
    registered = {
        name: module
        for module in ROOM_MODULES
        for name, command in typer.main.get_group(importlib.import_module(module).app).commands.items()
        if not command.hidden
    }
    assert registered == {name: room.module for name, (room, _) in fieldmark.COMMANDS.items()}


def test_help_lists_every_command_with_its_line() -> None:
    shown = re.sub(r"\s+", " ", CliRunner().invoke(fieldmark.app, ["--help"]).stdout)
    for name, (_, line) in fieldmark.COMMANDS.items():
        assert f" {name} {line}" in shown


def test_help_imports_no_room_and_nothing_heavy() -> None:
    done = child(
        "import sys, fieldmark\n"
        "try: fieldmark.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('loaded:', *(set(sys.modules) & {'numpy', 'PIL', 'rich', 'edge.cli', 'trainer.cli', 'deploy.cli'}))"
    )
    assert done.stdout.splitlines()[-1] == "loaded:", done.stdout


def every_command() -> Iterator[tuple[str, ...]]:
    """Command paths, with those of groups: ``("train",)``, ``("keys", "create")``. Nothing where a room is broken."""
    for name in fieldmark.COMMANDS:
        try:
            yield from _paths((name,), fieldmark.load(name))
        except Exception:  # collection goes on; the parametrised test then fails for this name
            yield (name,)


def _paths(path: tuple[str, ...], command: Any) -> Iterator[tuple[str, ...]]:
    yield path
    for name, sub in getattr(command, "commands", {}).items():
        if not sub.hidden:
            yield from _paths((*path, name), sub)


@pytest.mark.parametrize("path", list(every_command()), ids=" ".join)
def test_help_of_every_command_shows_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(fieldmark.app, [*path, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    command = re.escape(" ".join(path))
    assert re.search(rf"[Ee]xamples?\b.*\bfieldmark {command}\b", result.stdout, re.DOTALL), result.stdout


def test_help_of_train_imports_nothing_that_takes_seconds() -> None:
    done = child(
        "import sys, fieldmark\n"
        "try: fieldmark.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "print('loaded:', *(set(sys.modules) & {'tensorflow', 'keras', 'sklearn', 'matplotlib'}))"
    )
    assert done.stdout.splitlines()[-1] == "loaded:", done.stdout


# How it ends


def test_command_that_returns_ends_with_0(
    plant: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    plant(lambda: print("done"))
    assert run(capsys, "train") == (0, "done\n", "")


@pytest.mark.parametrize(
    ("error", "code", "stderr"),
    [
        pytest.param(BundleError("a.fmb: cut."), 1, "fieldmark: a.fmb: cut.\n", id="our error is its message"),
        pytest.param(
            BundleError("a\nb\x1b[2J\udcff.fmb: cut."),
            1,
            "fieldmark: a\\nb\\x1b[2J\\udcff.fmb: cut.\n",
            id="line breaks and terminal sequences in a name are shown, not obeyed",
        ),
        pytest.param(
            ZeroDivisionError("by zero"),
            1,
            "fieldmark: unexpected ZeroDivisionError: by zero. Run it again with FIELDMARK_DEBUG=1 to see where.\n",
            id="an unexpected error names itself and the way to its traceback",
        ),
        pytest.param(KeyboardInterrupt(), 130, "", id="Ctrl-C says nothing"),
        pytest.param(typer.Exit(3), 3, "", id="a command's own code is kept"),
        pytest.param(typer.Abort(), 1, "fieldmark: stopped before it was done.\n", id="a refused prompt stops"),
    ],
)
def test_each_kind_of_error_is_one_line_and_a_code(
    plant: Callable[[Callable[[], None]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    stderr: str,
) -> None:
    monkeypatch.delenv(fieldmark.DEBUG_VARIABLE, raising=False)
    plant(raising(error))
    assert run(capsys, "train") == (code, "", stderr)


def test_debug_variable_shows_the_traceback(
    plant: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fieldmark.DEBUG_VARIABLE, "1")
    plant(raising(ZeroDivisionError("by zero")))
    code, _, err = run(capsys, "train")
    assert (code, err.splitlines()[0]) == (1, "Traceback (most recent call last):")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["evalute"], "No such command 'evalute'. Did you mean 'evaluate'?", id="misspelt command"),
        pytest.param(["--colour"], "No such option: --colour", id="unknown option of the door"),
        pytest.param(["train", "--colour"], "No such option: --colour", id="unknown option of a command"),
    ],
)
def test_wrong_usage_is_one_line_and_2(
    plant: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    plant(lambda: None)
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"fieldmark: {says}")


def test_no_command_shows_the_help_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    assert "Usage: fieldmark" in err


def test_missing_extra_is_named_with_its_cure(
    plant: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    plant(importing("surely_not_installed"))
    code, _, err = run(capsys, "train")
    assert (code, err.count("\n")) == (1, 1)
    assert "needs the extra 'trainer'" in err
    assert "pip install 'fieldmark[trainer]'" in err


def test_missing_module_of_our_own_is_not_blamed_on_an_extra(
    plant: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    plant(importing("edge.no_such_part"))
    code, _, err = run(capsys, "train")
    assert code == 1
    assert err.startswith("fieldmark: unexpected ModuleNotFoundError")


def planted(body: str) -> str:
    """A program in which ``fieldmark train`` is one statement."""
    return (
        "import sys, types, typer, fieldmark\n"
        "room = sys.modules['planted_room'] = types.ModuleType('planted_room')\n"
        "room.app = typer.Typer()\n"
        "@room.app.command('train')\n"
        "def train():\n"
        f"    {body}\n"
        "fieldmark.COMMANDS['train'] = (fieldmark.Room('Planted', 'planted_room', None), 'Planted.')\n"
        "fieldmark.main(['train'])"
    )


def test_letter_that_the_terminal_does_not_have_ends_nothing() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-c", planted("print('B\u00e4r, \u017bubr')")]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"B\xe4r, \\u017bubr\n", b"")


def test_command_whose_output_is_closed_does_its_work_all_the_same(tmp_path: Path) -> None:
    made = tmp_path / "made"
    program = planted(f"print('a line'); open({str(made)!r}, 'w').close()")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" >&-', sys.executable, program], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr, made.exists()) == (0, b"", True)


@pytest.mark.parametrize("lines", [1, 100_000], ids=["before the first flush", "in the middle of much output"])
def test_reader_that_leaves_early_is_no_error_message(lines: int) -> None:
    script = planted(f"for i in range({lines}): print('a line')")
    reader, writer = os.pipe()
    os.close(reader)
    # With PYTHONUNBUFFERED there is no last flush that could go wrong. An empty value unsets it.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    with os.fdopen(writer, "wb") as pipe:
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert re.fullmatch(r"fieldmark (\d+\.\d+\.\d+|\(run from its source, not installed\))\n", out)
