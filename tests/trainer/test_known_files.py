"""A photo that did not change is not read again for its hash; one that may have changed always is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge import photo as photos
from edge.errors import PhotoError
from tests.fakes import tiny
from trainer import known_files
from trainer.known_files import RACY_NS, KnownFiles

_NOW_NS = time.time_ns


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """One photo, just written."""
    path = tmp_path / "data" / "a.png"
    path.parent.mkdir()
    path.write_bytes(tiny.png((1, 2, 3)))
    return path


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test writes is long settled when it is read."""
    monkeypatch.setattr(time, "time_ns", lambda: _NOW_NS() + 10 * RACY_NS)


def learn(photo: Path, cache: Path) -> str:
    """Read a photo in one run; its hash."""
    known = KnownFiles(cache)
    sha256 = known.read(photo).sha256
    known.flush()
    return sha256


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


@pytest.mark.usefixtures("later")
def test_a_file_that_was_read_is_known_at_once_and_in_the_next_run(photo: Path, tmp_path: Path) -> None:
    known = KnownFiles(tmp_path / "cache")
    assert known.sha256(photo) is None
    sha256 = known.read(photo).sha256
    assert known.sha256(photo) == sha256
    known.flush()
    assert known.sha256(photo) == sha256
    assert KnownFiles(tmp_path / "cache").sha256(photo) == sha256


