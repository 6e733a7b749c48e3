"""Features in a file: the numbers that the network gives, for the right photos, and nothing hostile is read."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge.errors import ConfigError, DataError
from edge.model.spec import InputSpec
from trainer.backbones import backbone
from trainer.progress import Steps

pytestmark = pytest.mark.needs("tensorflow")

SPEC = InputSpec(64, 64)
RANDOM = np.random.default_rng(4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels of three photos, and one file that is no photo inside."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(6):
        file = folder / ("deer", "fox")[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        coarse = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((90, 60), Image.Resampling.BICUBIC).save(file)
    (folder / "fox" / "broken.jpg").write_bytes(b"\xff\xd8 and no more")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def request(name: str = "mobilenetv3-small", **changes: Any) -> Any:
    from trainer.feature_file import Request

    return Request(backbone(name), **{"weights": "none", "spec": SPEC, **changes})


def written(data: Path, out: Path, what: Any) -> Any:
    from trainer import feature_file

    return feature_file.write(data, out, what, Steps(quiet=True))


@pytest.fixture(scope="module")
def sound(data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole file, as bytes."""
    out = tmp_path_factory.mktemp("sound") / "features.npz"
    written(data, out, request())
    return out.read_bytes()


# --- what is in it


def test_features_are_the_network_s_for_each_photo(data: Path, tmp_path: Path) -> None:
    from edge import photo as photos
    from edge.model.preprocess import to_pixels

    found = written(data, tmp_path / "f.npz", request("efficientnet-lite0", weights="imagenet"))
    assert found.photos == ("deer/0.png", "deer/2.png", "deer/4.png", "fox/1.png", "fox/3.png", "fox/5.png")
    assert found.label_names == ("deer", "fox")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [(bad.name, bad.label) for bad in found.unreadable] == [("fox/broken.jpg", "fox")]
    network = backbone("efficientnet-lite0").build(64, 64)
    files = [photos.read(data / name) for name in found.photos]
    pixels = np.stack([to_pixels(photos.open_image(file.data, "x"), SPEC) for file in files])
    expected = np.asarray(network(pixels, training=False)).mean(axis=(1, 2))
    assert found.features == pytest.approx(expected, abs=1e-4)
    assert np.ptp(found.features, axis=0).max() > 0.1  # control: photos differ
    assert found.sha256s == tuple(file.sha256 for file in files)


def test_anyone_can_open_it_without_pickles(sound: bytes, data: Path) -> None:
    with np.load(io.BytesIO(sound), allow_pickle=False) as opened:
        assert opened["features"].shape == (6, 576)
        assert opened["photos"][0] == "deer/0.png"
        assert sorted(set(opened["groups"].tolist())) == [0, 1, 2, 3, 4, 5]
        meta = json.loads(str(opened["meta"]))
    assert meta == {
        "schema": 1, "backbone": "mobilenetv3-small", "layer": None, "pooling": "avg", "weights": "none",
        "weights_name": "none", "normalise": "own", "seed": 0,
        "input": {"height": 64, "width": 64, "resample": "bilinear", "aspect": "stretch", "cut_top": 0,
                  "cut_bottom": 0},
        "data_folder": str(data),
    }  # fmt: skip


def test_reading_gives_back_what_was_written(data: Path, tmp_path: Path) -> None:
    from trainer import feature_file

    made = written(data, tmp_path / "f.npz", request(pooling="none", layer="conv"))
    found = feature_file.read(tmp_path / "f.npz")
    assert found.features.shape == (6, 32, 32, 16)
    assert (found.features == made.features).all()
    for name in ("labels", "groups", "infrared"):
        assert (getattr(found, name) == getattr(made, name)).all()
    assert found.meta == made.meta
    assert found.unreadable == []
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_facts_of_a_csv_go_along(data: Path, tmp_path: Path) -> None:
    lines = ["file,label,station,sequence,time", "deer/0.png,deer,north,a,2026-05-01 10:00:00", "fox/1.png,fox,south,,"]
    (data / "list.csv").write_text("\n".join(lines))
    try:
        found = written(data / "list.csv", tmp_path / "f.npz", request())
    finally:
        (data / "list.csv").unlink()
    assert found.stations == ("north", "south")
    assert found.sequences == ("a", "")
    assert found.taken[0].startswith("2026-05-01T10:00:00")
    assert found.taken[1] == ""


