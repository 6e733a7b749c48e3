"""Keras models as others save them, wrapped; and files that would run code."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from edge.errors import FieldmarkError, ModelError
from tests.trainer.imported import foreign
from trainer.imported.scaling import PRESETS, RAW, Scaling

pytestmark = pytest.mark.needs("tensorflow")
TM = PRESETS["-1..1"]
PHOTOS = foreign.photos()


def load(path: Path, scaling: Scaling | None, classes: int = 4) -> Any:
    from trainer.imported import keras_file  # imports Keras

    return keras_file.load(path, scaling, classes)


def saved(model: Any, folder: Path, suffix: str) -> Path:
    path = folder / f"model{suffix}"
    model.save(path)
    return path


def teachable_machine() -> Any:
    """Nested as Teachable Machine's ``keras_model.h5``: two Sequentials in one, the second the trained head."""
    import keras

    whole = foreign.network()
    body = keras.Sequential(whole.layers[1:-1], name="sequential_1")
    head = keras.Sequential([keras.layers.Dense(4, activation="softmax")], name="sequential_3")
    model = keras.Sequential([keras.Input((foreign.SIDE, foreign.SIDE, 3)), body, head])
    head.layers[0].set_weights(whole.layers[-1].get_weights())
    return model


def ends_in(layer: Callable[[Any], Any]) -> Any:
    import keras

    linear = foreign.network(end="linear")
    return keras.Model(linear.input, layer(linear.output))


def softmax_layer() -> Any:
    import keras

    return ends_in(keras.layers.Softmax())


def softmax_activation() -> Any:
    import keras

    return ends_in(keras.layers.Activation("softmax"))


def softmax_operation() -> Any:
    import keras

    return ends_in(keras.ops.softmax)


def fitted() -> Any:
    model = foreign.network()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(foreign.scaled(PHOTOS), foreign.TRUTH, verbose=0)
    return model


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    "build",
    [foreign.network, fitted, teachable_machine, softmax_layer, softmax_activation, softmax_operation],
    ids=lambda build: str(build.__name__),
)
def test_a_wrapped_model_answers_as_the_original_did(build: Callable[[], Any], suffix: str, tmp_path: Path) -> None:
    model = build()
    wanted = model.predict(foreign.scaled(PHOTOS), verbose=0)
    wrapped = load(saved(model, tmp_path, suffix), TM)
    found = wrapped.predict(PHOTOS, verbose=0)
    np.testing.assert_allclose(foreign.softmax(found), wanted, atol=1e-5)
    assert (wrapped.input.dtype, wrapped.input.shape) == ("uint8", (None, foreign.SIDE, foreign.SIDE, 3))
    assert wrapped.output.dtype == "float32"
    assert np.abs(found.sum(axis=1) - 1).max() > 0.1  # logits, no probabilities


def test_a_file_of_teachable_machine_loads_although_its_keras_was_older(tmp_path: Path) -> None:
    path = saved(teachable_machine(), tmp_path, ".h5")
    with h5py.File(path, "r+") as root:
        config = json.loads(root.attrs["model_config"])
        layer = config["config"]["layers"][1]["config"]["layers"][-3]
        assert layer["class_name"] == "ReLU"
        depthwise = config["config"]["layers"][1]["config"]["layers"][-4]
        depthwise["config"]["groups"] = 1
        root.attrs["model_config"] = json.dumps(config)
    found = load(path, TM).predict(PHOTOS, verbose=0)
    assert (found.argmax(axis=1) == foreign.TRUTH).all()


def test_probabilities_of_which_no_softmax_can_be_taken_off_become_logarithms(tmp_path: Path) -> None:
    import keras

    model = foreign.network()
    shaped = keras.Model(model.input, keras.layers.Reshape((4,))(model.output))
    found = load(saved(shaped, tmp_path, ".keras"), TM).predict(PHOTOS, verbose=0)
    assert found.max() < 0
    np.testing.assert_allclose(foreign.softmax(found), model.predict(foreign.scaled(PHOTOS), verbose=0), atol=1e-5)


def test_logits_stay_as_they_are(tmp_path: Path) -> None:
    model = foreign.network(end="linear")
    found = load(saved(model, tmp_path, ".keras"), TM).predict(PHOTOS, verbose=0)
    np.testing.assert_allclose(found, model.predict(foreign.scaled(PHOTOS), verbose=0), atol=1e-4)


