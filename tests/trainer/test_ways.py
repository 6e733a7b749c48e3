"""Each documented way to reuse a pretrained network, through the command line: what learned, what did not, and what
the saved model is. The network is MobileNet at 32 x 32 with weights in a file, so that they count as pretrained ones:
random numbers, with the photos' own statistics in its batch normalisation, without which it would see next to nothing.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from typer.testing import CliRunner

from edge.errors import DataError
from edge.model import preprocess
from edge.model.spec import InputSpec
from tests.trainer import drawn
from trainer import run as runs
from trainer.cli import app

pytestmark = pytest.mark.needs("tensorflow")

ROOT = Path(__file__).resolve().parents[2]
NET = "mobilenet"
SIDE = 32
BURSTS, PER_BURST = 5, 2
SMALL = ("--backbone", NET, "--image-size", SIDE, "--epochs", 1, "--views", 1, "--batch", 8, "--keep", "fine-tuned")
KEPT_AS_IT_IS: frozenset[str] = frozenset()


def command(*arguments: object) -> str:
    """Standard output of a command that succeeds. A refusal is raised, as the front door expects it."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@dataclass(frozen=True)
class Ways:
    """What all tests start from: the photos, and a network whose weights lie in a file."""

    data: Path
    folder: Path
    weights: Path
    start: dict[str, list[npt.NDArray[Any]]]
    norms: frozenset[str]

    def train(self, name: str, *options: object, weights: object = None) -> Trained:
        """Train with the command; the shipped model is read as ``export`` reads it."""
        out = self.folder / name
        facts = json.loads(
            command(
                "train", self.data, "--out", out, *SMALL, "--weights", weights or self.weights, *options, "--json"
            )
        )  # fmt: skip
        return Trained(out, facts, loaded(out / runs.MODEL))

    def changed(self, model: Any) -> set[str]:
        """The network's layers whose numbers are not, to the last bit, those of the file."""
        return changed(model, self.start)


@dataclass(frozen=True)
class Trained:
    """A run, what the command printed, and the shipped model."""

    run: Path
    facts: dict[str, Any]
    model: Any


def loaded(file: Path) -> Any:
    """A saved model. Whatever was trained how, it takes raw pixels and gives a float32 logit per label."""
    from trainer import export

    model = export.load_model(file)
    assert model.input.dtype == "uint8"
    assert model.input.shape[-1] == 3
    assert (model.output.dtype, model.output.shape) == ("float32", (None, len(drawn.LABELS)))
    return model


def changed(model: Any, start: dict[str, list[npt.NDArray[Any]]]) -> set[str]:
    found = set()
    for layer in model.layers:
        if layer.name in start:
            same = map(np.array_equal, layer.get_weights(), start[layer.name])
            found |= set() if all(same) else {layer.name}
    return found


def stored(model: Any) -> dict[str, list[npt.NDArray[Any]]]:
    """The numbers of all layers that have some, but our normalisation."""
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights and layer.name != "normalise"}


def pixels_of(data: Path, side: int = SIDE) -> npt.NDArray[np.uint8]:
    """A photo of each burst."""
    spec = InputSpec(side, side)
    paths = [data / label / f"IMG_{burst:02d}00.jpg" for label in drawn.LABELS for burst in range(BURSTS)]
    return np.stack([preprocess.to_pixels(Image.open(path), spec) for path in paths])


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Ways:
    import keras

    folder = tmp_path_factory.mktemp("ways")
    drawn.write_set(folder / "data", bursts=BURSTS, per_burst=PER_BURST)
    network = write_weights(folder / "pretrained.weights.h5", NET, pixels_of(folder / "data"))
    norms = frozenset(layer.name for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization))
    return Ways(folder / "data", folder, folder / "pretrained.weights.h5", stored(network), norms)


def write_weights(file: Path, name: str, pixels: npt.NDArray[np.uint8], *, top: bool = False) -> Any:
    """A network that tells these photos apart, and a file of its weights."""
    import keras

    from trainer.backbones import backbone

    keras.utils.set_random_seed(7)
    network = backbone(name).build(*pixels.shape[1:3], top=top, weights="none")
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(pixels, training=True)
    network.save_weights(file)
    return network


