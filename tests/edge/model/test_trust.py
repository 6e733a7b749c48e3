"""Keys, signatures and roots: what minisign understands, checked more strictly than minisign does."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
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


ANOTHER = trust.SigningKey("9999000099990000", bytes(range(64, 96)))


def test_a_revoked_key_is_one_that_the_root_does_not_name() -> None:
    before = {key.key_id: key.public for key in (tiny.KEY, tiny.OTHER_KEY)}
    after = {tiny.OTHER_KEY.key_id: tiny.OTHER_KEY.public}
    for keys, trusted in ((before, True), (after, False)):
        root = trust.parse_root(trust.make_root({ANOTHER.key_id: ANOTHER.public}, keys, development=False), "root.json")
        trust.verify_release(root, DATA, tiny.OTHER_KEY.sign(DATA, COMMENT), "a.minisig")
        if trusted:
            trust.verify_release(root, DATA, SIGNED, "a.minisig")
        else:
            with pytest.raises(TrustError) as caught:
                trust.verify_release(root, DATA, SIGNED, "a.minisig")
            assert caught.value.code == "foreign key"


def test_a_key_known_only_for_roots_signs_no_bundle_and_its_id_helps_no_other_key() -> None:
    keys = {tiny.KEY.key_id: tiny.KEY.public}
    root = trust.parse_root(trust.make_root({ANOTHER.key_id: ANOTHER.public}, keys, development=False), "root.json")
    borrowed = trust.SigningKey(tiny.KEY.key_id, ANOTHER.seed)
    for key, code in ((ANOTHER, "foreign key"), (borrowed, "signature")):
        with pytest.raises(TrustError) as caught:
            trust.verify_release(root, DATA, key.sign(DATA, COMMENT), "a.minisig")
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("signers", "holds"),
    [
        pytest.param([tiny.KEY, ANOTHER], True, id="both of two"),
        pytest.param([tiny.KEY], False, id="one of two"),
        pytest.param([tiny.OTHER_KEY, ANOTHER], False, id="one of two and the release key"),
    ],
)
def test_a_root_needs_as_many_signatures_as_it_says(signers: list[trust.SigningKey], holds: bool) -> None:
    root_keys = {key.key_id: key.public for key in (tiny.KEY, ANOTHER)}
    release = {tiny.OTHER_KEY.key_id: tiny.OTHER_KEY.public}
    content = json.loads(trust.make_root(root_keys, release, development=False))
    content["roles"]["root"]["threshold"] = 2
    data = strict.dump(content)
    signed = trust.SignedRoot(data, {key.key_id: key.sign(data, trust.root_comment(1)) for key in signers})
    if holds:
        assert trust.verify_root(signed, "root.json").root_threshold == 2
        return
    with pytest.raises(TrustError) as caught:
        trust.verify_root(signed, "root.json")
    assert caught.value.code in ("threshold", "foreign key")


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


def test_a_file_far_too_large_is_not_read_whole_and_not_said_to_be_smaller(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(b"x" * 200_000)
    with pytest.raises(TrustError, match="it has more than 65536 bytes") as caught:
        trust.read_root(tmp_path / "root.json")
    assert caught.value.code == "too large"
