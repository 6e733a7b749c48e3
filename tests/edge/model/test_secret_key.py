"""Secret key files: what minisign writes we read, what we write minisign reads, and a wrong one says so."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import TrustError
from edge.model import secret_key
from edge.model.secret_key import DEFAULT_COST, Cost
from tests.fakes import tiny

CHEAP = Cost(32768, 2**20)
PASSPHRASE = "füchse im Wald".encode()
OPEN = secret_key.secret_file(tiny.KEY)
LOCKED = secret_key.secret_file(tiny.KEY, PASSPHRASE, CHEAP)
DATA, COMMENT = b"what is signed\n", "fieldmark-bundle tiny 7"


def _blob(data: bytes) -> bytearray:
    return bytearray(base64.b64decode(data.split(b"\n")[1]))


def _with(data: bytes, at: int, change: bytes) -> bytes:
    """The file with some bytes behind the base64 changed."""
    blob = _blob(data)
    blob[at : at + len(change)] = change
    return data.split(b"\n")[0] + b"\n" + base64.b64encode(blob) + b"\n"


def _limits(operations: int, memory_bytes: int) -> bytes:
    return _with(LOCKED, 38, operations.to_bytes(8, "little") + memory_bytes.to_bytes(8, "little"))


def _forbidden() -> bytes:
    raise AssertionError("nobody was to be asked")


def _code(data: bytes, passphrase: secret_key.Ask | None = lambda: PASSPHRASE) -> str:
    """The code of the refusal, which is one line that names the file."""
    with pytest.raises(TrustError, match=r"^release\.key") as caught:
        secret_key.parse(data, "release.key", passphrase)
    assert "\n" not in str(caught.value)
    return caught.value.code


# --- with and without a passphrase


def test_a_key_without_passphrase_reads_back_and_asks_nobody() -> None:
    assert secret_key.parse(OPEN, "release.key", _forbidden) == tiny.KEY
    assert not secret_key.is_locked(OPEN, "release.key")


def test_a_key_with_a_passphrase_reads_back_with_it() -> None:
    assert secret_key.parse(LOCKED, "release.key", lambda: PASSPHRASE) == tiny.KEY
    assert secret_key.is_locked(LOCKED, "release.key")


def test_a_passphrase_hides_the_secret_differently_each_time() -> None:
    again = secret_key.secret_file(tiny.KEY, PASSPHRASE, CHEAP)
    assert _blob(again)[54:] != _blob(LOCKED)[54:]
    for data in (LOCKED, again):
        assert tiny.KEY.seed[:4] not in bytes(_blob(data))
        assert tiny.KEY.public.raw[:4] not in bytes(_blob(data))


@pytest.mark.parametrize(
    "passphrase",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(PASSPHRASE.lower(), id="in small letters"),
        pytest.param(PASSPHRASE + b"\n", id="with its line end"),
        pytest.param(PASSPHRASE[:-1], id="without its last letter"),
        pytest.param("fu\u0308chse im Wald".encode(), id="in another form of Unicode"),
        pytest.param(b"x" * 5000, id="far too long"),
    ],
)
def test_a_wrong_passphrase_says_so(passphrase: bytes) -> None:
    assert _code(LOCKED, lambda: passphrase) == "passphrase"


def test_a_key_with_a_passphrase_that_nobody_gives_says_so() -> None:
    assert _code(LOCKED, None) == "passphrase"


@pytest.mark.parametrize(
    "passphrase",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x" * 1001, id="longer than minisign reads"),
        pytest.param(b"a\nb", id="of two lines"),
        pytest.param(b"a\0b", id="with a zero byte, at which minisign would end it"),
    ],
)
def test_a_passphrase_that_minisign_could_not_take_is_refused_for_a_new_key(passphrase: bytes) -> None:
    with pytest.raises(TrustError) as caught:
        secret_key.secret_file(tiny.KEY, passphrase, CHEAP)
    assert caught.value.code == "passphrase"


# --- damage


def test_a_key_without_passphrase_that_was_damaged_is_refused_at_every_byte() -> None:
    used = [*range(6), *range(54, len(_blob(OPEN)))]  # between them is what a passphrase would use
    for place in used:
        assert _code(_with(OPEN, place, bytes([_blob(OPEN)[place] ^ 1])), _forbidden) == "secret key"


def test_no_damaged_byte_gives_another_key() -> None:
    for place in range(len(_blob(LOCKED))):
        altered = _with(LOCKED, place, bytes([_blob(LOCKED)[place] ^ 0x41]))
        if 38 <= place < 54 and _opens(altered):
            continue  # the limits are others, and amount to the same
        assert _code(altered) in ("secret key", "passphrase", "cost")


def _opens(data: bytes) -> bool:
    try:
        return secret_key.parse(data, "release.key", lambda: PASSPHRASE) == tiny.KEY
    except TrustError:
        return False


FORMS = [
    pytest.param(b"", id="nothing"),
    pytest.param(LOCKED[:-1], id="no newline at the end"),
    pytest.param(LOCKED + b"\n", id="a line more"),
    pytest.param(LOCKED.replace(b"\n", b"\r\n"), id="line ends of Windows"),
    pytest.param(LOCKED.replace(b"untrusted comment: ", b""), id="no comment"),
    pytest.param(_with(LOCKED, 0, b"RS"), id="another algorithm"),
    pytest.param(_with(LOCKED, 2, b"Ar"), id="another way to hide the secret"),
    pytest.param(_with(LOCKED, 4, b"\0\0"), id="another checksum"),
    pytest.param(LOCKED.replace(b"\n", b"\n ", 1), id="a space before the base64"),
    pytest.param(tiny.KEY.public.minisign.encode(), id="a public key"),
]


@pytest.mark.parametrize("data", FORMS)
def test_what_is_no_secret_key_is_refused_before_anybody_is_asked(data: bytes) -> None:
    assert _code(data, _forbidden) == "secret key"


@given(st.binary(max_size=400))
def test_any_bytes_are_no_secret_key_and_say_so(data: bytes) -> None:
    assert _code(data, _forbidden) == "secret key"


@given(st.binary(min_size=158, max_size=158))
def test_any_bytes_in_the_right_form_are_refused_with_a_code(blob: bytes) -> None:
    data = b"untrusted comment: x\n" + base64.b64encode(b"Ed\0\0B2" + blob[6:]) + b"\n"
    assert _code(data, _forbidden) == "secret key"


# --- the cost of a guess


@pytest.mark.parametrize(
    ("cost", "n", "p"),
    [
        pytest.param(DEFAULT_COST, 2**20, 1, id="minisign's own"),
        pytest.param(Cost(524_288, 2**24), 2**14, 1, id="libsodium's interactive"),
        pytest.param(CHEAP, 2**10, 1, id="the least operations"),
        pytest.param(Cost(1, 2**20), 2**10, 1, id="fewer operations than the least"),
        pytest.param(Cost(40_000, 2**30), 2**10, 1, id="more memory than the operations fill"),
        pytest.param(Cost(1_000_000, 3 * 2**20 + 17), 2**11, 15, id="more operations than the memory takes"),
        pytest.param(Cost(33_554_432, 2**24), 2**14, 64, id="many passes"),
        pytest.param(Cost(1, 1), 2, 512, id="next to no memory"),
        pytest.param(Cost(128_304, 749_006), 2**9, 7, id="odd numbers"),
    ],
)
def test_a_cost_means_what_libsodium_makes_of_it(cost: Cost, n: int, p: int) -> None:
    assert cost.scrypt == (n, p)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_limits(2**26, 2**31), id="2 GiB"),
        pytest.param(_limits(2**64 - 1, 2**64 - 1), id="all there is"),
        pytest.param(_limits(2**40, 2**20), id="an hour of it"),
        pytest.param(_limits(2**64 - 1, 1), id="for ever in little memory"),
        pytest.param(_limits(2**28, 2**30), id="eight times minisign's operations"),
    ],
)
def test_a_file_that_asks_too_much_is_refused_before_anybody_is_asked(data: bytes) -> None:
    assert _code(data, _forbidden) == "cost"


def test_a_large_limit_of_memory_that_is_not_used_costs_nothing() -> None:
    assert _code(_limits(32768, 2**63), lambda: b"wrong") == "passphrase"


STARVED = """
import resource, sys
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from edge.errors import TrustError
from edge.model import secret_key
from tests.fakes import tiny
tiny.KEY.public
resource.setrlimit(resource.RLIMIT_AS, (900 * 2**20, 900 * 2**20))
try:
    secret_key.secret_file(tiny.KEY, b"words")
