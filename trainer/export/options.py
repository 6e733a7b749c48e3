"""How to export, and what is refused before the minutes of work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge.errors import ConfigError, DataError
from edge.model import bundle, runtime
from trainer.gate import Limits

AUTO = "auto"


@dataclass(frozen=True)
class Options:
    """How to export.

    Attributes:
        name: of the bundle; made from the run's folder or the model's file if None.
        sequence: higher replaces lower; the run's end in minutes since 1970 if None.
        threshold: probability below which no label is given; the run's thresholds if None.
        data_licence, weights_licence: for the manifest; the latter only of a model trained elsewhere.
        variant: one of :data:`edge.model.bundle.VARIANTS`, or ``auto`` for the first of them that passes the gate.
        require: names of runtimes on which a variant must pass.
        limits: of the gate.
        emulate: also run the device's wheels for ``aarch64`` under emulation.
        originals: let up to three original photos travel with the bundle, to try the device's decoder.
        passphrase_file: holds the passphrase of the signing key.
    """

    name: str | None = None
    sequence: int | None = None
    threshold: float | None = None
    data_licence: str | None = None
    weights_licence: str | None = None
    variant: str = AUTO
    require: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    emulate: bool = False
    originals: bool = True
    passphrase_file: Path | None = None

    @property
    def variants(self) -> tuple[str, ...]:
        """Those to try, in that order."""
        return bundle.VARIANTS if self.variant == AUTO else (self.variant,)


def check(options: Options) -> None:
    """Refuse what the bundle would refuse.

    Raises:
        ConfigError: an option is out of range.
    """
    if options.name is not None and not re.fullmatch(bundle.NAME, options.name):
        raise ConfigError(
            f"the bundle's name is {options.name!r}; expected at most 64 of a-z 0-9 . _ -, the first a-z or 0-9."
        )
    if options.sequence is not None and options.sequence < 1:
        raise ConfigError(f"sequence is {options.sequence}, expected at least 1. Leave it out for the run's end.")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise ConfigError(f"threshold is {options.threshold}, expected 0 to 1.")
    for what, licence in (("data", options.data_licence), ("weights", options.weights_licence)):
        if licence is not None and not licence.strip():
            raise ConfigError(f"the {what} licence is empty. Give its SPDX name, such as CC-BY-4.0, or leave it out.")
    _check_name("variant", options.variants, bundle.VARIANTS)
    _check_name("runtime", options.require, [each.name for each in runtime.installed()])


def _check_name(what: str, found: Sequence[str], known: Sequence[str]) -> None:
    for name in found:
        if name not in known:
            raise ConfigError(f"the {what} {name!r} is not to be had here, expected one of {', '.join(known)}.")


def check_out(out: Path) -> None:
    """Refuse a place where no bundle can be written.

    Raises:
        DataError: it has another ending, or its folder is not there.
    """
    if out.suffix != bundle.SUFFIX:
        raise DataError(f"{out}: a bundle's name ends in {bundle.SUFFIX}.")
    if not out.parent.is_dir():
        raise DataError(f"{out.parent} is no folder. Make it first.")


def bundle_name(folder: str) -> str:
    """A bundle name made from a folder's: lower case, anything else becomes a hyphen."""
    return re.sub(r"[^a-z0-9._]+", "-", folder.lower()).strip("-._")[:64] or "model"
