"""The cache: a damaged entry is a miss, a full disk is said and not made up for in memory, old entries go first."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge.errors import ConfigError
from trainer import cache
from trainer.cache import ArrayCache, Room, cache_dir, limit_bytes, prune

KEY = "ab" + "0" * 62
VALUES = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


@pytest.fixture
def store(tmp_path: Path) -> ArrayCache:
    """An empty cache of 2 x 2 photos."""
    return ArrayCache(tmp_path / "store", (2, 2, 3), np.uint8)


def entry(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "store").rglob("*.npy")
    return path


def test_what_was_put_is_there_also_for_the_next_process(store: ArrayCache, tmp_path: Path) -> None:
    assert store.get(KEY) is None
    store.put(KEY, VALUES)
    assert (store.get(KEY) == VALUES).all()  # type: ignore[union-attr]
    assert (ArrayCache(tmp_path / "store", (2, 2, 3), np.uint8).get(KEY) == VALUES).all()  # type: ignore[union-attr]
    assert not store.full


def test_a_file_cut_anywhere_is_a_miss(store: ArrayCache, tmp_path: Path) -> None:
    store.put(KEY, VALUES)
    path = entry(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert store.get(KEY) is None
    path.write_bytes(whole)
    assert store.get(KEY) is not None


def test_a_file_with_one_wrong_bit_never_gives_another_array(store: ArrayCache, tmp_path: Path) -> None:
    store.put(KEY, VALUES)
    path = entry(tmp_path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            found = store.get(KEY)
            assert found is None or (found == VALUES).all()  # a blank more in the header changes nothing


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(bytes(300), id="zeros, as after a power cut"),
        pytest.param(b"\x80\x04\x95" + bytes(50), id="a pickle"),
        pytest.param(b"rubbish" * 40, id="rubbish"),
    ],
)
def test_a_file_of_something_else_is_a_miss(store: ArrayCache, tmp_path: Path, content: bytes) -> None:
    store.put(KEY, VALUES)
    entry(tmp_path).write_bytes(content)
    assert store.get(KEY) is None


def test_a_damaged_entry_is_written_again(store: ArrayCache, tmp_path: Path) -> None:
    store.put(KEY, VALUES)
    entry(tmp_path).write_bytes(b"")
    store.put(KEY, VALUES)
    assert (store.get(KEY) == VALUES).all()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "other", [np.zeros((2, 2, 3), np.float32), np.zeros((2, 3, 3), np.uint8), np.asfortranarray(VALUES[:1])]
)
def test_an_array_of_another_kind_is_a_miss(store: ArrayCache, tmp_path: Path, other: np.ndarray) -> None:  # type: ignore[type-arg]
    store.put(KEY, VALUES)
    cache.write(entry(tmp_path), other)
    assert store.get(KEY) is None


def test_pickled_objects_are_never_loaded(store: ArrayCache, tmp_path: Path) -> None:
    store.put(KEY, VALUES)
    np.save(entry(tmp_path), np.array([VALUES, None], dtype=object), allow_pickle=True)
    assert store.get(KEY) is None


def test_a_flipped_bit_anywhere_in_the_pixels_is_a_miss(store: ArrayCache, tmp_path: Path) -> None:
    store.put(KEY, VALUES)
    path = entry(tmp_path)
    whole = path.read_bytes()
    for place in range(len(whole) - VALUES.nbytes - 4, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert store.get(KEY) is None


def test_what_comes_out_is_mapped_and_cannot_be_written_to(store: ArrayCache) -> None:
    store.put(KEY, VALUES)
    found = store.get(KEY)
    assert isinstance(found, np.ndarray)
    assert isinstance(found.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0, 0] = 1


def test_an_entry_that_is_removed_while_it_is_mapped_stays_readable(store: ArrayCache, tmp_path: Path) -> None:
    """As when another run prunes it."""
    store.put(KEY, VALUES)
    found = store.get(KEY)
    entry(tmp_path).unlink()
    assert found is not None
    assert (found == VALUES).all()


def test_whether_an_entry_is_there_is_known_without_reading_it(
    store: ArrayCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not store.has(KEY)
    store.put(KEY, VALUES)
    entry(tmp_path).chmod(0)
    monkeypatch.setattr(cache, "read", lambda path: pytest.fail("it was read"))
    assert store.has(KEY)


def test_a_shorter_file_is_no_entry(store: ArrayCache, tmp_path: Path) -> None:
    store.put(KEY, VALUES)
    path = entry(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert not store.has(KEY)


def test_an_array_of_another_kind_is_not_taken(store: ArrayCache) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(2, 2, 3\), found float64"):
        store.put(KEY, VALUES.astype(float))


def test_a_full_disk_is_said_and_nothing_is_held_in_memory(
    store: ArrayCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(file: object, array: object, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", no_space)
        assert not store.put(KEY, VALUES)
    assert store.full
    assert store.get(KEY) is None
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == [], "half a file was left"


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ArrayCache(tmp_path / "file" / "store", (2, 2, 3), np.uint8)
    assert not store.put(KEY, VALUES)
    assert store.full


def test_an_interrupted_write_leaves_nothing(
    store: ArrayCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(file: object, array: object, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.put(KEY, VALUES)
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


# --- pruning


def aged(folder: Path, count: int) -> list[Path]:
    """Entries of 1000 bytes, the first the oldest."""
    paths = [folder / f"{i:02d}" / f"{i:064x}.npy" for i in range(count)]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (1_700_000_000 + i, 1_700_000_000 + i))
    return paths


@pytest.mark.parametrize(
    ("most_bytes", "left"),
    [(5000, 5), (4999, 4), (4000, 4), (1500, 1), (999, 0), (0, 0)],
)
def test_the_oldest_entries_go_until_the_rest_fits(tmp_path: Path, most_bytes: int, left: int) -> None:
    paths = aged(tmp_path, 5)
    assert prune(tmp_path, most_bytes) == 5 - left
    assert [path for path in paths if path.exists()] == paths[5 - left :]


def test_pruning_leaves_other_files_alone(tmp_path: Path) -> None:
    """Somebody may name a folder for the cache that holds arrays, models or downloads of their own."""
    aged(tmp_path, 1)
    own = [tmp_path / name for name in ("notes.txt", "measurements.npy", "deer.tflite", "film.part")]
    for path in own:
        path.write_text("mine")
        os.utime(path, (1_700_000_000, 1_700_000_000))
    prune(tmp_path, 0)
    assert [path.read_text() for path in own] == ["mine"] * 4
    assert list(tmp_path.rglob(f"{0:064x}.npy")) == []


def test_a_folder_that_is_not_there_is_pruned_to_nothing(tmp_path: Path) -> None:
    assert prune(tmp_path / "none") == 0


# --- room


def keys(count: int) -> list[str]:
    return [f"{i:02x}" + "0" * 62 for i in range(count)]


def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: float) -> tuple[ArrayCache, Room]:
    """A cache with a cap of so many entries."""
    one = ArrayCache(tmp_path, (2, 2, 3), np.uint8).file_bytes
    monkeypatch.setenv("FIELDMARK_CACHE_GB", f"{entries * one / 1e9:.12f}")
    room = Room(tmp_path)
    return ArrayCache(tmp_path / "store", (2, 2, 3), np.uint8, room), room


def test_the_length_of_an_entry_is_known_before_it_is_written(store: ArrayCache, tmp_path: Path) -> None:
    store.put(KEY, VALUES)
    assert entry(tmp_path).stat().st_size == store.file_bytes


def test_nothing_is_put_beyond_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = limited(tmp_path, monkeypatch, 2.5)
    assert [store.put(key, VALUES) for key in keys(4)] == [True, True, False, False]
    assert store.full
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.npy")) <= limit_bytes()


def test_what_is_there_already_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = limited(tmp_path, monkeypatch, 3.5)
    first.put(keys(1)[0], VALUES)
    store, _ = limited(tmp_path, monkeypatch, 3.5)
    assert [store.put(key, VALUES) for key in keys(5)[1:]] == [True, True, False, False]


def test_the_disk_s_reserve_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "RESERVE_BYTES", 10**18)
    store = ArrayCache(tmp_path, (2, 2, 3), np.uint8, Room(tmp_path))
    assert not store.put(KEY, VALUES)
    assert store.full


def test_room_is_made_of_what_was_used_longest_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _ = limited(tmp_path, monkeypatch, 4.5)
    for i, key in enumerate(keys(4)):
        old.put(key, VALUES)
        os.utime(old._path(key), (1_700_000_000 + i, 1_700_000_000 + i))
    store, room = limited(tmp_path, monkeypatch, 4.5)
    assert store.has(keys(4)[0]), "the oldest is used by this run"
    room.make(2 * store.file_bytes)
    assert [store.has(key) for key in keys(4)] == [True, False, False, True]
    new = keys(6)[4:]
    assert [store.put(key, VALUES) for key in new] == [True, True]


def test_no_room_is_made_of_what_this_run_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _ = limited(tmp_path, monkeypatch, 2.5)
    old.put(keys(1)[0], VALUES)
    os.utime(old._path(keys(1)[0]), (1_700_000_000, 1_700_000_000))
    store, room = limited(tmp_path, monkeypatch, 2.5)
    assert store.has(keys(1)[0])
    assert store.put(keys(2)[1], VALUES)
    room.make(10**9)
    assert [store.has(key) for key in keys(2)] == [True, True]


def test_two_runs_at_once_write_the_same_entry(tmp_path: Path) -> None:
    a, b = (ArrayCache(tmp_path / "store", (2, 2, 3), np.uint8) for _ in range(2))
    found = []
    for _ in range(50):
        with ThreadPoolExecutor(2) as pool:
            found += list(pool.map(lambda each: each.put(KEY, VALUES), (a, b)))
        assert a.get(KEY) is not None
    assert all(found)
    assert len(list((tmp_path / "store").rglob("*"))) == 2, "one folder and one file"


def test_what_a_killed_run_was_writing_goes_after_a_day(tmp_path: Path) -> None:
    new, old = tmp_path / "tmp0000_new.part", tmp_path / "tmp0000_old.part"
    for path in (new, old):
        path.write_bytes(b"x")
    os.utime(old, (1_700_000_000, 1_700_000_000))
    prune(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_the_cap_is_what_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIELDMARK_CACHE_GB", raising=False)
    assert limit_bytes() == 20_000_000_000
    monkeypatch.setenv("FIELDMARK_CACHE_GB", "0.5")
    assert limit_bytes() == 500_000_000


@pytest.mark.parametrize("text", ["lots", "-1", "nan", "inf", "20GB"])
def test_a_cap_that_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE_GB", text)
    with pytest.raises(ConfigError, match="expected gigabytes such as 20"):
        limit_bytes()


# --- bytes


def test_bytes_come_back_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "some" / "network"
    assert cache.read_bytes(path) is None
    cache.write_bytes(path, b"content")
    assert cache.read_bytes(path) == b"content"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert cache.read_bytes(path) is None


# --- where it is


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("FIELDMARK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/fieldmark")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/srv/ranger")
    assert cache_dir() == Path("/srv/ranger/.cache/fieldmark")


def test_these_tests_do_not_use_the_user_s_cache() -> None:
    assert not cache_dir().is_relative_to(Path.home() / ".cache")
