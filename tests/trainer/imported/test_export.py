"""Models from elsewhere through the command: the same gate, the same bundle, and refused where they make no sense."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edge.errors import ConfigError, DataError, FieldmarkError, ModelError
from edge.model import bundle as bundles
from tests.trainer.imported import foreign
from tests.trainer.test_cli import run as command

pytestmark = pytest.mark.needs("tensorflow")
NAMES = ("fox", "deer", "hare", "empty")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The twelve photos, three times as noisy copies of other sizes, in a folder per label."""
    folder = tmp_path_factory.mktemp("photos")
    for i, pixels in enumerate(foreign.photos()):
        for copy in range(3):
            path = folder / NAMES[foreign.TRUTH[i]] / f"{i:02d}-{copy}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).rotate(90 * copy).save(path)
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Numbered, as Teachable Machine writes them."""
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"{i} {name}\n" for i, name in enumerate(NAMES)))
    return path


def exported(model: Path, photos: Path, labels: Path, *options: object) -> dict[str, Any]:
    """What the command prints for scripts."""
    out, _ = command(
        "export", "--from", model, "--data", photos, "--labels", labels, "--out", model.with_suffix(".fmb"), "--json",
        *options,
    )  # fmt: skip
    return dict(json.loads(out))


@pytest.mark.parametrize("style", ["float32", "uint8"])
def test_a_tflite_becomes_a_bundle_of_the_variant_that_it_is(
    tflite: Callable[[str], bytes], photos: Path, labels: Path, tmp_path: Path, style: str
) -> None:
    model = tmp_path / "model_unquant.tflite"
    model.write_bytes(tflite(style))
    found = exported(model, photos, labels, "--scaling", "-1..1", "--weights-licence", "CC0-1.0")
    assert found["variant"] == ("int8" if style == "uint8" else "float32")
    manifest = bundles.open_bundle(Path(found["path"])).manifest
    assert (manifest.name, [label.name for label in manifest.labels]) == ("model_unquant", list(NAMES))
    assert manifest.provenance.weights_licence == "CC0-1.0"
    assert manifest.provenance.metrics["accuracy"] == 1.0
    assert {row["runtime"] for row in found["gate"]} == {entry.name for entry in manifest.runtimes}


def test_a_keras_file_is_quantized_like_a_run(network: Any, photos: Path, labels: Path, tmp_path: Path) -> None:
    network.save(tmp_path / "own.keras")
    found = exported(tmp_path / "own.keras", photos, labels, "--scaling", "-1..1")
    assert found["variant"] == "int8"
    assert all(row["passed"] for row in found["gate"])
    assert exported(tmp_path / "own.keras", photos, labels, "--scaling", "-1..1")["digest"] == found["digest"]


def test_labels_in_another_order_are_found_out(
    tflite: Callable[[str], bytes], photos: Path, labels: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.tflite").write_bytes(tflite("float32"))
    labels.write_text("\n".join((NAMES[1], NAMES[2], NAMES[0], NAMES[3])))
    with pytest.raises(ModelError, match=r"gets 9 of 36 photos right.*the labels are in another order"):
        exported(tmp_path / "m.tflite", photos, labels, "--scaling", "-1..1")
    assert not (tmp_path / "m.fmb").exists()


@pytest.mark.parametrize(
    ("name", "options", "kind", "says"),
    [
        pytest.param("m.tflite", ["--scaling", "raw"], ModelError, "always saying", id="pixels scaled in another way"),
        pytest.param("m.tflite", [], ModelError, "scaling", id="nothing says how pixels are scaled"),
        pytest.param("m.tflite", ["--scaling", "-1..1", "--input", "99"], ConfigError, "99 x 99", id="another size"),
        pytest.param(
            "m.tflite", ["--scaling", "-1..1", "--variant", "int8"], ConfigError, "is float32 already",
            id="a variant that it cannot become",
        ),
        pytest.param("m.onnx", [], DataError, "no model that can be imported", id="a file of another kind"),
        pytest.param("none.tflite", [], DataError, "cannot be read", id="a file that is not there"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_refused_and_nothing_written(
    tflite: Callable[[str], bytes],
    photos: Path,
    labels: Path,
    tmp_path: Path,
    name: str,
    options: list[str],
    kind: type[FieldmarkError],
    says: str,
) -> None:
    (tmp_path / "m.tflite").write_bytes(tflite("float32"))
    (tmp_path / "m.onnx").write_bytes(b"onnx")
    with pytest.raises(kind, match=says):
        exported(tmp_path / name, photos, labels, *options)
    assert not list(tmp_path.glob("*.fmb"))
