"""Signing again: what a bundle holds stays, whose it is changes, and nothing damaged is ever signed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import sign as signing
from edge.agent import slots
from edge.errors import BundleError, FieldmarkError, TrustError
from edge.model import bundle as bundles
from edge.model import key_folder, trust
from edge.model.key_folder import Keys
from tests.deploy.conftest import Run
from tests.fakes import tiny

SIGNATURES = ("manifest.json.minisig", "roots/")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """This workstation's keys."""
    root = tiny.signed_root(tiny.OTHER_KEY, development=False)
    return Keys(tmp_path, tiny.OTHER_KEY, root, development=False, created=False)


def _forbidden() -> Keys:
    raise AssertionError("no key was to be unlocked")


def _root_file(folder: Path, key: trust.SigningKey) -> Path:
    path = folder / f"{key.key_id}.json"
    path.write_bytes(tiny.signed_root(key).data)
    return path


def _trusted_by(path: Path, key: trust.SigningKey, *, development: bool = False) -> bundles.Opened:
    root = trust.verify_root(tiny.signed_root(key, development=development), "root.json")
    return bundles.open_bundle(path, root)


def test_a_bundle_signed_again_holds_the_same_bytes_under_another_key(bundle: Path, keys: Keys) -> None:
    before = bundles.open_bundle(bundle)
    done = signing.sign(bundle, lambda: keys)
    after = _trusted_by(bundle, tiny.OTHER_KEY)
    assert (after.head.manifest, after.files) == (before.head.manifest, before.files)
    assert done.digest == after.digest == before.digest
    assert (done.key_id, done.development) == (tiny.OTHER_KEY.key_id, False)
    assert (done.old_key_id, done.old_development) == (tiny.KEY.key_id, True)
    assert list(after.head.roots) == [1]
    assert tiny.KEY.key_id.encode() not in bundle.read_bytes()


def test_it_is_the_bundle_that_an_export_with_this_key_writes(tmp_path: Path, bundle: Path) -> None:
    root = tiny.signed_root(tiny.OTHER_KEY)
    signing.sign(bundle, lambda: Keys(tmp_path, tiny.OTHER_KEY, root, development=True, created=False))
    assert bundle.read_bytes() == tiny.write(tmp_path / "exported.fmb", key=tiny.OTHER_KEY).read_bytes()


def test_a_manifest_in_another_form_keeps_its_bytes(tmp_path: Path, bundle: Path, keys: Keys) -> None:
    data = json.dumps(json.loads(bundles.manifest_bytes(tiny.manifest()))).encode()  # on one line
    bundle.write_bytes(tiny.pack(tiny.members(data)))
    assert signing.sign(bundle, lambda: keys).digest == bundles.bundle_digest(data)
    assert bundles.open_bundle(bundle).head.manifest == data


def test_a_device_that_trusts_this_workstation_takes_it_only_then(tmp_path: Path, bundle: Path, keys: Keys) -> None:
    other, device = tiny.write(tmp_path / "other.fmb", key=tiny.OTHER_KEY, sequence=6), tmp_path / "device"
    signing.sign(other, lambda: keys)
    slots.install(device, other, check=tiny.agreeing)
    with pytest.raises(TrustError):
        slots.install(device, bundle, check=tiny.agreeing)
    signing.sign(bundle, lambda: keys)
    assert slots.install(device, bundle, check=tiny.agreeing).changed


def test_signing_twice_gives_the_same_bytes(bundle: Path, keys: Keys) -> None:
    signing.sign(bundle, lambda: keys)
    first = bundle.read_bytes()
    assert signing.sign(bundle, lambda: keys).old_key_id == tiny.OTHER_KEY.key_id
    assert bundle.read_bytes() == first


def test_another_place_leaves_the_old_bundle_alone(tmp_path: Path, bundle: Path, keys: Keys) -> None:
    before = bundle.read_bytes()
    done = signing.sign(bundle, lambda: keys, out=tmp_path / "signed.fmb")
    assert done.path == tmp_path / "signed.fmb"
    assert bundle.read_bytes() == before
    assert _trusted_by(done.path, tiny.OTHER_KEY).digest == done.digest


def test_a_link_to_a_bundle_stays_a_link(tmp_path: Path, bundle: Path, keys: Keys) -> None:
    link = tmp_path / "newest.fmb"
    link.symlink_to(bundle)
    signing.sign(link, lambda: keys)
    assert link.is_symlink()
    assert _trusted_by(bundle, tiny.OTHER_KEY).key_id == tiny.OTHER_KEY.key_id


