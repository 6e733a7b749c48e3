"""A workstation's key folder: the secret key that signs bundles, and the root that names it.

Owns which files lie in it and that they belong together. A folder appears whole or not at all, and nothing in one is
ever overwritten. Never prints and never asks: a passphrase comes from the function that the caller gives.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from edge import durable
from edge.errors import TrustError
from edge.model import secret_key, trust
from edge.model.trust import PublicKey, Root, SignedRoot, SigningKey

VARIABLE = "FIELDMARK_KEYS"
SECRET_FILE, PUBLIC_FILE = "release.key", "release.pub"
ROOT_FILE, ROOT_SIGNATURE_FILE = trust.ROOT_FILE, "root.json.minisig"
_MAX_BYTES = trust.MAX_ROOT_BYTES


@dataclass(frozen=True)
class Keys:
    """A workstation's keys: the one that signs bundles, and the root that names it.

    Attributes:
        folder: where they lie.
        development: whether the root says that they were made without a passphrase.
        created: whether this call made them.
    """

    folder: Path
    signing: SigningKey
    root: SignedRoot
    development: bool
    created: bool


@dataclass(frozen=True)
class PublicSide:
    """What a key folder shows without its passphrase.

    Attributes:
        key: the key that signs bundles.
        locked: whether its secret has a passphrase.
    """

    folder: Path
    key: PublicKey
    root: Root
    locked: bool


def default_key_dir() -> Path:
    """``$FIELDMARK_KEYS``, else ``~/.config/fieldmark/keys``.

    Raises:
        TrustError: with code ``no keys``: neither is known.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    try:
        return Path.home() / ".config" / "fieldmark" / "keys"
    except RuntimeError as error:
        raise TrustError(f"this user has no home folder. Set {VARIABLE} to a folder.", code="no keys") from error


def load_or_create(key_dir: Path | None = None, passphrase: secret_key.Ask | None = None) -> Keys:
    """The workstation's keys; where there are none, a new development key without a passphrase.

    Of two processes that start together, one makes the keys and both use them.

    Args:
        key_dir: :func:`default_key_dir` if None.
        passphrase: as :func:`load_keys`.

    Raises:
        TrustError: as :func:`load_keys`, or the folder cannot be made.
    """
    folder = _real(key_dir)
    created = _is_free(folder) and _create(folder, secret_key.new_signing_key(), None, None)
    return replace(load_keys(folder, passphrase), created=created)


def create(folder: Path, passphrase: secret_key.Ask | None, cost: secret_key.Cost | None = None) -> PublicSide:
    """Make new keys: a release key under a passphrase, or a development key without.

    Args:
        folder: a new or empty folder.
        passphrase: called once the folder is known to be free; None for a development key.
        cost: of guessing the passphrase, as :func:`edge.model.secret_key.secret_file`.

    Raises:
        TrustError: with code ``exists`` where the folder holds something, ``no keys`` where it cannot be made, or as
            :func:`edge.model.secret_key.secret_file`.
    """
    folder = _real(folder)
    chosen = passphrase() if passphrase and _is_free(folder) else None
    if not (_is_free(folder) and _create(folder, secret_key.new_signing_key(), chosen, cost)):
        raise TrustError(f"{folder} holds something already. Name a new folder.", code="exists")
    return public_side(folder)


def load_keys(key_dir: Path, passphrase: secret_key.Ask | None = None) -> Keys:
    """The keys in a folder.

    Args:
        key_dir: the folder.
        passphrase: asked only where the secret key has one, and after everything else held.

    Raises:
        TrustError: with code ``no keys`` where a file is missing or unreadable, ``mode`` where others may read the
            secret key, ``root keys`` where the files do not belong together, ``passphrase`` as
            :func:`edge.model.secret_key.parse`, or as the file's own parser says.
    """
    secret, root_where = _read(key_dir / SECRET_FILE, private=True), str(key_dir / ROOT_FILE)
    signed, root = read_root(key_dir)
    public = _read_public(key_dir)
    signing = secret_key.parse(secret, str(key_dir / SECRET_FILE), passphrase)
    trust.check_names(root, signing.public, root_where)
    if public not in (None, signing.public):
        raise TrustError(
            f"{key_dir / PUBLIC_FILE} is not the public key of {SECRET_FILE}. Make it again: "
            f"minisign -R -s {SECRET_FILE} -p {PUBLIC_FILE}",
            code="root keys",
        )
    return Keys(key_dir, signing, signed, root.development, False)


