"""Attacks on who signed: keys, signatures and the roots that a bundle carries.

Each is brought to a device that runs fox-1, and to one that holds nothing and would believe any root that holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.errors import TrustError
from edge.model import bundle as bundles
from edge.model import strict, trust
from tests.fakes import tiny
from tests.hostile import device as hostile
from tests.hostile.device import Device

OURS, OTHER = tiny.KEY, tiny.OTHER_KEY
MANIFEST = dict(hostile.fox_members())[bundles.MANIFEST]
COMMENT = trust.bundle_comment("fox", 2)


def _bundle(*, signature: bytes | None = None, roots: Mapping[str, bytes] | None = None) -> bytes:
    """fox-2 with another signature, or with other roots (file name to content)."""
    members = hostile.fox_members()
    if signature is not None:
        members[1] = (bundles.SIGNATURE, signature)
    if roots is not None:
        kept = [member for member in members if not member[0].startswith("roots/")]
        members = [*kept[:2], *((f"roots/{name}", data) for name, data in roots.items()), *kept[2:]]
    return tiny.pack(members)


# --- the signature of the bundle


def _legacy(data: bytes, comment: str) -> bytes:
    """A signature of minisign's first kind, over the data itself."""
    private = Ed25519PrivateKey.from_private_bytes(OURS.seed)
    lines = OURS.sign(data, comment).split(b"\n")
    signature = private.sign(data)
    lines[1] = base64.b64encode(b"Ed" + base64.b64decode(lines[1])[2:10] + signature)
    lines[3] = base64.b64encode(private.sign(signature + comment.encode()))
    return b"\n".join(lines)


def _with_comment(comment: bytes) -> bytes:
    """Our signature over fox-2 with its trusted comment written over."""
    return OURS.sign(MANIFEST, COMMENT).replace(COMMENT.encode(), comment)


def _mixed() -> bytes:
    """Our signature over fox-1 under the trusted comment, and its signature, of fox-2."""
    old, new = OURS.sign(hostile.fox_members(1)[0][1], COMMENT), OURS.sign(MANIFEST, COMMENT)
    return b"\n".join([*old.split(b"\n")[:2], *new.split(b"\n")[2:]])


def _renamed(key: trust.SigningKey, key_id: str) -> trust.SigningKey:
    return trust.SigningKey(key_id, key.seed)


SIGNATURES = [
    pytest.param(b"", "signature form", id="empty"),
    pytest.param(b"none\n", "signature form", id="a word"),
    pytest.param(OURS.sign(b"another file", COMMENT), "signature", id="of another file"),
    pytest.param(OURS.sign(b"", COMMENT), "signature", id="of no bytes"),
    pytest.param(OURS.sign(MANIFEST + b"\n", COMMENT), "signature", id="of the manifest and a line end"),
    pytest.param(OURS.sign(tiny.signed_root().data, COMMENT), "signature", id="of a root"),
    pytest.param(dict(hostile.fox_members(1))[bundles.SIGNATURE], "signature", id="of fox-1"),
    pytest.param(_mixed(), "signature", id="of fox-1 under the comment of fox-2"),
    pytest.param(_with_comment(b"fieldmark-bundle fox 3"), "signature", id="with its trusted comment written over"),
    pytest.param(OURS.sign(MANIFEST, "fieldmark-bundle fox 3"), "comment", id="for another sequence"),
    pytest.param(OURS.sign(MANIFEST, "fieldmark-bundle fox 02"), "comment", id="for a sequence with a nought"),
    pytest.param(OURS.sign(MANIFEST, "fieldmark-bundle badger 2"), "comment", id="for another name"),
    pytest.param(OURS.sign(MANIFEST, "fieldmark-root 1"), "comment", id="for a root"),
    pytest.param(OURS.sign(MANIFEST, "timestamp:1760000000\tfile:fox"), "signature form", id="with minisign's comment"),
    pytest.param(OURS.sign(MANIFEST, f"{COMMENT} "), "signature form", id="with a space behind its comment"),
    pytest.param(_legacy(MANIFEST, COMMENT), "signature form", id="of minisign's first kind"),
    pytest.param(OTHER.sign(MANIFEST, COMMENT), "foreign key", id="by an unknown key"),
    pytest.param(_renamed(OTHER, OURS.key_id).sign(MANIFEST, COMMENT), "signature", id="by an unknown key as ours"),
    pytest.param(_renamed(OURS, OTHER.key_id).sign(MANIFEST, COMMENT), "foreign key", id="by ours under another id"),
    pytest.param(OURS.sign(MANIFEST, COMMENT) + b"\n", "signature form", id="with a line more"),
    pytest.param(OURS.sign(MANIFEST, COMMENT) * 2, "signature form", id="twice"),
    pytest.param(OURS.sign(MANIFEST, COMMENT) + b"\0" * 4000, "too large", id="over 4 KiB"),
]


@pytest.mark.parametrize(("signature", "code"), SIGNATURES)
def test_a_bundle_with_another_signature_is_refused(device: Device, blank: Device, signature: bytes, code: str) -> None:
    assert device.refuse(_bundle(signature=signature)).code == code
    assert blank.refuse(_bundle(signature=signature)).code == code


