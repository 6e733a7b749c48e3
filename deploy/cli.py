"""The commands that sign and deliver. They read options and print; the work is done elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.errors import FieldmarkError, one_line

if TYPE_CHECKING:
    from edge.agent.slots import Installed
    from edge.model.bundle import Opened

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


@bundle_app.command("show", epilog="Example: fieldmark bundle show fox-28900000.fmb")
def show_bundle(bundle: File, trust: Trust = None, as_json: Json = False) -> None:
    """Check a whole bundle and print its card: labels, figures, gate, signature.

    Without --trust the signature proves that the bundle is whole, not who made it.
    """
    from edge.model import bundle as bundles
    from edge.model import trust as trusting

    opened = bundles.open_bundle(bundle, trusting.read_root(trust) if trust else None)
    if as_json:
        _print_json(_bundle_facts(bundle, opened, trust))
        return
    for line in _card(bundle, opened, trust):
        typer.echo(one_line(line))


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
    """Show which key signs this workstation's bundles."""
    from deploy import keys

    facts = keys.show(folder)
    if as_json:
        found = {**vars(facts), "folder": str(facts.folder)}
        _print_json(found)
        return
    kind = "development key, made without a passphrase" if facts.development else "release key"
    typer.echo(f"key     {facts.key_id} ({kind})")
    typer.echo(f"public  {facts.public}")
    typer.echo(f"root    version {facts.root_version}, sha256 {facts.root_sha256}")
    typer.echo(f"folder  {one_line(str(facts.folder))}")


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


def _bundle_facts(path: Path, opened: Opened, trust: Path | None) -> dict[str, Any]:
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "digest": opened.digest,
        "model_digest": opened.manifest.model.sha256,
        "signature": {
            "key_id": opened.key_id,
            "development": opened.root.development,
            "root_sha256": opened.root.digest,
            "trusted_by": str(trust) if trust else "bundle",
        },
        "manifest": opened.manifest.content(),
    }


def _card(path: Path, opened: Opened, trust: Path | None) -> list[str]:
    manifest, provenance = opened.manifest, opened.manifest.provenance
    kind = "development key" if opened.root.development else "key"
    by = f"trusted by {trust}" if trust else "trusted by its own root (proves that it is whole, not who made it)"
    lines = [
        f"{manifest.name} {manifest.sequence} (version {manifest.version}), made {manifest.created}",
        f"signature   holds, {kind} {opened.key_id}, {by}",
        f"digest      {opened.digest}",
        f"model       {manifest.model.length_bytes} bytes, sha256 {manifest.model.sha256}",
        f"input       {manifest.input.height} x {manifest.input.width}, {manifest.input.resample}, "
        f"{manifest.input.aspect}, cuts {manifest.input.cut_top} and {manifest.input.cut_bottom} rows",
        f"memory      {manifest.ram_mib} MiB",
        f"backbone    {provenance.backbone}, {provenance.trained_with}",
        f"licences    weights {provenance.weights_licence}, data {provenance.data_licence or 'not said'}",
        f"data        {provenance.dataset_digest}, {provenance.split}",
        f"golden      {len(manifest.golden)} photos",
        "gate        runtime           versions                accuracy  agreement",
    ]
    for entry in manifest.runtimes:
        versions = f"{entry.version_min} to below {entry.version_below}"
        lines.append(f"            {entry.name:17} {versions:23} {entry.accuracy:8.1%} {entry.agreement:10.1%}")
    lines += [f"figure      {name} {value:.6g}" for name, value in sorted(provenance.metrics.items())]
    for label, threshold in zip(manifest.labels, manifest.thresholds, strict=True):
        names = ", ".join(name for name in (label.english, label.scientific_name) if name)
        lines.append(f"label       {label.name} at {threshold:.2f} or more" + (f" ({names})" if names else ""))
    return lines


def _print_json(facts: dict[str, Any]) -> None:
    typer.echo(json.dumps({"schema": 1, **facts}, ensure_ascii=True))
