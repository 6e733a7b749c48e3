"""Writing so that a power cut leaves the old content or the new."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import durable


def test_a_file_is_replaced_whole_and_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "state"
    durable.write_file(path, b"old", mode=0o600)
    durable.write_file(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["state"]


def test_content_that_fails_halfway_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ValueError

    durable.write_file(tmp_path / "state", b"old")
    with pytest.raises(ValueError):  # noqa: PT011 # the one above
        durable.write_chunks(tmp_path / "state", chunks())
    assert (tmp_path / "state").read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["state"]


def test_what_a_cut_left_aside_does_not_stop_the_next_write(tmp_path: Path) -> None:
    durable.aside(tmp_path / "state").write_bytes(b"half")
    durable.write_file(tmp_path / "state", b"new")
    assert [found.name for found in tmp_path.iterdir()] == ["state"]


def test_a_link_laid_aside_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    durable.aside(tmp_path / "state").symlink_to("precious")
    durable.write_file(tmp_path / "state", b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "state").is_symlink()


def test_file_and_folder_are_synced_around_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), (tmp_path / "state").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    durable.write_file(tmp_path / "state", b"new")
    assert synced == [(str(durable.aside(tmp_path / "state")), False), (str(tmp_path), True)]
