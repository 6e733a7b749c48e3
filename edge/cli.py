"""The commands of the device and its log. They read options and print; the work is done elsewhere.

Heavy imports are inside the commands, so that ``--help`` is quick and the agent holds in memory only what it needs.
``fieldmark.main`` turns errors into one line and an exit code.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.errors import ConfigError, DeviceError, LogError, one_line

if TYPE_CHECKING:
    from edge.log.query import Filter, Row

app = typer.Typer(name="edge", no_args_is_help=True, rich_markup_mode=None)
log_app = typer.Typer(
    name="log", help="Read and correct the detection log.", invoke_without_command=True, rich_markup_mode=None,
    epilog="Example: fieldmark log --species deer --since 2024-05-01 --csv > deer.csv",
)  # fmt: skip
app.add_typer(log_app)

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
Station = Annotated[str | None, typer.Option("--station", metavar="NAME", help="The place where the camera stands.")]
UtcOffset = Annotated[
    str | None,
    typer.Option("--utc-offset", metavar="+HH:MM", help="Of the camera's clock, where EXIF does not say it."),
]
HERE = Path("/")
_BLOCK = 500
_MOST = 2**63 - 1  # SQLite's integers end here


@app.command("install", epilog="Example: fieldmark install fox-28900000.fmb --root /media/card")
def install(
    bundle: Annotated[Path, typer.Argument(metavar="FILE.fmb", help="The bundle.")],
    root: Root = HERE,
    trust: Annotated[
        Path | None, typer.Option("--trust", metavar="ROOT.json", help="Whom a new device shall trust.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Install a bundle on this device.

    Signature, digests and golden photos are checked before anything is switched; a refused bundle changes nothing.
    """
    from edge.agent import slots

    done = slots.install(root, bundle, trust_root=trust)
    if as_json:
        _print_json({**vars(done), "root": str(root), "path": str(done.path)})
    elif done.changed:
        older = " in place of a newer one" if done.older else ""
        typer.echo(f"{done.name} {done.sequence} is installed{older}, golden photos right on {done.runtime}.")
    else:
        typer.echo(f"{done.name} {done.sequence} is current already; nothing changed.")


@app.command("status", epilog="Example: fieldmark status --root /media/card --json")
def status(root: Root = HERE, db: Db = None, as_json: Json = False) -> None:
    """What is installed and running here."""
    from edge.agent import state

    found = state.status(root, _log_path(root, db))
    if as_json:
        _print_json(found)
        return
    for line in _status_lines(found):
        typer.echo(line)


@app.command("check", epilog="Example: fieldmark check --root /media/card")
def check(root: Root = HERE, db: Db = None, as_json: Json = False) -> None:
    """Whether this device is ready to go out.

    Tries the settings, the bundle's signature and digests, its golden photos, the log and the disk.
    """
    from edge.agent import state

    found = state.preflight(root, _log_path(root, db))
    for each in found:
        if as_json:
            _print_json({"check": each.name, "passed": each.passed, "text": each.text})
        else:
            typer.echo(one_line(f"{'ok    ' if each.passed else 'FAILED'}  {each.name:9} {each.text}"))
    failed = [each.name for each in found if not each.passed]
    if failed:
        raise DeviceError(f"{root} is not ready: {', '.join(failed)} failed.", code="not ready")


@app.command("watch", epilog="Example: fieldmark watch /media/card/DCIM --once --station 'beech 4' --utc-offset +01:00")
def watch(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Where photos appear; else the sources in config.toml.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Take what is there, then end.")] = False,
    root: Root = HERE,
    db: Db = None,
    station: Station = None,
    utc_offset: UtcOffset = None,
    settle: Annotated[
        float | None,
        typer.Option(
            "--settle",
            metavar="SECONDS",
            min=0,
            max=3600,
            help="A file that rests so long is whole; one just closed is tried at once.",
        ),
    ] = None,
    patience: Annotated[
        float,
        typer.Option("--patience", metavar="SECONDS", min=0, help="With --once: wait so long for unfinished files."),
    ] = 10.0,
    as_json: Json = False,
) -> None:
    """Classify new photos in a folder and log them.

    Photos are only read: never moved, altered or deleted. Each one ends as one row, also if it cannot be read. A file
    that somebody is still writing is left until it is whole. SIGTERM and Ctrl-C finish the photo in hand.
    """
    from edge.agent import config, process, run, slots

    settings = config.load(root)
    agent = settings.agent if settle is None else replace(settings.agent, settle_s=settle)
    sources = run.choose_sources(settings, folder, station=station, utc_offset=_offset(utc_offset))
    slot = slots.current(root)
    plan = run.Plan(
        device=slots.device_id(root),
        slot=slot.path.absolute(),
        digest=slot.digest,
        development=slot.development,
        sources=sources,
        log=_log_path(root, db).absolute(),
        agent=agent,
        once=once,
        patience_s=patience,
    )
    if _is_the_command():
        process.become(plan, as_json=as_json)
    process.carry_out(plan, as_json=as_json)


