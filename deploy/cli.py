"""The commands that sign and deliver. They read options and print; the work is done elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.errors import FieldmarkError, one_line

if TYPE_CHECKING:
    from deploy.keys import KeyFacts
    from deploy.sign import Signed
    from edge.agent.slots import Installed

app = typer.Typer(name="deploy", no_args_is_help=True, rich_markup_mode=None)
keys_app = typer.Typer(
    name="keys", help="Make and show signing keys.", no_args_is_help=True, rich_markup_mode=None,
    epilog="Example: fieldmark keys show",
)  # fmt: skip
bundle_app = typer.Typer(
    name="bundle", help="Show what a bundle holds and who signed it.", no_args_is_help=True, rich_markup_mode=None,
    epilog="Example: fieldmark bundle show fox-28900000.fmb",
)  # fmt: skip
app.add_typer(keys_app)
app.add_typer(bundle_app)

File = Annotated[Path, typer.Argument(metavar="FILE.fmb", help="The bundle.")]
Trust = Annotated[
    Path | None,
    typer.Option("--trust", metavar="ROOT.json", help="Trust this root file instead of the one in the bundle."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]


@app.command("flash", epilog="Example: fieldmark flash fox-28900000.fmb /media/card")
def flash(
    bundle: File,
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET...", help="A device root: a mounted card, or a folder.")
    ],
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Install a bundle into device roots.

    A root that holds nothing yet learns from this bundle whom to trust; from then on it refuses other keys.
    """
    from deploy.flash import flash as flash_one

    failed = []
    for target in targets:
        try:
            done = flash_one(bundle, target, trust_root=trust)
        except FieldmarkError as error:
            failed.append(error)
            if as_json:
                _print_json({"target": target, "installed": False, "code": error.code, "error": str(error)})
            elif len(targets) > 1:
                typer.echo(f"{one_line(target)}: {one_line(str(error))}", err=True)
            continue
        _print_installed(target, done, as_json)
    if len(targets) == 1 and failed:
        raise failed[0]
    if failed:
        raise FieldmarkError(f"{len(failed)} of {len(targets)} targets did not take the bundle.")


@app.command("sign", epilog="Example: fieldmark sign fox-28900000.fmb --keys ~/keys --passphrase-file pass.txt")
def sign(
    bundle: File,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys", metavar="DIR", help="The key folder; else FIELDMARK_KEYS, else ~/.config/fieldmark/keys."
        ),
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file",
            metavar="FILE",
            help="Its first line is the passphrase; else FIELDMARK_PASSPHRASE_FILE, else the terminal is asked.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.fmb", help="Where it goes; over the old one if left out.")
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", metavar="ROOT.json", help="The old signature must hold under this root file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign a bundle again with this workstation's key.

    What it holds stays the same byte for byte, and so does its digest. The whole bundle and its old signature are
    checked first. Without --trust that proves that it is whole, not who made it.
    """
    from deploy.sign import sign as sign_one
    from edge.model import passphrase

    done = sign_one(bundle, lambda: passphrase.unlock(passphrase_file, key_dir=keys), out=out, trust_root=trust)
    _print_signed(done, as_json)


@bundle_app.command("show", epilog="Example: fieldmark bundle show fox-28900000.fmb")
def show_bundle(bundle: File, trust: Trust = None, as_json: Json = False) -> None:
    """Check a whole bundle and print its card: labels, figures, gate, signature.

    Without --trust the signature proves that the bundle is whole, not who made it.
    """
    from deploy import card
    from edge.model import bundle as bundles
    from edge.model import trust as trusting

    try:
        opened = bundles.open_bundle(bundle, trusting.read_root(trust) if trust else None)
    except FieldmarkError as error:
        if as_json:
            _print_json({"file": str(bundle), "refused": True, "code": error.code, "error": str(error)})
        raise type(error)(f"{error} ({error.code})", code=error.code) from error
    if as_json:
        _print_json(card.facts(bundle, opened, trust))
        return
    for line in card.lines(opened, trust):
        typer.echo(one_line(line))


@keys_app.command("create", epilog="Example: fieldmark keys create --out ~/keys --passphrase-file pass.txt")
def create_keys(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="A new folder; else FIELDMARK_KEYS, else ~/.config/fieldmark/keys."),
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file", metavar="FILE", help="Its first line is the passphrase; else the terminal is asked."
        ),
    ] = None,
    without: Annotated[
        bool, typer.Option("--no-passphrase", help="Make a development key, which anyone who reads the file can use.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the key that signs this workstation's bundles, and the root file by which devices know it.

    The folder gets release.key (the secret, under the passphrase), release.pub, root.json and its signature. Nothing
    in it is ever overwritten. Keep a copy of the folder: devices that trust this root take bundles from no other.
    """
    from deploy import keys
    from edge.model import passphrase

    if without and passphrase_file is not None:
        raise typer.BadParameter("--no-passphrase and --passphrase-file exclude each other.")
    made = keys.create(out, None if without else lambda: passphrase.choose(passphrase_file))
    _print_keys(made, as_json)


@keys_app.command("show", epilog="Example: fieldmark keys show --json")
def show_keys(
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir", metavar="DIR", help="The key folder; else FIELDMARK_KEYS, else ~/.config/fieldmark/keys."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which key signs this workstation's bundles. Needs no passphrase."""
    from deploy import keys

    _print_keys(keys.show(folder), as_json)


def _print_keys(facts: KeyFacts, as_json: bool) -> None:
    if as_json:
        _print_json({**vars(facts), "folder": str(facts.folder)})
        return
    kind = "development key" if facts.development else "release key"
    typer.echo(f"key     {facts.key_id} ({kind}, {'with' if facts.passphrase else 'without'} a passphrase)")
    typer.echo(f"public  {facts.public}")
    typer.echo(f"root    version {facts.root_version}, sha256 {facts.root_sha256}")
    typer.echo(f"folder  {one_line(str(facts.folder))}")


def _print_signed(done: Signed, as_json: bool) -> None:
    if as_json:
        _print_json({**vars(done), "path": str(done.path)})
        return
    now, before = (
        f"{'development' if development else 'release'} key {key_id}"
        for development, key_id in ((done.development, done.key_id), (done.old_development, done.old_key_id))
    )
    typer.echo(f"{one_line(str(done.path))}: {done.name} {done.sequence} is signed with {now}, before with {before}.")
    typer.echo(f"  digest {done.digest}, as before.")


def _print_installed(target: str, done: Installed, as_json: bool) -> None:
    if as_json:
        facts = {**vars(done), "path": str(done.path)}
        _print_json({"target": target, "installed": True, **facts})
        return
    if not done.changed:
        typer.echo(f"{one_line(target)}: {done.name} {done.sequence} is current already; nothing changed.")
        return
    older = " in place of a newer one" if done.older else ""
    what = f"{done.name} {done.sequence} is installed{older}, golden photos right on {done.runtime}."
    typer.echo(f"{one_line(target)}: {what}")
    kind = "development key" if done.development else "key"
    if done.enrolled:
        typer.echo(f"  device {done.device} is new and trusts {kind} {done.key_id} from now on.")
    else:
        typer.echo(f"  device {done.device}, signed with {kind} {done.key_id}.")


def _print_json(facts: dict[str, Any]) -> None:
    typer.echo(json.dumps({"schema": 1, **facts}, ensure_ascii=True))
