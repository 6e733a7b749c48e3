"""Which bundle a device runs: checked, unpacked aside, tried, and only then switched to.

Owns everything of a bundle below a device root: the enrolled root of trust, the slots, which slot is current, and
the device's id. A refused bundle leaves the device root as it was, byte for byte; a power cut leaves the old bundle
or the new one, whole. Never touches photos or the log, and never prints.

    etc/fieldmark/root.json            who may sign for this device
    var/lib/fieldmark/device.json      the device's id
    var/lib/fieldmark/current          which slot runs, one small file
    var/lib/fieldmark/slots/DIGEST/    a bundle, unpacked, never changed afterwards; named by the bundle digest
    var/lib/fieldmark/lock             held by the one installation that may run
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from edge import durable
from edge.errors import BundleError, DeviceError, FieldmarkError, TrustError
from edge.model import bundle as bundles
from edge.model import strict, trust
from edge.model.bundle import FileEntry, Manifest

_CURRENT_TYPE, _DEVICE_TYPE, _FORMAT = "fieldmark-current", "fieldmark-device", 1
_DIGEST, _DEVICE_ID = r"[0-9a-f]{64}", r"[0-9a-f]{16}"
_MAX_STATE_BYTES = 64 * 2**10
_INCOMING, _ASIDE = ".incoming-", ".damaged-"
_SPARE_BYTES = 16 * 2**20
"""Left free on the card when a bundle is unpacked, for the log beside it."""

Check = Callable[[Path, Manifest], str]
"""Tries an unpacked bundle in its folder; the name of the runtime, or a FieldmarkError."""
Step = Callable[[str], None]
"""Told of each finished step of an installation: :data:`STEPS`."""

STEPS = ("verified", "locked", "prepared", "unpacked", "checked", "trusted", "named", "placed", "switched")


@dataclass(frozen=True)
class Layout:
    """Where things lie below a device root."""

    root: Path

    @property
    def etc(self) -> Path:
        """The folder of what an owner sets."""
        return self.root / "etc" / "fieldmark"

    @property
    def state(self) -> Path:
        """The folder of what the device keeps."""
        return self.root / "var" / "lib" / "fieldmark"

    @property
    def trust_root(self) -> Path:
        """The enrolled root file."""
        return self.etc / "root.json"

    @property
    def slots(self) -> Path:
        """The folder of the slots."""
        return self.state / "slots"

    @property
    def current(self) -> Path:
        """The file that names the current slot."""
        return self.state / "current"

    @property
    def device(self) -> Path:
        """The file with the device's id."""
        return self.state / "device.json"

    @property
    def lock(self) -> Path:
        """The installation lock."""
        return self.state / "lock"


@dataclass(frozen=True)
class Installed:
    """What an installation did.

    Attributes:
        changed: False where this bundle was current already, and nothing was written.
        previous: the bundle digest that was current before, if any.
        older: whether a bundle of this name with a higher sequence was current before.
        enrolled: whether the device learned here whom to trust.
        development: whether its trust is a development key.
        key_id: the key that signed the bundle.
        runtime: the one that answered the golden photos; None where nothing changed.
        device: the device's id.
    """

    path: Path
    digest: str
    name: str
    sequence: int
    version: str
    changed: bool
    previous: str | None
    older: bool
    enrolled: bool
    development: bool
    key_id: str
    runtime: str | None
    device: str


@dataclass(frozen=True)
class Slot:
    """The bundle that a device runs, its signature and its model checked again.

    Attributes:
        path: the slot's folder.
        digest: the bundle digest.
        model_path: the ``.tflite``.
        model_digest: its SHA-256.
        development: whether the device trusts a development key.
        installed: when it became current, ISO 8601 with offset.
    """

    path: Path
    manifest: Manifest
    digest: str
    model_path: Path
    model_digest: str
    development: bool
    installed: str


@dataclass(frozen=True)
class _Current:
    digest: str
    name: str
    sequence: int
    installed: str


# --- reading


def current(root: Path) -> Slot:
    """The current bundle, safe to run.

    Args:
        root: the device root.

    Raises:
        DeviceError: with code ``no bundle`` where none is installed, ``root`` where the enrolled trust is missing or
            damaged, ``damaged`` where the slot is not what was installed: install the bundle again.
    """
    layout = Layout(root)
    named = _read_current(layout)
    if named is None:
        raise DeviceError(f"{root} holds no bundle. Run: fieldmark flash FILE.fmb {root}", code="no bundle")
    trusted = _enrolled(layout)
    if trusted is None:
        raise DeviceError(f"{layout.trust_root} is missing; install with --trust ROOT.json.", code="root")
    slot = layout.slots / named.digest
    try:
        manifest = _verify_slot(slot, named.digest, trusted)
        _check_content(slot, manifest.model)
    except (FieldmarkError, OSError) as error:
        raise DeviceError(
            f"bundle {named.name} {named.sequence} is damaged in its slot: {error} Install it again.", code="damaged"
        ) from error
    model = slot / bundles.MODEL
    return Slot(slot, manifest, named.digest, model, manifest.model.sha256, trusted.development, named.installed)


