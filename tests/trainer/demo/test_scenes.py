"""Drawn photos: the same for a seed, told apart by what is in them, and as awkward as a real card."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge import photo as photos
from edge.errors import DataError, PhotoError
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec
from trainer.demo import camera, scenes
from trainer.demo.animals import SPECIES, Pose
from trainer.demo.landscape import HEIGHT, WIDTH, Box, Landscape, draw_landscape
from trainer.demo.scenes import Drawn

STATION = 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> list[Drawn]:
    out = tmp_path_factory.mktemp("drawn") / "photos"
    return scenes.draw_dataset(out, stations=2, bursts_per_label=2, photos_per_burst=2)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> list[Drawn]:
    out = tmp_path_factory.mktemp("drawn") / "card"
    return scenes.draw_card(out, station=0, bursts=3, photos_per_burst=2)


@pytest.fixture(scope="module")
def landscape() -> Landscape:
    return draw_landscape(STATION, 0)


def card_folder(card: list[Drawn]) -> Path:
    return card[0].path.parents[2]


def picture(drawn: Drawn) -> npt.NDArray[np.int16]:
    """The photo without its banner, (904, 1280, 3)."""
    return np.asarray(Image.open(drawn.path).convert("RGB"), dtype=np.int16)[: HEIGHT - camera.BANNER]


# The data set


def test_each_label_is_a_folder_with_its_photos(dataset: list[Drawn]) -> None:
    root = dataset[0].path.parents[2]
    found = {folder.name: sorted(folder.rglob("*.JPG")) for folder in root.iterdir()}
    assert found == {label: sorted(d.path for d in dataset if d.label == label) for label in scenes.LABELS}
    assert all(len(paths) == 4 for paths in found.values())


def test_same_seed_draws_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    def draw(name: str, seed: int) -> list[bytes]:
        drawn = scenes.draw_dataset(tmp_path / name, stations=1, bursts_per_label=1, photos_per_burst=1, seed=seed)
        return [d.path.read_bytes() for d in drawn]

    first = draw("first", 5)
    assert draw("again", 5) == first
    assert not set(draw("other", 6)) & set(first)


def test_file_names_repeat_between_stations(dataset: list[Drawn]) -> None:
    names = {
        station: {d.path.name for d in dataset if d.station == station} for station in {d.station for d in dataset}
    }
    first, second = names.values()
    assert "IMG_0001.JPG" in first & second


def test_device_reads_the_capture_time_that_exif_and_banner_show(dataset: list[Drawn]) -> None:
    for drawn in dataset:
        image = photos.open_image(drawn.path.read_bytes())
        taken = photos.taken(drawn.path, 0.0, image)
        assert (taken.local, taken.source, taken.flags) == (drawn.taken, "exif", ("offset-assumed",))


def test_exif_says_that_it_is_a_drawing(dataset: list[Drawn]) -> None:
    image = Image.open(dataset[0].path)
    assert (image.size, image.format) == ((1280, 960), "JPEG")
    assert image.getexif()[0x010E] == "A drawing, not a photograph"
    assert photos.camera(image) == (camera.MAKE, camera.MODEL)


def test_banner_is_dark_and_holds_text(dataset: list[Drawn]) -> None:
    strip = np.asarray(Image.open(dataset[0].path).convert("L"))[HEIGHT - camera.BANNER :]
    assert np.median(strip) < 30
    assert (strip > 180).mean() > 0.01


def test_night_photos_are_grey_and_day_photos_are_not(dataset: list[Drawn]) -> None:
    assert {d.night for d in dataset} == {True, False}
    for drawn in dataset:
        pixels = picture(drawn)
        spread = (pixels.max(axis=2) - pixels.min(axis=2)).mean()
        assert (spread < 1) == drawn.night, drawn.path


def test_photos_of_a_burst_are_seconds_apart_and_bursts_minutes(dataset: list[Drawn]) -> None:
    bursts = [list(group) for _, group in groupby(sorted(dataset, key=lambda d: d.burst), key=lambda d: d.burst)]
    times = [[datetime.fromisoformat(d.taken) for d in burst] for burst in bursts]
    for burst in times:
        assert all(timedelta(0) < later - earlier <= timedelta(seconds=2) for earlier, later in pairwise(burst))
    for before, after in pairwise(times):
        assert after[0] - before[-1] > timedelta(minutes=2)


def test_empty_photos_of_a_burst_differ_like_grass_in_the_wind(dataset: list[Drawn]) -> None:
    first, second = (d for d in dataset if d.label == scenes.EMPTY and d.burst == _a_burst(dataset, scenes.EMPTY))
    apart = np.abs(picture(first) - picture(second)).mean()
    assert 0.3 < apart < 15


def _a_burst(dataset: list[Drawn], label: str) -> int:
    return next(d.burst for d in dataset if d.label == label)


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    scenes.draw_dataset(
        tmp_path / "out", stations=1, bursts_per_label=1, photos_per_burst=1,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(i, 6) for i in range(1, 7)]


def test_folder_that_holds_something_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for draw in (scenes.draw_dataset, scenes.draw_card):
        with pytest.raises(DataError, match=r"is not empty \(it holds mine.txt\)"):
            draw(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Name another folder"):
        scenes.draw_dataset(tmp_path / "file" / "out")


# What is in a photo


@pytest.mark.parametrize("night", [False, True], ids=["by day", "in infrared"])
@pytest.mark.parametrize("label", sorted(SPECIES))
def test_animal_changes_the_picture_where_it_stands(landscape: Landscape, label: str, night: bool) -> None:
    light = camera.light_night(landscape, 1) if night else camera.light_day(landscape, 12.0, 1)
    species = SPECIES[label]
    animal = camera.Animal(species, 640.0, species.farthest_m, Pose(turn=20), 1)
    shown, hidden = (np.asarray(camera.expose(landscape, light, a, 9), np.int16) for a in ([animal], []))
    rows, columns = np.nonzero(np.abs(shown - hidden).max(axis=2) > 12)
    assert len(rows) > 0.003 * WIDTH * HEIGHT
    reach = 0.75 * max(species.length, species.height) * animal.px_per_m
    assert abs(np.median(columns) - 640) < reach
    assert abs(np.median(rows) - landscape.ground_row(animal.distance_m)) < 1.2 * species.height * animal.px_per_m


def test_animal_behind_something_is_hidden(landscape: Landscape) -> None:
    wall = replace(landscape, standing=np.full_like(landscape.standing, 1.0))
    light = camera.light_day(wall, 12.0, 1)
    animal = camera.Animal(SPECIES["deer"], 640.0, 4.0, Pose(), 1)
    assert camera.visible_share(wall, animal) == 0
    assert camera.expose(wall, light, [animal], 9).tobytes() == camera.expose(wall, light, [], 9).tobytes()


@pytest.mark.parametrize("x", [-3000.0, -200.0, 1400.0, 5000.0])
def test_animal_partly_or_wholly_outside_is_no_error(landscape: Landscape, x: float) -> None:
    for light in (camera.light_night(landscape, 1), camera.light_day(landscape, 7.0, 1)):
        animal = camera.Animal(SPECIES["boar"], x, 3.0, Pose(turn=80, pace=1.0), 1)
        assert camera.expose(landscape, light, [animal], 9).size == (WIDTH, HEIGHT)


def test_nearer_animals_are_larger(landscape: Landscape) -> None:
    light = camera.light_day(landscape, 12.0, 1)
    empty = np.asarray(camera.expose(landscape, light, [], 9), np.int16)
    areas = []
    for metres in (3.0, 6.0, 12.0):
        animal = camera.Animal(SPECIES["person"], 640.0, metres, Pose(), 1)
        shown = np.asarray(camera.expose(landscape, light, [animal], 9), np.int16)
        areas.append((np.abs(shown - empty).max(axis=2) > 12).sum())
    assert areas[0] > 2 * areas[1] > 4 * areas[2] > 0


@given(*[st.floats(-1e4, 1e4) for _ in range(4)])
def test_box_is_always_inside_the_picture(left: float, top: float, width: float, height: float) -> None:
    box = Box.around(left, top, left + abs(width), top + abs(height))
    page = np.zeros((HEIGHT, WIDTH))[box.slices]
    assert page.shape == (box.y().size, box.x().size)
    assert box.empty == (page.size == 0)


@pytest.mark.parametrize(
    ("day", "phase"),
    [("2025-03-29T10:58:00", 0.0), ("2025-04-13T00:22:00", 0.5), ("2024-12-30T22:27:00", 0.0)],
    ids=["new moon of March 2025", "full moon of April 2025", "new moon of December 2024"],
)
def test_moon_in_the_banner_is_the_real_one(day: str, phase: float) -> None:
    apart = abs(camera.moon_phase(datetime.fromisoformat(day)) - phase)
    assert min(apart, 1 - apart) < 0.025  # the mean month is up to 14 hours off


# The card


def test_card_has_a_camera_s_names_without_gaps(card: list[Drawn]) -> None:
    names = [d.path.relative_to(card_folder(card)).as_posix() for d in card]
    assert names[:2] == ["DCIM/100DRAWN/IMG_0001.JPG", "DCIM/100DRAWN/IMG_0002.JPG"]
    assert [int(Path(name).stem[-4:]) for name in names] == list(range(1, 10))


def test_two_cards_share_names_but_no_photo(card: list[Drawn], tmp_path: Path) -> None:
    other = scenes.draw_card(tmp_path / "card", station=1, bursts=1, photos_per_burst=2)
    shared = {d.path.name for d in card} & {d.path.name for d in other}
    assert {"IMG_0001.JPG", "IMG_0002.JPG"} <= shared
    assert not {d.path.read_bytes() for d in card if not d.failure} & {
        d.path.read_bytes() for d in other if not d.failure
    }


def test_each_broken_file_fails_on_the_device_for_the_stated_reason(card: list[Drawn]) -> None:
    broken = [d for d in card if d.failure]
    assert [d.failure for d in broken] == ["truncated", "empty", "video"]
    for drawn in broken:
        with pytest.raises(PhotoError) as refused:
            to_pixels(photos.open_image(photos.read(drawn.path).data), InputSpec(64, 64))
        assert refused.value.code == drawn.failure


def test_whole_files_of_the_card_can_be_read(card: list[Drawn]) -> None:
    for drawn in card:
        if not drawn.failure:
            image = photos.open_image(photos.read(drawn.path).data)
            assert to_pixels(image, InputSpec(64, 64)).shape == (64, 64, 3)


def test_truth_lies_outside_the_card_and_names_every_file_on_it(card: list[Drawn]) -> None:
    folder = card_folder(card)
    truth = folder.with_name("card-truth.csv")
    with truth.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    on_card = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert sorted(row["photo"] for row in rows) == on_card
    assert [(row["label"], row["failure"]) for row in rows] == [(d.label, d.failure) for d in card]


def test_files_have_the_time_at_which_they_were_taken(card: list[Drawn]) -> None:
    for drawn in card:
        if not drawn.failure:
            modified = datetime.fromtimestamp(drawn.path.stat().st_mtime, tz=None).astimezone()
            assert abs(modified.timestamp() - datetime.fromisoformat(drawn.taken + "+00:00").timestamp()) < 1
