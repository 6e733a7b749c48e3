"""Export, step by step: convert, pass the gate, choose golden photos, sign."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.errors import ModelError
from edge.model import passphrase
from edge.model.key_folder import Keys
from trainer import gate, run
from trainer.cache import cache_dir
from trainer.export import foreign, pack, variants
from trainer.export.foreign import Foreign
from trainer.export.material import Card, Photos, card_of, load_model, photos_of
from trainer.export.options import Options, check, check_out
from trainer.export.variants import FromKeras, Tried
from trainer.progress import Steps

GATE_FILE = "gate.json"


@dataclass(frozen=True)
class Exported:
    """What export made.

    Attributes:
        path: the bundle.
        digest: the bundle digest.
        variant: one of :data:`edge.model.bundle.VARIANTS`.
        conversion: how it was made, in words.
        bytes, model_bytes: of the bundle, and of the ``.tflite`` in it.
        gate: the gate's rows, also of variants that did not pass.
        excluded: runtime -> why the bundle will not run on it.
        golden: what the golden photos are, in words.
        key_id: of the signature.
        development: whether the key has no passphrase.
        key_created: whether the key was made now.
    """

    path: Path
    digest: str
    variant: str
    conversion: str
    bytes: int
    model_bytes: int
    gate: tuple[gate.Row, ...]
    excluded: dict[str, str]
    golden: str
    key_id: str
    development: bool
    key_created: bool


def export(folder: Path, out: Path, options: Options, steps: Steps) -> Exported:
    """Export a run.

    Args:
        folder: what ``train`` wrote.
        out: the bundle to write; an existing one is replaced only by a whole new one.
        options: how.
        steps: shows progress.

    Raises:
        DataError: the run is damaged, or its photos are gone.
        ConfigError: an option is out of range, or ``labels.toml`` is not in order.
        ModelError: the model cannot be converted, or passed the gate on no runtime; the table is in
            ``RUN/gate.json`` all the same.
        TrustError: there is no key to sign with.
    """
    check_out(out)
    check(options)
    trained = run.read(folder)
    card = card_of(trained)
    keys = passphrase.unlock(options.passphrase_file, make=True)  # before the minutes of work: it may ask
    emulator = _emulator(options, steps)
    photos = photos_of(trained, steps)
    with tempfile.TemporaryDirectory(prefix="fieldmark-export-") as scratch:
        with steps.step("loading the float model"):
            shipped = load_model(trained.model_path)
            twin = load_model(trained.measured_path) if trained.facts.refitted else None
        source = FromKeras(shipped, twin, photos, card.names, Path(scratch), steps)
        passed, tried = variants.choose(source, card, photos, options, emulator, steps)
        _write_gate(folder / GATE_FILE, tried, options)
        return _finish(out, passed, tried, card, photos, options, keys, steps)


def import_model(given: Foreign, out: Path, options: Options, steps: Steps) -> Exported:
    """Export a model that was trained elsewhere.

    Args:
        given: the model, its labels, how it wants its pixels, and labelled photos to judge it by.
        out, options, steps: as for :func:`export`.

    Raises:
        DataError, ConfigError, ModelError, TrustError: as :func:`export`, and as :mod:`trainer.imported` says.
    """
    check_out(out)
    check(options)
    keys = passphrase.unlock(options.passphrase_file, make=True)
    emulator = _emulator(options, steps)
    with tempfile.TemporaryDirectory(prefix="fieldmark-export-") as scratch:
        card, photos, source = foreign.prepare(given, options, Path(scratch), steps)
        options = foreign.fitting(options, source)
        passed, tried = variants.choose(source, card, photos, options, emulator, steps)
        return _finish(out, passed, tried, card, photos, options, keys, steps)


def _emulator(options: Options, steps: Steps) -> gate.Emulator | None:
    if not options.emulate:
        return None
    from trainer.gate import emulate

    return emulate.prepare(cache_dir() / "emulated", steps.say)


def _finish(
    out: Path,
    passed: Tried | None,
    tried: Sequence[Tried],
    card: Card,
    photos: Photos,
    options: Options,
    keys: Keys,
    steps: Steps,
) -> Exported:
    if passed is None:
        raise ModelError(_refusal(tried, options, card), code="gate")
    with steps.step("golden photos and signature"):
        digest, said = pack.write(out, passed, card, photos, options, keys)
    ran = {row.runtime for row in passed.verdict.passed}
    rows = passed.verdict.rows
    return Exported(
        path=out,
        digest=digest,
        variant=passed.attempt.variant,
        conversion=passed.attempt.words,
        bytes=out.stat().st_size,
        model_bytes=passed.attempt.model.stat().st_size,
        gate=tuple(row for each in tried for row in each.verdict.rows),
        excluded={
            row.runtime: row.reason for row in rows if row.deciding and not row.passed and row.runtime not in ran
        },
        golden=said,
        key_id=keys.signing.public.key_id,
        development=keys.development,
        key_created=keys.created,
    )


def _refusal(tried: Sequence[Tried], options: Options, card: Card) -> str:
    reasons = [
        f"{each.attempt.variant} on {row.runtime}: {row.reason}"
        for each in tried
        for row in each.verdict.rows
        if row.deciding and not row.passed
    ]
    where = " and ".join(options.require) or "any runtime"
    return f"the model did not pass the gate on {where}. {'; '.join(reasons)}. {card.cure}."


def _write_gate(path: Path, tried: Sequence[Tried], options: Options) -> None:
    content = {
        "schema": 1,
        "limits": asdict(options.limits),
        "conversions": [{"variant": each.attempt.variant, "conversion": each.attempt.words} for each in tried],
        "gate": [asdict(row) for each in tried for row in each.verdict.rows],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def table(rows: Sequence[gate.Row]) -> list[str]:
    """The gate's rows for a terminal."""
    head = (
        f"{'variant':8} {'runtime':16} {'version':9} {'kernels':18} {'verdict':8} {'accuracy':>9} {'float':>7} "
        f"{'agree':>7} {'ms':>7} {'MiB':>6}"
    )
    return [head, *map(_line, rows)]


def _line(row: gate.Row) -> str:
    return (
        f"{row.variant:8} {row.runtime:16} {row.version:9} {_kernels(row):18} {_verdict(row):8} {row.accuracy:9.1%} "
        f"{row.accuracy_float:7.1%} {row.agreement:7.1%} {_ms(row):>7} {round(row.rss_mib) or '-':>6}  "
        f"{row.reason}"
    )


def _ms(row: gate.Row) -> str:
    return f"{row.ms:.1f}" if row.ms else "-"


def _kernels(row: gate.Row) -> str:
    return f"{row.architecture} {row.kernels}"


def _verdict(row: gate.Row) -> str:
    word = "passed" if row.passed else "FAILED"
    return word if row.deciding else f"({word})"