except TrustError as error:
    sys.exit(error.code)
"""


def test_too_little_memory_for_a_passphrase_says_so() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", STARVED], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "memory"


ITS_KEY = b"""untrusted comment: minisign encrypted secret key
RWRTY0Iy1FXC5pnpnSMrxpfIcxO/qhCsLAR5+iF8+S6bNm8xACMAAAACAAAAAAAAAEAAAAAAGF+5SkrP/MeVN/Oh3TfWLouk01Xh7PJvMI1spbKyN0w+QfLs\
vcuB5bwmNaZbiH933gpwDySjtiJ7wOfEr8UKp0JKU2q+Io/3QKkEMpHMjJPlPHdLqMlg/SZtJlCW1NMzBHyJR1nlgcw=
"""
ITS_PUBLIC_KEY = "RWQuCTpvzmZEW37ytuqu6o448JWtfAZR2t0fY2CWAhfL51qbGsr4f/TW"


def test_a_key_that_minisign_made_by_itself_opens_and_costs_what_ours_cost() -> None:
    """Made with ``minisign -G`` of version 0.11 for this test, and used for nothing else."""
    assert _blob(ITS_KEY)[38:54] == _blob(_limits(DEFAULT_COST.operations, DEFAULT_COST.memory_bytes))[38:54]
    assert secret_key.parse(ITS_KEY, "its.key", lambda: b"secret words").public.minisign == ITS_PUBLIC_KEY


# --- the minisign program, which reads passphrases from stdin


def _minisign(folder: Path, *arguments: str, typed: str = "", memory_kib: int | None = None) -> None:
    """Run it, where asked with so little memory that it makes cheap keys."""
    limit = ["sh", "-c", f'ulimit -v {memory_kib}; exec "$@"', "sh"] if memory_kib else []
    done = subprocess.run(
        [*limit, "minisign", *arguments], cwd=folder, input=typed.encode(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.needs("minisign")
@pytest.mark.parametrize(
    ("passphrase", "cost"),
    [
        pytest.param(None, None, id="without a passphrase"),
        pytest.param(PASSPHRASE, CHEAP, id="with a passphrase"),
        pytest.param(PASSPHRASE, Cost(10**6, 2**21), id="at an odd cost"),
        pytest.param(b"x" * 1000, CHEAP, id="with the longest passphrase"),
    ],
)
def test_minisign_signs_with_our_secret_key_just_as_we_do(
    tmp_path: Path, passphrase: bytes | None, cost: Cost | None
) -> None:
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "our.key").write_bytes(secret_key.secret_file(tiny.KEY, passphrase, cost))
    options = ("-S", "-s", "our.key", "-m", "data", "-c", "fieldmark", "-t", COMMENT)
    _minisign(tmp_path, *options, typed=f"{(passphrase or b'').decode()}\n")
    assert (tmp_path / "data.minisig").read_bytes() == tiny.KEY.sign(DATA, COMMENT)


def _public(folder: Path) -> str:
    return (folder / "its.pub").read_text().splitlines()[1]


@pytest.mark.needs("minisign")
def test_we_read_a_secret_key_that_minisign_made_without_a_passphrase(tmp_path: Path) -> None:
    _minisign(tmp_path, "-G", "-W", "-s", "its.key", "-p", "its.pub")
    key = secret_key.parse((tmp_path / "its.key").read_bytes(), "its.key")
    assert key.public.minisign == _public(tmp_path)
    comment = (tmp_path / "its.pub").read_text().splitlines()[0]
    assert int(comment.rsplit(" ", 1)[1], 16) == int(key.key_id, 16)  # minisign prints no leading zeros


@pytest.mark.needs("minisign")
def test_we_read_a_secret_key_that_minisign_made_with_a_passphrase(tmp_path: Path) -> None:
    typed = f"{PASSPHRASE.decode()}\n" * 2
    _minisign(tmp_path, "-G", "-s", "its.key", "-p", "its.pub", typed=typed, memory_kib=100_000)
    data = (tmp_path / "its.key").read_bytes()
    assert _code(data, lambda: b"wrong").startswith("passphrase")
    key = secret_key.parse(data, "its.key", lambda: PASSPHRASE)
    assert key.public.minisign == _public(tmp_path)


@pytest.mark.needs("minisign")
def test_minisign_changes_the_passphrase_of_our_key(tmp_path: Path) -> None:
    (tmp_path / "our.key").write_bytes(LOCKED)
    _minisign(tmp_path, "-C", "-s", "our.key", typed=f"{PASSPHRASE.decode()}\nnew\nnew\n", memory_kib=100_000)
    data = (tmp_path / "our.key").read_bytes()
    assert secret_key.parse(data, "our.key", lambda: b"new") == tiny.KEY
