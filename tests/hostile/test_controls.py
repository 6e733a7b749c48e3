"""The attacks of this folder are worth something: each finds a reader that was weakened on purpose."""

from __future__ import annotations

import base64
import io
import itertools
import random
import shutil
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from edge.agent import slots
from edge.errors import FieldmarkError
from edge.model import archive, trust
from edge.model import bundle as bundles
from tests.fakes import tiny
from tests.hostile import device as hostile
from tests.hostile.device import Device

MEMBERS = hostile.fox_members()
FOX_2 = hostile.fox(2)
Patch = pytest.MonkeyPatch
Weaken = Callable[[Patch], None]


def _read_with_tarfile(data: bytes) -> None:
    """What an attentive person writes: signature, names, digests, and no more members than signed."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    trust.verify_release(tiny.root(), content[bundles.MANIFEST], content[bundles.SIGNATURE], "fox-2.fmb")
    manifest = bundles.parse_manifest(content[bundles.MANIFEST])
    for entry in manifest.files:
        if bundles.file_entry(entry.path, content[entry.path]) != entry:
            raise FieldmarkError("digest")


def _accepted(places: Iterable[int], read: Callable[[bytes], object] = hostile.read) -> list[int]:
    """At which of these places a byte of fox-2 can change without being noticed."""
    found, rng = [], random.Random(8)
    for at in places:
        altered = bytearray(FOX_2)
        altered[at] ^= rng.randrange(1, 256)
        try:
            read(bytes(altered))
        except (FieldmarkError, tarfile.TarError, KeyError, ValueError):
            continue
        found.append(at)
    return found


def _places(*regions: str) -> list[int]:
    found = [at for name, places in hostile.regions(MEMBERS) for at in places if name in regions]
    return random.Random(4).sample(found, min(150, len(found)))


def test_the_reader_as_it_is_notices_every_change() -> None:
    names = {name for name, _ in hostile.regions(MEMBERS)}
    assert {name: _accepted(_places(name)) for name in names} == {name: [] for name in names}


def test_a_reader_built_on_tarfile_misses_a_good_part_of_the_changes() -> None:
    places = random.Random(2).sample(range(len(FOX_2)), 600)
    assert len(_accepted(places, _read_with_tarfile)) > len(places) // 4


# --- weakened readers


def _without_header_comparison(patch: Patch) -> None:
    def lenient(self: archive.Reader, expected: str) -> tuple[str, int]:
        return self.block[:100].rstrip(b"\0").decode("ascii", "replace"), int(self.block[124:135], 8)

    patch.setattr(archive.Reader, "_header", lenient)


def _without_padding_check(patch: Patch) -> None:
    exactly = archive.Reader._exactly

    def lenient(self: archive.Reader, length: int, what: str) -> bytes:
        found = exactly(self, length, what)
        return bytes(length) if what.startswith(("the padding", "its last")) else found

    patch.setattr(archive.Reader, "_exactly", lenient)


def _without_digest(patch: Patch) -> None:
    class Whatever(str):
        def __ne__(self, other: object) -> bool:
            return False

    copy = archive.Reader.copy
    patch.setattr(archive.Reader, "copy", lambda self, *arguments: Whatever(copy(self, *arguments)))


def _without_signature(patch: Patch) -> None:
    patch.setattr(trust, "verify", lambda key, data, signature, where: None)


def _without_one_form_of_base64(patch: Patch) -> None:
    patch.setattr(trust, "unbase64", lambda text, length: base64.b64decode(text)[:length])


WEAK = [
    pytest.param(_without_header_comparison, "header", id="a reader that does not compare headers"),
    pytest.param(_without_padding_check, "padding", id="a reader that does not look at padding"),
    pytest.param(_without_padding_check, "end", id="a reader that does not look at the last block"),
    pytest.param(_without_digest, "model.tflite", id="a reader that does not compare digests"),
    pytest.param(_without_signature, bundles.SIGNATURE, id="a reader that does not verify"),
    pytest.param(_without_signature, bundles.MANIFEST, id="a reader that does not verify its manifest"),
]


@pytest.mark.parametrize(("weaken", "region"), WEAK)
def test_a_changed_byte_finds(monkeypatch: Patch, weaken: Weaken, region: str) -> None:
    assert _accepted(_places(region)) == []
    weaken(monkeypatch)
    assert _accepted(_places(region)) != []


def test_a_bundle_twice_in_one_file_finds_a_reader_that_does_not_look_behind_the_end(monkeypatch: Patch) -> None:
    with pytest.raises(FieldmarkError):
        hostile.read(FOX_2 + FOX_2)
    monkeypatch.setattr(archive.Reader, "end", lambda self: None)
    hostile.read(FOX_2 + FOX_2)


def test_a_foreign_key_finds_a_device_that_trusts_the_root_in_the_bundle(monkeypatch: Patch) -> None:
    stranger = tiny.pack(hostile.fox_members(key=tiny.OTHER_KEY))
    with pytest.raises(FieldmarkError):
        hostile.read(stranger)
    verify = bundles.verify
    monkeypatch.setattr(bundles, "verify", lambda head, root, where: verify(head, None, where))
    hostile.read(stranger)


def test_a_signature_with_spare_characters_finds_a_lenient_base64(monkeypatch: Patch) -> None:
    signature = dict(MEMBERS)[bundles.SIGNATURE].split(b"\n")
    signature[1] = signature[1][:8] + b"!" + signature[1][8:]  # Python's decoder leaves out what it does not know
    loose = tiny.pack((n, b"\n".join(signature) if n == bundles.SIGNATURE else data) for n, data in MEMBERS)
    with pytest.raises(FieldmarkError):
        hostile.read(loose)
    _without_one_form_of_base64(monkeypatch)
    hostile.read(loose)


def test_many_signatures_find_a_reader_without_a_cap_on_them(monkeypatch: Patch) -> None:
    at = hostile.place(f"roots/1.{tiny.KEY.key_id}.minisig")
    many = ((f"roots/1.{i:016X}.minisig", bytes(4096)) for i in range(400))
    data = FOX_2[:at] + b"".join(itertools.chain.from_iterable(archive.member(n, len(d), [d]) for n, d in many))

    def kept() -> int:
        return sum(len(signature) for signature in bundles._read_root_signatures(reader(), 1).values())

    def reader() -> archive.Reader:
        return archive.Reader(io.BytesIO(data[at:] + archive.END), "fox-2.fmb")

    assert kept() == 32 * 4096
    monkeypatch.setattr(bundles, "MAX_ROOT_SIGNATURES", 10**6)
    assert kept() == 400 * 4096


# --- weakened devices


@pytest.fixture
def own(device: Device, tmp_path: Path) -> Device:
    """A device of this test's own, for it will be harmed."""
    shutil.copytree(device.root, tmp_path / "device")
    return hostile.aged(Device(tmp_path / "device"))