def device_id(root: Path) -> str:
    """The device's id, 16 hex digits, made at its first installation.

    Raises:
        DeviceError: with code ``no device`` where nothing was installed yet, ``device`` where the file is damaged.
    """
    path = Layout(root).device
    data = _read_state(path)
    if data is None:
        raise DeviceError(f"{root} is no device yet. Run: fieldmark flash FILE.fmb {root}", code="no device")
    fields = strict.load(data, strict.Refusal(DeviceError, str(path)), most_bytes=_MAX_STATE_BYTES)
    fields.exactly("type", _DEVICE_TYPE, "device")
    fields.exactly("format", _FORMAT, "device")
    found = fields.text("id", pattern=_DEVICE_ID)
    fields.done()
    return found


# --- installing


def install(
    root: Path,
    bundle: Path,
    *,
    trust_root: Path | None = None,
    check: Check | None = None,
    step: Step = lambda name: None,
) -> Installed:
    """Install a bundle and make it current.

    A root that holds nothing yet is enrolled: with ``trust_root``, else with the root that the bundle carries
    (presence at the device is the trust). Installing the current bundle again changes nothing, unless its slot is
    damaged, which this repairs.

    Args:
        root: the device root, a folder; made where only its last part is missing.
        bundle: the ``.fmb`` file.
        trust_root: a root file to enrol a device with that is not enrolled.
        check: tries the unpacked bundle; :func:`edge.model.golden.check` if None.
        step: told each of :data:`STEPS` when it is done; raising in it stops there.

    Raises:
        BundleError: the bundle is malformed or altered.
        TrustError: it is signed by nobody whom this device trusts.
        ModelError: the model does not answer its golden photos here as it did on the workstation.
        DeviceError: with code ``no root``, ``not enrolled``, ``busy``, ``space``, ``disk``, or ``root``.
    """
    layout = Layout(root)
    if not root.is_dir() and not root.resolve().parent.is_dir():
        raise DeviceError(f"{root} is not there, nor the folder above it. Is the card mounted?", code="no root")
    if root.exists() and not root.is_dir():
        raise DeviceError(f"{root} is not a folder. Name a device root.", code="no root")
    try:
        with bundles.open_stream(bundle) as stream:
            head = bundles.read_head(stream, bundle.name)
            _trust(layout, head, trust_root, bundle.name)  # refused bundles end here, before anything is written
            step("verified")
            with _Writing(layout) as writing:
                step("locked")
                return _install(writing, stream, head, trust_root, bundle.name, check or _check_golden, step)
    except OSError as error:
        code = "space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "disk"
        raise DeviceError(f"{error.filename or root} cannot be written: {error.strerror}.", code=code) from error