# --- built in, frozen


POOLED: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    "avg": lambda x: x.mean((1, 2)),
    "max": lambda x: x.max((1, 2)),
    "avg+max": lambda x: np.concatenate([x.mean((1, 2)), x.max((1, 2))], axis=1),
}


@pytest.fixture(scope="module")
def two_pooled(ways: Ways) -> Trained:
    """A probe on the averages and the maxima."""
    return ways.train("two-pooled", "--probe-only", "--pooling", "avg+max")


@pytest.mark.parametrize("pooling", POOLED)
def test_a_frozen_network_is_pooled_as_asked_and_does_not_change(ways: Ways, two_pooled: Trained, pooling: str) -> None:
    trained = two_pooled if pooling == "avg+max" else ways.train(pooling, "--probe-only", "--pooling", pooling)
    assert trained.facts["kept"] == "probe"
    assert ways.changed(trained.model) == KEPT_AS_IT_IS
    import keras

    model, pixels = trained.model, pixels_of(ways.data)
    feature_map = keras.Model(model.input, model.get_layer("conv_pw_13_relu").output).predict(pixels, verbose=0)
    kernel, bias = model.get_layer("logits").get_weights()
    expected = POOLED[pooling](feature_map) @ kernel + bias
    assert model.predict(pixels, verbose=0) == pytest.approx(expected, abs=1e-3)
    assert np.ptp(expected) > 1, "photos are told apart"


def test_flatten_takes_a_head_of_dense_layers_and_dropout(ways: Ways) -> None:
    trained = ways.train("flatten", "--probe-only", "--pooling", "flatten", "--head", "6,dropout:0.5", "--epochs", 2)
    assert trained.facts["kept"] == "head"
    assert ways.changed(trained.model) == KEPT_AS_IT_IS
    dense, dropout = (trained.model.get_layer(name) for name in ("head_1", "head_2"))
    assert (dense.units, dense.get_config()["activation"], dropout.rate) == (6, "relu", 0.5)
    assert dense.kernel.shape == (1024, 6), "a map of 1 x 1 flattened"
    assert [row["stage"] for row in history(trained.run)] == ["new layers"] * 2


def history(run: Path) -> list[dict[str, str]]:
    with (run / runs.HISTORY).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- cut at a layer


def test_behind_a_cut_come_own_blocks_and_nothing_of_the_network(ways: Ways) -> None:
    trained = ways.train("cut", "--cut", "conv_pw_3_relu", "--blocks", "8,16", "--probe-only")
    names = [layer.name for layer in trained.model.layers]
    last = names.index("conv_pw_3_relu")
    assert names[last + 1 :] == [
        f"own_{i}_{part}" for i in (1, 2) for part in ("conv", "bn", "relu", "pool")
    ] + ["pool", "logits"]  # fmt: skip
    assert [trained.model.get_layer(f"own_{i}_conv").filters for i in (1, 2)] == [8, 16]
    assert ways.changed(trained.model) == KEPT_AS_IT_IS
    assert trained.facts["kept"] == "head"


# --- fine-tuning, and what else may learn


def number_of(layer: str) -> str:
    """As ``fieldmark backbones show`` prints it."""
    lines = command("backbones", "show", NET, "--image-size", SIDE).splitlines()
    return next(line.split()[0] for line in lines if line.split()[1:2] == [layer])


def convolutions(ways: Ways, first: str = "conv1") -> set[str]:
    """The layers from one on that are no batch normalisation: those, where pretrained, are left as they are."""
    names = list(ways.start)
    return set(names[names.index(first) :]) - ways.norms


FROM_12 = ("conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13")