@app.command("classify", epilog="Example: fieldmark classify photos/ --bundle fox-28900000.fmb --csv > photos.csv")
def classify(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO_OR_FOLDER...", exists=True, help="Photos, or folders of them.")
    ],
    bundle: Annotated[Path, typer.Option("--bundle", metavar="FILE.fmb", help="The bundle that answers.")],
    as_json: Json = False,
    as_csv: Csv = False,
    utc_offset: UtcOffset = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any photo failed.")] = False,
) -> None:
    """Classify photos with a bundle, without a log.

    A photo that cannot be read is a line with its reason; the others are classified all the same.
    """
    from edge.agent import unlogged
    from edge.log import table
    from edge.model.bundle import open_bundle
    from edge.model.classify import Classifier

    offset = _offset(utc_offset)
    opened = open_bundle(bundle)
    classifier = Classifier(opened.model, opened.manifest)
    troubles: dict[Path, str] = {}
    count = failed = 0

    def objects() -> Iterator[dict[str, Any]]:
        nonlocal count, failed
        for each in unlogged.classify(unlogged.files(photos, troubles), classifier, utc_offset=offset):
            count, failed = count + 1, failed + (each.failure is not None)
            yield table.answer_json(**vars(each))

    if as_json or as_csv:
        _print_objects(objects(), table.CLASSIFY_COLUMNS, as_json, as_csv)
    else:
        for values in objects():
            typer.echo(table.answer_line(values))
    for path, reason in troubles.items():
        _say(f"{path} cannot be read: {reason}.")
    _say(f"{table.counted(count, 'photo')}, {failed} failed.")
    if strict and (failed or troubles):
        raise typer.Exit(1)


@log_app.callback()
def log(
    context: typer.Context,
    root: Root = HERE,
    db: Db = None,
    species: Annotated[str | None, typer.Option("--species", metavar="LABEL", help="Only this label.")] = None,
    station: Annotated[str | None, typer.Option("--station", metavar="NAME", help="Only this station.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From this day or time on, such as 2024-05-01.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="To this day, which is included, or before this time.")
    ] = None,
    below: Annotated[
        float | None,
        typer.Option("--below", metavar="CONF", min=0, max=1, help="Only what the model is less sure of, 0 to 1."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, max=_MOST, help="Only the newest N rows.")
    ] = None,
    all_models: Annotated[bool, typer.Option("--all-models", help="One row per model, not only the newest.")] = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Read and correct the detection log."""
    if context.invoked_subcommand is not None:
        context.obj = (root, db)
        return
    from edge.log.query import Filter

    with _usage():
        wanted = Filter(species, station, since, until, below, limit, all_models)
    _print_log(root, _log_path(root, db), wanted, as_json, as_csv)


@log_app.command("show", epilog="Example: fieldmark log show 17 --json")
def log_show(
    context: typer.Context,
    file_id: Annotated[int, typer.Argument(metavar="ID", max=_MOST, help="The row, as `fieldmark log` numbers it.")],
    root: Annotated[Path | None, typer.Option("--root", metavar="DIR", help="The device's root.")] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show everything that the log knows of one file."""
    from edge.log import details, store, table

    where, path = _log_of(context, root, db)
    with closing(store.open_for_reading(path)) as connection:
        found = details.of_file(connection, file_id, _event_gap_s(where))
    if as_json:
        typer.echo(table.json_line(found))
        return
    for line in details.lines(found):
        typer.echo(line)


@log_app.command("correct", epilog="Example: fieldmark log correct 17 'roe deer' --count 2 --who Ada")
def log_correct(
    context: typer.Context,
    file_id: Annotated[int, typer.Argument(metavar="ID", max=_MOST, help="The row, as `fieldmark log` numbers it.")],
    label: Annotated[
        str, typer.Argument(metavar="LABEL", help="What is in the photo; also empty, person, unknown, setup.")
    ],
    who: Annotated[str | None, typer.Option("--who", metavar="NAME", help="Who says so; else the user's name.")] = None,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=9999, help="How many.")] = 1,
    comment: Annotated[str | None, typer.Option("--comment", metavar="TEXT", help="Anything else.")] = None,
    root: Annotated[Path | None, typer.Option("--root", metavar="DIR", help="The device's root.")] = None,
    db: Db = None,
) -> None:
    """Write what a person sees in a photo.

    The model's answer stays in the log beside it, and so do earlier corrections.
    """
    from edge.log import query, store

    _, path = _log_of(context, root, db)
    label = store.clean_words(label, "the label")
    observation = store.Observation(label, count=count, comment=comment)
    with closing(store.open_for_reading(path)) as connection:
        row, known = query.one(connection, file_id), query.known_labels(connection)
    if row.photo_id is None or row.sha256 is None:
        raise LogError(f"row {file_id} is no photo that can be seen: {row.failure}", code="no photo")
    with store.open_for_writing(path) as opened:
        opened.add_review(row.sha256, [observation], who or store.user_name())
    typer.echo(one_line(f"{row.path}: {row.model_label or 'no detection'} -> {label}"))
    if label not in known:
        _say(f"{label!r} is a new label in this log; it knows {', '.join(known)}.")


