"""The ``train`` command: its many options, each a setting of the same name, and the settings file that says the same.

It reads and prints; the work is done in :mod:`trainer.train`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.errors import ConfigError
from trainer import settings_file
from trainer.settings import ALL, CHOICES, HEAD_ONLY, LAST_BLOCKS, Settings

if TYPE_CHECKING:
    from trainer.run import Run

_DEFAULTS = Settings()


def _option(flags: str, text: str, setting: str, metavar: str | None = None) -> Any:
    """An option that is a setting: unset it is None, so that a settings file may say it; the help tells the default."""
    default = getattr(_DEFAULTS, setting)
    if setting in CHOICES:
        text += f" One of {', '.join(CHOICES[setting])}."
    if default is not None and default != ():
        text += f" [default: {str(default).lower() if isinstance(default, bool) else default}]"
    return typer.Option(*flags.split(), help=text, metavar=metavar, show_default=False)


def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="A folder per class; train/ val/ test/ folders; a CSV file; COCO Camera Traps JSON; a Camtrap DP "
            "package; or an .npz file of fieldmark features.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="RUN", help="Folder for the run; new or empty.")] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE.toml", help="Settings and data from a file; options given here win."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training of this --out that was interrupted.")
    ] = False,
    features: Annotated[
        Path | None,
        typer.Option("--features", metavar="FILE.npz", help="Train a head on a file that fieldmark features wrote."),
    ] = None,
    backbone: Annotated[str | None, _option("--backbone", "See: fieldmark backbones.", "backbone", "NAME")] = None,
    weights: Annotated[
        str | None,
        _option("--weights", "imagenet, none (random), or a file of weights.", "weights", "WEIGHTS"),
    ] = None,
    normalise: Annotated[str | None, _option("--normalise", "Of pixels.", "normalise")] = None,
    side: Annotated[
        int | None,
        _option("--image-size", "Input side; the backbone's own if left out.", "side", "PIXELS"),
    ] = None,
    aspect: Annotated[str | None, _option("--aspect", "How a photo is made square.", "aspect")] = None,
    cut_top: Annotated[int | None, _option("--cut-top", "Rows of a burnt-in strip to cut.", "cut_top")] = None,
    cut_bottom: Annotated[int | None, _option("--cut-bottom", "The same below.", "cut_bottom")] = None,
    cut: Annotated[str | None, _option("--cut", "The backbone's last layer that is used.", "cut", "LAYER")] = None,
    blocks: Annotated[
        str | None,
        _option("--blocks", "Own convolution blocks behind it, by filters: 64,128.", "blocks", "N,N"),
    ] = None,
    pooling: Annotated[str | None, _option("--pooling", "From feature map to vector.", "pooling")] = None,
    head: Annotated[
        str | None,
        _option("--head", "Layers before the last: 256,dropout:0.5.", "head", "LAYERS"),
    ] = None,
    fine_tune: Annotated[
        bool | None,
        typer.Option(
            "--fine-tune/--probe-only",
            help="Train the backbone's last layers after the head, or only the head. [default: fine-tune]",
            show_default=False,
        ),
    ] = None,
    train_all: Annotated[
        bool,
        typer.Option(
            "--train-all",
            help="All layers learn: the weights are where they start. With --weights none: from scratch.",
        ),
    ] = False,
    fine_tune_from: Annotated[
        str | None,
        _option("--fine-tune-from", "First layer that learns, name or index.", "fine_tune_from", "LAYER"),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        _option("--freeze", "Layers that never learn, such as block1_*; repeatable.", "freeze", "LAYERS"),
    ] = None,
    keep: Annotated[
        str | None, _option("--keep", "Fine-tuned only if it is clearly better, or always.", "keep")
    ] = None,
    optimizer: Annotated[str | None, _option("--optimizer", "Of fine-tuning.", "optimizer")] = None,
    rate: Annotated[float | None, _option("--rate", "Highest learning rate.", "rate")] = None,
    backbone_rate: Annotated[
        float | None, _option("--backbone-rate", "Share of it for the backbone.", "backbone_rate")
    ] = None,
    epochs: Annotated[int | None, _option("--epochs", "At most.", "epochs")] = None,
    batch: Annotated[int | None, _option("--batch", "Photos per step.", "batch")] = None,
    patience: Annotated[
        int | None, _option("--patience", "Epochs without progress before it stops.", "patience")
    ] = None,
    warm_up: Annotated[int | None, _option("--warm-up", "Epochs of rising rate.", "warm_up")] = None,
    smoothing: Annotated[float | None, _option("--smoothing", "Of labels.", "smoothing")] = None,
    balance: Annotated[
        str | None, _option("--balance", "Of rare labels, by drawing or by weighing them.", "balance")
    ] = None,
    augment: Annotated[
        str | None, _option("--augment", "Random views as camera traps or as tutorials do.", "augment")
    ] = None,
    views: Annotated[int | None, _option("--views", "Views of each photo that are computed ahead.", "views")] = None,
    precision: Annotated[str | None, _option("--precision", "Of arithmetic.", "precision")] = None,
    layout: Annotated[str | None, _option("--layout", "What folders mean.", "layout")] = None,
    sequence_column: Annotated[
        str | None,
        _option("--sequence-column", "CSV column of photos that belong together.", "sequence_column", "NAME"),
    ] = None,
    boxes: Annotated[
        str | None,
        _option("--boxes", "MegaDetector or COCO JSON: random zooms then hold the animal.", "boxes", "FILE"),
    ] = None,
    split: Annotated[str | None, _option("--split", "Which photos are held out.", "split")] = None,
    test_share: Annotated[float | None, _option("--test-share", "How many are held out.", "test_share")] = None,
    cross_validate: Annotated[
        bool | None,
        _option("--folds/--no-folds", "Also hold out each fifth in turn.", "cross_validate"),
    ] = None,
    refit: Annotated[
        bool | None,
        _option("--refit/--no-refit", "Ship a model that learned from all photos.", "refit"),
    ] = None,
    wanted_precision: Annotated[
        float | None,
        _option(
            "--wanted-precision",
            "Share of the given answers that should be right; others are unknown.",
            "wanted_precision",
            "SHARE",
        ),
    ] = None,
    seed: Annotated[int | None, _option("--seed", "Of splits, batches and views.", "seed")] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Print the layers of the network and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """Train a model on labelled photos.

    First a linear probe on the frozen network, then its last layers; fine-tuning is kept only where it is better.
    """
    given = {name: value for name, value in locals().items() if value is not None and name in vars(_DEFAULTS)}
    if features is not None and data is not None:
        raise typer.BadParameter("give photos or --features, not both", param_hint="DATA")
    settings, found = _settings(given, config, _learn(fine_tune, train_all))
    data = features or data or found
    if summary:
        _print_layers(settings)
        return
    if data is None:
        raise typer.BadParameter("name the photos, or a --config that does", param_hint="DATA")
    if out is None:
        raise typer.BadParameter("say where the run goes, such as --out runs/fox", param_hint="--out")
    _run(data, out, settings, resume=resume, as_json=as_json)


def _learn(fine_tune: bool | None, train_all: bool) -> str | None:
    if train_all and fine_tune is not None:
        raise typer.BadParameter("choose one of --train-all, --fine-tune and --probe-only", param_hint="--train-all")
    if train_all:
        return ALL
    return None if fine_tune is None else (LAST_BLOCKS if fine_tune else HEAD_ONLY)


def _settings(given: dict[str, Any], config: Path | None, learn: str | None) -> tuple[Settings, Path | None]:
    """The settings, options before file before defaults; and the data that the file names."""
    found: Path | None = None
    values: dict[str, Any] = {}
    if config is not None:
        found, values = settings_file.read(config)
    if learn is not None:
        given = given | {"learn": learn}
        if learn != LAST_BLOCKS:
            values.pop("fine_tune_from", None)
    for name in ("head", "freeze"):
        if name in given:
            given[name] = tuple(_comma(",".join(given[name]) if isinstance(given[name], list) else given[name]))
    if "blocks" in given:
        given["blocks"] = tuple(map(_filters, _comma(given["blocks"])))
    return Settings(**values | given), found


def _comma(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _filters(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        raise ConfigError(f"blocks has {text!r}, expected numbers of filters such as 64,128.")
    return int(text)


def _run(data: Path, out: Path, settings: Settings, *, resume: bool, as_json: bool) -> None:
    from trainer.progress import Steps
    from trainer.quiet import silence

    silence()
    from trainer.train import train as run_training

    trained = run_training(data, out, settings, Steps(), resume=resume)
    _print_trained(trained, as_json)


def _print_layers(settings: Settings) -> None:
    from trainer.quiet import silence

    silence()
    from trainer.train import layers

    for line in layers(settings):
        typer.echo(line)


def _print_trained(trained: Run, as_json: bool) -> None:
    from trainer import run
    from trainer.report.page import PAGE

    facts = trained.facts
    if as_json:
        told = {"run": str(trained.folder), "seconds": facts.seconds, "question": facts.question, **facts.metrics}
        typer.echo(json.dumps({"schema": 1, **told}))
        return
    typer.echo((trained.folder / run.SUMMARY).read_text(encoding="utf-8"))
    typer.echo(f"Run:    {trained.folder}")
    typer.echo(f"Report: {trained.folder / PAGE}")
