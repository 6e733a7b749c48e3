"""Who may sign for a device: keys, minisign signatures, root files.

A signature is minisign's prehashed Ed25519 over BLAKE2b-512, checked here more strictly than ``minisign -V`` does,
so that no bit of it is free. A root file says which keys may sign bundles, and is itself signed. Verifying takes
bytes and gives objects or errors; only :func:`read_root` touches the disk. What a workstation keeps secret is
:mod:`edge.model.secret_key`'s and :mod:`edge.model.key_folder`'s. ``cryptography`` is imported where it is used: it
costs the agent 8 MiB.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import TrustError
from edge.model import strict

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT_TYPE, ROOT_FORMAT = "fieldmark-root", 1
MAX_ROOT_BYTES = 64 * 2**10
MAX_SIGNATURE_BYTES = 4 * 2**10
KEY_ID = r"[0-9A-F]{16}"
ROOT_FILE = "root.json"

_UNTRUSTED = "untrusted comment: fieldmark"
_TRUSTED = "trusted comment: "
_KEY_ALGORITHM, _PREHASHED = b"Ed", b"ED"


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key.

    Attributes:
        key_id: 16 upper-case hex digits, as minisign prints it.
        raw: 32 bytes.
    """

    key_id: str
    raw: bytes

    @property
    def minisign(self) -> str:
        """The key as ``minisign -P`` takes it."""
        return base64_text(_KEY_ALGORITHM + id_bytes(self.key_id) + self.raw)


@dataclass(frozen=True)
class SigningKey:
    """A secret key. ``seed`` is Ed25519's, 32 bytes."""

    key_id: str
    seed: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The key that others need."""
        return PublicKey(self.key_id, _private(self.seed).public_key().public_bytes_raw())

    def sign(self, data: bytes, trusted_comment: str) -> bytes:
        """A minisign signature file over ``data``. The same input gives the same bytes."""
        private = _private(self.seed)
        signature = private.sign(_prehash(data))
        both = private.sign(signature + trusted_comment.encode("ascii"))
        blob = _PREHASHED + id_bytes(self.key_id) + signature
        lines = (_UNTRUSTED, base64_text(blob), _TRUSTED + trusted_comment, base64_text(both))
        return "".join(f"{line}\n" for line in lines).encode("ascii")


@dataclass(frozen=True)
class Signature:
    """A signature file, taken apart and not yet believed."""

    key_id: str
    signature: bytes
    trusted_comment: str
    comment_signature: bytes


@dataclass(frozen=True)
class Root:
    """Which keys may do what.

    Attributes:
        data: the exact bytes of the root file.
        version: 1 for the first.
        development: made by itself at first use, without passphrase.
        keys: by key id.
        root_keys, root_threshold: whose signatures, and how many of them, a root file needs.
        release_keys: any one of these signs a bundle.
    """

    data: bytes = field(repr=False)
    version: int
    development: bool
    keys: Mapping[str, PublicKey]
    root_keys: tuple[str, ...]
    root_threshold: int
    release_keys: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the file, hex."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class SignedRoot:
    """A root file and its signature files by key id, as carried, not yet believed."""

    data: bytes
    signatures: Mapping[str, bytes]


def bundle_comment(name: str, sequence: int) -> str:
    """The trusted comment of a bundle's signature."""
    return f"fieldmark-bundle {name} {sequence}"


def root_comment(version: int) -> str:
    """The trusted comment of a root's signature."""
    return f"fieldmark-root {version}"


# --- signatures


def parse_signature(data: bytes, where: str) -> Signature:
    """Take a signature file apart.

    Raises:
        TrustError: with code ``signature form``: it is not exactly the four lines that Fieldmark writes.
    """
    lines = data[: MAX_SIGNATURE_BYTES + 1].split(b"\n")
    if len(data) > MAX_SIGNATURE_BYTES or len(lines) != 5 or lines[4]:
        raise _form(where, "four lines, each ended by a newline")
    if lines[0] != _UNTRUSTED.encode():
        raise _form(where, f"{_UNTRUSTED!r} as its first line")
    if not re.fullmatch(rb"trusted comment: [\x21-\x7e]+( [\x21-\x7e]+)*", lines[2]):
        raise _form(where, f"a third line that starts {_TRUSTED!r}")
    blob, both = unbase64(lines[1], 74), unbase64(lines[3], 64)
    if blob is None or both is None:
        raise _form(where, "74 and 64 bytes in base64 on its second and fourth line")
    if blob[:2] != _PREHASHED:
        raise _form(where, "a prehashed Ed25519 signature (ED)")
    return Signature(id_text(blob[2:10]), blob[10:], lines[2][len(_TRUSTED) :].decode("ascii"), both)


