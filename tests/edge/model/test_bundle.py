"""The bundle: deterministic to write, strict to read, and no bit of it free."""

from __future__ import annotations

import io
import json
import os
import random
import re
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import BundleError, FieldmarkError, TrustError
from edge.model import archive, strict
from edge.model import bundle as bundles
from tests import scale
from tests.fakes import tiny
from tests.fakes.tiny import Member

# --- writing


def test_writing_one_bundle_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = tiny.write(tmp_path / "a.fmb"), tiny.write(tmp_path / "b.fmb")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() == tiny.pack(tiny.members())


def test_a_bundle_reads_back_as_written(tmp_path: Path) -> None:
    opened = bundles.open_bundle(tiny.write(tmp_path / "a.fmb"), tiny.root())
    assert opened.manifest == tiny.manifest()
    assert opened.files == tiny.payload()
    assert opened.model == tiny.payload()["model.tflite"]
    assert opened.digest == bundles.bundle_digest(bundles.manifest_bytes(tiny.manifest()))
    assert (opened.key_id, opened.root.development) == (tiny.KEY.key_id, True)


def test_any_tar_program_lists_a_bundle_in_manifest_order(tmp_path: Path) -> None:
    with tarfile.open(tiny.write(tmp_path / "a.fmb"), "r:") as tar:
        listed = [(member.name, member.size, member.mode, member.mtime, member.uid) for member in tar]
    assert listed == [(name, len(data), 0o644, 0, 0) for name, data in tiny.members()]


