"""How many acknowledged photos do power cuts cost? The agent as it is, and three that sync less than it does.

An ext4 file system in a file is shut down under a running agent while photos arrive (``FS_IOC_SHUTDOWN`` without a
flush of the journal), copied, mounted again, and the log compared with what the agent had said to be durable; then the
agent starts again, takes the rest, and log and disk are compared once more. The same for installations. The harness is
that of ``tests/faults``. Needs root, loop devices and, for one of the controls, ``eatmydata``. A second or two a cut.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.report import Claim, Result
from tests import colour_model
from tests.faults import clients, power
from tests.faults.clients import Tally
from tests.fixtures_models import SIDE, write_bundle

CUTS, INSTALLATIONS, CONTROL_CUTS = 300, 100, 20
_CUTS_PER_DISK = 10
_CONTROL_LOSES = 0.5
"""The least share of its cuts that a control must lose something in, or the harness proves nothing. Not all of them:
what the file system's journal, which writes every 5 s, happened to write in time is kept."""


def main() -> None:
    """The command."""
    options = report.parser("power_cuts", __doc__)
    options.add_argument("--cuts", type=int, default=CUTS, help="of the agent")
    options.add_argument("--installations", type=int, default=INSTALLATIONS, help="that are cut")
    options.add_argument("--controls", type=int, default=CONTROL_CUTS, help="of each agent that syncs less")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    model = colour_model.build(SIDE, SIDE)
    first, second = (write_bundle(scratch / f"tiny-{i}.fmb", model, sequence=i) for i in (7, 8))
    try:
        image = clients.device_image(scratch / "device.img", first, scratch / "disk")
        blank = clients.device_image(scratch / "blank.img", None, scratch / "disk")
    except OSError as error:
        sys.exit(f"no file system can be made and mounted here: {error}")
    agent = _agent(image, scratch, options.cuts)
    installer = _installer((image, blank), second, scratch, options.installations)
    controls = {way: _control(image, way, scratch, options.controls) for way in clients.ALTERED}
    faults = agent.faults + installer.faults
    claims = [
        Claim("acknowledged photos that power cuts cost", agent.lost, most=0),
        Claim("differences between log and disk after the next start", len(agent.faults), most=0),
        Claim("cut installations that left no whole bundle, or lost a finished one", installer.losing, most=0),
        *(
            Claim(f"cuts that cost photos, control with {way}", each.losing / each.cuts, "%", least=_CONTROL_LOSES)
            for way, each in controls.items()
            if each.cuts
        ),
    ]
    detail = {"agent": _facts(agent), "installer": _facts(installer), "faults": faults[:20]}
    return Result("power_cuts", claims, {}, detail | {way: _facts(each) for way, each in controls.items()})


def _agent(image: Path, scratch: Path, cuts: int) -> Tally:
    """Every third disk holds the photos, too."""
    tally, at = Tally(), scratch / "disk"
    for disk, start in enumerate(range(0, cuts, _CUTS_PER_DISK)):
        report.say(f"cut {start} of {cuts}, {tally.lost} photos lost ...")
        folder = at / "photos" if disk % 3 == 2 else scratch / f"photos{disk}"
        copy = power.copy_image(image, scratch / "cut.img")
        tally += clients.cut_agent(copy, at, folder, seed=disk, cuts=min(_CUTS_PER_DISK, cuts - start))
        shutil.rmtree(folder, ignore_errors=True)
    return tally


def _installer(images: tuple[Path, Path], bundle: Path, scratch: Path, cuts: int) -> Tally:
    """By turns a later installation and a first one."""
    report.say(f"{cuts} installations ...")
    tally = Tally()
    for cut in range(cuts):
        copy = power.copy_image(images[cut % 2], scratch / "cut.img")
        tally += clients.cut_installer(copy, scratch / "disk", bundle, seed=cut)
    return tally


def _control(image: Path, way: str, scratch: Path, cuts: int) -> Tally:
    if not any(clients.ALTERED[way]) and shutil.which("eatmydata") is None:
        return Tally()
    report.say(f"{cuts} cuts with {way} ...")
    copy = power.copy_image(image, scratch / "control.img")
    return clients.cut_altered_agent(copy, scratch / "disk", scratch / "photos", way, seed=0, cuts=cuts)


def _facts(tally: Tally) -> dict[str, int]:
    return {"cuts": tally.cuts, "acknowledged": tally.promised, "lost": tally.lost, "cuts that lost": tally.losing}


if __name__ == "__main__":
    main()
