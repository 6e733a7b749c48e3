"""What labels are: filled from data set and table, completed by the user, read back strictly."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError
from edge.model.bundle import Label
from edge.model.taxonomy import lineage, taxonomy
from trainer import labels

FOX = Label("fox", "Canidae", "family", None, "fox", None, "Canidae", "Carnivora", "Mammalia", True)
RED_FOX = Label(
    "Red_Fox", "Vulpes vulpes", "species", None, "red fox", "Vulpes", "Canidae", "Carnivora", "Mammalia", True
)


def one(name: str) -> Label:
    return labels.known([name])[0]


def wrote(folder: Path, text: str) -> Path:
    path = folder / labels.FILE
    path.write_text(text, encoding="utf-8")
    return path


# The table


def test_every_key_is_a_field_of_a_label() -> None:
    assert {field.name for field in fields(Label)} == {"name"} | {
        "taxon_class" if key == "class" else key for key in labels.KEYS
    }


def test_every_name_of_the_table_is_there_once_and_every_taxon_has_one_place() -> None:
    text = Path(labels.__file__).with_name("data").joinpath("taxa.toml").read_text(encoding="utf-8")
    entries = [line for line in text.splitlines() if " = [" in line]
    found = {known.taxon for known in labels._table().values()}
    assert len(found) == len(entries) > 200
    above: dict[tuple[str, str], Any] = {}
    for taxon in found:
        chain = lineage(replace(taxon, animal=True))
        for i, each in enumerate(chain):
            assert above.setdefault(each, chain[i + 1 :])[-1:] == chain[i + 1 :][-1:]
            for rank, name in chain[i + 1 :]:
                assert dict(above[each]).get(rank, name) == name
        assert taxon.taxon_class, "the class is always known"
        assert taxon.rank != "species" or str(taxon.scientific_name).startswith(f"{taxon.genus} ")


@pytest.mark.parametrize(
    ("name", "scientific", "rank"),
    [
        pytest.param("fox", "Canidae", "family", id="any fox is a canid, more is not certain"),
        pytest.param("red fox", "Vulpes vulpes", "species", id="a species by its English name"),
        pytest.param("Red_Fox", "Vulpes vulpes", "species", id="as folders spell it"),
        pytest.param("vulpes vulpes", "Vulpes vulpes", "species", id="by its scientific name"),
        pytest.param("deer", "Cervidae", "family", id="deer are a family"),
        pytest.param("coyotes", "Canis latrans", "species", id="several of them"),
        pytest.param("foxes", "Canidae", "family", id="several of them, with es"),
        pytest.param("elk", "Cervidae", "family", id="elk is a moose here and a wapiti there"),
        pytest.param("bird", "Aves", "class", id="a class"),
    ],
)
def test_names_that_the_table_knows(name: str, scientific: str, rank: str) -> None:
    found = one(name)
    assert (found.name, found.scientific_name, found.rank, found.animal) == (name, scientific, rank, True)
    assert found.taxon_id is None


def test_a_known_animal_has_all_taxa_above_it() -> None:
    assert one("Red_Fox") == RED_FOX
    assert one("fox") == FOX


@pytest.mark.parametrize("name", ["empty", "person", "vehicle", "setup", "other", "cloudy", "gallinule"])
def test_what_is_no_animal_or_nobody_knows_is_none(name: str) -> None:
    assert not one(name).animal
    assert lineage(one(name)) == [("animal", "animal")]


def test_the_user_is_told_of_what_nobody_knows() -> None:
    found = labels.known(["animal", "empty", "fox", "other", "person", "Vehicle"])
    assert labels.incomplete(found) == ("animal", "other")


def test_labels_of_camera_traps_can_be_rolled_up() -> None:
    found = taxonomy(labels.known(["coyote", "deer", "empty", "hog", "other", "turkey"]))
    assert [(taxon.name, taxon.members) for taxon in found.taxa] == [
        ("Artiodactyla", (1, 3)), ("Mammalia", (0, 1, 3)), ("animal", (0, 1, 3, 5)),
    ]  # fmt: skip


# What data sets say

TAXONOMIC = [
    {"scientificName": "Ardea cinerea", "taxonID": "GCHS", "taxonRank": "species", "vernacularNames": {"eng": "heron"}},
    {"scientificName": "Ardea", "taxonRank": "genus", "family": "Ardeidae"},
    {"scientificName": "Odd oddius", "order": "Oddiformes", "class": "Aves"},
    {"scientificName": "Homo sapiens", "taxonID": "6MB3T"},
    {"scientificName": 7},
]


def package(folder: Path, taxonomic: Any) -> Path:
    (folder / "datapackage.json").write_text(json.dumps({"taxonomic": taxonomic}), encoding="utf-8")
    return folder


def test_a_camtrap_dp_package_says_what_its_names_are_and_the_table_what_it_leaves_out(tmp_path: Path) -> None:
    given = labels.of_data(package(tmp_path, TAXONOMIC))
    assert set(given) == {"Ardea cinerea", "Ardea", "Odd oddius", "Homo sapiens"}
    heron, ardea, odd = labels.known(["Ardea cinerea", "Ardea", "Odd oddius"], given)
    assert heron == Label(
        "Ardea cinerea",
        "Ardea cinerea",
        "species",
        "GCHS",
        "heron",
        "Ardea",
        "Ardeidae",
        "Pelecaniformes",
        "Aves",
        True,
    )
    assert (ardea.genus, ardea.taxon_class) == ("Ardea", "Aves")
    assert (odd.rank, odd.genus, odd.order) == ("species", "Odd", "Oddiformes")


def test_a_package_s_person_is_no_animal(tmp_path: Path) -> None:
    given = labels.of_data(package(tmp_path, TAXONOMIC))
    assert [label.animal for label in labels.known(["person", "Homo sapiens", "empty"], given)] == [False] * 3


def test_the_data_set_goes_before_the_table_for_all_labels(tmp_path: Path) -> None:
    """Another checklist has herons elsewhere; labels that only the table knows follow, so that none contradicts."""
    said = {"scientificName": "Ardea cinerea", "family": "Ardeidae", "order": "Ciconiiformes"}
    given = labels.of_data(package(tmp_path, [said]))
    egret, heron = labels.known(["egret", "Ardea cinerea"], given)
    assert (egret.order, heron.order) == ("Ciconiiformes", "Ciconiiformes")


def test_a_coco_file_of_inaturalist_says_it_too(tmp_path: Path) -> None:
    category = {"id": 1, "name": "Vulpes lagopus", "common_name": "Arctic Fox", "genus": "Vulpes", "family": "Canidae"}
    plain = {"id": 2, "name": "fox"}
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"images": [], "annotations": [], "categories": [category, plain]}))
    for data in (file, tmp_path):
        given = labels.of_data(data)
        assert set(given) == {"Vulpes lagopus"}
    found = labels.known(["Vulpes lagopus"], given)[0]
    assert (found.scientific_name, found.rank, found.english) == ("Vulpes lagopus", "species", "Arctic Fox")
    assert (found.order, found.taxon_class) == ("Carnivora", "Mammalia")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"taxonomic": 7}', id="no list"),
        pytest.param(b'{"taxonomic": [7]}', id="no objects in the list"),
        pytest.param(b'{"taxonomic": [{"scientificName": "a\\nb", "class": ["x"]}]}', id="no text"),
    ],
)
def test_a_file_that_says_nothing_useful_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "datapackage.json").write_bytes(content)
    assert labels.of_data(tmp_path) == {}


def test_a_folder_of_photos_or_a_table_or_nothing_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\n")
    for data in (tmp_path, tmp_path / "labels.csv", tmp_path / "gone", tmp_path / "gone.json"):
        assert labels.of_data(data) == {}


# labels.toml

NAMES = ("empty", "fox", "Red_Fox", "person", "wood mouse \u00e9\"'")


def test_what_is_written_reads_back_as_it_was(tmp_path: Path) -> None:
    found = labels.known(NAMES)
    assert labels.read(wrote(tmp_path, labels.text(found)), NAMES) == found


NAME = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)


@given(st.lists(NAME, min_size=1, max_size=5, unique=True), st.data())
def test_any_label_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    text = st.none() | NAME
    made = tuple(
        Label(
            name,
            taxon_id=data.draw(text),
            english=data.draw(text),
            animal=data.draw(st.booleans()) and name not in NAMES,
        )
        for name in names
    )
    assert labels.read(wrote(tmp_path_factory.mktemp("labels"), labels.text(made)), names) == made


def test_a_user_s_scientific_name_alone_is_enough_where_the_table_knows_it(tmp_path: Path) -> None:
    path = wrote(tmp_path, '[fuchs]\nanimal = true\nscientific_name = "Vulpes vulpes"\n')
    assert labels.read(path, ["fuchs"]) == (replace(RED_FOX, name="fuchs", english=None),)


def test_a_species_that_nobody_knows_has_its_genus_and_what_is_above_that(tmp_path: Path) -> None:
    path = wrote(tmp_path, '[x]\nanimal = true\nscientific_name = "Vulpes zerda"\nrank = "species"\n')
    (found,) = labels.read(path, ["x"])
    assert (found.genus, found.family, found.order, found.taxon_class) == ("Vulpes", "Canidae", "Carnivora", "Mammalia")


def test_the_file_that_training_writes_says_what_can_be_completed() -> None:
    text = labels.text(labels.known(["other"]))
    assert "# scientific_name =\n# rank =" in text
    assert tomllib.loads(text) == {"other": {"animal": False, "english": "other"}}


OK = "[empty]\nanimal = false\n[fox]\nanimal = true\n"
"""To which a faulty line of the fox is added."""

FAULTS = [
    pytest.param("[fox]\nanimal = true", "no table for the label 'empty'", "missing label", id="a label is missing"),
    pytest.param(
        f"{OK}[foxx]\nanimal = true", r"\[foxx\] is no label of this model. The nearest is 'fox'", "unknown label",
        id="a label too many",
    ),
    pytest.param(
        f'{OK}familly = "Canidae"', r"\[fox\] familly is no key. The nearest is family", "unknown key",
        id="an unknown key",
    ),
    pytest.param(f'{OK}taxon_class = "M"', "there are animal, .*, class", "unknown key", id="the manifest's word"),
    pytest.param("[empty]\nanimal = false\n[fox]", "animal is None, expected true", "config", id="an animal or not?"),
    pytest.param("[empty]\nanimal = 0\n[fox]\nanimal = true", "animal is 0, expected", "config", id="0 is not false"),
    pytest.param(f"{OK}genus = 7", "genus is 7, expected a text", "config", id="a number is no genus"),
    pytest.param(f'{OK}genus = ""', "expected a text", "config", id="a blank genus"),
    pytest.param(f'{OK}genus = "Vulpes "', "expected a text", "config", id="a space at the end"),
    pytest.param(f'{OK}scientific_name = "Vulpes"\nrank = "genos"', "rank is 'genos'", "config", id="an unknown rank"),
    pytest.param(f'{OK}rank = "genus"', "a rank and no scientific_name", "config", id="a rank of nothing"),
    pytest.param(f'{OK}scientific_name = "Xus"', "and no rank", "config", id="a name of no rank"),
    pytest.param("[empty]\nanimal = true\n[fox]\nanimal = true", "never an animal", "config", id="empty is no animal"),
    pytest.param(
        '[empty]\nanimal = false\n[fox]\nanimal = false\ngenus = "Vulpes"', "animal is false", "config",
        id="a genus of no animal",
    ),
    pytest.param(
        f'{OK}scientific_name = "Vulpes vulpes"\ngenus = "Canis"', "is Vulpes vulpes, but its genus Canis", "config",
        id="a species of another genus",
    ),
    pytest.param("empty = 1\n[fox]\nanimal = true", "expected a table", "config", id="no table"),
    pytest.param(f"{OK}[empty]", "is not TOML", "config", id="the same label twice"),
    pytest.param("[empty", "is not TOML", "config", id="no TOML"),
    pytest.param("#" * (labels.MAX_BYTES + 1), "more than", "config", id="a file of another kind"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says", "code"), FAULTS)
def test_a_file_that_is_not_right_is_refused(tmp_path: Path, text: str, says: str, code: str) -> None:
    path = wrote(tmp_path, text)
    with pytest.raises(ConfigError, match=says) as refused:
        labels.read(path, ["empty", "fox"])
    assert str(path) in str(refused.value)
    assert refused.value.code == code


def test_a_genus_in_two_families_is_refused(tmp_path: Path) -> None:
    path = wrote(
        tmp_path,
        '[fox]\nanimal = true\ngenus = "Vulpes"\nfamily = "Felidae"\norder = "Carnivora"\n'
        '[red]\nanimal = true\nscientific_name = "Vulpes vulpes"\nrank = "species"\n',
    )
    with pytest.raises(
        ConfigError, match=r"the genus Vulpes is of the family Felidae in \[fox\] and of Canidae in"
    ) as refused:
        labels.read(path, ["fox", "red"])
    assert refused.value.code == "contradiction"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        labels.read(tmp_path / "gone.toml", ["fox"])
