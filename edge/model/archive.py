"""The bundle's file form: an uncompressed ustar in which nothing is left to choice.

Every header equals, byte for byte, the one that :func:`header` makes for its name and size; padding is zero; the
file ends after two zero blocks. So no bit can change unseen, and a reader needs no names from the file to write
by. Knows nothing of manifests or keys, and never writes to the disk.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Collection, Iterable, Iterator
from typing import BinaryIO, Protocol

from edge.errors import BundleError

PATH = r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*){0,3}"
LONGEST_PATH = 100
BLOCK = 512
_CHUNK = 2**20
_KINDS = {b"1": "link", b"2": "link", b"3": "device", b"4": "device", b"6": "device"}
"""ustar's marks of what is worth a word of its own; a folder or an extended header is just no plain file."""


class Sink(Protocol):
    """Where content goes, chunk by chunk."""

    def write(self, chunk: bytes, /) -> object:
        """Take the next bytes."""


def header(name: str, size_bytes: int) -> bytes:
    """The one ustar header for a plain file of that name (ASCII, at most 100 bytes) and size: 512 bytes."""
    fields = (
        name.encode("ascii").ljust(LONGEST_PATH, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,  # mode, owner, group
        b"%011o\0" % size_bytes,
        b"00000000000\0",  # time
        b" " * 8,  # the checksum, counted as spaces
        b"0".ljust(101, b"\0"),  # a plain file, linked to nothing
        b"ustar\x0000".ljust(72, b"\0"),  # no names of owner and group
        b"0000000\0" * 2,  # no device
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def member(name: str, size_bytes: int, content: Iterable[bytes]) -> Iterator[bytes]:
    """One member's bytes: header, content, padding."""
    yield header(name, size_bytes)
    yield from content
    yield bytes(-size_bytes % BLOCK)


END = bytes(2 * BLOCK)


class Reader:
    """Walks the members of a stream, which need not be able to seek.

    Attributes:
        block: the header block that comes next, read and not yet believed.

    Every method raises :class:`BundleError` with code ``truncated``, ``missing member``, ``duplicate member``,
    ``extra member``, ``order``, ``path``, ``link``, ``device``, ``kind`` (a folder or an extended header), ``header``,
    ``too large``, ``size``, ``padding``, ``trailing`` or ``unreadable``.
    """

    def __init__(
        self, stream: BinaryIO, where: str, block: bytes | None = None, names: Collection[str] | None = None
    ) -> None:
        """Start at a header.

        Args:
            block: that header, where it is already read.
            names: all that may come, where that is known: another one is ``extra``, one of these is out of ``order``.
        """
        self._stream, self._where = stream, where
        self._names, self._taken = names, set[str]()
        self.block = self._exactly(BLOCK, "its first header") if block is None else block

    def next_name(self) -> str:
        """The name in the next header, which did not come before, or nothing where the members end."""
        name = self._header("")[0] if any(self.block) else ""
        if name in self._taken:
            raise self._refuse(f"{name} comes a second time.", "duplicate member")
        return name

    def whole(self, name: str, most_bytes: int) -> bytes:
        """The content of the next member, which must be ``name`` and no larger than ``most_bytes``."""
        size = self._expect(name)
        if size > most_bytes:
            raise self._refuse(f"{name} has {size} bytes, at most {most_bytes} are read.", "too large")
        content = io.BytesIO()
        self._copy(name, size, content)
        return content.getvalue()

    def copy(self, name: str, size_bytes: int, sink: Sink) -> str:
        """Copy the next member, which must be ``name`` of exactly that size; SHA-256 of the content in hex."""
        found = self._expect(name)
        if found != size_bytes:
            raise self._refuse(f"{name} is {found} bytes, manifest says {size_bytes}.", "size")
        return self._copy(name, size_bytes, sink)

    def end(self) -> None:
        """Refuse anything but two zero blocks and then nothing."""
        if any(self.block):
            raise self._misplaced(self._header("")[0], "the end")
        if any(self._exactly(BLOCK, "its last block")):
            raise self._refuse("the last block is not zero.", "padding")
        if self._some(1):
            raise self._refuse("bytes follow after its end.", "trailing")

    def _expect(self, name: str) -> int:
        """The size of the next member, which must be ``name``."""
        found, size = self._header(name)
        if found != name:
            raise self._misplaced(found, name)
        self._taken.add(name)
        return size

    def _misplaced(self, found: str, expected: str) -> BundleError:
        if found in self._taken:
            return self._refuse(f"{found} comes a second time.", "duplicate member")
        if expected == "the end" or (self._names is not None and found not in self._names):
            return self._refuse(f"{found} is there, which its manifest does not name.", "extra member")
        return self._refuse(f"{found} stands where {expected} is expected.", "order")

    def _header(self, expected: str) -> tuple[str, int]:
        """Name and size in ``block``, which must be the one header for them."""
        if not any(self.block):
            raise self._refuse(f"it ends where {expected} is expected.", "missing member")
        if (kind := self.block[156:157]) != b"0":
            raise self._refuse("a member is not a plain file but a link, folder or device.", _KINDS.get(kind, "kind"))
        raw, size = self.block[:LONGEST_PATH].rstrip(b"\0"), self.block[124:136]
        if not re.fullmatch(PATH.encode(), raw):
            raise self._refuse(f"a member is called {ascii(raw)[1:]}, which is no path inside a bundle.", "path")
        name = raw.decode("ascii")
        if not re.fullmatch(rb"[0-7]{11}\0", size) or self.block != header(name, int(size[:11], 8)):
            raise self._refuse(f"the header of {name} is not the one that Fieldmark writes.", "header")
        return name, int(size[:11], 8)

    def _copy(self, name: str, size: int, sink: Sink) -> str:
        digest, left = hashlib.sha256(), size
        while left:
            chunk = self._some(min(left, _CHUNK))
            if not chunk:
                raise self._refuse(f"it ends inside {name}, {left} bytes early.", "truncated")
            digest.update(chunk)
            sink.write(chunk)
            left -= len(chunk)
        if any(self._exactly(-size % BLOCK, f"the padding of {name}")):
            raise self._refuse(f"the padding after {name} is not zero.", "padding")
        self.block = self._exactly(BLOCK, f"what follows {name}")
        return digest.hexdigest()

    def _exactly(self, length: int, what: str) -> bytes:
        found = b""
        while len(found) < length:
            chunk = self._some(length - len(found))
            if not chunk:
                raise self._refuse(f"it ends before {what}.", "truncated")
            found += chunk
        return found

    def _some(self, most: int) -> bytes:
        try:
            return self._stream.read(most)
        except OSError as error:
            raise BundleError(f"bundle {self._where} cannot be read: {error.strerror}.", code="unreadable") from error

    def _refuse(self, text: str, code: str) -> BundleError:
        return BundleError(f"bundle {self._where}: {text} Copy the bundle again.", code=code)