def verify(key: PublicKey, data: bytes, signature: Signature, where: str) -> None:
    """Check that ``key`` signed ``data`` and the trusted comment.

    Raises:
        TrustError: with code ``signature``.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public = Ed25519PublicKey.from_public_bytes(key.raw)
        public.verify(signature.signature, _prehash(data))
        public.verify(signature.comment_signature, signature.signature + signature.trusted_comment.encode("ascii"))
    except (InvalidSignature, ValueError) as error:
        raise TrustError(
            f"{where}: the signature of key {signature.key_id} does not hold; the file was altered or damaged. "
            "Copy it again from where it was made.",
            code="signature",
        ) from error


def verify_release(root: Root, manifest: bytes, signature: bytes, where: str) -> Signature:
    """Check a bundle's signature against the keys that may sign bundles. The caller checks the trusted comment.

    Raises:
        TrustError: with code ``signature form``, ``foreign key`` or ``signature``.
    """
    found = parse_signature(signature, where)
    if found.key_id not in root.release_keys:
        raise TrustError(
            f"{where}: signed with key {found.key_id}, trusted here: {', '.join(root.release_keys)}. "
            "Use a bundle that was signed with a trusted key.",
            code="foreign key",
        )
    verify(root.keys[found.key_id], manifest, found, where)
    return found


# --- roots


def parse_root(data: bytes, where: str) -> Root:
    """Read a root file strictly.

    Raises:
        TrustError: what is wrong, with the codes of :mod:`edge.model.strict`, or ``root keys``.
    """
    refuse = strict.Refusal(TrustError, where)
    fields = strict.load(data, refuse, most_bytes=MAX_ROOT_BYTES)
    fields.exactly("type", ROOT_TYPE, "type")
    fields.exactly("format", ROOT_FORMAT, "format")
    version, development = fields.integer("version", 1, 999_999), fields.boolean("development")
    keys = _read_keys(fields.inners("keys", 32, KEY_ID), refuse)
    roles = fields.inner("roles")
    root_keys, root_threshold = _read_role(roles.inner("root"), keys, refuse)
    release_keys, release_threshold = _read_role(roles.inner("release"), keys, refuse)
    roles.done()
    fields.done()
    if release_threshold != 1:
        raise refuse("roles.release.threshold is not 1; a bundle carries one signature.", "root keys")
    return Root(data, version, development, keys, root_keys, root_threshold, release_keys)


def verify_root(signed: SignedRoot, where: str) -> Root:
    """Check a first root: version 1, signed by its own root keys. Every signature that it carries must hold.

    Raises:
        TrustError: as :func:`parse_root`; ``root version`` for a later root, which this version cannot follow;
            ``foreign key``, ``signature``, ``comment``, or ``threshold`` for too few signatures.
    """
    root = parse_root(signed.data, where)
    if root.version != 1:
        raise TrustError(
            f"{where}: root version {root.version}; this Fieldmark knows version 1. Update Fieldmark.",
            code="root version",
        )
    for key_id, data in signed.signatures.items():
        found = parse_signature(data, where)
        if found.key_id != key_id or key_id not in root.root_keys:
            raise TrustError(
                f"{where}: signed with key {found.key_id}, its own root keys are {', '.join(root.root_keys)}.",
                code="foreign key",
            )
        verify(root.keys[key_id], signed.data, found, where)
        check_comment(found, root_comment(root.version), where)
    if len(signed.signatures) < root.root_threshold:
        raise TrustError(
            f"{where}: {len(signed.signatures)} signatures, the root asks for {root.root_threshold}.", code="threshold"
        )
    return root


def check_comment(signature: Signature, expected: str, where: str) -> None:
    """Refuse a signature that was made for something else.

    Raises:
        TrustError: with code ``comment``.
    """
    if signature.trusted_comment != expected:
        raise TrustError(
            f"{where}: the signature is for {signature.trusted_comment!r}, expected {expected!r}. "
            "Use the signature that belongs to this file.",
            code="comment",
        )


def read_root(path: Path) -> Root:
    """A root file that somebody named, and so trusts.

    Raises:
        TrustError: with code ``no root`` where it cannot be read, or as :func:`parse_root`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ROOT_BYTES + 1)
    except OSError as error:
        raise TrustError(f"{path} cannot be read: {error.strerror}. Name a {ROOT_FILE}.", code="no root") from error
    return parse_root(data, str(path))


