"""The bundle: one file that holds a model, what it must see and say, and the proof of where it came from.

Owns the manifest, what stands in the file in which order, writing and strict reading. Reading takes one member at a
time, and never uses a byte of the payload, nor parses the manifest, before the signature holds. Never writes to the
disk while reading: it hands content to the caller.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from edge import durable
from edge.errors import BundleError, ConfigError, TrustError
from edge.model import archive, strict, trust
from edge.model.runtime import KERNELS
from edge.model.spec import MAX_SIDE, InputSpec

TYPE, FORMAT = "fieldmark-bundle", 2
VARIANTS = ("int8", "dynamic", "float16", "float32")
MANIFEST, SIGNATURE, MODEL = "manifest.json", "manifest.json.minisig", "model.tflite"
SUFFIX = ".fmb"

MAX_MANIFEST_BYTES = 2**20
MAX_FILE_BYTES = 512 * 2**20
MAX_PAYLOAD_BYTES = 2**30
MAX_FILES = 256
MAX_LABELS = 10_000
MAX_ROOTS = 64
MAX_ROOT_SIGNATURES = 32
MAX_GOLDEN = 64

NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
_DIGEST = r"[0-9a-f]{64}"
_VERSION = r"[0-9][0-9A-Za-z.+_-]*"
_CREATED = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)"
_KEY = r"[a-z][a-z0-9_]{0,63}"
_METRIC = r"[a-z][a-z0-9_.@-]{0,63}"
_OP = r"[A-Z][A-Z0-9_]{0,63}"


@dataclass(frozen=True)
class Label:
    """What the model can say.

    Attributes:
        name: as the data set spells it; unique in the bundle.
        scientific_name, rank, taxon_id: the taxon, where it is one: ``Vulpes vulpes``, ``species``, an identifier.
        english: the English name.
        genus, family, order, taxon_class: the taxa above it, as far as known; the class of ``Vulpes`` is ``Mammalia``.
        animal: whether it is one. An unsure answer is rolled up to ``animal`` from these labels alone.
    """

    name: str
    scientific_name: str | None = None
    rank: str | None = None
    taxon_id: str | None = None
    english: str | None = None
    genus: str | None = None
    family: str | None = None
    order: str | None = None
    taxon_class: str | None = None
    animal: bool = False


@dataclass(frozen=True)
class RuntimePass:
    """A runtime on which the model passed the gate.

    Attributes:
        name: as in :data:`edge.model.runtime.NAMES`.
        version_min, version_below: the range it is taken to hold for, the upper end excluded.
        architecture, kernels: where it was proven: ``x86_64`` or ``aarch64``, ``default`` or ``reference``.
        n: held-out photos behind the accuracies; 0 where none were held out.
        accuracy, accuracy_float: share of right answers on those, of this model and of the float model, 0 to 1.
        n_agreement: photos behind the agreement.
        agreement: share of their answers equal to the float model's, 0 to 1.
    """

    name: str
    version_min: str
    version_below: str
    architecture: str
    kernels: str
    n: int
    accuracy: float
    accuracy_float: float
    n_agreement: int
    agreement: float


@dataclass(frozen=True)
class Golden:
    """A photo that the model must answer as it did on the workstation.

    Attributes:
        file: among the bundle's files, a lossless RGB PNG of input size, or an original JPEG, which also tries the
            decoder.
        label: the label with the largest logit.
        logits: float, one per label.
        tolerance: how far each logit may differ on another machine.
    """

    file: str
    label: str
    logits: tuple[float, ...]
    tolerance: float


@dataclass(frozen=True)
class FileEntry:
    """A payload file: path in the bundle, length, SHA-256 in hex."""

    path: str
    length_bytes: int
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """Where the model came from.

    Attributes:
        dataset_digest: SHA-256 in hex over the training data.
        split: how the data was divided, in words.
        metrics: name to number.
        commit: of the code that trained it, where known.
        conversion: how the ``.tflite`` was made, in words.
        weights_licence: of the pretrained weights.
        data_licence: of the photos, where known.
        backbone: name of the network.
        trained_with: library and version.
    """

    dataset_digest: str
    split: str
    metrics: dict[str, float]
    commit: str | None
    conversion: str
    weights_licence: str
    data_licence: str | None
    backbone: str
    trained_with: str


@dataclass(frozen=True)
class Manifest:
    """Everything that a bundle says of itself; the signed thing is its exact bytes.

    Attributes:
        name: ``[a-z0-9][a-z0-9._-]{0,63}``.
        sequence: grows with every newer bundle of that name, at least 1.
        version: for people.
        created: the run's end, ISO 8601 with offset.
        labels: C of them, in the order of the logits.
        temperature, thresholds, rollup: for :func:`edge.model.decide.decide`; no roll-up where None.
        variant: one of :data:`VARIANTS`.
        gate_limits: what the gate let pass, by name.
        golden_mean_tolerance: how far the logits of all golden photos may differ on average: a small fault in every
            photo is seen by it that no single photo shows.
        ram_mib: what the model needs to run.
        op_versions: TFLite operator to the highest version used.
        health: rule to number, such as ``max_failed_share``.
        files: the payload in its order in the file, ``model.tflite`` among it.
    """

    name: str
    sequence: int
    version: str
    created: str
    labels: tuple[Label, ...]
    input: InputSpec
    temperature: float
    thresholds: tuple[float, ...]
    rollup: float | None
    variant: str
    gate_limits: dict[str, float]
    runtimes: tuple[RuntimePass, ...]
    op_versions: dict[str, int]
    ram_mib: int
    golden: tuple[Golden, ...]
    golden_mean_tolerance: float
    health: dict[str, float]
    provenance: Provenance
    files: tuple[FileEntry, ...]
    type: str = TYPE
    format: int = FORMAT

    @property
    def model(self) -> FileEntry:
        """The entry of ``model.tflite``; its ``sha256`` is the model digest."""
        return next(entry for entry in self.files if entry.path == MODEL)

    def content(self) -> dict[str, object]:
        """The manifest as JSON objects, keys in the order in which they are written."""
        return {
            "type": self.type,
            "format": self.format,
            "name": self.name,
            "sequence": self.sequence,
            "version": self.version,
            "created": self.created,
            "labels": [asdict(label) for label in self.labels],
            "input": asdict(self.input),
            "temperature": self.temperature,
            "thresholds": list(self.thresholds),
            "rollup": self.rollup,
            "variant": self.variant,
            "gate_limits": dict(sorted(self.gate_limits.items())),
            "runtimes": [asdict(runtime) for runtime in self.runtimes],
            "op_versions": dict(sorted(self.op_versions.items())),
            "ram_mib": self.ram_mib,
            "golden": [asdict(golden) for golden in self.golden],
            "golden_mean_tolerance": self.golden_mean_tolerance,
            "health": dict(sorted(self.health.items())),
            "provenance": asdict(self.provenance) | {"metrics": dict(sorted(self.provenance.metrics.items()))},
            "files": [asdict(entry) for entry in self.files],
        }


# --- the manifest


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest's one form on disk: the same manifest gives the same bytes.

    Raises:
        BundleError: with code ``json`` where a value is no plain number or text, such as NaN or a numpy number.
    """
    try:
        return strict.dump(manifest.content())
    except (TypeError, ValueError) as error:
        raise BundleError(
            f"the manifest of {manifest.name} cannot be written as JSON: {error}.", code="json"
        ) from error


