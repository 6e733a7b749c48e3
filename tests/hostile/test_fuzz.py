"""Whatever is read, it is refused with one of our errors and a documented code, or it is what was signed.

Four readers: the archive, the manifest, a signature, a root. Random bytes, and real files changed in the ways that
matter to each. How many examples: tests/scale.py.
"""

from __future__ import annotations

import base64
import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import FieldmarkError, TrustError
from edge.model import archive, strict, trust
from edge.model import bundle as bundles
from tests import scale
from tests.fakes import tiny
from tests.fakes.tiny import Member
from tests.hostile import device as hostile
from tests.hostile import reference

MEMBERS = hostile.fox_members()
FOX_2 = hostile.fox(2)
WITHOUT_ROOTS = tiny.pack(member for member in MEMBERS if not member[0].startswith("roots/"))
MANIFEST, SIGNATURE = MEMBERS[0][1], MEMBERS[1][1]
SIGNED_ROOT = tiny.signed_root()
LONGEST_S = 2.0
"""Of processor time for one file: what takes longer on a workstation stops a Pi."""
MIB = 2**20

fuzzed = settings(max_examples=scale.count("fuzzed_files"))


@contextmanager
def _only_our_errors() -> Iterator[list[str]]:
    """Let a documented refusal pass, and nothing else, and nothing slow."""
    codes: list[str] = []
    gc.disable()  # after some thousand examples, collecting Hypothesis's own objects takes seconds
    start, refusal = time.process_time(), None
    try:
        yield codes
    except FieldmarkError as error:
        refusal = error
    finally:
        spent_s = time.process_time() - start
        gc.enable()
    if refusal is not None:
        assert refusal.code in reference.codes()
        assert "\n" not in str(refusal)
        codes.append(refusal.code)
    assert spent_s < LONGEST_S


def _accepted_only_as_signed(data: bytes) -> None:
    """The roots alone may be left out: a device that is enrolled needs none."""
    with _only_our_errors():
        assert hostile.read(data) == tiny.payload()
        assert data in (FOX_2, WITHOUT_ROOTS)


# --- the archive

NAMES = st.sampled_from([name for name, _ in MEMBERS]) | st.text(max_size=12) | st.just("../../etc/passwd")
CONTENT = st.binary(max_size=700) | st.sampled_from([data for _, data in MEMBERS])


@st.composite
def _block(draw: st.DrawFn) -> bytes:
    """A header, honest or with some field put in it and its checksum made right again."""
    name, size = draw(NAMES), draw(st.integers(0, 9000))
    block = bytearray(archive.header("x", size))
    block[:100] = name.encode("utf-8", "replace")[:100].ljust(100, b"\0")
    for start, end in draw(st.lists(st.sampled_from([(100, 124), (124, 136), (136, 148), (156, 257), (257, 512)]))):
        field = draw(st.binary(max_size=end - start))
        block[start : start + len(field)] = field
    if draw(st.booleans()):
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % (sum(block) % 8**6)
    return bytes(block)


Change = Callable[[list[bytes]], list[bytes]]
PARTS = [part for name, data in MEMBERS for part in archive.member(name, len(data), [data])] + [archive.END]


@st.composite
def _parts(draw: st.DrawFn) -> bytes:
    """fox-2 as headers, contents and padding, some of them changed, moved, doubled or gone."""
    parts = list(PARTS)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(parts) - 1))
        match draw(st.sampled_from(["drop", "double", "move", "block", "content", "flip", "cut", "grow"])):
            case "drop" if len(parts) > 1:
                del parts[at]
            case "double":
                parts.insert(draw(st.integers(0, len(parts))), parts[at])
            case "move":
                parts.insert(draw(st.integers(0, len(parts) - 1)), parts.pop(at))
            case "block":
                parts[at] = draw(_block())
            case "content":
                parts[at] = draw(CONTENT)
            case "flip" if parts[at]:
                place = draw(st.integers(0, len(parts[at]) - 1))
                flipped = parts[at][place] ^ draw(st.integers(1, 255))
                parts[at] = parts[at][:place] + bytes([flipped]) + parts[at][place + 1 :]
            case "cut":
                parts[at] = parts[at][: draw(st.integers(0, len(parts[at])))]
            case _:
                parts[at] += draw(st.binary(max_size=600))
    return b"".join(parts)