@pytest.mark.parametrize(
    ("options", "learn"),
    [
        pytest.param(("--fine-tune-from", "conv_dw_12"), FROM_12, id="from a layer by name"),
        pytest.param(("--fine-tune-from", "NUMBER", "--no-refit"), FROM_12, id="from a layer by number"),
        pytest.param(
            ("--fine-tune-from", "conv_dw_12", "--freeze", "conv_*_12", "--freeze", "conv_dw_13", "--no-refit"),
            ("conv_pw_13",),
            id="from a layer, but for some by pattern and by name",
        ),
        pytest.param(
            ("--no-refit",), ("conv_dw_10", "conv_pw_10", "conv_dw_11", "conv_pw_11", *FROM_12), id="its last blocks"
        ),
    ],
)
def test_what_was_asked_for_learns_and_all_else_stays_to_the_last_bit(
    ways: Ways, options: tuple[str, ...], learn: tuple[str, ...], tmp_path: Path
) -> None:
    options = tuple(number_of("conv_dw_12") if each == "NUMBER" else each for each in options)
    trained = ways.train(f"tuned-{tmp_path.name}", *options)
    assert trained.facts["kept"] == "fine-tuned"
    assert ways.changed(trained.model) == set(learn)
    if "--no-refit" not in options:
        assert ways.changed(loaded(trained.run / runs.MEASURED)) == set(learn), "also in the one that was measured"


@pytest.fixture(scope="module")
def views() -> set[str]:
    """The kinds of views that ``all_learned`` was trained on."""
    return set()


@pytest.fixture(scope="module")
def all_learned(ways: Ways, views: set[str]) -> Trained:
    """A run of which every layer learned, with the tutorials' scaling and on their views."""
    from trainer import augment

    real = augment.view

    def view(pixels: Any, random: Any, kind: str, animals: Any) -> Any:
        views.add(kind)
        return real(pixels, random, kind, animals)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "view", view)
        return ways.train("all", "--train-all", "--normalise", "unit", "--augment", "tutorial", "--no-refit")


def test_as_weight_initialisation_all_layers_learn_but_batch_normalisation(ways: Ways, all_learned: Trained) -> None:
    assert ways.changed(all_learned.model) == convolutions(ways)
    assert not (all_learned.run / runs.MEASURED).exists(), "--no-refit ships the one that was measured"


def test_from_scratch_everything_learns(ways: Ways) -> None:
    import keras

    from trainer.backbones import backbone

    trained = ways.train("scratch", "--train-all", "--rate", "1e-3", "--no-refit", weights="none")
    keras.utils.set_random_seed(0)
    begun = stored(backbone(NET).build(SIDE, SIDE, weights="none"))
    assert changed(trained.model, begun) == set(begun)
    assert set(trained.facts["validation"]) == {"n", "fine-tuned"}, "there is no frozen start to compare with"


def test_the_tutorials_scaling_is_in_the_model_and_their_views_were_learned_from(
    ways: Ways, all_learned: Trained, views: set[str]
) -> None:
    import keras

    model, pixels = all_learned.model, pixels_of(ways.data)
    scaled = keras.Model(model.input, model.get_layer("normalise").output).predict(pixels, verbose=0)
    assert scaled == pytest.approx(pixels / 255, abs=1e-6)
    assert np.ptp(pixels) > 100
    assert views == {"tutorial"}


def test_weights_of_another_run_are_where_a_training_starts(ways: Ways, all_learned: Trained) -> None:
    trained = ways.train("again", "--probe-only", "--no-refit", weights=all_learned.run / runs.MODEL)
    before = {name: arrays for name, arrays in stored(all_learned.model).items() if name in ways.start}
    assert changed(trained.model, before) == KEPT_AS_IT_IS
    assert ways.changed(trained.model) == convolutions(ways), "they are not those of the first file"


# --- a stand-alone extractor, and a head on its file


