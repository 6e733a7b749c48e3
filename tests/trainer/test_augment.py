"""Random views: the photo's shape and kind, one of many, none that a camera could not have taken."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge import photo as files
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec
from tests.trainer import drawn
from trainer import augment
from trainer.dataset.samples import Box

PHOTO = np.asarray(drawn.draw("fox", np.random.default_rng(0)))


KINDS = [augment.TRAP, augment.TUTORIAL, augment.NONE]


def views(
    count: int, pixels: augment.Pixels = PHOTO, kind: str = augment.TRAP, animals: augment.Rect | None = None
) -> list[augment.Pixels]:
    return [augment.view(pixels, np.random.default_rng(seed), kind, animals) for seed in range(count)]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
def test_a_view_has_the_shape_and_type_of_the_photo(height: int, width: int, seed: int, kind: str) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = augment.view(pixels, np.random.default_rng(seed), kind)
    assert found.shape == pixels.shape
    assert found.dtype == np.uint8


def test_the_same_chances_give_the_same_view() -> None:
    assert (augment.view(PHOTO, np.random.default_rng(5)) == augment.view(PHOTO, np.random.default_rng(5))).all()


def test_views_differ_and_the_photo_is_left_alone() -> None:
    before = PHOTO.copy()
    assert len({view.tobytes() for view in views(20)}) == 20
    assert (before == PHOTO).all()


def test_some_views_are_without_colour_as_in_infrared() -> None:
    grey = [np.ptp(view.astype(int), axis=2).max() == 0 for view in views(200)]
    assert 0.05 < np.mean(grey) < 0.3


def test_half_of_the_views_are_mirrored() -> None:
    """A photo that is bright on the left only."""
    half = np.full((40, 40, 3), 20, np.uint8)
    half[:, :20] = 230
    mirrored = [view[:, 20:].mean() > view[:, :20].mean() for view in views(200, half)]
    assert 0.35 < np.mean(mirrored) < 0.65


def test_no_view_is_upside_down() -> None:
    half = np.full((40, 40, 3), 20, np.uint8)
    half[:20] = 230
    assert all(view[:20].mean() > view[20:].mean() for view in views(100, half))


def test_brightness_stays_within_its_bounds() -> None:
    flat = np.full((40, 40, 3), 100, np.uint8)
    assert {len(np.unique(view)) for view in views(50, flat)} == {1}, "no black corners"
    middles = [view[15:25, 15:25].mean() for view in views(200, flat)]
    assert 80 < min(middles) < 95
    assert 105 < max(middles) < 125


def test_white_and_black_are_clipped_and_do_not_wrap() -> None:
    white = [view[15:25, 15:25].min() for view in views(50, np.full((40, 40, 3), 255, np.uint8))]
    assert min(white) > 180
    black = [view.max() for view in views(50, np.zeros((40, 40, 3), np.uint8))]
    assert max(black) == 0


def test_most_of_the_photo_is_seen() -> None:
    """A mark in the middle is in every view."""
    marked = np.zeros((80, 80, 3), np.uint8)
    marked[36:44, 36:44] = 255
    assert all(view.max() > 100 for view in views(100, marked))


def test_a_square_of_some_views_is_hidden_behind_their_mean_colour() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)

    def has_square(view: augment.Pixels) -> bool:
        colours, counts = np.unique(view.reshape(-1, 3), axis=0, return_counts=True)
        return int(counts.max()) >= 36 and bool(np.abs(colours[counts.argmax()] - view.mean(axis=(0, 1))).max() < 30)

    assert 0.05 < np.mean([has_square(view) for view in views(200, noise)]) < 0.3


def test_some_views_are_blurred() -> None:
    """What is next to each other differs less."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    rough = np.array([np.abs(np.diff(view.astype(int), axis=1)).mean() / view.std() for view in views(200, noise)])
    assert 0.02 < (rough < 0.8 * np.median(rough)).mean() < 0.2


# --- the tutorials' views, and none


def test_the_tutorials_views_are_mirrored_both_ways_and_keep_their_colours() -> None:
    corner = np.zeros((40, 40, 3), np.uint8)
    corner[:20, :20] = (200, 40, 90)
    found = views(200, corner, augment.TUTORIAL)
    places = [
        tuple(int(part[..., 0].mean() > 100) for part in (v[:18, :18], v[:18, 22:], v[22:, :18], v[22:, 22:]))
        for v in found
    ]
    counts = [places.count(tuple(row)) for row in np.eye(4, dtype=int).tolist()]
    assert sum(counts) == 200
    assert min(counts) > 25
    assert max(view.max() for view in found) == 200


