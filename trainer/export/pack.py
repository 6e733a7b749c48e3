"""From what passed the gate to a signed bundle: golden photos, manifest, file. Nothing unproven is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from edge.model import bundle
from edge.model.key_folder import Keys
from trainer import gate, golden, quantize
from trainer.export.material import Card, Photos
from trainer.export.options import Options, bundle_name
from trainer.export.variants import Tried
from trainer.gate import Logits, Verdict

MAX_FAILED_SHARE = 0.5
"""A device on which more than this share of photos fails is not healthy; A/B trials will go by it."""


def write(out: Path, passed: Tried, card: Card, photos: Photos, options: Options, keys: Keys) -> tuple[str, str]:
    """Write the bundle and read it back.

    Returns:
        The bundle digest, and what the golden photos are, in words.

    Raises:
        ModelError: too few photos can be golden.
        BundleError: the file cannot be written.
    """
    verdict = passed.verdict
    chosen = golden.choose(
        photos.stack, photos.files, card.names, photos.truth, answers(verdict, len(photos)), verdict.output_step,
        jpegs=golden.JPEGS if options.originals else 0,
    )  # fmt: skip
    payload = {bundle.MODEL: passed.attempt.model.read_bytes(), **chosen.files}
    manifest = _manifest(passed, card, options, payload, chosen)
    digest = bundle.write_bundle(out, manifest, payload, keys.signing, keys.root)
    bundle.open_bundle(out)  # what cannot be read back was not exported
    return digest, chosen.said


def answers(verdict: Verdict, n: int) -> dict[str, Logits]:
    """What the runtimes that passed answered, by row: float32 (n, C), NaN in photos that a row was not asked."""
    found: dict[str, Logits] = {}
    for row in verdict.passed:
        where = f"{row.runtime} {row.version} {row.architecture}"
        found[f"{where} default"] = verdict.logits[row.runtime]
        if row.kernels != "default":
            said = verdict.decided[row.runtime]
            every = np.full((n, said.logits.shape[1]), np.nan, np.float32)
            every[said.photos] = said.logits
            found[f"{where} {row.kernels}"] = every
    return found


def _manifest(
    passed: Tried, card: Card, options: Options, payload: Mapping[str, bytes], chosen: golden.Chosen
) -> bundle.Manifest:
    content, created = payload[bundle.MODEL], datetime.fromisoformat(card.created)
    thresholds = card.thresholds if options.threshold is None else (options.threshold,) * len(card.labels)
    return bundle.Manifest(
        name=bundle_name(card.name) if options.name is None else options.name,
        sequence=int(created.timestamp() // 60) if options.sequence is None else options.sequence,
        version=f"{created:%Y.%m.%d}",
        created=card.created,
        labels=card.labels,
        input=card.input,
        temperature=card.temperature,
        thresholds=thresholds,
        rollup=card.rollup,
        variant=passed.attempt.variant,
        gate_limits={name: float(value) for name, value in asdict(options.limits).items()},
        runtimes=tuple(map(_runtime_pass, passed.verdict.passed)),
        op_versions=quantize.op_versions(content),
        ram_mib=quantize.memory_mib(content),
        golden=chosen.golden,
        golden_mean_tolerance=chosen.mean_tolerance,
        health={"max_failed_share": MAX_FAILED_SHARE},
        provenance=replace(
            card.provenance,
            conversion=passed.attempt.words,
            data_licence=options.data_licence or card.provenance.data_licence,
        ),
        files=tuple(bundle.file_entry(path, data) for path, data in payload.items()),
    )


def _runtime_pass(row: gate.Row) -> bundle.RuntimePass:
    """It holds for later releases of the same major version."""
    major = int(row.version.split(".")[0])
    return bundle.RuntimePass(
        name=row.runtime,
        version_min=row.version,
        version_below=str(major + 1),
        architecture=row.architecture,
        kernels=row.kernels,
        n=row.n,
        accuracy=round(row.accuracy, 6),
        accuracy_float=round(row.accuracy_float, 6),
        n_agreement=row.n_agreement,
        agreement=round(row.agreement, 6),
    )
