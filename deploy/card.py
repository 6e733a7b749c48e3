"""A bundle's card: what it says of itself and whether its signature holds, for people and as JSON.

Works on a bundle that is verified already. Never prints and never decides whom to trust: it says which root the
signature was checked against, and whether that key is this workstation's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.errors import TrustError
from edge.model import key_folder
from edge.model.bundle import Label, Manifest, Opened, RuntimePass

_WIDTH = 12


def facts(path: Path, opened: Opened, trust_root: Path | None) -> dict[str, Any]:
    """The card as JSON objects.

    Args:
        path: the ``.fmb`` file.
        opened: that file, verified.
        trust_root: the root file that it was verified with; None for its own.
    """
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "digest": opened.digest,
        "model_digest": opened.manifest.model.sha256,
        "signature": {
            "key_id": opened.key_id,
            "development": opened.root.development,
            "root_sha256": opened.root.digest,
            "root_version": opened.root.version,
            "trusted_by": str(trust_root) if trust_root else "bundle",
            "this_workstation": is_ours(opened),
        },
        "manifest": opened.manifest.content(),
    }


def lines(opened: Opened, trust_root: Path | None) -> list[str]:
    """The card for a terminal. Texts in it are the bundle's own: the caller makes them safe to print."""
    manifest = opened.manifest
    figures = [(name, f"{value:.6g}") for name, value in sorted(manifest.provenance.metrics.items())]
    return [
        f"{manifest.name} {manifest.sequence} (version {manifest.version}), made {manifest.created}",
        *(f"{name:{_WIDTH}}{text}" for name, text in _facts(opened, trust_root)),
        "",
        *_table(["gate", "versions", "machine", "kernels", "photos", "accuracy", "float", "agreement", "photos"],
                [_runtime(entry) for entry in manifest.runtimes], right=4),
        *(f"{'limits':{_WIDTH}}{name} {value:.6g}" for name, value in sorted(manifest.gate_limits.items())),
        "",
        *_table(["figure", "value"], figures, right=1),
        "",
        *_table(["label", "sure from", "scientific name", "rank", "English", "taxa above", "taxon id"],
                [_label(*pair) for pair in zip(manifest.labels, manifest.thresholds, strict=True)]),
    ]  # fmt: skip


def is_ours(opened: Opened) -> bool | None:
    """Whether this workstation's root lets the key that signed the bundle sign; None where there is no such root."""
    try:
        _, root = key_folder.read_root(key_folder.default_key_dir())
    except TrustError:
        return None
    return opened.key_id in root.release_keys and root.keys[opened.key_id] == opened.root.keys[opened.key_id]


def _facts(opened: Opened, trust_root: Path | None) -> list[tuple[str, str]]:
    manifest, provenance, shape = opened.manifest, opened.manifest.provenance, opened.manifest.input
    return [
        ("signature", f"holds: {_signature(opened, trust_root)}"),
        ("digest", opened.digest),
        ("model", f"{manifest.variant}, {manifest.model.length_bytes} bytes, sha256 {manifest.model.sha256}"),
        ("made by", provenance.conversion),
        ("backbone", f"{provenance.backbone}, {provenance.trained_with}"),
        ("input", f"{shape.height} x {shape.width}, {shape.resample}, {shape.aspect}, "
                  f"cuts {shape.cut_top} and {shape.cut_bottom} rows"),
        ("memory", f"{manifest.ram_mib} MiB"),
        ("decisions", _decisions(manifest)),
        ("golden", _golden(manifest)),
        ("data", f"{provenance.dataset_digest}, {provenance.split}"),
        ("licences", f"weights {provenance.weights_licence}, data {provenance.data_licence or 'not said'}"),
        ("commit", provenance.commit or "not said"),
    ]  # fmt: skip


def _signature(opened: Opened, trust_root: Path | None) -> str:
    key = f"{'development' if opened.root.development else 'release'} key {opened.key_id}"
    if is_ours(opened):
        key += ", this workstation's"
    if trust_root:
        return f"{key}, trusted by {trust_root}"
    return f"{key}, checked with the bundle's own root" + ("" if is_ours(opened) else ", so it is whole; whose it is, "
           "--trust ROOT.json tells")  # fmt: skip


def _decisions(manifest: Manifest) -> str:
    rollup = "no roll-up" if manifest.rollup is None else f"rolls up from {manifest.rollup:.6g}"
    return f"temperature {manifest.temperature:.6g}, {rollup}"


def _golden(manifest: Manifest) -> str:
    decoded = sum(not golden.file.endswith(".png") for golden in manifest.golden)
    return (
        f"{len(manifest.golden)} photos, {decoded} of them originals for the decoder, "
        f"on average within {manifest.golden_mean_tolerance:.6g}"
    )


def _runtime(entry: RuntimePass) -> tuple[str, ...]:
    measured = [f"{entry.accuracy:.1%}", f"{entry.accuracy_float:.1%}"] if entry.n else ["-", "-"]
    return (
        entry.name,
        f"{entry.version_min} to below {entry.version_below}",
        entry.architecture,
        entry.kernels,
        str(entry.n),
        *measured,
        f"{entry.agreement:.1%}",
        str(entry.n_agreement),
    )


def _label(label: Label, threshold: float) -> tuple[str, ...]:
    above = (label.taxon_class, label.order, label.family, label.genus)
    return (
        label.name,
        f"{threshold:.2f}",
        label.scientific_name or "",
        label.rank or "",
        label.english or "",
        " ".join(filter(None, (*above, "(animal)" if label.animal else None))),
        label.taxon_id or "",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 99) -> list[str]:
    """Aligned columns, those from ``right`` on to the right; a column that holds nothing is left out."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    widths = {i: max(len(row[i]) for row in (head, *rows)) for i in kept}
    return [
        "  ".join(f"{row[i]:{'>' if i >= right else '<'}{widths[i]}}" for i in kept).rstrip() for row in (head, *rows)
    ]
