"""Camtrap DP packages: what was said of photos and of events, and what is not on this machine."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import DataError
from tests import capabilities
from trainer.dataset import readers
from trainer.dataset.found import DataSet
from trainer.dataset.samples import Box, Sample

PROFILE = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2/camtrap-dp-profile.json"
Rows = list[dict[str, str]]

DEPLOYMENTS = [{"deploymentID": "d1", "locationID": "A7"}, {"deploymentID": "d2", "locationID": ""}]
NEEDED = {
    "deployments": ["deploymentID", "locationID"],
    "media": ["mediaID", "deploymentID", "timestamp", "filePath", "fileMediatype"],
    "observations": ["observationID", "deploymentID", "observationLevel", "observationType"],
}


def medium(i: int, time: str = "2024-05-01T06:00:00+02:00", **more: str) -> dict[str, str]:
    return {
        "mediaID": f"m{i}", "deploymentID": "d1", "timestamp": time, "filePath": f"media/{i}.jpg",
        "fileMediatype": "image/jpeg", **more,
    }  # fmt: skip


def of_media(i: int, kind: str = "animal", name: str = "Vulpes vulpes", **more: str) -> dict[str, str]:
    return {
        "observationID": f"o{i}", "deploymentID": "d1", "mediaID": f"m{i}", "observationLevel": "media",
        "observationType": kind, "scientificName": name if kind == "animal" else "", **more,
    }  # fmt: skip


def of_event(start: str, end: str, name: str = "Vulpes vulpes", **more: str) -> dict[str, str]:
    return {
        "observationID": f"e{start}", "deploymentID": "d1", "observationLevel": "event", "observationType": "animal",
        "eventID": "event 1", "eventStart": start, "eventEnd": end, "scientificName": name, **more,
    }  # fmt: skip


def write(path: Path, rows: Rows, columns: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, sorted({key for row in rows for key in row} | set(columns)), restval="")
        writer.writeheader()
        writer.writerows(rows)


def package(
    folder: Path, media: Rows, observations: Rows, deployments: Rows | None = None, *, there: bool = True, **more: Any
) -> Path:
    """A package and its photos."""
    resources = [{"name": name, "path": f"{name}.csv", "profile": "tabular-data-resource"} for name in NEEDED]
    description = {"profile": PROFILE, "resources": resources, **more}
    (folder / "datapackage.json").write_text(json.dumps(description))
    write(folder / "deployments.csv", DEPLOYMENTS if deployments is None else deployments, NEEDED["deployments"])
    write(folder / "media.csv", media, NEEDED["media"])
    write(folder / "observations.csv", observations, NEEDED["observations"])
    (folder / "media").mkdir(exist_ok=True)
    for row in media if there else []:
        if row["filePath"].startswith("media/"):
            (folder / row["filePath"]).write_bytes(b"")
    return folder / "datapackage.json"


def labels(found: DataSet) -> dict[str, str]:
    return {each.name: each.label for each in found.samples}


def codes(found: DataSet) -> dict[str, str]:
    return {each.name: each.code for each in found.left_out}


def test_a_photo_gets_station_event_local_time_and_boxes(tmp_path: Path) -> None:
    box = {"bboxX": "0.1", "bboxY": "0.2", "bboxWidth": "0.3", "bboxHeight": "0.4"}
    media = [medium(1), medium(2, "2024-05-01T07:00:00Z", deploymentID="d2")]
    path = package(tmp_path, media, [of_media(1, eventID="e9", **box), of_media(2, "blank")])
    found = readers.scan(path)
    assert found == DataSet(
        [
            Sample(
                tmp_path / "media/1.jpg", "media/1.jpg", "Vulpes vulpes", "A7", "e9", "2024-05-01T06:00:00",
                boxes=(Box(0.1, 0.2, 0.3, 0.4),),
            ),
            Sample(tmp_path / "media/2.jpg", "media/2.jpg", "empty", "d2", None, "2024-05-01T07:00:00"),
        ],
        [],
    )  # fmt: skip
    assert readers.scan(tmp_path).samples == found.samples


def test_people_vehicles_and_blanks_have_our_labels_and_the_unknown_has_none(tmp_path: Path) -> None:
    kinds = ["human", "vehicle", "blank", "unknown", "unclassified", "animal"]
    media = [medium(i) for i in range(7)]
    observations = [of_media(i, kind, "") for i, kind in enumerate(kinds)]
    found = readers.scan(package(tmp_path, media, observations))
    assert labels(found) == {"media/0.jpg": "person", "media/1.jpg": "vehicle", "media/2.jpg": "empty"}
    assert codes(found) == dict.fromkeys([f"media/{i}.jpg" for i in (3, 4, 5, 6)], "no label")


def test_what_was_said_of_an_event_holds_for_its_photos_in_any_zone(tmp_path: Path) -> None:
    """06:00 at +02:00 is 04:00 in UTC."""
    media = [
        medium(1, "2024-05-01T05:59:59+02:00"),
        medium(2, "2024-05-01T06:00:00+02:00"),
        medium(3, "2024-05-01T06:00:30.500+02:00"),
        medium(4, "2024-05-01T06:00:31+02:00"),
        medium(5, "2024-05-01T06:00:10+02:00", deploymentID="d2"),
    ]
    event = of_event("2024-05-01T04:00:00Z", "2024-05-01T04:00:30Z")
    found = readers.scan(package(tmp_path, media, [event]))
    assert labels(found) == dict.fromkeys(["media/2.jpg", "media/3.jpg"], "Vulpes vulpes")
    assert {each.sequence for each in found.samples} == {"event 1"}


def test_a_long_event_is_found_behind_many_short_ones(tmp_path: Path) -> None:
    long = of_event("2024-05-01T04:00:00Z", "2024-05-01T05:00:00Z", "Meles meles")
    short = [of_event(f"2024-05-01T04:{i:02}:00Z", f"2024-05-01T04:{i:02}:10Z", "Vulpes vulpes") for i in range(1, 30)]
    media = [medium(1, "2024-05-01T06:45:00+02:00"), medium(2, "2024-05-01T06:20:05+02:00")]
    found = readers.scan(package(tmp_path, media, [*short, long]))
    assert (labels(found), codes(found)) == ({"media/1.jpg": "Meles meles"}, {"media/2.jpg": "two labels"})


def test_a_word_about_the_photo_goes_before_one_about_its_event(tmp_path: Path) -> None:
    event = of_event("2024-05-01T04:00:00Z", "2024-05-01T04:00:30Z")
    found = readers.scan(package(tmp_path, [medium(1), medium(2)], [event, of_media(1, "blank")]))
    assert labels(found) == {"media/1.jpg": "empty", "media/2.jpg": "Vulpes vulpes"}
    assert {each.sequence for each in found.samples} == {"event 1"}


def test_a_person_s_word_goes_before_a_machine_s(tmp_path: Path) -> None:
    machine = {"classificationMethod": "machine"}
    observations = [of_media(1, **machine), of_media(1, name="Meles meles"), of_media(2, **machine)]
    found = readers.scan(package(tmp_path, [medium(1), medium(2)], observations))
    assert labels(found) == {"media/1.jpg": "Meles meles", "media/2.jpg": "Vulpes vulpes"}
    assert "the labels of 1 of 2 photos were given by a machine" in found.notes[0]


def test_two_species_set_ups_and_videos_are_left_out(tmp_path: Path) -> None:
    media = [medium(1), medium(2), medium(3, fileMediatype="video/mp4"), medium(4)]
    observations = [
        of_media(1),
        of_media(1, name="Meles meles"),
        of_media(2, "human", cameraSetupType="setup"),
        of_media(3),
        of_media(4),
    ]
    found = readers.scan(package(tmp_path, media, observations))
    assert labels(found) == {"media/4.jpg": "Vulpes vulpes"}
    assert codes(found) == {"media/1.jpg": "two labels", "media/2.jpg": "setup", "media/3.jpg": "not a photo"}


def test_photos_on_the_web_and_missing_ones_are_left_out_and_counted(tmp_path: Path) -> None:
    media = [medium(1), medium(2), medium(3, filePath="https://photos.example.org/3.jpg")]
    path = package(tmp_path, media, [of_media(i) for i in (1, 2, 3)])
    (tmp_path / "media/2.jpg").unlink()
    found = readers.scan(path)
    assert labels(found) == {"media/1.jpg": "Vulpes vulpes"}
    assert codes(found) == {"media/2.jpg": "missing", "https://photos.example.org/3.jpg": "not here"}
    assert [note.partition(": ")[2][:30] for note in found.notes] == [
        "1 of 3 media are on the web, n", "1 of 3 media are not there, an",
    ]  # fmt: skip


def test_a_package_without_its_photos_is_refused(tmp_path: Path) -> None:
    media = [medium(1), medium(2, filePath="https://photos.example.org/2.jpg")]
    path = package(tmp_path, media, [of_media(1), of_media(2)], there=False)
    with pytest.raises(DataError, match="names 2 photos and none of them is on this machine"):
        readers.scan(path)


def test_one_of_its_tables_given_as_a_csv_leads_to_the_package(tmp_path: Path) -> None:
    package(tmp_path, [medium(1)], [of_media(1)])
    with pytest.raises(DataError, match=r"belong to a Camtrap DP package: give .*datapackage\.json"):
        readers.scan(tmp_path / "media.csv")


WEB = [{"name": name, "path": f"https://example.org/{name}.csv"} for name in NEEDED]
ABOVE = [{"name": name, "path": f"../{name}.csv"} for name in NEEDED]
PACKED = [{"name": name, "path": f"{name}.csv.gz"} for name in NEEDED]


@pytest.mark.parametrize(
    ("media", "observations", "more", "says"),
    [
        pytest.param(
            medium(1, filePath="../1.jpg"), {}, {}, r"media.csv line 2 names the file '\.\./1", id="out of it"
        ),
        pytest.param(medium(1, filePath="/1.jpg"), {}, {}, "line 2 names the file '/1.jpg'", id="an absolute path"),
        pytest.param(medium(1, filePath="~/1.jpg"), {}, {}, "line 2 names the file '~/1.jpg'", id="a home folder"),
        pytest.param(medium(1, mediaID=""), {}, {}, "media.csv line 2: mediaID is blank", id="no mediaID"),
        pytest.param(
            medium(1, deploymentID="d9"), {}, {}, "the deployment d9 is not in the deployments", id="no deployment"
        ),
        pytest.param(
            medium(1, "2024-05-01T06:00:00"), {}, {}, "line 2: timestamp is .* with its offset", id="no offset"
        ),
        pytest.param(medium(1, "today"), {}, {}, "line 2: timestamp is 'today'", id="no time"),
        pytest.param({}, of_media(1, "plant"), {}, "line 2: observationType is 'plant'", id="an unknown type"),
        pytest.param(
            {}, {**of_media(1), "observationLevel": "day"}, {}, "observationLevel is 'day'", id="an unknown level"
        ),
        pytest.param({}, of_media(1, mediaID=""), {}, "observations.csv line 2: mediaID is blank", id="of no photo"),
        pytest.param({}, of_event("x", "y"), {}, "line 2: eventStart is 'x'", id="an event without a time"),
        pytest.param(
            {},
            of_media(1, bboxX="a", bboxY="0", bboxWidth="1", bboxHeight="1"),
            {},
            "bbox column holds no",
            id="text box",
        ),
        pytest.param(
            {}, of_media(1, bboxX="20", bboxY="0", bboxWidth="9", bboxHeight="9"), {}, "expected shares", id="pixels"
        ),
        pytest.param(
            {}, {}, {"profile": "tabular-data-package"}, "the profile is 'tabular-data-package'", id="another package"
        ),
        pytest.param(
            {}, {}, {"profile": PROFILE.replace("1.0.2", "0.1.6")}, "expected that of Camtrap DP 1", id="an old one"
        ),
        pytest.param({}, {}, {"profile": 1}, "the profile is 1", id="a profile of no text"),
        pytest.param({}, {}, {"resources": []}, "lists no deployments among its resources", id="no resources"),
        pytest.param({}, {}, {"resources": {}}, "resources is an object, expected a list", id="resources of no list"),
        pytest.param({}, {}, {"resources": WEB}, r"resources\[0\]: path is 'https", id="tables on the web"),
        pytest.param({}, {}, {"resources": ABOVE}, "names the file '../deployments.csv'", id="tables outside"),
        pytest.param({}, {}, {"resources": PACKED}, "is packed, expected CSV. Unpack it", id="packed tables"),
    ],
)
def test_a_wrong_value_is_refused_with_the_line_it_stands_in(
    tmp_path: Path, media: dict[str, str], observations: dict[str, str], more: dict[str, Any], says: str
) -> None:
    path = package(tmp_path, [media or medium(1)], [observations or of_media(1)], **more)
    with pytest.raises(DataError, match=says) as refused:
        readers.scan(path)
    assert "\n" not in str(refused.value)


def test_a_media_identifier_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3: the mediaID m1 is there twice"):
        readers.scan(package(tmp_path, [medium(1), medium(1)], []))


def test_a_deployment_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twice = [{"deploymentID": "d1", "locationID": "A7"}, {"deploymentID": "d1", "locationID": "B2"}]
    with pytest.raises(DataError, match="line 3: the deploymentID d1 is there twice"):
        readers.scan(package(tmp_path, [medium(1)], [of_media(1)], twice))


def test_an_event_s_number_that_begins_anew_at_a_station_is_another_event(tmp_path: Path) -> None:
    media = [medium(1), medium(2, deploymentID="d2")]
    seen = [of_media(1, eventID="1"), of_media(2, eventID="1", deploymentID="d2")]
    found = readers.scan(package(tmp_path, media, seen))
    assert [sample.sequence_key for sample in found.samples] == [("A7", "1"), ("d2", "1")]


def test_a_table_that_is_missing_or_lacks_a_column_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path, [medium(1)], [of_media(1)])
    (tmp_path / "observations.csv").write_text("observationID,deploymentID\n")
    with pytest.raises(DataError, match=r"observations.csv has no column observationLevel, observationType"):
        readers.scan(path)
    (tmp_path / "observations.csv").unlink()
    with pytest.raises(DataError, match=r"observations.csv cannot be read: No such file"):
        readers.scan(path)


cells = st.text(max_size=6) | st.sampled_from(
    [
        "d1",
        "m1",
        "media",
        "event",
        "animal",
        "blank",
        "human",
        "Vulpes vulpes",
        "image/jpeg",
        "media/1.jpg",
        "0.5",
        "NA",
        "2024-05-01T06:00:00+02:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ]
)
COLUMNS = list(
    {**medium(1), **of_media(1), **of_event("", ""), **dict.fromkeys(("bboxX", "bboxY", "bboxWidth", "bboxHeight"))}
)


@given(
    media=st.lists(st.dictionaries(st.sampled_from(COLUMNS), cells), max_size=3),
    observations=st.lists(st.dictionaries(st.sampled_from(COLUMNS), cells), max_size=3),
)
def test_any_tables_are_a_data_set_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, media: Rows, observations: Rows
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-package"
    folder.mkdir(exist_ok=True)
    (folder / "media").mkdir(exist_ok=True)
    (folder / "media/1.jpg").write_bytes(b"")
    media = [{**medium(i), **row} for i, row in enumerate(media)]
    observations = [{**of_media(i), **row} for i, row in enumerate(observations)]
    try:
        found = readers.scan(package(folder, media, observations, there=False))
    except DataError as error:
        message = str(error)
    else:
        message = ""
        assert {each.path for each in found.samples} == {folder / "media/1.jpg"}
    assert "\n" not in message


@pytest.mark.needs("real_photos")
def test_the_example_package_is_read() -> None:
    found = readers.scan(capabilities.real_photos() / "camtrapdp_example")
    assert len(found.samples) == 10
    assert {(each.label, each.station, each.sequence, len(each.boxes)) for each in found.samples} == {
        ("Ardea", "ce943ced", "7245a2aa", 1)
    }
    assert found.samples[0].taken == "2021-04-11T20:43:09"
    assert [each.code for each in found.left_out] == ["not here"] * 413
