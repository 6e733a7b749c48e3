"""From a run to a bundle: quantize, pass the gate, choose golden photos, sign. Nothing unproven is written."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge import pathtext
from edge.errors import ConfigError, DataError, ModelError
from edge.model import bundle, trust
from trainer import gate, golden, pixels, quantize, run
from trainer.backbones import backbone
from trainer.cache import cache_dir
from trainer.dataset.samples import Sample
from trainer.fit import FINE_TUNED
from trainer.progress import Steps

if TYPE_CHECKING:
    import keras

GATE_FILE = "gate.json"
MAX_FAILED_SHARE = 0.5
"""A device on which more than this share of photos fails is not healthy; A/B trials will go by it."""


@dataclass(frozen=True)
class Exported:
    """What export made.

    Attributes:
        path: the bundle.
        digest: the bundle digest.
        variant: ``int8``.
        bytes, model_bytes: of the bundle, and of the ``.tflite`` in it.
        gate: the gate's rows.
        key_id: of the signature.
        development: whether the key has no passphrase.
        key_created: whether the key was made now.
    """

    path: Path
    digest: str
    variant: str
    bytes: int
    model_bytes: int
    gate: tuple[gate.Row, ...]
    key_id: str
    development: bool
    key_created: bool


@dataclass(frozen=True)
class Options:
    """How to export.

    Attributes:
        name: of the bundle; made from the run's folder if None.
        sequence: higher replaces lower; the run's end in minutes since 1970 if None.
        threshold: probability below which the answer is ``unknown``, for every label; the run's thresholds if None.
        data_licence: of the photos, for the manifest.
        limits: of the gate.
    """

    name: str | None = None
    sequence: int | None = None
    threshold: float | None = None
    data_licence: str | None = None
    limits: gate.Limits = field(default_factory=gate.Limits)


@dataclass(frozen=True)
class _Data:
    """A run's photos: pixels, label numbers, and who learned from which."""

    pixels: pixels.PixelStack
    truth: npt.NDArray[np.intp]
    known: npt.NDArray[np.intp]
    holdout: npt.NDArray[np.intp]


def export(folder: Path, out: Path, options: Options, steps: Steps) -> Exported:
    """Export a run.

    Args:
        folder: what ``train`` wrote.
        out: the bundle to write; an existing one is replaced only by a whole new one.
        options: how.
        steps: shows progress.

    Raises:
        DataError: the run is damaged, or its photos are gone.
        ConfigError: an option is out of range.
        ModelError: the model cannot be quantized, or passed the gate on no runtime; the table is in
            ``RUN/gate.json`` all the same.
    """
    _check_out(out)
    _check_options(options)
    trained = run.read(folder)
    data = photos_of(trained, steps)
    with tempfile.TemporaryDirectory(prefix="fieldmark-export-") as scratch:
        content, verdict = _quantize(trained, data, Path(scratch), options, steps)
    _write_gate(trained, verdict, options)
    if not verdict.passed:
        reasons = "; ".join(f"{row.runtime}: {row.reason}" for row in verdict.rows)
        cure = "Train with more photos" + (", or with --probe-only" if trained.facts.kept == FINE_TUNED else "")
        raise ModelError(f"the quantized model passed the gate on no runtime. {reasons}. {cure}.", code="gate")
    keys = trust.load_or_create()
    with steps.step("golden photos and signature"):
        manifest, payload = _bundle(trained, data, content, verdict, options)
        digest = bundle.write_bundle(out, manifest, payload, keys.signing, keys.root)
        bundle.open_bundle(out)  # what cannot be read back was not exported
    return Exported(
        path=out,
        digest=digest,
        variant="int8",
        bytes=out.stat().st_size,
        model_bytes=len(content),
        gate=verdict.rows,
        key_id=keys.signing.public.key_id,
        development=keys.development,
        key_created=keys.created,
    )


