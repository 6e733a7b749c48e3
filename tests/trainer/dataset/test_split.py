"""Which photos belong together, and folds that never cut a group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from edge.errors import DataError
from tests.trainer import drawn
from trainer.dataset import split

RANDOM = np.random.default_rng(3)
FAR_HASHES = RANDOM.random((40, 128)) < 0.5
FAR_THUMBNAILS = np.linalg.qr(RANDOM.normal(size=(768, 40)))[0].T.astype(np.float32)
"""Forty photos that are nothing like each other."""


def grouped(
    n: int,
    *,
    photos: Sequence[npt.NDArray[np.uint8]] | None = None,
    sha256s: Sequence[str] | None = None,
    sequences: Sequence[str | None] | None = None,
    bursts: Sequence[tuple[str, str] | None] | None = None,
) -> list[int]:
    """Group numbers of n photos that are alike in nothing but what is given."""
    numbers = split.group(
        hashes=FAR_HASHES[:n] if photos is None else np.stack([split.difference_hash(p) for p in photos]),
        thumbnails=FAR_THUMBNAILS[:n] if photos is None else np.stack([split.thumbnail(p) for p in photos]),
        sha256s=sha256s or [str(i) for i in range(n)],
        sequences=sequences or [None] * n,
        bursts=bursts or [None] * n,
    )
    return [int(number) for number in numbers]


# --- what belongs together


def test_photos_that_share_nothing_are_groups_of_their_own() -> None:
    assert grouped(5) == [0, 1, 2, 3, 4]


def test_the_same_photo_twice_is_one_group() -> None:
    assert grouped(4, sha256s=["a", "b", "a", "c"]) == [0, 1, 0, 2]


def test_a_sequence_is_one_group_and_unknown_sequences_are_none() -> None:
    assert grouped(5, sequences=["s", None, "t", "s", None]) == [0, 1, 2, 0, 3]


@pytest.mark.parametrize(
    ("seconds", "together"),
    [
        pytest.param(0, True, id="the same second"),
        pytest.param(120, True, id="two minutes"),
        pytest.param(121, False, id="a second more"),
    ],
)
def test_photos_of_a_camera_within_two_minutes_are_a_burst(seconds: int, together: bool) -> None:
    later = f"2025-04-01T06:{seconds // 60:02d}:{seconds % 60:02d}"
    numbers = grouped(2, bursts=[("cam", "2025-04-01T06:00:00"), ("cam", later)])
    assert (numbers == [0, 0]) is together


def test_a_burst_is_a_chain_and_goes_over_midnight_and_in_any_order() -> None:
    times = ["2025-04-01T00:01:30", "2025-03-31T23:58:00", "2025-03-31T23:59:45.5", "2025-04-01T09:00:00"]
    assert grouped(4, bursts=[("cam", time) for time in times]) == [0, 0, 0, 1]


def test_two_cameras_at_the_same_time_are_two_bursts() -> None:
    assert grouped(2, bursts=[("A", "2025-04-01T06:00:00"), ("B", "2025-04-01T06:00:00")]) == [0, 1]


def test_what_is_joined_by_different_reasons_is_one_group() -> None:
    numbers = grouped(
        4,
        sha256s=["a", "a", "c", "d"],
        sequences=[None, "s", "s", None],
        bursts=[None, None, ("cam", "2025-04-01T06:00:00"), ("cam", "2025-04-01T06:01:00")],
    )
    assert numbers == [0, 0, 0, 0]


def pictures() -> list[Image.Image]:
    return [drawn.draw(label, np.random.default_rng(i)) for i, label in enumerate(("deer", "empty", "fox"))]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda image: image.resize((120, 90)), id="scaled"),
        pytest.param(lambda image: ImageEnhance.Brightness(image).enhance(1.1), id="brightened"),
        pytest.param(
            lambda image: Image.fromarray(
                np.clip(np.asarray(image) + np.random.default_rng(1).normal(0, 6, (180, 240, 3)), 0, 255).astype("u1")
            ),
            id="with other noise",
        ),
        pytest.param(lambda image: image.crop((2, 1, 240, 180)), id="the camera shaken by a pixel"),
    ],
)
def test_a_near_duplicate_joins_its_original_and_no_other(change) -> None:  # type: ignore[no-untyped-def]
    images = [np.asarray(image) for image in (*pictures(), change(pictures()[0]))]
    assert grouped(4, photos=images) == [0, 1, 2, 0]


def test_equal_hashes_alone_do_not_join_photos_that_look_different() -> None:
    """Skies without detail have nearly equal hashes by chance."""
    slope = np.tile(np.linspace(100, 140, 64, dtype=np.uint8), (64, 1))
    red, blue = np.zeros((2, 64, 64, 3), np.uint8)
    red[..., 0], blue[..., 2] = slope, slope
    red[..., 1] = blue[..., 1] = slope // 2
    assert (split.difference_hash(red) == split.difference_hash(blue)).mean() > 0.9
    assert grouped(2, photos=[red, blue]) == [0, 1]


@pytest.mark.parametrize(
    ("times", "together"),
    [
        pytest.param((None, None), True, id="times unknown"),
        pytest.param(("2025-04-01T06:00:00", None), True, id="one time unknown"),
        pytest.param(("2025-03-31T23:00:00", "2025-04-01T22:59:00"), True, id="within a day, over midnight"),
        pytest.param(("2025-04-01T06:00:00", "2025-04-02T06:00:01"), False, id="more than a day apart"),
        pytest.param(("2025-04-01T06:00:00", "2024-04-01T06:00:00"), False, id="a year apart"),
    ],
)
def test_photos_that_look_alike_are_not_duplicates_if_they_were_taken_days_apart(
    times: tuple[str | None, str | None], together: bool
) -> None:
    """A fixed camera sees the same trees for months; the animal of another day is another visit."""
    image = np.asarray(pictures()[0])
    numbers = grouped(2, photos=[image, image], bursts=[time and ("cam", time) for time in times])  # type: ignore[misc]
    assert (numbers == [0, 0]) is together


def test_the_same_file_is_the_same_photo_whatever_its_time() -> None:
    assert grouped(2, sha256s=["a", "a"], bursts=[("cam", "2020-01-01T00:00:00"), ("cam", "2025-01-01T00:00:00")]) == [
        0, 0,
    ]  # fmt: skip


def test_a_hash_has_128_bits_and_knows_up_from_down() -> None:
    image = np.asarray(pictures()[0])
    assert split.difference_hash(image).shape == (128,)
    assert (split.difference_hash(image) != split.difference_hash(image[::-1])).sum() > split.NEAR_DUPLICATE_BITS


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_photo_of_one_colour_has_a_thumbnail(shade: int) -> None:
    assert np.isfinite(split.thumbnail(np.full((20, 30, 3), shade, np.uint8))).all()


# --- many photos


def pairwise_groups(
    hashes: npt.NDArray[np.bool_], thumbnails: npt.NDArray[np.float32], days: Sequence[float | None]
) -> list[int]:
    """What :func:`split.near_duplicates` finds, written down plainly: each photo against each other."""
    n = len(hashes)
    numbers = list(range(n))
    for i in range(n):
        for j in range(i + 1, n):
            first, second = days[i], days[j]
            apart = first is not None and second is not None and abs(first - second) > split.NEAR_DUPLICATE_DAYS
            alike = (hashes[i] != hashes[j]).sum() <= split.NEAR_DUPLICATE_BITS
            if alike and not apart and thumbnails[i] @ thumbnails[j] >= split.NEAR_DUPLICATE_CORRELATION:
                old, new = numbers[j], numbers[i]
                numbers = [new if number == old else number for number in numbers]
    seen: dict[int, int] = {}
    return [seen.setdefault(number, len(seen)) for number in numbers]


def looks(n: int, scenes: int, seed: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Photos of a few scenes, about as far from each other as the limits of what counts as alike."""
    random = np.random.default_rng(seed)
    scene = random.integers(0, scenes, n)
    hashes = (random.random((scenes, 128)) < 0.5)[scene] ^ (random.random((n, 128)) < 0.08)
    thumbnails = random.normal(size=(scenes, 768))[scene] + random.normal(size=(n, 768)) * 0.41
    return hashes, (thumbnails / np.linalg.norm(thumbnails, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [7, 64, 2048])
@pytest.mark.parametrize("dense", [0, 10_000])
def test_comparing_in_blocks_finds_what_comparing_each_with_each_finds(
    seed: int, block: int, dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split, "_BLOCK", block)
    monkeypatch.setattr(split, "_DENSE", dense)
    hashes, thumbnails = looks(150, 12, seed)
    random = np.random.default_rng(seed)
    days = [None if unknown else float(day) for unknown, day in zip(*(random.integers(0, 6, (2, 150))), strict=True)]
    days = [None if day == 0 else day for day in days]
    times = [None if day is None else f"2025-04-{int(day) + 1:02d}T06:00:00" for day in days]
    found = split.near_duplicates(hashes, thumbnails, times)
    assert found.tolist() == pairwise_groups(hashes, thumbnails, days)
    assert 12 < len(np.unique(found)) < 150


def test_similar_pairs_are_told_once_and_only_where_wanted() -> None:
    hashes, thumbnails = looks(60, 3, 0)
    wanted = [
        (int(i), int(j))
        for first, second in split.similar(hashes, thumbnails, [None] * 60, lambda i, j: (i + j) % 2 == 1, bits=30)
        for i, j in zip(first, second, strict=True)
    ]
    assert len(wanted) == len({frozenset(pair) for pair in wanted}) > 10
    assert all((i + j) % 2 for i, j in wanted)


# --- leaks, joining, holding out


def test_a_leak_is_told_with_its_likest_photo_of_an_earlier_part_and_why() -> None:
    hashes = np.zeros((7, 128), np.bool_)
    hashes[1, :3] = True
    found = split.leaks(
        groups=np.array([0, 0, 0, 1, 1, 2, 2]),
        parts=["train", "train", "test", "train", "validation", "test", "test"],
        order=("train", "validation", "test"),
        hashes=hashes,
        sha256s=["a", "b", "c", "d", "d", "e", "f"],
        sequences=[None] * 7,
        near=np.array([0, 1, 0, 2, 2, 3, 3]),
    )
    assert found == [split.Leak(2, 0, "near-duplicate"), split.Leak(4, 3, "same file")]


@pytest.mark.parametrize(("sequences", "why"), [(["s", "s"], "same sequence"), ([None, None], "same burst")])
def test_a_leak_of_photos_that_do_not_look_alike_is_by_sequence_or_burst(sequences: list[str | None], why: str) -> None:
    (leak,) = split.leaks(
        groups=np.array([0, 0]), parts=["validation", "train"], order=("train", "validation", "test"),
        hashes=FAR_HASHES[:2], sha256s=["a", "b"], sequences=sequences, near=np.array([0, 1]),
    )  # fmt: skip
    assert leak == split.Leak(0, 1, why)


def test_photos_in_no_part_leak_nowhere() -> None:
    assert not split.leaks(
        groups=np.array([0, 0]), parts=[None, "test"], order=("train", "validation", "test"),
        hashes=FAR_HASHES[:2], sha256s=["a", "a"], sequences=[None, None], near=np.array([0, 0]),
    )  # fmt: skip


def test_joining_two_numberings_keeps_together_what_either_does() -> None:
    assert split.join(np.array([5, 5, 1, 2, 9]), np.array([3, 4, 4, 7, 8])).tolist() == [0, 0, 0, 1, 2]


SOME = st.integers(4, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 3), min_size=n, max_size=n), st.lists(st.integers(0, 40), min_size=n, max_size=n)
    )
)