def bundle_digest(manifest: bytes) -> str:
    """The bundle digest: SHA-256 of the manifest's exact bytes, hex."""
    return hashlib.sha256(manifest).hexdigest()


def parse_manifest(data: bytes, where: str = MANIFEST) -> Manifest:
    """Read a manifest strictly.

    Args:
        data: its exact bytes, whose signature holds.
        where: the file's name for messages.

    Raises:
        BundleError: what is wrong, with the codes of :mod:`edge.model.strict`, or ``created``, ``labels``, ``input``,
            ``thresholds``, ``runtimes``, ``golden`` or ``files``.
    """
    refuse = strict.Refusal(BundleError, where)
    fields = strict.load(data, refuse, most_bytes=MAX_MANIFEST_BYTES)
    fields.exactly("type", TYPE, "type")
    fields.exactly("format", FORMAT, "format")
    manifest = Manifest(
        name=fields.text("name", pattern=NAME),
        sequence=fields.integer("sequence", 1),
        version=fields.text("version", longest=64),
        created=fields.text("created", pattern=_CREATED),
        labels=fields.each("labels", _read_label, least=2, most=MAX_LABELS),
        input=_read_input(fields.inner("input")),
        temperature=fields.number("temperature", 0.001, 1000),
        thresholds=fields.numbers("thresholds", 0, 1, most=MAX_LABELS),
        rollup=fields.number_or_none("rollup", 0, 1),
        variant=fields.text("variant", pattern="|".join(VARIANTS)),
        gate_limits=fields.number_map("gate_limits", -1e9, 1e9, most=64, pattern=_KEY),
        runtimes=fields.each("runtimes", _read_runtime, most=16),
        op_versions=fields.integer_map("op_versions", 1, 1000, most=512, pattern=_OP),
        ram_mib=fields.integer("ram_mib", 1, 2**20),
        golden=fields.each("golden", _read_golden, least=1, most=MAX_GOLDEN),
        golden_mean_tolerance=fields.number("golden_mean_tolerance", 0, 1e6),
        health=fields.number_map("health", -1e9, 1e9, most=64, pattern=_KEY),
        provenance=_read_provenance(fields.inner("provenance")),
        files=fields.each("files", _read_file, least=1, most=MAX_FILES),
    )
    fields.done()
    _check_labels(manifest, refuse)
    _check_files(manifest, refuse)
    _check_golden(manifest, refuse)
    return manifest


