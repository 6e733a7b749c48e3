"""Secret keys in files as minisign writes them, with a passphrase and without. A device never needs one.

Owns the form of such a file and the cost of guessing its passphrase. Bytes in, keys or errors out: never touches the
disk, and asks for a passphrase only through the function that it is given. ``cryptography`` is imported where it is
used.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from edge.errors import TrustError
from edge.model import trust
from edge.model.trust import SigningKey

Ask = Callable[[], bytes]
"""Gives the passphrase of an existing key, or raises a TrustError."""

MAX_PASSPHRASE_BYTES = 1000  # minisign reads a line of at most 1023
_ALGORITHM, _CHECKSUM = b"Ed", b"B2"
_OPEN, _LOCKED = b"\0\0", b"Sc"
_SALT_BYTES, _SECRET_BYTES, _CHECKSUM_BYTES = 32, 8 + 64, 32
_HEAD_BYTES = 2 + 2 + 2 + _SALT_BYTES + 8 + 8
_FILE_BYTES = _HEAD_BYTES + _SECRET_BYTES + _CHECKSUM_BYTES
_BLOCK = 8
"""scrypt's r, which libsodium never varies."""


@dataclass(frozen=True)
class Cost:
    """What one guess of a passphrase costs, as libsodium counts it and minisign writes it.

    Attributes:
        operations: of scrypt's core, its ``opslimit``.
        memory_bytes: its ``memlimit``.
    """

    operations: int
    memory_bytes: int

    @property
    def scrypt(self) -> tuple[int, int]:
        """scrypt's N and p, chosen as libsodium's ``pickparams`` does."""
        operations = max(self.operations, 32768)
        if operations < self.memory_bytes // 32:
            return _power(operations // (_BLOCK * 4)), 1
        n = _power(self.memory_bytes // (_BLOCK * 128))
        return n, min(operations // 4 // n, 0x3FFFFFFF) // _BLOCK


DEFAULT_COST = Cost(33_554_432, 2**30)
"""minisign's own: 1 GiB and some seconds, once for each export. The key answers for every device in the field, and a
workstation that trains has the memory."""
MOST = Cost(4 * DEFAULT_COST.operations, DEFAULT_COST.memory_bytes)
"""What a file may ask of this machine, whatever it says."""


def new_signing_key() -> SigningKey:
    """A new random key."""
    return SigningKey(trust.id_text(secrets.token_bytes(8)), secrets.token_bytes(32))


def secret_file(key: SigningKey, passphrase: bytes | None = None, cost: Cost | None = None) -> bytes:
    """A key as minisign's own secret key file (``minisign -S -s`` takes it).

    Args:
        key: what is kept.
        passphrase: 1 to 1000 bytes; None for a file that opens without.
        cost: of a guess; :data:`DEFAULT_COST` if None.

    Raises:
        TrustError: with code ``passphrase`` for one that minisign could not take, ``memory`` where this machine has
            not enough.
    """
    secret = trust.id_bytes(key.key_id) + key.seed + key.public.raw
    content = secret + _checksum(secret)
    if passphrase is None:
        head = _ALGORITHM + _OPEN + _CHECKSUM + bytes(_SALT_BYTES + 16)
    else:
        check_passphrase(passphrase, "the passphrase")
        cost, salt = cost or DEFAULT_COST, secrets.token_bytes(_SALT_BYTES)
        limits = cost.operations.to_bytes(8, "little") + cost.memory_bytes.to_bytes(8, "little")
        head = _ALGORITHM + _LOCKED + _CHECKSUM + salt + limits
        content = _xor(content, _stream(passphrase, salt, cost, "the new key"))
    return f"untrusted comment: fieldmark secret key {key.key_id}\n{trust.base64_text(head + content)}\n".encode()


def parse(data: bytes, where: str, passphrase: Ask | None = None) -> SigningKey:
    """Read a minisign secret key file.

    Args:
        data: the file's bytes.
        where: its name for messages.
        passphrase: asked only where the file has one.

    Raises:
        TrustError: with code ``secret key``; ``passphrase`` where it has one that is not given or not this one;
            ``cost`` where opening it would take more than :data:`MOST`, ``memory`` where this machine has not enough.
    """
    blob = _blob(data, where)
    head, content = blob[:_HEAD_BYTES], blob[_HEAD_BYTES:]
    if head[2:4] == _OPEN:
        # minisign 0.11 leaves the checksum of a key without passphrase at zero.
        return _key(content, where, no_checksum=content[_SECRET_BYTES:] == bytes(_CHECKSUM_BYTES))
    salt = head[6 : 6 + _SALT_BYTES]
    cost = Cost(int.from_bytes(head[-16:-8], "little"), int.from_bytes(head[-8:], "little"))
    _check_cost(cost, where)
    if passphrase is None:
        raise TrustError(f"{where} has a passphrase, and none was given.", code="passphrase")
    content = _xor(content, _stream(passphrase(), salt, cost, where))
    if content[_SECRET_BYTES:] != _checksum(content[:_SECRET_BYTES]):
        raise TrustError(
            f"{where} does not open: the passphrase is not this key's, or the file is damaged. "
            "Try the passphrase again, or restore the file from a copy.",
            code="passphrase",
        )
    return _key(content, where)


def is_locked(data: bytes, where: str) -> bool:
    """Whether a secret key file has a passphrase.

    Raises:
        TrustError: with code ``secret key``.
    """
    return _blob(data, where)[2:4] == _LOCKED


def check_passphrase(passphrase: bytes, where: str) -> None:
    """Refuse what minisign could not be given at its prompt.

    Raises:
        TrustError: with code ``passphrase``.
    """
    if not passphrase:
        raise TrustError(f"{where} is empty. Choose one of several words.", code="passphrase")
    if len(passphrase) > MAX_PASSPHRASE_BYTES:
        raise TrustError(
            f"{where} has more than {MAX_PASSPHRASE_BYTES} bytes. Choose a shorter one.", code="passphrase"
        )
    if any(byte in passphrase for byte in b"\0\r\n"):
        raise TrustError(f"{where} holds a line break or a zero byte. Choose another one.", code="passphrase")


def _blob(data: bytes, where: str) -> bytes:
    """The bytes behind the base64."""
    lines = data.split(b"\n")
    well_formed = len(lines) == 3 and not lines[2] and lines[0].startswith(b"untrusted comment: ")
    blob = trust.unbase64(lines[1], _FILE_BYTES) if well_formed else None
    if blob is None or blob[:2] != _ALGORITHM or blob[2:4] not in (_OPEN, _LOCKED) or blob[4:6] != _CHECKSUM:
        raise TrustError(f"{where} is not a minisign secret key. Restore it from a copy.", code="secret key")
    return blob


def _key(content: bytes, where: str, *, no_checksum: bool = False) -> SigningKey:
    secret, checksum = content[:_SECRET_BYTES], content[_SECRET_BYTES:]
    key = SigningKey(trust.id_text(secret[:8]), secret[8:40])
    if not (no_checksum or checksum == _checksum(secret)) or key.public.raw != secret[40:]:
        raise TrustError(f"{where} is damaged: its checksum does not hold. Restore it from a copy.", code="secret key")
    return key


def _check_cost(cost: Cost, where: str) -> None:
    n, p = cost.scrypt
    if 128 * _BLOCK * n > MOST.memory_bytes or 4 * _BLOCK * n * p > MOST.operations:
        raise TrustError(
            f"{where} would take {128 * _BLOCK * n // 2**20} MiB and {4 * _BLOCK * n * p} operations to open, at most "
            f"{MOST.memory_bytes // 2**20} MiB and {MOST.operations} are spent. Change its passphrase: minisign -C -s",
            code="cost",
        )


def _stream(passphrase: bytes, salt: bytes, cost: Cost, where: str) -> bytes:
    """What the secret bytes are hidden under: scrypt's output, as long as they are."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    n, p = cost.scrypt
    try:
        return Scrypt(salt=salt, length=_SECRET_BYTES + _CHECKSUM_BYTES, n=n, r=_BLOCK, p=p).derive(passphrase)
    except MemoryError as error:
        raise TrustError(
            f"{where}: its passphrase needs {128 * _BLOCK * n // 2**20} MiB of memory, which this machine has not "
            "free. Close other programs.",
            code="memory",
        ) from error


def _power(limit: int) -> int:
    """The smallest power of two, from 2 up, that is more than half of ``limit``."""
    exponent = 1
    while exponent < 63 and 2**exponent <= limit // 2:
        exponent += 1
    return int(2**exponent)


def _checksum(secret: bytes) -> bytes:
    return hashlib.blake2b(_ALGORITHM + secret, digest_size=_CHECKSUM_BYTES).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