@given(SOME, st.floats(0.05, 0.5), st.integers(0, 3))
def test_what_is_held_out_cuts_no_group_and_leaves_every_label_a_group_to_learn_from(
    drawn_sets: tuple[list[int], list[int]], share: float, seed: int
) -> None:
    labels, groups = (np.array(each, dtype=np.intp) for each in drawn_sets)
    held = split.hold_out(labels, groups, share, seed)
    rest = np.setdiff1d(np.arange(len(labels)), held)
    assert not set(groups[held]) & set(groups[rest])
    assert set(labels[rest]) == set(labels)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_share_is_held_out_of_every_label_and_of_large_and_small_groups_alike(share: float) -> None:
    sizes = [30] * 20 + [10] * 40 + [1] * 600
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = groups % 3
    held = split.hold_out(labels, groups, share, 0)
    for label in range(3):
        assert (labels[held] == label).mean() == pytest.approx((labels == label).mean(), abs=0.02)
    for size in (30, 10, 1):
        of_size = np.repeat(sizes, sizes) == size
        assert of_size[held].sum() == pytest.approx(share * of_size.sum(), abs=45)  # half a group of each label
    assert len(held) == pytest.approx(share * len(labels), abs=3)


def test_a_label_of_two_groups_has_one_on_each_side() -> None:
    labels, groups = np.array([0] * 50 + [1, 1]), np.array([*range(50), 50, 51])
    for seed in range(5):
        assert (labels[split.hold_out(labels, groups, 0.1, seed)] == 1).sum() == 1


