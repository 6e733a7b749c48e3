"""The commands of the workstation that train, measure and export. They read options and print; the work is done
elsewhere, and TensorFlow is imported only by a command that needs it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.errors import FieldmarkError, one_line
from trainer.cli_train import train
from trainer.settings import IMAGENET, Settings

if TYPE_CHECKING:
    from trainer.backbones import Backbone
    from trainer.export import Exported
    from trainer.identify import Seen
    from trainer.measure import Measured
    from trainer.progress import Steps

app = typer.Typer(name="trainer", no_args_is_help=True, rich_markup_mode=None)
backbones_app = typer.Typer(
    name="backbones",
    help="The pretrained networks there are.",
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog="Example: fieldmark backbones show efficientnet-lite0",
)
app.add_typer(backbones_app)

dataset_app = typer.Typer(
    name="dataset",
    help="Look at a data set before training on it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Example: fieldmark dataset check photos/",
)
app.add_typer(dataset_app)

_DEFAULTS = Settings()

Data = Annotated[Path, typer.Argument(metavar="DATA", help="A folder with one folder per class, or a CSV file.")]
BackboneName = Annotated[str, typer.Option("--backbone", metavar="NAME", help="See: fieldmark backbones.")]
WeightsFile = Annotated[
    str, typer.Option("--weights", metavar="WEIGHTS", help="imagenet, none (random), or a file of weights.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
SequenceColumn = Annotated[
    str | None,
    typer.Option("--sequence-column", metavar="NAME", help="CSV column that says which photos belong together."),
]


app.command("train", epilog="Example: fieldmark train photos/ --out runs/fox")(train)


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
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FOLDER", help="Write report.html and report.json there.")
    ] = None,
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
    if report:
        measure.write_report(new, report)
    _print_measured(new, old, as_json)
    if report and not as_json:
        typer.echo(f"Report: {report / 'report.html'}")
    if strict and new.failed:
        raise FieldmarkError(f"{len(new.failed)} photos cannot be read, {new.failed[0].name} for one.")


@app.command("export", epilog="Example: fieldmark export runs/fox --out fox.fmb")
def export(
    out: Annotated[Path, typer.Option("--out", metavar="FILE.fmb", help="The bundle to write.")],
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="The folder that train wrote.")] = None,
    model: Annotated[
        Path | None,
        typer.Option("--from", metavar="MODEL", help="A .tflite, .keras or .h5 file from elsewhere, instead of a run."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DATA", help="With --from: labelled photos to judge it by.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="With --from: its labels, one a line, in the model's order."),
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option("--input", metavar="SPEC", help="With --from: such as 224, 224x320,pad or 224,crop,bicubic."),
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(
            "--scaling",
            metavar="SCALING",
            help="With --from: what is done to pixels: raw, 0..1, -1..1, imagenet, caffe or MEAN/STD.",
        ),
    ] = None,
    taxa: Annotated[
        Path | None, typer.Option("--taxa", metavar="FILE", help="With --from: a labels.toml, what each label is.")
    ] = None,
    sequence_column: SequenceColumn = None,
    variant: Annotated[
        str,
        typer.Option("--variant", help="int8, dynamic, float16, float32; auto takes the first that passes the gate."),
    ] = "auto",
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="RUNTIME", help="A runtime on which it must pass; may be given twice."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="NAME=NUMBER", help="Of the gate, such as agreement=0.98; may be repeated."),
    ] = None,
    emulate: Annotated[
        str | None, typer.Option("--emulate", metavar="aarch64", help="Also run a Pi's own wheels, under qemu.")
    ] = None,
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
        float | None,
        typer.Option(
            "--threshold", min=0, max=1, help="Probability below which no label is given; by default the run's."
        ),
    ] = None,
    data_licence: Annotated[str | None, typer.Option("--data-licence", help="Licence of the photos, as SPDX.")] = None,
    weights_licence: Annotated[
        str | None, typer.Option("--weights-licence", help="With --from: licence of the model, as SPDX.")
    ] = None,
    originals: Annotated[
        bool,
        typer.Option(
            "--originals/--no-originals",
            help="Let three original photos, without their metadata, travel along to try the device's decoder.",
        ),
    ] = True,
    passphrase_file: Annotated[
        Path | None,
        typer.Option("--passphrase-file", metavar="FILE", help="Of the signing key; else FIELDMARK_PASSPHRASE_FILE."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Quantize a run, check it on each runtime, write the signed bundle.

    The bundle is written only if the quantized model is as good as the float one on at least one installed runtime.
    With --from, a model that was trained elsewhere goes the same way.
    """
    from trainer import export as exporting
    from trainer.gate import Limits

    if (run is None) == (model is None):
        raise typer.BadParameter("give a RUN, or a model --from elsewhere, and not both.")
    given = (data, labels, input_size, scaling, taxa, weights_licence, sequence_column)
    if run is not None and any(each is not None for each in given):
        raise typer.BadParameter("--data, --labels, --input, --scaling, --taxa and --weights-licence go with --from.")
    if emulate not in (None, "aarch64"):
        raise typer.BadParameter(f"--emulate is {emulate!r}, expected aarch64.")
    options = exporting.Options(
        name=name, sequence=sequence, threshold=threshold, data_licence=data_licence, weights_licence=weights_licence,
        variant=variant, require=tuple(require or ()), limits=Limits().with_settings(limit or ()),
        emulate=emulate is not None, originals=originals, passphrase_file=passphrase_file,
    )  # fmt: skip
    if run is not None:
        _print_exported(exporting.export(run, out, options, _steps()), as_json)
    elif model is not None:
        from trainer.imported import source
        from trainer.imported.scaling import parse as parse_scaling

        if data is None:
            raise typer.BadParameter("a model from elsewhere is judged by labelled photos: name them with --data.")
        spec = source.parse_input(input_size) if input_size else None
        scale = parse_scaling(scaling) if scaling else None
        foreign = exporting.Foreign(model, data, labels, spec, scale, taxa, sequence_column)
        _print_exported(exporting.import_model(foreign, out, options, _steps()), as_json)