@pytest.mark.usefixtures("later")
def test_a_hash_that_ends_in_zeros_comes_back_whole(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.photo.Photo.sha256", "ab" * 30 + "0000")
    assert learn(photo, tmp_path / "cache") == KnownFiles(tmp_path / "cache").sha256(photo) == "ab" * 30 + "0000"


def other_content(photo: Path) -> None:
    photo.write_bytes(tiny.png((9, 9, 9)) + b"more")


def same_length_and_time(photo: Path) -> None:
    facts = photo.stat()
    changed = bytearray(photo.read_bytes())
    changed[-1] ^= 1
    with photo.open("r+b") as file:
        file.write(changed)
    os.utime(photo, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def another_file_in_its_place(photo: Path) -> None:
    facts = photo.stat()
    new = photo.with_name("new")
    new.write_bytes(bytes(facts.st_size))
    os.utime(new, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    new.replace(photo)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(other_content, id="written anew"),
        pytest.param(same_length_and_time, id="changed in place, its length and time kept"),
        pytest.param(another_file_in_its_place, id="replaced by one of the same length and time"),
        pytest.param(lambda photo: os.utime(photo, ns=(1, 1)), id="its time set"),
        pytest.param(Path.unlink, id="removed"),
    ],
)
def test_a_file_that_looks_otherwise_must_be_read(photo: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    learn(photo, tmp_path / "cache")
    change(photo)
    assert KnownFiles(tmp_path / "cache").sha256(photo) is None


@pytest.mark.usefixtures("later")
def test_where_no_status_change_is_noted_a_file_in_another_s_place_must_be_read(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def as_on_a_fat_card(path: Path, **options: bool) -> os.stat_result:
        facts = real(path, **options)
        named = {name: getattr(facts, name) for name in dir(facts) if name.startswith("st_")}
        return os.stat_result(tuple(facts), named | {"st_ctime_ns": 0})

    monkeypatch.setattr(os, "stat", as_on_a_fat_card)
    sha256 = learn(photo, tmp_path / "cache")
    assert KnownFiles(tmp_path / "cache").sha256(photo) == sha256
    another_file_in_its_place(photo)
    assert KnownFiles(tmp_path / "cache").sha256(photo) is None


def test_a_file_that_changed_just_before_it_was_read_is_read_again(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_ns = max(photo.stat().st_mtime_ns, photo.stat().st_ctime_ns)
    monkeypatch.setattr(time, "time_ns", lambda: changed_ns + RACY_NS)
    learn(photo, tmp_path / "cache")
    assert KnownFiles(tmp_path / "cache").sha256(photo) is None
    monkeypatch.setattr(time, "time_ns", lambda: changed_ns + RACY_NS + 1)
    learn(photo, tmp_path / "cache")
    assert KnownFiles(tmp_path / "cache").sha256(photo) is not None


@pytest.mark.usefixtures("later")
def test_a_time_in_the_future_tells_nothing(photo: Path, tmp_path: Path) -> None:
    in_a_year_ns = _NOW_NS() + 365 * 86400 * 10**9
    os.utime(photo, ns=(in_a_year_ns, in_a_year_ns))
    learn(photo, tmp_path / "cache")
    assert KnownFiles(tmp_path / "cache").sha256(photo) is None


@pytest.mark.usefixtures("later")
def test_a_file_that_changes_while_it_is_read_is_not_known(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = photos.read

    def read_and_change(path: Path) -> photos.Photo:
        found = read(path)
        other_content(path)
        return found

    monkeypatch.setattr(photos, "read", read_and_change)
    learn(photo, tmp_path / "cache")
    assert KnownFiles(tmp_path / "cache").sha256(photo) is None


@pytest.mark.usefixtures("later")
def test_two_files_of_one_look_are_told_apart_by_their_path(photo: Path, tmp_path: Path) -> None:
    link = photo.with_name("b.png")
    os.link(photo, link)  # one inode, one length, one time
    learn(photo, tmp_path / "cache")
    assert KnownFiles(tmp_path / "cache").sha256(link) is None


@pytest.mark.usefixtures("later")
def test_a_path_is_the_same_however_it_is_written(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = learn(photo, tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    assert KnownFiles(tmp_path / "cache").sha256(Path("data/../data/a.png")) == sha256


@pytest.mark.usefixtures("later")
def test_what_cannot_be_read_is_not_known_and_says_so(tmp_path: Path) -> None:
    known = KnownFiles(tmp_path / "cache")
    (tmp_path / "empty.jpg").touch()
    for path in (tmp_path / "gone.jpg", tmp_path / "empty.jpg", Path("a\0.jpg"), Path("\ud800.jpg"), tmp_path):
        assert known.sha256(path) is None
        with pytest.raises(PhotoError):
            known.read(path)


@pytest.mark.usefixtures("later")
def test_a_damaged_index_forgets_and_never_tells_another_hash(photo: Path, tmp_path: Path) -> None:
    sha256 = learn(photo, tmp_path / "cache")
    (index,) = files(tmp_path / "cache")
    whole = index.read_bytes()
    for at in range(len(whole)):
        index.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        assert KnownFiles(tmp_path / "cache").sha256(photo) in (None, sha256)
        index.write_bytes(whole[:at])
        assert KnownFiles(tmp_path / "cache").sha256(photo) is None
    assert learn(photo, tmp_path / "cache") == sha256
    assert KnownFiles(tmp_path / "cache").sha256(photo) == sha256


@pytest.mark.usefixtures("later")
def test_runs_beside_each_other_know_all_that_any_of_them_read(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(24)]
    for i, path in enumerate(paths):
        path.write_bytes(tiny.png((i, 2, 3)))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: learn(path, tmp_path / "cache"), paths))  # each joins what the others wrote
    known = KnownFiles(tmp_path / "cache")
    assert [known.sha256(path) for path in paths] == found


@pytest.mark.usefixtures("later")
def test_an_index_that_grew_too_large_starts_anew(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn(photo, tmp_path / "cache")
    (old,) = files(tmp_path / "cache")
    monkeypatch.setattr(known_files, "MOST_BYTES", old.stat().st_size)
    assert KnownFiles(tmp_path / "cache").sha256(photo) is not None
    monkeypatch.setattr(known_files, "MOST_BYTES", old.stat().st_size - 1)
    assert KnownFiles(tmp_path / "cache").sha256(photo) is None
    assert files(tmp_path / "cache") == []


@pytest.mark.usefixtures("later")
def test_a_place_that_cannot_be_written_costs_only_time(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert learn(photo, tmp_path / "cache") == learn(photo, tmp_path / "cache")
