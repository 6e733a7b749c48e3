"""A device that runs signed fox-1, and the files that somebody brings it: forged, damaged, rebuilt."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edge.agent import slots
from edge.errors import FieldmarkError
from edge.model import archive, trust
from edge.model import bundle as bundles
from edge.model.bundle import Manifest
from tests.fakes import tiny
from tests.fakes.tiny import Member
from tests.hostile import reference

MODEL = bundles.MODEL
SLOTS = "var/lib/fieldmark/slots"
UNWRITTEN: list[str] = []
"""The steps of an installation that ended before anything was written."""
UNTRIED = ["verified", "locked", "prepared"]
"""The steps of one that ended while the payload was copied aside, none of it used."""


@dataclass
class Device:
    """A device root, and what the last installation did there.

    Attributes:
        steps: of :data:`edge.agent.slots.STEPS`, those that were reached.
    """

    root: Path
    steps: list[str] = field(default_factory=list)
    _marks: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def install(self, bundle: Path, **options: Any) -> slots.Installed:
        """Install a bundle file."""
        self._marks = {}
        return self._attempt(bundle, **options)

    def refuse(self, data: bytes | Path) -> FieldmarkError:
        """Bring a bundle, see it refused with one of our errors before its payload was tried, and find the disk as
        it was: every byte, mode and time. Where the payload was copied aside, the folder around it tells the time: that
        of the slots, or the root itself on a device that holds nothing."""
        bundle = data if isinstance(data, Path) else self.root.with_name("attack.fmb")
        if isinstance(data, bytes):
            bundle.write_bytes(data)
        before = self._marks or self.marks()
        try:
            self._attempt(bundle, check=never)
        except FieldmarkError as error:
            found = error
        else:
            raise AssertionError(f"{bundle.name} was accepted")
        assert self.steps in (UNWRITTEN, UNTRIED), self.steps
        self._marks = self.marks()
        touched = {name for name in before.keys() | self._marks.keys() if before.get(name) != self._marks.get(name)}
        assert touched <= ({SLOTS if SLOTS in before else "."} if self.steps else set()), f"touched: {touched}"
        assert "\n" not in str(found)
        assert found.code in reference.codes()
        return found

    def marks(self) -> dict[str, tuple[int, ...]]:
        """What cannot stay the same where something was written: no program can set a ``ctime``, and a file system
        whose clock is coarse shows it by the ``mtime`` of a root that :func:`aged` made old."""
        found: dict[str, tuple[int, ...]] = {}
        for folder, _, files in os.walk(self.root):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                s = os.lstat(path)
                mark = (s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
                found[os.path.relpath(path, self.root)] = mark
        return found

    def _attempt(self, bundle: Path, **options: Any) -> slots.Installed:
        self.steps = []
        return slots.install(self.root, bundle, step=self.steps.append, **options)


def never(folder: Path, manifest: Manifest) -> str:
    """The check of an installation that must not come that far."""
    raise AssertionError("the payload was used")


class _Stream(io.BytesIO):
    """Cannot seek, as a wire cannot, and of it nobody reads more at once than a chunk."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= 2**20
        return super().read(size)

    def seekable(self) -> bool:
        return False


def read(data: bytes) -> dict[str, bytes]:
    """The payload of a bundle, read in memory as a device reads it that trusts our key."""
    stream, kept = _Stream(data), dict[str, io.BytesIO]()

    def keep(entry: bundles.FileEntry) -> AbstractContextManager[io.BytesIO]:
        return nullcontext(kept.setdefault(entry.path, io.BytesIO()))

    head = bundles.read_head(stream, "fox-2.fmb")
    verified = bundles.verify(head, tiny.root(), "fox-2.fmb")
    bundles.copy_payload(stream, head, verified.manifest, keep, "fox-2.fmb")
    return {name: buffer.getvalue() for name, buffer in kept.items()}


def running_fox_1(folder: Path) -> Device:
    """A device on which fox-1 was installed."""
    root = folder / "device"
    root.mkdir()
    device = Device(root)
    (folder / "fox-1.fmb").write_bytes(fox(1))
    device.install(folder / "fox-1.fmb", check=tiny.agreeing)
    return aged(device)


def aged(device: Device) -> Device:
    """A device on which nothing was touched for a long time."""
    for path in (device.root, *device.root.rglob("*")):
        os.utime(path, (10**9, 10**9))
    return device


@cache
def fox(sequence: int) -> bytes:
    """A bundle of the key that the device trusts."""
    return tiny.pack(fox_members(sequence))


def fox_members(sequence: int = 2, *, key: trust.SigningKey = tiny.KEY, **changes: Any) -> list[Member]:
    """Its members, which an attacker has as well."""
    manifest = tiny.manifest(**{"name": "fox", "sequence": sequence} | changes)
    return signed(bundles.manifest_bytes(manifest), trust.bundle_comment("fox", sequence), key=key)


def signed(data: bytes, comment: str, *, key: trust.SigningKey = tiny.KEY) -> list[Member]:
    """Members over any manifest, with a right signature."""
    return tiny.members(data, key=key, comment=comment)


def place(name: str, members: Iterable[Member] | None = None) -> int:
    """Where a member's header starts."""
    offset = 0
    for found, data in members or fox_members():
        if found == name:
            return offset
        offset += archive.BLOCK + len(data) + -len(data) % archive.BLOCK
    raise KeyError(name)


def regions(members: Iterable[Member]) -> Iterator[tuple[str, range]]:
    """What each byte of a bundle is: ``header``, ``padding`` or ``end``, else the name of its member."""
    offset = 0
    for name, data in members:
        content = offset + archive.BLOCK
        padding = content + len(data)
        yield "header", range(offset, content)
        yield name, range(content, padding)
        offset = padding + -len(data) % archive.BLOCK
        yield "padding", range(padding, offset)
    yield "end", range(offset, offset + len(archive.END))


def with_tarfile(members: Iterable[Member], *, form: int = tarfile.USTAR_FORMAT, like_ours: bool = True) -> bytes:
    """The members as Python's tarfile writes them; ``like_ours``: as close to ours as it comes, cut to two blocks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if not like_ours:
                info.mtime, info.uid, info.uname = 1_700_000_000, 1000, "attacker"
            tar.addfile(info, io.BytesIO(data))
    data = buffer.getvalue()
    return data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % archive.BLOCK) + archive.END if like_ours else data


def raw_header(
    name: str = MODEL, size_bytes: int = 0, *, kind: bytes = b"0", size: bytes | None = None, link: bytes = b""
) -> bytes:
    """A header such as another program or an attacker writes, with a right checksum."""
    block = bytearray(archive.header("x", size_bytes))
    block[:100] = name.encode().ljust(100, b"\0")
    block[156:157] = kind
    block[157:257] = link.ljust(100, b"\0")
    block[124:136] = block[124:136] if size is None else size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