def make_root(root_keys: Mapping[str, PublicKey], release_keys: Mapping[str, PublicKey], *, development: bool) -> bytes:
    """The bytes of a first root file, one signature for each role."""
    keys = {**root_keys, **release_keys}
    return strict.dump(
        {
            "type": ROOT_TYPE,
            "format": ROOT_FORMAT,
            "version": 1,
            "development": development,
            "keys": {name: {"scheme": "ed25519", "public": base64_text(keys[name].raw)} for name in sorted(keys)},
            "roles": {
                "root": {"keys": sorted(root_keys), "threshold": 1},
                "release": {"keys": sorted(release_keys), "threshold": 1},
            },
        }
    )


def check_names(root: Root, key: PublicKey, where: str) -> None:
    """Refuse to sign with a key that the root does not let sign bundles.

    Raises:
        TrustError: with code ``root keys``.
    """
    if key.key_id not in root.release_keys or root.keys[key.key_id] != key:
        raise TrustError(
            f"{where} lets {', '.join(root.release_keys)} sign bundles, not key {key.key_id}. "
            "Put the root and the key that belong together into one folder.",
            code="root keys",
        )


def _read_keys(entries: Mapping[str, strict.Fields], refuse: strict.Refusal) -> dict[str, PublicKey]:
    keys = {}
    for key_id, entry in entries.items():
        entry.exactly("scheme", "ed25519", "scheme")
        raw = unbase64(entry.text("public").encode("utf-8"), 32)
        entry.done()
        if raw is None:
            raise refuse(f"keys.{key_id}.public is not 32 bytes in base64.", "root keys")
        keys[key_id] = PublicKey(key_id, raw)
    if len({key.raw for key in keys.values()}) != len(keys):
        raise refuse("one public key stands under two key ids.", "root keys")  # it would count twice for a threshold
    return keys


def _read_role(
    fields: strict.Fields, keys: Mapping[str, PublicKey], refuse: strict.Refusal
) -> tuple[tuple[str, ...], int]:
    named = fields.texts("keys", least=1, most=32, pattern=KEY_ID)
    threshold = fields.integer("threshold", 1, 32)
    fields.done()
    if len(set(named)) != len(named) or not set(named) <= set(keys) or threshold > len(named):
        raise refuse(
            f"{fields.where} names a key twice or one that is not in keys, or asks for more signatures than keys.",
            "root keys",
        )
    return named, threshold


# --- small parts


def _private(seed: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed)


def _prehash(data: bytes) -> bytes:
    return hashlib.blake2b(data).digest()


def id_text(raw: bytes) -> str:
    """A key id's 8 bytes as people see it."""
    return raw[::-1].hex().upper()  # minisign prints the id as a little-endian number


def id_bytes(key_id: str) -> bytes:
    """The 8 bytes of a key id in minisign's files."""
    return bytes.fromhex(key_id)[::-1]


def base64_text(raw: bytes) -> str:
    """Bytes as these files write them."""
    return base64.b64encode(raw).decode("ascii")


def unbase64(text: bytes, length_bytes: int) -> bytes | None:
    """Bytes of exactly that length whose one base64 form is ``text``, else None."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == length_bytes and base64.b64encode(raw) == text else None


def _form(where: str, expected: str) -> TrustError:
    return TrustError(
        f"{where}: the signature file is not in Fieldmark's form, expected {expected}. Copy it again.",
        code="signature form",
    )
