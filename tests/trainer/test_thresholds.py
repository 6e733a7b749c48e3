"""At which probability a label may be said, so that it is right as often as wanted and no animal is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.model.bundle import Label
from edge.model.decide import decide
from edge.model.taxonomy import taxonomy
from tests.trainer.answers import answered
from trainer.answered import Answered
from trainer.interval import at_most
from trainer.thresholds import ENOUGH, ROLL_UP, UNDECIDED, Missed, Reached, Thresholds, emptied, for_precision

LABELS = ("deer", "empty", "fox", "person")
EMPTY = LABELS.index("empty")


def said(label: str, chance: float) -> tuple[float, ...]:
    """Probabilities with one label at ``chance`` and the others alike."""
    return tuple(chance if each == label else (1 - chance) / 3 for each in LABELS)


def photos(*wanted: tuple[str, str, float], groups: list[int] | None = None) -> Answered:
    """Photos as (truth, answer, its probability)."""
    return answered(LABELS, [(truth, said(answer, chance)) for truth, answer, chance in wanted], groups=groups)


def thresholds(some: Answered, temperature: float) -> Thresholds:
    """As soon as an answer is more likely right than wrong."""
    return for_precision(some, temperature, 0.5)


# Empty


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
    whole = photos(
        ("deer", "empty", 0.95), ("deer", "empty", 0.7), *[("empty", "empty", 0.6)] * 4, groups=[1, 1, 2, 3, 4, 5]
    )
    found = thresholds(whole, 1.0)
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


# Precision

DEER, FOX = LABELS.index("deer"), LABELS.index("fox")


def many(
    label: str, chance: float, right: int, wrong: int = 0, *, really: str = "person"
) -> list[tuple[str, str, float]]:
    """Photos called ``label``, some of them wrongly."""
    return [(label, label, chance)] * right + [(really, label, chance)] * wrong


def test_nineteen_photos_all_right_show_95_percent_and_eighteen_do_not() -> None:
    """(0 + 1) / (19 + 1) = 0.05; (0 + 1) / (18 + 1) = 0.053."""
    shown = for_precision(photos(*many("deer", 0.9, 19)), 1.0, 0.95)
    assert (shown.values[DEER], shown.reached[DEER].shown) == (UNDECIDED, True)
    short = for_precision(photos(*many("deer", 0.9, 18)), 1.0, 0.95)
    assert (short.values[DEER], short.reached[DEER].shown) == (UNDECIDED, False)


def test_bursts_count_as_one_photo_less_would() -> None:
    """38 photos of 19 events, one more event is two photos: (0 + 2) / (38 + 2) = 0.05; of 18 events 2 / 38 = 0.053."""
    events = [i // 2 for i in range(38)]
    assert for_precision(photos(*many("deer", 0.9, 38), groups=events), 1.0, 0.95).reached[DEER].shown
    assert not for_precision(photos(*many("deer", 0.9, 36), groups=events[:36]), 1.0, 0.95).reached[DEER].shown


def test_a_label_s_threshold_leaves_out_the_stretch_in_which_it_is_too_often_wrong() -> None:
    """Above 0.9: 60 right, 1 wrong, (1 + 1) / (61 + 1) = 0.032. With those at 0.7: (6 + 1) / (76 + 1) = 0.09."""
    found = for_precision(photos(*many("deer", 0.9, 60, 1), *many("deer", 0.7, 10, 5)), 1.0, 0.95)
    assert found.values[DEER] == pytest.approx(0.9, abs=1e-4)
    assert found.reached[DEER] == Reached("deer", found.values[DEER], 61, 60, True)


def test_each_label_has_its_own_threshold_if_it_has_photos_enough() -> None:
    mixed = [*many("deer", 0.9, 60), *many("deer", 0.7, 20), *many("fox", 0.9, 60), *many("fox", 0.7, 20, 9)]
    found = for_precision(photos(*mixed), 1.0, 0.95)
    assert found.values[DEER] == UNDECIDED
    assert found.values[FOX] == pytest.approx(0.9, abs=1e-4)


def test_a_label_of_few_photos_has_the_threshold_of_all_together() -> None:
    """All: 60 + 29 right at 0.9. At 0.7 5 of 20 deer are wrong: (5 + 1) / (109 + 1) = 0.0545, too many."""
    some = [*many("deer", 0.9, 60), *many("deer", 0.7, 15, 5)]
    few = for_precision(photos(*some, *many("fox", 0.9, ENOUGH - 1)), 1.0, 0.95)
    assert few.values[FOX] == pytest.approx(0.9, abs=1e-4)
    enough = for_precision(photos(*some, *many("fox", 0.9, ENOUGH)), 1.0, 0.95)
    assert enough.values[FOX] == UNDECIDED


def test_a_label_that_cannot_show_it_is_judged_with_the_others_and_says_so() -> None:
    """fox: (2 + 1) / (42 + 1) = 0.07. All together: (2 + 1) / (142 + 1) = 0.021."""
    found = for_precision(photos(*many("deer", 0.9, 100), *many("fox", 0.9, 40, 2)), 1.0, 0.95)
    assert found.values[FOX] == UNDECIDED
    assert found.reached[FOX] == Reached("fox", UNDECIDED, 42, 40, False)


def test_a_label_whose_photos_disprove_it_is_not_helped_by_the_others() -> None:
    """fox below 0.9: 10 of 40 wrong, which no label of 95 % is by chance. All: (10 + 1) / (370 + 1) = 0.03."""
    bad = [*many("fox", 0.7, 30, 10), *many("fox", 0.9, 10)]
    found = for_precision(photos(*many("deer", 0.9, 320), *bad), 1.0, 0.95)
    assert found.values[DEER] == UNDECIDED
    assert found.values[FOX] == pytest.approx(0.9, abs=1e-4)
    assert not found.reached[FOX].shown


def test_nothing_is_said_that_is_less_likely_right_than_wrong() -> None:
    low = (0.4, 0.2, 0.2, 0.2)
    found = for_precision(answered(LABELS, [("deer", low)] * 40), 1.0, 0.95)
    assert found.values == (UNDECIDED,) * 4
    assert found.reached[DEER].said == 0


def test_more_precision_is_never_had_for_a_lower_threshold_of_all_together() -> None:
    random = np.random.default_rng(3)
    sure = random.uniform(0.5, 1.0, 400)
    some = photos(*[("deer" if random.random() < p else "fox", "deer", float(p)) for p in sure])
    values = [for_precision(some, 1.0, wanted).values[DEER] for wanted in (0.5, 0.7, 0.8, 0.9)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_empty_keeps_the_stricter_of_both_rules() -> None:
    found = for_precision(photos(("deer", "empty", 0.97), *many("empty", 0.9, 60)), 1.0, 0.95)
    assert found.values[EMPTY] == pytest.approx(0.9701, abs=1e-4)
    lax = for_precision(
        photos(*many("empty", 0.9, 60), *many("empty", 0.7, 10, 6, really="person")), 1.0, 0.95, None, 1.0
    )
    assert lax.values[EMPTY] == pytest.approx(0.9, abs=1e-4)


def test_on_new_photos_the_precision_holds() -> None:
    """Of a model that is right as often as it says, in 85 % of all photos. Chosen on 200, tried on 2,000 others, 60
    times. Thresholds that only look good on the 200 hold 94.4 % on average, and 93 % in 72 of 100 cases."""
    random = np.random.default_rng(0)

    def draw(n: int) -> Answered:
        chances = random.dirichlet([0.1] * 4, n) * 0.999 + 0.00025
        truth = np.minimum((chances.cumsum(axis=1) < random.random((n, 1))).sum(axis=1), 3)
        return answered(LABELS, [(LABELS[i], row) for i, row in zip(truth, chances.tolist(), strict=True)])

    held = []
    for _ in range(60):
        values = for_precision(draw(200), 1.0, 0.95).values
        new = draw(2000)
        chances = new.chances(1.0)
        said = chances.max(axis=1) >= np.array(values)[chances.argmax(axis=1)]
        held.append(float((chances.argmax(axis=1) == new.truth)[said].mean()))
    assert np.mean(held) >= 0.95
    assert np.mean(np.array(held) >= 0.93) >= 0.9


# Roll-up

TAXA = taxonomy(
    [
        Label("deer", "Cervidae", "family", taxon_class="Mammalia", animal=True),
        Label("empty"),
        Label("fox", "Vulpes vulpes", "species", family="Canidae", taxon_class="Mammalia", animal=True),
        Label("person"),
    ]
)


def unsure(truth: str, animals: float) -> tuple[str, tuple[float, ...]]:
    """deer or fox with so much probability together, half of it each."""
    rest = (1 - animals) / 2
    return truth, (animals / 2, rest, animals / 2, rest)


def test_taxa_are_said_as_soon_as_they_are_right_as_often_as_wanted() -> None:
    """Mammalia: 40 right at 0.95, and 4 of 10 wrong at 0.8. (4 + 1) / (50 + 1) = 0.098; (0 + 1) / (40 + 1) = 0.024."""
    at_80 = [unsure("fox", 0.8)] * 6 + [unsure("empty", 0.8)] * 4
    found = for_precision(answered(LABELS, [unsure("deer", 0.95)] * 40 + at_80), 1.0, 0.95, TAXA)
    assert found.rollup == pytest.approx(0.81)
    assert found.reached[-1] == Reached(ROLL_UP, 0.81, 40, 40, True)


def test_with_few_photos_taxa_are_said_at_the_wanted_precision() -> None:
    found = for_precision(answered(LABELS, [unsure("deer", 0.97)] * 10), 1.0, 0.95, TAXA)
    assert (found.rollup, found.reached[-1].shown) == (0.95, False)


def test_taxa_that_are_wrong_where_they_are_sure_need_more() -> None:
    wrong = [unsure("empty", 0.975)] * 3
    found = for_precision(answered(LABELS, [unsure("deer", 0.99)] * 10 + wrong), 1.0, 0.95, TAXA)
    assert (found.rollup, found.reached[-1].said, found.reached[-1].right) == (0.98, 10, 10)


def test_taxa_that_are_always_wrong_are_never_said() -> None:
    found = for_precision(answered(LABELS, [unsure("empty", 0.9999)] * 10), 1.0, 0.95, TAXA)
    assert (found.rollup, found.reached[-1].said) == (1.0, 0)


def test_without_taxa_the_threshold_is_there_for_those_that_a_user_adds() -> None:
    found = for_precision(photos(*many("deer", 0.9, 40)), 1.0, 0.95)
    assert (found.rollup, found.reached[-1].said) == (0.95, 0)
