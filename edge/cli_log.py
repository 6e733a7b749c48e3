"""The commands of the log and of the stations. They read options and print; the work is done elsewhere.

Heavy imports are inside the commands. ``fieldmark.main`` turns errors into one line and an exit code.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.errors import ConfigError, LogError, counted, one_line
from edge.options import HERE, MOST, Csv, Db, Json, Root, log_path, print_json, print_objects, say, usage

if TYPE_CHECKING:
    from datetime import datetime

    from edge.log.audit import Audit, Finding
    from edge.log.effort import Effort
    from edge.log.query import Filter, Row

log_app = typer.Typer(
    name="log", help="Read and correct the detection log.", invoke_without_command=True, rich_markup_mode=None,
    epilog="Example: fieldmark log --species deer --since 2024-05-01 --csv > deer.csv",
)  # fmt: skip
station_app = typer.Typer(
    name="station", help="Where the cameras stand, and since when.", no_args_is_help=True, rich_markup_mode=None,
    epilog="Example: fieldmark station list",
)  # fmt: skip

Species = Annotated[str | None, typer.Option("--species", metavar="LABEL", help="Only this label.")]
Station = Annotated[str | None, typer.Option("--station", metavar="NAME", help="Only this station.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="From this day or time on, such as 2024-05-01.")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="To this day, which is included, or before this time.")
]
OwnRoot = Annotated[Path | None, typer.Option("--root", metavar="DIR", help="The device's root.")]
Who = Annotated[str | None, typer.Option("--who", metavar="NAME", help="Who says so; else the user's name.")]
RowId = Annotated[int, typer.Argument(metavar="ID", max=MOST, help="The row, as `fieldmark log` numbers it.")]

_BLOCK = 500
_NAMED = 20  # findings of a kind that are printed; --json prints all


@log_app.callback()
def log(
    context: typer.Context,
    root: Root = HERE,
    db: Db = None,
    species: Species = None,
    station: Station = None,
    since: Since = None,
    until: Until = None,
    below: Annotated[
        float | None,
        typer.Option("--below", metavar="CONF", min=0, max=1, help="Only what the model is less sure of, 0 to 1."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, max=MOST, help="Only the newest N rows.")
    ] = None,
    all_models: Annotated[bool, typer.Option("--all-models", help="One row per model, not only the newest.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Read and correct the detection log."""
    if context.invoked_subcommand is not None:
        # Not passed on, since no two of the commands take the same of them; left out, they would seem to have worked.
        given = {"species": species, "station": station, "since": since, "until": until, "below": below, "limit": limit}
        given |= {"all-models": all_models or None, "json": as_json or None, "csv": as_csv or None}
        for name, value in given.items():
            if value is not None:
                raise typer.BadParameter(f"--{name} goes behind `{context.invoked_subcommand}`, where it takes one")
        context.obj = (root, db)
        return
    from edge.log.query import Filter

    with usage():
        wanted = Filter(species, station, since, until, below, limit, all_models)
    _print_log(root, log_path(root, db), wanted, as_json, as_csv)


@log_app.command("show", epilog="Example: fieldmark log show 17 --json")
def log_show(
    context: typer.Context, file_id: RowId, root: OwnRoot = None, db: Db = None, as_json: Json = False
) -> None:
    """Show everything that the log knows of one file."""
    from edge.log import details, store, table

    where, path = _log_of(context, root, db)
    with closing(store.open_for_reading(path)) as connection:
        found = details.of_file(connection, file_id, _event_gap_s(where), _starts(where))
    if as_json:
        typer.echo(table.json_line(found))
        return
    for line in details.lines(found):
        typer.echo(line)


@log_app.command("correct", epilog="Example: fieldmark log correct 17 'roe deer' --count 2 --who Ada")
def log_correct(
    context: typer.Context,
    file_id: RowId,
    label: Annotated[
        str, typer.Argument(metavar="LABEL", help="What is in the photo; also empty, person, unknown, setup.")
    ],
    who: Who = None,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=9999, help="How many.")] = 1,
    comment: Annotated[str | None, typer.Option("--comment", metavar="TEXT", help="Anything else.")] = None,
    root: OwnRoot = None,
    db: Db = None,
) -> None:
    """Write what a person sees in a photo.

    The model's answer stays in the log beside it, and so do earlier corrections.
    """
    from edge.log import query, store

    _, path = _log_of(context, root, db)
    with store.open_for_writing(path, make=False) as opened:  # first, since it brings an older log up to date
        with closing(store.open_for_reading(path)) as connection:
            row, known = query.one(connection, file_id), query.known_labels(connection)
        if row.photo_id is None or row.sha256 is None:
            raise LogError(f"row {file_id} is no photo that can be seen: {row.failure}", code="no photo")
        label = opened.spelling(label)
        opened.add_review(
            row.sha256, [store.Observation(label, count=count, comment=comment)], who or store.user_name()
        )
    typer.echo(one_line(f"{row.path}: {row.model_label or 'no detection'} -> {label}"))
    if label not in known:
        say(f"{label!r} is a new label in this log; it knows {', '.join(known)}.")


