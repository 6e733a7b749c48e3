"""What a workstation's signing keys are, for people and scripts. Never shows a secret and never makes a key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.model import trust


@dataclass(frozen=True)
class KeyFacts:
    """A key folder's public side.

    Attributes:
        key_id: of the key that signs bundles.
        public: that key as ``minisign -P`` takes it.
        root_sha256: of the root file that devices enrol with.
        development: made by itself at first use, without a passphrase.
    """

    folder: Path
    key_id: str
    public: str
    root_sha256: str
    root_version: int
    development: bool


def show(key_dir: Path | None = None) -> KeyFacts:
    """The keys in a folder, :func:`edge.model.trust.default_key_dir` if None.

    Raises:
        TrustError: there are none, or they are damaged.
    """
    keys = trust.load_keys(key_dir or trust.default_key_dir())
    root = trust.verify_root(keys.root, str(keys.folder / trust.ROOT_FILE))
    public = keys.signing.public
    return KeyFacts(keys.folder, public.key_id, public.minisign, root.digest, root.version, root.development)
