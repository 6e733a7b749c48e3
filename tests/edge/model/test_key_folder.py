"""Key folders: made whole or not at all, never overwritten, and refused where their parts do not belong together."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.errors import TrustError
from edge.model import key_folder, secret_key, trust
from edge.model.secret_key import Cost
from tests.fakes import tiny

CHEAP = Cost(32768, 2**20)
WORDS = b"a few words"


def _locked(folder: Path) -> Path:
    return key_folder.create(folder, lambda: WORDS, CHEAP).folder


def _forbidden() -> bytes:
    raise AssertionError("nobody was to be asked")


# --- made


def test_a_development_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "config" / "keys"
    first = key_folder.load_or_create(folder)
    before = tiny.snapshot(folder)
    again = key_folder.load_or_create(folder)
    assert (first.created, again.created) == (True, False)
    assert (first.development, again.development) == (True, True)
    assert first.signing == again.signing
    assert tiny.snapshot(folder) == before
    assert before.keys() == {"release.key", "release.pub", "root.json", "root.json.minisig"}
    assert stat.S_IMODE(before["release.key"][0]) == 0o600
    assert [path.name for path in folder.parent.iterdir()] == ["keys"]


def test_a_release_key_opens_with_its_passphrase_and_its_root_is_no_development_root(tmp_path: Path) -> None:
    folder = _locked(tmp_path / "keys")
    keys = key_folder.load_keys(folder, lambda: WORDS)
    assert not keys.development
    root = trust.verify_root(keys.root, "root.json")
    trust.verify_release(root, b"data", keys.signing.sign(b"data", "a comment"), "a.minisig")
    assert stat.S_IMODE((folder / "release.key").stat().st_mode) == 0o600


def test_keys_lie_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FIELDMARK_KEYS", raising=False)
    assert key_folder.default_key_dir() == tmp_path / ".config" / "fieldmark" / "keys"
    monkeypatch.setenv("FIELDMARK_KEYS", str(tmp_path / "other"))
    assert key_folder.load_or_create().folder == tmp_path / "other"


def test_an_empty_folder_takes_the_new_keys(tmp_path: Path) -> None:
    assert key_folder.load_or_create(tmp_path).created


def test_of_many_callers_at_the_same_time_one_makes_the_keys_and_all_use_them(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: key_folder.load_or_create(tmp_path / "keys"), range(16)))
    assert [keys.created for keys in found].count(True) == 1
    assert len({keys.signing for keys in found}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize(
    "fill",
    [
        pytest.param(lambda folder: (folder / "letters.txt").write_text("mine"), id="another file"),
        pytest.param(lambda folder: (folder / ".hidden").mkdir(), id="a hidden folder"),
        pytest.param(lambda folder: (folder / "release.key").write_bytes(b""), id="an empty key file"),
    ],
)
def test_new_keys_never_go_into_a_folder_that_holds_something(tmp_path: Path, fill: Callable[[Path], object]) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    fill(folder)
    before = tiny.snapshot(tmp_path)
    with pytest.raises(TrustError) as caught:
        key_folder.create(folder, _forbidden, CHEAP)
    assert caught.value.code == "exists"
    assert tiny.snapshot(tmp_path) == before


def test_keys_that_are_there_are_not_replaced_by_others_made_meanwhile(tmp_path: Path) -> None:
    def late() -> bytes:
        _locked(tmp_path / "keys")
        return b"other words"

    with pytest.raises(TrustError) as caught:
        key_folder.create(tmp_path / "keys", late, CHEAP)
    assert caught.value.code == "exists"
    assert not key_folder.load_keys(tmp_path / "keys", lambda: WORDS).development
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_a_passphrase_that_is_not_given_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TrustError):
        key_folder.create(tmp_path / "new" / "keys", lambda: b"", CHEAP)
    assert list(tmp_path.iterdir()) == []


def test_a_key_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for make in (key_folder.load_or_create, lambda folder: key_folder.create(folder, None)):
        with pytest.raises(TrustError) as caught:
            make(tmp_path / "file" / "keys")
        assert caught.value.code == "no keys"


# --- read


@pytest.mark.parametrize("name", ["release.key", "root.json", "root.json.minisig"])
def test_a_folder_with_a_part_missing_is_refused_and_not_filled_up(tmp_path: Path, name: str) -> None:
    key_folder.load_or_create(tmp_path / "keys")
    (tmp_path / "keys" / name).unlink()
    before = tiny.snapshot(tmp_path)
    with pytest.raises(TrustError) as caught:
        key_folder.load_or_create(tmp_path / "keys")
    assert caught.value.code == "no keys"
    assert tiny.snapshot(tmp_path) == before


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    before = tiny.snapshot(tmp_path)
    with pytest.raises(TrustError, match="FIELDMARK_KEYS"):
        key_folder.load_or_create(tmp_path)
    assert tiny.snapshot(tmp_path) == before


@pytest.mark.parametrize("read", [key_folder.load_keys, key_folder.public_side], ids=["to sign", "to show"])
def test_a_secret_key_that_others_may_read_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    folder = key_folder.load_or_create(tmp_path / "keys").folder
    (folder / "release.key").chmod(0o640)
    with pytest.raises(TrustError, match="chmod 600") as caught:
        read(folder)
    assert caught.value.code == "mode"


STRANGE = [
    pytest.param("release.key", secret_key.secret_file(tiny.OTHER_KEY), "root keys", id="another secret key"),
    pytest.param("release.pub", key_folder.public_file(tiny.OTHER_KEY.public), "root keys", id="another public key"),
    pytest.param("release.pub", b"untrusted comment: x\nAAAA\n", "public key", id="no public key"),
    pytest.param("root.json", tiny.signed_root().data, "foreign key", id="another root"),
    pytest.param("root.json.minisig", tiny.KEY.sign(b"{}", "x"), "foreign key", id="another signature"),
    pytest.param("release.key", b"x" * 100_000, "secret key", id="a secret key of 100 kB"),
]


@pytest.mark.parametrize(("name", "data", "code"), STRANGE)
def test_a_part_that_does_not_belong_is_refused(tmp_path: Path, name: str, data: bytes, code: str) -> None:
    folder = key_folder.load_or_create(tmp_path / "keys").folder
    (folder / name).write_bytes(data)
    with pytest.raises(TrustError) as caught:
        key_folder.load_keys(folder)
    assert caught.value.code == code


@pytest.mark.parametrize("public", [True, False], ids=["with its public key", "alone"])
def test_a_key_that_the_root_does_not_name_is_refused(tmp_path: Path, public: bool) -> None:
    folder = key_folder.load_or_create(tmp_path / "keys").folder
    (folder / "release.key").write_bytes(secret_key.secret_file(tiny.OTHER_KEY))
    (folder / "release.pub").unlink()
    if public:
        (folder / "release.pub").write_bytes(key_folder.public_file(tiny.OTHER_KEY.public))
    with pytest.raises(TrustError, match="sign bundles, not key") as caught:
        key_folder.load_keys(folder)
    assert caught.value.code == "root keys"


def test_nobody_is_asked_for_the_passphrase_of_a_folder_that_is_refused_anyway(tmp_path: Path) -> None:
    folder = _locked(tmp_path / "keys")
    (folder / "root.json").write_bytes(tiny.signed_root().data)
    with pytest.raises(TrustError) as caught:
        key_folder.load_keys(folder, _forbidden)
    assert caught.value.code == "foreign key"


def test_a_wrong_passphrase_makes_no_other_key(tmp_path: Path) -> None:
    folder = _locked(tmp_path / "keys")
    before = tiny.snapshot(folder)
    with pytest.raises(TrustError) as caught:
        key_folder.load_or_create(folder, lambda: b"wrong")
    assert caught.value.code == "passphrase"
    assert tiny.snapshot(folder) == before


def test_the_public_side_needs_no_passphrase_and_no_public_key_file(tmp_path: Path) -> None:
    folder = _locked(tmp_path / "keys")
    signing = key_folder.load_keys(folder, lambda: WORDS).signing
    for _ in range(2):
        side = key_folder.public_side(folder)
        assert (side.key, side.locked, side.root.development) == (signing.public, True, False)
        (folder / "release.pub").unlink(missing_ok=True)
    assert not key_folder.public_side(key_folder.load_or_create(tmp_path / "other").folder).locked


def test_a_public_key_file_tells_which_of_several_release_keys_is_here(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    both = {key.key_id: key.public for key in (tiny.KEY, tiny.OTHER_KEY)}
    root = trust.make_root(both, both, development=False)
    (folder / "release.key").write_bytes(secret_key.secret_file(tiny.OTHER_KEY))
    (folder / "release.key").chmod(0o600)
    (folder / "root.json").write_bytes(root)
    (folder / "root.json.minisig").write_bytes(tiny.KEY.sign(root, trust.root_comment(1)))
    with pytest.raises(TrustError, match="minisign -R"):
        key_folder.public_side(folder)
    (folder / "release.pub").write_bytes(key_folder.public_file(tiny.OTHER_KEY.public))
    assert key_folder.public_side(folder).key == key_folder.load_keys(folder).signing.public == tiny.OTHER_KEY.public


# --- public key files


def test_a_public_key_file_reads_back() -> None:
    assert key_folder.parse_public_file(key_folder.public_file(tiny.KEY.public), "a.pub") == tiny.KEY.public


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(tiny.KEY.public.minisign.encode() + b"\n", id="no comment"),
        pytest.param(key_folder.public_file(tiny.KEY.public)[:-1], id="no newline at the end"),
        pytest.param(secret_key.secret_file(tiny.KEY), id="a secret key"),
        pytest.param(key_folder.public_file(tiny.KEY.public).replace(b"RW", b"RU"), id="another algorithm"),
    ],
)
def test_what_is_no_public_key_is_refused(data: bytes) -> None:
    with pytest.raises(TrustError) as caught:
        key_folder.parse_public_file(data, "a.pub")
    assert caught.value.code == "public key"


@pytest.mark.needs("minisign")
def test_minisign_uses_both_keys_of_a_folder(tmp_path: Path) -> None:
    folder = _locked(tmp_path / "keys")
    (folder / "data").write_bytes(b"data")
    sign = ["minisign", "-S", "-s", "release.key", "-m", "data"]
    subprocess.run(sign, cwd=folder, input=WORDS + b"\n", capture_output=True, check=True)
    verify = ["minisign", "-V", "-p", "release.pub", "-m", "data"]
    subprocess.run(verify, cwd=folder, capture_output=True, check=True)
    (folder / "data").write_bytes(b"date")
    assert subprocess.run(verify, cwd=folder, capture_output=True, check=False).returncode != 0


@pytest.mark.needs("minisign")
def test_minisign_accepts_the_signature_of_a_root(tmp_path: Path) -> None:
    folder = key_folder.load_or_create(tmp_path / "keys").folder
    verify = ["minisign", "-V", "-Q", "-p", "release.pub", "-m", "root.json"]
    done = subprocess.run(verify, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "fieldmark-root 1"


@pytest.mark.needs("minisign")
def test_a_public_key_file_that_minisign_makes_again_is_as_good(tmp_path: Path) -> None:
    folder = _locked(tmp_path / "keys")
    (folder / "release.pub").unlink()
    again = ["minisign", "-R", "-s", "release.key", "-p", "release.pub"]
    subprocess.run(again, cwd=folder, input=WORDS + b"\n", capture_output=True, check=True)
    assert key_folder.load_keys(folder, lambda: WORDS).signing.public == key_folder.public_side(folder).key