def _read_label(fields: strict.Fields) -> Label:
    return Label(
        name=fields.text("name", longest=100),
        scientific_name=fields.text_or_none("scientific_name"),
        rank=fields.text_or_none("rank", longest=40),
        taxon_id=fields.text_or_none("taxon_id"),
        english=fields.text_or_none("english"),
        genus=fields.text_or_none("genus"),
        family=fields.text_or_none("family"),
        order=fields.text_or_none("order"),
        taxon_class=fields.text_or_none("taxon_class"),
        animal=fields.boolean("animal"),
    )


def _read_input(fields: strict.Fields) -> InputSpec:
    try:
        spec = InputSpec(
            height=fields.integer("height", 1, MAX_SIDE),
            width=fields.integer("width", 1, MAX_SIDE),
            resample=fields.text("resample", longest=20),
            aspect=fields.text("aspect", longest=20),
            cut_top=fields.integer("cut_top", 0),
            cut_bottom=fields.integer("cut_bottom", 0),
        )
    except ConfigError as error:
        raise fields.refuse(str(error), "input") from error
    fields.done()
    return spec


def _read_runtime(fields: strict.Fields) -> RuntimePass:
    return RuntimePass(
        name=fields.text("name", longest=64, pattern=r"[a-z][a-z0-9_]*"),
        version_min=fields.text("version_min", longest=40, pattern=_VERSION),
        version_below=fields.text("version_below", longest=40, pattern=_VERSION),
        architecture=fields.text("architecture", longest=40, pattern=r"[a-z][a-z0-9_]*"),
        kernels=fields.text("kernels", pattern="|".join(KERNELS)),
        n=fields.integer("n", 0),
        accuracy=fields.number("accuracy", 0, 1),
        accuracy_float=fields.number("accuracy_float", 0, 1),
        n_agreement=fields.integer("n_agreement", 1),
        agreement=fields.number("agreement", 0, 1),
    )


def _read_golden(fields: strict.Fields) -> Golden:
    return Golden(
        file=fields.text("file", longest=archive.LONGEST_PATH, pattern=archive.PATH),
        label=fields.text("label", longest=100),
        logits=fields.numbers("logits", -1e6, 1e6, most=MAX_LABELS),
        tolerance=fields.number("tolerance", 0, 1e6),
    )


def _read_provenance(fields: strict.Fields) -> Provenance:
    provenance = Provenance(
        dataset_digest=fields.text("dataset_digest", pattern=_DIGEST),
        split=fields.text("split"),
        metrics=fields.number_map("metrics", -1e12, 1e12, most=1000, pattern=_METRIC),
        commit=fields.text_or_none("commit", longest=80),
        conversion=fields.text("conversion"),
        weights_licence=fields.text("weights_licence"),
        data_licence=fields.text_or_none("data_licence"),
        backbone=fields.text("backbone", longest=100),
        trained_with=fields.text("trained_with"),
    )
    fields.done()
    return provenance


