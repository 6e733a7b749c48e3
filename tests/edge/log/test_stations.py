"""``deployments.csv``: what a spreadsheet leaves is read, what is wrong is named with line and column."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError
from edge.log import stations
from edge.log.stations import Deployment, Table

HEADER = "deploymentID,locationID,locationName,latitude,longitude,deploymentStart,deploymentEnd,cameraID\n"
LINE = "d1,beech,Beech 4,52.70442,23.84995,2024-05-01T10:00:00+01:00,2024-06-01T10:00:00+01:00,cam-7\n"
OPEN = "d2,beech,Beech 4,52.70442,23.84995,2024-06-01T10:00:00+01:00,,cam-7\n"
START = datetime(2024, 5, 1, 10, tzinfo=timezone(timedelta(hours=1)))
PATH = Path("etc/deployments.csv")


def parse(text: str | bytes) -> Table:
    return stations.parse(text if isinstance(text, bytes) else text.encode(), PATH)


def test_file_is_read() -> None:
    first, second = parse(HEADER + LINE + OPEN).deployments
    assert (first.id, first.station, first.name, first.camera) == ("d1", "beech", "Beech 4", "cam-7")
    assert (first.latitude, first.longitude, first.start) == (52.70442, 23.84995, START)
    assert first.end == second.start
    assert second.end is None


GERMAN = (
    "deploymentID;locationID;latitude;longitude;deploymentStart;deploymentEnd\r\n"
    "d1;Bärenklau;52,70442;-3,5;2024-05-01T10:00:00+01:00;\r\n"
)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xef\xbb\xbf" + GERMAN.encode(), id="as a German Excel saves CSV UTF-8"),
        pytest.param(GERMAN.replace(",", ".").encode(), id="semicolons and decimal points"),
        pytest.param(GERMAN.replace(",", ".").replace(";", ",").encode(), id="commas"),
        pytest.param(GERMAN.replace(";", "\t").replace(",", ".").encode(), id="tabs"),
        pytest.param((GERMAN + ";;;;;\r\n\r\n").encode(), id="blank lines at the end"),
        pytest.param(GERMAN.replace("End\r\n", "End;;\r\n").encode(), id="empty columns at the end"),
        pytest.param(
            GERMAN.replace("End\r\n", "End;baitUse\r\n").replace(":00;\r\n", ":00;;TRUE\r\n").encode(),
            id="yes and no as a spreadsheet writes them",
        ),
    ],
)
def test_what_a_spreadsheet_leaves_is_read(data: bytes) -> None:
    [found] = parse(data).deployments
    assert (found.station, found.latitude, found.longitude, found.end) == ("Bärenklau", 52.70442, -3.5, None)


def line(**cells: str) -> str:
    values = dict(zip(HEADER.strip().split(","), LINE.strip().split(","), strict=True)) | cells
    return HEADER + ",".join(values.values()) + "\n"


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        pytest.param(line(latitude="91"), ":2: latitude is '91'", "from -90 to 90", id="beyond the pole"),
        pytest.param(line(longitude="north"), ":2: longitude is 'north'", "a number", id="a word"),
        pytest.param(line(latitude=""), ":2: latitude is empty", "a number", id="an empty cell that is required"),
        pytest.param(line(latitude="NA"), ":2: latitude is empty", "a number", id="a missing value of Camtrap DP"),
        pytest.param(line(latitude="1e1"), ":2: latitude is '1e1'", "a number", id="an exponent"),
        pytest.param(line(latitude="٥٢"), ":2: latitude is", "a number", id="digits of another script"),
        pytest.param(
            line(deploymentStart="01.05.2024 10:00"), ":2: deploymentStart is '01.05", "such as", id="a local date"
        ),
        pytest.param(
            line(deploymentStart="2024-05-01T10:00:00"), "deploymentStart", "without its offset", id="no offset"
        ),
        pytest.param(
            line(deploymentStart="2024-05-01+01:00"), ":2: deploymentStart", "such as", id="an offset without a time"
        ),
        pytest.param(
            line(deploymentStart="0024-05-01T10:00:00Z"), ":2: deploymentStart", "from 1900 to 2199", id="a short year"
        ),
        pytest.param(
            line(deploymentEnd="9999-12-31T23:59:59-01:00"), ":2: deploymentEnd", "1900 to 2199", id="the end of time"
        ),
        pytest.param(
            line(deploymentEnd="2024-05-01T09:00:00Z"), ":2: deploymentEnd", "not later", id="ends as it starts"
        ),
        pytest.param(line(cameraID="a\x1b[2J"), ":2: cameraID", "printable", id="what controls a terminal"),
        pytest.param(line(cameraID="x" * 201), ":2: cameraID", "200", id="a name without end"),
        pytest.param(HEADER + LINE + LINE, ":3: deploymentID 'd1'", "there already", id="an id twice"),
        pytest.param(HEADER + OPEN + OPEN.replace("d2", "d3"), ":3: d3 overlaps d2", "cameraID", id="two open ones"),
        pytest.param(
            HEADER + LINE + OPEN.replace("06-01", "05-31"),
            ":3: d2 overlaps d1",
            "Close the earlier",
            id="begins too early",
        ),
        pytest.param(HEADER.replace("cameraID", "camera"), ":1: 'camera'", "nearest is cameraID", id="unknown column"),
        pytest.param(HEADER.replace("cameraID", "latitude"), ":1:", "two columns latitude", id="a column twice"),
        pytest.param("deploymentID,latitude\n", ":1:", "lacks locationID, longitude", id="columns that are missing"),
        pytest.param("", ":1:", "lacks deploymentID", id="an empty file"),
        pytest.param(HEADER + LINE.strip() + ",x\n", ":2: 9 cells", "not quoted", id="more cells than columns"),
        pytest.param(HEADER + '"d1\n', ":2", "no CSV", id="a quotation that does not end"),
        pytest.param(HEADER.encode() + "Bärenklau".encode("latin-1"), "not UTF-8", "CSV UTF-8", id="Latin-1"),
        pytest.param(HEADER.encode("utf-16"), "not UTF-8", "CSV UTF-8", id="UTF-16"),
    ],
)
def test_what_is_wrong_is_named_with_line_and_column(text: str | bytes, where: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    message = str(refused.value)
    assert message.startswith(str(PATH))
    assert where in message
    assert says in message


def test_two_cameras_may_stand_at_one_station() -> None:
    assert len(parse(HEADER + OPEN + OPEN.replace("d2", "d3").replace("cam-7", "cam-8")).deployments) == 2


def test_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "deployments.csv"
    path.write_bytes(b"x" * (stations.MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="more than"):
        stations.read(path)


def test_no_file_is_no_deployment(tmp_path: Path) -> None:
    assert stations.read(tmp_path / "deployments.csv").deployments == ()


@pytest.mark.parametrize("data", [(HEADER + LINE + OPEN).encode(), b"\xef\xbb\xbf" + GERMAN.encode()])
def test_file_is_written_as_it_was_found(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "deployments.csv"
    path.write_bytes(data)
    before = stations.read(path)
    stations.write(before)
    assert stations.read(path) == before
    assert path.read_bytes().startswith(data[:20])
    assert (b"52,70442" in path.read_bytes()) == (b"52,70442" in data)


def test_nobody_else_reads_where_the_cameras_stand(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "fieldmark" / "deployments.csv"
    stations.write(stations.add(Table(path), Deployment("", "beech", 1.0, 2.0, START)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "deployments.csv"
    with pytest.raises(ConfigError):
        stations.write(Table(path, (Deployment("d", "a\nb", 1.0, 2.0, START),)))
    assert not path.exists()


def test_added_deployment_is_called_after_station_and_day() -> None:
    table = stations.add(Table(PATH), Deployment("", "beech", 1.0, 2.0, START, START + timedelta(hours=1)))
    table = stations.add(table, Deployment("", "beech", 1.0, 2.0, START + timedelta(hours=1)))
    assert [each.id for each in table.deployments] == ["beech 2024-05-01", "beech 2024-05-01 2"]


def test_added_deployment_may_not_overlap() -> None:
    table = parse(HEADER + OPEN)
    with pytest.raises(ConfigError, match="d2 overlaps d9"):
        stations.add(table, Deployment("d9", "beech", 1.0, 2.0, START, other={"cameraID": "cam-7"}))


def test_card_change_closes_a_deployment_and_the_next_goes_on() -> None:
    table = parse(HEADER + LINE + OPEN)
    end = datetime(2024, 7, 1, tzinfo=UTC)
    table, closed = stations.close(table, "beech", end, "card changed")
    assert (closed.id, closed.end, closed.other["deploymentComments"]) == ("d2", end, "card changed")
    table = stations.add(table, stations.going_on(closed, table))
    new = table.deployments[-1]
    assert (new.start, new.end, new.camera, new.latitude) == (end, None, "cam-7", closed.latitude)
    assert "deploymentComments" not in new.other


@pytest.mark.parametrize(
    ("text", "station", "end", "says"),
    [
        pytest.param(HEADER + LINE, "beech", "2024-07-01T00:00Z", "no open deployment", id="none is open"),
        pytest.param(HEADER + OPEN, "oak", "2024-07-01T00:00Z", "Open are: beech", id="another station"),
        pytest.param(HEADER + OPEN, "beech", "2024-05-01T00:00Z", "not later", id="before it began"),
        pytest.param(
            HEADER + OPEN + OPEN.replace("d2", "d3").replace("cam-7", "cam-8"), "beech", "2024-07-01T00:00Z",
            "say which --camera", id="two cameras",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_closed_is_refused(text: str, station: str, end: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        stations.close(parse(text), station, datetime.fromisoformat(end), "")


def test_start_of_a_station_is_that_of_its_first_deployment() -> None:
    assert stations.starts(parse(HEADER + OPEN + LINE)) == {"beech": START}


def test_photo_belongs_to_the_deployment_that_begins_when_the_last_one_ends() -> None:
    first, second = parse(HEADER + LINE + OPEN).deployments
    assert first.end is not None
    assert (first.holds(first.end), second.holds(first.end)) == (False, True)


def test_columns_are_those_of_the_published_schema() -> None:
    """The names and their order, as the schema of Camtrap DP 1.0.2 has them."""
    published = (
        "deploymentID locationID locationName latitude longitude coordinateUncertainty deploymentStart deploymentEnd "
        "setupBy cameraID cameraModel cameraDelay cameraHeight cameraDepth cameraTilt cameraHeading detectionDistance "
        "timestampIssues baitUse featureType habitat deploymentGroups deploymentTags deploymentComments"
    )
    assert list(stations.COLUMNS) == published.split()


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("coordinateUncertainty", "100", "0"),
        ("cameraDelay", "0", "-1"),
        ("cameraHeight", "1.2", "-0.5"),
        ("cameraTilt", "-90", "12.5"),
        ("cameraHeading", "360", "361"),
        ("baitUse", "true", "yes"),
        ("featureType", "culvert", "bridge"),
        ("habitat", "heath", "a\tb"),
    ],
)
def test_each_column_takes_what_the_schema_takes(column: str, good: str, bad: str) -> None:
    stations.COLUMNS[column].check(good, column)
    with pytest.raises(ConfigError, match=f"{column} is"):
        stations.COLUMNS[column].check(bad, column)


words = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=20).filter(
    lambda text: text not in ("NA", "NaN", "nan")
)


@given(
    st.lists(
        st.builds(
            Deployment,
            words,
            words,
            st.decimals(-90, 90, places=5).map(float),
            st.decimals(-180, 180, places=5).map(float),
            st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)).map(
                lambda moment: moment.replace(microsecond=0)
            ),
            st.none(),
            st.dictionaries(st.sampled_from(["locationName", "habitat", "deploymentComments"]), words),
        ),
        max_size=5,
        unique_by=(lambda each: each.id, lambda each: each.station),
    ),
    st.sampled_from([",", ";", "\t"]),
    st.booleans(),
)
def test_whatever_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, deployments: list[Deployment], delimiter: str, bom: bool
) -> None:
    path = tmp_path_factory.mktemp("stations") / "deployments.csv"
    deployments = [replace(each, longitude=each.longitude + 0.0, latitude=each.latitude + 0.0) for each in deployments]
    table = Table(path, tuple(deployments), delimiter, bom)
    stations.write(table)
    assert stations.read(path) == table


def test_json_of_deployments_holds_no_coordinates() -> None:
    from edge.log import effort

    [found] = parse(HEADER + OPEN).deployments
    assert "52.7" not in json.dumps(effort.deployment_json(found))
