"""Controls on a real network: EfficientNet-Lite0 with the shipped weights and a head fitted on drawn photos, and that
broken in each way that a converter or a hurried person breaks it. The good one passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge.model import runtime
from tests.trainer import drawn
from trainer import gate
from trainer.gate import About, Limits, Row

pytestmark = pytest.mark.needs("tensorflow")
SIDE, PER_LABEL = 96, 20
CALIBRATION = 12
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Record:
    """Which photos a variant's ranges come from."""

    n: int
    by_label: dict[str, int]
    by_station: dict[str, int]
    by_light: dict[str, int]
    brightness_mean: float


@dataclass(frozen=True)
class Lab:
    """Photos, the float model and its answers.

    Attributes:
        stack: ``.npy`` file of ``photos``, uint8 (n, h, w, 3).
        truth: n label numbers.
        reference: the model's logits.
    """

    folder: Path
    stack: Path
    photos: Pixels
    truth: npt.NDArray[np.intp]
    model: Any
    reference: npt.NDArray[np.float32]

    def answers(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        return np.asarray(self.model.predict(pixels, verbose=0), np.float32)

    def copy(self) -> Any:
        import keras

        twin = keras.models.clone_model(self.model)
        twin.set_weights(self.model.get_weights())
        return twin

    def balanced(self) -> npt.NDArray[np.intp]:
        return np.concatenate([np.flatnonzero(self.truth == label)[:: PER_LABEL // 4][:4] for label in range(3)])

    def judge(self, model: Any, rows: npt.NDArray[np.intp], pixels: Pixels | None = None) -> tuple[Row, ...]:
        """Quantize, as export does, and judge on every runtime."""
        from trainer import quantize

        used = (self.photos if pixels is None else pixels)[rows]
        file = self.folder / "model.tflite"
        file.write_bytes(quantize.int8(model, _inputs(used)))
        counts = Counter(drawn.LABELS[i] for i in self.truth[rows])
        record = Record(len(rows), dict(counts), {}, {}, float(used.mean()))
        about = About(labels=drawn.LABELS, calibration=record, float_model=self.answers)
        return gate.judge(
            file, self.stack, self.reference, self.truth, np.arange(0, len(self.truth), 2), Limits(), about=about
        ).rows


def _inputs(photos: Pixels) -> Iterator[Pixels]:
    yield np.zeros((1, SIDE, SIDE, 3), np.uint8)
    yield np.full((1, SIDE, SIDE, 3), 255, np.uint8)
    for photo in photos:
        yield photo[np.newaxis]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """60 photos of three labels, and a network that tells them apart."""
    import keras
    from sklearn.linear_model import LogisticRegression

    from trainer import model as models
    from trainer.photos import Network
    from trainer.settings import HEAD_ONLY, Settings

    folder = tmp_path_factory.mktemp("lab")
    truth = np.repeat(np.arange(3), PER_LABEL)
    photos = np.stack([_photo(label, i) for i, label in enumerate(truth)])
    np.save(folder / "photos.npy", photos)
    settings = Settings(backbone="efficientnet-lite0", learn=HEAD_ONLY, side=SIDE)
    model = models.classifier(Network(settings)(), settings, 3)
    features = keras.Model(model.input, model.get_layer("pool").output).predict(photos, verbose=0)
    fitted = LogisticRegression(max_iter=500).fit(features, truth)
    model.get_layer(models.LOGITS).set_weights([fitted.coef_.T, fitted.intercept_])
    reference = np.asarray(model.predict(photos, verbose=0), np.float32)
    assert (reference.argmax(axis=1) == truth).mean() > 0.9
    return Lab(folder, folder / "photos.npy", photos, truth, model, reference)


def _photo(label: int, number: int) -> Pixels:
    image = drawn.draw(drawn.LABELS[label], np.random.default_rng((5, number)))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.uint8)


@pytest.fixture
def one_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is the model's: one runtime shows it."""
    first = runtime.installed()[:1]
    monkeypatch.setattr(runtime, "installed", lambda: first)


def test_the_good_model_passes_on_every_runtime(lab: Lab) -> None:
    rows = lab.judge(lab.model, lab.balanced())
    assert all(row.passed for row in rows), [row.reason for row in rows]
    assert {row.runtime for row in rows} == {each.name for each in runtime.installed()}
    assert all(row.agreement >= 0.97 and row.output_step > 0 and 0 < row.mean_difference < 0.2 for row in rows)


def swapped(lab: Lab) -> Any:
    model = lab.copy()
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel[:, [2, 1, 0]], bias[[2, 1, 0]]])
    return model


def blue_first(lab: Lab) -> Any:
    import keras

    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    return keras.Model(pixels, lab.copy()(keras.ops.flip(pixels, axis=-1)))


def normalised_twice(lab: Lab) -> Any:
    model = lab.copy()
    layer = model.get_layer("normalise")
    layer.offset = layer.scale * layer.offset + layer.offset
    layer.scale = layer.scale * layer.scale
    return model


def constant(lab: Lab) -> Any:
    model = lab.copy()
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([np.zeros_like(kernel), bias + np.arange(3)])
    return model


@pytest.mark.usefixtures("one_runtime")
@pytest.mark.parametrize(
    ("broken", "says"),
    [
        pytest.param(
            swapped,
            "what the float model calls 'deer' it calls 'fox', and the other way round: the labels are swapped (it",
            id="swapped labels",
        ),
        pytest.param(blue_first, "it sees red as blue: its channels are BGR", id="BGR instead of RGB"),
        pytest.param(
            normalised_twice,
            "it answers every photo as the float model answers a black frame: pixels are normalised twice",
            id="double normalisation",
        ),
        pytest.param(constant, "it gives the same answer for every photo", id="constant output"),
    ],
)
def test_a_broken_model_is_refused_with_the_right_sentence(lab: Lab, broken: Callable[[Lab], Any], says: str) -> None:
    for row in lab.judge(broken(lab), lab.balanced()):
        assert not row.passed
        assert row.reason.startswith(says)


@pytest.mark.usefixtures("one_runtime")
def test_calibration_on_one_class_is_refused_whatever_the_figures_are(lab: Lab) -> None:
    for row in lab.judge(lab.model, np.flatnonzero(lab.truth == 1)[:CALIBRATION]):
        assert not row.passed
        assert row.reason.startswith(
            "it was calibrated on 12 photos of one label only, 'empty': the ranges of the other 40 of 60 photos are "
        )


@pytest.mark.usefixtures("one_runtime")
def test_calibration_on_dark_frames_is_refused_whatever_the_figures_are(lab: Lab) -> None:
    dark = (lab.photos // 10).astype(np.uint8)
    for row in lab.judge(lab.model, lab.balanced(), dark):
        assert not row.passed
        assert row.reason.startswith("it was calibrated on dark frames only: their brightness is 1")