@fuzzed
@given(_parts())
def test_a_bundle_taken_apart_and_put_together_is_what_was_signed_or_refused(data: bytes) -> None:
    _accepted_only_as_signed(data)


@fuzzed
@given(st.lists(st.tuples(st.sampled_from(MEMBERS), st.none() | CONTENT), max_size=10))
def test_any_sequence_of_members_is_what_was_signed_or_refused(chosen: list[tuple[Member, bytes | None]]) -> None:
    """Each in our own form, so that nothing but the sequence and the content can be wrong."""
    _accepted_only_as_signed(tiny.pack((name, data if other is None else other) for (name, data), other in chosen))


@fuzzed
@given(st.lists(_block() | st.binary(max_size=600) | st.just(bytes(512)), max_size=6).map(b"".join))
def test_any_blocks_are_refused(data: bytes) -> None:
    with _only_our_errors() as codes:
        hostile.read(data)
    assert codes


# --- the manifest

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS | st.sampled_from([2**53, -1, 0, 1e308, "model.tflite", "../x", "int8", [], {}]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"-",
    b"\xff",
    b"null",
]
BODY: dict[str, Any] = json.loads(MANIFEST)


def _ways(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(found for key, below in inner for found in _ways(below, (*way, key)))]


@st.composite
def _changed_json(draw: st.DrawFn, body: Any) -> bytes:
    """A document with values replaced, taken away, doubled, moved or grown; in the end perhaps as text."""
    made = json.loads(json.dumps(body))
    for _ in range(draw(st.integers(1, 3))):
        ways = _ways(made)[1:]
        if not ways:
            break
        *outer, last = draw(st.sampled_from(ways))
        inner = made
        for part in outer:
            inner = inner[part]
        match draw(st.sampled_from(["replace", "drop", "other", "add", "repeat", "wrap"])):
            case "drop":
                del inner[last]
            case "other":  # a value from elsewhere in the same document
                other = draw(st.sampled_from(ways))
                value = made
                for part in other:
                    value = value[part] if isinstance(value, dict | list) else value
                inner[last] = json.loads(json.dumps(value))
            case "add" if isinstance(inner, dict):
                inner[draw(st.text(max_size=8))] = draw(JSON)
            case "repeat" if isinstance(inner, list):
                inner *= draw(st.sampled_from([2, 3, 300]))
            case "wrap":
                for _ in range(draw(st.sampled_from([1, 20, 80]))):
                    inner[last] = [inner[last]]
            case _:
                inner[last] = draw(JSON)
    return _as_text(draw, made)


def _as_text(draw: st.DrawFn, made: Any) -> bytes:
    data = json.dumps(made, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 3)) == 0:
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 8))
        data = data[:at] + draw(st.sampled_from(TOKENS)) + data[at + length :]
    return data


def _reads_back(data: bytes) -> None:
    with _only_our_errors():
        found = bundles.parse_manifest(data)
        assert bundles.parse_manifest(bundles.manifest_bytes(found)) == found


@fuzzed
@given(_changed_json(BODY))
def test_a_changed_manifest_reads_back_as_it_was_read_or_is_refused(data: bytes) -> None:
    _reads_back(data)


@fuzzed
@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=400))
def test_any_json_and_any_bytes_are_no_manifest(data: bytes) -> None:
    with _only_our_errors() as codes:
        bundles.parse_manifest(data)
    assert codes


@fuzzed
@given(st.lists(st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=4), max_size=30), st.integers(1, 30_000))
def test_repeated_tokens_are_no_manifest(tokens: list[bytes], times: int) -> None:
    """Deep nesting, long strings, long numbers."""
    data = (b"".join(tokens) * times)[:300_000]
    with _only_our_errors() as codes:
        bundles.parse_manifest(data)
    assert codes


# --- signatures