def test_a_wrapped_model_becomes_a_tflite_that_the_device_can_run(tmp_path: Path) -> None:
    from trainer.imported import flat

    wrapped = load(saved(foreign.network(), tmp_path, ".keras"), TM)
    read = flat.read(foreign.convert(wrapped, "float32"))
    assert read.tensors[read.input].kind == "UINT8"


# --- the scaling


def test_a_model_that_scales_pixels_itself_needs_no_scaling(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((foreign.SIDE, foreign.SIDE, 3))
    inside = keras.Sequential([keras.layers.Rescaling(1 / 127.5, offset=-1)])
    model = keras.Model(inputs, foreign.network()(inside(inputs)))
    path = saved(model, tmp_path, ".keras")
    found = load(path, None).predict(PHOTOS, verbose=0)
    assert (found.argmax(axis=1) == foreign.TRUTH).all()
    np.testing.assert_array_equal(load(path, RAW).predict(PHOTOS, verbose=0), found)
    twice = load(path, TM).predict(PHOTOS, verbose=0)
    assert (twice.argmax(axis=1) == foreign.TRUTH).mean() <= 0.5


def test_a_model_that_does_not_say_needs_the_option(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not say how it wants them"):
        load(saved(foreign.network(), tmp_path, ".keras"), None)


def test_channels_change_places_with_their_own_means(tmp_path: Path) -> None:
    model = foreign.network()
    given = Scaling((120.0, 130.0, 140.0), (100.0, 110.0, 120.0), bgr=True)
    scaled = ((PHOTOS - np.array(given.mean)) / np.array(given.std))[..., ::-1]
    found = load(saved(model, tmp_path, ".keras"), given).predict(PHOTOS, verbose=0)
    wanted = model.predict(scaled.astype(np.float32), verbose=0)
    np.testing.assert_allclose(foreign.softmax(found), wanted, atol=1e-5)


def test_pixels_that_go_in_as_bytes_are_not_scaled_twice(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((foreign.SIDE, foreign.SIDE, 3), dtype="uint8")
    model = keras.Model(inputs, foreign.network()(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)))
    path = saved(model, tmp_path, ".keras")
    assert (load(path, None).predict(PHOTOS, verbose=0).argmax(axis=1) == foreign.TRUTH).all()
    with pytest.raises(ModelError, match="would do it twice"):
        load(path, TM)


# --- what is no classifier of photos


def small(shape: tuple[int | None, ...], units: int, activation: str) -> Any:
    import keras

    inputs = keras.Input(shape)
    x = keras.layers.GlobalAveragePooling2D()(inputs) if len(shape) == 3 else inputs
    return keras.Model(inputs, keras.layers.Dense(units, activation=activation)(x))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        pytest.param(lambda: small((8, 8, 3), 1, "sigmoid"), "single number", id="one sigmoid"),
        pytest.param(lambda: small((8, 8, 3), 4, "sigmoid"), "by itself", id="four sigmoids"),
        pytest.param(lambda: small((8, 8, 3), 7, "softmax"), "there are 4 labels", id="another number of classes"),
        pytest.param(lambda: small((None, None, 3), 4, "softmax"), "fixed height and width", id="no fixed size"),
        pytest.param(lambda: small((8, 8, 1), 4, "softmax"), "expected photos", id="grey photos"),
        pytest.param(lambda: small((24,), 4, "softmax"), "expected photos", id="a vector"),
    ],
)
def test_what_is_no_classifier_of_photos_is_refused(build: Callable[[], Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=says):
        load(saved(build(), tmp_path, ".keras"), TM)


# --- harm


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_layer_is_refused_and_not_run(suffix: str, tmp_path: Path) -> None:
    import keras

    model = foreign.network()
    ran = str(tmp_path / "ran")
    code = keras.layers.Lambda(lambda x: (open(ran, "w"), x)[1], output_shape=(4,))  # noqa: SIM115
    path = saved(keras.Model(model.input, code(model.output)), tmp_path, suffix)
    Path(ran).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="Lambda, Python code") as caught:
        load(path, TM)
    assert caught.value.code == "unsafe"
    assert not Path(ran).exists()


def repacked(path: Path, **members: bytes | None) -> Path:
    """A ``.keras`` file with members replaced, added or left out; ``__`` stands for a dot."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts.update({name.replace("__", "."): content for name, content in members.items() if content is not None})
    for name in [name.replace("__", ".") for name, content in members.items() if content is None]:
        del parts[name]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    path.write_bytes(out.getvalue())
    return path


def with_part(path: Path, part: dict[str, Any]) -> Path:
    """A ``.keras`` file that describes one thing more, deep inside."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    config["config"]["layers"][1]["config"]["kernel_initializer"] = part
    return repacked(path, config__json=json.dumps(config).encode())


