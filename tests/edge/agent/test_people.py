from __future__ import annotations

import pytest

from edge.agent.config_upkeep import People
from edge.agent.people import PERSON, Treatment, treatment
from edge.model import decide


def test_person_is_spelt_as_the_model_spells_it() -> None:
    assert PERSON == decide.PERSON


@pytest.mark.parametrize(
    ("label", "top", "expected"),
    [
        pytest.param("person", [("person", 0.9)], Treatment.BLUR, id="a decided person is blurred"),
        pytest.param("person", [], Treatment.BLUR, id="a decided person without a list is blurred"),
        pytest.param("deer", [("deer", 0.7), ("person", 0.2)], Treatment.BLUR, id="a likely person is blurred"),
        pytest.param("unknown", [("person", 0.4)], Treatment.BLUR, id="an undecided person is blurred"),
        pytest.param("empty", [("empty", 0.7), ("person", 0.25)], Treatment.BLUR, id="a hidden person is blurred"),
        pytest.param("deer", [("deer", 0.9), ("person", 0.19)], Treatment.KEEP, id="an unlikely person is not"),
        pytest.param("deer", [("deer", 0.9)], Treatment.KEEP, id="a deer is kept"),
        pytest.param(None, [], Treatment.KEEP, id="nothing said is kept"),
    ],
)
def test_default_blurs_what_may_be_a_person(
    label: str | None, top: list[tuple[str, float]], expected: Treatment
) -> None:
    assert treatment(label, top, People()) is expected


@pytest.mark.parametrize(("word", "state"), [("keep", "kept"), ("blur", "blurred"), ("none", "withheld")])
def test_owner_chooses_what_becomes_of_people_and_deer_are_kept(word: str, state: str) -> None:
    assert treatment("person", [], People(word)).value == state
    assert treatment("deer", [], People(word)) is Treatment.KEEP