REFUSED = [
    pytest.param(lambda data: data[:-1], "truncated", id="cut by one byte"),
    pytest.param(lambda data: data + b"x", "trailing", id="with a byte after its end"),
    pytest.param(
        lambda data: tiny.pack(tiny.swapped("golden/blue.png", tiny.png((10, 10, 201)))), "digest",
        id="with another last file",
    ),
    pytest.param(
        lambda data: tiny.pack(tiny.swapped("manifest.json", bundles.manifest_bytes(tiny.manifest(sequence=8)))),
        "signature", id="with another manifest",
    ),
    pytest.param(
        lambda data: tiny.pack(tiny.members(comment="fieldmark-bundle tiny 8")), "comment", id="signed as another one"
    ),
    pytest.param(
        lambda data: tiny.pack(part for part in tiny.members() if not part[0].startswith("roots/")), "no root",
        id="without a root to check it by",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "code"), REFUSED)
def test_a_bundle_that_does_not_hold_is_never_signed(
    tmp_path: Path, bundle: Path, change: Callable[[bytes], bytes], code: str
) -> None:
    bundle.write_bytes(change(bundle.read_bytes()))
    before = tiny.snapshot(tmp_path)
    with pytest.raises(FieldmarkError) as caught:
        signing.sign(bundle, _forbidden)
    assert caught.value.code == code
    assert tiny.snapshot(tmp_path) == before


def test_the_old_signature_must_hold_under_the_root_that_is_named(tmp_path: Path, bundle: Path, keys: Keys) -> None:
    with pytest.raises(TrustError) as caught:
        signing.sign(bundle, _forbidden, trust_root=_root_file(tmp_path, tiny.OTHER_KEY))
    assert caught.value.code == "foreign key"
    assert signing.sign(bundle, lambda: keys, trust_root=_root_file(tmp_path, tiny.KEY)).key_id


def test_a_bundle_without_a_root_is_signed_where_one_is_named(tmp_path: Path, bundle: Path, keys: Keys) -> None:
    bundle.write_bytes(tiny.pack(part for part in tiny.members() if not part[0].startswith("roots/")))
    signing.sign(bundle, lambda: keys, trust_root=_root_file(tmp_path, tiny.KEY))
    assert bundles.open_bundle(bundle).key_id == tiny.OTHER_KEY.key_id


def test_keys_that_do_not_belong_together_replace_nothing(tmp_path: Path, bundle: Path) -> None:
    before = bundle.read_bytes()
    mixed = Keys(tmp_path, tiny.OTHER_KEY, tiny.signed_root(tiny.KEY), development=True, created=False)
    with pytest.raises(TrustError):
        signing.sign(bundle, lambda: mixed)
    assert bundle.read_bytes() == before


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path, bundle: Path, keys: Keys) -> None:
    with pytest.raises(BundleError) as caught:
        signing.sign(bundle, lambda: keys, out=tmp_path / "nowhere" / "x.fmb")
    assert caught.value.code == "unwritable"


# --- the command


def test_the_command_signs_with_the_passphrase_in_the_file(run: Run, tmp_path: Path, bundle: Path, words: Path) -> None:
    made = json.loads(run("keys", "create", "--out", tmp_path / "keys", "--passphrase-file", words, "--json")[0])
    out, err = run("sign", bundle, "--keys", tmp_path / "keys", "--passphrase-file", words)
    assert f"is signed with release key {made['key_id']}, before with development key {tiny.KEY.key_id}." in out
    assert err == ""
    opened = bundles.open_bundle(bundle, trust.read_root(tmp_path / "keys" / "root.json"))
    assert opened.key_id == made["key_id"]


def test_the_environment_gives_keys_and_passphrase(
    run: Run, tmp_path: Path, bundle: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("FIELDMARK_PASSPHRASE_FILE", str(words))
    run("keys", "create", "--passphrase-file", words)
    found = json.loads(run("sign", bundle, "--json", "--out", tmp_path / "signed.fmb")[0])
    opened = bundles.open_bundle(tmp_path / "signed.fmb")
    assert (found["schema"], found["path"]) == (1, str(tmp_path / "signed.fmb"))
    assert (found["digest"], found["key_id"], found["development"]) == (opened.digest, opened.key_id, False)


@pytest.mark.parametrize("code", ["no keys", "passphrase"])
def test_the_command_without_what_it_needs_leaves_the_bundle_alone(
    run: Run, tmp_path: Path, bundle: Path, words: Path, code: str
) -> None:
    if code == "passphrase":
        run("keys", "create", "--out", tmp_path / "keys", "--passphrase-file", words)
    before = tiny.snapshot(tmp_path)
    with pytest.raises(TrustError) as caught:
        run("sign", bundle, "--keys", tmp_path / "keys")
    assert caught.value.code == code
    assert tiny.snapshot(tmp_path) == before


def test_signing_never_makes_a_key(run: Run, tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(TrustError, match="fieldmark keys create"):
        run("sign", bundle)
    assert not key_folder.default_key_dir().exists()
