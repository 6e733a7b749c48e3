"""The one door: the ``fieldmark`` command.

It lists every command without importing any of them, imports a room's ``cli`` only when one of its commands is used,
and is the one boundary where exceptions become a line on stderr and an exit code: 0 done, 1 refused or failed, 2 usage,
130 interrupted. It never does a command's work.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import typer
import typer.core
import typer.main

from edge.errors import FieldmarkError, one_line
from edge.options import installed_version
from edge.streams import escape_what_cannot_be_written, open_what_is_closed

DEBUG_VARIABLE = "FIELDMARK_DEBUG"
FAILED, USAGE, INTERRUPTED = 1, 2, 130
OWN = ("edge", "trainer", "deploy")


@dataclass(frozen=True)
class Room:
    """One group of commands.

    Attributes:
        title: its heading in ``fieldmark --help``.
        module: its ``app`` is the Typer application that holds the commands.
        extra: the extra of the distribution that brings what the room imports; None for the base installation.
    """

    title: str
    module: str
    extra: str | None


TRAINER = Room("On the workstation: train and export", "trainer.cli", "trainer")
DEPLOY = Room("On the workstation: sign and deliver", "deploy.cli", None)
EDGE = Room("On the device, and with its log", "edge.cli", None)

COMMANDS: dict[str, tuple[Room, str]] = {
    "demo": (TRAINER, "The whole story on this machine, in a few minutes."),
    "dataset": (TRAINER, "Look for trouble in a data set before training on it."),
    "train": (TRAINER, "Train a model on labelled photos."),
    "evaluate": (TRAINER, "Measure a run or a bundle on labelled photos."),
    "export": (TRAINER, "Quantize a run, check it on each runtime, write the signed bundle."),
    "identify": (TRAINER, "What a pretrained network sees in a photo."),
    "features": (TRAINER, "A pretrained network as a stand-alone feature extractor."),
    "backbones": (TRAINER, "The pretrained networks there are."),
    "keys": (DEPLOY, "Make and show signing keys."),
    "sign": (DEPLOY, "Sign a bundle again with this workstation's key."),
    "bundle": (DEPLOY, "Show what a bundle holds and who signed it."),
    "flash": (DEPLOY, "Install a bundle into a device root."),
    "install": (EDGE, "Install a bundle on this device."),
    "status": (EDGE, "What is installed and running here."),
    "check": (EDGE, "Whether this device is ready to go out."),
    "watch": (EDGE, "Classify new photos in a folder and log them."),
    "classify": (EDGE, "Classify photos with a bundle, without a log."),
    "log": (EDGE, "Read and correct the detection log."),
    "station": (EDGE, "Where the cameras stand, and since when."),
    "alerts": (EDGE, "Messages about detections: what waits, and sending it."),
    "review": (EDGE, "Review detections in the browser."),
}
"""Every command, in the order of the help. A test holds it equal to what the three applications register."""


class Door(typer.core.TyperGroup):
    """The top-level group. It knows names and one line each, and loads the rest of a command when it is used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, line) in COMMANDS.items():
            self.add_command(typer.core.TyperCommand(name, help=line))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Put the real command in the place of the listed one."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and load(str(name)), rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands under their rooms' titles."""
        width = max(map(len, COMMANDS))
        for room in (TRAINER, DEPLOY, EDGE):
            with formatter.section(room.title):
                formatter.write_dl(
                    [(name.ljust(width), line) for name, (its_room, line) in COMMANDS.items() if its_room is room]
                )


def load(name: str) -> Any:
    """Import the room of a command and return its Click command.

    Raises:
        ModuleNotFoundError: what the room needs is not installed; :func:`report` says what to do.
        FieldmarkError: the room has no such command.
    """
    room, _ = COMMANDS[name]
    command = typer.main.get_group(importlib.import_module(room.module).app).commands.get(name)
    if command is None:
        raise FieldmarkError(f"{room.module} has no command {name!r}: this is a mixture. Install Fieldmark again.")
    return command


def missing(error: ModuleNotFoundError, room: Room) -> FieldmarkError | None:
    """The error that says what to install for a module that is not there; None for a module of our own."""
    if str(error.name).partition(".")[0] in OWN:
        return None
    package = f"fieldmark[{room.extra}]" if room.extra else "fieldmark"
    what = f"the extra {room.extra!r}" if room.extra else "the whole of its installation"
    return FieldmarkError(
        f"this command needs {what}: Python finds no module {error.name!r}. "
        f"Install it with: {sys.executable} -m pip install '{package}'",
        code="missing extra",
    )


app = typer.Typer(
    name="fieldmark",
    cls=Door,
    help="From labelled camera-trap photos to a signed model on a Raspberry Pi, and back.",
    epilog="Example: fieldmark train photos/ --out run/. Each command shows its own with --help.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def door(ctx: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    """Handle what is said before any command."""
    if version:
        typer.echo(f"fieldmark {installed_version() or '(run from its source, not installed)'}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(USAGE)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit. The one place where an exception ends as a line and a code."""
    open_what_is_closed()
    escape_what_cannot_be_written()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        result = typer.main.get_command(app).main(args=arguments, prog_name="fieldmark", standalone_mode=False)
        sys.stdout.flush()  # a reader that has gone shows here, not at the interpreter's end
        code = result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        _leave_pipe()
        code = FAILED
    except Exception as error:
        code = report(error, arguments)
    sys.exit(code)


def report(error: Exception, arguments: list[str]) -> int:
    """Print an exception as one line on stderr and return the exit code.

    With ``FIELDMARK_DEBUG=1`` the traceback comes first.
    """
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    if isinstance(error, typer.TyperException):  # wrong usage, found by Typer
        return _report_usage(error)
    if isinstance(error, typer.Abort):
        _say("stopped before it was done.")
        return FAILED
    if isinstance(error, ModuleNotFoundError) and arguments and arguments[0] in COMMANDS:
        error = missing(error, COMMANDS[arguments[0]][0]) or error
    if isinstance(error, FieldmarkError):
        _say(str(error))
    else:
        kind = type(error).__name__
        _say(f"unexpected {kind}: {error}. Run it again with {DEBUG_VARIABLE}=1 to see where.")
    return FAILED


def _report_usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message, err=True)  # the message is the help
    else:
        hint = f" See: {context.command_path} --help" if context else ""
        _say(f"{message.rstrip('.')}.{hint}")
    return error.exit_code


def _say(message: str) -> None:
    typer.echo(f"fieldmark: {one_line(message)}", err=True)


def _leave_pipe() -> None:
    """Give the interpreter another stdout to flush at its end, or it complains of the broken pipe after all."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
