"""At which probability ``empty`` may be said, so that no animal is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.model.decide import decide
from tests.trainer.answers import answered
from trainer.answered import Answered
from trainer.interval import at_most
from trainer.thresholds import UNDECIDED, Missed, emptied, thresholds

LABELS = ("deer", "empty", "fox", "person")
EMPTY = LABELS.index("empty")


def said(label: str, chance: float) -> tuple[float, ...]:
    """Probabilities with one label at ``chance`` and the others alike."""
    return tuple(chance if each == label else (1 - chance) / 3 for each in LABELS)


def photos(*wanted: tuple[str, str, float], groups: list[int] | None = None) -> Answered:
    """Photos as (truth, answer, its probability)."""
    return answered(LABELS, [(truth, said(answer, chance)) for truth, answer, chance in wanted], groups=groups)


def test_a_model_without_the_label_empty_has_nothing_to_choose() -> None:
    found = thresholds(answered(("deer", "fox"), [("deer", (0.9, 0.1))]), 1.0)
    assert (found.values, found.chosen) == ((UNDECIDED, UNDECIDED), None)


def test_empty_needs_more_than_the_surest_wrong_empty() -> None:
    found = thresholds(photos(("deer", "empty", 0.83), ("fox", "fox", 0.9), ("empty", "empty", 0.9)), 1.0)
    assert found.values[EMPTY] == pytest.approx(0.8301, abs=1e-4)
    assert [value for i, value in enumerate(found.values) if i != EMPTY] == [UNDECIDED] * 3
    assert found.chosen is not None
    assert (found.chosen.animals.events, found.chosen.animals.missed) == (2, 0)
    assert (found.chosen.empties, found.chosen.removed) == (1, 1)


def test_where_no_animal_is_called_empty_it_is_said_as_soon_as_it_is_likely() -> None:
    found = thresholds(photos(("deer", "deer", 0.9), ("empty", "empty", 0.6), ("deer", "empty", 0.45)), 1.0)
    assert found.values[EMPTY] == UNDECIDED


def test_only_one_event_in_a_hundred_may_be_missed() -> None:
    wrong = [("deer", "empty", 0.99), ("deer", "empty", 0.9), ("deer", "empty", 0.8)]
    for right, missed, threshold in ((96, 0, 0.99), (97, 1, 0.9), (196, 1, 0.9), (197, 2, 0.8)):
        found = thresholds(photos(*wrong, *[("fox", "fox", 0.9)] * right), 1.0)
        assert found.chosen is not None
        assert found.chosen.animals.missed == missed
        assert found.values[EMPTY] == pytest.approx(threshold + 1e-4, abs=1.01e-4)


def test_an_event_is_missed_only_if_all_its_photos_are() -> None:
    burst = photos(("deer", "empty", 0.95), ("deer", "empty", 0.7), groups=[1, 1])
    found = thresholds(burst, 1.0)
    assert found.values[EMPTY] == pytest.approx(0.7001, abs=1e-4)
    at_70 = emptied(burst, 1.0, [0.5, 0.7, 0.5, 0.5])
    assert at_70 is not None
    assert at_70.animals == Missed(1, 1, 1.0)


def test_an_empty_photo_of_the_same_burst_does_not_save_an_animal() -> None:
    """It was called deer by luck; the photo that shows the fox is lost all the same."""
    burst = photos(("fox", "empty", 0.8), ("empty", "deer", 0.9), groups=[1, 1])
    found = emptied(burst, 1.0, [0.5] * 4)
    assert found is not None
    assert (found.animals.events, found.animals.missed) == (1, 1)


def test_two_labels_in_one_burst_are_two_events() -> None:
    burst = photos(("fox", "empty", 0.8), ("deer", "deer", 0.9), groups=[1, 1])
    found = emptied(burst, 1.0, [0.5] * 4)
    assert found is not None
    assert (found.animals.events, found.animals.missed) == (2, 1)


def test_persons_are_guarded_as_animals_are_but_counted_apart() -> None:
    found = thresholds(photos(("person", "empty", 0.93), *[("deer", "deer", 0.9)] * 150), 1.0)
    assert found.values[EMPTY] == pytest.approx(0.9301, abs=1e-4)
    assert found.chosen is not None
    assert (found.chosen.persons.events, found.chosen.persons.missed) == (1, 0)
    assert (found.chosen.animals.events, found.chosen.animals.missed) == (150, 0)


def test_with_few_events_little_is_certain() -> None:
    found = thresholds(photos(*[("deer", "deer", 0.9)] * 40), 1.0)
    assert found.chosen is not None
    assert found.chosen.animals == Missed(40, 0, at_most(0, 40))
    assert found.chosen.persons == Missed(0, 0, 1.0)


def test_photos_of_nothing_but_empty_scenes() -> None:
    found = thresholds(photos(*[("empty", "empty", 0.9)] * 3), 1.0)
    assert found.values[EMPTY] == UNDECIDED
    assert found.chosen is not None
    assert (found.chosen.animals.events, found.chosen.removed) == (0, 3)


def test_a_certainty_of_one_cannot_be_exceeded_and_is_counted_as_missed() -> None:
    sure = answered(("deer", "empty"), [("deer", (1e-30, 1.0)), ("empty", (1e-30, 1.0))])
    found = thresholds(sure, 1.0)
    assert found.values[1] == 1.0
    assert found.chosen is not None
    assert found.chosen.animals.missed == 1


def test_the_temperature_is_applied_first() -> None:
    sharp = photos(("deer", "empty", 0.8))
    assert thresholds(sharp, 0.5).values[EMPTY] > thresholds(sharp, 1.0).values[EMPTY] > 0.8


@given(
    st.lists(st.tuples(st.sampled_from(LABELS), st.integers(0, 6), st.integers(0, 1000)), min_size=1, max_size=60),
    st.floats(0.3, 4.0),
)
def test_what_the_device_would_decide_misses_no_more_than_allowed(
    drawn: list[tuple[str, int, int]], temperature: float
) -> None:
    random = np.random.default_rng([seed for _, _, seed in drawn])
    chances = random.dirichlet([0.3] * 4, len(drawn)) * 0.999 + 0.00025
    some = answered(
        LABELS,
        [(label, row) for (label, _, _), row in zip(drawn, chances, strict=True)],
        groups=[g for _, g, _ in drawn],
    )
    values = thresholds(some, temperature).values
    kinds = [decide(row, LABELS, temperature=temperature, thresholds=values).kind for row in some.logits]
    events: dict[tuple[str, int], list[bool]] = {}
    for (label, group, _), kind in zip(drawn, kinds, strict=True):
        if label not in ("empty", "person"):
            events.setdefault((label, group), []).append(kind == "empty")
    missed = sum(all(lost) for lost in events.values())
    assert missed <= 0.01 * len(events) or values[EMPTY] == 1.0
    found = emptied(some, temperature, values)
    assert found is not None
    assert (found.animals.events, found.animals.missed) == (len(events), missed)
