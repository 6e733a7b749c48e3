"""What the benchmarks work on: photos, a bundle made for the purpose, a device root that holds it.

Owns where photos are looked for and how a child process is started. A bundle made here is for measuring time and
memory alone: it learns from few photos, and its gate lets everything pass. Measures nothing.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import report
from edge.agent import config_upkeep, slots
from edge.agent.config import Agent, Power, Source
from edge.agent.plan import Plan
from edge.model import bundle as bundles
from edge.model import key_folder

ROOT = Path(__file__).resolve().parent.parent
DATA_VARIABLE = "FIELDMARK_TEST_DATA"
CACHE_VARIABLE, KEYS_VARIABLE = "FIELDMARK_CACHE", "FIELDMARK_KEYS"
PHOTOS_PER_LABEL = 20


def add_data_option(options: argparse.ArgumentParser) -> None:
    """``--data``: the folder of real photos."""
    options.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get(DATA_VARIABLE) or ROOT.parent / "shared" / "data"),
        help=f"folder of the real photos; default: ${DATA_VARIABLE}, else shared/data beside the project",
    )


def add_bundle_option(options: argparse.ArgumentParser) -> None:
    """``--bundle``: one that is there already."""
    options.add_argument("--bundle", type=Path, help="measure this bundle; one is trained for the purpose if left out")


def trailcam(data: Path) -> Path:
    """The labels of the camera-trap photos; ends the benchmark where they are missing."""
    labels = data / "trailcam" / "labels.csv"
    if not labels.is_file():
        sys.exit(f"there is no {labels}. Name the folder of real photos with --data or {DATA_VARIABLE}.")
    return labels


def trailcam_photos(data: Path, count: int) -> list[Path]:
    """So many photos, evenly from the whole list, so that every label and size is among them."""
    labels = trailcam(data)
    with labels.open(encoding="utf-8", newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    return [labels.parent / names[i * len(names) // count] for i in range(min(count, len(names)))]


def few(labels: Path, per_label: int, out: Path) -> Path:
    """A CSV of the first photos of each label, with absolute paths and the hand-marked groups."""
    counts: dict[str, int] = {}
    with labels.open(encoding="utf-8", newline="") as source, out.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(source)
        writer = csv.DictWriter(file, list(rows.fieldnames or []))
        writer.writeheader()
        for row in rows:
            counts[row["label"]] = counts.get(row["label"], 0) + 1
            if counts[row["label"]] <= per_label:
                writer.writerow({**row, "file": str((labels.parent / row["file"]).resolve())})
    return out


def environment(scratch: Path) -> dict[str, str]:
    """For child processes: this project, nothing cached from before, keys of their own, lines that are not broken."""
    own = {CACHE_VARIABLE: str(scratch / "cache"), KEYS_VARIABLE: str(scratch / "keys")}
    return {**os.environ, **own, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "TF_CPP_MIN_LOG_LEVEL": "3"}


def python(*arguments: str | Path) -> list[str]:
    """A command that runs a module as the project starts its own children."""
    return [sys.executable, "-P", "-m", *map(str, arguments)]


def bundle(options: argparse.Namespace, scratch: Path, side: int) -> Path:
    """``--bundle``, or one trained here for an input of ``side`` pixels, which takes about a minute."""
    if options.bundle:
        return Path(options.bundle)
    report.say(f"training a probe at {side} x {side} and exporting it ...")
    out = scratch / f"measured{side}.fmb"
    labels = trailcam(options.data)
    command = python("benchmarks.material", labels, out, "--side", str(side))
    done = subprocess.run(command, cwd="/", env=environment(scratch), capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        sys.exit(f"the bundle could not be made: {done.stderr.strip()[-400:]}")
    return out


def for_runtime(original: Path, runtime: str, scratch: Path) -> Path | None:
    """The same bundle, admitted on one runtime alone, so that the agent chooses it; None if it failed there."""
    opened = bundles.open_bundle(original)
    admitted = tuple(entry for entry in opened.manifest.runtimes if entry.name == runtime)
    if not admitted:
        return None
    out = scratch / f"{runtime}.fmb"
    keys = key_folder.load_or_create(scratch / "keys")
    bundles.write_bundle(out, replace(opened.manifest, runtimes=admitted), opened.files, keys.signing, keys.root)
    return out


def device(bundle_file: Path, folder: Path) -> slots.Slot:
    """A device root in ``folder`` that runs the bundle."""
    folder.mkdir()
    slots.install(folder, bundle_file)
    return slots.current(folder)


def plan(root: Path, photos: Path, log: Path, power: Power) -> Plan:
    """What ``fieldmark watch --once`` on that device would have the agent do."""
    slot = slots.current(root)
    return Plan(
        device=slots.device_id(root),
        slot=slot.path,
        digest=slot.digest,
        development=slot.development,
        sources=(Source(photos),),
        log=log,
        agent=Agent(settle_s=0.0),
        once=True,
        patience_s=0.0,
        power=power,
        upkeep=config_upkeep.defaults(root),
    )


def main() -> None:
    """The child that trains and exports: TensorFlow must not be in the process that measures."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.material")
    options.add_argument("labels", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--side", type=int, required=True)
    _make(options.parse_args())


def _make(options: argparse.Namespace) -> None:
    from trainer.quiet import silence

    silence()
    from trainer.export import Options, export
    from trainer.gate import Limits
    from trainer.progress import Steps
    from trainer.settings import HEAD_ONLY, Settings
    from trainer.train import train

    labels = few(options.labels, PHOTOS_PER_LABEL, options.out.with_suffix(".csv"))
    settings = Settings(side=options.side, learn=HEAD_ONLY, sequence_column="neardup_group")
    steps = Steps(quiet=True)
    run = train(labels, options.out.with_suffix(".run"), settings, steps)
    everything = Limits(agreement=0.0, lost_share=1.0, held_disagreements=10**6)
    export(run.folder, options.out, Options(variant="int8", limits=everything), steps)


if __name__ == "__main__":
    main()