@log_app.command(
    "shift-time",
    epilog="Example: fieldmark log shift-time --station 'beech 4' --since 2024-05-01 --by +01:00:00 "
    "--reason 'clock was an hour slow'",
)
def log_shift_time(
    context: typer.Context,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="[+-][Nd]hh:mm:ss", help="What is added to the camera's time, as -1d02:30:00."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why, for those who ask later.")
    ] = None,
    station: Station = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From this time on, by the camera's clock as it was.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="To this day, or before this time, by the clock as it was."),
    ] = None,
    file_times: Annotated[
        bool, typer.Option("--file-times", help="Also photos of which only the file's time is known.")
    ] = False,
    listed: Annotated[
        bool, typer.Option("--list", help="List the corrections that were made; change nothing.")
    ] = False,
    who: Who = None,
    root: OwnRoot = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Correct the clock of a camera.

    What the camera wrote stays in the log; `taken` is the corrected time everywhere, `taken_original` stands beside it.
    Several corrections add up. The opposite one undoes it.
    """
    from edge.log import shifts, store

    _, path = _log_of(context, root, db)
    if listed:
        _print_shifts(path, as_json)
        return
    if by is None or reason is None:
        raise typer.BadParameter("say the difference with --by and why with --reason, or --list")
    with usage():
        shift = shifts.make(
            by=by, station=station, since=since, until=until, reason=reason, who=who or store.user_name(),
            file_times=file_times,
        )  # fmt: skip
    with store.open_for_writing(path, make=False) as opened:  # first, since it brings an older log up to date
        with closing(store.open_for_reading(path)) as connection:
            touched = shifts.touched(connection, shift)
        if not touched.files:
            raise LogError(f"{path}: no photo is meant by this; nothing was changed. `fieldmark log` lists them.")
        shift_id = opened.add_shift(shift)
    if as_json:
        print_json({"id": shift_id, **vars(touched), "seconds": shift.seconds})
    else:
        files = counted(touched.files, "file")
        typer.echo(f"{files}; the first was of {touched.before} and is of {touched.after} now.")


@log_app.command("audit", epilog="Example: fieldmark log audit --root /media/card")
def log_audit(
    context: typer.Context,
    grace: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", min=0, max=1e9, help="Leave out files that are younger.")
    ] = 0.0,
    root: OwnRoot = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Compare the photos on the disk with the rows of the log.

    Ends with 1 if anything is lost or twice. Reads only.
    """
    from edge.agent import found
    from edge.log import store
    from edge.log.audit import Audit

    where, path = _log_of(context, root, db)
    troubles: dict[Path, str] = {}
    with closing(store.open_for_reading(path)) as connection:
        audit = Audit(connection, here=lambda text: found.here(where, text), digest=_digest)
        logged = [row[0] for row in connection.execute("SELECT DISTINCT source FROM file ORDER BY 1")]
        files = found.files(where, logged, _settings(where).sources, troubles, grace_s=grace)
        _print_audit(audit, audit.run(files, path.parent / "previews", troubles), as_json)
    if not audit.passed:
        raise LogError(f"{path}: {audit.failed_words()}. Run `fieldmark watch` on the folder again.", code="audit")