class _Writing:
    """The lock, and everything made on the way that a refusal must take away again.

    ``keep`` is set once the device is enrolled: from there on what is on the disk is whole.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.keep = False
        self._made: list[Path] = []
        self._incoming: Path | None = None
        self._lock = -1
        self._umask = -1

    def __enter__(self) -> _Writing:
        self._umask = os.umask(0o022)  # root's may be strict, and the agent, another user, must read what is installed
        try:
            self._folder(self.layout.state)
            self._take_lock()
        except BaseException:
            self._undo()
            os.umask(self._umask)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._incoming is not None:
            shutil.rmtree(self._incoming, ignore_errors=True)
        if not self.keep:
            self._undo()
        os.close(self._lock)
        os.umask(self._umask)

    def prepare(self) -> Path:
        """Folders for the slots and for the one that comes in, after sweeping away what a cut left."""
        self._folder(self.layout.etc)
        self._folder(self.layout.slots)
        for left in self.layout.slots.iterdir():
            if left.name.startswith((_INCOMING, _ASIDE)):
                shutil.rmtree(left)
        self._incoming = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self.layout.slots))
        return self._incoming

    def _folder(self, folder: Path) -> None:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            try:
                path.mkdir(mode=0o755)
            except FileExistsError:
                continue  # another installation was first; it takes the folder away again if it must
            self._made.append(path)
            durable.sync_folder(path.parent)

    def _take_lock(self) -> None:
        path = self.layout.lock
        made = not path.exists()
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have taken its lock file away with the folder; then this lock guards nothing.
            if os.fstat(self._lock).st_nlink == 0:
                raise BlockingIOError
        except BlockingIOError as error:
            os.close(self._lock)
            raise DeviceError(
                f"another installation into {self.layout.root} is running. Wait for it, then try again.", code="busy"
            ) from error
        if made:
            self._made.append(path)

    def _undo(self) -> None:
        for path in reversed(self._made):
            with suppress(OSError):  # not empty: somebody else put something there meanwhile
                path.rmdir() if path.is_dir() else path.unlink()


def _install(
    writing: _Writing,
    stream: BinaryIO,
    head: bundles.Head,
    trust_root: Path | None,
    where: str,
    check: Check,
    step: Step,
) -> Installed:
    """What happens under the lock."""
    layout = writing.layout
    verified, enrols = _trust(layout, head, trust_root, where)  # again: another installation may have enrolled it
    before = _read_current_or_none(layout)
    slot = layout.slots / verified.digest
    whole = _is_whole(slot, verified)
    if whole and before is not None and before.digest == verified.digest and layout.device.exists() and not enrols:
        bundles.copy_payload(stream, head, verified.manifest, _nowhere, where)
        return _installed(layout, verified, before, changed=False, enrolled=False, runtime=None)
    incoming = writing.prepare()
    step("prepared")
    _unpack(stream, head, verified.manifest, incoming, where)
    step("unpacked")
    runtime = check(incoming, verified.manifest)
    step("checked")
    writing.keep = True
    if enrols:
        # Before the slot is placed: a cut in between must not leave a root that holds something and trusts nobody.
        durable.write_file(layout.trust_root, verified.root.data)
    step("trusted")
    if not layout.device.exists():
        durable.write_file(layout.device, _device_file())
    step("named")
    if not whole:
        _place(incoming, slot)
    step("placed")
    _switch(layout, verified)
    step("switched")
    return _installed(layout, verified, before, changed=True, enrolled=enrols, runtime=runtime)


def _trust(layout: Layout, head: bundles.Head, trust_root: Path | None, where: str) -> tuple[bundles.Verified, bool]:
    """Verify a head by what this device trusts, and say whether the device is to be enrolled with it."""
    named = trust.read_root(trust_root) if trust_root else None
    enrolled = _enrolled(layout)
    if enrolled is None:
        if named is None and not _is_blank(layout):
            raise DeviceError(
                f"{layout.root} holds something but no {layout.trust_root.name}: it never takes its trust from a "
                "bundle. Name the root to trust with --trust ROOT.json.",
                code="not enrolled",
            )
        return bundles.verify(head, named, where), True
    if named is not None and named.data != enrolled.data:
        raise TrustError(
            f"{layout.root} is enrolled with another root (release key {', '.join(enrolled.release_keys)}). "
            "Leave --trust out, or use an empty root.",
            code="other root",
        )
    return bundles.verify(head, enrolled, where), False


def _unpack(stream: BinaryIO, head: bundles.Head, manifest: Manifest, incoming: Path, where: str) -> None:
    """Write a bundle's files into ``incoming``, each synced, then the folders."""
    needed = sum(entry.length_bytes for entry in manifest.files) + _SPARE_BYTES
    free = shutil.disk_usage(incoming).free
    if free < needed:
        raise DeviceError(
            f"{incoming.parent} has {free // 2**20} MiB free, the bundle needs {needed // 2**20}. Free some space.",
            code="space",
        )
    for name, data in ((bundles.MANIFEST, head.manifest), (bundles.SIGNATURE, head.signature)):
        with durable.create(incoming / name) as file:
            file.write(data)

    @contextmanager
    def create(entry: FileEntry) -> Iterator[BinaryIO]:
        path = incoming / entry.path
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with durable.create(path) as file:
            yield file

    bundles.copy_payload(stream, head, manifest, create, where)
    incoming.chmod(0o755)  # mkdtemp made it private; the agent may run as another user
    for folder in {(incoming / entry.path).parent for entry in manifest.files} | {incoming}:
        durable.sync_folder(folder)


def _place(incoming: Path, slot: Path) -> None:
    """Rename the unpacked bundle into its slot. A damaged one in its place is set aside first."""
    if slot.exists():
        slot.rename(slot.with_name(_ASIDE + secrets.token_hex(8)))
    incoming.rename(slot)
    durable.sync_folder(slot.parent)
    for aside in slot.parent.glob(f"{_ASIDE}*"):
        shutil.rmtree(aside, ignore_errors=True)


