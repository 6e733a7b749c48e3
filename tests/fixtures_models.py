"""Small models that tests share, and folders of their own for cache and keys, so that no test touches a home."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.agent import slots
from edge.model import bundle as bundles
from edge.model import trust
from edge.model.bundle import Golden, Label
from edge.model.spec import InputSpec
from tests import colour_model
from tests.fakes import tiny

SIDE = 32
LABELS = ("deer", "empty", "fox")
"""What ``tiny_bundle`` calls a photo that is mostly red, mostly green, mostly blue."""
COLOURS = {"deer": (200, 10, 10), "empty": (10, 200, 10), "fox": (10, 10, 200)}
TEMPERATURE = 20.0
"""Logits are 0 to 255, so a photo of one clear colour is sure, and one that is 20 redder than blue is not."""


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Cache and keys of this test run alone; no device root by accident."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(folder / "cache"))
        patch.setenv("FIELDMARK_KEYS", str(folder / "keys"))
        patch.delenv("FIELDMARK_ROOT", raising=False)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``.tflite`` of under a kilobyte, 32 x 32: its logits are the mean red, green and blue."""
    path = tmp_path_factory.mktemp("model") / bundles.MODEL
    path.write_bytes(colour_model.build(SIDE, SIDE))
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model as a signed bundle: red is ``deer``, green ``empty``, blue ``fox``. Do not change the file."""
    path = tmp_path_factory.mktemp("bundle") / "tiny-7.fmb"
    return write_bundle(path, tiny_model.read_bytes())


@pytest.fixture(scope="session")
def _installed_root(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("device") / "root"
    root.mkdir()
    slots.install(root, tiny_bundle)
    return root


@pytest.fixture
def device_root(_installed_root: Path, tmp_path: Path) -> Path:
    """A device root of this test's own, in which ``tiny_bundle`` is installed."""
    root = tmp_path / "device-root"
    shutil.copytree(_installed_root, root, symlinks=True)
    return root


def write_bundle(path: Path, model: bytes, *, key: trust.SigningKey = tiny.KEY, sequence: int = 7) -> Path:
    """A signed bundle of a 32 x 32 colour model, with a golden photo of each label."""
    files = {bundles.MODEL: model}
    files |= {f"golden/{label}.png": tiny.png(colour, side=SIDE) for label, colour in COLOURS.items()}
    golden = tuple(
        Golden(f"golden/{label}.png", label, (float(red), float(green), float(blue)), 1.0)
        for label, (red, green, blue) in COLOURS.items()
    )
    return tiny.write(
        path,
        key=key,
        files=files,
        sequence=sequence,
        labels=tuple(Label(name, english=name) for name in LABELS),
        input=InputSpec(SIDE, SIDE),
        temperature=TEMPERATURE,
        thresholds=(0.5,) * len(LABELS),
        golden=golden,
    )
