"""Installing: a refused bundle changes nothing, a power cut leaves the old bundle or the new one whole."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.agent import slots
from edge.errors import BundleError, DeviceError, FieldmarkError, ModelError, TrustError
from edge.model import bundle as bundles
from edge.model import runtime, trust
from edge.model.bundle import Manifest
from edge.model.spec import InputSpec
from tests import scale
from tests.fakes import tiny


def _install(root: Path, bundle: Path, **options: Any) -> slots.Installed:
    return slots.install(root, bundle, **{"check": tiny.agreeing} | options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A device root that holds nothing yet."""
    folder = tmp_path / "device"
    folder.mkdir()
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A bundle."""
    return tiny.write(tmp_path / "old.fmb")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """A newer one."""
    return tiny.write(tmp_path / "new.fmb", sequence=8)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A bundle that somebody else signed."""
    return tiny.write(tmp_path / "foreign.fmb", key=tiny.OTHER_KEY)


# --- what an installation leaves


def test_a_first_installation_enrols_and_runs(root: Path, old: Path) -> None:
    done = _install(root, old)
    assert (done.changed, done.enrolled, done.previous, done.development) == (True, True, None, True)
    assert (done.name, done.sequence, done.key_id) == ("tiny", 7, tiny.KEY.key_id)
    slot = slots.current(root)
    assert slot.manifest == tiny.manifest()
    assert (slot.path, slot.digest) == (done.path, done.digest)
    assert slot.model_path.read_bytes() == tiny.payload()["model.tflite"]
    assert slot.model_digest == slot.manifest.model.sha256
    assert slot.development
    assert slots.device_id(root) == done.device
    assert (root / "etc/fieldmark/root.json").read_bytes() == tiny.signed_root().data
    state = root / "var/lib/fieldmark"
    assert {path.name for path in state.iterdir()} == {"slots", "current", "device.json", "lock"}
    assert [path.name for path in (state / "slots").iterdir()] == [done.digest]


def test_a_second_installation_switches_and_keeps_the_device(root: Path, old: Path, new: Path) -> None:
    first = _install(root, old)
    second = _install(root, new)
    assert (second.changed, second.enrolled, second.previous) == (True, False, first.digest)
    assert second.device == first.device
    assert slots.current(root).manifest.sequence == 8


def test_two_devices_have_different_ids(tmp_path: Path, old: Path) -> None:
    ids = {_install(tmp_path / name, old).device for name in ("a", "b")}
    assert len(ids) == 2


def test_the_current_bundle_again_changes_nothing(root: Path, old: Path) -> None:
    first = _install(root, old)
    before = _with_times(root)
    again = _install(root, old, check=_forbidden)
    assert not again.changed
    assert (again.digest, again.device, again.enrolled) == (first.digest, first.device, False)
    assert _with_times(root) == before


def test_an_older_bundle_still_in_its_slot_can_be_made_current_again(root: Path, old: Path, new: Path) -> None:
    first = _install(root, old)
    _install(root, new)
    back = _install(root, old)
    assert back.changed
    assert slots.current(root).digest == first.digest


def test_a_root_whose_last_part_is_missing_is_made(tmp_path: Path, old: Path) -> None:
    _install(tmp_path / "made", old)
    assert slots.current(tmp_path / "made").manifest.name == "tiny"