def _read_file(fields: strict.Fields) -> FileEntry:
    return FileEntry(
        path=fields.text("path", longest=archive.LONGEST_PATH, pattern=archive.PATH),
        length_bytes=fields.integer("length_bytes", 1, MAX_FILE_BYTES),
        sha256=fields.text("sha256", pattern=_DIGEST),
    )


def _check_labels(manifest: Manifest, refuse: strict.Refusal) -> None:
    try:
        datetime.fromisoformat(manifest.created)
    except ValueError as error:
        raise refuse(f"created is {manifest.created}, which is no date.", "created") from error
    names = [label.name for label in manifest.labels]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise refuse(f"the label {twice!r} is there twice.", "labels")
    if len(manifest.thresholds) != len(names):
        raise refuse(f"{len(manifest.thresholds)} thresholds for {len(names)} labels.", "thresholds")
    rows = {(entry.name, entry.version_min, entry.architecture, entry.kernels) for entry in manifest.runtimes}
    if len(rows) != len(manifest.runtimes):
        raise refuse("one runtime is there twice with the same version_min, architecture and kernels.", "runtimes")


def _check_files(manifest: Manifest, refuse: strict.Refusal) -> None:
    # Folded case: a card formatted as FAT would write the second file over the first.
    paths = [entry.path.casefold() for entry in manifest.files]
    if len(set(paths)) != len(paths):
        raise refuse("two files have the same path but for upper and lower case.", "files")
    folders = {str(parent) for path in paths for parent in Path(path).parents}
    for path in paths:
        if path in folders or path.split("/")[0] in (MANIFEST, SIGNATURE, "roots"):
            raise refuse(f"the path {path} has another use.", "files")
    if [entry.path for entry in manifest.files if entry.path.casefold().endswith(".tflite")] != [MODEL]:
        raise refuse(f"files must hold {MODEL} and no other .tflite.", "files")
    total = sum(entry.length_bytes for entry in manifest.files)
    if total > MAX_PAYLOAD_BYTES:
        raise refuse(f"the files have {total} bytes together, at most {MAX_PAYLOAD_BYTES} are read.", "files")


def _check_golden(manifest: Manifest, refuse: strict.Refusal) -> None:
    paths = {entry.path for entry in manifest.files} - {MODEL}
    names = [label.name for label in manifest.labels]
    for golden in manifest.golden:
        if golden.file not in paths:
            raise refuse(f"the golden photo {golden.file} is not among the files.", "golden")
        if len(golden.logits) != len(names):
            raise refuse(f"golden photo {golden.file}: {len(golden.logits)} logits for {len(names)} labels.", "golden")
        best = names[max(range(len(names)), key=golden.logits.__getitem__)]
        if golden.label != best:
            raise refuse(f"golden photo {golden.file}: label {golden.label!r}, its logits say {best!r}.", "golden")
    if len({golden.file for golden in manifest.golden}) != len(manifest.golden):
        raise refuse("one golden photo is there twice.", "golden")


# --- the file


@dataclass(frozen=True)
class Head:
    """What stands before the payload, well-formed and not yet believed.

    Attributes:
        manifest: the exact signed bytes.
        signature: of the manifest.
        roots: by version, ascending.
        pending: the block after them, already read from the stream.
    """

    manifest: bytes
    signature: bytes
    roots: Mapping[int, trust.SignedRoot]
    pending: bytes


@dataclass(frozen=True)
class Verified:
    """A manifest whose signature holds.

    Attributes:
        digest: the bundle digest.
        root: the root that was trusted for it.
        key_id: the release key that signed it.
    """

    manifest: Manifest
    digest: str
    root: trust.Root
    key_id: str


@dataclass(frozen=True)
class Opened:
    """A whole verified bundle in memory, on a workstation.

    Attributes:
        head: as it stood in the file.
        files: every payload file's content by path.
    """

    manifest: Manifest
    digest: str
    root: trust.Root
    key_id: str
    head: Head
    files: Mapping[str, bytes]

    @property
    def model(self) -> bytes:
        """The ``.tflite``."""
        return self.files[MODEL]


