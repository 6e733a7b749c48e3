"""The commands of the device; those of its log are in :mod:`edge.cli_log`. They read options and print, nothing else.

Heavy imports are inside the commands, so that ``--help`` is quick and the agent holds in memory only what it needs.
``fieldmark.main`` turns errors into one line and an exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from edge import cli_alerts, cli_log
from edge.errors import DeviceError, counted, one_line
from edge.options import HERE, Csv, Db, Json, Root, installed_version, log_path, print_json, print_objects, say, usage

app = typer.Typer(name="edge", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(cli_log.log_app)
app.add_typer(cli_log.station_app)
app.add_typer(cli_alerts.alerts_app)

Station = Annotated[str | None, typer.Option("--station", metavar="NAME", help="The place where the camera stands.")]
UtcOffset = Annotated[
    str | None,
    typer.Option("--utc-offset", metavar="+HH:MM", help="Of the camera's clock, where EXIF does not say it."),
]


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
        print_json({**vars(done), "root": str(root), "path": str(done.path)})
    elif done.changed:
        older = " in place of a newer one" if done.older else ""
        typer.echo(f"{done.name} {done.sequence} is installed{older}, golden photos right on {done.runtime}.")
    else:
        typer.echo(f"{done.name} {done.sequence} is current already; nothing changed.")


@app.command("status", epilog="Example: fieldmark status --root /media/card --json")
def status(root: Root = HERE, db: Db = None, as_json: Json = False) -> None:
    """What is installed and running here.

    What cannot be read is said, the rest shown all the same, and the exit code is 1.
    """
    from edge.agent import state

    found = state.status(root, log_path(root, db))
    if as_json:
        print_json(found)
    else:
        for line in _status_lines(found):
            typer.echo(line)
    if troubles := found["troubles"]:
        raise DeviceError(f"{root}: in trouble: {', '.join(troubles)}. Run: fieldmark check", code="trouble")


@app.command("check", epilog="Example: fieldmark check --root /media/card")
def check(root: Root = HERE, db: Db = None, as_json: Json = False) -> None:
    """Whether this device is ready to go out.

    Tries the settings, the bundle's signature and digests, its golden photos, the log and the disk.
    """
    from edge.agent import state

    found = state.preflight(root, log_path(root, db))
    for each in found:
        if as_json:
            print_json({"check": each.name, "passed": each.passed, "text": each.text})
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
    reclassify: Annotated[
        bool,
        typer.Option(
            "--reclassify",
            help="Classify also the photos in the log that this model has not seen, newest first, after new ones.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Classify new photos in a folder and log them.

    Photos are only read: never moved, altered or deleted. Each one ends as one row, also if it cannot be read. A file
    that somebody is still writing is left until it is whole. SIGTERM and Ctrl-C finish the photo in hand.
    """
    from edge.agent import config, slots
    from edge.agent import plan as plans
    from edge.model import runtime

    if _is_the_command():
        plans.hold_sigterm()
    root = root.absolute()  # the agent stands in another folder
    settings = config.load(root)
    agent = settings.agent if settle is None else replace(settings.agent, settle_s=settle)
    sources = plans.choose_sources(settings, folder, station=_station(station), utc_offset=_offset(utc_offset))
    config.check_sources(sources, root, "watch")
    slot = slots.current(root)
    plan = plans.Plan(
        device=slots.device_id(root),
        slot=slot.path,
        digest=slot.digest,
        development=slot.development,
        sources=sources,
        log=log_path(root, db).absolute(),
        agent=agent,
        once=once,
        patience_s=patience,
        species=settings.species,
        upkeep=settings.upkeep,
        rules=settings.upkeep.rules,
        power=settings.power,
        reclassify=reclassify,
        runtime=runtime.usable(slot.manifest),
        version=installed_version() or "unknown",
    )
    if _is_the_command():
        plans.become(plan, as_json=as_json)
    from edge.agent import process

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
    occurring: Annotated[
        list[str] | None,
        typer.Option("--occurring", metavar="LABEL", help="Only these animals occur at the station; repeatable."),
    ] = None,
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
    classifier = Classifier(opened.model, opened.manifest, species=occurring or None)
    troubles: dict[Path, str] = {}
    count = failed = 0

    def objects() -> Iterator[dict[str, Any]]:
        nonlocal count, failed
        for each in unlogged.classify(unlogged.files(photos, troubles), classifier, utc_offset=offset):
            count, failed = count + 1, failed + (each.failure is not None)
            yield table.answer_json(**vars(each))

    if as_json or as_csv:
        print_objects(objects(), table.CLASSIFY_COLUMNS, as_json, as_csv)
    else:
        for values in objects():
            typer.echo(table.answer_line(values))
    for path, reason in troubles.items():
        say(f"{path} cannot be read: {reason}.")
    say(f"{counted(count, 'photo')}, {failed} failed.")
    if strict and (failed or troubles):
        raise typer.Exit(1)


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
    path = log_path(root, database or db)
    if save_html:
        from edge.review.page import save_page

        count = save_page(path, save_html)
        typer.echo(f"{save_html}: {count} photos.")
        return
    from edge.review.server import serve

    serve(path, port=port, who=who or store.user_name(), ready=say)


def _offset(text: str | None) -> str | None:
    from edge.agent import config

    with usage():
        return None if text is None else config.check_utc_offset(text, "--utc-offset")


def _station(text: str | None) -> str | None:
    from edge.agent import config

    with usage():
        return None if text is None else config.check_station(text, "--station")


def _status_lines(found: dict[str, Any]) -> list[str]:
    from edge.agent import state

    bundle, log, troubles = found["bundle"], found["log"], found["troubles"]
    lines = [f"root      {found['root']}", f"device    {troubles.get('device') or found['device'] or 'not one yet'}"]
    if bundle:
        key = ", signed with a DEVELOPMENT key" if bundle["development"] else ""
        lines.append(f"bundle    {bundle['name']} {bundle['sequence']} (version {bundle['version']}){key}")
        lines.append(f"          installed {bundle['installed']}, digest {bundle['digest'][:16]}")
        lines.append(f"runtime   {bundle['runtime'] or 'none that passed the gate is installed'}")
        lines.append(f"labels    {', '.join(bundle['labels'])}")
    else:
        lines.append(f"bundle    {troubles.get('bundle') or 'none. Run: fieldmark flash FILE.fmb ROOT'}")
    if log:
        lines.append(f"log       {log['path']}")
        lines.append(f"          {log['files']} files, {log['photos']} different photos, {log['failures']} failed,")
        lines.append(f"          {log['reviewed']} reviewed; the last row is of {log['last_seen_utc'] or 'never'}")
    else:
        lines.append(f"log       {troubles.get('log') or 'none yet'}")
    if trouble := troubles.get("settings"):
        lines.append(f"settings  {trouble}")
    lines += [*state.agent_lines(found["agent"]), *state.machine_lines(found["machine"])]
    return [one_line(line) for line in [*lines, f"disk      {found['free_bytes'] // 10**6} MB free"]]


def _is_the_command() -> bool:
    """Whether this process is the ``fieldmark`` command, and not a program or test that calls it."""
    return Path(sys.argv[0]).stem == "fieldmark"
