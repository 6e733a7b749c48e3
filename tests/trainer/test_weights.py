"""Weights that others wrote: Keras's files go in number by number, a hostile or foreign one is refused."""

from __future__ import annotations

import functools
import json
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from edge.errors import DataError
from tests.trainer import legacy_pth
from trainer.backbones import backbone

pytestmark = pytest.mark.needs("tensorflow")

NAME, SIDE = "mobilenetv3-small", 64


@functools.cache
def network(name: str = NAME, top: bool = False, seed: int = 1) -> Any:
    """A network with random weights and random statistics. Do not train it."""
    import keras

    keras.utils.set_random_seed(seed)
    model = backbone(name).build(80, 80, top=top, weights="none")
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


def loaded(file: Path, name: str = NAME, top: bool = False) -> Any:
    return backbone(name).build(80, 80, top=top, weights=str(file))


def check_same(model: Any, expected: Any) -> None:
    """Every layer of ``model`` has the numbers of the layer of that name in ``expected``."""
    for layer in model.layers:
        for found, wanted in zip(layer.get_weights(), expected.get_layer(layer.name).get_weights(), strict=True):
            assert (found == wanted).all(), layer.name


# --- writers: Keras's own, and its older ones by hand


def keras_3(model: Any, folder: Path) -> Path:
    model.save_weights(folder / "keras3.weights.h5")
    return folder / "keras3.weights.h5"


def keras_3_without_names(model: Any, folder: Path) -> Path:
    """As its first versions wrote it."""
    file = keras_3(model, folder)

    def forget(name: str, item: Any) -> None:
        item.attrs.pop("name", None)

    with h5py.File(file, "a") as root:
        root.visititems(forget)
    return file


def keras_archive(model: Any, folder: Path) -> Path:
    model.save(folder / "model.keras")
    return folder / "model.keras"


def legacy(model: Any, folder: Path, rename: Callable[[str], str] = str, place: str = "") -> Path:
    """Keras 2: fixed-length names in attributes, ``:0`` behind each tensor."""
    with h5py.File(folder / "legacy.h5", "w") as file:
        root = file.create_group(place) if place else file
        root.attrs["layer_names"] = [np.bytes_(rename(layer.name)) for layer in model.layers]
        for layer in model.layers:
            write_legacy_layer(root.create_group(rename(layer.name)), layer, rename(layer.name))
    return folder / "legacy.h5"


def write_legacy_layer(group: Any, layer: Any, name: str) -> None:
    weights = {f"{name}/{weight.path.rpartition('/')[2]}:0": weight for weight in layer.weights}
    group.attrs["weight_names"] = [np.bytes_(key) for key in weights]
    for key, weight in weights.items():
        group[key] = np.asarray(weight)


def legacy_whole_model(model: Any, folder: Path) -> Path:
    return legacy(model, folder, place="model_weights")


def legacy_names_of_another_time(model: Any, folder: Path) -> Path:
    """Automatic numbers that began elsewhere, and names with a slash, as MobileNetV3's published files have."""
    return legacy(model, folder, lambda name: f"x/{name}")


def inside_another_model(model: Any, folder: Path) -> Path:
    """A classifier as tutorials build it: the whole network is one of its layers."""
    import keras

    whole = keras.Sequential([keras.Input((80, 80, 3)), model, keras.layers.Flatten(), keras.layers.Dense(4)])
    return keras_3(whole, folder)


def legacy_inside_another_model(model: Any, folder: Path) -> Path:
    """The same in Keras 2: one layer has the tensors of many, those that are trained before the others."""
    with h5py.File(folder / "legacy.h5", "w") as file:
        file.attrs["layer_names"] = [b"base", b"dense"]
        weights = [*model.trainable_weights, *model.non_trainable_weights]
        names = {f"{weight.path}:0": np.asarray(weight) for weight in weights}
        for layer, tensors in (("base", names), ("dense", {"dense/kernel:0": np.ones((9, 2), np.float32)})):
            group = file.create_group(layer)
            group.attrs["weight_names"] = [np.bytes_(key) for key in tensors]
            for key, value in tensors.items():
                group[key] = value
    return folder / "legacy.h5"


WRITERS = [
    keras_3, keras_3_without_names, keras_archive, legacy, legacy_whole_model, legacy_names_of_another_time,
    inside_another_model, legacy_inside_another_model,
]  # fmt: skip


