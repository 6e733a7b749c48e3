"""What an export starts from where the model was trained elsewhere: Teachable Machine, MediaPipe Model Maker, own code.

Nobody knows which photos it learned from, so all labelled photos that come with it judge it, and its figures are
only as good as they are new to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from edge.errors import ConfigError, DataError, ModelError
from edge.model import run as child
from edge.model import runtime
from edge.model.bundle import Label, Provenance
from edge.model.spec import InputSpec
from edge.model.taxonomy import taxonomy
from trainer import evaluate, gate, labelled, labels, quantize
from trainer.answered import Answered
from trainer.export.material import METRICS, Card, Photos
from trainer.export.options import AUTO, Options
from trainer.export.variants import FromFile, FromKeras, Source
from trainer.gate import Logits, diagnose
from trainer.imported import flat, graph, metadata, source
from trainer.imported.scaling import Scaling
from trainer.labelled import Labelled
from trainer.progress import Steps
from trainer.thresholds import for_precision

TFLITE, KERAS = (".tflite",), (".keras", ".h5", ".hdf5")
NOT_KNOWN = "not known"
_BY_CHANCE = 0.01
"""A model that is not surely better than always giving the commonest label is not taken."""


@dataclass(frozen=True)
class Foreign:
    """A model from elsewhere.

    Attributes:
        model: a ``.tflite``, ``.keras`` or ``.h5`` file.
        data: labelled photos, as for ``train``.
        labels: a text file with one label a line; None if the model carries them.
        input: size, aspect and filter; the model's own size, stretched, if None.
        scaling: what is done to pixels before the network; None if the model says or does it.
        taxa: a ``labels.toml``; what is known of the labels if None.
        sequence_column: of a CSV file.
    """

    model: Path
    data: Path
    labels: Path | None = None
    input: InputSpec | None = None
    scaling: Scaling | None = None
    taxa: Path | None = None
    sequence_column: str | None = None


def prepare(given: Foreign, options: Options, scratch: Path, steps: Steps) -> tuple[Card, Photos, Source]:
    """Adapt the model, read the photos, and see what it makes of them.

    Raises:
        DataError: the file is no model, the labels are missing, or the photos cannot be used.
        ConfigError: ``input`` has another size than the model.
        ModelError: the model cannot be adapted, or is no better than always giving the commonest label.
    """
    if given.model.suffix in KERAS:
        return _from_keras(given, options, scratch, steps)
    if given.model.suffix in TFLITE:
        return _from_tflite(given, options, scratch, steps)
    raise DataError(f"{given.model} is no model that can be imported; expected {', '.join(TFLITE + KERAS)}.")


def fitting(options: Options, found: Source) -> Options:
    """The options, where a ``.tflite`` is the one variant that it is.

    Raises:
        ConfigError: another one is asked for.
    """
    if not isinstance(found, FromFile):
        return options
    if options.variant not in (AUTO, found.variant):
        raise ConfigError(
            f"the model is {found.variant} already and cannot become {options.variant}. Leave out --variant, or import "
            "the Keras file that it was made from."
        )
    return replace(options, variant=found.variant)


def _from_keras(given: Foreign, options: Options, scratch: Path, steps: Steps) -> tuple[Card, Photos, Source]:
    if given.labels is None:
        raise DataError("a Keras file does not say what its answers mean. Name them with --labels labels.txt.")
    names = source.read_labels(given.labels)
    from trainer.imported import keras_file  # imports Keras

    with steps.step("loading the model"):
        model = keras_file.load(given.model, given.scaling, len(names))
    spec = _spec(given.input, int(model.input.shape[1]), int(model.input.shape[2]), steps)
    read = labelled.read(given.data, names, spec, given.sequence_column, steps, who=given.model.name)
    photos = _photos(read)
    made = FromKeras(model, None, photos, names, scratch, steps)
    return _card(given, options, names, spec, read, made.reference, steps), photos, made


def _from_tflite(given: Foreign, options: Options, scratch: Path, steps: Steps) -> tuple[Card, Photos, Source]:
    content = _read(given.model)
    names = source.read_labels(given.labels) if given.labels else metadata.labels(content)
    if names is None:
        raise DataError(f"{given.model.name} does not say what its answers mean. Name them with --labels labels.txt.")
    with steps.step("adapting the model"):
        adapted = graph.adapt(content, given.scaling, len(names))
    steps.say(f"  pixels: {adapted.scaling} (from its {adapted.scaling_from}); its end: {adapted.answer}")
    spec = _spec(given.input, adapted.height, adapted.width, steps)
    read = labelled.read(given.data, names, spec, given.sequence_column, steps, who=given.model.name)
    model, pixels = scratch / "imported.tflite", scratch / "photos.npy"
    model.write_bytes(adapted.content)
    read.stack.save(pixels, np.arange(len(read.stack)))
    first = runtime.installed()[0].name
    with steps.step(f"its answers on {first}", len(read.stack)):
        reference = child.in_child(model, pixels, runtime=first).logits
    variant = _variant(adapted.content)
    words = f"{variant} as it was given; {adapted.answer}"
    card = _card(given, options, names, spec, read, reference, steps)
    return card, _photos(read), FromFile(model, variant, words, pixels, reference)


def _variant(content: bytes) -> str:
    """Which of our variants a file is most like, by what its tensors hold."""
    found = flat.read(content)
    stored = {each.kind for each in found.tensors if found.buffers[each.buffer]}
    computed = {each.kind for each in found.tensors if each.scale and not found.buffers[each.buffer]}
    if computed & {"INT8", "UINT8"}:
        return quantize.INT8
    if "INT8" in stored:
        return quantize.DYNAMIC
    return quantize.FLOAT16 if "FLOAT16" in stored else quantize.FLOAT32


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > runtime.MAX_MODEL_BYTES:
            raise DataError(f"{path} has more than {runtime.MAX_MODEL_BYTES} bytes, which is the most that is read.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _spec(wanted: InputSpec | None, height: int, width: int, steps: Steps) -> InputSpec:
    if wanted is None:
        steps.say(f"  photos are stretched to {height} x {width}; say --input if it learned from them in another way.")
        return InputSpec(height, width)
    if (wanted.height, wanted.width) != (height, width):
        raise ConfigError(
            f"--input says {wanted.height} x {wanted.width} and the model takes {height} x {width}. Give its own size."
        )
    return wanted


def _photos(read: Labelled) -> Photos:
    every = np.arange(len(read.truth))
    return Photos(
        stack=read.stack,
        files=tuple(photo.sample.path for photo in read.decoded),
        truth=read.truth,
        held=every,
        learned=every,
        stations=tuple(photo.sample.station or "" for photo in read.decoded),
        infrared=np.array([photo.infrared for photo in read.decoded], bool),
    )


def _card(
    given: Foreign,
    options: Options,
    names: tuple[str, ...],
    spec: InputSpec,
    read: Labelled,
    logits: Logits,
    steps: Steps,
) -> Card:
    answered = read.answered(logits, names)
    _check_sense(answered)
    taxa = labels.read(given.taxa, names) if given.taxa else labels.known(names, labels.of_data(given.data))
    under = taxonomy(taxa)
    warmth = evaluate.temperature(logits, read.truth)
    limits = for_precision(answered, warmth, taxonomy=under)
    found = evaluate.figures(
        logits, read.truth, names, temperature=warmth, thresholds=limits.values, groups=answered.groups,
        taxonomy=under, rollup=limits.rollup,
    )  # fmt: skip
    steps.say(
        f"  it gets {found.accuracy:.1%} of {found.n} photos right. Temperature and thresholds come from them: if it "
        "learned from them, they flatter."
    )
    return Card(
        name=given.model.stem,
        created=datetime.fromtimestamp(int(given.model.stat().st_mtime), UTC).isoformat(timespec="seconds"),
        labels=tuple(map(_in_english, taxa)),
        input=spec,
        temperature=warmth,
        thresholds=limits.values,
        rollup=limits.rollup,
        provenance=Provenance(
            dataset_digest=read.digest,
            split=NOT_KNOWN,
            metrics={
                name: round(float(getattr(found, name)), 6) for name in METRICS if getattr(found, name) is not None
            },
            commit=None,
            conversion=NOT_KNOWN,
            weights_licence=options.weights_licence or NOT_KNOWN,
            data_licence=None,
            backbone="imported",
            trained_with=NOT_KNOWN,
        ),
        cure="Give it as a Keras file, so that other variants can be tried",
    )


def _in_english(label: Label) -> Label:
    return label if label.english else replace(label, english=label.name.replace("_", " "))


def _check_sense(answered: Answered) -> None:
    """Refuse a model that does not see these photos as it should, and say why as far as that can be found out.

    Raises:
        ModelError: with code ``no better``.
    """
    from scipy.stats import binom

    right = int((answered.logits.argmax(axis=1) == answered.truth).sum())
    counts, n = np.bincount(answered.truth, minlength=len(answered.labels)), len(answered)
    if right > counts.max() and binom.sf(right - 1, n, counts.max() / n) < _BY_CHANCE:
        return
    said = np.eye(len(answered.labels), dtype=np.float32)[answered.truth]
    why = diagnose.labels(answered.logits, said, gate.About(labels=answered.labels))
    guess = f" {why}." if why else ""
    raise ModelError(
        f"it gets {right} of {n} photos right, and always saying {answered.labels[int(counts.argmax())]!r} gets "
        f"{counts.max()}.{guess} Is the order of the labels the model's own? Is --scaling what it learned with?",
        code="no better",
    )
