"""From logits to an answer: hand-worked, and what must hold for any logits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge.model.bundle import Label
from edge.model.decide import TOP, Decision, answers, decide, probabilities
from edge.model.taxonomy import lineage, taxonomy

LABELS = ("deer", "empty", "person")
# ln 7, ln 2, ln 1: probabilities 0.7, 0.2, 0.1
SEVEN_TWO_ONE = (math.log(7), math.log(2), 0.0)

LOGITS = st.lists(st.floats(-300, 300, width=32), min_size=2, max_size=12)


def answer(*logits: float, temperature: float = 1.0, thresholds: tuple[float, ...] = (0.5, 0.5, 0.5)) -> Decision:
    return decide(np.array(logits, np.float32), LABELS, temperature=temperature, thresholds=thresholds)


def test_probabilities_are_those_worked_out_by_hand() -> None:
    assert probabilities(SEVEN_TWO_ONE) == pytest.approx([0.7, 0.2, 0.1])


def test_temperature_two_takes_the_square_root() -> None:
    roots = [math.sqrt(7), math.sqrt(2), 1.0]
    assert probabilities(SEVEN_TWO_ONE, 2.0) == pytest.approx([root / sum(roots) for root in roots])


def test_a_stack_of_photos_is_taken_row_by_row() -> None:
    assert probabilities([SEVEN_TWO_ONE, (0.0, 0.0, 0.0)]) == pytest.approx(np.array([[0.7, 0.2, 0.1], [1 / 3] * 3]))


def test_large_logits_do_not_overflow() -> None:
    with np.errstate(all="raise"):
        assert probabilities([3e4, 3e4]) == pytest.approx([0.5, 0.5])
        assert probabilities([700.0, 0.0]) == pytest.approx([1.0, 0.0])


def test_the_most_likely_label_is_given_with_its_probability() -> None:
    found = answer(*SEVEN_TWO_ONE)
    assert (found.label, found.kind) == ("deer", "species")
    assert found.confidence == pytest.approx(0.7)
    assert [name for name, _ in found.top] == ["deer", "empty", "person"]
    assert [chance for _, chance in found.top] == pytest.approx([0.7, 0.2, 0.1])


@pytest.mark.parametrize(
    ("logits", "label", "kind"),
    [
        pytest.param((5, 0, 0), "deer", "species", id="an animal"),
        pytest.param((0, 5, 0), "empty", "empty", id="nothing there"),
        pytest.param((0, 0, 5), "person", "species", id="a person"),
        pytest.param((0, 0.1, 0), "unknown", "unknown", id="nothing sure"),
    ],
)
def test_kinds_of_decision(logits: tuple[float, ...], label: str, kind: str) -> None:
    found = answer(*logits)
    assert (found.label, found.kind) == (label, kind)


def test_a_label_is_given_at_its_threshold_and_not_below() -> None:
    exact = answer(*SEVEN_TWO_ONE).confidence
    assert answer(*SEVEN_TWO_ONE, thresholds=(exact, 0.0, 0.0)).label == "deer"
    above = float(np.nextafter(exact, 1))
    unsure = answer(*SEVEN_TWO_ONE, thresholds=(above, 0.0, 0.0))
    assert (unsure.label, unsure.kind) == ("unknown", "unknown")
    assert unsure.confidence == exact
    assert unsure.top[0][0] == "deer"


def test_only_the_likeliest_label_s_own_threshold_counts() -> None:
    assert answer(*SEVEN_TWO_ONE, thresholds=(0.6, 0.99, 0.99)).label == "deer"
    assert answer(*SEVEN_TWO_ONE, thresholds=(0.71, 0.0, 0.0)).label == "unknown"


def test_temperature_can_turn_a_decision_into_unknown() -> None:
    assert answer(2, 0, 0).label == "deer"
    assert answer(2, 0, 0, temperature=4.0).label == "unknown"


def test_at_most_five_labels_are_told_and_ties_keep_the_order_of_labels() -> None:
    labels = [f"label {i}" for i in range(9)]
    found = decide(np.zeros(9), labels, temperature=1.0, thresholds=[0.0] * 9)
    assert [name for name, _ in found.top] == labels[:TOP]
    assert found.label == "label 0"


@given(LOGITS, st.floats(0.05, 20))
def test_probabilities_sum_to_one_and_keep_the_order_of_the_logits(logits: list[float], temperature: float) -> None:
    chances = probabilities(logits, temperature)
    assert chances.sum() == pytest.approx(1)
    assert ((chances >= 0) & (chances <= 1)).all()
    order = np.argsort(logits, kind="stable")
    assert (np.diff(chances[order]) >= 0).all()


@given(LOGITS, st.floats(-1000, 1000))
def test_a_constant_added_to_all_logits_changes_nothing(logits: list[float], constant: float) -> None:
    assert probabilities(np.array(logits) + constant) == pytest.approx(probabilities(logits), abs=1e-9)


@given(LOGITS, st.floats(0.05, 20), st.floats(0, 1))
def test_any_answer_is_consistent(logits: list[float], temperature: float, threshold: float) -> None:
    labels = [f"label {i}" for i in range(len(logits))]
    found = decide(logits, labels, temperature=temperature, thresholds=[threshold] * len(logits))
    assert found.confidence == found.top[0][1]
    assert [chance for _, chance in found.top] == sorted((chance for _, chance in found.top), reverse=True)
    assert len(found.top) == min(TOP, len(logits))
    assert (found.kind == "unknown") == (found.confidence < threshold)


# Roll-up, worked by hand

CANIDS = (
    Label("dog", genus="Canis", family="Canidae", order="Carnivora", taxon_class="Mammalia", animal=True),
    Label("coyote", genus="Canis", family="Canidae", order="Carnivora", taxon_class="Mammalia", animal=True),
    Label("fox", genus="Vulpes", family="Canidae", order="Carnivora", taxon_class="Mammalia", animal=True),
    Label("deer", "Cervidae", "family", order="Artiodactyla", taxon_class="Mammalia", animal=True),
    Label("turkey", genus="Meleagris", family="Phasianidae", order="Galliformes", taxon_class="Aves", animal=True),
    Label("empty"),
    Label("person"),
)


def rolled(*chances: float, rollup: float | None = 0.9, occurring: tuple[str, ...] | None = None) -> Decision:
    """Of dog, coyote, fox, deer, turkey, empty, person in that order; thresholds 0.8."""
    assert sum(chances) == pytest.approx(1)
    return decide(
        np.log(np.array(chances)), [label.name for label in CANIDS],
        temperature=1.0, thresholds=[0.8] * 7, taxonomy=taxonomy(CANIDS, occurring), rollup=rollup,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("chances", "label", "kind", "confidence"),
    [
        pytest.param(
            (0.82, 0.1, 0.04, 0.01, 0.01, 0.01, 0.01), "dog", "species", 0.82, id="dog 0.82 reaches its 0.8 itself"
        ),
        pytest.param(
            (0.5, 0.42, 0.04, 0.01, 0.01, 0.01, 0.01), "Canis", "rollup", 0.92, id="dog 0.5 + coyote 0.42 = Canis 0.92"
        ),
        pytest.param(
            (0.5, 0.3, 0.12, 0.02, 0.02, 0.02, 0.02), "Canidae", "rollup", 0.92,
            id="Canis 0.5 + 0.3 = 0.8 is too little, + fox 0.12 = Canidae 0.92",
        ),
        pytest.param(
            (0.4, 0.2, 0.1, 0.24, 0.02, 0.02, 0.02), "Mammalia", "rollup", 0.94,
            id="Canidae and Carnivora 0.7, + deer 0.24 = Mammalia 0.94",
        ),
        pytest.param(
            (0.3, 0.1, 0.1, 0.2, 0.25, 0.03, 0.02), "animal", "rollup", 0.95,
            id="Mammalia 0.7, + turkey 0.25 = animal 0.95",
        ),
        pytest.param(
            (0.02, 0.01, 0.01, 0.7, 0.2, 0.03, 0.03), "animal", "rollup", 0.94,
            id="deer 0.7 and turkey 0.2 have only animal in common",
        ),
        pytest.param(
            (0.3, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1), "unknown", "unknown", 0.3, id="animal 0.7 is not sure, nor is anything"
        ),
        pytest.param(
            (0.3, 0.02, 0.02, 0.02, 0.02, 0.6, 0.02), "unknown", "unknown", 0.6, id="animal 0.38 or empty 0.6: unknown"
        ),
        pytest.param(
            (0.01, 0.01, 0.01, 0.01, 0.01, 0.85, 0.1), "empty", "empty", 0.85, id="empty 0.85 reaches its 0.8"
        ),
        pytest.param(
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5), "unknown", "unknown", 0.5, id="empty and person have nothing in common"
        ),
    ],
)  # fmt: skip
def test_an_unsure_animal_is_rolled_up_to_the_lowest_taxon_that_is_sure(
    chances: tuple[float, ...], label: str, kind: str, confidence: float
) -> None:
    with np.errstate(divide="ignore"):  # ln 0
        found = rolled(*chances)
    assert (found.label, found.kind) == (label, kind)
    assert found.confidence == pytest.approx(confidence)
    assert found.top[0][1] == pytest.approx(max(chances)), "the labels are told all the same"


def test_of_two_taxa_of_one_rank_the_likelier_is_given() -> None:
    """Canis 0.36 and Cervus 0.4, at a roll-up threshold that both reach."""
    labels = [
        *(Label(name, genus="Canis", animal=True) for name in ("dog", "wolf")),
        *(Label(name, genus="Cervus", animal=True) for name in ("red deer", "sika")),
    ]
    chances = [0.18, 0.18, 0.2, 0.2, 0.24]
    names = [*(label.name for label in labels), "empty"]
    found = decide(
        np.log(chances), names, temperature=1.0, thresholds=[0.9] * 5,
        taxonomy=taxonomy([*labels, Label("empty")]), rollup=0.3,
    )  # fmt: skip
    assert found.label == "Cervus"
    assert found.confidence == pytest.approx(0.4)


def test_a_taxon_less_likely_than_the_likeliest_label_is_not_given() -> None:
    found = rolled(0.2, 0.15, 0.02, 0.01, 0.01, 0.6, 0.01, rollup=0.3)
    assert (found.label, found.kind) == ("unknown", "unknown")


def test_without_a_roll_up_threshold_nothing_is_rolled_up() -> None:
    assert rolled(0.5, 0.42, 0.04, 0.01, 0.01, 0.01, 0.01, rollup=None).label == "unknown"


def test_an_animal_that_does_not_occur_is_rolled_up_however_sure() -> None:
    """coyote 0.9 where only fox and deer occur: Canis is not said of them, Canidae 0.96 is."""
    found = rolled(0.03, 0.9, 0.03, 0.01, 0.01, 0.01, 0.01, occurring=("fox", "deer"))
    assert (found.label, found.kind) == ("Canidae", "rollup")
    assert found.confidence == pytest.approx(0.96)
    assert found.top[0][0] == "coyote"


def test_an_animal_that_does_not_occur_is_not_passed_on_to_the_next_likely_label() -> None:
    """coyote 0.6, fox 0.3, where fox occurs: Canidae 0.93, never fox."""
    assert rolled(0.03, 0.6, 0.3, 0.01, 0.02, 0.02, 0.02, occurring=("fox",)).label == "Canidae"
    assert rolled(0.03, 0.6, 0.3, 0.01, 0.02, 0.02, 0.02, occurring=("fox",), rollup=None).label == "unknown"


def test_where_nothing_of_its_kind_occurs_it_is_an_animal() -> None:
    """turkey 0.95 where only fox occurs: no Aves, but an animal."""
    found = rolled(0.01, 0.01, 0.01, 0.01, 0.94, 0.01, 0.01, occurring=("fox",))
    assert found.label == "animal"
    assert found.confidence == pytest.approx(0.98)


def test_empty_and_person_are_said_at_every_station() -> None:
    assert rolled(0.01, 0.01, 0.01, 0.01, 0.01, 0.94, 0.01, occurring=("fox",)).label == "empty"
    assert rolled(0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.94, occurring=("fox",)).label == "person"


def test_many_photos_are_decided_as_each_alone() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 3, (300, 7)).astype(np.float32)
    thresholds = random.uniform(0.3, 1, 7).tolist()
    taxa = taxonomy(CANIDS, ["fox", "deer", "dog"])
    found, sure = answers(probabilities(logits, 1.3), thresholds, taxonomy=taxa, rollup=0.7)
    names = [*(label.name for label in CANIDS), *(taxon.name for taxon in taxa.taxa), "unknown"]
    each = [decide(row, names[:7], temperature=1.3, thresholds=thresholds, taxonomy=taxa, rollup=0.7) for row in logits]
    assert [names[i] for i in found] == [one.label for one in each]
    assert sure.tolist() == [one.confidence for one in each]
    assert {one.kind for one in each} == {"species", "rollup", "unknown", "empty"}


# What holds for any labels


@st.composite
def any_labels(draw: st.DrawFn) -> list[Label]:
    """Two to eight labels, animals in a small tree of taxa, not all known, and things; then empty and person."""
    found: list[Label] = []
    for i in range(draw(st.integers(2, 8))):
        genus = draw(st.integers(0, 7))
        tree = {
            "genus": f"G{genus}",
            "family": f"F{genus // 2}",
            "order": f"O{genus // 3}",
            "taxon_class": f"C{genus // 4}",
        }
        known = draw(st.sampled_from([4, 4, 3, 1, 0]))
        animal = Label(f"animal {i}", animal=True, **dict(list(tree.items())[4 - known :]))
        found.append(draw(st.sampled_from([animal, animal, animal, Label(f"thing {i}")])))
    return [*found, Label("empty"), Label("person")]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Label], list[float], list[float], float]:
    labels = draw(any_labels())
    odds = st.integers(-3, 3).flatmap(lambda whole: st.floats(whole, whole + 1))
    animals = draw(st.sampled_from([0.0, 4.0]))  # sure that it is one, or not
    logits = [draw(odds) + animals * label.animal for label in labels]
    thresholds = draw(st.lists(st.floats(0, 1), min_size=len(labels), max_size=len(labels)))
    return labels, logits, thresholds, draw(st.floats(0, 1))


def decided(labels: list[Label], logits: list[float], thresholds: list[float], rollup: float) -> Decision:
    names = [label.name for label in labels]
    return decide(logits, names, temperature=1.0, thresholds=thresholds, taxonomy=taxonomy(labels), rollup=rollup)


@given(cases())
def test_a_roll_up_is_sure_enough_and_nothing_lower_is(
    case: tuple[list[Label], list[float], list[float], float],
) -> None:
    labels, logits, thresholds, rollup = case
    found = decided(*case)
    assert 0 <= found.confidence <= 1
    chances = probabilities(logits)
    best = int(chances.argmax())
    if found.kind != "rollup":
        return
    taxa = taxonomy(labels)
    taxon = next(t for t in taxa.taxa if t.name == found.label)
    assert chances[best] < thresholds[best]
    assert found.confidence == pytest.approx(chances[list(taxon.members)].sum())
    assert found.confidence >= max(rollup, chances[best])
    assert all(labels[i].animal for i in taxon.members)
    if found.confidence > 0.5 >= 1 - chances[best] or chances[best] + found.confidence > 1 + 1e-9:
        assert best in taxon.members, "two statements that are together more than certain overlap"
    for lower in taxa.taxa[: taxa.taxa.index(taxon)]:
        if lower.rank != taxon.rank:
            assert chances[list(lower.members)].sum() < max(rollup, chances[best]) + 1e-9


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_labels_does_not_matter(
    case: tuple[list[Label], list[float], list[float], float], random: Any
) -> None:
    labels, logits, thresholds, rollup = case
    chances = sorted(probabilities(logits))
    assume(chances[-1] - chances[-2] > 1e-6)  # a tie goes to the first label
    sums = sorted(taxonomy(labels).sums(probabilities(logits)[np.newaxis])[0])
    assume(all(abs(s - edge) > 1e-6 for s in [*sums, chances[-1]] for edge in [rollup, *thresholds]))
    order = random.sample(range(len(labels)), len(labels))
    other = decided([labels[i] for i in order], [logits[i] for i in order], [thresholds[i] for i in order], rollup)
    found = decided(*case)
    assert other.kind == found.kind
    assert other.confidence == pytest.approx(found.confidence)
    assert other.label == found.label or len({round(s, 9) for s in sums}) < len(sums)


@given(cases(), st.integers(0, 20), st.floats(0, 1))
def test_a_higher_threshold_never_makes_an_unknown_photo_a_species(
    case: tuple[list[Label], list[float], list[float], float], which: int, higher: float
) -> None:
    labels, logits, thresholds, rollup = case
    before = decided(*case)
    raised = list(thresholds)
    raised[which % len(raised)] = max(raised[which % len(raised)], higher)
    after = decided(labels, logits, raised, rollup)
    assert after == before or (before.kind in ("species", "empty") and after.kind in ("rollup", "unknown"))


@given(cases(), st.floats(0, 1))
def test_a_higher_roll_up_threshold_never_says_more(
    case: tuple[list[Label], list[float], list[float], float], higher: float
) -> None:
    labels, logits, thresholds, rollup = case
    before, after = decided(*case), decided(labels, logits, thresholds, max(rollup, higher))
    if before.kind != "rollup":
        assert after == before
    elif after.kind == "rollup":
        ranks = {taxon.name: taxon.rank for taxon in taxonomy(labels).taxa}
        order = ("genus", "family", "order", "class", "animal")
        assert order.index(ranks[after.label]) >= order.index(ranks[before.label])
    else:
        assert after.kind == "unknown"


@given(cases())
def test_no_station_list_makes_a_species_of_an_unsure_photo(
    case: tuple[list[Label], list[float], list[float], float],
) -> None:
    labels, logits, thresholds, rollup = case
    names = [label.name for label in labels]
    occurring = taxonomy(labels, names[::2])
    found = decide(logits, names, temperature=1.0, thresholds=thresholds, taxonomy=occurring, rollup=rollup)
    everywhere = decided(*case)
    if found.kind == "species":
        assert found == everywhere
        assert found.label in names[::2] or not labels[names.index(found.label)].animal
    if everywhere.kind == "empty":
        assert found == everywhere


def slowly(chances: list[float], labels: list[Label], rollup: float) -> str:
    """The roll-up again, as one would explain it: rank by rank upwards, the first taxon that is sure."""
    for rank in ("genus", "family", "order", "class", "animal"):
        sums: dict[str, list[float]] = {}
        for label, chance in zip(labels, chances, strict=True):
            for each, name in lineage(label) if label.animal else ():
                if each == rank:
                    sums.setdefault(name, []).append(chance)
        sure = {name: sum(some) for name, some in sums.items() if len(some) > 1}
        sure = {name: total for name, total in sure.items() if total >= max(rollup, *chances)}
        if sure:
            return max(sure, key=lambda name: sure[name])
    return "unknown"


@given(cases(), st.sampled_from([0.3, 0.6, 0.9]))
def test_the_roll_up_is_what_one_would_work_out_by_hand(
    case: tuple[list[Label], list[float], list[float], float], rollup: float
) -> None:
    labels, logits, _, _ = case
    chances = probabilities(logits).tolist()
    sums = taxonomy(labels).sums(np.array([chances]))[0]
    assume(all(abs(total - edge) > 1e-9 for total in sums for edge in (rollup, max(chances))))
    assume(len(np.unique(sums.round(9))) == len({t.members for t in taxonomy(labels).taxa}))
    assert decided(labels, logits, [2.0] * len(labels), rollup).label == slowly(chances, labels, rollup)


@pytest.mark.parametrize("rollup", [0.5, 0.9, 1.0])
def test_few_taxa_of_high_ranks_are_found(rollup: float) -> None:
    """Two mammals and a bird, of which 0.3 + 0.2 is Mammalia: neither that nor the first taxon, but animal, which is
    certain but for the last bit."""
    labels = [*(Label(f"m{i}", taxon_class="Mammalia", animal=True) for i in range(2)), Label("b", animal=True)]
    found = decided(labels, np.log([0.25, 0.2, 0.55]).tolist(), [0.9] * 3, rollup)
    assert (found.label, found.kind) in [("animal", "rollup"), *([("unknown", "unknown")] if rollup == 1 else [])]