@app.command("review", epilog="Example: fieldmark review log.db --who Ada")
def review(
    database: Annotated[Path | None, typer.Argument(metavar="[DB]", help="The log; else the device's own.")] = None,
    port: Annotated[int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="0 takes any free one.")] = 8765,
    root: Root = HERE,
    db: Db = None,
    who: Annotated[str | None, typer.Option("--who", metavar="NAME", help="Who reviews; else the user's name.")] = None,
    save_html: Annotated[
        Path | None, typer.Option("--save-html", metavar="FILE", help="Write the page to a file and end.")
    ] = None,
) -> None:
    """Review detections in the browser.

    A page for this machine alone, at 127.0.0.1: the photos of which the model is least certain come first.
    Keys: a accepts, c changes the label, j and k go on and back.
    """
    from edge.log import store

    if database and db:
        raise typer.BadParameter("the log is named twice, as DB and by --db. Leave one out")
    path = _log_path(root, database or db)
    if save_html:
        from edge.review.page import save_page

        count = save_page(path, save_html)
        typer.echo(f"{save_html}: {count} photos.")
        return
    from edge.review.server import serve

    serve(path, port=port, who=who or store.user_name(), ready=_say)


@contextmanager
def _usage() -> Iterator[None]:
    """An option's value that makes no sense is wrong usage."""
    try:
        yield
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def _offset(text: str | None) -> str | None:
    from edge.agent import config

    with _usage():
        return text and config.check_utc_offset(text, "--utc-offset")


def _log_path(root: Path, db: Path | None) -> Path:
    from edge.log import store

    return db or store.path_below(root)


def _log_of(context: typer.Context, root: Path | None, db: Path | None) -> tuple[Path, Path]:
    """Root and log of a subcommand, whose options may stand before or after its name."""
    outer_root, outer_db = context.obj
    root = root or outer_root
    return root, _log_path(root, db or outer_db)


def _event_gap_s(root: Path) -> float:
    from edge.agent import config

    return config.load(root).agent.event_gap_s


def _print_log(root: Path, path: Path, wanted: Filter, as_json: bool, as_csv: bool) -> None:
    from edge.log import query, store, table

    summary = table.Summary()
    with closing(store.open_for_reading(path)) as connection:
        rows = query.rows(connection, wanted, event_gap_s=_event_gap_s(root))
        if as_json or as_csv:
            _print_objects(map(table.as_json, rows), table.LOG_COLUMNS, as_json, as_csv)
            return
        _print_table(summary.counting(rows))
    typer.echo("")
    for line in summary.lines():
        typer.echo(line)


def _print_objects(objects: Iterable[dict[str, Any]], columns: tuple[str, ...], as_json: bool, as_csv: bool) -> None:
    from edge.log import table

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other. Leave one out")
    lines = map(table.json_line, objects) if as_json else table.csv_lines(columns, objects)
    for line in lines:
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


def _status_lines(found: dict[str, Any]) -> list[str]:
    bundle, log = found["bundle"], found["log"]
    lines = [f"root      {found['root']}", f"device    {found['device'] or 'not one yet'}"]
    if bundle:
        key = ", signed with a DEVELOPMENT key" if bundle["development"] else ""
        lines.append(f"bundle    {bundle['name']} {bundle['sequence']} (version {bundle['version']}){key}")
        lines.append(f"          installed {bundle['installed']}, digest {bundle['digest'][:16]}")
        lines.append(f"runtime   {bundle['runtime'] or 'none that passed the gate is installed'}")
        lines.append(f"labels    {', '.join(bundle['labels'])}")
    else:
        lines.append("bundle    none. Run: fieldmark flash FILE.fmb ROOT")
    if log:
        lines.append(f"log       {log['path']}")
        lines.append(f"          {log['files']} files, {log['photos']} different photos, {log['failures']} failed,")
        lines.append(f"          {log['reviewed']} reviewed; the last row is of {log['last_seen_utc'] or 'never'}")
    else:
        lines.append("log       none yet")
    return [one_line(line) for line in [*lines, f"disk      {found['free_bytes'] // 2**20} MiB free"]]


def _is_the_command() -> bool:
    """Whether this process is the ``fieldmark`` command, and not a program or test that calls it."""
    return Path(sys.argv[0]).stem == "fieldmark"


def _print_json(values: dict[str, Any]) -> None:
    typer.echo(json.dumps({"schema": 1, **values}, ensure_ascii=True))


def _say(text: str) -> None:
    typer.echo(one_line(text), err=True)
