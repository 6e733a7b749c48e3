"""Golden photos: several labels, the clearest first, nobody in them, and a tolerance that the runtimes need."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge.errors import ModelError
from edge.model.preprocess import InputSpec
from trainer import golden
from trainer.cache import ArrayCache
from trainer.pixels import PixelStack

LABELS = ("deer", "empty", "person", "fox")
N = 40
RANDOM = np.random.default_rng(4)
PHOTOS = RANDOM.integers(0, 256, (N, 6, 8, 3), dtype=np.uint8)
TRUTH = np.arange(N) % 4
LOGITS = (np.eye(4)[TRUTH] * RANDOM.uniform(1, 6, (N, 1)) + RANDOM.normal(0, 0.1, (N, 4))).astype(np.float32)

Logits = npt.NDArray[np.float32]


@pytest.fixture
def stack(tmp_path: Path) -> PixelStack:
    """The photos."""
    cache = ArrayCache(tmp_path, (6, 8, 3), np.uint8)
    for i, photo in enumerate(PHOTOS):
        cache.put(f"{i:02d}", photo)
    return PixelStack(cache, [f"{i:02d}" for i in range(N)], InputSpec(6, 8))


def places(files: dict[str, bytes]) -> list[int]:
    """Which photos the files hold."""
    found = [np.asarray(Image.open(io.BytesIO(content))) for content in files.values()]
    return [next(i for i, photo in enumerate(PHOTOS) if (photo == each).all()) for each in found]


def choose(stack: PixelStack, *logits: Logits, truth: npt.NDArray[np.intp] = TRUTH, step: float = 0.05):  # type: ignore[no-untyped-def]
    names = ("ai_edge_litert", "tflite_runtime")
    return golden.choose(stack, LABELS, truth, dict(zip(names, logits, strict=False)), step)


def test_eight_photos_of_every_label_but_person_are_taken(stack: PixelStack) -> None:
    chosen, files = choose(stack, LOGITS)
    assert [each.file for each in chosen] == list(files) == [f"golden/{i:02d}.png" for i in range(8)]
    assert [each.label for each in chosen] == ["deer", "empty", "fox"] * 2 + ["deer", "empty"]


def test_files_are_lossless_and_logits_are_those_of_their_photo(stack: PixelStack) -> None:
    chosen, files = choose(stack, LOGITS)
    for each, i in zip(chosen, places(files), strict=True):
        assert each.logits == pytest.approx(LOGITS[i], abs=1e-5)
        assert each.label == LABELS[int(LOGITS[i].argmax())]


def test_the_clearest_photo_of_a_label_comes_first(stack: PixelStack) -> None:
    _, files = choose(stack, LOGITS)
    ordered = np.sort(LOGITS, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    deer = [i for i in range(N) if TRUTH[i] == 0]
    assert places(files)[0] == max(deer, key=lambda i: margin[i])


def test_a_photo_of_a_person_never_travels_even_if_the_model_sees_a_deer(stack: PixelStack) -> None:
    """The bundle goes to every device, and the photo with it."""
    logits = LOGITS.copy()
    people = np.flatnonzero(TRUTH == 2)
    logits[people] = (20.0, 0.0, 0.0, 0.0)  # surer than any real deer
    _, files = choose(stack, logits)
    assert not set(places(files)) & set(people.tolist())


def test_what_the_model_takes_for_a_person_is_not_taken_either(stack: PixelStack) -> None:
    logits = LOGITS.copy()
    logits[:20] = (0.0, 0.0, 20.0, 0.0)
    chosen, files = choose(stack, logits)
    assert "person" not in {each.label for each in chosen}
    assert min(places(files)) >= 20


def test_only_photos_on_which_the_runtimes_agree_are_taken(stack: PixelStack) -> None:
    other = LOGITS.copy()
    disputed = [int(i) for i in np.argsort(-LOGITS.max(axis=1))[:12]]
    other[disputed] = np.roll(other[disputed], 1, axis=1)
    chosen, files = choose(stack, LOGITS, other)
    assert len(chosen) == 8
    assert not set(places(files)) & set(disputed)


def people_but(*rows: int) -> npt.NDArray[np.intp]:
    """Labels that say person of all photos but these."""
    truth = np.full(N, 2)
    truth[list(rows)] = TRUTH[list(rows)]
    return truth


def test_one_label_gives_all_eight_where_the_others_have_none(stack: PixelStack) -> None:
    chosen, files = choose(stack, LOGITS, truth=people_but(0, 4, 8, 12, 16, 20, 24, 1))
    assert len(files) == 8
    assert sorted(each.label for each in chosen) == ["deer"] * 7 + ["empty"]


def test_fewer_than_eight_are_refused_with_how_many_there_are(stack: PixelStack) -> None:
    with pytest.raises(ModelError, match=r"only 7 of 40 photos can be golden, 8 are needed.*Add photos") as caught:
        choose(stack, LOGITS, truth=people_but(0, 4, 8, 12, 16, 20, 24))
    assert caught.value.code == "golden"


@pytest.mark.parametrize(
    ("step", "spread", "tolerance"),
    [
        pytest.param(0.05, 0.0, 0.8, id="sixteen steps of int8"),
        pytest.param(0.05, 0.3, 0.8, id="a spread within them"),
        pytest.param(0.05, 0.9, 1.8, id="twice the spread of the runtimes"),
        pytest.param(0.0, 0.0, 0.01, id="a float model"),
    ],
)
def test_tolerance_covers_steps_and_spread(stack: PixelStack, step: float, spread: float, tolerance: float) -> None:
    other = LOGITS.copy()
    other[0, 0] += spread
    chosen, _ = choose(stack, LOGITS, other, step=step)
    assert [each.tolerance for each in chosen] == pytest.approx([tolerance] * 8, abs=1e-3)