# --- folds

GROUPED = st.integers(5, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 3), min_size=n, max_size=n), st.lists(st.integers(0, 25), min_size=n, max_size=n)
    )
)


@given(GROUPED, st.integers(2, 5), st.integers(0, 3))
def test_folds_hold_each_photo_once_and_cut_no_group(
    drawn_sets: tuple[list[int], list[int]], count: int, seed: int
) -> None:
    labels, groups = (np.array(each, dtype=np.intp) for each in drawn_sets)
    if len(np.unique(groups)) < count:
        with pytest.raises(DataError, match="independent groups"):
            split.folds(labels, groups, count, seed)
        return
    found = split.folds(labels, groups, count, seed)
    assert len(found) == count
    assert sorted(np.concatenate(found).tolist()) == list(range(len(labels)))
    for i, fold in enumerate(found):
        assert (np.diff(fold) > 0).all()
        for other in found[i + 1 :]:
            assert not set(groups[fold]) & set(groups[other])


@given(st.lists(st.integers(0, 3), min_size=10, max_size=80), st.integers(2, 5))
def test_folds_of_single_photos_are_of_nearly_equal_size_and_mix(drawn_labels: list[int], count: int) -> None:
    labels = np.array(drawn_labels, dtype=np.intp)
    found = split.folds(labels, np.arange(len(labels)), count, 0)
    for label in np.unique(labels):
        shares = [int((labels[fold] == label).sum()) for fold in found]
        assert max(shares) - min(shares) <= 1
    sizes = [len(fold) for fold in found]
    assert max(sizes) - min(sizes) <= len(np.unique(labels))


def test_a_large_group_does_not_unbalance_the_others() -> None:
    groups = np.array([0] * 20 + list(range(1, 81)), dtype=np.intp)
    sizes = [len(fold) for fold in split.folds(np.zeros(100, dtype=np.intp), groups, 5, 0)]
    assert sizes == [20] * 5


def test_the_same_seed_gives_the_same_folds_and_another_gives_others() -> None:
    labels, groups = np.arange(60) % 3, np.arange(60)
    first, same, other = ([fold.tolist() for fold in split.folds(labels, groups, 5, seed)] for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_empty_folds_do_not_occur() -> None:
    """Five groups and five folds: one each, whatever the labels."""
    found = split.folds(np.array([0, 0, 1, 1, 2]), np.array([4, 3, 2, 1, 0]), 5, 0)
    assert sorted(len(fold) for fold in found) == [1] * 5


def test_labels_of_few_independent_groups_are_named() -> None:
    labels = ["fox"] * 6 + ["deer"] * 3 + ["boar"]
    groups = np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 4])
    assert split.thin_labels(labels, groups, 3) == ["boar", "fox"]
    assert split.thin_labels(labels, groups, 1) == []
