"""From labelled photos to a device, once and for real: train, export, flash, evaluate. Every test looks at one run.

The photos are small drawings and the input is 96 x 96, so that all of it takes under a minute on two cores.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edge.agent import slots
from edge.errors import DataError, FieldmarkError, ModelError
from edge.model import bundle as bundles
from edge.model import classify, golden, preprocess, runtime
from edge.model.decide import probabilities
from edge.model.interpreter import Model
from edge.model.spec import InputSpec
from tests.fakes import tiny
from tests.trainer import drawn
from trainer import export as exporting
from trainer import quantize
from trainer import run as runs
from trainer.cli import app
from trainer.export import flow
from trainer.progress import Steps
from trainer.run import Facts

pytestmark = pytest.mark.needs("tensorflow")

SIDE = 96
BURSTS, PER_BURST = 5, 3
PHOTOS = len(drawn.LABELS) * BURSTS * PER_BURST
LITERT = "ai_edge_litert"  # the one that may be loaded beside TensorFlow
BROKEN = {"fox/cut.jpg": "truncated", "fox/clip.mp4": "video", "deer/zero.jpg": "empty"}


def command(*arguments: object) -> str:
    """Standard output of a command of the workstation. A refusal is raised, as the front door expects it."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(done.exception, FieldmarkError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@dataclass(frozen=True)
class Chain:
    """What the commands left, and what they printed as JSON."""

    data: Path
    run: Path
    bundle: Path
    trained: dict[str, Any]
    exported: dict[str, Any]

    @property
    def facts(self) -> Facts:
        return runs.read(self.run).facts

    @property
    def manifest(self) -> bundles.Manifest:
        return bundles.open_bundle(self.bundle).manifest


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Train and export. Three of the files are no photos."""
    folder = tmp_path_factory.mktemp("chain")
    data = folder / "data"
    drawn.write_set(data, bursts=BURSTS, per_burst=PER_BURST)
    whole = (data / "fox/IMG_0000.jpg").read_bytes()
    (data / "fox/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (data / "fox/clip.mp4").write_bytes(bytes(99))
    (data / "deer/zero.jpg").write_bytes(b"")
    small = ("--image-size", SIDE, "--views", 1, "--epochs", 2)
    trained = json.loads(command("train", data, "--out", folder / "Run 1", *small, "--json"))
    exported = json.loads(command("export", folder / "Run 1", "--out", folder / "fox.fmb", "--json"))
    return Chain(data, folder / "Run 1", folder / "fox.fmb", trained, exported)


@pytest.fixture(scope="module")
def device(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device root that holds the bundle. Do not change it."""
    root = tmp_path_factory.mktemp("device") / "root"
    slots.install(root, chain.bundle)
    return root


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- the run


def test_a_run_holds_what_a_person_and_export_read(chain: Chain) -> None:
    names = {path.name for path in chain.run.iterdir()} - {"mistakes.jpg"}  # there only if there are any
    assert names == {
        "model.keras", "measured.keras", "run.json", "photos.csv", "unreadable.csv", "labels.txt", "summary.txt",
        "history.csv", "train.toml", "labels.toml", "report.html", "report.json", "gate.json",
    }  # fmt: skip
    assert chain.run.stat().st_mode & 0o777 == 0o755
    left = {path.name for path in chain.run.parent.iterdir()} - {"data", "Run 1", "fox.fmb"}
    assert left == set(), "nothing unfinished is left beside it"


def test_files_that_cannot_be_used_are_listed_and_did_not_stop_it(chain: Chain) -> None:
    listed = table(chain.run / "unreadable.csv")
    assert {row["name"]: row["code"] for row in listed} == BROKEN
    assert all(row["reason"] for row in listed)
    assert "3 unreadable" in (chain.run / "summary.txt").read_text()