def public_side(key_dir: Path) -> PublicSide:
    """What a key folder shows without its passphrase.

    Raises:
        TrustError: as :func:`load_keys`, but for ``passphrase``.
    """
    secret = _read(key_dir / SECRET_FILE, private=True)
    _, root = read_root(key_dir)
    key = _read_public(key_dir)
    if key is None:
        if len(root.release_keys) > 1:
            raise TrustError(
                f"{key_dir / PUBLIC_FILE} is missing, and the root names several keys. Make it again: "
                f"minisign -R -s {SECRET_FILE} -p {PUBLIC_FILE}",
                code="no keys",
            )
        key = root.keys[root.release_keys[0]]
    trust.check_names(root, key, str(key_dir / ROOT_FILE))
    return PublicSide(key_dir, key, root, secret_key.is_locked(secret, str(key_dir / SECRET_FILE)))


def read_root(key_dir: Path) -> tuple[SignedRoot, Root]:
    """The root file in a folder, which need not hold more than that and its signature.

    Raises:
        TrustError: as :func:`load_keys`.
    """
    where = str(key_dir / ROOT_FILE)
    data, signature = _read(key_dir / ROOT_FILE), _read(key_dir / ROOT_SIGNATURE_FILE)
    signed = SignedRoot(data, {trust.parse_signature(signature, f"{where}.minisig").key_id: signature})
    return signed, trust.verify_root(signed, where)


def public_file(key: PublicKey) -> bytes:
    """A key as ``minisign -V -p`` takes it."""
    return f"untrusted comment: fieldmark public key {key.key_id}\n{key.minisign}\n".encode("ascii")


def parse_public_file(data: bytes, where: str) -> PublicKey:
    """Read a minisign public key file.

    Raises:
        TrustError: with code ``public key``.
    """
    lines = data.split(b"\n")
    well_formed = len(lines) == 3 and not lines[2] and lines[0].startswith(b"untrusted comment: ")
    blob = trust.unbase64(lines[1], 2 + 8 + 32) if well_formed else None
    if blob is None or blob[:2] != b"Ed":
        raise TrustError(f"{where} is not a minisign public key. Restore it from a copy.", code="public key")
    return PublicKey(trust.id_text(blob[2:10]), blob[10:])


# --- the files


def _real(folder: Path | None) -> Path:
    return Path(os.path.realpath(folder or default_key_dir()))


def _is_free(folder: Path) -> bool:
    """Whether new keys may go there."""
    try:
        return not folder.exists() or not any(folder.iterdir())
    except OSError as error:
        raise _not_made(folder, error) from error


def _create(folder: Path, key: SigningKey, passphrase: bytes | None, cost: secret_key.Cost | None) -> bool:
    """Make the folder. False where another process was first."""
    files = _files(key, passphrase, cost)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".keys-", dir=folder.parent))  # mode 0700
        try:
            return _place(made, files, folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(made)
    except OSError as error:
        raise _not_made(folder, error) from error


def _place(made: Path, files: dict[str, bytes], folder: Path) -> bool:
    for name, data in files.items():
        durable.write_file(made / name, data, mode=0o600 if name == SECRET_FILE else 0o644)
    try:
        made.rename(folder)  # onto nothing or an empty folder; a folder that holds something refuses
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    durable.sync_folder(folder.parent)
    return True


def _files(key: SigningKey, passphrase: bytes | None, cost: secret_key.Cost | None) -> dict[str, bytes]:
    both = {key.key_id: key.public}
    root = trust.make_root(both, both, development=passphrase is None)
    return {
        SECRET_FILE: secret_key.secret_file(key, passphrase, cost),
        PUBLIC_FILE: public_file(key.public),
        ROOT_FILE: root,
        ROOT_SIGNATURE_FILE: key.sign(root, trust.root_comment(1)),
    }


def _read_public(key_dir: Path) -> PublicKey | None:
    """The public key file; None where there is none, for nothing depends on it."""
    path = key_dir / PUBLIC_FILE
    return parse_public_file(_read(path), str(path)) if path.exists() else None


def _read(path: Path, *, private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            if private and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise TrustError(f"{path} may be read by others. Run: chmod 600 {path}", code="mode")
            return file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise TrustError(
            f"{path} cannot be read: {error.strerror}. A key folder holds {SECRET_FILE}, {ROOT_FILE} and "
            f"{ROOT_SIGNATURE_FILE}: set {VARIABLE} to one, or make one with: fieldmark keys create --out DIR",
            code="no keys",
        ) from error


def _not_made(folder: Path, error: OSError) -> TrustError:
    return TrustError(f"keys cannot be made in {folder}: {error.strerror}.", code="no keys")