def test_photos_without_labels_are_taken_too(data: Path, tmp_path: Path) -> None:
    from trainer.feature_file import NO_LABEL

    found = written(data / "fox", tmp_path / "f.npz", request())
    assert found.photos == ("1.png", "3.png", "5.png")
    assert found.labels.tolist() == [NO_LABEL] * 3
    assert found.label_names == ()
    assert [bad.name for bad in found.unreadable] == ["broken.jpg"]


@pytest.mark.parametrize(
    ("pooling", "shape"),
    [("avg", (6, 576)), ("max", (6, 576)), ("avg+max", (6, 1152)), ("flatten", (6, 2304)), ("none", (6, 2, 2, 576))],
)
def test_every_pooling_has_its_shape(data: Path, tmp_path: Path, pooling: str, shape: tuple[int, ...]) -> None:
    assert written(data, tmp_path / "f.npz", request(pooling=pooling)).features.shape == shape


@pytest.mark.parametrize(
    ("layer", "width"),
    [("expanded_conv_2_add", 24), ("conv_2", 1024), ("predictions", 1000), ("1", 16)],
)
def test_a_layer_by_name_or_number_also_of_the_head(data: Path, tmp_path: Path, layer: str, width: int) -> None:
    assert written(data, tmp_path / "f.npz", request(layer=layer)).features.shape == (6, width)


def test_vgg16_s_fc2_has_4096_numbers() -> None:
    from trainer import feature_file

    network = feature_file.extractor(request("vgg16", layer="fc2", spec=None))
    assert network.input.shape == (None, 224, 224, 3)
    assert network.output.shape == (None, 4096)


