"""The cache: a damaged entry is a miss, a full disk costs memory and not the run, old entries go first."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from trainer.cache import ArrayCache, cache_dir, prune

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
    "other", [np.zeros((2, 2, 3), np.float32), np.zeros((2, 3, 3), np.uint8), np.array([VALUES], dtype=object)]
)
def test_an_array_of_another_kind_is_a_miss(store: ArrayCache, tmp_path: Path, other: np.ndarray) -> None:  # type: ignore[type-arg]
    store.put(KEY, VALUES)
    np.save(entry(tmp_path), other, allow_pickle=True)
    assert store.get(KEY) is None


def test_an_array_of_another_kind_is_not_taken(store: ArrayCache) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(2, 2, 3\), found float64"):
        store.put(KEY, VALUES.astype(float))


def test_a_full_disk_falls_back_to_memory(store: ArrayCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(file: object, array: object, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", no_space)
        store.put(KEY, VALUES)
    assert store.full
    assert (store.get(KEY) == VALUES).all()  # type: ignore[union-attr]
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == [], "half a file was left"


def test_a_place_that_cannot_be_written_falls_back_to_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ArrayCache(tmp_path / "file" / "store", (2, 2, 3), np.uint8)
    store.put(KEY, VALUES)
    assert store.full
    assert (store.get(KEY) == VALUES).all()  # type: ignore[union-attr]


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
    paths = [folder / f"{i:02d}" / f"{i}.npy" for i in range(count)]
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
    aged(tmp_path, 1)
    (tmp_path / "notes.txt").write_text("mine")
    prune(tmp_path, 0)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_not_there_is_pruned_to_nothing(tmp_path: Path) -> None:
    assert prune(tmp_path / "none") == 0


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
