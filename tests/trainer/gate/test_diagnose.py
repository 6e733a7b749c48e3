"""What is found by trying: each fault in answers made by hand, and that nothing is found where nothing is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from trainer.gate import About, diagnose

LABELS = ("deer", "empty", "fox", "hog")
RANDOM = np.random.default_rng(3)
N = 60
TRUTH = (np.arange(N) % 4).astype(np.intp)
Logits = npt.NDArray[np.float32]
REFERENCE: Logits = (np.eye(4)[TRUTH] * 5 + RANDOM.normal(0, 1, (N, 4))).astype(np.float32)
ABOUT = About(labels=LABELS)


def noisy(logits: npt.ArrayLike, amount: float = 0.2) -> Logits:
    return np.asarray(np.asarray(logits) + RANDOM.normal(0, amount, (N, 4)), np.float32)


# --- labels


@pytest.mark.parametrize(
    ("order", "says"),
    [
        pytest.param(
            [3, 1, 2, 0],
            "what the float model calls 'deer' it calls 'hog', and the other way round: the labels are swapped",
            id="two swapped",
        ),
        pytest.param(
            [1, 2, 0, 3],
            "what the float model calls 'deer' it calls 'fox', 'empty' it calls 'deer', 'fox' it calls 'empty': the "
            "labels are in another order",
            id="three in a ring",
        ),
    ],
)
def test_labels_in_another_order_are_named(order: list[int], says: str) -> None:
    assert diagnose.labels(noisy(REFERENCE[:, order]), REFERENCE, ABOUT) == says


def test_labels_of_which_there_is_no_photo_are_found_swapped_all_the_same() -> None:
    """Agreement cannot show it: nothing is called either."""
    rows = TRUTH < 2
    found = diagnose.labels(REFERENCE[rows][:, [0, 1, 3, 2]], REFERENCE[rows], ABOUT)
    assert found is not None
    assert "'fox' it calls 'hog'" in found


@pytest.mark.parametrize(
    "logits",
    [
        pytest.param(REFERENCE, id="the float model's own"),
        pytest.param(noisy(REFERENCE, 2.0), id="very noisy"),
        pytest.param(REFERENCE[RANDOM.permutation(N)], id="photos in another order"),
        pytest.param(np.zeros((N, 4), np.float32), id="constant"),
        pytest.param(-REFERENCE, id="upside down"),
        pytest.param(RANDOM.normal(0, 1, (N, 4)).astype(np.float32), id="chance"),
        pytest.param(REFERENCE[:, [0, 0, 0, 0]], id="one label for all"),
    ],
)
def test_other_faults_are_not_called_swapped(logits: Logits) -> None:
    assert diagnose.labels(logits, REFERENCE, ABOUT) is None


def test_labels_that_the_float_model_hardly_tells_apart_are_not_called_swapped() -> None:
    twins = REFERENCE.copy()
    twins[:, 1] = twins[:, 0] + RANDOM.normal(0, 0.1, N)
    assert diagnose.labels(noisy(twins), twins, ABOUT) is None


# --- channels


M = N // 2
WARM, COLD = REFERENCE[:M], (REFERENCE[:M] + RANDOM.normal(0, 0.3, (M, 4))).astype(np.float32)


def test_bgr_is_found_where_the_exchange_works_the_other_way_round() -> None:
    """Also under the noise of int8, which is as large as what the colours change."""
    found = diagnose.channels(noisy(np.concatenate([COLD, WARM]), 0.3), np.concatenate([WARM, COLD]))
    assert found is not None
    assert found.startswith("it sees red as blue: its channels are BGR; with both exchanged it agrees with the float")


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(noisy(np.concatenate([WARM, COLD]), 0.3), id="right, as int8"),
        pytest.param(np.zeros((N, 4), np.float32), id="constant"),
        pytest.param(noisy(np.zeros((N, 4)), 0.3), id="chance"),
        pytest.param(np.concatenate([WARM, WARM]), id="blind to colour"),
    ],
)
def test_other_faults_are_not_called_bgr(found: Logits) -> None:
    assert diagnose.channels(found, np.concatenate([WARM, COLD])) is None


def test_a_float_model_that_is_blind_to_colour_tells_nothing() -> None:
    assert diagnose.channels(np.concatenate([COLD, WARM]), np.concatenate([WARM, WARM])) is None


def test_photos_are_tried_in_warm_light_so_that_infrared_frames_have_a_colour(tmp_path: Path) -> None:
    photos = np.full((200, 4, 4, 3), 100, np.uint8)
    np.save(tmp_path / "photos.npy", photos)
    pixels = diagnose.tinted(tmp_path / "photos.npy")
    assert pixels.shape == (2 * diagnose.TINTED_PHOTOS, 4, 4, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, 0, 0].tolist() == [100, 60, 40]
    assert pixels[-1, 0, 0].tolist() == [40, 60, 100]


# --- normalisation


def float_model(pixels: npt.NDArray[np.uint8]) -> Logits:
    """Black, grey and white frames have answers of their own."""
    return np.array([np.roll([2.0, -1, 0, -1], int(frame.mean()) // 100) for frame in pixels], np.float32)


@pytest.mark.parametrize(("value", "name"), [(0, "black"), (127, "grey"), (255, "white")])
def test_a_plain_frame_s_answer_for_every_photo_is_double_normalisation(value: int, name: str) -> None:
    answer = float_model(np.full((1, 8, 8, 3), value, np.uint8))
    found = diagnose.normalisation(noisy(np.repeat(answer, N, axis=0), 0.05), REFERENCE, (8, 8, 3), float_model)
    assert found == f"it answers every photo as the float model answers a {name} frame: pixels are normalised twice"


@pytest.mark.parametrize(
    "logits",
    [
        pytest.param(REFERENCE, id="the float model's own"),
        pytest.param(np.zeros((N, 4), np.float32), id="constant"),
        pytest.param(np.full((N, 4), [9, 0, 0, 0], np.float32), id="one label for every photo"),
        pytest.param(noisy(REFERENCE, 2.0), id="very noisy"),
        pytest.param(REFERENCE / 100, id="hardly sure of anything, but right"),
    ],
)
def test_other_faults_are_not_called_double_normalisation(logits: Logits) -> None:
    assert diagnose.normalisation(logits, REFERENCE, (8, 8, 3), float_model) is None


def test_a_dead_network_is_not_called_so_because_a_black_frame_says_little() -> None:
    flat = np.zeros((N, 4), np.float32)
    assert diagnose.normalisation(flat, REFERENCE, (8, 8, 3), lambda frames: np.zeros((len(frames), 4), "f4")) is None


def test_photos_that_are_black_may_be_answered_so() -> None:
    """Nights without a flash: the float model answers them as it answers a black frame, and so does the other."""
    black = np.repeat(float_model(np.zeros((1, 8, 8, 3), np.uint8)), N, axis=0)
    nights = noisy(black, 0.02)
    assert diagnose.normalisation(noisy(black, 0.02), nights, (8, 8, 3), float_model) is None


# --- calibration


@dataclass(frozen=True)
class Record:
    """Which photos the ranges come from."""

    n: int = 100
    by_label: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LABELS, 25))
    by_station: dict[str, int] = field(default_factory=dict)
    by_light: dict[str, int] = field(default_factory=lambda: {"colour": 60, "infrared": 40})
    brightness_mean: float = 100.0


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Every other photo is of night; their mean is 90."""
    photos = np.empty((N, 4, 4, 3), np.uint8)
    photos[::2], photos[1::2] = 40, 140
    np.save(tmp_path / "photos.npy", photos)
    return tmp_path / "photos.npy"


