"""Keys on the command line: made once, under a passphrase unless said otherwise, and shown without their secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from edge.errors import TrustError
from edge.model import key_folder, trust
from tests.deploy.conftest import Run
from tests.fakes import tiny

FILES = {"release.key", "release.pub", "root.json", "root.json.minisig"}


def test_a_new_key_gets_the_passphrase_in_the_file(run: Run, tmp_path: Path, words: Path) -> None:
    out, err = run("keys", "create", "--out", tmp_path / "keys", "--passphrase-file", words)
    assert {path.name for path in (tmp_path / "keys").iterdir()} == FILES
    keys = key_folder.load_keys(tmp_path / "keys", lambda: b"a few words")
    assert not keys.development
    assert f"{keys.signing.key_id} (release key, with a passphrase)" in out
    assert err == ""
    with pytest.raises(TrustError):
        key_folder.load_keys(tmp_path / "keys", lambda: b"other words")


def test_without_a_terminal_a_new_key_needs_a_file_or_the_word_for_none(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="--no-passphrase") as caught:
        run("keys", "create", "--out", tmp_path / "keys")
    assert caught.value.code == "passphrase"
    assert not (tmp_path / "keys").exists()
    out, _ = run("keys", "create", "--out", tmp_path / "keys", "--no-passphrase")
    assert "(development key, without a passphrase)" in out
    assert key_folder.load_keys(tmp_path / "keys").development


def test_a_passphrase_and_none_is_wrong_usage(tmp_path: Path, words: Path) -> None:
    options = ["--no-passphrase", "--passphrase-file", str(words)]
    done = CliRunner().invoke(app, ["keys", "create", "--out", str(tmp_path / "keys"), *options])
    assert done.exit_code == 2
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("options", [["--no-passphrase"], ["--passphrase-file"]], ids=["development", "release"])
def test_keys_are_never_overwritten(run: Run, tmp_path: Path, words: Path, options: list[str]) -> None:
    command = ["keys", "create", "--out", tmp_path / "keys", *options, *([words] if len(options[0]) > 15 else [])]
    run(*command)
    before = tiny.snapshot(tmp_path)
    with pytest.raises(TrustError) as caught:
        run(*command)
    assert caught.value.code == "exists"
    assert tiny.snapshot(tmp_path) == before


def test_new_keys_go_where_the_other_commands_look(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_KEYS", str(tmp_path / "mine"))
    made = json.loads(run("keys", "create", "--no-passphrase", "--json")[0])
    assert made == json.loads(run("keys", "show", "--json")[0])
    assert (made["schema"], made["folder"], made["passphrase"]) == (1, str(tmp_path / "mine"), False)


def test_keys_are_shown_without_their_secret_and_without_the_passphrase(run: Run, tmp_path: Path, words: Path) -> None:
    run("keys", "create", "--out", tmp_path / "keys", "--passphrase-file", words)
    signing = key_folder.load_keys(tmp_path / "keys", lambda: b"a few words").signing
    secret = (tmp_path / "keys" / "release.key").read_text().splitlines()[1]
    out, _ = run("keys", "show", "--dir", tmp_path / "keys")
    for piece in (signing.key_id, signing.public.minisign, "(release key, with a passphrase)"):
        assert piece in out
    as_json, _ = run("keys", "show", "--dir", tmp_path / "keys", "--json")
    found = json.loads(as_json)
    assert (found["schema"], found["key_id"], found["development"]) == (1, signing.key_id, False)
    root = trust.read_root(tmp_path / "keys" / "root.json")
    assert (found["root_sha256"], found["root_version"], found["passphrase"]) == (root.digest, 1, True)
    for text in (out, as_json):
        assert secret not in text
        assert signing.seed.hex() not in text


def test_showing_keys_never_makes_any(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrustError) as caught:
        run("keys", "show", "--dir", tmp_path / "keys")
    assert caught.value.code == "no keys"
    assert not (tmp_path / "keys").exists()