# --- sound files


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_number_of_every_format_finds_its_place(write: Any, tmp_path: Path) -> None:
    file = write(network(), tmp_path)
    check_same(loaded(file), network())


@pytest.mark.parametrize("write", [keras_3, keras_3_without_names, legacy], ids=lambda write: write.__name__)
def test_keras_itself_reads_the_same(write: Any, tmp_path: Path) -> None:
    """Control: what these tests write is what Keras takes for its own."""
    file = write(network(), tmp_path)
    again = network(seed=2)
    again.load_weights(file)
    check_same(again, network())
    network.cache_clear()


@pytest.mark.parametrize("name", ["vgg16", "inceptionv3", "efficientnet-lite0"])
def test_networks_with_numbered_names_and_with_a_front_of_ours(name: str, tmp_path: Path) -> None:
    if name != "vgg16":  # whose names are its own
        check_same(loaded(keras_3_without_names(network(name), tmp_path), name), network(name))
        return
    import keras

    published = keras.applications.VGG16(include_top=False, weights=None, input_shape=(80, 80, 3))
    for write in (keras_3_without_names, legacy_names_of_another_time):
        model = loaded(write(published, tmp_path), name)
        for layer in published.layers[1:]:
            for found, wanted in zip(model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
                assert (found == wanted).all()
        check_same(loaded(write(model, tmp_path), name), model)


@pytest.mark.parametrize("write", WRITERS[:6], ids=lambda write: write.__name__)
def test_a_file_with_the_imagenet_head_serves_with_and_without_it(write: Any, tmp_path: Path) -> None:
    file = write(network(top=True), tmp_path)
    check_same(loaded(file), network(top=True))
    check_same(loaded(file, top=True), network(top=True))


@pytest.mark.parametrize("write", WRITERS[:6], ids=lambda write: write.__name__)
def test_a_file_without_the_head_fills_the_rest_and_is_no_classifier(write: Any, tmp_path: Path) -> None:
    """A random head would answer, and nobody would know."""
    from trainer import weights

    file = write(network(), tmp_path)
    model = backbone(NAME).build(80, 80, top=True, weights="none")
    assert weights.load(model, backbone(NAME), file) is False
    assert (model.get_layer("conv").get_weights()[0] == network().get_layer("conv").get_weights()[0]).all()
    with pytest.raises(DataError, match="without its ImageNet head") as caught:
        loaded(file, top=True)
    assert caught.value.code == "no head"


@pytest.mark.parametrize("name", [NAME, "efficientnet-lite0", "vgg16"])
def test_a_classifier_of_ours_gives_its_network(name: str, tmp_path: Path) -> None:
    import keras

    x = keras.layers.GlobalAveragePooling2D(name="pool")(network(name).output)
    keras.Model(network(name).input, keras.layers.Dense(5, name="logits")(x)).save(tmp_path / "model.keras")
    check_same(loaded(tmp_path / "model.keras", name), network(name))
    if name == NAME:
        with pytest.raises(DataError, match="without its ImageNet head"):
            loaded(tmp_path / "model.keras", name, top=True)


def test_a_trained_file_with_its_optimizer_gives_its_network(tmp_path: Path) -> None:
    import keras

    model = keras.models.clone_model(network())
    model.set_weights(network().get_weights())
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    check_same(loaded(keras_archive(model, tmp_path)), network())


def test_half_and_double_precision_are_taken(tmp_path: Path) -> None:
    file = legacy(network(), tmp_path)
    with h5py.File(file, "a") as root:
        kernel = np.asarray(root["conv/conv/kernel:0"])
        del root["conv/conv/kernel:0"]
        root["conv/conv/kernel:0"] = kernel.astype(np.float16)
    assert loaded(file).get_layer("conv").get_weights()[0] == pytest.approx(kernel, abs=1e-3)


# --- of another network


@pytest.mark.parametrize(
    ("theirs", "ours", "says"),
    [
        (NAME, "mobilenetv2", "Conv1 of mobilenetv2 is missing.*give --backbone mobilenetv3-small"),
        ("vgg16", "vgg19", r"block3_conv4 of vgg19 is missing.*give --backbone vgg16"),
        (
            "mobilenetv2",
            "mobilenet",
            r"conv1 of mobilenet expects \(3, 3, 3, 32\), the file begins.*give --backbone mobilenetv2",
        ),
        (
            "efficientnet-lite0",
            "efficientnet-lite1",
            "blocks_3_depthwise has .*efficientnet-lite1 expects.*--backbone efficientnet-lite0",
        ),
    ],
)
@pytest.mark.parametrize("write", [keras_3, legacy], ids=lambda write: write.__name__)
def test_weights_of_another_network_are_named(theirs: str, ours: str, says: str, write: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says) as caught:
        loaded(write(network(theirs), tmp_path), ours)
    assert caught.value.code == "other network"
    assert "\n" not in str(caught.value)


def test_lite_weights_of_another_size_are_named() -> None:
    file = backbone("efficientnet-lite0").weights_file()
    with pytest.raises(DataError, match="give --backbone efficientnet-lite0") as caught:
        loaded(Path(str(file)), "efficientnet-lite2")
    assert caught.value.code == "other network"


def test_a_pth_is_for_lite_only(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(legacy_pth.of_arrays({"a": np.zeros(3, np.float32)}))
    with pytest.raises(DataError, match=r"expected .h5, .weights.h5 or .keras"):
        loaded(tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"_conv_stem\.weight is missing"):
        loaded(tmp_path / "weights.pth", "efficientnet-lite0")


def test_one_tensor_of_another_shape_is_named_and_nothing_is_taken_by_position(tmp_path: Path) -> None:
    file = legacy(network(), tmp_path)
    with h5py.File(file, "a") as root:
        del root["conv_1_bn/conv_1_bn/beta:0"]
        root["conv_1_bn/conv_1_bn/beta:0"] = np.zeros(575, np.float32)
    with pytest.raises(DataError, match=r"layer conv_1_bn has 4 tensors of shapes .*\(575,\)"):
        loaded(file)


# --- hostile and damaged files


@functools.cache
def sound() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return keras_3(network(), Path(folder)).read_bytes()


KERNEL = "layers/conv2d/vars/0"
SHAPE = (3, 3, 3, 16)


def replaced(change: Callable[[Any, Path], None]) -> Callable[[Path], Path]:
    """A file that is sound but for its first kernel, or what ``change`` does to it."""

    def write(folder: Path) -> Path:
        path = folder / "hostile.weights.h5"
        path.write_bytes(sound())
        with h5py.File(path, "a") as root:
            assert root[KERNEL].shape == SHAPE
            change(root, folder)
        return path

    return write


def instead(make: Callable[[Any, str, Path], None]) -> Callable[[Path], Path]:
    def change(root: Any, folder: Path) -> None:
        del root[KERNEL]
        make(root, KERNEL, folder)

    return replaced(change)


def soft_link(root: Any, key: str, folder: Path) -> None:
    root[key] = h5py.SoftLink("/layers/conv2d_1/vars/0")


def external_link(root: Any, key: str, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["kernel"] = np.zeros(SHAPE, np.float32)
    root[key] = h5py.ExternalLink("other.h5", "/kernel")


def external_group(root: Any, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other.create_group("all")
    root["more"] = h5py.ExternalLink(str(folder / "other.h5"), "/all")


def external_storage(root: Any, key: str, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(4 * 432))
    root.create_dataset(key, SHAPE, np.float32, external=[(str(folder / "secret"), 0, 4 * 432)])


def virtual(root: Any, key: str, folder: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, np.float32)
    layout[...] = h5py.VirtualSource("other.h5", "kernel", SHAPE)
    root.create_virtual_dataset(key, layout)


def gzipped(root: Any, key: str, folder: Path) -> None:
    root.create_dataset(key, data=np.zeros((1 << 12, 1 << 14), np.float32), compression="gzip")


def of_texts(root: Any, key: str, folder: Path) -> None:
    root.create_dataset(key, SHAPE, h5py.string_dtype())


def of_references(root: Any, key: str, folder: Path) -> None:
    root.create_dataset(key, SHAPE, h5py.ref_dtype)


def of_lists(root: Any, key: str, folder: Path) -> None:
    root.create_dataset(key, SHAPE, h5py.vlen_dtype(np.float32))


def without_numbers(root: Any, key: str, folder: Path) -> None:
    root.create_dataset(key, (1 << 20, 1 << 20), np.float32)  # four terabytes that are nowhere


def not_finite(root: Any, folder: Path) -> None:
    root[KERNEL][0, 0, 0, 0] = np.nan


def a_type(root: Any, folder: Path) -> None:
    root["layers/kind"] = np.dtype(np.float32)


def itself(root: Any, folder: Path) -> None:
    root["layers/conv2d/again"] = root["layers"]


def deep(root: Any, folder: Path) -> None:
    root.create_group("/".join(["deeper"] * 200))


def many(root: Any, folder: Path) -> None:
    from trainer import weights

    for number in range(weights.MAX_OBJECTS // 100):
        root.create_group(f"many/{number}")


def legacy_attributes(**attributes: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with h5py.File(folder / "hostile.h5", "w") as root:
            for key, value in attributes.items():
                root.attrs[key] = value
        return folder / "hostile.h5"

    return write


def one_text_many_times(folder: Path) -> Path:
    """Two thousand names that are one text of a megabyte: 2 GB out of 1 MB."""
    path = folder / "hostile.h5"
    with h5py.File(path, "w") as root:
        root.attrs.create("layer_names", ["x" * 1_000_000] + ["y"] * 1999, dtype=h5py.string_dtype())
    content = path.read_bytes()
    length = re.escape((1_000_000).to_bytes(4, "little"))
    descriptor = next(
        found
        for found in re.finditer(length + rb"(.{8})\x01\0\0\0", content, re.DOTALL)
        if content[int.from_bytes(found[1], "little") :].startswith(b"GCOL")
    )
    end = descriptor.start() + 16 * 2000
    path.write_bytes(content[: descriptor.start()] + descriptor[0] * 2000 + content[end:])
    return path


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "hostile.keras", "w", compression) as made:
            for name, content in members:
                made.writestr(name, content)
        return folder / "hostile.keras"

    return write


def lambda_config(name: str = "Lambda") -> bytes:
    return json.dumps({"config": {"layers": [{"class_name": "Dense"}, {"class_name": name, "config": {}}]}}).encode()


def with_lambda(folder: Path) -> Path:
    """A real one, as Keras saves it."""
    import keras

    x = keras.layers.Lambda(lambda values: values)(network().output)
    keras.Model(network().input, x).save(folder / "hostile.keras")
    return folder / "hostile.keras"


def twice(folder: Path) -> Path:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return archive(("model.weights.h5", sound()), ("model.weights.h5", b""))(folder)


def raw(content: Callable[[], bytes]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "hostile.h5").write_bytes(content())
        return folder / "hostile.h5"

    return write


FAULTS = [
    pytest.param(instead(soft_link), "unsafe weights", "a link", id="a soft link inside the file"),
    pytest.param(instead(external_link), "unsafe weights", "a link", id="a tensor in another file by a link"),
    pytest.param(replaced(external_group), "unsafe weights", "a link", id="a group in another file that nobody needs"),
    pytest.param(instead(external_storage), "unsafe weights", "in another file", id="numbers in another file"),
    pytest.param(instead(virtual), "unsafe weights", "put together", id="a virtual tensor"),
    pytest.param(instead(gzipped), "unsafe weights", "packed", id="a quarter of a gigabyte packed into kilobytes"),
    pytest.param(instead(of_texts), "unsafe weights", "of type object", id="texts for numbers"),
    pytest.param(instead(of_references), "unsafe weights", "of type object", id="references for numbers"),
    pytest.param(instead(of_lists), "unsafe weights", "of type object", id="lists for numbers"),
    pytest.param(instead(without_numbers), "unsafe weights", "without its numbers", id="four terabytes of nothing"),
    pytest.param(replaced(not_finite), "data", "not finite", id="a number that is none"),
    pytest.param(replaced(a_type), "unsafe weights", "neither a group nor a tensor", id="a named type"),
    pytest.param(replaced(itself), "unsafe weights", "twice", id="a group that holds itself"),
    pytest.param(replaced(deep), "unsafe weights", "deep", id="groups without end"),
    pytest.param(legacy_attributes(layer_names=[b"conv"]), "damaged", "not there", id="a layer named and not there"),
    pytest.param(legacy_attributes(layer_names=[b"../.."]), "damaged", "not there", id="a layer outside the file"),
    pytest.param(legacy_attributes(layer_names=[1, 2]), "unsafe weights", "no text", id="numbers for names"),
    pytest.param(legacy_attributes(layer_names=[b"\xff\xfe"]), "damaged", "not there", id="names that are no text"),
    pytest.param(
        legacy_attributes(layer_names=[b"a"], model_config=lambda_config()), "unsafe weights", "Lambda",
        id="a Lambda layer in an older file",
    ),
    pytest.param(one_text_many_times, "unsafe weights", "bytes of names", id="one long name two thousand times"),
    pytest.param(legacy_attributes(), "other network", "holds no weights of layers", id="an empty file"),
    pytest.param(with_lambda, "unsafe weights", "Lambda", id="a Lambda layer as Keras saves it"),
    pytest.param(
        archive(("config.json", lambda_config("__lambda__")), ("model.weights.h5", b"")), "unsafe weights", "Lambda",
        id="a bare lambda",
    ),
    pytest.param(archive(("config.json", b"{}")), "damaged", "no model.weights.h5", id="an archive without weights"),
    pytest.param(twice, "unsafe weights", "two members", id="an archive with two members of one name"),
    pytest.param(
        archive(("model.weights.h5", bytes(1 << 24)), compression=zipfile.ZIP_DEFLATED), "unsafe weights", "unpack",
        id="an archive that grows a thousandfold",
    ),
    pytest.param(
        archive(("config.json", b"[" * 100_000), ("model.weights.h5", b"")), "damaged", "config.json",
        id="a description nested without end",
    ),
    pytest.param(archive(("model.weights.h5", b"no HDF5")), "damaged", "", id="an archive of something else"),
    pytest.param(raw(lambda: b"PK\x03\x04 and no more"), "damaged", "", id="the beginning of an archive"),
    pytest.param(raw(lambda: sound()[:8]), "damaged", "", id="the signature alone"),
    pytest.param(raw(lambda: sound()[: len(sound()) // 2]), "damaged", "cut short", id="half a file"),
    pytest.param(raw(lambda: sound()[:-1]), "damaged", "cut short", id="a file without its last byte"),
    pytest.param(raw(lambda: b""), "damaged", "expected .h5", id="no bytes"),
    pytest.param(raw(lambda: b"\x80\x04K\x01."), "damaged", "expected .h5", id="a pickle"),
]  # fmt: skip


@pytest.fixture(scope="module")
def target() -> Any:
    return backbone(NAME).build(SIDE, SIDE, weights="none")


@pytest.mark.parametrize(("write", "code", "says"), FAULTS)
def test_a_faulty_file_is_refused(write: Any, code: str, says: str, target: Any, tmp_path: Path) -> None:
    from trainer import weights

    file = write(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError) as caught:
        weights.load(target, backbone(NAME), file)
    text = str(caught.value)
    assert (caught.value.code, says in text) == (code, True), text
    assert file.name in text
    assert "\n" not in text
    assert len(text) < 500
    assert sorted(tmp_path.iterdir()) == before


def test_the_files_that_faults_are_put_into_are_sound(target: Any, tmp_path: Path) -> None:
    """Control: without the fault each of them would be taken."""
    from trainer import weights

    file = replaced(lambda root, folder: None)(tmp_path)
    weights.load(target, backbone(NAME), file)
    check_same(target, network())
    weights.load(target, backbone(NAME), archive(("model.weights.h5", sound()))(tmp_path))


def test_more_objects_than_any_network_has(target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer import weights

    monkeypatch.setattr(weights, "MAX_OBJECTS", 500)
    with pytest.raises(DataError, match="more than 500 objects"):
        weights.load(target, backbone(NAME), replaced(many)(tmp_path))


def test_a_file_that_is_too_large_or_no_file_is_refused(
    target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import weights

    with pytest.raises(DataError, match=r"no file. --weights takes imagenet, none or"):
        weights.load(target, backbone(NAME), tmp_path)
    with pytest.raises(DataError, match="no file"):
        weights.load(target, backbone(NAME), tmp_path / "imagnet")
    file = replaced(lambda root, folder: None)(tmp_path)
    monkeypatch.setattr(weights, "MAX_FILE_BYTES", file.stat().st_size - 1)
    with pytest.raises(DataError, match="at most"):
        weights.load(target, backbone(NAME), file)


def test_a_file_has_a_digest(tmp_path: Path) -> None:
    from trainer import weights

    (tmp_path / "file").write_bytes(b"abc")
    assert weights.digest(tmp_path / "file").startswith("ba7816bf")
    with pytest.raises(DataError, match="No such file"):
        weights.digest(tmp_path / "none")


def test_a_packed_archive_that_is_damaged_is_said_to_be(tmp_path: Path) -> None:
    """zlib raises an error of its own, which is neither the archive's nor the operating system's."""
    from trainer import weights

    file = tmp_path / "model.keras"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(range(256)) * 100)
    content = bytearray(file.read_bytes())
    content[60:80] = b"\xff" * 20
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.keras is damaged") as caught:
        weights._unzipped(file, tmp_path)
    assert caught.value.code == "damaged"