def test_payload_from_files_gives_the_same_bundle_as_from_memory(tmp_path: Path) -> None:
    paths: dict[str, Path | bytes] = {}
    for number, (name, data) in enumerate(tiny.payload().items()):
        paths[name] = tmp_path / str(number)
        (tmp_path / str(number)).write_bytes(data)
    bundles.write_bundle(tmp_path / "a.fmb", tiny.manifest(), paths, tiny.KEY, tiny.signed_root())
    assert (tmp_path / "a.fmb").read_bytes() == tiny.pack(tiny.members())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"thresholds": (0.5,)}, "thresholds", id="a manifest that the reader would refuse"),
        pytest.param({"temperature": 0.0}, "range", id="a temperature of nought"),
        pytest.param({"health": {"max_failed_share": float("nan")}}, "json", id="a number that is none"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    (tmp_path / "a.fmb").write_bytes(b"the old one")
    with pytest.raises(BundleError) as caught:
        tiny.write(tmp_path / "a.fmb", **changes)
    assert caught.value.code == code
    assert tiny.snapshot(tmp_path).keys() == {"a.fmb"}
    assert (tmp_path / "a.fmb").read_bytes() == b"the old one"


def test_payload_that_changed_since_the_manifest_leaves_the_old_bundle(tmp_path: Path) -> None:
    (tmp_path / "a.fmb").write_bytes(b"the old one")
    payload = dict(tiny.payload()) | {"golden/blue.png": b"another"}
    with pytest.raises(BundleError, match=r"golden/blue\.png is not what the manifest says"):
        bundles.write_bundle(tmp_path / "a.fmb", tiny.manifest(), payload, tiny.KEY, tiny.signed_root())
    assert tiny.snapshot(tmp_path).keys() == {"a.fmb"}
    assert (tmp_path / "a.fmb").read_bytes() == b"the old one"


def test_a_key_that_the_root_does_not_name_signs_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(TrustError) as caught:
        bundles.write_bundle(
            tmp_path / "a.fmb", tiny.manifest(), tiny.payload(), tiny.KEY, tiny.signed_root(tiny.OTHER_KEY)
        )
    assert caught.value.code == "root keys"
    assert not list(tmp_path.iterdir())


def test_payload_that_the_manifest_does_not_name_is_not_written(tmp_path: Path) -> None:
    payload = dict(tiny.payload()) | {"extra.txt": b"x"}
    with pytest.raises(BundleError) as caught:
        bundles.write_bundle(tmp_path / "a.fmb", tiny.manifest(), payload, tiny.KEY, tiny.signed_root())
    assert caught.value.code == "files"


# --- reading: the file


def _at(name: str) -> int:
    """Where a member's header starts."""
    offset = 0
    for found, data in tiny.members():
        if found == name:
            return offset
        offset += 512 + len(data) + -len(data) % 512
    raise KeyError(name)


def _raw_header(
    name: str = "model.tflite", *, kind: bytes = b"0", size: bytes | None = None, link: bytes = b""
) -> bytes:
    """A header such as another tar program or an attacker writes, with a right checksum."""
    block = bytearray(archive.header("x", len(tiny.payload()["model.tflite"])))
    block[:100] = name.encode().ljust(100, b"\0")
    block[156:157] = kind
    block[157:257] = link.ljust(100, b"\0")
    if size is not None:
        block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _put(offset: int, data: bytes) -> Callable[[], bytes]:
    def altered() -> bytes:
        whole = bytearray(tiny.pack(tiny.members()))
        whole[offset : offset + len(data)] = data
        return bytes(whole)

    return altered


def _moved(order: list[int]) -> Callable[[], bytes]:
    return lambda: tiny.pack([tiny.members()[i] for i in order])


def _with(extra: Member, at: int) -> Callable[[], bytes]:
    return lambda: tiny.pack([*tiny.members()[:at], extra, *tiny.members()[at:]])


def _grown(extra: bytes) -> Callable[[], bytes]:
    return lambda: tiny.pack(tiny.members()) + extra


def _cut(length: int) -> Callable[[], bytes]:
    return lambda: tiny.pack(tiny.members())[:length]


def _swap(name: str, data: bytes) -> Callable[[], bytes]:
    return lambda: tiny.pack(tiny.swapped(name, data))


MODEL_AT = _at("model.tflite")
ROOT_SIGNATURE = f"roots/1.{tiny.KEY.key_id}.minisig"

FILE_ATTACKS = [
    pytest.param(_cut(0), "truncated", id="an empty file"),
    pytest.param(_cut(511), "truncated", id="cut inside the first header"),
    pytest.param(_cut(600), "truncated", id="cut inside the manifest"),
    pytest.param(_cut(MODEL_AT), "truncated", id="cut before the model"),
    pytest.param(_cut(MODEL_AT + 600), "truncated", id="cut inside the model"),
    pytest.param(_cut(-1), "truncated", id="cut by one byte"),
    pytest.param(_cut(-512), "truncated", id="one end block instead of two"),
    pytest.param(_cut(-1024), "truncated", id="no end blocks"),
    pytest.param(_grown(b"\0"), "trailing", id="a zero byte after the end"),
    pytest.param(_grown(bytes(9216)), "trailing", id="padded to a tar record"),
    pytest.param(_grown(b"x" * 512), "trailing", id="a block after the end"),
    pytest.param(_moved([1, 0, 2, 3, 4, 5, 6]), "order", id="signature before manifest"),
    pytest.param(_moved([0, 1, 2, 3, 5, 4, 6]), "order", id="payload in another order"),
    pytest.param(_moved([0, 1, 4, 5, 6, 2, 3]), "extra member", id="roots after the payload"),
    pytest.param(_moved([0, 1, 3, 2, 4, 5, 6]), "extra member", id="a root's signature before the root"),
    pytest.param(_moved([0, 2, 3, 4, 5, 6]), "order", id="no signature"),
    pytest.param(_moved([1, 2, 3, 4, 5, 6]), "order", id="no manifest"),
    pytest.param(_moved([0, 1, 2, 3, 4, 5]), "missing member", id="a golden photo is missing"),
    pytest.param(_moved([0, 1]), "missing member", id="no payload at all"),
    pytest.param(lambda: archive.END, "missing member", id="no members at all"),
    pytest.param(_moved([0, 1, 2, 3, 4, 4, 5, 6]), "duplicate member", id="the model twice"),
    pytest.param(_moved([0, 1, 2, 3, 4, 5, 6, 6]), "duplicate member", id="the last file twice"),
    pytest.param(_with(("golden/extra.png", b"x"), 7), "extra member", id="a file more at the end"),
    pytest.param(_with(("extra", b"x"), 4), "extra member", id="a file more before the model"),
    pytest.param(_with(("roots/3.json", b"{}"), 4), "extra member", id="a root that does not follow the one before"),
    pytest.param(_with(("roots/01.json", b"{}"), 2), "extra member", id="a root with a leading nought"),
    pytest.param(_with(("roots/1.zz.minisig", b"{}"), 4), "extra member", id="a root's signature without a key id"),
    pytest.param(_with((ROOT_SIGNATURE, b"x"), 4), "duplicate member", id="a root's signature twice"),
    pytest.param(_put(MODEL_AT, _raw_header("../model.tflite")), "path", id="a path that climbs out"),
    pytest.param(_put(MODEL_AT, _raw_header("a/../../model.tflite")), "path", id="a path that climbs out later"),
    pytest.param(_put(MODEL_AT, _raw_header("/etc/passwd")), "path", id="an absolute path"),
    pytest.param(_put(MODEL_AT, _raw_header("./model.tflite")), "path", id="a path that starts with a dot"),
    pytest.param(_put(MODEL_AT, _raw_header("a\\b")), "path", id="a backslash"),
    pytest.param(_put(MODEL_AT, _raw_header("")), "path", id="no name"),
    pytest.param(_put(MODEL_AT, _raw_header("model.tflite\0x")), "path", id="bytes after the name's end"),
    pytest.param(_put(MODEL_AT, _raw_header(kind=b"2", link=b"/etc/passwd")), "link", id="a symbolic link"),
    pytest.param(_put(MODEL_AT, _raw_header(kind=b"1", link=b"manifest.json")), "link", id="a hard link"),
    pytest.param(_put(MODEL_AT, _raw_header(kind=b"3")), "device", id="a character device"),
    pytest.param(_put(MODEL_AT, _raw_header(kind=b"4")), "device", id="a block device"),
    pytest.param(_put(MODEL_AT, _raw_header(kind=b"5")), "kind", id="a folder"),
    pytest.param(_put(MODEL_AT, _raw_header(kind=b"6")), "device", id="a named pipe"),
    pytest.param(_put(MODEL_AT, _raw_header(kind=b"x")), "kind", id="an extended header"),
    pytest.param(_put(MODEL_AT, _raw_header(kind=b"L")), "kind", id="a GNU long name"),
    pytest.param(_put(MODEL_AT, _raw_header(kind=b"\0")), "kind", id="the old mark for a plain file"),
    pytest.param(_put(MODEL_AT, _raw_header(link=b"x")), "header", id="a plain file with a link's target"),
    pytest.param(_put(MODEL_AT, _raw_header(size=b"77777777777\0")), "size", id="a claim of 8 GiB"),
    pytest.param(_put(MODEL_AT, _raw_header(size=b"00000000000\0")), "size", id="a claim of no bytes"),
    pytest.param(_put(MODEL_AT, _raw_header(size=b"\x80" + b"\xff" * 11)), "header", id="a size in base 256"),
    pytest.param(_put(MODEL_AT, _raw_header(size=b"-0000000001\0")), "header", id="a negative size"),
    pytest.param(_put(MODEL_AT, _raw_header(size=b"       1234\0")), "header", id="a size padded with spaces"),
    pytest.param(_put(0, archive.header("manifest.json", 2**20 + 1)), "too large", id="a manifest over a mebibyte"),
    pytest.param(
        _put(_at("manifest.json.minisig"), archive.header("manifest.json.minisig", 4097)),
        "too large",
        id="a signature over 4 KiB",
    ),
    pytest.param(
        _put(_at("roots/1.json"), archive.header("roots/1.json", 2**16 + 1)), "too large", id="a root over 64 KiB"
    ),
    pytest.param(_put(_at("manifest.json.minisig") - 1, b"x"), "padding", id="padding of the manifest not zero"),
    pytest.param(_put(_at("golden/red.png") - 1, b"x"), "padding", id="padding of the model not zero"),
    pytest.param(_put(len(tiny.pack(tiny.members())) - 1, b"x"), "padding", id="the last block not zero"),
    pytest.param(_put(MODEL_AT + 512 + 20, b"xx"), "digest", id="another byte in the model"),
    pytest.param(_swap("golden/red.png", b"x"), "size", id="a golden photo of another size"),
    pytest.param(_swap("manifest.json.minisig", b""), "signature form", id="an empty signature"),
    pytest.param(_swap("manifest.json.minisig", b"x\n" * 4), "signature form", id="a signature of something else"),
    pytest.param(
        _swap("manifest.json", bundles.manifest_bytes(tiny.manifest(sequence=8))), "signature", id="another manifest"
    ),
    pytest.param(_swap("roots/1.json", tiny.signed_root(tiny.OTHER_KEY).data), "foreign key", id="another root"),
    pytest.param(
        _swap("roots/1.json", tiny.signed_root(development=False).data), "signature", id="a root changed by one word"
    ),
    pytest.param(_moved([0, 1, 2, 4, 5, 6]), "threshold", id="a root without its signature"),
    pytest.param(
        _with(("roots/2.json", tiny.signed_root().data), 4), "threshold", id="a second root without a signature"
    ),
    pytest.param(
        lambda: tiny.pack([(name.replace("roots/1", "roots/2"), data) for name, data in tiny.members()]),
        "root version",
        id="a root under another version",
    ),
]


@pytest.mark.parametrize(("attack", "code"), FILE_ATTACKS)
def test_an_altered_bundle_is_refused(tmp_path: Path, attack: Callable[[], bytes], code: str) -> None:
    path = tmp_path / "a.fmb"
    path.write_bytes(attack())
    for root, codes in ((tiny.root(), {code}), (None, {code, "no root"})):
        with pytest.raises(FieldmarkError) as caught:
            bundles.open_bundle(path, root)
        assert caught.value.code in codes
        assert "\n" not in str(caught.value)


def test_no_byte_of_a_bundle_can_change_unseen(tmp_path: Path) -> None:
    whole = tiny.pack(tiny.members())
    rng = random.Random(5)
    for place in rng.sample(range(len(whole)), min(scale.count("flipped_bytes_sampled"), len(whole))):
        altered = bytearray(whole)
        altered[place] ^= 1 << rng.randrange(8)
        with pytest.raises((BundleError, TrustError)):
            _read(bytes(altered))


def test_a_bundle_signed_for_another_name_or_number_is_refused() -> None:
    for comment in (
        "fieldmark-bundle tiny 8",
        "fieldmark-bundle other 7",
        "fieldmark-root 1",
        "fieldmark-bundle tiny 07",
    ):
        with pytest.raises(TrustError) as caught:
            _read(tiny.pack(tiny.members(comment=comment)))
        assert caught.value.code == "comment"


def test_a_root_signature_does_not_serve_for_a_bundle() -> None:
    root = tiny.signed_root()
    parts = tiny.members()
    parts[0], parts[1] = ("manifest.json", root.data), ("manifest.json.minisig", root.signatures[tiny.KEY.key_id])
    with pytest.raises(BundleError) as caught:
        _read(tiny.pack(parts))
    assert caught.value.code == "type"


def test_a_bundle_of_a_foreign_key_is_whole_but_not_trusted(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "a.fmb", key=tiny.OTHER_KEY)
    assert bundles.open_bundle(path).key_id == tiny.OTHER_KEY.key_id
    with pytest.raises(TrustError) as caught:
        bundles.open_bundle(path, tiny.root())
    assert caught.value.code == "foreign key"


def test_a_bundle_with_another_root_than_the_trusted_one_is_refused() -> None:
    carried = tiny.signed_root(development=False)
    parts = [part for part in tiny.members() if not part[0].startswith("roots/")]
    parts[2:2] = [("roots/1.json", carried.data), (ROOT_SIGNATURE, carried.signatures[tiny.KEY.key_id])]
    with pytest.raises(TrustError) as caught:
        _read(tiny.pack(parts))
    assert caught.value.code == "other root"


def test_a_bundle_without_roots_needs_a_named_one() -> None:
    stripped = tiny.pack([part for part in tiny.members() if not part[0].startswith("roots/")])
    _read(stripped)
    head = bundles.read_head(io.BytesIO(stripped), "a.fmb")
    with pytest.raises(TrustError) as caught:
        bundles.verify(head, None, "a.fmb")
    assert caught.value.code == "no root"


def test_nothing_of_the_payload_is_read_before_the_signature_holds() -> None:
    stream = io.BytesIO(tiny.pack(tiny.members()))
    head = bundles.read_head(stream, "a.fmb")
    assert stream.tell() == MODEL_AT + 512  # the header of the first file, and no content
    assert head.pending == archive.header("model.tflite", len(tiny.payload()["model.tflite"]))


def test_a_claim_of_much_data_reads_no_more_than_there_is() -> None:
    class Counting(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.largest = max(self.largest, -1 if size is None else size)
            return super().read(size)

    stream = Counting(archive.header("manifest.json", 8 * 2**30 - 1))
    with pytest.raises(BundleError):
        bundles.read_head(stream, "a.fmb")
    assert stream.largest <= 512


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere"), lambda path: None])
def test_what_is_not_a_file_is_refused_without_hanging(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.fmb")
    with pytest.raises(BundleError) as caught:
        bundles.open_bundle(tmp_path / "a.fmb")
    assert caught.value.code in ("missing", "unreadable")


@given(st.binary(max_size=2048))
def test_any_bytes_are_read_or_refused_by_our_own_errors(data: bytes) -> None:
    with pytest.raises((BundleError, TrustError)):
        _read(data)


@given(st.data())
def test_a_bundle_patched_anywhere_is_refused_by_our_own_errors(data: st.DataObject) -> None:
    whole = tiny.pack(tiny.members())
    start = data.draw(st.integers(0, len(whole) - 1))
    patch = data.draw(st.binary(min_size=0, max_size=600))
    length = data.draw(st.integers(0, 600))
    altered = whole[:start] + patch + whole[start + length :]
    if altered == whole:
        _read(altered)
        return
    with pytest.raises((BundleError, TrustError)):
        _read(altered)


def _read(data: bytes) -> dict[str, bytes]:
    """Read a whole bundle out of a stream that cannot seek, as one comes over a wire."""
    stream, sinks = io.BytesIO(data), {}

    def keep(entry: bundles.FileEntry) -> io.BytesIO:
        sinks[entry.path] = _Kept()
        return sinks[entry.path]

    head = bundles.read_head(stream, "a.fmb")
    verified = bundles.verify(head, tiny.root(), "a.fmb")
    bundles.copy_payload(stream, head, verified.manifest, keep, "a.fmb")
    return {name: sink.getvalue() for name, sink in sinks.items()}


class _Kept(io.BytesIO):
    def close(self) -> None:
        """Stay readable after the reader is done."""


# --- reading: the manifest


def test_a_manifest_reads_back_as_written() -> None:
    made = tiny.manifest()
    data = bundles.manifest_bytes(made)
    assert bundles.parse_manifest(data) == made
    assert bundles.manifest_bytes(bundles.parse_manifest(data)) == data


def test_the_order_of_metrics_and_operators_does_not_change_the_bytes() -> None:
    made = tiny.manifest()
    turned = replace(made, op_versions=dict(reversed(made.op_versions.items())))
    assert bundles.manifest_bytes(turned) == bundles.manifest_bytes(made)


def _changed(path: str, value: object) -> bytes:
    """The manifest with the value at a path, such as ``labels.0.name``, replaced."""
    content = json.loads(bundles.manifest_bytes(tiny.manifest()))
    *way, last = path.split(".")
    inner = content
    for part in way:
        inner = inner[int(part) if part.isdigit() else part]
    inner[int(last) if last.isdigit() else last] = value
    return strict.dump(content)


def _without(path: str) -> bytes:
    content = json.loads(bundles.manifest_bytes(tiny.manifest()))
    *way, last = path.split(".")
    inner = content
    for part in way:
        inner = inner[int(part) if part.isdigit() else part]
    del inner[last]
    return strict.dump(content)


def _text(old: str, new: str) -> bytes:
    """The manifest with a piece of its text replaced, which must be there."""
    text = bundles.manifest_bytes(tiny.manifest()).decode()
    assert text.count(old) == 1
    return text.replace(old, new).encode("utf-8", "surrogatepass")


FILES = json.loads(bundles.manifest_bytes(tiny.manifest()))["files"]
GOLDEN = json.loads(bundles.manifest_bytes(tiny.manifest()))["golden"]

MANIFEST_FAULTS = [
    pytest.param(b"", "json", id="no bytes"),
    pytest.param(b"[]", "type", id="a list"),
    pytest.param(b"{", "json", id="cut short"),
    pytest.param(b"[" * 100_000, "json", id="nested a hundred thousand deep"),
    pytest.param(b"\xff{}", "json", id="not UTF-8"),
    pytest.param("\ufeff{}".encode(), "json", id="a byte order mark"),
    pytest.param(b" " * (2**20 + 1), "too large", id="over a mebibyte"),
    pytest.param(_changed("colour", 1), "unknown key", id="a key that is not known"),
    pytest.param(_changed("labels.0.colour", 1), "unknown key", id="a key of a label that is not known"),
    pytest.param(_changed("input.mean", 1), "unknown key", id="a key of the input that is not known"),
    pytest.param(_changed("provenance.colour", 1), "unknown key", id="a key of the provenance that is not known"),
    pytest.param(_changed("files.0.mode", 1), "unknown key", id="a key of a file that is not known"),
    pytest.param(_without("health"), "missing key", id="a key is missing"),
    pytest.param(_without("labels.0.rank"), "missing key", id="a key of a label is missing"),
    pytest.param(_text('"ram_mib": 32', '"ram_mib": 32, "ram_mib": 32'), "duplicate key", id="a key twice"),
    pytest.param(_text('"MEAN": 1', '"MEAN": 1, "MEAN": 2'), "duplicate key", id="a key of a map twice"),
    pytest.param(_text('"temperature": 1.5', '"temperature": NaN'), "number", id="not a number"),
    pytest.param(_text('"temperature": 1.5', '"temperature": Infinity'), "number", id="infinity"),
    pytest.param(_text('"temperature": 1.5', '"temperature": 1e999'), "number", id="a number too large for a double"),
    pytest.param(_text('"sequence": 7', '"sequence": 9007199254740992'), "number", id="2 to the 53rd"),
    pytest.param(_text('"sequence": 7', '"sequence": 7' + "0" * 5000), "number", id="an integer of 5001 digits"),
    pytest.param(_text('"sequence": 7', '"sequence": 7.0'), "type", id="a sequence with a point"),
    pytest.param(_changed("sequence", 0), "range", id="sequence nought"),
    pytest.param(_changed("sequence", -1), "range", id="a negative sequence"),
    pytest.param(_changed("sequence", True), "type", id="a sequence that is true"),
    pytest.param(_changed("temperature", "1"), "type", id="a number in quotes"),
    pytest.param(_changed("temperature", True), "type", id="a temperature that is true"),
    pytest.param(_changed("temperature", -1), "range", id="a negative temperature"),
    pytest.param(_changed("type", "fieldmark-root"), "type", id="of another type"),
    pytest.param(_changed("format", 1), "format", id="of the first format"),
    pytest.param(_changed("format", 3), "format", id="of a later format"),
    pytest.param(_changed("format", True), "format", id="a format that is true"),
    pytest.param(_changed("name", "Tiny"), "text", id="a name in capitals"),
    pytest.param(_changed("name", "../tiny"), "text", id="a name that climbs out"),
    pytest.param(_changed("name", "tiny\n"), "text", id="a name with a line break"),
    pytest.param(_changed("name", "a" * 65), "text", id="a name of 65 letters"),
    pytest.param(_changed("name", ""), "text", id="no name"),
    pytest.param(_changed("name", None), "type", id="a name that is null"),
    pytest.param(_changed("version", "1\x1b[2J"), "text", id="a version with a terminal sequence"),
    pytest.param(_text('"version": "0.1"', '"version": "\\ud800"'), "json", id="half a surrogate pair"),
    pytest.param(_changed("created", "2026-05-01T12:00:00"), "text", id="a time without offset"),
    pytest.param(_changed("created", "2026-13-01T12:00:00Z"), "created", id="a month that is none"),
    pytest.param(_changed("labels", []), "range", id="no labels"),
    pytest.param(_changed("labels.1.name", "red"), "labels", id="a label twice"),
    pytest.param(_changed("labels.1.name", " red"), "text", id="a label with a space before it"),
    pytest.param(_changed("labels.1", "red"), "type", id="a label that is a word only"),
    pytest.param(_changed("thresholds", [0.5, 0.5]), "thresholds", id="a threshold too few"),
    pytest.param(_changed("thresholds", [0.5] * 4), "thresholds", id="a threshold too many"),
    pytest.param(_changed("thresholds.0", 1.01), "range", id="a threshold over one"),
    pytest.param(_changed("input.height", 0), "range", id="an input of no rows"),
    pytest.param(_changed("input.width", 4096), "range", id="an input too wide"),
    pytest.param(_changed("input.resample", "nearest"), "input", id="a filter that is not known"),
    pytest.param(_changed("input.aspect", "mirror"), "input", id="an aspect that is not known"),
    pytest.param(_changed("input.cut_top", 1001), "input", id="a strip too high"),
    pytest.param(_changed("runtimes.0.accuracy", 93.75), "range", id="an accuracy in per cent"),
    pytest.param(_changed("runtimes.1.name", "ai_edge_litert"), "runtimes", id="a runtime twice"),
    pytest.param(_changed("op_versions", {"mean": 1}), "text", id="an operator in small letters"),
    pytest.param(_changed("ram_mib", 0), "range", id="no memory"),
    pytest.param(_changed("golden", []), "range", id="no golden photos"),
    pytest.param(_changed("golden.0.file", "golden/none.png"), "golden", id="a golden photo that is no file"),
    pytest.param(_changed("golden.0.file", "model.tflite"), "golden", id="the model as a golden photo"),
    pytest.param(_changed("golden.0.file", "golden/blue.png"), "golden", id="a golden photo twice"),
    pytest.param(_changed("golden.0.label", "fox"), "golden", id="a golden label that is no label"),
    pytest.param(_changed("golden.0.label", "blue"), "golden", id="a golden label against its logits"),
    pytest.param(_changed("golden.0.logits", [1.0, 0.0]), "golden", id="a logit too few"),
    pytest.param(_changed("golden.0.tolerance", -0.1), "range", id="a negative tolerance"),
    pytest.param(_changed("health", {"max_failed_share": "half"}), "type", id="a health rule in words"),
    pytest.param(_changed("provenance.dataset_digest", "AB" * 32), "text", id="a digest in capitals"),
    pytest.param(_changed("files", FILES[1:]), "files", id="no model among the files"),
    pytest.param(_changed("files", [*FILES, {**FILES[0], "path": "b.tflite"}]), "files", id="two models"),
    pytest.param(_changed("files", [*FILES, FILES[1]]), "files", id="a file twice"),
    pytest.param(
        _changed("files", [*FILES, {**FILES[1], "path": "GOLDEN/red.png"}]), "files", id="a file twice but for its case"
    ),
    pytest.param(_changed("files", [*FILES, {**FILES[1], "path": "golden"}]), "files", id="a file where a folder is"),
    pytest.param(_changed("files.1.path", "../red.png"), "text", id="a file that climbs out"),
    pytest.param(_changed("files.1.path", "/red.png"), "text", id="a file with an absolute path"),
    pytest.param(_changed("files.1.path", "golden//red.png"), "text", id="a path with an empty part"),
    pytest.param(_changed("files.1.path", ".hidden"), "text", id="a hidden file"),
    pytest.param(_changed("files.1.path", "a" * 101), "text", id="a path of 101 letters"),
    pytest.param(_changed("files.1.path", "manifest.json"), "files", id="a file in the manifest's place"),
    pytest.param(_changed("files.1.path", "Manifest.json.minisig"), "files", id="a file in the signature's place"),
    pytest.param(_changed("files.1.path", "roots/2.json"), "files", id="a file in a root's place"),
    pytest.param(_changed("files.1.path", "Manifest.json/x"), "files", id="a folder in the manifest's place"),
    pytest.param(_changed("files.1.length_bytes", 2**29 + 1), "range", id="a file over 512 MiB"),
    pytest.param(_changed("files.1.length_bytes", 0), "range", id="an empty file"),
    pytest.param(
        _changed(
            "files", [FILES[0], *({**FILES[1], "path": f"f{i}", "length_bytes": 2**29} for i in range(2)), *FILES[1:]]
        ),
        "files",
        id="files over a gibibyte together",
    ),
]


@pytest.mark.parametrize(("data", "code"), MANIFEST_FAULTS)
def test_a_faulty_manifest_is_refused_although_it_is_signed(data: bytes, code: str) -> None:
    with pytest.raises(BundleError) as caught:
        bundles.parse_manifest(data)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("manifest.json: ")
    if len(data) <= bundles.MAX_MANIFEST_BYTES:
        with pytest.raises(BundleError) as caught:
            _read(tiny.pack(tiny.members(data)))
        assert caught.value.code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def _paths(value: object, way: str = "") -> list[str]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, below in inner:
        here = f"{way}.{key}" if way else str(key)
        found += [here, *_paths(below, here)]
    return found


@given(st.sampled_from(_paths(json.loads(bundles.manifest_bytes(tiny.manifest())))), JSON)
def test_any_value_anywhere_in_a_manifest_is_read_or_refused_by_our_own_error(path: str, value: object) -> None:
    content = json.loads(bundles.manifest_bytes(tiny.manifest()))
    *way, last = path.split(".")
    inner = content
    for part in way:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    inner[int(last) if isinstance(inner, list) else last] = value
    data = json.dumps(content).encode()
    try:
        found = bundles.parse_manifest(data)
    except BundleError:
        return
    assert bundles.parse_manifest(bundles.manifest_bytes(found)) == found


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_no_manifest_and_say_so(data: bytes) -> None:
    with pytest.raises(BundleError):
        bundles.parse_manifest(data)


def test_every_message_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "fox-7.fmb"
    path.write_bytes(tiny.pack(tiny.swapped("model.tflite", b"")))
    size = len(tiny.payload()["model.tflite"])
    with pytest.raises(BundleError) as caught:
        bundles.open_bundle(path)
    expected = f"bundle fox-7.fmb: model.tflite is 0 bytes, manifest says {size}. Copy the bundle again."
    assert re.fullmatch(re.escape(expected), str(caught.value))