def _switch(layout: Layout, verified: bundles.Verified) -> None:
    """Make the slot current, and read back that it is."""
    data = strict.dump(
        {
            "type": _CURRENT_TYPE,
            "format": _FORMAT,
            "digest": verified.digest,
            "name": verified.manifest.name,
            "sequence": verified.manifest.sequence,
            "installed": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    durable.write_file(layout.current, data)
    if _read_state(layout.current) != data:
        raise DeviceError(f"{layout.current} does not read back as written. Replace the card.", code="disk")


def _installed(
    layout: Layout,
    verified: bundles.Verified,
    before: _Current | None,
    *,
    changed: bool,
    enrolled: bool,
    runtime: str | None,
) -> Installed:
    manifest = verified.manifest
    return Installed(
        path=layout.slots / verified.digest,
        digest=verified.digest,
        name=manifest.name,
        sequence=manifest.sequence,
        version=manifest.version,
        changed=changed,
        previous=before.digest if before else None,
        older=before is not None and before.name == manifest.name and before.sequence > manifest.sequence,
        enrolled=enrolled,
        development=verified.root.development,
        key_id=verified.key_id,
        runtime=runtime,
        device=device_id(layout.root),
    )


# --- small parts


def _read_current(layout: Layout) -> _Current | None:
    """Which slot is current; None where none is."""
    data = _read_state(layout.current)
    if data is None:
        return None
    refuse = strict.Refusal(DeviceError, f"{layout.current} is damaged, install again")
    fields = strict.load(data, refuse, most_bytes=_MAX_STATE_BYTES)
    fields.exactly("type", _CURRENT_TYPE, "damaged")
    fields.exactly("format", _FORMAT, "damaged")
    found = _Current(
        digest=fields.text("digest", pattern=_DIGEST),
        name=fields.text("name", pattern=bundles.NAME),
        sequence=fields.integer("sequence", 1),
        installed=fields.text("installed"),
    )
    fields.done()
    return found


def _read_current_or_none(layout: Layout) -> _Current | None:
    """For an installation: it puts a damaged ``current`` right."""
    try:
        return _read_current(layout)
    except DeviceError:
        return None


def _read_state(path: Path) -> bytes | None:
    """A small file of the device root; None where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_STATE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DeviceError(f"{path} cannot be read: {error.strerror}.", code="disk") from error


def _enrolled(layout: Layout) -> trust.Root | None:
    """Whom the device trusts; None where it is not enrolled."""
    data = _read_state(layout.trust_root)
    if data is None:
        return None
    try:
        return trust.parse_root(data, str(layout.trust_root))
    except TrustError as error:
        raise DeviceError(f"{error} Put back the root file that this device was enrolled with.", code="root") from error


def _is_blank(layout: Layout) -> bool:
    """Whether the root holds nothing yet, but for what a cut left of a first installation that enrolled nobody."""
    slots = _names(layout.slots)
    return (
        _names(layout.etc) <= {durable.aside(layout.trust_root).name}
        and _names(layout.state) <= {layout.lock.name, layout.slots.name}
        and all(name.startswith(_INCOMING) for name in slots)
    )


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return set()


def _verify_slot(slot: Path, digest: str, trusted: trust.Root) -> Manifest:
    """The slot's manifest, its signature checked again."""
    data = _read_capped(slot / bundles.MANIFEST, bundles.MAX_MANIFEST_BYTES)
    if bundles.bundle_digest(data) != digest:
        raise BundleError(f"{slot.name} holds another manifest.", code="digest")
    signature = _read_capped(slot / bundles.SIGNATURE, trust.MAX_SIGNATURE_BYTES)
    head = bundles.Head(data, signature, {}, b"")
    return bundles.verify(head, trusted, slot.name).manifest


def _check_content(slot: Path, entry: FileEntry) -> None:
    digest = hashlib.sha256()
    with (slot / entry.path).open("rb") as file:
        if os.fstat(file.fileno()).st_size != entry.length_bytes:
            raise BundleError(f"{entry.path} has another size than the manifest says.", code="size")
        while chunk := file.read(2**20):
            digest.update(chunk)
    if digest.hexdigest() != entry.sha256:
        raise BundleError(f"{entry.path} has another content than the manifest says.", code="digest")


def _is_whole(slot: Path, verified: bundles.Verified) -> bool:
    """Whether this very bundle already lies in its slot, undamaged."""
    try:
        manifest = _verify_slot(slot, verified.digest, verified.root)
        for entry in manifest.files:
            _check_content(slot, entry)
    except (FieldmarkError, OSError):
        return False
    return True


def _read_capped(path: Path, most_bytes: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most_bytes + 1)  # the parsers refuse what is longer


def _device_file() -> bytes:
    return strict.dump({"type": _DEVICE_TYPE, "format": _FORMAT, "id": secrets.token_hex(8)})


def _check_golden(folder: Path, manifest: Manifest) -> str:
    from edge.model import golden  # the agent needs this module's other half only

    return golden.check(folder, manifest)


@contextmanager
def _nowhere(entry: FileEntry) -> Iterator[BinaryIO]:
    """Takes a file's content and keeps nothing."""
    with open(os.devnull, "wb") as sink:
        yield sink