def _quantize(
    trained: run.Run, data: _Data, scratch: Path, options: Options, steps: Steps
) -> tuple[bytes, gate.Verdict]:
    everything = np.arange(len(data.pixels))
    learned = everything if trained.facts.refitted else data.known
    model, stack, reference = _quantized(trained.model_path, data, learned, everything, scratch / "shipped", steps)
    twin = None
    if trained.facts.refitted:
        steps.say("  The same for the twin that did not learn from the held-out photos; the accuracies are the twin's.")
        twin = gate.Twin(
            *_quantized(trained.measured_path, data, data.known, data.holdout, scratch / "measured", steps)
        )
    with steps.step("the gate: every installed runtime", len(data.pixels)):
        verdict = gate.judge(model, stack, reference, data.truth, data.holdout, options.limits, twin)
    return model.read_bytes(), verdict


def _quantized(
    file: Path, data: _Data, learned: npt.NDArray[np.intp], asked: npt.NDArray[np.intp], scratch: Path, steps: Steps
) -> tuple[Path, Path, gate.Logits]:
    """A Keras model as int8 ``.tflite``, a stack of the photos asked about, and the float model's answers to them."""
    scratch.mkdir()
    with steps.step("loading the float model"):
        model = load_model(file)
    chosen = quantize.calibration(data.truth, learned, seed=0)
    with steps.step("quantizing to int8, calibration photos", len(chosen)):
        content = quantize.int8(model, quantize.representative(data.pixels, chosen))
    tflite, stack = scratch / bundle.MODEL, scratch / "photos.npy"
    tflite.write_bytes(content)
    data.pixels.save(stack, asked)
    with steps.step("the float model's answers", len(asked)):
        return tflite, stack, float_answers(model, stack)


def float_answers(model: keras.Model, stack: Path) -> gate.Logits:
    """A run's Keras model on an ``.npy`` stack of photos, uint8 (n, h, w, 3): logits, float32 (n, C)."""
    return np.asarray(model.predict(np.load(stack, mmap_mode="r"), batch_size=16, verbose=0), np.float32)


def load_model(file: Path) -> keras.Model:
    """A run's Keras model, uint8 pixels to logits.

    Raises:
        DataError: the file is damaged.
    """
    import keras

    try:
        return keras.models.load_model(file, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} cannot be loaded: {error}. Train the run again.") from error


def photos_of(trained: run.Run, steps: Steps) -> _Data:
    """The run's photos from the pixel cache, or decoded again from where they were."""
    facts, lines = trained.facts, trained.photos
    root = Path(pathtext.from_text(facts.data_folder))
    samples = [Sample(root / pathtext.from_text(line.photo), line.photo, line.label) for line in lines]
    with steps.step("reading the run's photos", len(samples)) as done:
        decoded, bad, stack = pixels.decode(samples, facts.input, cache_dir(), done=lambda: done(1))
    if bad:
        raise DataError(
            f"{len(bad)} of the run's {len(samples)} photos cannot be read any more, {bad[0].name} for one: "
            f"{bad[0].reason} They are expected below {root}."
        )
    changed = [line.photo for line, photo in zip(lines, decoded, strict=True) if line.sha256 != photo.sha256]
    if changed:
        raise DataError(f"{changed[0]} is not the photo that the run was trained on (and {len(changed) - 1} others).")
    held = np.array([line.part == run.HOLDOUT for line in lines])
    learned = np.array([line.part in (run.TRAIN, run.VALIDATION) for line in lines])
    truth = np.array([facts.labels.index(line.label) for line in lines], dtype=np.intp)
    return _Data(stack, truth, np.flatnonzero(learned), np.flatnonzero(held))