def test_the_right_signature_is_accepted(device: Device, tmp_path: Path) -> None:
    """The control of the table above: nothing but the signature is wrong in it."""
    assert _bundle(signature=OURS.sign(MANIFEST, COMMENT)) == hostile.fox(2)
    assert _legacy(MANIFEST, COMMENT).split(b"\n")[2] == OURS.sign(MANIFEST, COMMENT).split(b"\n")[2]


# --- roots


def _public(key: trust.SigningKey) -> dict[str, str]:
    return {"scheme": "ed25519", "public": base64.b64encode(key.public.raw).decode()}


def _content(**changes: Any) -> dict[str, Any]:
    """A root in which our key does everything, with some of it changed."""
    role = {"keys": [OURS.key_id], "threshold": 1}
    made = {
        "type": "fieldmark-root",
        "format": 1,
        "version": 1,
        "development": True,
        "keys": {OURS.key_id: _public(OURS)},
        "roles": {"root": role, "release": role},
    }
    return made | changes


def _root(content: dict[str, Any], *by: trust.SigningKey, comment: str = "fieldmark-root 1") -> bytes:
    """fox-2 that carries this root, signed by these keys."""
    data = strict.dump(content)
    signers = sorted(by or (OURS,), key=lambda key: key.key_id)
    return _bundle(roots={"1.json": data} | {f"1.{key.key_id}.minisig": key.sign(data, comment) for key in signers})


def _roles(root: object, root_threshold: int = 1, release: object = None, release_threshold: int = 1) -> dict[str, Any]:
    named = [OURS.key_id] if release is None else release
    return {
        "root": {"keys": root, "threshold": root_threshold},
        "release": {"keys": named, "threshold": release_threshold},
    }


BOTH = {OURS.key_id: _public(OURS), OTHER.key_id: _public(OTHER)}
IDS = [OURS.key_id, OTHER.key_id]
SIGNED = tiny.signed_root().signatures[OURS.key_id]
ROOT = tiny.signed_root().data

ROOTS = [
    pytest.param(_root(_content(roles=_roles([OTHER.key_id]))), "root keys", id="that names an unknown root key"),
    pytest.param(
        _root(_content(roles=_roles([OURS.key_id], release=IDS))), "root keys", id="that names an unknown release key"
    ),
    pytest.param(_root(_content(roles=_roles([OURS.key_id] * 2))), "root keys", id="that names a root key twice"),
    pytest.param(
        _root(_content(roles=_roles([OURS.key_id], release=[OURS.key_id] * 2))),
        "root keys",
        id="that names a release key twice",
    ),
    pytest.param(
        _root(_content(keys={OURS.key_id: _public(OURS), OTHER.key_id: _public(OURS)}, roles=_roles(IDS, 2))),
        "root keys",
        id="with one key under two ids",
    ),
    pytest.param(
        _root(_content(keys=BOTH, roles=_roles(IDS, 2))), "threshold", id="of threshold two with one signature"
    ),
    pytest.param(_root(_content(keys=BOTH, roles=_roles(IDS, 3))), "root keys", id="of threshold three with two keys"),
    pytest.param(_root(_content(roles=_roles([OURS.key_id], 0))), "range", id="of threshold nought"),
    pytest.param(
        _root(_content(keys=BOTH, roles=_roles([OURS.key_id], release=IDS, release_threshold=2))),
        "root keys",
        id="that asks for two signatures of a bundle",
    ),
    pytest.param(_root(_content(roles=_roles([]))), "range", id="without root keys"),
    pytest.param(_root(_content(roles=_roles([OURS.key_id], release=[]))), "range", id="without release keys"),
    pytest.param(_root(_content(keys={})), "root keys", id="without keys"),
    pytest.param(
        _root(_content(keys={OURS.key_id: {**_public(OURS), "scheme": "rsa"}})), "scheme", id="of another scheme"
    ),
    pytest.param(
        _root(_content(keys={OURS.key_id: {**_public(OURS), "public": _public(OURS)["public"][:-4]}})),
        "root keys",
        id="with half a key",
    ),
    pytest.param(_root(_content(version=2), comment="fieldmark-root 2"), "root version", id="of version two"),
    pytest.param(_root(_content(version=0)), "range", id="of version nought"),
    pytest.param(_root(_content(format=2)), "format", id="of another format"),
    pytest.param(_root(_content(type="fieldmark-bundle")), "type", id="of another type"),
    pytest.param(_root(_content(), OTHER), "foreign key", id="that a stranger signed"),
    pytest.param(_root(_content(), OURS, OTHER), "foreign key", id="that a stranger signed as well"),
    pytest.param(
        _root(_content(keys=BOTH, roles=_roles([OURS.key_id], release=IDS)), OURS, OTHER),
        "foreign key",
        id="that a release key signed as well",
    ),
    pytest.param(_root(_content(), _renamed(OTHER, OURS.key_id)), "signature", id="that a stranger signed as we"),
    pytest.param(_root(_content(), comment="fieldmark-root 2"), "comment", id="signed as another version"),
    pytest.param(_root(_content(), comment=COMMENT), "comment", id="signed as a bundle"),
    pytest.param(_bundle(roots={"1.json": ROOT}), "threshold", id="that nobody signed"),
    pytest.param(
        _bundle(roots={"1.json": ROOT, f"1.{OTHER.key_id}.minisig": SIGNED}),
        "foreign key",
        id="with its signature under another id",
    ),
    pytest.param(
        _bundle(roots={"1.json": ROOT.replace(b"true", b"false"), f"1.{OURS.key_id}.minisig": SIGNED}),
        "signature",
        id="changed by one word",
    ),
    pytest.param(
        _bundle(roots={"1.json": ROOT + b" ", f"1.{OURS.key_id}.minisig": SIGNED}), "signature", id="with a space more"
    ),
    pytest.param(
        _bundle(roots={"2.json": ROOT, f"2.{OURS.key_id}.minisig": SIGNED}), "root version", id="under another number"
    ),
]