@pytest.mark.parametrize(
    "part",
    [
        pytest.param({"class_name": "__lambda__", "config": {"value": "AAAA"}}, id="a Python lambda"),
        pytest.param({"class_name": "function", "module": "os", "config": "system"}, id="a function of os"),
        pytest.param({"class_name": "get_file", "module": "keras.utils", "config": {}}, id="a download"),
        pytest.param({"class_name": "Popen", "module": "subprocess", "config": {"args": "id"}}, id="a process"),
        pytest.param({"class_name": "Dense", "module": "evil.dense", "config": {}}, id="a layer from elsewhere"),
        pytest.param({"class_name": "TFSMLayer", "module": "keras.layers", "config": {}}, id="a saved graph"),
        pytest.param(
            {"class_name": "StringLookup", "module": "keras.layers", "config": {}}, id="a layer that opens files"
        ),
        pytest.param({"class_name": "load_model", "module": "keras.src.saving", "config": {}}, id="another model"),
        pytest.param({"class_name": ["Dense"], "config": {}}, id="a name that is a list"),
    ],
)
def test_anything_but_keras_own_layers_is_refused(part: dict[str, Any], tmp_path: Path) -> None:
    path = with_part(saved(foreign.network(), tmp_path, ".keras"), part)
    with pytest.raises(ModelError) as caught:
        load(path, TM)
    assert caught.value.code == "unsafe"


def linked(path: Path) -> Path:
    with h5py.File(path, "r+") as root:
        root["elsewhere"] = h5py.ExternalLink("/etc/hostname", "/")
    return path


def outside_numbers(path: Path) -> Path:
    with h5py.File(path, "r+") as root:
        root.create_dataset("numbers", (4,), "f4", external=[("/etc/hostname", 0, 16)])
    return path


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lambda p: p.write_bytes(b""), "neither", id="an empty file"),
        pytest.param(lambda p: p.write_bytes(b"PK\x03\x04" * 9), "cannot be loaded", id="no zip after all"),
        pytest.param(lambda p: p.write_bytes(p.read_bytes()[:-100]), "cannot be loaded", id="a .keras cut short"),
        pytest.param(lambda p: repacked(p, assets__txt=b"x"), "more than a description", id="a file too many"),
        pytest.param(lambda p: repacked(p, model__weights__h5=None), "cannot be loaded", id="no weights"),
        pytest.param(
            lambda p: repacked(p, model__weights__h5=b"x" * 99), "cannot be loaded", id="weights that are none"
        ),
        pytest.param(lambda p: repacked(p, config__json=b"[" * 99_999), "cannot be loaded|unpacks", id="deep JSON"),
        pytest.param(lambda p: repacked(p, config__json=b"{}"), "cannot be loaded|no model", id="an empty description"),
        pytest.param(lambda p: repacked(p, model__weights__h5=bytes(2**24)), "unpacks to 16777216", id="a zip bomb"),
    ],
)
def test_a_damaged_keras_file_is_refused(damage: Callable[[Path], Any], says: str, tmp_path: Path) -> None:
    path = saved(foreign.network(), tmp_path, ".keras")
    damage(path)
    with pytest.raises(ModelError, match=says):
        load(path, TM)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(linked, "a link", id="a link to another file"),
        pytest.param(outside_numbers, "another file", id="numbers in another file"),
        pytest.param(lambda p: p.write_bytes(p.read_bytes()[:4000]), "cannot be loaded", id="cut short"),
        pytest.param(
            lambda p: h5py.File(p, "r+").attrs.pop("model_config"), "weights and no model", id="weights alone"
        ),
    ],
)
def test_a_damaged_h5_file_is_refused(damage: Callable[[Path], Any], says: str, tmp_path: Path) -> None:
    path = saved(foreign.network(), tmp_path, ".h5")
    damage(path)
    with pytest.raises(FieldmarkError, match=says):
        load(path, TM)


def test_a_missing_or_huge_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.imported import keras_file

    with pytest.raises(ModelError, match="is no file"):
        load(tmp_path / "none.keras", TM)
    path = saved(foreign.network(), tmp_path, ".keras")
    monkeypatch.setattr(keras_file, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ModelError, match="at most 1000"):
        load(path, TM)