@st.composite
def _changed_signature(draw: st.DrawFn) -> bytes:
    """A signature with some of its bytes changed before the base64 is made again, or its lines."""
    lines = SIGNATURE.split(b"\n")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        if at in (1, 3) and draw(st.booleans()):
            raw = bytearray(base64.b64decode(SIGNATURE.split(b"\n")[at]))
            raw[draw(st.integers(0, len(raw) - 1))] ^= draw(st.integers(0, 255))
            lines[at] = base64.b64encode(raw[: draw(st.sampled_from([len(raw), len(raw), len(raw) - 1]))])
        else:
            cut, length = draw(st.integers(0, len(lines[at]))), draw(st.integers(0, 4))
            lines[at] = lines[at][:cut] + draw(st.binary(max_size=4)) + lines[at][cut + length :]
    return b"\n".join(lines)


@fuzzed
@given(_changed_signature() | st.binary(max_size=400) | st.text(max_size=300).map(str.encode))
def test_a_signature_is_the_right_one_or_refused(data: bytes) -> None:
    with _only_our_errors() as codes:
        found = trust.verify_release(tiny.root(), MANIFEST, data, "a.minisig")
        trust.check_comment(found, trust.bundle_comment("fox", 2), "a.minisig")
    assert bool(codes) == (data != SIGNATURE)


@fuzzed
@given(_changed_signature())
def test_a_signature_that_can_be_taken_apart_has_no_other_form(data: bytes) -> None:
    """No bit of it is free: what was understood gives the same bytes again."""
    with _only_our_errors():
        found = trust.parse_signature(data, "a.minisig")
        blob = base64.b64encode(b"ED" + bytes.fromhex(found.key_id)[::-1] + found.signature)
        comment, both = found.trusted_comment.encode(), base64.b64encode(found.comment_signature)
        lines = [b"untrusted comment: fieldmark", blob, b"trusted comment: " + comment, both, b""]
        assert b"\n".join(lines) == data


# --- roots


def _holds_together(root: trust.Root) -> None:
    assert {key.key_id for key in root.keys.values()} == set(root.keys)
    assert len({key.raw for key in root.keys.values()}) == len(root.keys)
    assert set(root.root_keys) | set(root.release_keys) <= set(root.keys)
    assert 1 <= root.root_threshold <= len(set(root.root_keys)) == len(root.root_keys)
    assert root.release_keys


@fuzzed
@given(_changed_json(json.loads(SIGNED_ROOT.data)) | st.binary(max_size=400))
def test_a_root_holds_together_or_is_refused(data: bytes) -> None:
    with _only_our_errors():
        _holds_together(trust.parse_root(data, "root.json"))


@fuzzed
@given(_changed_json(json.loads(SIGNED_ROOT.data)), st.booleans())
def test_a_root_in_a_bundle_is_the_enrolled_one_or_refused(data: bytes, sign: bool) -> None:
    """Signed by our own key, the one attacker who could. A signature of a root's text is never one of another."""
    right = SIGNED_ROOT.signatures[tiny.KEY.key_id]
    replaced = {
        "roots/1.json": data,
        f"roots/1.{tiny.KEY.key_id}.minisig": tiny.KEY.sign(data, trust.root_comment(1)) if sign else right,
    }
    with _only_our_errors():
        hostile.read(tiny.pack((name, replaced.get(name, content)) for name, content in MEMBERS))
        assert data == SIGNED_ROOT.data


# --- controls


def test_a_reader_that_lets_an_outside_error_through_is_found() -> None:
    with pytest.raises(KeyError), _only_our_errors():
        raise KeyError("thresholds")


def test_a_reader_that_takes_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, LONGEST_S])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    with pytest.raises(AssertionError), _only_our_errors():
        pass


def test_a_code_that_is_not_documented_is_found() -> None:
    with pytest.raises(AssertionError), _only_our_errors():
        raise TrustError("x", code="new")


@pytest.mark.parametrize("depth", [10, 500, 5000, 200_000])
def test_nesting_of_any_depth_is_refused_and_not_a_crash(depth: int) -> None:
    for data in (b"[" * depth, b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        with _only_our_errors() as codes:
            strict.load(data, strict.Refusal(TrustError, "x"), most_bytes=2 * MIB).take("b")
        assert codes
