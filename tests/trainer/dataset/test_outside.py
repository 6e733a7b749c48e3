"""Files that others wrote: times, file names, JSON and tables, as they are and as an attacker would like them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import DataError
from trainer.dataset import outside


@pytest.mark.parametrize(
    ("text", "local", "utc_s"),
    [
        pytest.param("2022-12-31 09:52:50", "2022-12-31T09:52:50", None, id="as COCO Camera Traps write it"),
        pytest.param("2022:12:31 09:52:50", "2022-12-31T09:52:50", None, id="as EXIF writes it"),
        pytest.param("2022/12/31 9:52", "2022-12-31T09:52:00", None, id="as a spreadsheet writes it"),
        pytest.param("31.12.2022 09:52", "2022-12-31T09:52:00", None, id="as a spreadsheet in Europe writes it"),
        pytest.param("1.2.2022 9:52:50", "2022-02-01T09:52:50", None, id="the day first, without zeros"),
        pytest.param("1970-01-02T02:00:00+02:00", "1970-01-02T02:00:00", 86400.0, id="with an offset"),
        pytest.param("1970-01-02T00:00:00.5Z", "1970-01-02T00:00:00.500000", 86400.5, id="in UTC, with a fraction"),
        pytest.param("1970-01-01 19:00:00 -0500", "1970-01-01T19:00:00", 86400.0, id="with an offset to the west"),
    ],
)
def test_a_time_keeps_the_camera_s_clock_and_knows_utc_where_an_offset_is_written(
    text: str, local: str, utc_s: float | None
) -> None:
    assert outside.time(text) == outside.Time(local, utc_s)


@pytest.mark.parametrize("text", ["", " ", "NA", "nan", "0000:00:00 00:00:00", "0000-00-00T00:00:00"])
def test_a_time_that_is_not_known_is_none(text: str) -> None:
    assert outside.time(text) is None


@pytest.mark.parametrize(
    "text",
    ["2022-12-31", "31.12.2022", "12.31.2022 09:52", "12/31/2022 9:52", "31.12.2022T09:52",
     "2022-13-31 09:52:50", "2022-12-31 25:00:00", "noon",
     "2022-12-31 09:52:50+99:00", "٢٠٢٢-12-31 09:52:50", "2022-12-31 09:52:50 and more"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the callers say where
        outside.time(text)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("a.jpg", "a.jpg"), ("./in//a.jpg", "in/a.jpg"), ("in\\a b.jpg", "in/a b.jpg"), ("...jpg", "...jpg"),
     ("Bildschirmfoto 9.41\u202fPM.png", "Bildschirmfoto 9.41\u202fPM.png")],
)  # fmt: skip
def test_a_name_below_the_folder_is_taken(written: str, meant: str) -> None:
    assert outside.inside(written, "x.json") == meant


@pytest.mark.parametrize(
    "written",
    [
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("\\\\server\\share\\a.jpg", id="a Windows share"),
        pytest.param("C:\\photos\\a.jpg", id="a Windows drive"),
        pytest.param("../a.jpg", id="the folder above"),
        pytest.param("in/../../a.jpg", id="the folder above, by a detour"),
        pytest.param("in\\..\\..\\a.jpg", id="the folder above, with backslashes"),
        pytest.param("~/a.jpg", id="a home folder"),
        pytest.param("", id="nothing"),
        pytest.param("./", id="the folder itself"),
        pytest.param("a\x00.jpg", id="a zero byte"),
        pytest.param("a\n.jpg", id="two lines"),
        pytest.param("a\ud800.jpg", id="half a character"),
        pytest.param("a" * 1001, id="too long"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(written: str) -> None:
    with pytest.raises(DataError, match=r"x.json: image 7 names the file .*expected a path below"):
        outside.inside(written, "x.json: image 7")


@given(st.text())
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    try:
        inside = outside.inside(name, "x")
    except DataError:
        return
    assert os.path.normpath(os.path.join("/data/set", inside)).startswith("/data/set/")
    inside.encode()


# --- JSON


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", "is not JSON", id="empty"),
        pytest.param(b"{", "is not JSON", id="cut short"),
        pytest.param(b"\xff\xd8\xff", "is not JSON in UTF-8", id="a photo"),
        pytest.param(b"[" * 100_000, "is not JSON", id="nested without end"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "is not JSON", id="an integer without end"),
        pytest.param(b"[]", "a list, expected an object", id="a list"),
        pytest.param(b"NaN", "null, expected an object", id="not a number"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused_by_name(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"x\.json.*{says}"):
        outside.json_object(path)


def test_a_file_over_the_cap_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(outside.MAX_BYTES + 1)  # sparse: takes no space
    with pytest.raises(DataError, match="at most 268435456 are read") as refused:
        outside.json_object(path)
    assert refused.value.code == "too large"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, make: object) -> None:
    path = tmp_path / "x.json"
    assert callable(make)
    make(path)
    with pytest.raises(DataError, match="not a regular file"):
        outside.read_bytes(path)


def test_a_name_that_no_file_has_is_refused() -> None:
    with pytest.raises(DataError, match="not a name"):
        outside.read_bytes(Path("a\x00b"))


# --- tables


def table(folder: Path, text: str) -> outside.Table:
    path = folder / "x.csv"
    path.write_text(text, encoding="utf-8")
    return outside.table(path)


def test_a_line_says_where_it_stands_even_after_a_cell_of_two_lines(tmp_path: Path) -> None:
    rows = table(tmp_path, 'A,b\n"1\n2",x\n,\n3,NA\n').rows
    assert [row.where.rpartition(" ")[2] for row in rows] == ["3", "5"]
    assert (rows[1]["a"], rows[1]["A"], rows[1].known("b"), rows[1]["c"]) == ("3", "3", None, "")
    with pytest.raises(DataError, match=r"line 3: a is .* on one line"):
        rows[0].known("a")
    with pytest.raises(DataError, match="line 5: b is blank"):
        rows[1].needed("b")


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'file' twice"):
        table(tmp_path, "File,label,file\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("file,label," + ",".join(map(str, range(100_000))), "100002 columns, at most 1000", id="columns"),
        pytest.param("file,label\na.jpg,fox\n" + "," * 2**20 + "\n", "line 3 has 1048577 characters", id="commas"),
        pytest.param("," * 2**21, "line 1 has 2097152 characters", id="nothing else"),
    ],
)
def test_a_line_without_end_is_refused_before_it_becomes_cells(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        table(tmp_path, text)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    message = "any.csv"
    try:
        outside.table(path)
    except DataError as error:
        message = str(error)
    assert "any.csv" in message
    outside.header(path)