def test_every_photo_is_in_one_part_and_no_burst_is_cut(chain: Chain) -> None:
    lines = runs.read(chain.run).photos
    assert len(lines) == PHOTOS
    assert {line.part for line in lines} == {runs.TRAIN, runs.VALIDATION, runs.HOLDOUT}
    bursts: dict[str, set[tuple[str, int]]] = {}
    for line in lines:
        bursts.setdefault(line.photo[:-6], set()).add((line.part, line.group))
    assert len(bursts) == len(drawn.LABELS) * BURSTS
    assert all(len(found) == 1 for found in bursts.values())


def test_facts_say_how_it_was_made(chain: Chain) -> None:
    facts = chain.facts
    assert facts.labels == drawn.LABELS
    assert facts.input == InputSpec(SIDE, SIDE)
    assert (facts.name, facts.backbone) == ("Run 1", "efficientnet-lite0")
    assert facts.data_folder == str(chain.data)
    assert (facts.settings["views"], facts.settings["epochs"]) == (1, 2)
    assert set(facts.metrics["validation"]) == {"n", "probe", "fine-tuned"}
    assert facts.kept in {"probe", "fine-tuned"}
    assert {"probe", "fine-tuning", "in all"} <= set(facts.seconds)
    assert chain.trained["schema"] == 1
    assert chain.trained["run"] == str(chain.run)
    assert chain.trained["holdout"] == facts.metrics["holdout"]


def test_labels_that_a_network_tells_apart_are_learned(chain: Chain) -> None:
    assert chain.facts.metrics["holdout"]["accuracy"] == 1.0


def test_the_data_s_digest_is_of_photos_and_labels(chain: Chain) -> None:
    import hashlib

    lines = sorted(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.parent.name}\n"
        for path in chain.data.rglob("IMG_*.jpg")
    )
    assert chain.facts.dataset_digest == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_saved_network_takes_raw_pixels_and_gives_what_the_run_says(chain: Chain) -> None:
    trained = runs.read(chain.run)
    model = exporting.load_model(trained.model_path)
    assert (model.input.dtype, model.input.shape) == ("uint8", (None, SIDE, SIDE, 3))
    assert (model.output.dtype, model.output.shape) == ("float32", (None, 3))
    some = trained.photos[::5]
    spec = trained.facts.input
    images = [Image.open(chain.data / line.photo) for line in some]
    logits = model.predict(np.stack([preprocess.to_pixels(image, spec) for image in images]), verbose=0)
    assert [trained.facts.labels[i] for i in logits.argmax(axis=1)] == [line.label for line in some]
    assert trained.facts.refitted


def test_what_the_run_says_of_held_out_photos_is_its_measured_network_s(chain: Chain, tmp_path: Path) -> None:
    command(
        "train", chain.data, "--out", tmp_path / "run", "--image-size", SIDE, "--views", 1, "--epochs", 1,
        "--keep", "fine-tuned",
    )  # fmt: skip
    trained = runs.read(tmp_path / "run")
    held = [line for line in trained.photos if line.part == runs.HOLDOUT]
    model = exporting.load_model(trained.measured_path)
    images = [preprocess.to_pixels(Image.open(chain.data / line.photo), trained.facts.input) for line in held]
    chances = probabilities(model.predict(np.stack(images), verbose=0), trained.facts.temperature)
    assert all(line.unseen for line in held)
    assert [trained.facts.labels[i] for i in chances.argmax(axis=1)] == [line.predicted for line in held]
    assert chances.max(axis=1) == pytest.approx([line.confidence for line in held], abs=2e-3)
    assert trained.facts.kept == "fine-tuned"


def test_a_run_is_never_overwritten(chain: Chain) -> None:
    before = tiny.snapshot(chain.run)
    with pytest.raises(DataError, match="a run is never overwritten"):
        command("train", chain.data, "--out", chain.run)
    assert tiny.snapshot(chain.run) == before