def open_bundle(path: Path, root: trust.Root | None = None) -> Opened:
    """Read and verify a whole bundle into memory.

    Args:
        path: the ``.fmb`` file.
        root: whom to trust. None trusts the root that the bundle itself carries: that proves that the bundle is
            whole, not who made it.

    Raises:
        BundleError: the file is malformed, incomplete or altered.
        TrustError: a signature does not hold, or is not of a key that ``root`` trusts.
    """
    kept: dict[str, io.BytesIO] = {}

    @contextmanager
    def keep(entry: FileEntry) -> Iterator[archive.Sink]:
        kept[entry.path] = io.BytesIO()
        yield kept[entry.path]

    with open_stream(path) as stream:
        head = read_head(stream, path.name)
        verified = verify(head, root, path.name)
        copy_payload(stream, head, verified.manifest, keep, path.name)
    files = {name: buffer.getvalue() for name, buffer in kept.items()}
    return Opened(verified.manifest, verified.digest, verified.root, verified.key_id, head, files)


@contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """Open a bundle for reading.

    Raises:
        BundleError: with code ``missing`` or ``unreadable``.
    """
    try:
        # O_NONBLOCK: a named pipe must not hang an unattended install.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        code = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        raise BundleError(f"{path} cannot be read: {error.strerror}. Name a {SUFFIX} file.", code=code) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleError(f"{path} is not a regular file. Name a {SUFFIX} file.", code="unreadable")
    with open(descriptor, "rb") as stream:
        yield stream


def read_head(stream: BinaryIO, where: str) -> Head:
    """Read manifest, signature and roots, and nothing of the payload's content.

    Raises:
        BundleError: with code ``truncated``, ``missing member``, ``duplicate member``, ``order``, ``path``, ``link``,
            ``device``, ``kind``, ``header``, ``too large``, ``padding`` or ``unreadable``.
    """
    reader = archive.Reader(stream, where)
    manifest = reader.whole(MANIFEST, MAX_MANIFEST_BYTES)
    signature = reader.whole(SIGNATURE, trust.MAX_SIGNATURE_BYTES)
    return Head(manifest, signature, _read_roots(reader), reader.block)


def verify(head: Head, root: trust.Root | None, where: str) -> Verified:
    """Check a head's signatures and read its manifest. No I/O.

    Args:
        head: from :func:`read_head`.
        root: whom to trust; None trusts the root in the bundle.

    Raises:
        TrustError: with code ``no root``, ``other root`` (the bundle carries a root of the trusted one's version and
            other content), or as :mod:`edge.model.trust` says.
        BundleError: the manifest is not in the form.
    """
    own = _own_root(head, where)
    trusted = root or own
    if trusted is None:
        raise TrustError(f"{where} carries no root. Name the one to trust with --trust ROOT.json.", code="no root")
    signature = trust.verify_release(trusted, head.manifest, head.signature, where)
    if own is not None and own.version == trusted.version and own.data != trusted.data:
        raise TrustError(
            f"{where} carries another root of version {own.version} than the trusted one. "
            "Use a bundle as its maker wrote it.",
            code="other root",
        )
    manifest = parse_manifest(head.manifest, where)
    trust.check_comment(signature, trust.bundle_comment(manifest.name, manifest.sequence), where)
    return Verified(manifest, bundle_digest(head.manifest), trusted, signature.key_id)


def copy_payload(
    stream: BinaryIO,
    head: Head,
    manifest: Manifest,
    create: Callable[[FileEntry], AbstractContextManager[archive.Sink]],
    where: str,
) -> None:
    """Copy the payload out of the stream, checking every bit up to the end of the file.

    Args:
        stream: where :func:`read_head` left it.
        head: what it gave.
        manifest: verified by :func:`verify`. Paths come from it, never from the stream.
        create: opens the place for one file. What it took is worth nothing if this function raises.
        where: the bundle's name for messages.

    Raises:
        BundleError: with the codes of :func:`read_head`, or ``size``, ``digest``, ``extra member`` or ``trailing``.
    """
    reader = archive.Reader(stream, where, head.pending, {entry.path for entry in manifest.files})
    for entry in manifest.files:
        with create(entry) as sink:
            digest = reader.copy(entry.path, entry.length_bytes, sink)
        if digest != entry.sha256:
            raise BundleError(
                f"bundle {where}: {entry.path} has another content than the manifest says. Copy the bundle again.",
                code="digest",
            )
    reader.end()


