"""Which labels lie under which taxon, and what may be said at a station."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.model.bundle import Label
from edge.model.taxonomy import Taxon, Taxonomy, lineage, taxonomy

DOG = Label("dog", "Canis familiaris", "species", None, None, "Canis", "Canidae", "Carnivora", "Mammalia", True)
COYOTE = Label("coyote", "Canis latrans", "species", None, None, "Canis", "Canidae", "Carnivora", "Mammalia", True)
FOX = Label("fox", "Vulpes vulpes", "species", None, None, "Vulpes", "Canidae", "Carnivora", "Mammalia", True)
DEER = Label("deer", "Cervidae", "family", None, None, None, None, "Artiodactyla", "Mammalia", True)
ROE = Label("roe", "Capreolus", "genus", None, None, None, "Cervidae", "Artiodactyla", "Mammalia", True)
TURKEY = Label("turkey", "Meleagris", "genus", None, None, None, "Phasianidae", "Galliformes", "Aves", True)
EMPTY, PERSON = Label("empty"), Label("person", "Homo sapiens", "species")
LABELS = (DOG, COYOTE, FOX, DEER, ROE, TURKEY, EMPTY, PERSON)


def said(found: Taxonomy) -> list[tuple[str, tuple[int, ...]]]:
    return [(taxon.name, taxon.members) for taxon in found.taxa]


def test_taxa_with_more_than_one_label_the_lowest_first() -> None:
    assert said(taxonomy(LABELS)) == [
        ("Canis", (0, 1)),
        ("Canidae", (0, 1, 2)), ("Cervidae", (3, 4)),
        ("Artiodactyla", (3, 4)), ("Carnivora", (0, 1, 2)),
        ("Mammalia", (0, 1, 2, 3, 4)),
        ("animal", (0, 1, 2, 3, 4, 5)),
    ]  # fmt: skip


def test_a_label_of_a_family_lies_under_that_family() -> None:
    assert lineage(DEER) == [
        ("family", "Cervidae"), ("order", "Artiodactyla"), ("class", "Mammalia"), ("animal", "animal"),
    ]  # fmt: skip


def test_an_animal_of_which_nothing_is_known_is_an_animal() -> None:
    assert said(taxonomy([Label("odd", animal=True), FOX])) == [("animal", (0, 1))]


def test_one_animal_alone_has_nothing_above_it() -> None:
    assert taxonomy([FOX, EMPTY]).taxa == ()


@pytest.mark.parametrize("name", ["empty", "person"])
def test_empty_and_person_are_no_animals_whatever_a_manifest_says(name: str) -> None:
    wrong = Label(name, "Homo sapiens", "species", None, None, "Homo", "Hominidae", "Primates", "Mammalia", True)
    found = taxonomy([FOX, DEER, wrong], occurring=["fox"])
    assert said(found) == [("Mammalia", (0, 1)), ("animal", (0, 1))]
    assert found.may_be_said == (True, False, True)


def test_what_does_not_occur_is_not_said_and_counts_for_what_is_above_it() -> None:
    found = taxonomy(LABELS, occurring=["fox", "turkey"])
    assert found.may_be_said == (False, False, True, False, False, True, True, True)
    assert said(found) == [
        ("Canidae", (0, 1, 2)),
        ("Carnivora", (0, 1, 2)),
        ("Mammalia", (0, 1, 2, 3, 4)),
        ("animal", (0, 1, 2, 3, 4, 5)),
    ], "no Canis and no Cervidae: nothing of them occurs"


def test_the_only_animal_known_is_an_animal_where_it_does_not_occur() -> None:
    assert said(taxonomy([FOX, EMPTY], occurring=["empty"])) == [("animal", (0,))]


def test_the_same_name_at_two_ranks_is_two_taxa() -> None:
    odd = [Label(f"l{i}", genus="X", family="X" if i < 2 else "Y", animal=True) for i in range(3)]
    assert [(t.rank, t.members) for t in taxonomy(odd).taxa] == [
        ("genus", (0, 1, 2)), ("family", (0, 1)), ("animal", (0, 1, 2)),
    ]  # fmt: skip


def test_sums_are_those_of_the_labels_under_each_taxon() -> None:
    sums = taxonomy(LABELS).sums(np.array([[0.1, 0.2, 0.3, 0.05, 0.15, 0.1, 0.06, 0.04]]))
    #                 Canis  Canidae  Cervidae  Artiodactyla  Carnivora  Mammalia  animal
    assert sums[0] == pytest.approx([0.3, 0.6, 0.2, 0.2, 0.6, 0.8, 0.9])


def test_no_taxa_have_no_sums() -> None:
    assert taxonomy([EMPTY, PERSON]).sums(np.array([[0.5, 0.5]])).shape == (1, 0)


@given(st.integers(2, 40), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_a_photo_s_sums_do_not_depend_on_its_neighbours(classes: int, n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = [Label(f"{i}", genus=f"g{random.integers(6)}", animal=True) for i in range(classes)]
    chances = random.dirichlet([0.3] * classes, n)
    found = taxonomy(labels)
    together = found.sums(chances)
    assert (together == np.concatenate([found.sums(row[np.newaxis]) for row in chances])).all()
    assert (together <= 1).all()
    for taxon, column in zip(found.taxa, together.T, strict=True):
        assert column == pytest.approx(chances[:, taxon.members].sum(axis=1))


def test_a_taxon_is_a_plain_record() -> None:
    assert taxonomy([DOG, COYOTE]).taxa[0] == Taxon("Canis", "genus", (0, 1))
    assert taxonomy([DOG, COYOTE]) == taxonomy([DOG, COYOTE])
