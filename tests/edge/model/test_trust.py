"""Keys, signatures and roots: what minisign understands, checked more strictly than minisign does."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import TrustError
from edge.model import strict, trust
from tests.fakes import tiny

DATA = b"what is signed\n"
COMMENT = "fieldmark-bundle tiny 7"
SIGNED = tiny.KEY.sign(DATA, COMMENT)


def _verify(signature: bytes, data: bytes = DATA) -> trust.Signature:
    return trust.verify_release(tiny.root(), data, signature, "a.minisig")


def test_a_signature_holds_for_its_data_and_comment() -> None:
    found = _verify(SIGNED)
    assert (found.key_id, found.trusted_comment) == (tiny.KEY.key_id, COMMENT)


def test_signing_twice_gives_the_same_bytes() -> None:
    assert tiny.KEY.sign(DATA, COMMENT) == SIGNED


def test_a_secret_key_does_not_show_in_its_representation() -> None:
    assert repr(tiny.KEY.seed) not in repr(tiny.KEY)
    assert "seed" not in repr(tiny.KEY)


def _lines(number: int, text: str) -> bytes:
    lines = SIGNED.decode().split("\n")
    lines[number] = text
    return "\n".join(lines).encode()


def _line(number: int) -> str:
    return SIGNED.decode().split("\n")[number]


def _blob(change: bytes, at: int) -> bytes:
    raw = bytearray(base64.b64decode(_line(1)))
    raw[at : at + len(change)] = change
    return _lines(1, base64.b64encode(raw).decode())


def _other_scalar() -> bytes:
    """The signature with the group order added to its second half: the same signature to a careless verifier."""
    raw = bytearray(base64.b64decode(_line(1)))
    order = 2**252 + 27742317777372353535851937790883648493
    raw[42:] = ((int.from_bytes(raw[42:], "little") + order) % 2**256).to_bytes(32, "little")
    return _lines(1, base64.b64encode(raw).decode())


FAULTS = [
    pytest.param(b"", "signature form", id="no bytes"),
    pytest.param(SIGNED[:-1], "signature form", id="no newline at the end"),
    pytest.param(SIGNED + b"\n", "signature form", id="a line more"),
    pytest.param(SIGNED.replace(b"\n", b"\r\n"), "signature form", id="line ends of Windows"),
    pytest.param(b" " * 5000, "signature form", id="over 4 KiB"),
    pytest.param(_lines(0, "untrusted comment: else"), "signature form", id="another first line"),
    pytest.param(_lines(0, "untrusted comment: fieldmark "), "signature form", id="a space after the first line"),
    pytest.param(_lines(2, COMMENT), "signature form", id="no mark of the trusted comment"),
    pytest.param(_lines(2, "trusted comment: a\tb"), "signature form", id="a tab in the trusted comment"),
    pytest.param(_lines(2, "trusted comment: fieldmark-bündle"), "signature form", id="a comment beyond ASCII"),
    pytest.param(_lines(2, "trusted comment: fieldmark-bundle tiny 8"), "signature", id="another trusted comment"),
    pytest.param(_lines(1, _line(1) + "="), "signature form", id="base64 with padding too much"),
    pytest.param(_lines(1, _line(1).rstrip("=")), "signature form", id="base64 without its padding"),
    pytest.param(_lines(1, _line(1)[:-2] + "x="), "signature form", id="base64 with free bits set"),
    pytest.param(_lines(1, " " + _line(1)), "signature form", id="a space before the base64"),
    pytest.param(_lines(1, ""), "signature form", id="no signature"),
    pytest.param(_lines(3, ""), "signature form", id="no signature of the comment"),
    pytest.param(_lines(3, base64.b64encode(bytes(63)).decode()), "signature form", id="a byte too few"),
    pytest.param(_lines(3, base64.b64encode(bytes(64)).decode()), "signature", id="zeros as the comment's signature"),
    pytest.param(_blob(b"Ed", 0), "signature form", id="marked as not prehashed"),
    pytest.param(_blob(b"\1" * 8, 2), "foreign key", id="another key's id"),
    pytest.param(_blob(bytes(64), 10), "signature", id="zeros as the signature"),
    pytest.param(_other_scalar(), "signature", id="the same signature in another form"),
    pytest.param(tiny.OTHER_KEY.sign(DATA, COMMENT), "foreign key", id="signed with another key"),
    pytest.param(
        trust.SigningKey(tiny.KEY.key_id, tiny.OTHER_KEY.seed).sign(DATA, COMMENT),
        "signature",
        id="signed with another key under this key's id",
    ),
    pytest.param(tiny.KEY.sign(DATA + b"x", COMMENT), "signature", id="a signature of other data"),
]


@pytest.mark.parametrize(("signature", "code"), FAULTS)
def test_an_altered_signature_is_refused(signature: bytes, code: str) -> None:
    with pytest.raises(TrustError) as caught:
        _verify(signature)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_no_bit_of_a_signature_can_change_unseen() -> None:
    for place in range(len(SIGNED)):
        for bit in range(8):
            altered = bytearray(SIGNED)
            altered[place] ^= 1 << bit
            with pytest.raises(TrustError):
                _verify(bytes(altered))


@given(st.binary(max_size=400))
def test_any_bytes_are_no_signature_and_say_so(data: bytes) -> None:
    with pytest.raises(TrustError):
        _verify(data)


# --- roots


def test_a_root_reads_back_as_made() -> None:
    root = tiny.root()
    assert root.data == tiny.signed_root().data
    assert root.keys == {tiny.KEY.key_id: tiny.KEY.public}
    assert (root.version, root.development, root.root_threshold) == (1, True, 1)
    assert root.root_keys == root.release_keys == (tiny.KEY.key_id,)


def _root(path: str, value: object) -> bytes:
    content = json.loads(tiny.signed_root().data)
    *way, last = path.split(".")
    inner = content
    for part in way:
        inner = inner[part]
    inner[last] = value
    return strict.dump(content)


ID = tiny.KEY.key_id
ROOT_FAULTS = [
    pytest.param(b"{}", "missing key", id="no keys at all"),
    pytest.param(b"x" * 70_000, "too large", id="over 64 KiB"),
    pytest.param(_root("type", "fieldmark-bundle"), "type", id="of another type"),
    pytest.param(_root("format", 2), "format", id="of a later format"),
    pytest.param(_root("version", 0), "range", id="version nought"),
    pytest.param(_root("development", 1), "type", id="development in numbers"),
    pytest.param(_root("expires", 1), "unknown key", id="a key that is not known"),
    pytest.param(_root(f"keys.{ID}.scheme", "rsa"), "scheme", id="another scheme"),
    pytest.param(_root(f"keys.{ID}.public", "AAAA"), "root keys", id="a key of three bytes"),
    pytest.param(_root(f"keys.{ID}.public", "é" * 44), "root keys", id="a key beyond ASCII"),
    pytest.param(_root("keys.abc", {}), "text", id="a key id in small letters"),
    pytest.param(_root("roles.root.keys", []), "range", id="a role without keys"),
    pytest.param(_root("roles.root.keys", [ID, ID]), "root keys", id="a role with one key twice"),
    pytest.param(_root("roles.release.keys", ["A" * 16]), "root keys", id="a role with a key that is not there"),
    pytest.param(_root("roles.root.threshold", 2), "root keys", id="more signatures than keys"),
    pytest.param(_root("roles.root.threshold", 0), "range", id="no signature needed"),
    pytest.param(_root("roles.snapshot", {}), "unknown key", id="a role that is not known"),
]


@pytest.mark.parametrize(("data", "code"), ROOT_FAULTS)
def test_a_faulty_root_is_refused_although_it_is_signed(data: bytes, code: str) -> None:
    signed = trust.SignedRoot(data, {ID: tiny.KEY.sign(data, trust.root_comment(1))})
    with pytest.raises(TrustError) as caught:
        trust.verify_root(signed, "root.json")
    assert caught.value.code == code


def test_one_public_key_does_not_count_as_two() -> None:
    twice = {key_id: trust.PublicKey(key_id, tiny.KEY.public.raw) for key_id in ("A" * 16, "B" * 16)}
    with pytest.raises(TrustError) as caught:
        trust.parse_root(trust.make_root(twice, twice, development=False), "root.json")
    assert caught.value.code == "root keys"


def test_a_later_root_is_refused_until_there_is_a_chain_to_follow() -> None:
    data = _root("version", 2)
    signed = trust.SignedRoot(data, {ID: tiny.KEY.sign(data, trust.root_comment(2))})
    with pytest.raises(TrustError) as caught:
        trust.verify_root(signed, "root.json")
    assert caught.value.code == "root version"


@pytest.mark.parametrize(
    ("signatures", "code"),
    [
        pytest.param({}, "threshold", id="no signature"),
        pytest.param({ID: SIGNED}, "signature", id="a signature of something else"),
        pytest.param({ID: tiny.KEY.sign(tiny.signed_root().data, COMMENT)}, "comment", id="a bundle's comment"),
        pytest.param(
            {tiny.OTHER_KEY.key_id: tiny.OTHER_KEY.sign(tiny.signed_root().data, trust.root_comment(1))},
            "foreign key",
            id="signed with a key that is not its own",
        ),
        pytest.param(
            {"A" * 16: tiny.KEY.sign(tiny.signed_root().data, trust.root_comment(1))},
            "foreign key",
            id="a signature under another key's name",
        ),
    ],
)
def test_a_root_that_its_own_keys_did_not_sign_is_refused(signatures: dict[str, bytes], code: str) -> None:
    with pytest.raises(TrustError) as caught:
        trust.verify_root(trust.SignedRoot(tiny.signed_root().data, signatures), "root.json")
    assert caught.value.code == code


def test_a_release_key_signs_bundles_and_not_roots() -> None:
    root_key, release_key = {ID: tiny.KEY.public}, {tiny.OTHER_KEY.key_id: tiny.OTHER_KEY.public}
    data = trust.make_root(root_key, release_key, development=False)
    root = trust.verify_root(trust.SignedRoot(data, {ID: tiny.KEY.sign(data, trust.root_comment(1))}), "root.json")
    trust.verify_release(root, DATA, tiny.OTHER_KEY.sign(DATA, COMMENT), "a.minisig")
    with pytest.raises(TrustError):
        trust.verify_release(root, DATA, SIGNED, "a.minisig")


# --- the key folder


def test_a_development_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "config" / "keys"
    first = trust.load_or_create(folder)
    before = tiny.snapshot(folder)
    again = trust.load_or_create(folder)
    assert (first.created, again.created) == (True, False)
    assert (first.development, again.development) == (True, True)
    assert first.signing == again.signing
    assert tiny.snapshot(folder) == before
    assert before.keys() == {"release.key", "root.json", "root.json.minisig"}
    assert stat.S_IMODE(before["release.key"][0]) == 0o600
    assert [path.name for path in folder.parent.iterdir()] == ["keys"]


def test_keys_lie_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FIELDMARK_KEYS", raising=False)
    assert trust.default_key_dir() == tmp_path / ".config" / "fieldmark" / "keys"
    monkeypatch.setenv("FIELDMARK_KEYS", str(tmp_path / "other"))
    assert trust.load_or_create().folder == tmp_path / "other"


def test_an_empty_folder_takes_the_new_keys(tmp_path: Path) -> None:
    assert trust.load_or_create(tmp_path).created


def test_of_many_callers_at_the_same_time_one_makes_the_keys_and_all_use_them(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: trust.load_or_create(tmp_path / "keys"), range(16)))
    assert [keys.created for keys in found].count(True) == 1
    assert len({keys.signing for keys in found}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("name", ["release.key", "root.json", "root.json.minisig"])
def test_a_folder_with_a_part_missing_is_refused_and_not_filled_up(tmp_path: Path, name: str) -> None:
    trust.load_or_create(tmp_path / "keys")
    (tmp_path / "keys" / name).unlink()
    before = tiny.snapshot(tmp_path)
    with pytest.raises(TrustError) as caught:
        trust.load_or_create(tmp_path / "keys")
    assert caught.value.code == "no keys"
    assert tiny.snapshot(tmp_path) == before


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    before = tiny.snapshot(tmp_path)
    with pytest.raises(TrustError, match="FIELDMARK_KEYS"):
        trust.load_or_create(tmp_path)
    assert tiny.snapshot(tmp_path) == before


def test_a_secret_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    folder = trust.load_or_create(tmp_path / "keys").folder
    (folder / "release.key").chmod(0o640)
    with pytest.raises(TrustError, match="chmod 600") as caught:
        trust.load_keys(folder)
    assert caught.value.code == "mode"


def test_a_key_that_the_root_does_not_name_is_refused(tmp_path: Path) -> None:
    folder = trust.load_or_create(tmp_path / "keys").folder
    (folder / "release.key").write_bytes(trust.secret_file(tiny.OTHER_KEY))
    with pytest.raises(TrustError) as caught:
        trust.load_keys(folder)
    assert caught.value.code == "root keys"


def test_a_key_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrustError) as caught:
        trust.load_or_create(tmp_path / "file" / "keys")
    assert caught.value.code == "no keys"


def test_a_secret_key_file_reads_back() -> None:
    assert trust.parse_secret_file(trust.secret_file(tiny.KEY), "release.key") == tiny.KEY


def test_a_damaged_secret_key_is_refused_at_every_byte() -> None:
    good = trust.secret_file(tiny.KEY)
    first, second, _ = good.split(b"\n")
    blob = base64.b64decode(second)
    used = [*range(6), *range(54, len(blob))]  # between them is what a passphrase would use
    for place in used:
        altered = bytearray(blob)
        altered[place] ^= 1
        with pytest.raises(TrustError):
            trust.parse_secret_file(first + b"\n" + base64.b64encode(altered) + b"\n", "release.key")


def test_a_secret_key_with_a_passphrase_says_so() -> None:
    first, second, _ = trust.secret_file(tiny.KEY).split(b"\n")
    blob = bytearray(base64.b64decode(second))
    blob[2:4] = b"Sc"
    with pytest.raises(TrustError) as caught:
        trust.parse_secret_file(first + b"\n" + base64.b64encode(blob) + b"\n", "release.key")
    assert caught.value.code == "passphrase"


def test_reading_manifests_does_not_load_the_cryptography_library() -> None:
    code = "import sys, edge.model.trust; sys.exit('cryptography' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


# --- the minisign program


def _minisign(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["minisign", *arguments], cwd=folder, capture_output=True, text=True, check=False, input="")


@pytest.mark.needs("minisign")
def test_minisign_accepts_our_signature_and_comment(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "data.minisig").write_bytes(SIGNED)
    done = _minisign("-V", "-m", "data", "-P", tiny.KEY.public.minisign, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Trusted comment: {COMMENT}" in done.stdout
    (tmp_path / "data").write_bytes(DATA + b"x")
    assert _minisign("-V", "-m", "data", "-P", tiny.KEY.public.minisign, folder=tmp_path).returncode != 0


@pytest.mark.needs("minisign")
def test_minisign_signs_with_our_secret_key_just_as_we_do(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "our.key").write_bytes(trust.secret_file(tiny.KEY))
    done = _minisign("-S", "-s", "our.key", "-m", "data", "-c", "fieldmark", "-t", COMMENT, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data.minisig").read_bytes() == SIGNED


@pytest.mark.needs("minisign")
def test_we_read_a_secret_key_that_minisign_made(tmp_path: Path) -> None:
    done = _minisign("-G", "-W", "-s", "its.key", "-p", "its.pub", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    key = trust.parse_secret_file((tmp_path / "its.key").read_bytes(), "its.key")
    comment, public, _ = (tmp_path / "its.pub").read_text().split("\n")
    assert key.public.minisign == public
    assert int(comment.rsplit(" ", 1)[1], 16) == int(key.key_id, 16)  # minisign prints no leading zeros


def test_a_file_far_too_large_is_not_read_whole_and_not_said_to_be_smaller(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(b"x" * 200_000)
    with pytest.raises(TrustError, match="it has more than 65536 bytes") as caught:
        trust.read_root(tmp_path / "root.json")
    assert caught.value.code == "too large"
