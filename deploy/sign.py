"""Sign a bundle again, with this workstation's key and root. What it holds stays the same, byte for byte.

Only a bundle that is whole and whose old signature holds is signed: a signature says that somebody looked. Never
changes a manifest, and never signs what it has not read to the end.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge import durable
from edge.errors import BundleError
from edge.model import archive, key_folder, trust
from edge.model import bundle as bundles
from edge.model.bundle import FileEntry, Opened, Verified
from edge.model.key_folder import Keys


@dataclass(frozen=True)
class Signed:
    """A bundle and its new signature.

    Attributes:
        path: where it lies now.
        digest: the bundle digest, the same as before.
        key_id: of the new signature.
        development: whether that key's root calls it a development key.
        old_key_id: of the signature before.
        old_development: whether the root that the old signature was checked against calls it a development key.
    """

    path: Path
    digest: str
    name: str
    sequence: int
    key_id: str
    development: bool
    old_key_id: str
    old_development: bool


def sign(
    bundle: Path, unlock: Callable[[], Keys], *, out: Path | None = None, trust_root: Path | None = None
) -> Signed:
    """Replace a bundle's signature and root.

    Args:
        bundle: the ``.fmb`` file.
        unlock: gives the keys to sign with. Called once the bundle holds, so that nobody types a passphrase for a
            damaged one.
        out: where the bundle goes; over the old one if None. It appears whole or not at all.
        trust_root: a root file that the old signature must hold under; the bundle's own if None, which proves that the
            bundle is whole, not who made it.

    Raises:
        BundleError: it is malformed, incomplete or altered, or with code ``unwritable``.
        TrustError: the old signature does not hold, or the keys cannot be used.
    """
    old = bundles.open_bundle(bundle, trust.read_root(trust_root) if trust_root else None)
    keys = unlock()
    data = _file(old, keys)
    new = _check(data, keys, bundle.name)
    target = out or Path(os.path.realpath(bundle))  # a link stays a link
    try:
        durable.write_file(target, data)
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error.strerror}.", code="unwritable") from error
    return Signed(
        path=target,
        digest=new.digest,
        name=new.manifest.name,
        sequence=new.manifest.sequence,
        key_id=new.key_id,
        development=new.root.development,
        old_key_id=old.key_id,
        old_development=old.root.development,
    )


def _file(old: Opened, keys: Keys) -> bytes:
    """The bundle's bytes: manifest and payload as they were, signature and roots new."""
    comment = trust.bundle_comment(old.manifest.name, old.manifest.sequence)
    head = {bundles.MANIFEST: old.head.manifest, bundles.SIGNATURE: keys.signing.sign(old.head.manifest, comment)}
    head["roots/1.json"] = keys.root.data
    for key_id, signature in sorted(keys.root.signatures.items()):
        head[f"roots/1.{key_id}.minisig"] = signature
    payload = {entry.path: old.files[entry.path] for entry in old.manifest.files}
    parts = (part for name, data in (head | payload).items() for part in archive.member(name, len(data), [data]))
    return b"".join(parts) + archive.END


def _check(data: bytes, keys: Keys, where: str) -> Verified:
    """Read the new file as a device with this root does, before it replaces anything."""
    stream = io.BytesIO(data)
    head = bundles.read_head(stream, where)
    verified = bundles.verify(head, trust.verify_root(keys.root, key_folder.ROOT_FILE), where)
    bundles.copy_payload(stream, head, verified.manifest, _nowhere, where)
    return verified


@contextmanager
def _nowhere(entry: FileEntry) -> Iterator[io.BytesIO]:
    yield io.BytesIO()