def test_the_digest_of_a_weights_file_is_kept(data: Path, tmp_path: Path) -> None:
    from trainer import weights

    file = tmp_path / "own.weights.h5"
    backbone("mobilenetv3-small").build(64, 64, weights="none").save_weights(file)
    found = written(data, tmp_path / "f.npz", request(weights=str(file)))
    assert found.meta["weights"] == weights.digest(file)
    assert found.meta["weights_name"] == "own.weights.h5"


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"layer": "expanded_conv_2_ad"}, "Did you mean expanded_conv_2_add", id="a layer misspelt"),
        pytest.param({"layer": "9999"}, r"has layers 0 to \d+, found 9999", id="a number behind the last"),
        pytest.param({"pooling": "mean"}, "expected one of avg, max", id="a pooling that is not known"),
        pytest.param({"spec": InputSpec(20, 20)}, "32 to 2048", id="an input too small"),
    ],
)
def test_what_cannot_be_extracted_is_refused_before_photos_are_read(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        written(tmp_path / "nowhere", tmp_path / "f.npz", request(**changes))
    assert not list(tmp_path.iterdir())


def test_an_out_that_cannot_be_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.npz"):
        written(data, tmp_path / "f.csv", request())
    with pytest.raises(DataError, match="cannot be written: No such file"):
        written(data, tmp_path / "none" / "f.npz", request())


def test_no_photo_at_all_is_an_error_and_leaves_an_older_file(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    (tmp_path / "f.npz").write_bytes(b"older")
    with pytest.raises(DataError, match=r"no photo can be read, a.jpg is empty"):
        written(tmp_path / "photos", tmp_path / "f.npz", request())
    assert (tmp_path / "f.npz").read_bytes() == b"older"


Change = Callable[[dict[str, Any]], None]


def changed(content: bytes, change: Change, *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The members of a sound file, as bytes, after a change."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, value in members.items():
            archive.writestr(name, value)
    return made.getvalue()


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    made = io.BytesIO()
    np.save(made, array, allow_pickle=allow_pickle)
    return made.getvalue()


def claims(shape: tuple[int, ...]) -> bytes:
    """The header of an array of this shape, and four numbers."""
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": "<f4", "fortran_order": False, "shape": shape})  # type: ignore[no-untyped-call]
    return made.getvalue() + bytes(16)


def meta(**changes: Any) -> Change:
    def change(members: dict[str, Any]) -> None:
        known = json.loads(str(np.load(io.BytesIO(members["meta.npy"]))))
        members["meta.npy"] = npy(np.array(json.dumps(known | changes)))

    return change


def member(name: str, content: bytes) -> Change:
    return lambda members: members.update({f"{name}.npy": content})


HOSTILE = [
    pytest.param(member("labels", npy(np.array([None] * 6), allow_pickle=True)), "header", id="a pickle for labels"),
    pytest.param(member("features", claims((1 << 40, 4))), "header", id="sixteen terabytes of features"),
    pytest.param(member("features", claims((-1, -4))), "header", id="a negative shape"),
    pytest.param(member("features", npy(np.zeros((6, 3), np.float64))), "float64", id="features in double precision"),
    pytest.param(member("features", npy(np.zeros((5, 3), np.float32))), "expected", id="a photo too few"),
    pytest.param(member("features", npy(np.zeros((0, 3), np.float32))), "shape", id="no photo"),
    pytest.param(member("features", npy(np.zeros(6, np.float32))), "shape", id="one number each"),
    pytest.param(member("features", npy(np.asfortranarray(np.zeros((6, 3), np.float32)))), "header", id="by columns"),
    pytest.param(member("labels", npy(np.array([0, 1, 2, 0, 1, 0]))), "labels go", id="a label without a name"),
    pytest.param(member("labels", npy(np.array([0, 1, -2, 0, 1, 0]))), "labels go", id="a negative label"),
    pytest.param(member("photos", npy(np.array(["x" * 5000] * 6))), "short text", id="endless names"),
    pytest.param(member("photos", npy(np.arange(6))), "expected short text", id="numbers for names"),
    pytest.param(member("meta", npy(np.array("{"))), "description", id="a description that is no JSON"),
    pytest.param(member("meta", npy(np.array("[" * 100_000))), "description", id="a description without end"),
    pytest.param(meta(schema=2), "schema is 2", id="a later schema"),
    pytest.param(meta(backbone=7), "description", id="a number for a backbone"),
    pytest.param(meta(input={"height": 0, "width": 9}), "description", id="an input of no height"),
    pytest.param(member("labels", b"no array"), "damaged", id="a member that is no array"),
    pytest.param(member("labels", b"\x93NUMPY\x01\x00\x76\x00{'a': (" + b" " * 110), "damaged", id="half a header"),
    pytest.param(member("taken", npy(np.full(6, 0x110000, "<u4").view("<U1"))), "damaged", id="no characters"),
    pytest.param(member("taken", npy(np.array(["now"] * 6))), "damaged", id="a time that is none"),
    pytest.param(member("sha256s", npy(np.array(["/etc/passwd"] * 6))), "SHA-256", id="a path for a hash"),
    pytest.param(member("parts", npy(np.array(["tset"] * 6))), "part", id="a part that is none"),
    pytest.param(member("label_names", npy(np.array(["fox", "fox"]))), "twice", id="a label twice"),
    pytest.param(meta(layer=3), "description", id="a number for a layer"),
    pytest.param(meta(seed="x"), "description", id="a text for a seed"),
    pytest.param(lambda members: members.pop("groups.npy"), "it holds", id="a member missing"),
    pytest.param(member("more", npy(np.zeros(3))), "it holds", id="a member too many"),
]


@pytest.mark.parametrize(("change", "says"), HOSTILE)
def test_a_file_that_is_not_ours_is_refused(change: Change, says: str, sound: bytes, tmp_path: Path) -> None:
    from trainer import feature_file

    (tmp_path / "f.npz").write_bytes(changed(sound, change))
    with pytest.raises(DataError, match=says) as caught:
        feature_file.read(tmp_path / "f.npz")
    assert caught.value.code == "features"
    assert "\n" not in str(caught.value)


def test_the_files_that_faults_are_put_into_are_sound(sound: bytes, tmp_path: Path) -> None:
    """Control."""
    from trainer import feature_file

    (tmp_path / "f.npz").write_bytes(changed(sound, lambda members: None))
    assert feature_file.read(tmp_path / "f.npz").features.shape == (6, 576)


def test_a_packed_or_damaged_file_is_refused(sound: bytes, tmp_path: Path) -> None:
    from trainer import feature_file

    path = tmp_path / "f.npz"
    path.write_bytes(changed(sound, lambda members: None, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(DataError, match="is packed"):
        feature_file.read(path)
    for length in (0, 4, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:length])
        with pytest.raises(DataError, match="damaged"):
            feature_file.read(path)
    with pytest.raises(DataError, match="No such file"):
        feature_file.read(tmp_path / "none.npz")
    with pytest.raises(DataError, match="Is a directory"):
        feature_file.read(tmp_path)
