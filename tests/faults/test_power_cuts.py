"""Power cuts on a real file system: what was acknowledged is there afterwards, once, and the next start goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import scale
from tests.faults import clients
from tests.fixtures_models import write_bundle

pytestmark = pytest.mark.needs("loop_mounts")

CUTS_PER_DISK = 5


@pytest.mark.parametrize("disk", range(scale.count("power_cuts") // CUTS_PER_DISK))
def test_photos_that_were_acknowledged_before_a_power_cut_are_in_the_log_once(
    disk: int, device_image: Path, tmp_path: Path
) -> None:
    at = tmp_path / "disk"
    folder = (at if disk % 3 == 2 else tmp_path) / "photos"
    tally = clients.cut_agent(device_image, at, folder, seed=disk, cuts=CUTS_PER_DISK)
    assert (tally.cuts, tally.lost, tally.faults) == (CUTS_PER_DISK, 0, [])
    assert tally.promised > 0


@pytest.mark.parametrize("cut", range(scale.count("installer_power_cuts")))
def test_a_power_cut_leaves_the_old_bundle_or_the_new_one_whole(
    cut: int, device_image: Path, blank_image: Path, tiny_model: Path, tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "tiny-8.fmb", tiny_model.read_bytes(), sequence=8)
    image = blank_image if cut % 2 else device_image
    tally = clients.cut_installer(image, tmp_path / "disk", bundle, seed=cut)
    assert (tally.lost, tally.faults) == (0, [])


# The harness must see losses where there are some.


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=pytest.mark.needs("eatmydata") if "fsync" in way else ()) for way in clients.ALTERED],
)
def test_an_agent_that_syncs_less_loses_acknowledged_photos(way: str, device_image: Path, tmp_path: Path) -> None:
    cuts = scale.count("control_power_cuts")
    tally = clients.cut_altered_agent(device_image, tmp_path / "disk", tmp_path / "photos", way, seed=0, cuts=cuts)
    assert (tally.losing, tally.cuts) == (cuts, cuts)


@pytest.mark.needs("eatmydata")
def test_an_installer_that_does_not_sync_loses_the_bundle(blank_image: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    assert clients.cut_installer(blank_image, tmp_path / "disk", tiny_bundle, seed=0, unsynced=True).lost
