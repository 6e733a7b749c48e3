"""A bundle's card: everything that it says of itself, and exactly what its signature proves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from edge.errors import BundleError, FieldmarkError, TrustError
from edge.model import key_folder, secret_key, trust
from edge.model.bundle import Label, RuntimePass
from tests.deploy.conftest import Run
from tests.fakes import tiny

FOX = Label(
    "red", "Vulpes vulpes", "species", "GBIF:5219243", "red fox",
    genus="Vulpes", family="Canidae", order="Carnivora", taxon_class="Mammalia", animal=True,
)  # fmt: skip


def _lines(text: str, start: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.startswith(start)]


def _workstation(folder: Path, key: trust.SigningKey) -> None:
    """A key folder with that key, where the commands look."""
    folder.mkdir()
    signed = tiny.signed_root(key, development=False)
    (folder / "release.key").write_bytes(secret_key.secret_file(key))
    (folder / "release.key").chmod(0o600)
    (folder / "root.json").write_bytes(signed.data)
    (folder / "root.json.minisig").write_bytes(signed.signatures[key.key_id])


def test_the_card_shows_labels_figures_gate_and_signature(run: Run, bundle: Path) -> None:
    out, err = run("bundle", "show", bundle)
    for piece in ("tiny 7", tiny.KEY.key_id, "development key", "Apache-2.0", "float32", "temperature 1.5"):
        assert piece in out
    assert _lines(out, "ai_edge_litert") == ["ai_edge_litert 2.0 to below 3.0 x86_64 default 64 93.8% 95.3% 98.4% 128"]
    assert _lines(out, "accuracy") == ["accuracy 0.9375"]
    assert _lines(out, "red") == ["red 0.50"]
    assert err == ""


def test_the_card_shows_what_is_known_of_each_label(run: Run, tmp_path: Path) -> None:
    labels = (FOX, Label("green"), Label("blue", english="blue tit"))
    out, _ = run("bundle", "show", tiny.write(tmp_path / "a.fmb", labels=labels, rollup=0.75))
    fox = "red 0.50 Vulpes vulpes species red fox Mammalia Carnivora Canidae Vulpes (animal) GBIF:5219243"
    assert _lines(out, "red") == [fox]
    assert _lines(out, "blue") == ["blue 0.50 blue tit"]
    assert "rolls up from 0.75" in out


def test_where_nothing_was_held_out_the_card_shows_no_accuracy(run: Run, tmp_path: Path) -> None:
    entry = RuntimePass("ai_edge_litert", "2.0", "3.0", "aarch64", "default", 0, 0.0, 0.0, 128, 0.984375)
    out, _ = run("bundle", "show", tiny.write(tmp_path / "a.fmb", runtimes=(entry,)))
    assert _lines(out, "ai_edge_litert") == ["ai_edge_litert 2.0 to below 3.0 aarch64 default 0 - - 98.4% 128"]


def test_the_card_as_json(run: Run, tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "root.json").write_bytes(tiny.signed_root().data)
    found = json.loads(run("bundle", "show", bundle, "--json", "--trust", tmp_path / "root.json")[0])
    assert found["schema"] == 1
    assert found["manifest"]["labels"][0]["name"] == "red"
    assert found["signature"]["trusted_by"] == str(tmp_path / "root.json")
    assert found["bytes"] == bundle.stat().st_size
    assert found["model_digest"] == tiny.manifest().model.sha256


@pytest.mark.parametrize(
    ("key", "ours", "says"),
    [
        pytest.param(tiny.KEY, True, "this workstation's", id="this workstation's key"),
        pytest.param(tiny.OTHER_KEY, False, "whose it is, --trust ROOT.json tells", id="another workstation's key"),
        pytest.param(
            trust.SigningKey(tiny.KEY.key_id, tiny.OTHER_KEY.seed),
            False,
            "whose it is",
            id="another key of the same id",
        ),
        pytest.param(None, None, "whose it is", id="no keys to compare with"),
    ],
)
def test_the_card_says_whether_the_key_is_this_workstations(
    run: Run, bundle: Path, key: trust.SigningKey | None, ours: bool | None, says: str
) -> None:
    if key is not None:
        _workstation(key_folder.default_key_dir(), key)
    out, _ = run("bundle", "show", bundle)
    assert says in _lines(out, "signature")[0]
    assert ("this workstation's" in out) == bool(ours)
    found = json.loads(run("bundle", "show", bundle, "--json")[0])
    assert found["signature"]["this_workstation"] is ours
    assert found["signature"]["trusted_by"] == "bundle"


def test_a_named_root_and_the_workstations_key_are_both_said(run: Run, tmp_path: Path, bundle: Path) -> None:
    _workstation(key_folder.default_key_dir(), tiny.KEY)
    (tmp_path / "root.json").write_bytes(tiny.signed_root().data)
    out, _ = run("bundle", "show", bundle, "--trust", tmp_path / "root.json")
    assert f"{tiny.KEY.key_id}, this workstation's, trusted by" in _lines(out, "signature")[0]


def test_a_root_that_does_not_trust_the_key_refuses_the_card(run: Run, tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "root.json").write_bytes(tiny.signed_root(tiny.OTHER_KEY).data)
    with pytest.raises(TrustError, match=r"\(foreign key\)$"):
        run("bundle", "show", bundle, "--trust", tmp_path / "root.json")


def test_a_refused_bundle_says_why_with_its_code_and_shows_no_card(run: Run, bundle: Path) -> None:
    bundle.write_bytes(bundle.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"\(truncated\)$") as caught:
        run("bundle", "show", bundle)
    assert caught.value.code == "truncated"
    done = CliRunner().invoke(app, ["bundle", "show", str(bundle), "--json"])
    assert isinstance(done.exception, FieldmarkError)
    found = json.loads(done.stdout)
    assert (found["schema"], found["refused"], found["code"]) == (1, True, "truncated")


def test_texts_in_a_bundle_cannot_write_over_the_card(run: Run, tmp_path: Path) -> None:
    hostile = Label("red", english="\u202egnihton\u200b")
    out, _ = run("bundle", "show", tiny.write(tmp_path / "a.fmb", labels=(hostile, Label("green"), Label("blue"))))
    assert "\\u202egnihton\\u200b" in out