@app.command("identify", epilog="Example: fieldmark identify IMG_0001.JPG")
def identify(
    paths: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photos.")],
    backbone: BackboneName = _DEFAULTS.backbone,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="FILE.fmb", help="Ask this bundle's model instead.")
    ] = None,
    weights: WeightsFile = IMAGENET,
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
    if bundle:
        all_seen = identify_with_bundle(paths, bundle, top)
    else:
        all_seen = identify_with_network(paths, find(backbone), top, weights=weights)
    for seen in all_seen:
        failed += seen.failure is not None
        _print_seen(seen, as_json)
    if failed:
        typer.echo(f"{failed} of {len(paths)} photos could not be read.", err=True)
    if strict and failed:
        raise typer.Exit(1)


@app.command("features", epilog="Example: fieldmark features photos/ --backbone vgg16 --layer fc2 --out fc2.npz")
def features(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A data set as for train, or a folder of photos.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.npz", help="The file to write.")],
    backbone: BackboneName = _DEFAULTS.backbone,
    layer: Annotated[
        str | None,
        typer.Option("--layer", metavar="LAYER", help="Name or number; the last feature map if left out."),
    ] = None,
    pooling: Annotated[
        str, typer.Option("--pooling", help="Of a feature map: avg, max, avg+max, flatten or none.")
    ] = "avg",
    weights: WeightsFile = IMAGENET,
    normalise: Annotated[str, typer.Option("--normalise", help="own or unit.")] = "own",
    image_size: Annotated[
        int | None, typer.Option("--image-size", metavar="PIXELS", help="Input side; the network's own if left out.")
    ] = None,
    sequence_column: SequenceColumn = None,
    as_json: Json = False,
) -> None:
    """A pretrained network as a stand-alone feature extractor: a row of numbers for each photo.

    The file opens with numpy.load, and fieldmark train --features trains a head on it.
    """
    from edge.model.spec import InputSpec
    from trainer import feature_file
    from trainer.backbones import backbone as find

    spec = InputSpec(image_size, image_size) if image_size is not None else None
    request = feature_file.Request(find(backbone), layer, pooling, weights, normalise, spec)
    written = feature_file.write(data, out, request, _steps(), sequence_column=sequence_column)
    shape = list(written.features.shape)
    if as_json:
        _print_json({"path": str(out), "shape": shape, "failed": len(written.unreadable), **written.meta})
        return
    for bad in written.unreadable:
        typer.echo(one_line(f"not read: {bad.name}: {bad.reason}"), err=True)
    typer.echo(f"{out}: {' × '.join(map(str, shape))} numbers, {len(written.label_names)} labels")


@backbones_app.callback(invoke_without_command=True)
def backbones(context: typer.Context, as_json: Json = False) -> None:
    """The pretrained networks there are, whether their weights are on this machine, and which are too big for a Pi."""
    from trainer.backbones import BACKBONES

    if context.invoked_subcommand:
        return
    if not as_json:
        typer.echo(f"{'name':20} {'parameters':>11} {'input':>9} {'train':>9}  weights")
    for backbone in BACKBONES.values():
        here = backbone.weights_file() is not None
        if as_json:
            _print_json(_backbone_facts(backbone, here))
            continue
        sides = f"{backbone.side:>4}x{backbone.side:<4} {backbone.train_side:>4}x{backbone.train_side:<4}"
        where = "here" if here else backbone.how_to_get
        typer.echo(f"{backbone.name:20} {backbone.parameters:11,} {sides}  {where}")
        if backbone.pi:
            typer.echo(f"{'':20} {backbone.pi}")