def test_an_accepted_attack_is_reported(own: Device, monkeypatch: Patch) -> None:
    _without_padding_check(monkeypatch)
    with pytest.raises(AssertionError, match="the payload was used"):
        own.refuse(FOX_2[:-1] + b"x")
    monkeypatch.setattr(hostile, "never", tiny.agreeing)
    with pytest.raises(AssertionError, match="was accepted"):
        own.refuse(FOX_2[:-1] + b"x")


def test_a_device_that_leaves_a_refused_bundle_lying_is_found(own: Device, monkeypatch: Patch) -> None:
    own.refuse(FOX_2[:-1] + b"x")
    monkeypatch.setattr(slots._Writing, "__exit__", lambda self, *error: None)
    with pytest.raises(AssertionError, match="touched"):
        own.refuse(FOX_2[:-1] + b"x")


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()), id="writes a file again"),
        pytest.param(lambda path: path.chmod(0o600), id="changes a mode"),
        pytest.param(lambda path: path.with_name("new").write_bytes(b""), id="makes a file"),
        pytest.param(lambda path: path.unlink(), id="removes a file"),
        pytest.param(lambda path: path.with_name("link").symlink_to(path), id="makes a link"),
        pytest.param(lambda path: path.with_name("folder").mkdir(), id="makes a folder"),
    ],
)
def test_a_device_that_touches_anything_is_found(own: Device, monkeypatch: Patch, harm: Callable[[Path], None]) -> None:
    verify = bundles.verify

    def harming(*arguments: object) -> bundles.Verified:
        monkeypatch.setattr(bundles, "verify", verify)  # once is enough
        harm(slots.Layout(own.root).device)
        return verify(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bundles, "verify", harming)
    with pytest.raises(AssertionError, match="touched"):
        own.refuse(FOX_2[:-1] + b"x")
