"""Random views: the photo's shape and kind, one of many, none that a camera could not have taken."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer import drawn
from trainer import augment

PHOTO = np.asarray(drawn.draw("fox", np.random.default_rng(0)))


def views(count: int, pixels: augment.Pixels = PHOTO) -> list[augment.Pixels]:
    return [augment.view(pixels, np.random.default_rng(seed)) for seed in range(count)]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_a_view_has_the_shape_and_type_of_the_photo(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = augment.view(pixels, np.random.default_rng(seed))
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