@pytest.mark.parametrize(("attack", "code"), ROOTS)
def test_a_bundle_that_carries_a_root_that_does_not_hold_is_refused(
    device: Device, blank: Device, attack: bytes, code: str
) -> None:
    assert device.refuse(attack).code == code
    assert blank.refuse(attack).code == code


def test_a_root_that_holds_and_is_another_than_the_enrolled_one_is_refused(device: Device) -> None:
    assert device.refuse(_root(_content(development=False))).code == "other root"
    assert device.refuse(_root(_content(keys=BOTH, roles=_roles(IDS, 2)), OURS, OTHER)).code == "other root"


def test_a_bundle_without_a_root_enrols_nobody(blank: Device) -> None:
    assert blank.refuse(_bundle(roots={})).code == "no root"


REVOKED = [
    pytest.param(_content(), id="and gone from the root"),
    pytest.param(_content(keys=BOTH), id="and left among its keys"),
    pytest.param(_content(keys=BOTH, roles=_roles(IDS)), id="as a release key, not as a root key"),
]


@pytest.mark.parametrize("now", REVOKED)
def test_a_bundle_of_a_revoked_key_is_refused(blank: Device, now: dict[str, Any]) -> None:
    """The device's root no longer lets the key sign bundles. The bundle carries the root of the time when it did."""
    (blank.root / "etc/fieldmark").mkdir(parents=True)
    (blank.root / "etc/fieldmark/root.json").write_bytes(strict.dump(now))
    before = strict.dump(_content(keys=BOTH, roles=_roles([OURS.key_id], release=IDS)))
    roots = {"1.json": before, f"1.{OURS.key_id}.minisig": OURS.sign(before, "fieldmark-root 1")}
    for carried in (roots, {}):
        attack = _bundle(signature=OTHER.sign(MANIFEST, COMMENT), roots=carried)
        assert blank.refuse(attack).code == "foreign key"
    assert OTHER.key_id in str(blank.refuse(attack))


def test_a_root_signed_with_both_keys_of_threshold_two_holds() -> None:
    """The control of the table above."""
    data = strict.dump(_content(keys=BOTH, roles=_roles(IDS, 2)))
    signatures = {key.key_id: key.sign(data, "fieldmark-root 1") for key in (OURS, OTHER)}
    assert trust.verify_root(trust.SignedRoot(data, signatures), "root.json").root_threshold == 2


@pytest.mark.parametrize("weak", [bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f", b"\xff" * 32])
def test_a_public_key_of_small_order_signs_nothing_for_a_device(device: Device, weak: bytes) -> None:
    """With such a key some verifiers accept one signature for every file. Whoever names it as ours is not ours."""
    keys = {OURS.key_id: {"scheme": "ed25519", "public": base64.b64encode(weak).decode()}}
    data = strict.dump(_content(keys=keys))
    nothing = b"\1" + bytes(63)
    lines = OURS.sign(data, "fieldmark-root 1").split(b"\n")
    lines[1] = base64.b64encode(base64.b64decode(lines[1])[:10] + nothing)
    lines[3] = base64.b64encode(nothing)
    forged = b"\n".join(lines)
    assert device.refuse(_bundle(roots={"1.json": data, f"1.{OURS.key_id}.minisig": forged})).code in (
        "signature",
        "other root",
    )


def test_a_signature_is_checked_over_the_very_bytes_and_not_over_what_they_say(device: Device) -> None:
    """The same manifest with one space more."""
    members = hostile.fox_members()
    spaced = MANIFEST.replace(b'"sequence": 2', b'"sequence":  2')
    assert json.loads(spaced) == json.loads(MANIFEST)
    assert hashlib.sha256(spaced).digest() != hashlib.sha256(MANIFEST).digest()
    assert device.refuse(tiny.pack([(bundles.MANIFEST, spaced), *members[1:]])).code == "signature"


@pytest.mark.parametrize("lines", [3, 5, 200])
def test_a_signature_file_of_another_number_of_lines_is_refused(lines: int) -> None:
    with pytest.raises(TrustError) as caught:
        trust.parse_signature(b"x\n" * lines, "a.minisig")
    assert caught.value.code == "signature form"
