"""A device runs signed fox-1. Signed fox-2 is accepted as it was made, and rebuilt in no other way."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.agent import slots
from edge.model import archive, trust
from edge.model import bundle as bundles
from tests.fakes import tiny
from tests.fakes.tiny import Member
from tests.hostile import device as hostile
from tests.hostile.device import MODEL, Device

FOX_2 = hostile.fox(2)


def test_fox_2_as_it_was_made_is_accepted_by_its_golden_photos(device: Device, tmp_path: Path) -> None:
    copy = Device(tmp_path / "device")
    shutil.copytree(device.root, copy.root)
    (tmp_path / "fox-2.fmb").write_bytes(FOX_2)
    done = copy.install(tmp_path / "fox-2.fmb")  # no check of the test's own: the real one, in a real runtime
    assert (done.changed, done.sequence, done.older) == (True, 2, False)
    assert slots.current(copy.root).manifest.sequence == 2
    assert slots.current(device.root).manifest.sequence == 1


def _index(name: str) -> int:
    return [found for found, _ in hostile.fox_members()].index(name)


def _rebuilt(change: Callable[[list[Member]], list[Member]] = lambda members: members, **options: bool) -> bytes:
    return hostile.with_tarfile(change(hostile.fox_members()), **options)


def _repacked(change: Callable[[list[Member]], list[Member]]) -> bytes:
    """The same attack by somebody who writes headers exactly as Fieldmark does."""
    return tiny.pack(change(hostile.fox_members()))


def _extra(members: list[Member]) -> list[Member]:
    return [*members, ("golden/extra.png", tiny.png((1, 2, 3)))]


def _doubled(members: list[Member]) -> list[Member]:
    return [*members[: _index(MODEL) + 1], (MODEL, b"another model"), *members[_index(MODEL) + 1 :]]


def _reordered(members: list[Member]) -> list[Member]:
    return [*members[:-2], members[-1], members[-2]]


def _foreign(members: list[Member]) -> list[Member]:
    return hostile.fox_members(key=tiny.OTHER_KEY)


def _signature_of_fox_1(members: list[Member]) -> list[Member]:
    old = dict(hostile.fox_members(1))
    return [(name, old[name] if name == bundles.SIGNATURE else data) for name, data in members]


def _linked(target: str) -> bytes:
    """Rebuilt with a symbolic link in the model's place."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in hostile.fox_members():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name == MODEL:
                info.type, info.size, info.linkname = tarfile.SYMTYPE, 0, target
            tar.addfile(info, io.BytesIO(data) if info.size else None)
    return buffer.getvalue()


REBUILT = [
    pytest.param(lambda: _rebuilt(), "header", id="by tarfile, its members as they were"),
    pytest.param(lambda: _rebuilt(like_ours=False), "header", id="by tarfile with an owner and a time"),
    pytest.param(lambda: _rebuilt(_extra), "header", id="by tarfile with an extra file"),
    pytest.param(lambda: _rebuilt(_doubled), "header", id="by tarfile with the model twice"),
    pytest.param(lambda: _rebuilt(_reordered), "header", id="by tarfile in another order"),
    pytest.param(lambda: _rebuilt(_foreign), "header", id="by tarfile, signed by a foreign key"),
    pytest.param(lambda: _rebuilt(_signature_of_fox_1), "header", id="by tarfile with the signature of fox-1"),
    pytest.param(lambda: _linked("/etc/passwd"), "header", id="by tarfile with a symbolic link"),
    pytest.param(lambda: _repacked(_extra), "extra member", id="in our form with an extra file"),
    pytest.param(lambda: _repacked(_doubled), "duplicate member", id="in our form with the model twice"),
    pytest.param(lambda: _repacked(_reordered), "order", id="in our form in another order"),
    pytest.param(lambda: _repacked(_foreign), "foreign key", id="in our form, signed by a foreign key"),
    pytest.param(lambda: _repacked(_signature_of_fox_1), "signature", id="in our form with the signature of fox-1"),
    pytest.param(lambda: FOX_2 + b"x", "trailing", id="with a byte behind it"),
    pytest.param(lambda: FOX_2 + bytes(512), "trailing", id="with a third empty block"),
    pytest.param(lambda: FOX_2 + FOX_2, "trailing", id="twice in one file"),
    pytest.param(lambda: FOX_2 + hostile.fox(1), "trailing", id="with fox-1 behind it"),
    pytest.param(lambda: FOX_2[: -len(archive.END)] + hostile.fox(1), "extra member", id="run into fox-1"),
]