def _read_roots(reader: archive.Reader) -> dict[int, trust.SignedRoot]:
    """``roots/N.json``, each with its signatures, as long as there are any."""
    found: dict[int, trust.SignedRoot] = {}
    while len(found) < MAX_ROOTS and (match := re.fullmatch(r"roots/([1-9][0-9]{0,5})\.json", reader.next_name())):
        version = int(match[1])
        if found and version != max(found) + 1:
            break  # out of order: the payload's first file is expected here, and will not be found
        data = reader.whole(match[0], trust.MAX_ROOT_BYTES)
        found[version] = trust.SignedRoot(data, _read_root_signatures(reader, version))
    return found


def _read_root_signatures(reader: archive.Reader, version: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    pattern = rf"roots/{version}\.({trust.KEY_ID})\.minisig"
    # Nothing here is believed yet, so there is an end to what is kept of it.
    while len(found) < MAX_ROOT_SIGNATURES and (match := re.fullmatch(pattern, reader.next_name())):
        if found and match[1] <= max(found):
            break
        found[match[1]] = reader.whole(match[0], trust.MAX_SIGNATURE_BYTES)
    return found


def _own_root(head: Head, where: str) -> trust.Root | None:
    """The root in the bundle. Each one must hold, and :func:`edge.model.trust.verify_root` refuses later versions."""
    roots = []
    for version, signed in head.roots.items():
        root = trust.verify_root(signed, f"{where} roots/{version}.json")
        if root.version != version:
            raise TrustError(f"{where}: roots/{version}.json says version {root.version}.", code="root version")
        roots.append(root)
    return roots[-1] if roots else None


# --- writing


def file_entry(path: str, content: Path | bytes) -> FileEntry:
    """The manifest's entry for a payload file.

    Raises:
        BundleError: the file cannot be read.
    """
    digest, length = hashlib.sha256(), 0
    for chunk in _chunks(path, content):
        digest.update(chunk)
        length += len(chunk)
    return FileEntry(path, length, digest.hexdigest())


def write_bundle(
    path: Path,
    manifest: Manifest,
    payload: Mapping[str, Path | bytes],
    sign: trust.SigningKey,
    root: trust.SignedRoot,
) -> str:
    """Write a signed bundle; it appears at ``path`` whole or not at all. The same input gives the same bytes.

    Args:
        path: the ``.fmb`` file; an existing one is replaced.
        manifest: complete, with the entries of :func:`file_entry`.
        payload: every file of ``manifest.files``, no other.
        sign: a key that ``root`` lets sign bundles.
        root: carried in the bundle, so that a new device can enrol.

    Returns:
        The bundle digest.

    Raises:
        BundleError: manifest or payload would be refused by the reader, or the file cannot be written.
        TrustError: the root does not hold or does not name the key.
    """
    data = manifest_bytes(manifest)
    if parse_manifest(data, path.name) != manifest:
        raise BundleError(f"{path.name}: the manifest does not read back as it was written.", code="json")
    version = trust.verify_root(root, "root.json")
    trust.check_names(version, sign.public, "root.json")
    if set(payload) != {entry.path for entry in manifest.files}:
        raise BundleError(f"{path.name}: the payload is not the files that the manifest names.", code="files")
    signature = sign.sign(data, trust.bundle_comment(manifest.name, manifest.sequence))
    head: dict[str, bytes] = {MANIFEST: data, SIGNATURE: signature, f"roots/{version.version}.json": root.data}
    for key_id in sorted(root.signatures):
        head[f"roots/{version.version}.{key_id}.minisig"] = root.signatures[key_id]
    try:
        durable.write_chunks(path, _file(head, manifest, payload))
    except OSError as error:
        raise BundleError(f"{path} cannot be written: {error.strerror}.", code="unwritable") from error
    return bundle_digest(data)


def _file(head: Mapping[str, bytes], manifest: Manifest, payload: Mapping[str, Path | bytes]) -> Iterator[bytes]:
    """A bundle's bytes."""
    for name, data in head.items():
        yield from archive.member(name, len(data), [data])
    for entry in manifest.files:
        content = payload[entry.path]
        if file_entry(entry.path, content) != entry:
            raise BundleError(f"{entry.path} is not what the manifest says. Export again.", code="digest")
        yield from archive.member(entry.path, entry.length_bytes, _chunks(entry.path, content))
    yield archive.END


def _chunks(name: str, content: Path | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    try:
        with content.open("rb") as file:
            while chunk := file.read(2**20):
                yield chunk
    except OSError as error:
        raise BundleError(f"{name}: {content} cannot be read: {error.strerror}.", code="unreadable") from error
