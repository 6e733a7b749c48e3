"""A device runs signed fox-1. Signed fox-2 with one byte changed is refused, whichever byte it is."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from edge.errors import FieldmarkError
from edge.model import bundle as bundles
from tests import scale
from tests.fakes import tiny
from tests.hostile import device as hostile
from tests.hostile.device import Device

FOX_2 = hostile.fox(2)
ROOT_SIGNATURE = f"roots/1.{tiny.KEY.key_id}.minisig"
REGIONS = ("header", bundles.SIGNATURE, "padding", "end", ROOT_SIGNATURE)


@pytest.mark.parametrize("region", REGIONS)
def test_no_byte_of_headers_signatures_and_padding_can_change(region: str) -> None:
    rng, places = random.Random(region), _places(region)
    assert len(places) > 200
    for at in places:
        with pytest.raises(FieldmarkError):
            hostile.read(_changed(at, rng))


@pytest.mark.parametrize("region", REGIONS)
def test_fox_2_with_such_a_byte_changed_leaves_no_mark_on_the_device(device: Device, region: str) -> None:
    rng, places = random.Random(region), _places(region)
    for at in rng.sample(places, min(scale.count("changed_region_bytes"), len(places))):
        device.refuse(_changed(at, rng))


def _places(*regions: str) -> list[int]:
    return [at for name, found in hostile.regions(hostile.fox_members()) if name in regions for at in found]


@pytest.mark.parametrize("part", [bundles.MANIFEST, "payload"])
def test_fox_2_with_a_byte_of_its_content_changed_is_refused(device: Device, part: str) -> None:
    rng = random.Random(part)
    places = _places(*(tiny.payload() if part == "payload" else (part,)))
    chosen = rng.sample(places, min(scale.count("changed_content_bytes"), len(places)))
    codes = {device.refuse(_changed(at, rng)).code for at in chosen}
    assert codes == {"digest" if part == "payload" else "signature"}


def test_fox_2_with_a_byte_more_or_less_anywhere_is_refused(device: Device) -> None:
    rng = random.Random(6)
    for at in rng.sample(range(len(FOX_2)), scale.count("changed_content_bytes")):
        device.refuse(FOX_2[:at] + FOX_2[at + 1 :])
        device.refuse(FOX_2[:at] + rng.randbytes(1) + FOX_2[at:])


def _changed(at: int, rng: random.Random) -> bytes:
    altered = bytearray(FOX_2)
    altered[at] ^= rng.randrange(1, 256)
    return bytes(altered)


def test_the_regions_are_all_of_the_file() -> None:
    assert _total(places for _, places in hostile.regions(hostile.fox_members())) == set(range(len(FOX_2)))


def _total(places: Iterable[range]) -> set[int]:
    return {at for found in places for at in found}
