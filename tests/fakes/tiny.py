"""Small real bundles: a model of under a kilobyte, two golden photos, fixed keys. Whole, altered, or taken apart."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edge.model import archive, trust
from edge.model import bundle as bundles
from edge.model.bundle import FileEntry, Golden, Label, Manifest, Provenance, RuntimePass
from edge.model.runtime import NAMES
from edge.model.spec import InputSpec
from tests import colour_model

SIDE = 8
KEY = trust.SigningKey("1111222233334444", bytes(range(32)))
OTHER_KEY = trust.SigningKey("AAAABBBBCCCCDDDD", bytes(range(32, 64)))

Member = tuple[str, bytes]


def signed_root(key: trust.SigningKey = KEY, *, development: bool = True) -> trust.SignedRoot:
    """A first root in which one key does everything."""
    both = {key.key_id: key.public}
    data = trust.make_root(both, both, development=development)
    return trust.SignedRoot(data, {key.key_id: key.sign(data, trust.root_comment(1))})


def root(key: trust.SigningKey = KEY) -> trust.Root:
    """The same, verified."""
    return trust.verify_root(signed_root(key), "root.json")


@cache
def payload() -> Mapping[str, bytes]:
    """The files of a bundle whose model says red, green or blue."""
    files = {"model.tflite": colour_model.build(SIDE, SIDE)}
    for name, colour in (("red", (200, 10, 10)), ("blue", (10, 10, 200))):
        files[f"golden/{name}.png"] = png(colour)
    return files


def png(colour: tuple[int, int, int], *, side: int = SIDE, mode: str = "RGB", form: str = "PNG") -> bytes:
    """A photo of one colour."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), colour, np.uint8)).convert(mode).save(buffer, form)
    return buffer.getvalue()


def entries(files: Mapping[str, bytes]) -> tuple[FileEntry, ...]:
    """Their lines in a manifest."""
    return tuple(bundles.file_entry(path, content) for path, content in files.items())


def manifest(**changes: Any) -> Manifest:
    """A whole manifest over :func:`payload`, with some fields changed."""
    made = Manifest(
        name="tiny",
        sequence=7,
        version="0.1",
        created="2026-05-01T12:00:00+00:00",
        labels=tuple(Label(name) for name in colour_model.LABELS),
        input=InputSpec(SIDE, SIDE),
        temperature=1.5,
        thresholds=(0.5, 0.25, 0.5),
        rollup=None,
        variant="float32",
        gate_limits={"agreement": 0.97, "lost_photos": 1.0},
        runtimes=tuple(
            RuntimePass(name, "2.0", "3.0", "x86_64", "default", 64, 0.9375, 0.953125, 128, 0.984375) for name in NAMES
        ),
        op_versions={"MEAN": 1, "DEQUANTIZE": 2},
        ram_mib=32,
        golden=(
            Golden("golden/red.png", "red", (200.0, 10.0, 10.0), 1.0),
            Golden("golden/blue.png", "blue", (10.0, 10.0, 200.0), 1.0),
        ),
        golden_mean_tolerance=1.0,
        health={"max_failed_share": 0.5},
        provenance=Provenance(
            dataset_digest="ab" * 32,
            split="80 % train, 20 % validation, by station",
            metrics={"accuracy": 0.9375, "macro_f1": 0.9},
            commit=None,
            conversion="by hand",
            weights_licence="Apache-2.0",
            data_licence=None,
            backbone="colour",
            trained_with="nothing",
        ),
        files=entries(payload()),
    )
    return replace(made, **changes)


def write(path: Path, *, key: trust.SigningKey = KEY, files: Mapping[str, bytes] | None = None, **changes: Any) -> Path:
    """A signed bundle at ``path``."""
    content = payload() if files is None else files
    made = manifest(**{"files": entries(content)} | changes)
    bundles.write_bundle(path, made, content, key, signed_root(key))
    return path


def members(
    manifest_data: bytes | None = None, *, key: trust.SigningKey = KEY, comment: str | None = None
) -> list[Member]:
    """A bundle's members, signed whatever the manifest says: what an attacker or a faulty exporter starts from."""
    data = bundles.manifest_bytes(manifest()) if manifest_data is None else manifest_data
    carried = signed_root(key)
    return [
        ("manifest.json", data),
        ("manifest.json.minisig", key.sign(data, comment or trust.bundle_comment("tiny", 7))),
        ("roots/1.json", carried.data),
        *((f"roots/1.{key_id}.minisig", signature) for key_id, signature in carried.signatures.items()),
        *payload().items(),
    ]


def pack(parts: Iterable[Member]) -> bytes:
    """A bundle file from members, in that order."""
    return b"".join(part for name, data in parts for part in archive.member(name, len(data), [data])) + archive.END


def swapped(name: str, data: bytes) -> list[Member]:
    """The members with another content for one of them."""
    return [(found, data if found == name else content) for found, content in members()]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a folder, byte for byte: path to mode and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
    return found


def agreeing(folder: Path, made: Manifest) -> str:
    """A check that is content with any model, for tests of everything around it."""
    return "no runtime"