def test_any_user_may_read_a_slot(root: Path, old: Path) -> None:
    done = _install(root, old)
    for path in (done.path, *done.path.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_what_root_installs_under_a_strict_umask_can_be_read_by_the_agent(root: Path, old: Path) -> None:
    before = os.umask(0o077)
    try:
        _install(root, old)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    for path in root.rglob("*"):
        assert path.lstat().st_mode & 0o044 or path.is_symlink(), path


def _with_times(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        name: (mode, (folder / name).lstat().st_mtime_ns, data) for name, (mode, data) in tiny.snapshot(folder).items()
    }


def _forbidden(folder: Path, manifest: Manifest) -> str:
    raise AssertionError("nothing was to be tried")


# --- trust


def test_a_foreign_key_is_refused_and_nothing_changes(root: Path, old: Path, foreign: Path) -> None:
    _install(root, old)
    _refused(root, foreign, TrustError, "foreign key")


def test_a_named_root_enrols_instead_of_the_one_in_the_bundle(root: Path, foreign: Path, tmp_path: Path) -> None:
    named = _root_file(tmp_path, tiny.OTHER_KEY)
    assert _install(root, foreign, trust_root=named).enrolled
    assert (root / "etc/fieldmark/root.json").read_bytes() == named.read_bytes()


def test_a_bundle_that_the_named_root_does_not_trust_enrols_nobody(root: Path, old: Path, tmp_path: Path) -> None:
    _refused(root, old, TrustError, "foreign key", trust_root=_root_file(tmp_path, tiny.OTHER_KEY))


def test_a_named_root_does_not_replace_an_enrolled_one(root: Path, old: Path, foreign: Path, tmp_path: Path) -> None:
    _install(root, old)
    _refused(root, foreign, TrustError, "other root", trust_root=_root_file(tmp_path, tiny.OTHER_KEY))


def test_the_enrolled_root_may_be_named_again(root: Path, old: Path, new: Path, tmp_path: Path) -> None:
    _install(root, old)
    assert not _install(root, new, trust_root=_root_file(tmp_path, tiny.KEY)).enrolled


@pytest.mark.parametrize("name", ["etc/fieldmark/config.toml", "var/lib/fieldmark/log.db", "var/lib/fieldmark/slots/x"])
def test_a_root_that_holds_anything_never_enrols_from_a_bundle(
    root: Path, old: Path, tmp_path: Path, name: str
) -> None:
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text("something")
    _refused(root, old, DeviceError, "not enrolled")
    assert _install(root, old, trust_root=_root_file(tmp_path, tiny.KEY)).enrolled


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 100, b" " * 70_000])
def test_a_damaged_enrolled_root_is_never_replaced(
    root: Path, old: Path, new: Path, tmp_path: Path, data: bytes
) -> None:
    _install(root, old)
    (root / "etc/fieldmark/root.json").write_bytes(data)
    _refused(root, new, DeviceError, "root")
    _refused(root, new, DeviceError, "root", trust_root=_root_file(tmp_path, tiny.KEY))


