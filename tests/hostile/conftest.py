"""Devices to attack."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import tiny
from tests.hostile.device import Device, aged, running_fox_1


@pytest.fixture(scope="module", autouse=True)
def _no_power_cuts() -> Iterator[None]:
    """Nothing here is about power cuts, and thousands of refused files need no disk to spin for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A device that runs fox-1. All tests of a file share it, since a refused bundle leaves no mark."""
    made = running_fox_1(tmp_path_factory.mktemp("hostile"))
    before = tiny.snapshot(made.root)
    yield made
    assert tiny.snapshot(made.root) == before


@pytest.fixture
def blank(tmp_path: Path) -> Device:
    """A device root that holds nothing and would trust the first bundle."""
    (tmp_path / "blank").mkdir()
    return aged(Device(tmp_path / "blank"))