@backbones_app.command("show", epilog="Example: fieldmark backbones show efficientnet-lite0")
def show_backbone(
    name: Annotated[str, typer.Argument(metavar="NAME", help="See: fieldmark backbones.")],
    image_size: Annotated[
        int | None, typer.Option("--image-size", metavar="PIXELS", help="Input side; the network's own if left out.")
    ] = None,
    top: Annotated[bool, typer.Option("--top", help="With the ImageNet head.")] = False,
) -> None:
    """Print a network's layers: their numbers and names are what --cut, --fine-tune-from and --layer take."""
    from trainer.backbones import NO_WEIGHTS
    from trainer.backbones import backbone as find
    from trainer.quiet import silence

    silence()
    from trainer.layer_table import lines

    chosen = find(name)
    side = chosen.side if image_size is None else image_size
    typer.echo("\n".join(lines(chosen.build(side, side, top=top, weights=NO_WEIGHTS))))
    here = chosen.weights_file(top=top)
    typer.echo(f"weights: {here or chosen.how_to_get} ({chosen.weights_licence})")


@dataset_app.command("check", epilog="Example: fieldmark dataset check photos/ --out check/")
def check_dataset(
    data: Data,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write contact sheets of what to look at there.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="RUN", help="Also labels that the model of this run doubts.")
    ] = None,
    layout: Annotated[str, typer.Option("--layout", help="What folders mean, as for train.")] = "auto",
    boxes: Annotated[
        Path | None, typer.Option("--boxes", metavar="FILE", help="MegaDetector or COCO JSON, to compare with labels.")
    ] = None,
    sequence_column: SequenceColumn = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if anything is wrong.")] = False,
    as_json: Json = False,
) -> None:
    """Look for trouble in a data set before training: unreadable photos, duplicates, leaks, imbalance, odd labels."""
    from trainer.dataset.check import check
    from trainer.dataset.check_sheets import write_sheets
    from trainer.dataset.check_words import lines

    found = check(data, sequence_column=sequence_column, boxes=boxes, layout=layout, run=run, steps=_steps())
    sheets = write_sheets(found, out) if out else []
    if as_json:
        _print_json({**found.facts(), "sheets": [str(sheet) for sheet in sheets]})
    else:
        typer.echo("\n".join(lines(found)))
        for sheet in sheets:
            typer.echo(f"See {sheet}")
    if strict and found.problems:
        raise FieldmarkError(f"{len(found.problems)} problems in {data}; the first: {found.problems[0]}")


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


def _backbone_facts(backbone: Backbone, here: bool) -> dict[str, Any]:
    return {
        "name": backbone.name,
        "parameters": backbone.parameters,
        "input": backbone.side,
        "train_input": backbone.train_side,
        "features": backbone.features,
        "weights_here": here,
        "weights": backbone.how_to_get,
        "weights_licence": backbone.weights_licence,
        "fine_tune_behind": backbone.frozen_until,
        "pi": backbone.pi,
    }


def _steps() -> Steps:
    from trainer.progress import Steps
    from trainer.quiet import silence

    silence()
    return Steps()


def _print_json(facts: dict[str, Any]) -> None:
    typer.echo(json.dumps({"schema": 1, **facts}))


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

    now, before = right(new), right(old)
    pairs = [(now[name], before[name]) for name in now.keys() & before.keys()]  # what both could read
    return {
        "model": str(old.subject.path),
        "accuracy": old.figures.accuracy,
        "better": sum(after and not first for after, first in pairs),
        "worse": sum(first and not after for after, first in pairs),
    }


def _print_exported(done: Exported, as_json: bool) -> None:
    from trainer.export import table

    if as_json:
        facts = {**asdict(done), "path": str(done.path)}
        _print_json(facts)
        return
    typer.echo("\n".join(table(done.gate)))
    for name, reason in done.excluded.items():
        typer.echo(f"Excluded: {name}, since {reason}")
    typer.echo(
        f"\nBundle: {done.path}, {done.bytes / 1e6:.2f} MB (model {done.model_bytes / 1e6:.2f} MB, {done.variant})"
    )
    typer.echo(f"Made: {done.conversion}; {done.golden}")
    typer.echo(f"Digest: {done.digest}")
    kind = "development key, without a passphrase" if done.development else "key"
    typer.echo(f"Signed: {kind} {done.key_id}{', made just now' if done.key_created else ''}")


def _print_seen(seen: Seen, as_json: bool) -> None:
    if as_json:
        _print_json({"photo": str(seen.photo), "top": [list(pair) for pair in seen.top], "failure": seen.failure})
        return
    answer = seen.failure or ", ".join(f"{name} {chance:.0%}" for name, chance in seen.top)
    typer.echo(one_line(f"{seen.photo}: {answer}"))
