"""File systems to cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import clients, power


@pytest.fixture(scope="session")
def _device_image(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    return clients.device_image(folder / "device.img", tiny_bundle, folder / "disk")


@pytest.fixture
def device_image(_device_image: Path, tmp_path: Path) -> Path:
    """An image of this test's own: a device root with ``tiny_bundle`` in ``root``, and an empty ``photos``."""
    return power.copy_image(_device_image, tmp_path / "device.img")


@pytest.fixture
def blank_image(tmp_path: Path) -> Path:
    """An image with an empty folder ``root``, which is no device yet."""
    return clients.device_image(tmp_path / "blank.img", None, tmp_path / "disk")
