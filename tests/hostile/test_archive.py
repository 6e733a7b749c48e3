"""Attacks on the file: what members there are, where, of what kind and size. Each with its own code, and no mark left.

Every attack here writes headers as Fieldmark does where it can, so that nothing but the thing attacked is wrong.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from edge.errors import BundleError
from edge.model import archive
from edge.model import bundle as bundles
from tests.fakes import tiny
from tests.fakes.tiny import Member
from tests.hostile import device as hostile
from tests.hostile.device import MODEL, Device

MEMBERS = hostile.fox_members()
FOX_2 = tiny.pack(MEMBERS)
NAMES = [name for name, _ in MEMBERS]
PAYLOAD_FROM = NAMES.index(MODEL)
MIB = 2**20


def _put(at: int, data: bytes) -> bytes:
    return FOX_2[:at] + data + FOX_2[at + len(data) :]


def _inserted(member: Member, at: int) -> bytes:
    return tiny.pack([*MEMBERS[:at], member, *MEMBERS[at:]])


def _each(names: list[str] = NAMES) -> list[tuple[int, str]]:
    return [(NAMES.index(name), name) for name in names]


# --- truncation


def test_a_bundle_cut_at_any_kibibyte_is_refused(device: Device) -> None:
    files = {**tiny.payload(), "data/table.bin": bytes(range(256)) * 384}
    manifest = tiny.manifest(name="fox", sequence=2, files=tiny.entries(files))
    head = hostile.signed(bundles.manifest_bytes(manifest), "fieldmark-bundle fox 2")[:PAYLOAD_FROM]
    whole = tiny.pack([*head, *files.items()])
    assert 100 <= len(whole) // 1024 <= 128
    for length in range(0, len(whole), 1024):
        assert device.refuse(whole[:length]).code == "truncated", length
    for length in (1, 511, 513, len(whole) - 1, len(whole) - 511, len(whole) - 512, len(whole) - 513):
        assert device.refuse(whole[:length]).code == "truncated", length


# --- members in another order, twice, too many, too few


def test_any_two_members_changed_over_are_refused(device: Device) -> None:
    for first, second in itertools.combinations(range(len(MEMBERS)), 2):
        order = list(MEMBERS)
        order[first], order[second] = order[second], order[first]
        code = device.refuse(tiny.pack(order)).code
        if first < 2 or first >= PAYLOAD_FROM:
            assert code == "order"
        else:  # a root, or its signature, that is not read as one is not in the manifest either
            assert code in ("order", "extra member", "threshold")


@pytest.mark.parametrize(("index", "name"), _each())
def test_a_member_twice_is_refused_wherever_it_comes_again(device: Device, index: int, name: str) -> None:
    for at in range(index + 1, len(MEMBERS) + 1):
        # Of a second root among the payload, the manifest knows as little as of any other name.
        among_payload = index < PAYLOAD_FROM < at
        code = device.refuse(_inserted((name, MEMBERS[index][1]), at)).code
        assert code == ("extra member" if among_payload else "duplicate member"), at


@pytest.mark.parametrize(("index", "name"), _each())
def test_a_member_with_another_content_the_second_time_is_refused(device: Device, index: int, name: str) -> None:
    assert device.refuse(_inserted((name, b"another"), index + 1)).code == "duplicate member"
    device.refuse(_inserted((name, b"another"), index))


@pytest.mark.parametrize("name", ["golden/extra.png", "a", "roots/2.txt", "manifest.json.minisig.minisig"])
def test_a_member_more_is_refused_wherever_it_is(device: Device, name: str) -> None:
    for at in range(len(MEMBERS) + 1):
        # Before the signature nothing is known of what may come, but what must come first; and what stands before
        # a root's signature is taken for the payload, so that the root has none.
        code = {0: "order", 1: "order", 3: "threshold"}.get(at, "extra member")
        assert device.refuse(_inserted((name, b"x"), at)).code == code, at


MISSING = [
    pytest.param(bundles.MANIFEST, "order", id="the manifest"),
    pytest.param(bundles.SIGNATURE, "order", id="the signature"),
    pytest.param(NAMES[3], "threshold", id="the root's signature"),
    pytest.param(MODEL, "order", id="the model"),
    pytest.param("golden/red.png", "order", id="a file before others"),
    pytest.param("golden/blue.png", "missing member", id="the last file"),
]


def test_the_roots_may_be_left_out_where_a_device_has_its_own(device: Device, tmp_path: Path) -> None:
    """The one thing that may be missing: no manifest names them, and they are not asked whom to trust."""
    own = Device(tmp_path / "device")
    shutil.copytree(device.root, own.root)
    (tmp_path / "fox-2.fmb").write_bytes(tiny.pack(member for member in MEMBERS if not member[0].startswith("roots/")))
    assert own.install(tmp_path / "fox-2.fmb", check=tiny.agreeing).sequence == 2


@pytest.mark.parametrize(("name", "code"), MISSING)
def test_a_member_too_few_is_refused(device: Device, name: str, code: str) -> None:
    assert device.refuse(tiny.pack(member for member in MEMBERS if member[0] != name)).code == code


def test_a_bundle_that_ends_after_any_member_is_refused(device: Device) -> None:
    for kept in range(len(MEMBERS)):
        found = device.refuse(tiny.pack(MEMBERS[:kept])).code
        assert found == ("threshold" if NAMES[kept] == NAMES[3] else "missing member")


# --- names and kinds

PATHS = [
    pytest.param("../model.tflite", id="up"),
    pytest.param("golden/../../../../etc/fieldmark/root.json", id="up later"),
    pytest.param("golden/..", id="up at its end"),
    pytest.param("..", id="only up"),
    pytest.param(".", id="only here"),
    pytest.param("/etc/passwd", id="absolute"),
    pytest.param("//etc/passwd", id="absolute twice"),
    pytest.param("golden//red.png", id="with an empty part"),
    pytest.param("golden/", id="with a slash at its end"),
    pytest.param("./model.tflite", id="from here"),
    pytest.param("~/model.tflite", id="at home"),
    pytest.param("C:\\model.tflite", id="of another system"),
    pytest.param("model.tflite ", id="with a space at its end"),
    pytest.param("model\n.tflite", id="with a line break"),
    pytest.param("\x1b[2Jmodel.tflite", id="with a terminal sequence"),
    pytest.param("model.tflite\0.png", id="with a zero byte"),
    pytest.param("модель.tflite", id="beyond ASCII"),
    pytest.param("-rf", id="like an option"),
    pytest.param(".bashrc", id="hidden"),
    pytest.param("a/b/c/d/e", id="five deep"),
    pytest.param("", id="empty"),
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_none_is_refused_in_every_place(device: Device, path: str) -> None:
    for _, name in _each():
        size = len(dict(MEMBERS)[name])
        assert device.refuse(_put(hostile.place(name), hostile.raw_header(path, size))).code == "path"


KINDS = [
    pytest.param(b"1", "link", id="a hard link"),
    pytest.param(b"2", "link", id="a symbolic link"),
    pytest.param(b"3", "device", id="a character device"),
    pytest.param(b"4", "device", id="a block device"),
    pytest.param(b"6", "device", id="a named pipe"),
    pytest.param(b"5", "kind", id="a folder"),
    pytest.param(b"7", "kind", id="a contiguous file"),
    pytest.param(b"\0", "kind", id="an old tar's file"),
    pytest.param(b"S", "kind", id="GNU's sparse file"),
    pytest.param(b"L", "kind", id="GNU's long name"),
    pytest.param(b"K", "kind", id="GNU's long link"),
    pytest.param(b"x", "kind", id="a pax header"),
    pytest.param(b"g", "kind", id="a pax header for all"),
    pytest.param(b"V", "kind", id="a volume's label"),
    pytest.param(b"\xff", "kind", id="no kind that there is"),
]


@pytest.mark.parametrize(("kind", "code"), KINDS)
def test_what_is_no_plain_file_is_refused_in_every_place(device: Device, kind: bytes, code: str) -> None:
    for index, name in _each():
        size = len(MEMBERS[index][1])
        for link, claimed in ((b"", size), (b"/etc/passwd", size), (b"../../../device.json", 0)):
            header = hostile.raw_header(name, claimed, kind=kind, link=link)
            assert device.refuse(_put(hostile.place(name), header)).code == code
            between = FOX_2[: hostile.place(name)] + header + FOX_2[hostile.place(name) :]
            assert device.refuse(between).code == code


# --- sizes

SIZES = [
    pytest.param(b"20000000000\0", {"too large", "size"}, id="2 GiB"),
    pytest.param(b"77777777777\0", {"too large", "size"}, id="8 GiB less one"),
    pytest.param(b"10000000000\0", {"too large", "size"}, id="1 GiB"),
    pytest.param(b"00000000000\0", {"size", "kind"}, id="nothing"),
    pytest.param(b"\x80" + b"\0" * 7 + b"\x80\0\0\0", {"header"}, id="2 GiB in base 256"),
    pytest.param(b"\xff" * 12, {"header"}, id="minus one in base 256"),
    pytest.param(b"-0000000001\0", {"header"}, id="minus one"),
    pytest.param(b"+0000001210\0", {"header"}, id="a sign before it"),
    pytest.param(b"0x000001210\0", {"header"}, id="hexadecimal"),
    pytest.param(b"0000_001210\0", {"header"}, id="with an underscore"),
    pytest.param(b"0000000001 \0", {"header"}, id="with a space"),
    pytest.param(b"\0" * 12, {"header"}, id="no digits"),
    pytest.param("٠٠٠٠٠".encode() + b"0\0", {"header"}, id="other digits"),
]


@pytest.mark.parametrize(("size", "codes"), SIZES)
def test_a_size_that_is_not_the_right_one_is_refused_in_every_place(
    device: Device, size: bytes, codes: set[str]
) -> None:
    for name in NAMES:
        code = device.refuse(_put(hostile.place(name), hostile.raw_header(name, size=size))).code
        assert code in codes, name


def test_a_payload_file_a_byte_longer_or_shorter_than_signed_is_refused(device: Device) -> None:
    for name, data in MEMBERS[PAYLOAD_FROM:]:
        for other in (data + b"\0", data[:-1], b""):
            swapped = [(found, other if found == name else content) for found, content in MEMBERS]
            assert device.refuse(tiny.pack(swapped)).code == "size"


@pytest.mark.parametrize(
    ("name", "most"),
    [(bundles.MANIFEST, MIB), (bundles.SIGNATURE, 4096), ("roots/1.json", 65536), (NAMES[3], 4096)],
)
def test_what_is_over_its_cap_is_refused_before_it_is_read(name: str, most: int) -> None:
    at = hostile.place(name)
    for size in (most + 1, 10**9, 2 * 2**30, 8 * 2**30 - 1):
        stream = _Counting(itertools.chain([FOX_2[:at], archive.header(name, size)], _endless()))
        with pytest.raises(BundleError) as caught:
            bundles.read_head(stream, "fox-2.fmb")
        assert caught.value.code == "too large"
        assert stream.given == at + archive.BLOCK


def test_a_manifest_of_a_gigabyte_is_refused_before_it_is_read(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "large.fmb"
    with path.open("wb") as file:  # a sparse file: this machine need not have the space
        file.write(archive.header(bundles.MANIFEST, 10**9))
        file.truncate(10**9 + 2048)
    assert _peak_bytes(lambda: device.refuse(path)) < MIB
    assert device.refuse(path).code == "too large"


def test_a_file_of_nothing_but_zeros_is_refused_at_its_first_block(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "zeros.fmb"
    with path.open("wb") as file:
        file.truncate(2**33)
    assert device.refuse(path).code == "missing member"


# --- without end


@pytest.mark.parametrize("where", ["front", "signatures of a root", "roots", "payload", "end"])
def test_a_million_members_are_refused_at_the_first_that_is_too_many(where: str) -> None:
    head = len(tiny.pack(MEMBERS[:PAYLOAD_FROM])) - len(archive.END)
    make: Callable[[int], Iterator[bytes]]
    start, make = {
        "front": (0, _empty),
        "signatures of a root": (hostile.place(NAMES[3]), lambda i: _member(f"roots/1.{i:016X}.minisig", 4096)),
        "roots": (hostile.place("roots/1.json"), lambda i: _member(f"roots/{i + 1}.json", 65536)),
        "payload": (head, _empty),
        "end": (len(FOX_2) - len(archive.END), _empty),
    }[where]
    members = itertools.chain.from_iterable(make(i) for i in range(10**6))
    stream = _Counting(itertools.chain([FOX_2[:start]], members))
    peak = _peak_bytes(lambda: _refused_stream(stream))
    most = {"signatures of a root": 34 * 5120, "roots": 65 * 67_000}.get(where, 1024)
    assert stream.given <= start + most
    assert peak < 8 * MIB


def test_no_more_is_kept_of_a_head_than_its_caps_allow() -> None:
    """Of all that can stand before the first payload file, nothing of which is believed yet."""
    roots = bundles.MAX_ROOTS * (65536 + bundles.MAX_ROOT_SIGNATURES * 4096)
    assert bundles.MAX_MANIFEST_BYTES + 4096 + roots < 16 * MIB


def test_a_payload_without_end_is_refused_at_its_signed_length(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "long.fmb"
    at = hostile.place("golden/blue.png")
    with path.open("wb") as file:
        file.write(FOX_2[:at] + archive.header("golden/blue.png", 2 * 2**30))
        file.truncate(3 * 2**30)
    assert _peak_bytes(lambda: device.refuse(path)) < 4 * MIB
    assert device.refuse(path).code == "size"


def test_a_bundle_that_is_no_file_is_refused_without_waiting_for_it(device: Device, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    codes = {device.refuse(tmp_path / name).code for name in ("pipe", "folder", "loop")}
    codes |= {device.refuse(Path(path)).code for path in ("/dev/zero", "/proc/self/mem")}
    assert codes <= {"unreadable", "truncated"}
    assert device.refuse(tmp_path / "none").code == "missing"


def _empty(number: int) -> Iterator[bytes]:
    return archive.member(f"m/{number}", 0, [])


def _member(name: str, size_bytes: int) -> Iterator[bytes]:
    return archive.member(name, size_bytes, [b"x" * size_bytes])


def _endless() -> Iterator[bytes]:
    return itertools.repeat(b"x" * 65536)


def _refused_stream(stream: _Counting) -> None:
    with pytest.raises(BundleError):
        _read(stream)


def _read(stream: BinaryIO) -> None:
    head = bundles.read_head(stream, "fox-2.fmb")
    bundles.copy_payload(stream, head, bundles.parse_manifest(head.manifest), lambda entry: io.BytesIO(), "fox-2.fmb")


def _peak_bytes(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class _Counting(io.BytesIO):
    """A stream that is made while it is read, and knows how much was taken from it."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        super().__init__()
        self._parts, self._left, self.given = filter(None, parts), b"", 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= MIB, "more was asked for at once than a chunk"
        self._left = self._left or next(self._parts, b"")
        chunk, self._left = self._left[:size], self._left[size:]
        self.given += len(chunk)
        return chunk
