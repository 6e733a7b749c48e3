"""Options that several commands of the device share, and how these commands print. Nothing heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.errors import ConfigError, one_line

Root = Annotated[
    Path,
    typer.Option(
        "--root",
        metavar="DIR",
        envvar="FIELDMARK_ROOT",
        help="The device's root: a mounted card or a folder stands for one.",
    ),
]
Db = Annotated[Path | None, typer.Option("--db", metavar="FILE", help="The log, where it is not the device's own.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")]
HERE = Path("/")
MOST = 2**63 - 1
"""SQLite's integers end here."""


def installed_version() -> str | None:
    """Fieldmark's own version; None where it is run from its source."""
    from importlib import metadata

    try:
        return metadata.version("fieldmark")
    except metadata.PackageNotFoundError:
        return None


@contextmanager
def usage() -> Iterator[None]:
    """An option's value that makes no sense is wrong usage."""
    try:
        yield
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def log_path(root: Path, db: Path | None) -> Path:
    """The log that is meant."""
    from edge.log import store

    return db or store.path_below(root)


def print_objects(objects: Iterable[dict[str, Any]], columns: tuple[str, ...], as_json: bool, as_csv: bool) -> None:
    """One JSON object or one line of CSV for each."""
    from edge.log import table

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other. Leave one out")
    lines = map(table.json_line, objects) if as_json else table.csv_lines(columns, objects)
    for line in lines:
        typer.echo(line)


def print_json(values: dict[str, Any]) -> None:
    """One JSON object on one line."""
    typer.echo(json.dumps({"schema": 1, **values}, ensure_ascii=True))


def say(text: str) -> None:
    """One line on stderr."""
    typer.echo(one_line(text), err=True)