def test_a_head_on_a_file_of_features_is_the_probe_that_photos_give(ways: Ways, two_pooled: Trained) -> None:
    """The file's network computes in other batches, so numbers agree to rounding, and answers exactly."""
    file = ways.folder / "features.npz"
    same = ("--pooling", "avg+max", "--weights", ways.weights)
    command("features", ways.data, "--out", file, "--backbone", NET, "--image-size", SIDE, *same)
    command("train", "--features", file, "--weights", ways.weights, "--out", ways.folder / "on-features")
    there, here = (runs.read(folder) for folder in (ways.folder / "on-features", two_pooled.run))
    facts = ("photo", "label", "part", "group", "sha256", "predicted", "unseen", "infrared")
    for line, other in zip(there.photos, here.photos, strict=True):
        assert [getattr(line, name) for name in facts] == [getattr(other, name) for name in facts]
        assert line.confidence == pytest.approx(other.confidence, abs=2e-3)
    pixels = pixels_of(ways.data)
    answers = [loaded(each.model_path).predict(pixels, verbose=0) for each in (there, here)]
    assert answers[0] == pytest.approx(answers[1], abs=2e-3)
    assert np.ptp(answers[1]) > 1


# --- as it is


def test_any_network_is_asked_as_it_is_with_weights_of_a_file(ways: Ways) -> None:
    from trainer.identify import imagenet_names

    whole = ways.folder / "whole.weights.h5"
    network = write_weights(whole, NET, pixels_of(ways.data, 224)[::3], top=True)
    photo = ways.data / "fox" / "IMG_0000.jpg"
    asked = ("identify", photo, "--backbone", NET, "--top", 5, "--json", "--weights")
    found = json.loads(command(*asked, whole))
    spec = InputSpec(224, 224, resample="bicubic", aspect="crop")
    logits = network.predict(preprocess.to_pixels(Image.open(photo), spec)[np.newaxis], verbose=0)[0]
    assert [name for name, _ in found["top"]] == [imagenet_names()[i] for i in np.argsort(-logits)[:5]]
    with pytest.raises(DataError, match=r"pretrained.weights.h5 holds mobilenet without its ImageNet head"):
        command(*asked, ways.weights)


# --- to the device


def test_a_network_with_two_poolings_is_exported(ways: Ways) -> None:
    weights = ways.folder / "v2.weights.h5"
    write_weights(weights, "mobilenetv2", pixels_of(ways.data, 64))
    command(
        "train", ways.data, "--out", ways.folder / "v2", "--backbone", "mobilenetv2", "--weights", weights,
        "--image-size", 64, "--probe-only", "--pooling", "avg+max",
    )  # fmt: skip
    found = json.loads(command("export", ways.folder / "v2", "--out", ways.folder / "v2.fmb", "--json"))
    assert any(row["passed"] for row in found["gate"])
    assert (ways.folder / "v2.fmb").stat().st_size == found["bytes"]


# --- interrupted


def finished_epochs(checkpoint: Path) -> int:
    """How many epochs a checkpoint holds; 0 while there is none."""
    try:
        with np.load(checkpoint, allow_pickle=False) as file:
            return len(json.loads(file["facts.json"].tobytes())["history"])
    except OSError:
        return 0


def test_a_command_that_was_killed_goes_on_where_it_was(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.checkpoint import Checkpoint

    out, epochs = ways.folder / "killed", 6
    options = [
        "train", ways.data, "--out", out, *SMALL, "--weights", ways.weights, "--train-all", "--no-refit",
        "--epochs", epochs, "--patience", epochs,
    ]  # fmt: skip
    checkpoint = ways.folder / "killed.unfinished" / "measured" / "fine-tuning.npz"
    child = subprocess.Popen(
        [sys.executable, "-m", "fieldmark", *map(str, options)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.communicate()[1] is not None
    assert child.returncode == -signal.SIGKILL
    done = finished_epochs(checkpoint)
    assert 1 <= done < epochs
    assert not os.path.lexists(out), "half a run never looks like one"

    with pytest.raises(DataError, match=r"killed.unfinished holds a training that was interrupted. Add --resume"):
        command(*options)
    saved: list[int] = []
    save = Checkpoint.save

    def counting(self: Checkpoint, facts: Any, arrays: Any) -> None:
        saved.append(len(facts["history"]))
        save(self, facts, arrays)

    monkeypatch.setattr(Checkpoint, "save", counting)
    command(*options, "--resume")
    assert saved == list(range(done + 1, epochs + 1)), "what was trained is not trained again"
    assert [int(row["epoch"]) for row in history(out)] == list(range(1, epochs + 1))
    assert not checkpoint.parent.parent.exists()