def calibrated(record: Record, stack: Path, photos: Record | None = None) -> str | None:
    return diagnose.calibration(About(labels=LABELS, calibration=record, photos=photos), stack, TRUTH)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        pytest.param(
            Record(by_label={"hog": 100, "deer": 0}),
            "it was calibrated on 100 photos of one label only, 'hog': the ranges of the other 45 of 60 photos are "
            "unproven",
            id="one label",
        ),
        pytest.param(
            Record(brightness_mean=40),
            "it was calibrated on dark frames only: their brightness is 40 of 255 on average, that of the photos 90",
            id="dark frames",
        ),
        pytest.param(
            Record(by_light={"infrared": 100}), "on 100 photos of one light only, 'infrared'", id="infrared frames"
        ),
        pytest.param(Record(by_station={"creek": 100}), "of one station only, 'creek'", id="one station"),
    ],
)
def test_ranges_from_a_part_of_the_data_are_refused(record: Record, says: str, stack: Path) -> None:
    found = calibrated(record, stack, Record(by_station={"creek": 40, "ridge": 20}))
    assert found is not None
    assert says in found


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(Record(), id="balanced"),
        pytest.param(Record(by_label={"deer": 97, "fox": 3}), id="two labels of four"),
        pytest.param(Record(brightness_mean=75), id="somewhat darker"),
        pytest.param(Record(brightness_mean=140), id="brighter"),
        pytest.param(Record(by_station={"": 100}), id="stations are not known"),
        pytest.param(Record(n=0, by_label={}, brightness_mean=0), id="nothing was calibrated"),
    ],
)
def test_a_calibration_that_covers_the_data_is_not(record: Record, stack: Path) -> None:
    assert calibrated(record, stack, Record(by_station={"": N})) is None


def test_data_of_one_label_and_light_is_calibrated_on_it(tmp_path: Path) -> None:
    photos = np.full((N, 4, 4, 3), 30, np.uint8)
    np.save(tmp_path / "photos.npy", photos)
    night = Record(by_label={"deer": 100}, by_light={"infrared": 100}, brightness_mean=30)
    about = About(labels=LABELS, calibration=night, photos=night)
    assert diagnose.calibration(about, tmp_path / "photos.npy", np.zeros(N, np.intp)) is None