def test_the_tutorials_zoom_is_80_to_120_percent_in_each_direction() -> None:
    square = np.zeros((100, 100, 3), np.uint8)
    square[30:70, 30:70] = 255
    found = views(200, square, augment.TUTORIAL)
    wide, high = (np.array([(view[..., 0] > 127).any(axis=axis).sum() for view in found]) for axis in (0, 1))
    for sides in (wide, high):
        assert 32 <= sides.min() < 36
        assert 46 < sides.max() <= 51
    assert np.abs(wide - high).max() > 5, "each direction by itself"


def test_no_views_at_all_is_the_photo_itself() -> None:
    assert (augment.view(PHOTO, np.random.default_rng(0), augment.NONE) == PHOTO).all()


# --- boxes


def test_a_close_up_contains_the_animals() -> None:
    """A bright animal of 12 x 8 in a dark photo of 100 x 100: never cut, and often larger than without its box."""
    photo = np.full((100, 100, 3), 40, np.uint8)
    photo[70:78, 10:22] = 250
    seen = [(view[..., 0].astype(int) > 110).sum() for view in _plain(photo, (10.0, 70.0, 22.0, 78.0))]
    assert min(seen) > 0.7 * 96
    assert max(seen) > 3 * 96
    whole = [(view[..., 0].astype(int) > 110).sum() for view in _plain(photo, None)]
    assert max(whole) < 2.2 * 96


def _plain(photo: augment.Pixels, animals: augment.Rect | None) -> list[augment.Pixels]:
    """Views of the window alone, without changes of light and without hidden squares."""
    windows = []
    for seed in range(150):
        random = np.random.default_rng(seed)
        height, width = photo.shape[:2]
        affine = (
            augment._window(height, width, random)
            if animals is None
            else augment._around(animals, height, width, random)
        )
        windows.append(np.asarray(augment._warped(photo, affine)))
    return windows


@given(
    st.floats(0, 0.99), st.floats(0, 0.99), st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_close_up_shows_all_corners_of_the_box(x: float, y: float, across: float, down: float, seed: int) -> None:
    """Whatever the box, even turned by a few degrees, but for boxes as large as the photo."""
    across, down = min(across, 1 - x, 0.75), min(down, 1 - y, 0.75)
    box = (100 * x, 80 * y, 100 * (x + across), 80 * (y + down))
    a, b, c, d, e, f = augment._around(box, 80, 100, np.random.default_rng(seed))
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))
    corners = np.array([(box[i], box[j]) for i in (0, 2) for j in (1, 3)])
    in_view = (corners - [c, f]) @ inverse.T
    slack = 0.1 * 100
    assert in_view.min() > -slack
    assert (in_view < np.array([100, 80]) + slack).all()


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(InputSpec(96, 96), id="stretched"),
        pytest.param(InputSpec(96, 96, aspect="pad"), id="padded"),
        pytest.param(InputSpec(96, 96, aspect="crop"), id="cropped"),
        pytest.param(InputSpec(80, 120, cut_top=20, cut_bottom=40), id="strips cut off"),
        pytest.param(InputSpec(80, 120, aspect="pad", cut_top=10, cut_bottom=30), id="padded, strips cut off"),
        pytest.param(InputSpec(64, 120, aspect="crop", cut_bottom=30), id="cropped, a strip cut off"),
    ],
)
def test_boxes_lie_where_the_animal_lies_in_the_input(spec: InputSpec) -> None:
    photo = np.zeros((240, 400, 3), np.uint8)
    photo[100:150, 160:240] = 255
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    pixels = to_pixels(files.open_image(file.getvalue()), spec)
    rows, columns = (np.flatnonzero((pixels[..., 0] > 127).any(axis=axis)) for axis in (1, 0))
    boxes = [Box(160 / 400, 100 / 240, 30 / 400, 50 / 240), Box(190 / 400, 110 / 240, 50 / 400, 30 / 240)]
    found = augment.animals_in(boxes, (400, 240), spec)
    assert found == pytest.approx((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), abs=1.0)


def test_boxes_that_are_cut_off_are_none() -> None:
    assert augment.animals_in([], (400, 240), InputSpec(96, 96)) is None
    top = [Box(0.1, 0.0, 0.2, 0.05)]
    assert augment.animals_in(top, (400, 240), InputSpec(96, 96, cut_top=20)) is None
    assert augment.animals_in(top, (400, 240), InputSpec(96, 96)) is not None