def test_other_folders_of_a_device_do_not_matter(root: Path, old: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc" / "hostname").write_text("trap-7")
    assert _install(root, old).enrolled


def _root_file(folder: Path, key: trust.SigningKey) -> Path:
    path = folder / "named-root.json"
    path.write_bytes(tiny.signed_root(key).data)
    return path


def _refused(root: Path, bundle: Path, kind: type[FieldmarkError], code: str, **options: Any) -> None:
    """The installation is refused with this error, and the device root stays byte for byte the same."""
    before = tiny.snapshot(root)
    with pytest.raises(kind) as caught:
        _install(root, bundle, **options)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert tiny.snapshot(root) == before


# --- attacks


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    return lambda: change(tiny.pack(tiny.members()))


ATTACKS = [
    pytest.param(_bytes(lambda data: b""), "truncated", id="an empty file"),
    pytest.param(_bytes(lambda data: data[:-1]), "truncated", id="cut by one byte"),
    pytest.param(_bytes(lambda data: data[:5000]), "truncated", id="cut inside the payload"),
    pytest.param(_bytes(lambda data: data + b"x"), "trailing", id="a byte after the end"),
    pytest.param(_bytes(lambda data: data[:-1] + b"x"), "padding", id="the last byte not zero"),
    pytest.param(lambda: tiny.pack(tiny.members()[:-1]), "missing member", id="the last file is missing"),
    pytest.param(lambda: tiny.pack([*tiny.members(), ("extra", b"x")]), "extra member", id="a file more"),
    pytest.param(
        lambda: tiny.pack(tiny.swapped("golden/blue.png", tiny.png((10, 10, 201)))), "digest", id="another last file"
    ),
    pytest.param(
        lambda: tiny.pack(tiny.swapped("manifest.json", bundles.manifest_bytes(tiny.manifest(sequence=8)))),
        "signature",
        id="another manifest",
    ),
    pytest.param(lambda: tiny.pack(tiny.members(comment="fieldmark-bundle tiny 8")), "comment", id="another comment"),
    pytest.param(lambda: tiny.pack(tiny.members(b"{}")), "missing key", id="a signed manifest of nothing"),
]


@pytest.mark.parametrize(("attack", "code"), ATTACKS)
@pytest.mark.parametrize("enrolled", [True, False], ids=["enrolled", "blank"])
def test_after_a_refused_bundle_the_device_root_is_unchanged(
    root: Path, new: Path, tmp_path: Path, attack: Callable[[], bytes], code: str, enrolled: bool
) -> None:
    if enrolled:
        _install(root, new)
    bundle = tmp_path / "attack.fmb"
    bundle.write_bytes(attack())
    _refused(root, bundle, FieldmarkError, code)


def test_a_refused_bundle_does_not_leave_the_root_that_was_to_be_made(tmp_path: Path, old: Path) -> None:
    old.write_bytes(old.read_bytes() + b"x")
    with pytest.raises(BundleError):
        _install(tmp_path / "made", old)
    assert not (tmp_path / "made").exists()


def test_a_flipped_bit_anywhere_leaves_the_device_root_unchanged(root: Path, old: Path, new: Path) -> None:
    _install(root, old)
    before = tiny.snapshot(root)
    whole = new.read_bytes()
    rng = random.Random(3)
    for _ in range(scale.count("changed_content_bytes") // 2):
        altered = bytearray(whole)
        altered[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        new.write_bytes(altered)
        with pytest.raises((BundleError, TrustError)):
            _install(root, new)
        assert tiny.snapshot(root) == before


# --- power cuts and other installations

CUT = """
import os, sys
from pathlib import Path
from edge import durable
from edge.agent import slots
root, bundle, at = sys.argv[1:]
def step(name):
    if name == at:
        os._exit(9)  # like a cut: nothing is cleaned up
made = []
def create(path, *, mode=0o644, create=durable.create):
    made.append(path)
    if at == f"file {len(made)}":
        os.write(os.open(path, os.O_WRONLY | os.O_CREAT), b"half")
        os._exit(9)
    return create(path, mode=mode)
durable.create = create
slots.install(Path(root), Path(bundle), check=lambda folder, manifest: "none", step=step)
"""
FILES = [f"file {i + 1}" for i in range(len(tiny.payload()) + 3)]
"""Every file that a later installation writes: two of the head, the payload, ``current``."""


def _cut(root: Path, bundle: Path, at: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", CUT, str(root), str(bundle), at], env=environment, check=False)
    assert done.returncode == 9


@pytest.mark.parametrize("at", [*slots.STEPS, *FILES])
def test_a_power_cut_keeps_the_old_bundle_or_has_the_new_one_whole(root: Path, old: Path, new: Path, at: str) -> None:
    before = _install(root, old)
    _cut(root, new, at)
    left = slots.current(root)  # verifies signature and model
    assert left.manifest.sequence == (8 if at == "switched" else 7)
    assert slots.device_id(root) == before.device
    done = _install(root, new)
    assert done.changed == (at != "switched")
    assert slots.current(root).manifest.sequence == 8
    _no_leftovers(root, 2)


@pytest.mark.parametrize("at", [*slots.STEPS, *FILES, f"file {len(FILES) + 1}", f"file {len(FILES) + 2}"])
def test_a_power_cut_in_the_first_installation_does_not_lock_the_owner_out(root: Path, old: Path, at: str) -> None:
    _cut(root, old, at)
    if at != "switched":
        with pytest.raises(DeviceError) as caught:
            slots.current(root)
        assert caught.value.code == "no bundle"
    _install(root, old)
    assert slots.current(root).manifest.sequence == 7
    _no_leftovers(root, 1)


def _no_leftovers(root: Path, bundles_kept: int) -> None:
    state = root / "var/lib/fieldmark"
    assert {path.name for path in state.iterdir()} == {"slots", "current", "device.json", "lock"}
    assert len(list((state / "slots").iterdir())) == bundles_kept
    assert [path.name for path in (root / "etc/fieldmark").iterdir()] == ["root.json"]


def test_after_a_cut_in_the_first_installation_a_foreign_bundle_may_still_come_first(
    root: Path, old: Path, foreign: Path
) -> None:
    _cut(root, old, "checked")
    assert _install(root, foreign).key_id == tiny.OTHER_KEY.key_id


def test_after_a_cut_behind_enrolment_a_foreign_bundle_is_refused(root: Path, old: Path, foreign: Path) -> None:
    _cut(root, old, "trusted")
    _refused(root, foreign, TrustError, "foreign key")


def test_every_rename_follows_a_sync_of_the_file_and_precedes_one_of_its_folder(
    root: Path, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(root, old)
    calls: list[tuple[str, str]] = []
    fsync, replaced, renamed = os.fsync, Path.replace, Path.rename

    def note_fsync(descriptor: int) -> None:
        calls.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def noting(act: Callable[..., Path]) -> Callable[[Path, Path], Path]:
        def note(self: Path, target: Path) -> Path:
            calls.append(("rename", f"{self} {target}"))
            return act(self, target)

        return note

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", noting(replaced))
    monkeypatch.setattr(Path, "rename", noting(renamed))
    done = _install(root, new)
    renames = [i for i, (kind, _) in enumerate(calls) if kind == "rename"]
    assert len(renames) == 2  # the slot, and current
    for i in renames:
        source, target = calls[i][1].split(" ")
        synced = {path for kind, path in calls[:i] if kind == "sync"}
        assert source in synced
        if Path(target).is_dir():
            inside = {source + str(path).removeprefix(str(done.path)) for path in done.path.rglob("*")}
            assert inside <= synced
        assert ("sync", str(Path(target).parent)) in calls[i + 1 :]


def test_a_second_installation_at_the_same_time_is_refused(root: Path, old: Path, new: Path) -> None:
    _install(root, old)
    with (root / "var/lib/fieldmark/lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        _refused(root, new, DeviceError, "busy")
    assert _install(root, new).changed


def test_a_second_first_installation_cannot_slip_in_between(root: Path, old: Path, foreign: Path) -> None:
    def step(name: str) -> None:
        if name == "checked":
            _refused(root, foreign, DeviceError, "busy")

    assert _install(root, old, step=step).enrolled
    assert slots.current(root).manifest.sequence == 7


def test_trust_is_decided_again_under_the_lock(root: Path, old: Path, foreign: Path) -> None:
    def step(name: str) -> None:
        if name == "verified":  # verified for a blank root, and then another installation is faster
            _install(root, foreign)

    with pytest.raises(TrustError) as caught:
        _install(root, old, step=step)
    assert caught.value.code == "foreign key"
    assert slots.current(root).path.name == bundles.bundle_digest(bundles.read_head(foreign.open("rb"), "f").manifest)


# --- damage on the device


def _flip(path: Path, at: int = 100) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGE: list[Any] = [
    pytest.param(lambda slot: _flip(slot / "model.tflite"), id="a bit of the model"),
    pytest.param(lambda slot: (slot / "model.tflite").unlink(), id="the model is gone"),
    pytest.param(lambda slot: (slot / "model.tflite").write_bytes(b""), id="the model is empty"),
    pytest.param(lambda slot: _flip(slot / "manifest.json"), id="a bit of the manifest"),
    pytest.param(lambda slot: (slot / "manifest.json").unlink(), id="the manifest is gone"),
    pytest.param(lambda slot: _flip(slot / "manifest.json.minisig"), id="a bit of the signature"),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_slot_is_refused_and_installing_again_repairs_it(
    root: Path, old: Path, damage: Callable[[Path], None]
) -> None:
    done = _install(root, old)
    damage(done.path)
    with pytest.raises(DeviceError, match="Install it again") as caught:
        slots.current(root)
    assert caught.value.code == "damaged"
    assert _install(root, old).changed
    assert slots.current(root).manifest == tiny.manifest()
    _no_leftovers(root, 1)


def test_a_slot_of_another_digest_cannot_be_passed_off_as_current(root: Path, old: Path, new: Path) -> None:
    first, second = _install(root, old), _install(root, new)
    (second.path).rename(second.path.with_name("away"))
    first.path.rename(second.path)
    with pytest.raises(DeviceError) as caught:
        slots.current(root)
    assert caught.value.code == "damaged"


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 200, b'{"digest": "../../../etc"}'])
def test_a_damaged_current_file_is_refused_and_installing_again_repairs_it(root: Path, old: Path, data: bytes) -> None:
    _install(root, old)
    (root / "var/lib/fieldmark/current").write_bytes(data)
    with pytest.raises(DeviceError):
        slots.current(root)
    _install(root, old)
    assert slots.current(root).manifest == tiny.manifest()


def test_current_cannot_point_outside_the_slots(root: Path, old: Path) -> None:
    _install(root, old)
    path = root / "var/lib/fieldmark/current"
    path.write_text(json.dumps({**json.loads(path.read_text()), "digest": "../slots"}))
    with pytest.raises(DeviceError):
        slots.current(root)


def test_a_slot_is_only_run_if_the_enrolled_key_signed_it(root: Path, old: Path) -> None:
    _install(root, old)
    (root / "etc/fieldmark/root.json").write_bytes(tiny.signed_root(tiny.OTHER_KEY).data)
    with pytest.raises(DeviceError) as caught:
        slots.current(root)
    assert caught.value.code == "damaged"


def test_a_root_without_bundle_says_what_to_do(root: Path) -> None:
    with pytest.raises(DeviceError, match=r"fieldmark flash FILE\.fmb") as caught:
        slots.current(root)
    assert caught.value.code == "no bundle"
    with pytest.raises(DeviceError) as caught:
        slots.device_id(root)
    assert caught.value.code == "no device"


def test_a_full_card_is_said_so_and_nothing_changes(
    root: Path, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(root, old)
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    _refused(root, new, DeviceError, "space")


@pytest.mark.parametrize("where", ["nowhere/device", "file"])
def test_a_root_that_cannot_be_is_refused(tmp_path: Path, old: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    _refused(tmp_path / where, old, DeviceError, "no root")


def test_a_missing_bundle_is_refused(root: Path, tmp_path: Path) -> None:
    _refused(root, tmp_path / "none.fmb", BundleError, "missing")


# --- golden photos, on a real runtime


def test_a_bundle_that_answers_as_it_should_is_installed(root: Path, old: Path) -> None:
    done = slots.install(root, old)
    assert done.runtime == runtime.installed()[0].name
    assert slots.current(root).manifest == tiny.manifest()


RED, BLUE = tiny.manifest().golden
BAD_GOLDEN: list[Any] = [
    pytest.param({"golden": (RED, replace(BLUE, logits=(10.0, 10.0, 202.5)))}, "golden logits", id="logits differ"),
    pytest.param(
        {"golden": (replace(RED, label="green", logits=(10.0, 200.0, 10.0)), BLUE)}, "golden label", id="label differs"
    ),
    pytest.param({"input": InputSpec(16, 16)}, "golden photo", id="photos of another size than the manifest says"),
    pytest.param({"runtimes": ()}, "no runtime", id="it passed the gate nowhere"),
]


@pytest.mark.parametrize(("changes", "code"), BAD_GOLDEN)
def test_a_bundle_that_answers_otherwise_is_refused(
    root: Path, old: Path, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    bad = tiny.write(tmp_path / "bad.fmb", **{"sequence": 9} | changes)
    _refused(root, bad, ModelError, code, check=None)  # a blank root stays blank
    _install(root, old)
    _refused(root, bad, ModelError, code, check=None)
    assert slots.current(root).manifest.sequence == 7


@pytest.mark.parametrize(
    ("files", "code"),
    [
        pytest.param({"model.tflite": b"TFL3 but no model"}, "load", id="the model is none"),
        pytest.param({"golden/red.png": b"no photo"}, "golden photo", id="a golden photo is none"),
        pytest.param({"golden/red.png": tiny.png((200, 10, 10), form="JPEG")}, "golden photo", id="a JPEG"),
        pytest.param({"golden/red.png": tiny.png((200, 10, 10), mode="L")}, "golden photo", id="without colours"),
        pytest.param({"golden/red.png": tiny.png((200, 10, 10))[:-30]}, "golden photo", id="a truncated photo"),
    ],
)
def test_signed_files_that_cannot_be_run_are_refused(
    root: Path, tmp_path: Path, files: dict[str, bytes], code: str
) -> None:
    bad = tiny.write(tmp_path / "bad.fmb", files={**tiny.payload(), **files})
    _refused(root, bad, ModelError, code, check=None)


def test_a_model_with_another_number_of_labels_is_refused(root: Path, tmp_path: Path) -> None:
    made = tiny.manifest()
    more = replace(
        made,
        labels=(*made.labels, bundles.Label("grey")),
        thresholds=(*made.thresholds, 0.5),
        golden=tuple(replace(golden, logits=(*golden.logits, 0.0)) for golden in made.golden),
    )
    bundles.write_bundle(tmp_path / "bad.fmb", more, tiny.payload(), tiny.KEY, tiny.signed_root())
    _refused(root, tmp_path / "bad.fmb", ModelError, "labels", check=None)
