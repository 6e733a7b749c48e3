"""The commands of the alerts: what waits, send it, try a channel. They read options and print, nothing else."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from edge.errors import ConfigError, one_line
from edge.options import HERE, Db, Json, Root, log_path, print_json, say

alerts_app = typer.Typer(
    name="alerts", help="Messages about detections: what waits, and sending it.", no_args_is_help=True,
    rich_markup_mode=None, epilog="Example: fieldmark alerts send --once",
)  # fmt: skip
_TEXT = '{"schema": 1, "label": "test", "text": "a test message of Fieldmark"}'


@alerts_app.command("list", epilog="Example: fieldmark alerts list --json")
def alerts_list(
    root: Root = HERE,
    db: Db = None,
    as_json: Json = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="The newest N.")] = 20,
) -> None:
    """Show the newest messages, and whether they were sent."""
    from edge.agent import outbox
    from edge.log import store

    with closing(store.open_for_reading(log_path(root, db))) as connection:
        found = outbox.newest(connection, limit)
    for each in found:
        if as_json:
            print_json(each)
            continue
        state = f"sent {each['sent_utc']}" if each["sent_utc"] else f"waits, {each['tries']} tries"
        trouble = f": {each['last_error']}" if each["last_error"] else ""
        typer.echo(one_line(f"{each['created_utc']}  {each['channel']}  {each['key']}  {state}{trouble}"))
    if not found and not as_json:
        typer.echo("no messages yet.")


@alerts_app.command("send", epilog="Example: fieldmark alerts send --once")
def alerts_send(
    once: Annotated[bool, typer.Option("--once", help="Send what is due now, then end.")] = False,
    root: Root = HERE,
    db: Db = None,
) -> None:
    """Send the messages that the agent has stored.

    Each is sent at least once: it is tried again, with growing pauses, until somebody has taken it. On a device the
    service fieldmark-alerts does this.
    """
    from edge.agent import outbox

    done = outbox.run(root, once=once, say=say, log=db)
    typer.echo(f"{done.sent} sent, {done.failed} tries failed, {done.left} wait.")
    if once and done.failed:
        raise typer.Exit(1)


@alerts_app.command("test", epilog="Example: fieldmark alerts test foxes")
def alerts_test(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of an [[alert]] in the settings.")],
    root: Root = HERE,
) -> None:
    """Send one test message by one alert's channel, now."""
    from edge.agent import channels, config

    alerts = {alert.rule.name: alert for alert in config.load(root).upkeep.alerts}
    if name not in alerts:
        raise ConfigError(f"{root / config.FILE} has no alert {name!r}; it has {', '.join(alerts) or 'none'}.")
    channels.send(alerts[name], "test", "fieldmark test" if alerts[name].rule.short else _TEXT)
    typer.echo(f"somebody has taken the test message of {name}.")
