"""What the tests of these commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from edge.errors import FieldmarkError
from edge.model import secret_key
from tests.fakes import tiny

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle."""
    return tiny.write(tmp_path / "tiny-7.fmb")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command without a terminal; stdout and stderr. Its refusal is raised, as the front door expects it.

    Passphrases cost next to nothing, and no keys are where the command looks by itself.
    """
    monkeypatch.setattr(secret_key, "DEFAULT_COST", secret_key.Cost(32768, 2**20))
    monkeypatch.setenv("FIELDMARK_KEYS", str(tmp_path / "no keys"))
    monkeypatch.delenv("FIELDMARK_PASSPHRASE_FILE", raising=False)

    def command(*arguments: object) -> tuple[str, str]:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
        if isinstance(done.exception, FieldmarkError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout, done.stderr

    return command


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A file that holds a passphrase."""
    path = tmp_path / "pass.txt"
    path.write_bytes(b"a few words\n")
    path.chmod(0o600)
    return path