@log_app.command("export", epilog="Example: fieldmark log export --format csv --out photos.csv --independence 30m")
def log_export(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")],
    form: Annotated[str, typer.Option("--format", metavar="csv", help="csv: one line per file.")] = "csv",
    independence: Annotated[
        str | None,
        typer.Option("--independence", metavar="TIME", help="Add a column: no photo of the species so long, as 30m."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the file if it is there.")] = False,
    species: Species = None,
    station: Station = None,
    since: Since = None,
    until: Until = None,
    all_models: Annotated[bool, typer.Option("--all-models", help="One row per model, not only the newest.")] = False,
    root: OwnRoot = None,
    db: Db = None,
) -> None:
    """Write the log to a file for other programs."""
    from edge.log import export, store
    from edge.log import independence as apart
    from edge.log.query import Filter

    where, path = _log_of(context, root, db)
    if form != "csv":
        raise typer.BadParameter(f"--format is {form!r}, expected csv")
    with usage():
        wanted = Filter(species, station, since, until, None, None, all_models)
        interval_s = None if independence is None else apart.interval_s(independence)
    with closing(store.open_for_reading(path)) as connection:
        lines = export.csv_lines(
            connection, wanted, event_gap_s=_event_gap_s(where), starts=_starts(where), independence_s=interval_s
        )
        count = export.write_csv(out, lines, replace=replace)
    say(f"{out}: {count} rows.")


@station_app.command(
    "add",
    epilog="Example: fieldmark station add --id 'beech 4' --latitude 52.7044 --longitude 23.8499 "
    "--start 2024-05-01T10:00+01:00",
)
def station_add(
    station: Annotated[str, typer.Option("--id", metavar="NAME", help="The station, as `station` in the settings.")],
    latitude: Annotated[
        float, typer.Option("--latitude", metavar="DEGREES", min=-90, max=90, help="North is positive.")
    ],
    longitude: Annotated[
        float, typer.Option("--longitude", metavar="DEGREES", min=-180, max=180, help="East is positive.")
    ],
    start: Annotated[str, typer.Option("--start", metavar="TIME", help="When the camera was hung up, with offset.")],
    end: Annotated[str | None, typer.Option("--end", metavar="TIME", help="When it was taken down.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="The station's name for people.")] = None,
    deployment: Annotated[
        str | None, typer.Option("--deployment", metavar="ID", help="Its own id; else station and day.")
    ] = None,
    camera: Annotated[str | None, typer.Option("--camera", metavar="ID", help="Which camera, as its serial.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="COLUMN=TEXT", help="Any other column of Camtrap DP, as habitat=heath; repeatable."
        ),
    ] = None,
    root: Root = HERE,
    as_json: Json = False,
) -> None:
    """Write down a camera's deployment at a station.

    The file is etc/fieldmark/deployments.csv, in the columns of Camtrap DP; a spreadsheet can edit it too.
    """
    from edge.log import stations

    with usage():
        begins = stations.moment(start, "--start")
        ends = None if end is None else stations.moment(end, "--end")
        other = _columns(column or [], locationName=name, cameraID=camera)
    new = stations.Deployment(deployment or "", station, latitude, longitude, begins, ends, other)
    changed = stations.add(stations.read(stations.path_below(root)), new)
    stations.write(changed)
    _say_deployment(changed.deployments[-1], as_json)


@station_app.command(
    "close",
    epilog="Example: fieldmark station close 'beech 4' --end 2024-06-01T09:30+01:00 --why 'new battery' --go-on",
)
def station_close(
    station: Annotated[str, typer.Argument(metavar="STATION", help="Its id.")],
    end: Annotated[str, typer.Option("--end", metavar="TIME", help="When, with offset.")],
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="Card or battery changed, taken down, stolen.")
    ] = "",
    camera: Annotated[
        str | None, typer.Option("--camera", metavar="ID", help="Which, where several stand there.")
    ] = None,
    go_on: Annotated[bool, typer.Option("--go-on", help="The camera stays: the next deployment begins.")] = False,
    root: Root = HERE,
    as_json: Json = False,
) -> None:
    """End a deployment, as whenever the card or the battery is changed."""
    from edge.log import stations

    with usage():
        ends = stations.moment(end, "--end")
    changed, closed = stations.close(stations.read(stations.path_below(root)), station, ends, why, camera)
    if go_on:
        changed = stations.add(changed, stations.going_on(closed, changed))
    stations.write(changed)
    _say_deployment(closed, as_json)
    if go_on:
        _say_deployment(changed.deployments[-1], as_json)


@station_app.command("list", epilog="Example: fieldmark station list --json")
def station_list(root: Root = HERE, db: Db = None, as_json: Json = False) -> None:
    """List stations and deployments, with camera-days and dead times.

    Dead is a time in which no agent ran and no photo was taken. Where no agent ran at all, nothing is known of it.
    """
    from datetime import UTC, datetime

    from edge.log import effort, stations, store, table

    deployments = stations.read(stations.path_below(root)).deployments
    path, now = log_path(root, db), datetime.now(UTC)
    try:
        with closing(store.open_for_reading(path)) as connection:
            found = list(effort.of(connection, deployments, now))
    except LogError as error:
        if error.code != "no log":
            raise
        found = [effort.unwatched(each, now) for each in deployments]
    if as_json:
        for each in found:
            print_json(effort.as_json(each))
        return
    for line in table.aligned([_EFFORT_HEADER, *map(_effort_cells, found)]):
        typer.echo(line)


def _log_of(context: typer.Context, root: Path | None, db: Path | None) -> tuple[Path, Path]:
    """Root and log of a subcommand, whose options may stand before or after its name."""
    outer_root, outer_db = context.obj
    root = root or outer_root
    return root, log_path(root, db or outer_db)


def _settings(root: Path) -> Any:
    from edge.agent import config

    return config.load(root)


def _event_gap_s(root: Path) -> float:
    return float(_settings(root).agent.event_gap_s)


def _starts(root: Path) -> dict[str, datetime]:
    """When each station began, for the flags. Who may not read where the cameras stand does without."""
    from edge.log import stations

    try:
        return stations.starts(stations.read(stations.path_below(root)))
    except ConfigError as error:
        say(f"{error} Times before a deployment are not flagged.")
        return {}


def _print_log(root: Path, path: Path, wanted: Filter, as_json: bool, as_csv: bool) -> None:
    from edge.log import query, store, table

    summary = table.Summary()
    with closing(store.open_for_reading(path)) as connection:
        rows = query.rows(connection, wanted, event_gap_s=_event_gap_s(root), starts=_starts(root))
        if as_json or as_csv:
            print_objects(map(table.as_json, rows), table.LOG_COLUMNS, as_json, as_csv)
            return
        _print_table(summary.counting(rows))
    typer.echo("")
    for line in summary.lines():
        typer.echo(line)


def _print_table(rows: Iterable[Row]) -> None:
    """In blocks, each aligned by itself, so that the first lines come before the last are read."""
    from edge.log import table

    cells = map(table.cells, rows)
    head = [table.HEADER]
    while block := head + list(itertools.islice(cells, _BLOCK)):
        for line in table.aligned(block):
            typer.echo(line)
        head = []


def _print_shifts(path: Path, as_json: bool) -> None:
    from edge.log import shifts, store, table, times

    with closing(store.open_for_reading(path)) as connection:
        found = shifts.listed(connection)
    if as_json:
        for each in found:
            print_json({"id": each.id, **_facts(each.shift), "created_utc": each.created_utc})
        return
    header = ("by", "station", "since", "until", "who", "reason")
    cells = [
        (times.difference(each.shift.seconds), each.shift.station or "-", each.shift.since_local or "-",
         each.shift.until_local or "-", each.shift.who, each.shift.reason)
        for each in found
    ]  # fmt: skip
    for line in table.aligned([header, *cells]):
        typer.echo(line)


def _facts(of: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(of)


def _digest(path: Path) -> str | None:
    from edge import photo
    from edge.errors import PhotoError

    try:
        return photo.read(path).sha256
    except PhotoError:
        return None


def _print_audit(audit: Audit, findings: Iterator[Finding], as_json: bool) -> None:
    printed: Counter[str] = Counter()
    for finding in findings:
        printed[finding.kind] += 1
        if as_json:
            print_json({"kind": finding.kind, "what": finding.what, "fails": finding.fails})
        elif printed[finding.kind] <= _NAMED:
            typer.echo(one_line(f"{finding.kind}: {finding.what}"))
    if as_json:
        print_json({"passed": audit.passed, "counts": dict(sorted(audit.counts.items())), "failures": audit.failures})
        return
    for kind, count in printed.items():
        if count > _NAMED:
            typer.echo(f"{kind}: {count - _NAMED} more")
    for line in audit.lines():
        typer.echo(line)


def _columns(settings: list[str], **named: str | None) -> dict[str, str]:
    from edge.log import stations

    given = {name: text for name, text in named.items() if text is not None}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in stations.COLUMNS:
            raise ConfigError(f"--set is {setting!r}, expected COLUMN=TEXT with a column of Camtrap DP.")
        if name in stations.REQUIRED:
            raise ConfigError(f"--set is {setting!r}, but {name} has an option of its own; see --help.")
        given[name] = text
    for name, text in given.items():
        stations.COLUMNS[name].check(text, name)
    return given


def _say_deployment(each: Any, as_json: bool) -> None:
    from edge.log import effort

    if as_json:
        print_json(effort.deployment_json(each))
    else:
        ends = each.end.isoformat() if each.end else "now"
        typer.echo(one_line(f"{each.id}: station {each.station}, {each.start.isoformat()} to {ends}"))


_EFFORT_HEADER = ("deployment", "station", "start", "end", "days", "dead", "photos", "last photo")


def _effort_cells(each: Effort) -> tuple[str, ...]:
    deployment = each.deployment
    doubtful = any(not span.sure for span in each.dead)
    return (
        deployment.id,
        deployment.station,
        deployment.start.isoformat(" ", "minutes"),
        deployment.end.isoformat(" ", "minutes") if deployment.end else "goes on",
        f"{each.days:.1f}",
        (f"{each.dead_days:.1f}" + ("?" if doubtful else "")) if each.watched else "-",
        str(each.photos),
        (each.last_photo or "-")[:16].replace("T", " "),
    )
