"""Flashing: what a target may be, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.flash import flash
from edge.agent import slots
from edge.errors import DeviceError, TrustError
from tests.deploy.conftest import Run
from tests.fakes import tiny


def test_flashing_a_folder_installs_into_it(tmp_path: Path, bundle: Path) -> None:
    done = flash(bundle, str(tmp_path / "card"), check=tiny.agreeing)
    assert slots.current(tmp_path / "card").digest == done.digest


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("pi@trap-7.local", id="a device on the network"),
        pytest.param("pi@10.0.0.7:/", id="a device on the network with a path"),
        pytest.param("nowhere/card", id="a folder in a folder that is not there"),
        pytest.param("file", id="a file"),
        pytest.param("", id="no name"),
        pytest.param("a\0b", id="a name that no file can have"),
    ],
)
def test_a_target_that_is_no_folder_is_refused(
    tmp_path: Path, bundle: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    before = tiny.snapshot(tmp_path)
    with pytest.raises(DeviceError) as caught:
        flash(bundle, target, check=tiny.agreeing)
    assert caught.value.code == "target"
    assert tiny.snapshot(tmp_path) == before


def test_a_folder_that_looks_like_a_device_on_the_network_is_a_folder(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pi@trap").mkdir()
    assert flash(bundle, "pi@trap", check=tiny.agreeing).changed


def test_flash_prints_what_it_did(run: Run, tmp_path: Path, bundle: Path) -> None:
    card = tmp_path / "card"
    out, err = run("flash", bundle, card)
    assert f"{card}: tiny 7 is installed, golden photos right on" in out
    assert f"is new and trusts development key {tiny.KEY.key_id}" in out
    assert err == ""
    assert "is current already; nothing changed" in run("flash", bundle, card)[0]


def test_flash_says_that_a_bundle_is_older_than_the_one_before(run: Run, tmp_path: Path, bundle: Path) -> None:
    card, newer = tmp_path / "card", tiny.write(tmp_path / "tiny-8.fmb", sequence=8)
    other = tiny.write(tmp_path / "other-3.fmb", name="other", sequence=3)
    found = [json.loads(run("flash", "--json", each, card)[0]) for each in (bundle, newer, bundle, bundle, other)]
    assert [(one["changed"], one["older"]) for one in found] == [
        (True, False), (True, False), (True, True), (False, False), (True, False),
    ]  # fmt: skip
    run("flash", newer, card)
    assert "tiny 7 is installed in place of a newer one, golden" in run("flash", bundle, card)[0]


def test_flash_prints_one_object_for_each_target(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "file").write_text("")
    targets = [tmp_path / "a", tmp_path / "file", tmp_path / "b"]
    done = CliRunner().invoke(app, ["flash", "--json", str(bundle), *map(str, targets)])
    assert str(done.exception) == "1 of 3 targets did not take the bundle."
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["target"] for one in found] == [str(target) for target in targets]
    assert [one["installed"] for one in found] == [True, False, True]
    assert {one["schema"] for one in found} == {1}
    assert found[1]["code"] == "target"
    assert found[0]["digest"] == slots.current(tmp_path / "b").digest
    assert (found[0]["enrolled"], found[0]["development"]) == (True, True)
    assert found[0]["device"] != found[2]["device"]


def test_flash_says_each_refusal_on_its_own_line(tmp_path: Path, bundle: Path) -> None:
    done = CliRunner().invoke(app, ["flash", str(bundle), str(tmp_path / "x" / "a"), str(tmp_path / "x" / "b\nc")])
    assert len(done.stderr.splitlines()) == 2
    assert "b\\nc" in done.stderr


def test_flash_with_another_root_refuses_a_foreign_bundle(run: Run, tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "root.json").write_bytes(tiny.signed_root(tiny.OTHER_KEY).data)
    with pytest.raises(TrustError):
        run("flash", bundle, tmp_path / "card", "--trust", tmp_path / "root.json")
    assert not (tmp_path / "card").exists()
