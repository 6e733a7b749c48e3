"""Where a passphrase comes from: a file that somebody named, or a person at a terminal.

Only a command line calls this; everything below it takes a function that gives the passphrase. Never shows one, and
takes none from an option or a variable, where other users and the shell's history see it.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
from pathlib import Path

from edge.errors import TrustError
from edge.model import key_folder, secret_key

VARIABLE = "FIELDMARK_PASSPHRASE_FILE"
_MAX_FILE_BYTES = 4096


def unlock(file: Path | None = None, *, key_dir: Path | None = None, make: bool = False) -> key_folder.Keys:
    """The workstation's keys, ready to sign. Call it before long work: it may ask at the terminal, once.

    Args:
        file: holds the passphrase; ``$FIELDMARK_PASSPHRASE_FILE`` if None. Read only where the key has a passphrase.
        key_dir: :func:`edge.model.key_folder.default_key_dir` if None.
        make: where there are no keys, make a development key. Not where ``file`` or the variable names a passphrase:
            whoever has one expects a key that has it.

    Raises:
        TrustError: as :func:`edge.model.key_folder.load_or_create`; with code ``passphrase`` where it is needed and
            there is neither file nor terminal, or as :func:`read_file`.
    """
    file = file or _named()

    def ask() -> bytes:
        return read_file(file) if file else _ask_once()

    if make and file is None:
        return key_folder.load_or_create(key_dir, ask)
    return key_folder.load_keys(key_dir or key_folder.default_key_dir(), ask)


def choose(file: Path | None = None) -> bytes:
    """A passphrase for a new key: the file's, else asked for twice at the terminal.

    Raises:
        TrustError: with code ``passphrase`` where there is neither, or it cannot be used, or as :func:`read_file`.
    """
    if file is not None:
        return read_file(file)
    if not _is_terminal():
        raise TrustError(
            "a new key needs a passphrase, and there is no terminal to ask at. Name a file that holds one with "
            "--passphrase-file FILE, or make a development key with --no-passphrase.",
            code="passphrase",
        )
    first = _ask("Passphrase for the new key: ")
    secret_key.check_passphrase(first, "the passphrase")
    if _ask("The same again: ") != first:
        raise TrustError("the two passphrases differ. Try again.", code="passphrase")
    return first


def read_file(path: Path) -> bytes:
    """The first line of a file, without its end.

    Raises:
        TrustError: with code ``mode`` where others may read it; ``passphrase`` where it cannot be read, is larger than
            4 KiB, or its first line is empty or too long.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise TrustError(f"{path} may be read by others. Run: chmod 600 {path}", code="mode")
            data = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise TrustError(
            f"{path} cannot be read: {reason}. Name the file of the passphrase.", code="passphrase"
        ) from error
    if len(data) > _MAX_FILE_BYTES:
        raise TrustError(f"{path} has more than {_MAX_FILE_BYTES} bytes; is it the passphrase?", code="passphrase")
    passphrase = data.split(b"\n")[0].removesuffix(b"\r")
    secret_key.check_passphrase(passphrase, f"the first line of {path}")
    return passphrase


def _named() -> Path | None:
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def _ask_once() -> bytes:
    if not _is_terminal():
        raise TrustError(
            "the signing key has a passphrase, and there is no terminal to ask at. Name a file that holds it with "
            f"--passphrase-file FILE or {VARIABLE}.",
            code="passphrase",
        )
    return _ask("Passphrase of the signing key: ")


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _ask(prompt: str) -> bytes:
    try:
        return getpass.getpass(prompt).encode("utf-8", "surrogateescape")
    except (EOFError, UnicodeError) as error:
        raise TrustError("no passphrase was typed. Try again.", code="passphrase") from error