def test_a_probe_alone_is_a_run_without_history(chain: Chain, tmp_path: Path) -> None:
    found = json.loads(
        command("train", chain.data, "--out", tmp_path / "new/run", "--image-size", SIDE, "--probe-only", "--json")
    )
    assert found["kept"] == "probe"
    assert set(found["validation"]) == {"n", "probe"}
    assert found["seconds"]["features of the frozen network"] < 3, "features were computed again"
    assert not (tmp_path / "new/run/history.csv").exists()


def test_the_settings_file_of_a_run_repeats_it(chain: Chain, tmp_path: Path) -> None:
    found = json.loads(
        command("train", "--config", chain.run / "train.toml", "--out", tmp_path / "again", "--probe-only", "--json")
    )
    again = runs.read(tmp_path / "again")
    assert again.facts.settings == {**chain.facts.settings, "learn": "head"}
    assert again.facts.dataset_digest == chain.facts.dataset_digest
    assert [(line.photo, line.part) for line in again.photos] == [
        (line.photo, line.part) for line in runs.read(chain.run).photos
    ]
    assert found["validation"]["probe"] == chain.trained["validation"]["probe"]


def test_a_training_that_fails_at_the_end_leaves_no_half_run(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write", full)
    done = CliRunner().invoke(
        app, ["train", str(chain.data), "--out", str(tmp_path / "run"), "--image-size", str(SIDE), "--probe-only"]
    )
    assert isinstance(done.exception, DataError)
    assert "No space left on device. Make room there" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


# --- the bundle


def test_export_prints_what_scripts_rely_on(chain: Chain) -> None:
    found = chain.exported
    assert set(found) >= {"schema", "variant", "bytes", "model_bytes", "gate", "digest", "path"}
    assert (found["schema"], found["variant"]) == (1, "int8")
    assert found["bytes"] == chain.bundle.stat().st_size
    deciding = [row for row in found["gate"] if row["deciding"]]
    assert [row["runtime"] for row in deciding] == [each.name for each in runtime.installed()]
    for row in found["gate"]:
        assert set(row) >= {
            "variant", "runtime", "version", "architecture", "kernels", "passed", "reason", "n", "accuracy",
            "accuracy_float", "agreement", "ms", "rss_mib",
        }  # fmt: skip
        assert row["passed"], row["reason"]
        assert row["n_agreement"] == PHOTOS
        assert row["agreement"] >= 0.97
    assert json.loads((chain.run / "gate.json").read_text())["gate"] == found["gate"]


def test_the_model_takes_raw_pixels_and_is_small(chain: Chain) -> None:
    opened = bundles.open_bundle(chain.bundle)
    assert len(opened.model) == chain.exported["model_bytes"] <= 4_200_000
    model = Model(opened.model, runtime=LITERT)  # which refuses an input scale of neither 0 nor 1
    assert (model.height, model.width, model.classes) == (SIDE, SIDE, 3)
    assert model.output_step > 0, "an int8 model has steps"
    detail = model._interpreter.get_input_details()[0]
    assert detail["dtype"] == np.uint8
    scale, zero_point = detail["quantization"]
    assert (float(scale), int(zero_point)) in {(1.0, 0), (0.0, 0)}


def test_weights_and_activations_are_int8(chain: Chain) -> None:
    """Only the pixels, cast by the network's first operator, and the logits are float."""
    model = Model(bundles.open_bundle(chain.bundle).model, runtime=LITERT)
    details = model._interpreter.get_tensor_details()
    kinds = {np.dtype(each["dtype"]).name for each in details}
    assert kinds <= {"uint8", "int8", "int32", "float32"}
    floats = {tuple(int(side) for side in each["shape"]) for each in details if each["dtype"] == np.float32}
    assert floats <= {(1, SIDE, SIDE, 3), (1, 3)}


def test_the_manifest_says_what_the_run_says(chain: Chain) -> None:
    manifest, facts = chain.manifest, chain.facts
    assert (manifest.name, manifest.created) == ("run-1", facts.created)
    assert tuple(label.name for label in manifest.labels) == drawn.LABELS
    assert manifest.input == facts.input
    assert manifest.temperature == facts.temperature
    assert manifest.thresholds == facts.thresholds
    assert [entry.name for entry in manifest.runtimes] == [each.name for each in runtime.installed()]
    for entry, each in zip(manifest.runtimes, runtime.installed(), strict=True):
        assert entry.version_min == each.version
        assert entry.version_below == str(int(each.version.split(".")[0]) + 1)
    assert manifest.provenance.dataset_digest == facts.dataset_digest
    assert manifest.provenance.weights_licence == "Apache-2.0"
    assert manifest.provenance.metrics["accuracy"] == facts.metrics["holdout"]["accuracy"]
    assert manifest.op_versions == quantize.op_versions(bundles.open_bundle(chain.bundle).model)
    assert {"CONV_2D", "DEPTHWISE_CONV_2D"} <= set(manifest.op_versions)
    assert 64 < manifest.ram_mib < 100


def test_golden_photos_are_the_run_s_own_pixels_of_every_label(chain: Chain) -> None:
    opened = bundles.open_bundle(chain.bundle)
    originals = [each.file for each in opened.manifest.golden if each.file.endswith(".jpg")]
    assert (len(opened.manifest.golden), len(originals)) == (32 + 3, 3)
    assert {each.label for each in opened.manifest.golden} == set(drawn.LABELS)
    assert not any(drawn.CAMERA.encode() in opened.files[name] for name in originals), "metadata stays at home"
    known = {
        preprocess.to_pixels(Image.open(path), chain.facts.input).tobytes() for path in chain.data.rglob("IMG_*.jpg")
    }
    with bundles.open_stream(chain.bundle) as stream:
        content = stream.read()
    assert content.count(b"\x89PNG\r\n") == 32
    for part in content.split(b"\x89PNG\r\n")[1:]:
        image = Image.open(io.BytesIO(b"\x89PNG\r\n" + part))
        assert np.asarray(image).tobytes() in known
    for name in originals:
        image = Image.open(io.BytesIO(opened.files[name]))
        assert preprocess.to_pixels(image, chain.facts.input).tobytes() in known


def test_exporting_twice_gives_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    again = json.loads(command("export", chain.run, "--out", tmp_path / "again.fmb", "--json"))
    assert again["digest"] == chain.exported["digest"]
    assert (tmp_path / "again.fmb").read_bytes() == chain.bundle.read_bytes()
    assert not again["key_created"]


def test_an_altered_bundle_does_not_open(chain: Chain, tmp_path: Path) -> None:
    content = bytearray(chain.bundle.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "altered.fmb").write_bytes(content)
    with pytest.raises(FieldmarkError):
        bundles.open_bundle(tmp_path / "altered.fmb")


# --- what export refuses


@pytest.fixture
def quick(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantizing gives the model that it gave before, at once."""
    content = bundles.open_bundle(chain.bundle).model
    monkeypatch.setattr(quantize, "convert", lambda *given, **options: content)


def copied(chain: Chain, tmp_path: Path) -> Path:
    """The run, in a folder of the test's own."""
    shutil.copytree(chain.run, tmp_path / "run")
    (tmp_path / "run" / "gate.json").unlink()
    return tmp_path / "run"


@pytest.mark.usefixtures("quick")
def test_a_model_that_does_not_pass_the_gate_is_not_written(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here: a model that answers, but with the labels in another order."""
    folder = copied(chain, tmp_path)
    content = json.loads((folder / "run.json").read_text())
    trained = runs.read(folder)
    real = exporting.load_model(trained.model_path)

    class Swapped:
        def predict(self, *arguments: Any, **options: Any) -> Any:
            return real.predict(*arguments, **options)[:, [1, 2, 0]]

    monkeypatch.setattr(flow, "load_model", lambda file: Swapped())
    with pytest.raises(ModelError, match="did not pass the gate on any runtime") as caught:
        exporting.export(folder, tmp_path / "bad.fmb", exporting.Options(variant="int8"), Steps(quiet=True))
    assert caught.value.code == "gate"
    assert "the labels are" in str(caught.value)
    assert not (tmp_path / "bad.fmb").exists()
    rows = json.loads((folder / "gate.json").read_text())["gate"]
    assert {row["runtime"] for row in rows} == {each.name for each in runtime.installed()}
    assert not any(row["passed"] for row in rows)
    assert content == json.loads((folder / "run.json").read_text())


def test_photos_that_are_gone_are_named(chain: Chain, tmp_path: Path) -> None:
    moved = chain.data / "fox/IMG_0000.jpg"
    moved.rename(tmp_path / "away.jpg")
    try:
        with pytest.raises(DataError, match=r"1 of the run's 45 photos cannot be read any more, fox/IMG_0000\.jpg"):
            command("export", chain.run, "--out", tmp_path / "new.fmb")
    finally:
        (tmp_path / "away.jpg").rename(moved)
    assert not (tmp_path / "new.fmb").exists()


def test_photos_that_are_others_now_are_named(chain: Chain, tmp_path: Path) -> None:
    path = chain.data / "fox/IMG_0000.jpg"
    whole, facts = path.read_bytes(), path.stat()
    path.write_bytes((chain.data / "deer/IMG_0000.jpg").read_bytes())
    try:
        with pytest.raises(DataError, match=r"fox/IMG_0000\.jpg is not the photo that the run was trained on"):
            command("export", chain.run, "--out", tmp_path / "new.fmb")
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert not (tmp_path / "new.fmb").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_damaged_network_is_refused(chain: Chain, tmp_path: Path, share: float) -> None:
    folder = copied(chain, tmp_path)
    whole = (folder / "model.keras").read_bytes()
    (folder / "model.keras").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match="Train the run again"):
        exporting.load_model(runs.read(folder).model_path)


# --- on the device


def test_the_bundle_installs_and_answers_its_golden_photos(chain: Chain, device: Path) -> None:
    slot = slots.current(device)
    assert slot.digest == chain.exported["digest"]
    assert slot.manifest == chain.manifest
    for each in runtime.installed():
        assert golden.check(slot.path, slot.manifest, runtime=each.name) == each.name


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda pixels: pixels[:, :, ::-1], id="red and blue swapped"),
        pytest.param(lambda pixels: pixels[::-1], id="upside down"),
        pytest.param(lambda pixels: np.roll(pixels, SIDE // 2, axis=1), id="cut in the wrong place"),
    ],
)
def test_wrong_pixels_do_not_pass_the_golden_check(device: Path, tmp_path: Path, change: Any) -> None:
    slot = slots.current(device)
    shutil.copytree(slot.path, tmp_path / "slot")
    for each in slot.manifest.golden:
        path = tmp_path / "slot" / each.file
        Image.fromarray(np.ascontiguousarray(change(np.asarray(Image.open(path))))).save(path)
    with pytest.raises(ModelError) as caught:
        golden.check(tmp_path / "slot", slot.manifest)
    assert caught.value.code in {"golden label", "golden logits", "golden mean"}


def test_a_bundle_whose_golden_photos_do_not_hold_is_not_installed(chain: Chain, device: Path, tmp_path: Path) -> None:
    """Signed and whole, but its photos are not what the model saw: refused, and the device stays as it was."""
    slot = slots.current(device)
    files: dict[str, bytes] = {entry.path: (slot.path / entry.path).read_bytes() for entry in slot.manifest.files}
    for each in slot.manifest.golden:
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(np.asarray(Image.open(slot.path / each.file))[:, :, ::-1])).save(
            out, "PNG"
        )
        files[each.file] = out.getvalue()
    entries = tuple(bundles.file_entry(path, content) for path, content in files.items())
    manifest = dataclasses.replace(slot.manifest, files=entries)
    bundles.write_bundle(tmp_path / "swapped.fmb", manifest, files, tiny.KEY, tiny.signed_root())
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ModelError, match="golden photo"):
        slots.install(root, tmp_path / "swapped.fmb")
    with pytest.raises(FieldmarkError):
        slots.current(root)


def test_the_device_s_classifier_is_right_on_new_photos(device: Path) -> None:
    slot = slots.current(device)
    classifier = classify.Classifier(slot.model_path, slot.manifest, name=LITERT)
    random = np.random.default_rng(99)
    for label in drawn.LABELS:
        out = io.BytesIO()
        drawn.draw(label, random).save(out, "JPEG")
        assert classifier.classify(out.getvalue()).decision.top[0][0] == label


# --- measured again


def test_a_run_is_measured_in_keras(chain: Chain) -> None:
    found = json.loads(command("evaluate", chain.run, chain.data, "--json"))
    assert (found["schema"], found["runtime"]) == (1, "keras")
    assert (found["n"], found["failed"]) == (PHOTOS, len(BROKEN))
    assert found["n"] + found["failed"] == sum(path.is_file() for path in chain.data.rglob("*"))
    assert found["accuracy"] == 1.0


@pytest.mark.parametrize("each", runtime.installed(), ids=lambda found: str(found.name))
def test_a_bundle_is_measured_on_each_runtime(chain: Chain, each: runtime.Installed) -> None:
    found = json.loads(command("evaluate", chain.bundle, chain.data, "--runtime", each.name, "--json"))
    row = next(row for row in chain.exported["gate"] if row["runtime"] == each.name)
    assert found["runtime"] == each.name
    assert found["n"] == row["n_agreement"]
    assert abs(found["accuracy"] - 1.0) <= 1 - row["agreement"]


def test_bundle_against_run_is_counted_photo_by_photo(chain: Chain) -> None:
    found = json.loads(command("evaluate", chain.bundle, chain.data, "--against", chain.run, "--json"))
    assert found["against"]["model"] == str(chain.run)
    difference = found["against"]["better"] - found["against"]["worse"]
    assert difference == round((found["accuracy"] - found["against"]["accuracy"]) * PHOTOS)


def test_a_run_has_no_tflite_runtime_to_choose(chain: Chain) -> None:
    with pytest.raises(DataError, match="--runtime is for bundles"):
        command("evaluate", chain.run, chain.data, "--runtime", LITERT)


# --- the network alone, on the command line


def test_layers_are_printed() -> None:
    out = command("backbones", "show", "efficientnet-lite0", "--image-size", 64)
    assert "conv_stem" in out
    assert "blocks_15_project_bn" in out
    lines = command(
        "train", "nowhere", "--summary", "--image-size", 64, "--fine-tune-from", "blocks_15_expand"
    ).splitlines()
    learning = [line.split()[2] for line in lines if " * " in line and not line.startswith("*")]
    assert learning == [
        "blocks_15_expand", "blocks_15_depthwise", "blocks_15_project", "conv_head", "logits",
    ]  # fmt: skip


def test_layers_of_a_network_whose_weights_are_not_here_are_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    lines = command("backbones", "show", "vgg16", "--image-size", 32).splitlines()
    (pool,) = (line.split() for line in lines if "block1_pool" in line)
    assert pool[:2] == ["3", "block1_pool"], "numbered as Keras does"
    assert "downloaded at first use" in lines[-1]


def test_identify_prints_a_photo_and_a_failure(chain: Chain) -> None:
    photo, broken = chain.data / "fox/IMG_0000.jpg", chain.data / "deer/zero.jpg"
    first, second = (json.loads(line) for line in command("identify", photo, broken, "--json", "--top", 2).splitlines())
    assert (first["schema"], first["photo"], first["failure"], len(first["top"])) == (1, str(photo), None, 2)
    assert (second["top"], second["failure"]) == ([], "zero.jpg is empty (0 bytes).")
    done = CliRunner().invoke(app, ["identify", str(broken), "--strict"])
    assert done.exit_code == 1
    assert "1 of 1 photos could not be read" in done.stderr