def _bundle(
    trained: run.Run, data: _Data, content: bytes, verdict: gate.Verdict, options: Options
) -> tuple[bundle.Manifest, dict[str, bytes]]:
    facts = trained.facts
    answers = {row.runtime: verdict.logits[row.runtime] for row in verdict.passed}
    chosen, files = golden.choose(data.pixels, facts.labels, data.truth, answers, verdict.output_step)
    payload = {bundle.MODEL: content, **files}
    created = datetime.fromisoformat(facts.created)
    manifest = bundle.Manifest(
        name=bundle_name(facts.name) if options.name is None else options.name,
        sequence=int(created.timestamp() // 60) if options.sequence is None else options.sequence,
        version=f"{created:%Y.%m.%d}",
        created=facts.created,
        labels=tuple(bundle.Label(name=label, english=label.replace("_", " ")) for label in facts.labels),
        input=facts.input,
        temperature=facts.temperature,
        thresholds=facts.thresholds if options.threshold is None else (options.threshold,) * len(facts.labels),
        rollup=None,
        variant="int8",
        gate_limits={name: float(value) for name, value in asdict(options.limits).items()},
        runtimes=tuple(_runtime_pass(row) for row in verdict.passed),
        op_versions=quantize.op_versions(content),
        ram_mib=quantize.memory_mib(content),
        golden=chosen,
        golden_mean_tolerance=max(each.tolerance for each in chosen),
        health={"max_failed_share": MAX_FAILED_SHARE},
        provenance=_provenance(facts, verdict, options),
        files=tuple(bundle.file_entry(path, data) for path, data in payload.items()),
    )
    return manifest, payload


def _provenance(facts: run.Facts, verdict: gate.Verdict, options: Options) -> bundle.Provenance:
    held = facts.metrics["holdout"]
    metrics = {name: round(float(held[name]), 6) for name in ("n", "accuracy", "macro_f1", "ece", "coverage")}
    return bundle.Provenance(
        dataset_digest=facts.dataset_digest,
        split=facts.split,
        metrics=metrics,
        commit=None,
        conversion="int8",
        weights_licence=backbone(facts.backbone).weights_licence,
        data_licence=options.data_licence,
        backbone=facts.backbone,
        trained_with=facts.trained_with,
    )


def _runtime_pass(row: gate.Row) -> bundle.RuntimePass:
    """It holds for later releases of the same major version."""
    major = int(row.version.split(".")[0])
    return bundle.RuntimePass(
        row.runtime, row.version, str(major + 1), row.architecture, row.kernels, row.n,
        round(row.accuracy, 6), round(row.accuracy_float, 6), row.n_agreement, round(row.agreement, 6),
    )  # fmt: skip


def bundle_name(folder: str) -> str:
    """A bundle name made from a folder's: lower case, anything else becomes a hyphen."""
    return re.sub(r"[^a-z0-9._]+", "-", folder.lower()).strip("-._")[:64] or "model"


def _write_gate(trained: run.Run, verdict: gate.Verdict, options: Options) -> None:
    content = {"schema": 1, "limits": asdict(options.limits), "gate": [asdict(row) for row in verdict.rows]}
    (trained.folder / GATE_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def table(rows: Sequence[gate.Row]) -> list[str]:
    """The gate's rows for a terminal."""
    head = f"{'runtime':16} {'version':9} {'verdict':8} {'accuracy':>9} {'float':>7} {'agree':>7} {'ms':>7} {'MiB':>6}"
    return [head] + [
        f"{row.runtime:16} {row.version:9} {'passed' if row.passed else 'FAILED':8} {row.accuracy:9.1%} "
        f"{row.accuracy_float:7.1%} {row.agreement:7.1%} {row.ms:7.1f} {row.rss_mib:6.0f}  {row.reason}"
        for row in rows
    ]


def _check_options(options: Options) -> None:
    """What the bundle would refuse is refused before the minutes of work."""
    if options.name is not None and not re.fullmatch(bundle.NAME, options.name):
        raise ConfigError(
            f"the bundle's name is {options.name!r}; expected at most 64 of a-z 0-9 . _ -, the first a-z or 0-9."
        )
    if options.sequence is not None and options.sequence < 1:
        raise ConfigError(f"sequence is {options.sequence}, expected at least 1. Leave it out for the run's end.")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise ConfigError(f"threshold is {options.threshold}, expected 0 to 1.")
    if options.data_licence is not None and not options.data_licence.strip():
        raise ConfigError("the data licence is empty. Give its SPDX name, such as CC-BY-4.0, or leave it out.")


def _check_out(out: Path) -> None:
    if out.suffix != bundle.SUFFIX:
        raise DataError(f"{out}: a bundle's name ends in {bundle.SUFFIX}.")
    if not out.parent.is_dir():
        raise DataError(f"{out.parent} is no folder. Make it first.")
