"""A bundle and a photo in, an answer out: with a real bundle, and with manifests that do not fit the model."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.errors import ConfigError, ModelError, PhotoError
from edge.model import bundle as bundles
from edge.model.bundle import Label, Manifest
from edge.model.classify import Classifier
from edge.model.spec import InputSpec
from tests.fakes import tiny
from tests.fixtures_models import COLOURS, SIDE, TEMPERATURE

LITERT = "ai_edge_litert"


@pytest.fixture(scope="module")
def opened(tiny_bundle: Path) -> bundles.Opened:
    """The tiny bundle, verified."""
    return bundles.open_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def classifier(opened: bundles.Opened) -> Classifier:
    """Its model on LiteRT, which may be loaded beside TensorFlow."""
    return Classifier(opened.model, opened.manifest, name=LITERT)


def jpeg(colour: tuple[int, int, int], side: int = 64) -> bytes:
    return tiny.png(colour, side=side, form="JPEG")


@pytest.mark.parametrize("label", COLOURS)
def test_each_label_is_recognised_in_a_jpeg(classifier: Classifier, label: str) -> None:
    found = classifier.classify(jpeg(COLOURS[label])).decision
    assert (found.label, found.kind) == (label, "empty" if label == "empty" else "species")
    assert found.confidence > 0.99
    assert found.top[0] == (label, found.confidence)


def test_grey_is_unknown(classifier: Classifier) -> None:
    found = classifier.classify(jpeg((99, 99, 99)))
    assert (found.decision.label, found.decision.kind) == ("unknown", "unknown")
    assert found.logits == pytest.approx([99, 99, 99], abs=2)


def test_the_manifest_s_temperature_is_used(classifier: Classifier) -> None:
    """Red is 20 more than green and blue, so one temperature step: e / (e + 2)."""
    pixels = np.full((SIDE, SIDE, 3), (100 + int(TEMPERATURE), 100, 100), np.uint8)
    assert classifier.classify_pixels(pixels).decision.confidence == pytest.approx(np.e / (np.e + 2), abs=1e-4)


def test_the_manifest_s_thresholds_are_used(opened: bundles.Opened) -> None:
    strict = Classifier(opened.model, replace(opened.manifest, thresholds=(1.0, 0.5, 0.5)), name=LITERT)
    assert strict.classify(jpeg((140, 100, 100))).decision.label == "unknown"


ANIMALS = (
    Label("deer", taxon_class="Mammalia", animal=True),
    Label("fox", taxon_class="Mammalia", animal=True),
    Label("empty"),
)


def test_the_manifest_s_taxa_and_roll_up_are_used(opened: bundles.Opened) -> None:
    """Red and blue alike: deer 0.5, fox 0.5, neither reaches 0.9."""
    named = {label.name: label for label in ANIMALS}
    manifest = replace(
        opened.manifest,
        labels=tuple(named[label.name] for label in opened.manifest.labels),
        thresholds=(0.9,) * 3,
        rollup=0.95,
    )
    purple = jpeg((200, 10, 200))
    found = Classifier(opened.model, manifest, name=LITERT).classify(purple).decision
    assert (found.label, found.kind) == ("Mammalia", "rollup")
    assert found.confidence > 0.95
    assert {name for name, _ in found.top[:2]} == {"deer", "fox"}
    never = Classifier(opened.model, replace(manifest, rollup=None), name=LITERT)
    assert never.classify(purple).decision.label == "unknown"


def test_what_does_not_occur_at_the_station_is_rolled_up(opened: bundles.Opened) -> None:
    named = {label.name: label for label in ANIMALS}
    manifest = replace(
        opened.manifest, labels=tuple(named[label.name] for label in opened.manifest.labels), rollup=0.95
    )
    here = Classifier(opened.model, manifest, name=LITERT, species=["fox"])
    assert [here.classify(jpeg(COLOURS[label])).decision.label for label in ("deer", "fox", "empty")] == [
        "Mammalia", "fox", "empty",
    ]  # fmt: skip


def test_a_species_that_the_bundle_does_not_know_is_refused(opened: bundles.Opened) -> None:
    with pytest.raises(
        ConfigError, match=r"name 'foxx', and bundle .* has no such label. The nearest is 'fox'"
    ) as refused:
        Classifier(opened.model, opened.manifest, name=LITERT, species=["deer", "foxx"])
    assert refused.value.code == "unknown species"


def test_the_manifest_s_input_is_used(opened: bundles.Opened) -> None:
    """A blue strip above a red photo: with the strip cut, it is red."""
    values = np.full((100, 60, 3), (200, 10, 10), np.uint8)
    values[:70] = (10, 10, 200)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    whole = Classifier(opened.model, opened.manifest, name=LITERT)
    cut = Classifier(opened.model, replace(opened.manifest, input=InputSpec(SIDE, SIDE, cut_top=70)), name=LITERT)
    assert whole.classify(out.getvalue()).decision.label == "fox"
    assert cut.classify(out.getvalue()).decision.label == "deer"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"", "empty", id="no bytes"),
        pytest.param(b"GIF89a" + bytes(50), "unrecognised", id="another format"),
        pytest.param(jpeg((9, 9, 9), side=400)[:-300], "truncated", id="cut short"),
    ],
)
def test_a_photo_that_cannot_be_read_is_a_photo_error(classifier: Classifier, content: bytes, code: str) -> None:
    with pytest.raises(PhotoError) as caught:
        classifier.classify(content)
    assert caught.value.code == code


# --- a manifest that does not fit


def _another_size(manifest: Manifest) -> Manifest:
    return replace(manifest, input=InputSpec(SIDE, SIDE + 1))


def _another_count(manifest: Manifest) -> Manifest:
    return replace(manifest, labels=(*manifest.labels, Label("boar")), thresholds=(0.5,) * 4)


@pytest.mark.parametrize("change", [_another_size, _another_count])
def test_a_model_that_is_not_what_the_manifest_says_is_refused(
    opened: bundles.Opened, change: Callable[[Manifest], Manifest]
) -> None:
    with pytest.raises(ModelError, match="height, width, labels"):
        Classifier(opened.model, change(opened.manifest), name=LITERT)