@pytest.mark.parametrize(("attack", "code"), REBUILT)
def test_fox_2_rebuilt_is_refused(device: Device, attack: Callable[[], bytes], code: str) -> None:
    assert device.refuse(attack()).code == code


@pytest.mark.parametrize(
    ("form", "code"),
    [
        pytest.param(tarfile.GNU_FORMAT, "header", id="GNU"),
        pytest.param(tarfile.PAX_FORMAT, "header", id="pax"),
    ],
)
def test_fox_2_in_another_tar_format_is_refused(device: Device, form: int, code: str) -> None:
    assert device.refuse(hostile.with_tarfile(hostile.fox_members(), form=form)).code == code


@pytest.mark.parametrize(
    ("form", "mark"),
    [pytest.param(tarfile.GNU_FORMAT, b"L", id="GNU"), pytest.param(tarfile.PAX_FORMAT, b"x", id="pax")],
)
def test_the_extended_headers_of_other_tar_formats_are_refused(device: Device, form: int, mark: bytes) -> None:
    """A long name, which these formats carry in a member before the member."""
    extended = hostile.with_tarfile([("golden/" + "x" * 200, b"")], form=form)[: 3 * archive.BLOCK]
    assert extended[156:157] == mark
    at = hostile.place(MODEL)
    assert device.refuse(FOX_2[:at] + extended + FOX_2[at:]).code == "kind"


def test_fox_2_compressed_is_refused(device: Device) -> None:
    """By what happens to stand where a header has its kind."""
    assert device.refuse(gzip.compress(FOX_2)).code in ("kind", "link", "device", "path", "header")


AS_OURS = ("--format=ustar", "--mode=0644", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-b1")


@pytest.mark.skipif(not shutil.which("tar"), reason="no tar program here")
@pytest.mark.parametrize("options", [(), ("--format=gnu",), ("--format=pax",), AS_OURS[:-1], AS_OURS[1:]])
def test_fox_2_unpacked_and_packed_by_a_tar_program_is_refused(
    device: Device, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """What a well-meaning person does to look inside."""
    assert device.refuse(_packed_by_tar(tmp_path, *options)).code in ("header", "kind", "trailing")


@pytest.mark.skipif(not shutil.which("tar"), reason="no tar program here")
def test_a_tar_program_told_everything_writes_the_same_file(tmp_path: Path) -> None:
    """Then there is nothing to refuse; and this is how somebody without Fieldmark can check the form of a bundle."""
    assert _packed_by_tar(tmp_path, *AS_OURS).read_bytes() == FOX_2


def _packed_by_tar(folder: Path, *options: str) -> Path:
    (folder / "fox-2.fmb").write_bytes(FOX_2)
    (folder / "inside").mkdir()
    _run("tar", "-x", "-f", str(folder / "fox-2.fmb"), "-C", str(folder / "inside"))
    again, names = folder / "again.fmb", [name for name, _ in hostile.fox_members()]
    _run("tar", "-c", *options, "-C", str(folder / "inside"), "-f", str(again), *names)
    return again


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def test_a_signature_over_fox_2_by_a_key_in_the_place_of_ours_is_refused(device: Device) -> None:
    """Its key id is ours and its root is the attacker's."""
    forger = trust.SigningKey(tiny.KEY.key_id, tiny.OTHER_KEY.seed)
    assert device.refuse(tiny.pack(hostile.fox_members(key=forger))).code == "signature"


def test_fox_1_again_changes_nothing(device: Device, tmp_path: Path) -> None:
    (tmp_path / "fox-1.fmb").write_bytes(hostile.fox(1))
    marks = device.marks()
    assert not device.install(tmp_path / "fox-1.fmb", check=hostile.never).changed
    assert device.marks() == marks
