"""Attacks on the manifest: signed by the key that the device trusts, and still not in the form.

A faulty exporter and a stolen key make the same file. Every object and every value of a real manifest is visited, so
that a key added later is attacked as well.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge.errors import BundleError, ModelError
from edge.model import bundle as bundles
from edge.model import strict, trust
from tests.fakes import tiny
from tests.hostile import device as hostile
from tests.hostile.device import Device

Way = tuple[str | int, ...]
MANIFEST: dict[str, Any] = tiny.manifest(name="fox", sequence=2).content()
FREE: dict[Way, str] = {
    ("gate_limits",): "text",
    ("op_versions",): "text",
    ("health",): "text",
    ("provenance", "metrics"): "text",
}
"""Objects whose keys are names that the maker chooses; an unknown one is refused where it is no such name."""
ROOT: dict[str, Any] = json.loads(tiny.signed_root().data)


def _objects(value: Any, way: Way = ()) -> Iterator[Way]:
    """The way to each object inside a value, itself first."""
    if isinstance(value, dict):
        yield way
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, below in inner:
        yield from _objects(below, (*way, key))


def _at(content: Any, way: Way) -> Any:
    for part in way:
        content = content[part]
    return content


def _named(way: Way) -> str:
    return ".".join(map(str, way)) or "the top"


def _bundle(manifest: bytes) -> bytes:
    return tiny.pack(hostile.signed(manifest, trust.bundle_comment("fox", 2)))


def _twice(value: Any, way: Way, key: str) -> str:
    """JSON in which one key of one object is there twice, with the same value."""
    if not isinstance(value, dict | list | tuple):
        return json.dumps(value)
    if not isinstance(value, dict):
        return f"[{', '.join(_twice(below, _below(way, i), key) for i, below in enumerate(value))}]"
    pairs = [f"{json.dumps(name)}: {_twice(below, _below(way, name), key)}" for name, below in value.items()]
    pairs += [f"{json.dumps(key)}: {json.dumps(value[key])}"] if way == () else []
    return f"{{{', '.join(pairs)}}}"


def _below(way: Way, part: str | int) -> Way:
    return way[1:] if way[:1] == (part,) else ("nowhere",)


OBJECTS = [pytest.param(way, id=_named(way)) for way in _objects(MANIFEST)]


def test_the_walk_meets_every_object_of_the_format() -> None:
    kinds = {tuple("*" if isinstance(part, int) else part for part in way) for way in _objects(MANIFEST)}
    inner = {("labels", "*"), ("input",), ("runtimes", "*"), ("golden", "*"), ("provenance",), ("files", "*")}
    assert kinds == {(), *inner, *FREE}


@pytest.mark.parametrize("way", OBJECTS)
@pytest.mark.parametrize("key", ["colour hue", "Name", "", "__class__", "name\0"])
def test_an_unknown_key_at_any_level_is_refused(device: Device, way: Way, key: str) -> None:
    content = copy.deepcopy(MANIFEST)
    _at(content, way)[key] = 1
    assert device.refuse(_bundle(strict.dump(content))).code == FREE.get(way, "unknown key")


@pytest.mark.parametrize("way", OBJECTS)
def test_a_duplicate_key_at_any_level_is_refused(device: Device, way: Way) -> None:
    for key in _at(MANIFEST, way):
        data = _twice(MANIFEST, way, key).encode()
        assert json.loads(data) == json.loads(strict.dump(MANIFEST))  # a careless reader sees nothing
        assert device.refuse(_bundle(data)).code == "duplicate key", key


@pytest.mark.parametrize("way", [way for way in OBJECTS if way.values[0] not in FREE])
def test_a_missing_key_at_any_level_is_refused(device: Device, way: Way) -> None:
    for key in _at(MANIFEST, way):
        content = copy.deepcopy(MANIFEST)
        del _at(content, way)[key]
        assert device.refuse(_bundle(strict.dump(content))).code == "missing key", key


@pytest.mark.parametrize("way", OBJECTS)
def test_a_value_of_another_type_at_any_place_is_refused(device: Device, way: Way) -> None:
    for key, right in _at(MANIFEST, way).items():
        others: list[Any] = [[[]], {"a": []}, True, 2**53, -(2**60), 1.5e308, "\ud800"]
        for value in others:
            if type(value) is type(right):
                continue
            content = copy.deepcopy(MANIFEST)
            _at(content, way)[key] = value
            code = device.refuse(_bundle(json.dumps(content).encode())).code
            assert code in {"type", "format", "number", "range", "json"}, (key, value)


# --- values that are of their type and wrong


def _with(way: str, value: object) -> Callable[[], bytes]:
    def made() -> bytes:
        content = json.loads(strict.dump(MANIFEST))
        *outer, last = [int(part) if part.isdigit() else part for part in way.split(".")]
        _at(content, tuple(outer))[last] = value
        return _bundle(strict.dump(content))

    return made


FILES = json.loads(strict.dump(MANIFEST))["files"]
FAULTS = [
    pytest.param(_with("format", 1), "format", id="the format before this one"),
    pytest.param(_with("format", 3), "format", id="a later format"),
    pytest.param(_with("type", "fieldmark-root"), "type", id="the type of a root"),
    pytest.param(_with("thresholds", [0.5, 0.5]), "thresholds", id="a threshold too few"),
    pytest.param(_with("thresholds", [0.5] * 4), "thresholds", id="a threshold too many"),
    pytest.param(_with("golden.0.logits", [200.0, 10.0]), "golden", id="a golden logit too few"),
    pytest.param(_with("golden.1.logits", [10.0, 10.0, 200.0, 0.0]), "golden", id="a golden logit too many"),
    pytest.param(_with("golden.0.label", "blue"), "golden", id="a golden label against its logits"),
    pytest.param(_with("golden.0.label", "fox"), "golden", id="a golden label that the model does not have"),
    pytest.param(_with("golden.0.file", "golden/none.png"), "golden", id="a golden photo that is not there"),
    pytest.param(_with("golden.0.file", "golden/blue.png"), "golden", id="a golden photo twice"),
    pytest.param(_with("labels.1.name", "red"), "labels", id="a label twice"),
    pytest.param(_with("labels", [{**MANIFEST["labels"][0]}]), "range", id="one label alone"),
    pytest.param(_with("created", "2026-02-30T00:00:00Z"), "created", id="a day that is none"),
    pytest.param(_with("created", "٢٠٢٦-٠٥-٠١T١٢:٠٠:٠٠Z"), "created", id="a date in other digits"),
    pytest.param(_with("input.resample", "nearest"), "input", id="a resampling that there is not"),
    pytest.param(_with("variant", "int4"), "text", id="a variant that there is not"),
    pytest.param(_with("runtimes.0.kernels", "fast"), "text", id="kernels that there are not"),
    pytest.param(_with("runtimes.1", MANIFEST["runtimes"][0]), "runtimes", id="a runtime twice"),
    pytest.param(_with("rollup", 1.5), "range", id="a roll-up over one"),
    pytest.param(_with("golden_mean_tolerance", -1), "range", id="a negative tolerance"),
    pytest.param(_with("files.0.sha256", FILES[1]["sha256"]), "digest", id="the digest of another file"),
    pytest.param(_with("files.0.sha256", "0" * 64), "digest", id="a digest of nought"),
    pytest.param(_with("files.0.sha256", FILES[0]["sha256"].upper()), "text", id="a digest in capitals"),
    pytest.param(_with("files.0.length_bytes", FILES[0]["length_bytes"] + 1), "size", id="a byte too long"),
    pytest.param(_with("files.0.length_bytes", FILES[0]["length_bytes"] - 1), "size", id="a byte too short"),
    pytest.param(_with("files.0.length_bytes", 2**29 + 1), "range", id="a file over 512 MiB"),
    pytest.param(_with("files", FILES[1:]), "files", id="no model"),
    pytest.param(_with("files.1.path", "../../../../etc/passwd"), "text", id="a file that climbs out"),
    pytest.param(_with("files.1.path", "/etc/passwd"), "text", id="a file with an absolute path"),
    pytest.param(_with("files.1.path", "manifest.json/red.png"), "files", id="a folder in the manifest's place"),
    pytest.param(_with("files.1.path", "model.tflite/red.png"), "files", id="a folder in the model's place"),
    pytest.param(_with("files.1.path", "roots/red.png"), "files", id="a file among the roots"),
    pytest.param(_with("files", FILES + [{**FILES[1], "path": f"f{i}"} for i in range(300)]), "range", id="303 files"),
    pytest.param(_with("files", [FILES[0], FILES[2], FILES[1]]), "order", id="files in another order"),
    pytest.param(_with("files", FILES[:2]), "golden", id="a golden photo that is no file"),
    pytest.param(
        _with("files", [*FILES, {**FILES[1], "path": "more.png"}]), "missing member", id="a file that is not there"
    ),
    pytest.param(_with("name", "badger"), "comment", id="the name of another bundle"),
    pytest.param(_with("sequence", 3), "comment", id="the sequence of another bundle"),
    pytest.param(lambda: _bundle(b""), "json", id="no manifest"),
    pytest.param(lambda: _bundle(b"[]"), "type", id="a list"),
    pytest.param(lambda: _bundle(b"null"), "type", id="null"),
    pytest.param(lambda: _bundle(b"[" * 500_000), "json", id="nested half a million deep"),
    pytest.param(lambda: _bundle(b'{"a":' * 200_000), "json", id="objects in objects"),
    pytest.param(lambda: _bundle(strict.dump(MANIFEST) + b"{}"), "json", id="two manifests"),
    pytest.param(lambda: _bundle(b"\xef\xbb\xbf" + strict.dump(MANIFEST)), "json", id="a byte order mark"),
    pytest.param(lambda: _bundle(strict.dump(MANIFEST).decode().encode("utf-16")), "json", id="another encoding"),
    pytest.param(lambda: _bundle(b'{"a": 1' + b"0" * 900_000 + b"}"), "number", id="an integer of 900,000 digits"),
    pytest.param(lambda: _bundle(b'{"a": 1e' + b"9" * 900_000 + b"}"), "number", id="an exponent of 900,000 digits"),
    pytest.param(
        lambda: _bundle(b"{" + b",".join(b'"k%d": 0' % i for i in range(80_000)) + b"}"),
        "missing key",
        id="80,000 keys",
    ),
]


@pytest.mark.parametrize(("attack", "code"), FAULTS)
def test_a_signed_manifest_that_is_wrong_is_refused(device: Device, attack: Callable[[], bytes], code: str) -> None:
    assert device.refuse(attack()).code == code


def test_a_model_with_another_number_of_labels_than_the_manifest_is_refused(device: Device, tmp_path: Any) -> None:
    """The last of the three places in which labels are counted: thresholds, golden logits, the model itself."""
    content = json.loads(strict.dump(MANIFEST))
    content["labels"].append({**content["labels"][0], "name": "grey"})
    content["thresholds"].append(0.5)
    for golden in content["golden"]:
        golden["logits"].append(0.0)
    (tmp_path / "fox-2.fmb").write_bytes(_bundle(strict.dump(content)))
    before = tiny.snapshot(device.root)
    with pytest.raises(ModelError) as caught:
        device.install(tmp_path / "fox-2.fmb")
    assert caught.value.code == "labels"
    assert tiny.snapshot(device.root) == before


# --- roots, which are read before anybody is trusted


def _root_bundle(root: bytes) -> bytes:
    """fox-2 with another root, rightly signed with our key."""
    signature = tiny.KEY.sign(root, trust.root_comment(1))
    replaced = {"roots/1.json": root, f"roots/1.{tiny.KEY.key_id}.minisig": signature}
    return tiny.pack((name, replaced.get(name, data)) for name, data in hostile.fox_members())


ROOT_OBJECTS = [pytest.param(way, id=_named(way)) for way in _objects(ROOT)]


@pytest.mark.parametrize("way", ROOT_OBJECTS)
def test_an_unknown_key_at_any_level_of_a_root_is_refused(device: Device, way: Way) -> None:
    content = copy.deepcopy(ROOT)
    _at(content, way)["colour"] = 1
    assert device.refuse(_root_bundle(strict.dump(content))).code == ("text" if way == ("keys",) else "unknown key")


@pytest.mark.parametrize("way", ROOT_OBJECTS)
def test_a_duplicate_key_at_any_level_of_a_root_is_refused(device: Device, way: Way) -> None:
    for key in _at(ROOT, way):
        assert device.refuse(_root_bundle(_twice(ROOT, way, key).encode())).code == "duplicate key"


@pytest.mark.parametrize("way", ROOT_OBJECTS)
def test_a_missing_key_at_any_level_of_a_root_is_refused(device: Device, way: Way) -> None:
    for key in _at(ROOT, way):
        content = copy.deepcopy(ROOT)
        del _at(content, way)[key]
        assert device.refuse(_root_bundle(strict.dump(content))).code == (
            "root keys" if way == ("keys",) else "missing key"
        )


# --- how a manifest is taken apart and no further


def test_a_manifest_is_not_even_parsed_before_its_signature_holds(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(data: bytes, where: str) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(bundles, "parse_manifest", forbidden)
    unsigned = [(name, b"[" * 9 if name == bundles.MANIFEST else data) for name, data in hostile.fox_members()]
    assert device.refuse(tiny.pack(unsigned)).code == "signature"
    assert device.refuse(tiny.pack(hostile.fox_members(key=tiny.OTHER_KEY))).code == "foreign key"


def test_a_model_is_not_run_before_every_byte_of_the_file_was_checked(device: Device) -> None:
    """The last byte of the file is wrong, and `Device.refuse` sees that nothing of it was tried."""
    assert device.refuse(hostile.fox(2)[:-1] + b"x").code == "padding"
    assert device.steps == hostile.UNTRIED


def test_no_message_shows_what_could_steer_a_terminal() -> None:
    for data in (b'{"\\u001b[2J": 1}', b'{"type": "\\u001b]0;x\\u0007"}', b'{"a\\n": 1, "a\\n": 2}'):
        with pytest.raises(BundleError) as caught:
            bundles.parse_manifest(data)
        assert str(caught.value).isprintable()
