"""A workstation's signing keys, for people and scripts: made, and shown. Never shows a secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.model import key_folder


@dataclass(frozen=True)
class KeyFacts:
    """A key folder's public side.

    Attributes:
        key_id: of the key that signs bundles.
        public: that key as ``minisign -P`` takes it.
        root_sha256: of the root file that devices enrol with.
        development: made without a passphrase, says the root.
        passphrase: whether the secret key has one now.
    """

    folder: Path
    key_id: str
    public: str
    root_sha256: str
    root_version: int
    development: bool
    passphrase: bool


def create(folder: Path | None, passphrase: Callable[[], bytes] | None) -> KeyFacts:
    """Make new keys in a new or empty folder, :func:`edge.model.key_folder.default_key_dir` if None.

    Args:
        folder: what is there already is never overwritten.
        passphrase: called once the folder is known to be free; None for a development key.

    Raises:
        TrustError: as :func:`edge.model.key_folder.create`.
    """
    return _facts(key_folder.create(folder or key_folder.default_key_dir(), passphrase))


def show(folder: Path | None = None) -> KeyFacts:
    """The keys in a folder, :func:`edge.model.key_folder.default_key_dir` if None. Needs no passphrase.

    Raises:
        TrustError: there are none, or they are damaged.
    """
    return _facts(key_folder.public_side(folder or key_folder.default_key_dir()))


def _facts(side: key_folder.PublicSide) -> KeyFacts:
    return KeyFacts(
        folder=side.folder,
        key_id=side.key.key_id,
        public=side.key.minisign,
        root_sha256=side.root.digest,
        root_version=side.root.version,
        development=side.root.development,
        passphrase=side.locked,
    )
