"""Bring a bundle to a device. Decides what a target is; the installation itself is ``edge.agent.slots``'."""

from __future__ import annotations

import re
from pathlib import Path

from edge.agent import slots
from edge.errors import DeviceError


def flash(
    bundle: Path, target: str, *, trust_root: Path | None = None, check: slots.Check | None = None
) -> slots.Installed:
    """Install a bundle into a device root.

    Args:
        bundle: the ``.fmb`` file.
        target: a device root folder, such as a mounted card's; made where only its last part is missing.
        trust_root: a root file to enrol a new device with, instead of the one in the bundle.
        check: as :func:`edge.agent.slots.install`.

    Raises:
        DeviceError: with code ``target`` where it is no folder that can be reached.
        FieldmarkError: as :func:`edge.agent.slots.install`.
    """
    return slots.install(_folder(target), bundle, trust_root=trust_root, check=check)


def _folder(target: str) -> Path:
    path = Path(target)
    if not target.strip() or "\0" in target:
        raise DeviceError("the target has no name. Name a device root folder.", code="target")
    if not path.exists() and re.fullmatch(r"[\w.-]+@[\w.:\[\]-]+(:.*)?", target):
        raise DeviceError(
            f"{target} looks like a device on the network, which this version cannot reach. "
            "Mount its card and name the folder.",
            code="target",
        )
    if path.exists() and not path.is_dir():
        raise DeviceError(f"{target} is not a folder. Name a mounted card or a device root.", code="target")
    if not path.exists() and not path.absolute().parent.is_dir():
        raise DeviceError(f"{target} is not there, nor the folder above it. Is the card mounted?", code="target")
    return path
